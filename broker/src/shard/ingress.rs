//! Frames become publishes and commands.
//!
//! A message that is whole in its receive buffer is unmasked there and copied once, into its frame for
//! subscribers. One that comes in pieces is gathered with room for the header in front, and not copied
//! again. RFC 6455 §5.
//!
//! Back-pressure: while the shard is congested, a connection that wants to publish is paused. Its input
//! waits where it is, first here, then in the kernel, then at the publisher.

use protocol::frame::{Decoder, HEADER_MAX, Item, MessageKind, Opcode, Role, close_code, put_frame};
use ring::{ConnId, Driver};

use super::Shard;
use super::conn::{Assembly, Flags, State};
use super::link::Origin;
use super::stats::Reason;
use crate::topics::message::Payload;

impl<D: Driver> Shard<D> {
    pub(super) fn on_received(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.flags.set(Flags::ACTIVE);
        match conn.state {
            State::Open => self.take_input(id, bytes),
            State::Handshake => self.on_head_bytes(id, bytes),
            State::Proxied => self.on_proxied_bytes(id, bytes),
            State::Arriving | State::HandingOver => self.keep_input(id, bytes),
            State::Closing | State::Gone => {}
        }
    }

    /// Frames of an open connection, or of one that has just been established.
    pub(super) fn take_input(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        if bytes.is_empty() || conn.state != State::Open {
            return;
        }
        if conn.flags.has(Flags::PAUSED) {
            self.keep_input(id, bytes);
            return;
        }
        let decoder = conn.extra.as_mut().and_then(|extra| extra.decoder.take());
        let mut decoder = decoder.unwrap_or_else(|| Decoder::new(Role::Server));
        let mut rest = bytes;
        loop {
            if self.must_pause(id) {
                self.pause(id, rest);
                break;
            }
            match decoder.next(&mut rest, &self.frame_limits) {
                Ok(Some(item)) => self.on_item(id, item),
                Ok(None) => break,
                Err(violation) => self.close_with(id, violation.code.into(), violation.reason, Reason::Violation),
            }
            if self.conns.get(id).is_none_or(|conn| conn.state != State::Open) {
                return;
            }
        }
        if let Some(conn) = self.conns.get(id) {
            if !decoder.is_idle() {
                conn.extra().decoder = Some(decoder);
            }
            conn.settle();
        }
    }

    fn on_item(&mut self, id: ConnId, item: Item<'_>) {
        match item {
            Item::Message { kind, payload } => self.on_message(id, kind, payload),
            Item::Piece { kind, payload, first, last, .. } => self.on_piece(id, kind, payload, first, last),
            Item::Ping(payload) => self.queue_frame(id, Opcode::Pong, payload.as_slice()),
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

    fn on_message(&mut self, id: ConnId, kind: MessageKind, payload: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::PUBLISHES) {
            let payload = Payload::copy_of(kind.into(), payload);
            self.publish_raw(id, payload);
        } else if conn.multi.is_some() {
            self.on_command_message(id, kind, payload);
        } else {
            self.refuse_data(id);
        }
    }

    fn on_piece(&mut self, id: ConnId, kind: MessageKind, payload: &[u8], first: bool, last: bool) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.flags.has(Flags::PUBLISHES) && conn.multi.is_none() {
            self.refuse_data(id);
            return;
        }
        self.assembly_bytes += payload.len() as u64;
        if self.assembly_bytes > self.limits.log_bytes_max {
            self.assembly_bytes -= payload.len() as u64;
            let why = "too many messages are arriving in pieces";
            self.close_with(id, close_code::TRY_AGAIN_LATER.into(), why, Reason::Violation);
            return;
        }
        let conn = self.conns.get(id).expect("found above");
        let extra = conn.extra();
        if first {
            extra.assembly = Some(Assembly { kind, room: vec![0; HEADER_MAX] });
        }
        let assembly = extra.assembly.as_mut().expect("the decoder begins every message with a first piece");
        assembly.room.extend_from_slice(payload);
        if !last {
            return;
        }
        let Assembly { kind, mut room } = extra.assembly.take().expect("filled above");
        let publishes = conn.flags.has(Flags::PUBLISHES);
        self.assembly_bytes -= (room.len() - HEADER_MAX) as u64;
        if publishes {
            room.shrink_to_fit();
            self.publish_raw(id, Payload::in_place(kind.into(), room));
        } else {
            self.on_command_message(id, kind, &mut room[HEADER_MAX..]);
        }
    }

