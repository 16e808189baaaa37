//! Frames become publishes and commands.
//!
//! A message that is whole in its receive buffer is unmasked there and copied once, into its frame for
//! subscribers. One that comes in pieces is gathered with room for the header in front, and not copied
//! again. RFC 6455 §5.
//!
//! A turn takes only so much input, and of one connection only a part of that; the rest waits with its connection.
//! Input also waits, first here, then in the kernel, then at the client, while what it asks for has to: see
//! [`crate::shard::transport::pause`].

use protocol::frame::{ControlPayload, Decoder, HEADER_MAX, Item, MessageKind, Opcode, Role, close_code, put_frame};
use ring::{ConnId, Driver};

use crate::capacity::budget::Held;
use crate::capacity::buffer::Buffer;
use crate::observe::counters::Reason;
use crate::session::{Data, Incoming};
use crate::shard::Shard;
use crate::shard::transport::connection::{Assembly, Flags, State};

/// What a turn takes of input, in units of about 100 ns, and what of one connection.
const INPUT_PER_TURN: u32 = 2400;
const INPUT_PER_CONNECTION: u32 = 1200;
/// The same of one connection while several topics have messages.
const INPUT_PER_CONNECTION_SHORT: u32 = 400;
/// What a message costs, besides one unit for each of so many bytes.
const MESSAGE_COST: u32 = 2;
const COMMAND_COST: u32 = 10;
/// What a handshake costs, its answer included.
const HANDSHAKE_COST: u32 = 60;
const BYTES_PER_UNIT: usize = 1 << 10;

/// What is left of a turn's input.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::shard) struct InputWork {
    /// Of all connections.
    left: u32,
    /// The connection that was looked at last, and what it may still take.
    of: Option<(ConnId, u32)>,
    per_connection: u32,
}

impl InputWork {
    pub(in crate::shard) fn begin_turn(&mut self, short: bool) {
        let per_connection = if short { INPUT_PER_CONNECTION_SHORT } else { INPUT_PER_CONNECTION };
        *self = Self { left: INPUT_PER_TURN, of: None, per_connection };
    }

    /// Whether anybody may take something.
    pub(in crate::shard) fn is_left(&self) -> bool {
        self.left > 0
    }

    /// Whether no more than half is used.
    pub(in crate::shard) fn is_half_left(&self) -> bool {
        self.left >= INPUT_PER_TURN / 2
    }

    /// Whether this connection may.
    pub(super) fn is_left_for(&mut self, id: ConnId) -> bool {
        match self.of {
            Some((of, left)) if of == id => left > 0 && self.left > 0,
            _ => {
                self.of = Some((id, self.per_connection));
                self.left > 0
            }
        }
    }

    /// An HTTP request with a body of so many bytes was taken.
    pub(super) fn charge_request(&mut self, body_len: usize) {
        self.charge(MESSAGE_COST + COMMAND_COST + u32::try_from(body_len / BYTES_PER_UNIT).unwrap_or(u32::MAX));
    }

    /// A WebSocket handshake was judged, and is answered.
    pub(super) fn charge_handshake(&mut self) {
        self.charge(HANDSHAKE_COST);
    }

    /// A token was verified, at so many units.
    pub(in crate::shard) fn charge_verification(&mut self, cost: u32) {
        self.charge(cost);
    }

    fn charge(&mut self, cost: u32) {
        self.left = self.left.saturating_sub(cost);
        if let Some((_, left)) = &mut self.of {
            *left = left.saturating_sub(cost);
        }
    }
}

/// Where a piece is in its message.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: bool,
    last: bool,
    /// Bytes of its frame that are still to come.
    frame_left: usize,
}

/// Bytes that wait for a connection before pings share one answer.
const PONGS_BYTES_MAX: usize = 4 << 10;

/// Least room that is set aside for a message in pieces, in bytes.
const ROOM_LEAST: usize = 4 << 10;

