//! What a shard knows of one connection.
//!
//! An idle connection is this record and nothing else: no buffer, no task, no timer object. What only
//! some connections need, or only for a moment, hangs on [`Conn::extra`] and [`Conn::multi`].
//!
//! Invariant: `extra` is `None` whenever the connection is at a frame boundary with nothing of its own to
//! send ([`Extra::is_idle`]), and is no publisher whose rate is limited.

use bytes::{Bytes, BytesMut};
use protocol::frame::{Decoder, MessageKind};
use ring::ConnId;

use super::multi::Multi;
use super::rate::Pace;
use super::stats::Reason;
use crate::topics::log::Seq;
use crate::topics::registry::TopicRef;

/// Index of a log in its shard.
pub(crate) type LogSlot = u32;

/// Where a connection is in its life. It only ever moves down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum State {
    /// Its peer's address is asked for.
    Arriving,
    /// Waits for a complete PROXY header.
    Proxied,
    /// Waits for a complete request head.
    Handshake,
    /// On its way to the control plane: receiving has to end, then the descriptor is made.
    HandingOver,
    /// A WebSocket.
    Open,
    /// The last bytes (a close frame, a refusal) are queued or sent; what comes in is discarded.
    Closing,
    /// Given to the driver's join; only `Closed` is to come.
    Gone,
}

/// A set of [`Conn`] conditions, one bit each.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Flags(u16);

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
    /// The raw subscription lags: it is sent to as soon as the send in flight is over.
    LAGGING = 2,
    /// Something came in since the last ping was considered.
    ACTIVE = 3,
    /// A ping was sent, and the next deadline looks for an answer.
    PINGED = 4,
    /// A ping is to go out as soon as the send in flight is over.
    PING_DUE = 5,
    /// Input waits in `extra.input` until the shard is no longer congested.
    PAUSED = 6,
    /// In the shard's ready list.
    READY = 7,
    /// The 101 waits for the topic's join.
    HELD = 8,
    /// What the client sends is published.
    PUBLISHES = 9,
    /// The last bytes were sent and the sending direction is shut down.
    SHUT = 10,
    /// The send in flight was in flight when the timer last looked.
    STALLED = 11,
    /// In the shard's paused list.
    PAUSE_LISTED = 12,
    /// The peer's close frame has come: ours is the answer.
    PEER_CLOSED = 13,
    /// It is to be closed with 1001 as soon as it has what waits for it.
    LEAVING = 14,
    /// It counts as a WebSocket in [`Admission`](super::admission::Admission).
    ADMITTED = 15,
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

    /// Clears `flag` and says whether it was set.
    pub(crate) fn take(&mut self, flag: Self) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }
}

/// The subscription of a raw connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawSubscription {
    pub(crate) log: LogSlot,
    /// This connection's index among the log's subscribers.
    pub(crate) index: u32,
    /// The next message to send.
    pub(crate) cursor: Seq,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) generation: u32,
    pub(crate) state: State,
    pub(crate) flags: Flags,
    /// Why it ends, once that is decided.
    pub(crate) reason: Option<Reason>,
    /// Tick at which something is due for this connection.
    pub(crate) deadline: u32,
    /// Tick of its one valid entry in the timer wheel.
    pub(crate) timer: u32,
    pub(crate) raw: Option<RawSubscription>,
    /// Where its messages go, on `/pub` and `/bus`.
    pub(crate) publish: Option<TopicRef>,
    pub(crate) multi: Option<Box<Multi>>,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What a connection needs only for a while.
#[derive(Default, Debug)]
pub(crate) struct Extra {
    /// Bytes received and not yet taken: an incomplete head, or input of a paused publisher.
    pub(crate) input: Vec<u8>,
    /// In the middle of a frame or of a fragmented message.
    pub(crate) decoder: Option<Decoder>,
    /// The message under way.
    pub(crate) assembly: Option<Assembly>,
    /// Whole frames (or a response head) of its own that wait for the send in flight.
    pub(crate) outbox: BytesMut,
    /// End of stream arrived while input was waiting.
    pub(crate) ended: bool,
    /// How fast it publishes, where that is limited; from the first publish to the connection's end.
    pub(crate) pace: Option<Pace>,
}

/// A message that arrives in pieces. The first bytes are room for a frame header.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) kind: MessageKind,
    pub(crate) room: Vec<u8>,
}

impl Extra {
    pub(crate) fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.decoder.is_none()
            && self.assembly.is_none()
            && self.outbox.is_empty()
            && !self.ended
            && self.pace.is_none()
    }
}

impl Conn {
    pub(crate) fn new(generation: u32) -> Self {
        Self {
            generation,
            state: State::Handshake,
            flags: Flags::default(),
            reason: None,
            deadline: 0,
            timer: u32::MAX,
            raw: None,
            publish: None,
            multi: None,
            extra: None,
        }
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Frees `extra` if nothing is left in it.
    pub(crate) fn settle(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| extra.is_idle()) {
            self.extra = None;
        }
    }

    /// Its own bytes that wait to be sent: they go before any data.
    pub(crate) fn take_outbox(&mut self) -> Option<Bytes> {
        let outbox = std::mem::take(&mut self.extra.as_mut()?.outbox).freeze();
        self.settle();
        (!outbox.is_empty()).then_some(outbox)
    }

    /// Whether bytes of its own wait to be sent.
    pub(crate) fn has_outbox(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.outbox.is_empty())
    }
}

/// Connections by the driver's slots, in chunks: no move when it grows, no memory for slots never used.
#[derive(Default, Debug)]
pub(crate) struct Conns {
    chunks: Vec<Option<Box<[Option<Conn>]>>>,
    len: usize,
}

const CHUNK: usize = 64;

impl Conns {
    pub(crate) fn insert(&mut self, id: ConnId) -> &mut Conn {
        let (chunk, at) = (id.slot as usize / CHUNK, id.slot as usize % CHUNK);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| (0..CHUNK).map(|_| None).collect());
        assert!(chunk[at].is_none(), "the driver reused the slot of a connection that is not closed");
        self.len += 1;
        chunk[at].insert(Conn::new(id.generation))
    }

    /// The connection, unless it is gone and its slot perhaps used by another.
    pub(crate) fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        let chunk = self.chunks.get_mut(id.slot as usize / CHUNK)?.as_mut()?;
        chunk[id.slot as usize % CHUNK].as_mut().filter(|conn| conn.generation == id.generation)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.get(id)?;
        self.len -= 1;
        self.chunks[id.slot as usize / CHUNK].as_mut()?[id.slot as usize % CHUNK].take()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Every connection's id, by slot.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        let slots = self.chunks.iter().enumerate().flat_map(|(chunk, conns)| {
            conns
                .iter()
                .flat_map(move |conns| conns.iter().enumerate().map(move |(at, conn)| (chunk * CHUNK + at, conn)))
        });
        slots
            .filter_map(|(slot, conn)| Some(ConnId { slot: slot as u32, generation: conn.as_ref()?.generation }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_fits_in_two_cache_lines() {
        assert!(size_of::<Option<Conn>>() <= 80, "{}", size_of::<Option<Conn>>());
    }

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut conns = Conns::default();
        let old = ConnId { slot: 3, generation: 0 };
        conns.insert(old);
        conns.remove(old);
        let new = ConnId { slot: 3, generation: 1 };
        conns.insert(new);
        assert!(conns.get(old).is_none() && conns.remove(old).is_none());
        assert_eq!((conns.ids(), conns.len()), (vec![new], 1));
    }
}
