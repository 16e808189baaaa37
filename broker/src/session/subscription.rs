//! One subscription, as fan-out sees it: its place in a log, and how far it is.

use protocol::v1::Position;

use crate::ids::{LogSlot, Offset, Seq};
use crate::topics::rules::{HistoryKind, SlowConsumer, Throttle};

/// A cursor into a log, whatever session it belongs to.
///
/// Invariants: `pending` and `lagging` only while `live`, `pending` not while `held`; `lagging` implies that `cursor` is below the log's
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
    /// Nothing is sent from its log yet: its command is not answered.
    pub(crate) held: bool,
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
            held: false,
            pending: false,
            lagging: false,
            patience: Patience::Near,
        }
    }

    /// It is in force from now on, and held.
    pub(crate) fn go_live(&mut self, index: u32, cursor: Seq) {
        (self.index, self.cursor, self.live, self.held) = (index, cursor, true, true);
    }
}

/// How a subscription begins, for the answer to its command.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Begun {
    /// The first message that it delivers; `None` for a filter with wildcards.
    pub(crate) position: Option<Position>,
    /// What its topic remembers.
    pub(crate) history: Option<HistoryKind>,
    /// Whether everything was there that it wanted to recover.
    pub(crate) recovered: Option<bool>,
    /// If not: the first and the last offset that is.
    pub(crate) available: Option<(Offset, Offset)>,
    /// What happens if it is far behind.
    pub(crate) slow_consumer: SlowConsumer,
    /// The least time between two deliveries.
    pub(crate) throttle: Throttle,
    /// Whether state comes first, that of messages up to `position`.
    pub(crate) shows_state: bool,
}

/// Subscriptions whose command is answered: they may be sent to.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Released {
    /// The command waits for others.
    None,
    /// This one.
    One(u32),
    /// These.
    Many(Vec<u32>),
}

impl Released {
    /// Their keys.
    pub(crate) fn keys(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}
