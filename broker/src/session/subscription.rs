//! One subscription, as fan-out sees it: its place in a log, and how far it is.

use crate::ids::{LogSlot, Seq};

/// A cursor into a log, whatever session it belongs to.
///
/// Invariants: `pending`, and with it `lagging`, only while `live`; `lagging` implies that `cursor` is below the log's
/// head or that the session is about to be sent what is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    pub(crate) log: LogSlot,
    /// Its index among the log's subscribers, or among those that wait for the join; `u32::MAX` before either.
    pub(crate) index: u32,
    /// The next message to send.
    pub(crate) cursor: Seq,
    /// In force: the log is joined.
    pub(crate) live: bool,
    /// In the session's list of those that have something to be sent.
    pub(crate) pending: bool,
    /// Counted by its log as one that was not sent everything in its turn.
    pub(crate) lagging: bool,
    pub(crate) patience: Patience,
}

/// Whether publishers wait for a subscription that is far behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// It is near.
    Near,
    /// They wait for it.
    Awaited,
    /// They waited in vain; until it has caught up nobody does.
    GivenUp,
}

impl Subscription {
    /// One that waits for the join of its log.
    pub(crate) fn waiting(log: LogSlot) -> Self {
        Self {
            log,
            index: u32::MAX,
            cursor: Seq::default(),
            live: false,
            pending: false,
            lagging: false,
            patience: Patience::Near,
        }
    }

    /// It is in force from now on.
    pub(crate) fn go_live(&mut self, index: u32, cursor: Seq) {
        (self.index, self.cursor, self.live) = (index, cursor, true);
    }
}