/// Makes room for a piece of `len` bytes and, as far as that is not more than there is already, for what its frame still
/// brings: so the room doubles while a message grows, and what was announced and does not come takes none; and in the end
/// a message that is one frame has the room that it needs and no more, for it weighs what its buffer does.
pub(super) fn make_room(room: &mut Buffer, len: usize, frame_left: usize, last: bool) {
    let needed = room.len() + len;
    if needed > room.capacity() {
        // Behind this frame may come others, of which nothing is known.
        let more = if frame_left == 0 && !last { needed / 2 } else { frame_left };
        room.grow_to(needed + more.min(needed.max(ROOM_LEAST)));
    }
}

impl<D: Driver> Shard<D> {
    pub(in crate::shard) fn on_received(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.flags.set(Flags::ACTIVE);
        if conn.flags.has(Flags::TLS) && !matches!(conn.state, State::Arriving | State::Proxied) {
            return self.on_ciphertext(id, bytes);
        }
        self.on_plaintext(id, bytes);
    }

    /// Bytes that are not encrypted, or no longer.
    pub(super) fn on_plaintext(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        match conn.state {
            State::Open => self.take_input(id, bytes),
            State::Handshake => self.on_head_bytes(id, bytes),
            State::Http => self.on_http_bytes(id, bytes),
            State::Proxied => self.on_proxied_bytes(id, bytes),
            State::Arriving | State::HandingOver => self.keep_input(id, bytes),
            State::Bridged => self.on_bridged_bytes(id, bytes),
            State::Closing | State::Gone => {}
        }
    }

    /// Frames of an open connection, or of one that has just been established.
    pub(in crate::shard) fn take_input(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        // A stream of events has no input: nothing of it is looked at, or kept.
        if bytes.is_empty() || conn.state != State::Open || conn.flags.has(Flags::STREAM) {
            return;
        }
        if conn.flags.has(Flags::PAUSED) {
            self.keep_waiting(id, bytes);
            return;
        }
        let consumed = self.take_frames(id, bytes);
        if consumed < bytes.len() {
            self.pause(id, &bytes[consumed..]);
        }
    }

    /// Takes frames from the front of `bytes`. Returns how many bytes it took: fewer than there are if the rest has to
    /// wait.
    pub(in crate::shard) fn take_frames(&mut self, id: ConnId, bytes: &mut [u8]) -> usize {
        let whole = bytes.len();
        let Some(conn) = self.conns.get(id) else { return whole };
        let decoder = conn.extra.as_mut().and_then(|extra| extra.decoder.take());
        let mut decoder = decoder.unwrap_or_else(|| Decoder::new(Role::Server));
        let mut rest = bytes;
        loop {
            if !self.input.work.is_left_for(id) || self.must_pause(id) {
                break;
            }
            let before = rest.len();
            match decoder.next(&mut rest, &self.codec.frame_limits) {
                Ok(Some(item)) => {
                    self.input.work.charge(MESSAGE_COST + ((before - rest.len()) / BYTES_PER_UNIT) as u32);
                    self.on_item(id, item);
                }
                Ok(None) => break,
                Err(violation) => self.close_with(id, violation.code.into(), violation.reason, Reason::Violation),
            }
            if self.conns.get(id).is_none_or(|conn| conn.state != State::Open) {
                return whole;
            }
        }
        let left = rest.len();
        if let Some(conn) = self.conns.get(id) {
            if !decoder.is_idle() {
                conn.extra(&self.account).decoder = Some(decoder);
            }
            conn.settle();
        }
        whole - left
    }