    fn on_command_message(&mut self, id: ConnId, kind: MessageKind, payload: &mut [u8]) {
        match kind {
            MessageKind::Text => self.on_command(id, payload),
            MessageKind::Binary => {
                let why = "ringyard.v1 is text frames; send binary data as base64";
                self.close_with(id, close_code::UNSUPPORTED.into(), why, Reason::Violation);
            }
        }
    }

    fn publish_raw(&mut self, id: ConnId, payload: Payload) {
        if !self.may_publish(id) {
            let why = "publishing faster than --max-publish-rate allows";
            self.close_with(id, close_code::POLICY.into(), why, Reason::Rate);
            return;
        }
        let conn = self.conns.get(id).expect("a publisher");
        let topic = conn.publish.clone().expect("a raw publisher has its topic");
        self.publish(topic, payload, Origin::Silent);
    }

    /// Whether the connection keeps to the rate at which one may publish.
    pub(super) fn may_publish(&mut self, id: ConnId) -> bool {
        let Some(rate_max) = self.limits.publish_rate_max else { return true };
        let conn = self.conns.get(id).expect("a publisher");
        conn.extra().pace.get_or_insert_default().take(self.now, rate_max)
    }

    fn refuse_data(&mut self, id: ConnId) {
        let why = "this is a subscription: publish at /pub or /bus";
        self.close_with(id, close_code::POLICY.into(), why, Reason::Violation);
    }

    /// Queues a control frame, or an answer, of the connection's own. It goes out before data that waits.
    pub(super) fn queue_frame(&mut self, id: ConnId, opcode: Opcode, payload: &[u8]) {
        // Behind a close frame nothing follows (§5.5.1).
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Open) else { return };
        let outbox = &mut conn.extra().outbox;
        // One answer alone is never too long: the confirmation of many topics must get through.
        if !outbox.is_empty() && outbox.len() + payload.len() > self.limits.outbox_bytes_max {
            self.drop_slow(id);
            return;
        }
        put_frame(outbox, opcode, payload);
        self.make_ready(id);
    }

    // ---- back-pressure

    fn must_pause(&mut self, id: ConnId) -> bool {
        if !self.is_congested() && !self.drain.is_under_way() {
            return self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::PAUSED));
        }
        self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::PUBLISHES) || conn.multi.is_some())
    }

    /// Lets the connection's input wait, `rest` first.
    pub(super) fn pause(&mut self, id: ConnId, rest: &[u8]) {
        let conn = self.conns.get(id).expect("an open connection");
        conn.flags.set(Flags::PAUSED);
        if conn.flags.has(Flags::RECEIVING) {
            self.driver.receive_stop(id);
        }
        if let Some(pace) = conn.extra.as_mut().and_then(|extra| extra.pace.as_mut()) {
            pace.waits(self.now);
        }
        self.stats().pauses.add(1);
        self.list_paused(id);
        self.keep_input(id, rest);
    }

    /// Has [`Shard::resume_paused`] look at the connection.
    pub(super) fn list_paused(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::PAUSED) && !conn.flags.has(Flags::PAUSE_LISTED) {
            conn.flags.set(Flags::PAUSE_LISTED);
            self.paused.push_back(id);
        }
    }

    /// Goes on with those that waited, as long as there is room.
    pub(super) fn resume_paused(&mut self) {
        for _ in 0..self.paused.len() {
            if self.is_congested() || self.drain.is_under_way() {
                return;
            }
            let Some(id) = self.paused.pop_front() else { return };
            self.resume(id);
        }
    }

    fn resume(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.flags.clear(Flags::PAUSE_LISTED);
        if conn.state != State::Open {
            return;
        }
        if conn.multi.as_ref().is_some_and(|multi| multi.deferred.is_some()) {
            // Something still waits to be sent: `finish_unsubscribe` lists it again.
            return;
        }
        conn.flags.clear(Flags::PAUSED);
        if let Some(pace) = conn.extra.as_mut().and_then(|extra| extra.pace.as_mut()) {
            pace.waited(self.now);
        }
        let mut input = conn.extra.as_mut().map(|extra| std::mem::take(&mut extra.input)).unwrap_or_default();
        self.take_input(id, &mut input);
        let Some(conn) = self.conns.get(id) else { return };
        if conn.state != State::Open || conn.flags.has(Flags::PAUSED) {
            return;
        }
        if conn.extra.as_mut().is_some_and(|extra| std::mem::take(&mut extra.ended)) {
            self.on_end_of_stream(id);
        } else if !conn.flags.has(Flags::RECEIVING) {
            conn.flags.set(Flags::RECEIVING);
            self.driver.receive(id);
        }
    }
}
