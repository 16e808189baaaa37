//! What is the case for a connection, in one word.

/// A set of a connection's conditions, one bit each, and a small number above them.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr,)+) => {
        impl Flags { $($(#[$doc])* pub(crate) const $name: Self = Self(1 << $bit);)+ }
    };
}

flags! {
    /// A receive is under way in the driver.
    RECEIVING = 0,
    /// A send is in flight.
    SENDING = 1,
    /// Something came in since the last ping was considered.
    ACTIVE = 3,
    /// A ping is to go out as soon as the send in flight is over.
    PING_DUE = 5,
    /// Input waits in `extra.input` until there is room for what it asks for.
    PAUSED = 6,
    /// In the shard's ready list.
    READY = 7,
    /// The 101 waits for the topic's join.
    HELD = 8,
    /// The last bytes were sent and the sending direction is shut down.
    SHUT = 10,
    /// The driver was asked how far the send in flight has got.
    ASKED_PROGRESS = 11,
    /// In the shard's paused list.
    PAUSE_LISTED = 12,
    /// The peer's close frame has come: ours is the answer.
    PEER_CLOSED = 13,
    /// It is to be closed with 1001 as soon as it has what waits for it.
    LEAVING = 14,
    /// It counts as a WebSocket in [`Admission`](crate::access::admission::Admission).
    ADMITTED = 15,
    /// Something of topics' histories waits in `extra.backlog`: it goes before what waits in logs.
    BACKLOG = 17,
    /// Its right to publish was judged with its handshake; else it is that of clients in general.
    PUBLISHER = 16,
    /// It has one of the places of HTTP connections.
    HTTP = 18,
    /// Its client has to say who it is before it may do anything else.
    UNIDENTIFIED = 19,
    /// It speaks TLS.
    TLS = 20,
    /// It is a stream of events: nothing that comes in is looked at.
    STREAM = 21,
}

impl Flags {
    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn set(&mut self, flag: Self) {
        self.0 |= flag.0;
    }

    pub(crate) fn clear(&mut self, flag: Self) {
        self.0 &= !flag.0;
    }

    /// Whether fewer than three of its messages were taken since it was open.
    pub(crate) fn is_newcomer(self) -> bool {
        self.taken() < Self::TAKEN_MAX
    }

    /// One of its messages is taken.
    pub(crate) fn count_taken(&mut self) {
        if self.is_newcomer() {
            self.0 += 1 << Self::TAKEN_AT;
        }
    }

    /// How many of its messages were taken, up to three: a number in two bits.
    fn taken(self) -> u32 {
        self.0 >> Self::TAKEN_AT & Self::TAKEN_MAX
    }

    /// Pings in a row that nothing came after: a number in the upper bits.
    pub(crate) fn unanswered(self) -> u32 {
        self.0 >> Self::UNANSWERED_AT
    }

    /// Sets that number, as far as eight bits go.
    pub(crate) fn set_unanswered(&mut self, pings: u32) {
        self.0 = self.0 & ((1 << Self::UNANSWERED_AT) - 1) | pings.min(0xff) << Self::UNANSWERED_AT;
    }

    const TAKEN_AT: u32 = 22;
    const TAKEN_MAX: u32 = 3;
    const UNANSWERED_AT: u32 = 24;

    /// Clears `flag` and says whether it was set.
    pub(crate) fn take(&mut self, flag: Self) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }
}