    fn on_item(&mut self, id: ConnId, item: Item<'_>) {
        match item {
            Item::Message { kind, payload } => self.take_message(id, kind, Data::Received(payload)),
            Item::Piece { kind, payload, first, last, frame_left } => {
                let place = Piece { first, last, frame_left: usize::try_from(frame_left).unwrap_or(usize::MAX) };
                self.on_piece(id, kind, payload, place);
            }
            Item::Ping(payload) => self.answer_ping(id, payload),
            Item::Pong(_) => {}
            Item::Close(code, _) => {
                if let Some(conn) = self.conns.get(id) {
                    conn.flags.set(Flags::PEER_CLOSED);
                }
                // RFC 6455 §5.5.1: echo the status code.
                self.close_with(id, code.map_or(close_code::NORMAL.into(), Into::into), "", Reason::ByClient);
            }
        }
    }

    fn on_piece(&mut self, id: ConnId, kind: MessageKind, payload: &[u8], place: Piece) {
        let Piece { first, last, frame_left } = place;
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.session.takes_messages() {
            // The session says why.
            self.take_message(id, kind, Data::Received(&mut []));
            return;
        }
        let extra = conn.extra(&self.account);
        if first {
            let mut room = Buffer::new(&self.account, Held::Assemblies);
            room.extend(&[0; HEADER_MAX]);
            extra.assembly = Some(Assembly { kind, room, since: self.now });
            self.input.assemblies.begin(id, self.now);
        }
        let assembly = extra.assembly.as_mut().expect("the decoder begins every message with a first piece");
        make_room(&mut assembly.room, payload.len(), frame_left, last);
        assembly.room.extend(payload);
        if !last {
            self.make_room_for_pieces();
            return;
        }
        let assembly = extra.assembly.take().expect("filled above");
        self.input.assemblies.end(id, &assembly);
        let Assembly { kind, mut room, .. } = assembly;
        self.take_message(id, kind, Data::Gathered(&mut room.take()));
    }

    fn take_message(&mut self, id: ConnId, kind: MessageKind, data: Data<'_>) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.flags.count_taken();
        if conn.session.answers_to_come().is_some() {
            self.input.work.charge(COMMAND_COST);
        }
        if self.traces.are_on() {
            self.traces.received(id, self.now, kind, data.as_bytes());
        }
        self.on_message(id, Incoming { kind, data });
    }

    /// Whether the connection keeps to the rate at which one may publish.
    pub(in crate::shard) fn may_publish(&mut self, id: ConnId) -> bool {
        let Some(rate_max) = self.limits.publish_rate_max else { return true };
        let conn = self.conns.get(id).expect("a publisher");
        conn.extra(&self.account).rate_limiter.get_or_insert_default().take(self.now, rate_max)
    }

    /// Answers a ping; of those whose answers cannot be sent yet, only the latest beyond a number of bytes, as RFC 6455
    /// §5.5.3 allows: pings make nobody hold memory.
    fn answer_ping(&mut self, id: ConnId, payload: ControlPayload) {
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Open) else { return };
        if conn.outbox_len() < PONGS_BYTES_MAX {
            self.queue_frame(id, Opcode::Pong, payload.as_slice());
        } else {
            conn.extra(&self.account).pong = Some(Box::new(payload));
        }
    }

    /// Queues a control frame, or an answer, of the connection's own. It goes out before data that waits. How many there
    /// may be is decided when its cause is read: see [`crate::shard::transport::pause`].
    pub(in crate::shard) fn queue_frame(&mut self, id: ConnId, opcode: Opcode, payload: &[u8]) {
        // Behind a close frame nothing follows (§5.5.1).
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Open) else { return };
        conn.extra(&self.account).outbox.edit(|outbox| put_frame(outbox, opcode, payload));
        if self.traces.are_on() {
            self.traces.answered(id, self.now, opcode, payload);
        }
        self.make_ready(id);
    }

    /// The same of an answer, framed as the session does.
    pub(in crate::shard) fn queue_answer(&mut self, id: ConnId, answer: &[u8]) {
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Open) else { return };
        let (session, outbox) = conn.session_and_outbox(&self.account);
        outbox.edit(|outbox| session.put_answer(answer, outbox));
        if self.traces.are_on() {
            self.traces.answered(id, self.now, Opcode::Text, answer);
        }
        self.make_ready(id);
    }
}
