//! The state of one connection: at most 152 bytes while it is idle.

use ring::ConnId;

use crate::adapter::Inbound;
use crate::plan::Role;

/// The number that a client expects next on a stream that it joined late: any.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not there; in the queue of those to be opened, or waiting for its next try.
    Waiting,
    /// Connecting.
    Dialling,
    /// The upgrade request is out.
    Upgrading,
    /// The upgrade was accepted; the answer to the greeting is missing.
    Greeting,
    /// Subscribed, or ready to publish.
    Open,
    /// Being closed.
    Closing,
    /// Given up, or closed for good.
    Gone,
}

/// A connection of a worker.
#[derive(Debug)]
pub(super) struct Client {
    /// Valid from [`State::Upgrading`] to [`State::Closing`].
    pub(super) conn: ConnId,
    pub(super) role: Role,
    pub(super) inbound: Inbound,
    /// The number that must come next, by place ([`Plan::place`](crate::plan::Plan::place)).
    pub(super) nexts: Nexts,
    /// Bytes received since it was opened, while it only counts them.
    pub(super) received: u64,
    /// What waits for the send in flight.
    #[expect(clippy::box_collection, reason = "most clients have none, and pay 8 bytes for it instead of 24")]
    pub(super) outbox: Option<Box<Vec<u8>>>,
    pub(super) state: State,
    /// Looks at every frame.
    pub(super) verifies: bool,
    /// Reads late or never.
    pub(super) slow: bool,
    /// A send is in flight.
    pub(super) sending: bool,
    /// A receive is in flight.
    pub(super) receiving: bool,
    /// To be opened again once it is closed.
    pub(super) comes_back: bool,
    /// Became open after publishing had begun: earlier messages are not lost to it.
    pub(super) joined_late: bool,
    /// What an acknowledgement will be for.
    pub(super) awaits: Awaits,
    /// Tries that failed, in a row.
    pub(super) tries: u8,
}

/// What the next acknowledgement answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaits {
    Nothing,
    Unsubscribed,
    Subscribed,
}

impl Client {
    pub(super) fn new(role: Role, verifies: bool, slow: bool) -> Self {
        Self {
            conn: ConnId { slot: 0, generation: 0 },
            role,
            inbound: Inbound::default(),
            nexts: Nexts::default(),
            received: 0,
            outbox: None,
            state: State::Waiting,
            verifies,
            slow,
            sending: false,
            receiving: false,
            comes_back: false,
            joined_late: false,
            awaits: Awaits::Nothing,
            tries: 0,
        }
    }

    pub(super) fn is_subscriber(&self) -> bool {
        matches!(self.role, Role::Client(_))
    }

    /// Whether a closed loop waits for it, on the streams whose next number it knows.
    pub(super) fn is_waited_for(&self) -> bool {
        self.is_subscriber() && self.verifies && !self.slow
    }

    /// Clears the state of an earlier connection. The numbers that it expects are set when the next is accepted.
    pub(super) fn reset(&mut self) {
        self.inbound = Inbound::default();
        self.received = 0;
        self.outbox = None;
        self.sending = false;
        self.receiving = false;
        self.awaits = Awaits::Nothing;
    }
}

/// Expected numbers, by place; one of them needs no heap.
#[derive(Debug)]
pub(super) enum Nexts {
    One(u64),
    Many(Box<[u64]>),
}

impl Default for Nexts {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Nexts {
    pub(super) fn new(places: usize, value: u64) -> Self {
        if places <= 1 { Self::One(value) } else { Self::Many(vec![value; places].into()) }
    }

    pub(super) fn at(&mut self, place: usize) -> &mut u64 {
        match self {
            Self::One(next) => next,
            Self::Many(nexts) => &mut nexts[place],
        }
    }

    pub(super) fn all(&self) -> &[u64] {
        match self {
            Self::One(next) => std::slice::from_ref(next),
            Self::Many(nexts) => nexts,
        }
    }

    /// Any number may come next at each `every`-th place.
    pub(super) fn forget(&mut self, every: usize) {
        match self {
            Self::One(next) => *next = UNKNOWN,
            Self::Many(nexts) => nexts.iter_mut().step_by(every.max(1)).for_each(|next| *next = UNKNOWN),
        }
    }
}

const _: () = assert!(size_of::<Client>() <= 152, "the budget of a client");
