//! What a shard knows of one connection.
//!
//! An idle connection is this record and nothing else: no buffer, no task, no timer object. What only some connections
//! need, or only for a moment, hangs on [`Conn::extra`] and [`Conn::session`]. Invariant: `extra` is `None` whenever the
//! connection is at a frame boundary with nothing of its own to send ([`Extra::is_idle`]), and is no publisher whose rate
//! is limited. What hangs on the record is charged to the shard's account of the budget, and so is `extra` itself.

use std::sync::Arc;

use bytes::Bytes;
use protocol::frame::{ControlPayload, Decoder, MessageKind, Opcode, put_frame};
use ring::{ConnId, Gather, Nanos};

use crate::access::rate::RateLimiter;
use crate::capacity::budget::{Account, Charge, Held};
use crate::capacity::buffer::Buffer;
use crate::observe::counters::Reason;
use crate::session::Session;
use crate::session::http::Exchange;
use crate::shard::backlog::Backlog;
use crate::shard::fanout::parts::Thrift;
pub(crate) use crate::shard::transport::flags::Flags;
use crate::shard::transport::held::{HeldConnect, HeldPublish};

/// Where a connection is in its life. It moves down this list only, from where it was accepted or adopted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum State {
    /// Its peer's address is asked for.
    Arriving,
    /// Waits for a complete PROXY header.
    Proxied,
    /// Waits for a complete request head.
    Handshake,
    /// Its single publishes over HTTP are answered here.
    Http,
    /// On its way to the control plane: receiving has to end, then the descriptor is made.
    HandingOver,
    /// One end of a bridge between a TLS client and the control plane.
    Bridged,
    /// A WebSocket, or a stream of events.
    Open,
    /// The last bytes (a close frame, a refusal) are queued or sent; what comes in is discarded.
    Closing,
    /// Given to the driver's join; only `Closed` is to come.
    Gone,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) generation: u32,
    pub(crate) state: State,
    pub(crate) flags: Flags,
    /// Why it ends, once that is decided.
    pub(crate) reason: Option<Reason>,
    /// When the send in flight began or last got on, in units of [`Conn::SEND_UNIT`].
    send_since: u32,
    /// Its length in KiB, rounded up, as far as a number of 16 bits goes; 0 without one.
    send_kib: u16,
    /// Tick at which something is due for this connection.
    pub(crate) deadline: u32,
    /// Tick of its one valid entry in the timer wheel.
    pub(crate) timer: u32,
    /// What it speaks once it is open.
    pub(crate) session: Session,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What a connection needs only for a while.
#[derive(Debug)]
pub(crate) struct Extra {
    /// Bytes received and not yet taken: an incomplete head, or input of a paused connection.
    pub(crate) input: Buffer,
    /// In the middle of a frame or of a fragmented message.
    pub(crate) decoder: Option<Decoder>,
    /// The message under way.
    pub(crate) assembly: Option<Assembly>,
    /// Whole frames (or a response head) of its own that wait for the send in flight.
    pub(crate) outbox: Buffer,
    /// The payload of the last ping, if its answer is one of too many: it goes behind what waits in the outbox.
    pub(crate) pong: Option<Box<ControlPayload>>,
    /// End of stream arrived while input was waiting.
    pub(crate) ended: bool,
    /// How fast it publishes, where that is limited; from the first publish to the connection's end.
    pub(crate) rate_limiter: Option<RateLimiter>,
    /// A publish whose topic is congested: nothing behind it is taken before it is published.
    pub(crate) held: Option<Box<HeldPublish>>,
    /// A `connect` that waits for keys: nothing behind it is taken before it is carried out.
    pub(crate) connect: Option<Box<HeldConnect>>,
    /// What it is to be sent of topics' histories.
    pub(crate) backlog: Option<Box<Backlog>>,
    /// The HTTP request under way. The bytes of its body are an assembly.
    pub(crate) exchange: Option<Box<Exchange>>,
    /// What the peer had not acknowledged when that was last looked at, in bytes, as long as nothing was sent since.
    pub(crate) unsent: Option<usize>,
    _charge: Charge,
}

/// A message that arrives in pieces. The first bytes are room for a frame header.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) kind: MessageKind,
    pub(crate) room: Buffer,
    /// When its first bytes came.
    pub(crate) since: Nanos,
}

impl Extra {
    pub(crate) fn new(account: &Arc<Account>) -> Self {
        Self {
            input: Buffer::new(account, Held::Input),
            decoder: None,
            assembly: None,
            outbox: Buffer::new(account, Held::Outboxes),
            pong: None,
            ended: false,
            rate_limiter: None,
            held: None,
            connect: None,
            backlog: None,
            exchange: None,
            unsent: None,
            _charge: Charge::new(account, Held::Input, Self::BYTES),
        }
    }

    /// What it takes by itself, with room for a pong.
    pub(crate) const BYTES: u64 = (size_of::<Self>() + size_of::<ControlPayload>()).next_multiple_of(64) as u64;

    pub(crate) fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.decoder.is_none()
            && self.assembly.is_none()
            && self.outbox.is_empty()
            && self.pong.is_none()
            && !self.ended
            && self.rate_limiter.is_none()
            && self.held.is_none()
            && self.connect.is_none()
            && self.backlog.is_none()
            && self.exchange.is_none()
            && self.unsent.is_none()
    }

    /// Bytes of its buffers.
    pub(crate) fn charged(&self) -> u64 {
        let assembly = self.assembly.as_ref().map_or(0, |assembly| assembly.room.charged());
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.bytes());
        self.input.charged() + self.outbox.charged() + assembly + backlog
    }
}

impl Conn {
    pub(crate) fn new(generation: u32) -> Self {
        Self {
            generation,
            state: State::Handshake,
            flags: Flags::default(),
            reason: None,
            send_since: 0,
            send_kib: 0,
            deadline: 0,
            timer: u32::MAX,
            session: Session::default(),
            extra: None,
        }
    }

    /// 2^20 nanoseconds, about a millisecond.
    const SEND_UNIT: Nanos = 1 << 20;

    /// A send of `bytes` is in flight from now on, or got on.
    pub(crate) fn send_begins(&mut self, now: Nanos, bytes: usize) {
        self.flags.set(Flags::SENDING);
        self.send_since = (now / Self::SEND_UNIT) as u32;
        self.send_kib = u16::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u16::MAX);
    }

    /// The send in flight is over.
    pub(crate) fn send_ends(&mut self) {
        self.flags.clear(Flags::SENDING);
        self.send_kib = 0;
    }

    /// For how long the send in flight has not got on, in nanoseconds.
    pub(crate) fn send_age(&self, now: Nanos) -> Nanos {
        Nanos::from(((now / Self::SEND_UNIT) as u32).wrapping_sub(self.send_since)) * Self::SEND_UNIT
    }

    /// Bytes of the send in flight, rounded up; 0 without one.
    pub(crate) fn send_bytes(&self) -> u64 {
        u64::from(self.send_kib) << 10
    }

    pub(crate) fn extra(&mut self, account: &Arc<Account>) -> &mut Extra {
        self.extra.get_or_insert_with(|| Box::new(Extra::new(account)))
    }

    /// What it speaks, and where its own bytes wait to be sent.
    pub(crate) fn session_and_outbox(&mut self, account: &Arc<Account>) -> (&Session, &mut Buffer) {
        let extra = self.extra.get_or_insert_with(|| Box::new(Extra::new(account)));
        (&self.session, &mut extra.outbox)
    }

    /// Frees `extra` if nothing is left in it.
    pub(crate) fn settle(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| extra.is_idle()) {
            self.extra = None;
        }
    }

    /// Its own bytes that wait to be sent: they go before any data.
    pub(crate) fn take_outbox(&mut self) -> Option<Bytes> {
        let extra = self.extra.as_mut()?;
        if let Some(pong) = extra.pong.take()
            && self.state == State::Open
        {
            extra.outbox.edit(|outbox| put_frame(outbox, Opcode::Pong, pong.as_slice()));
        }
        let outbox = (!extra.outbox.is_empty()).then(|| extra.outbox.share());
        self.settle();
        outbox
    }

    /// The next send of what it is given of topics' histories.
    pub(crate) fn take_backlog(&mut self, account: &Arc<Account>, thrift: Thrift) -> Option<Gather> {
        if !self.flags.has(Flags::BACKLOG) {
            return None;
        }
        let extra = self.extra.as_mut()?;
        let backlog = extra.backlog.as_mut()?;
        let gather = backlog.take(account, thrift);
        if backlog.is_empty() {
            self.flags.clear(Flags::BACKLOG);
            extra.backlog = None;
            self.settle();
        }
        gather
    }

    /// What it had not acknowledged says nothing any more.
    pub(crate) fn forget_unsent(&mut self) {
        if let Some(extra) = &mut self.extra
            && extra.unsent.take().is_some()
        {
            self.settle();
        }
    }

    /// How many bytes of its own wait to be sent.
    pub(crate) fn outbox_len(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.outbox.len())
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

    /// How many slots there may be something in: all below this.
    pub(crate) fn slots(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The connection in a slot.
    pub(crate) fn id_at(&self, slot: usize) -> Option<ConnId> {
        let conn = self.chunks.get(slot / CHUNK)?.as_ref()?[slot % CHUNK].as_ref()?;
        Some(ConnId { slot: slot as u32, generation: conn.generation })
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
        assert!(size_of::<Option<Conn>>() <= 64, "{}", size_of::<Option<Conn>>());
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
