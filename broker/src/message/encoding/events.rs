//! A message as a server-sent event (HTML standard, 9.2.5), in one chunk of its own (RFC 9112 §7.1): `id: EPOCH:OFFSET` and one
//! `data:` per line of the text. CR, LF and CRLF all end a line there, so the text is split at each of them, and its reader gets LF for
//! each. A binary message is `event: binary` with base64. That an epoch begins is the event `reset`. With an envelope, the data of
//! each message is what `ringyard.v1` would say.
//!
//! One allocation and one copy per message and form, whatever the number of its subscribers: the chunk's header is part of the bytes.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use protocol::v1::{PayloadKind, Position, ResetReason, write_message, write_reset};

use crate::capacity::budget::{Account, Held};
use crate::capacity::shared_bytes::shared;
use crate::message::Message;

/// The longest header of a chunk, in bytes: eight hexadecimal digits, CR, LF.
const CHUNK_HEADER_MAX: usize = 10;

const HEX: [u8; 16] = *b"0123456789abcdef";

/// The last chunk, and with it the end of the stream.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What streams of events differ in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventForm {
    /// Whether messages have ids: they come from a single topic.
    pub has_ids: bool,
    /// Whether the client understands chunks: HTTP/1.0 does not.
    pub is_chunked: bool,
    /// Whether messages come as `ringyard.v1` has them: with topic, offset and key.
    pub has_envelope: bool,
    /// Of a message that is part of a topic's state.
    pub is_state: bool,
}

impl EventForm {
    /// Appends one event: its name, unless it is a message; its id, if events have any; and its data, of any lines.
    pub fn put_event(self, out: &mut BytesMut, name: Option<&str>, id: Option<Position>, data: &[u8]) {
        self.put_chunk(out, data.len() + 96, |out| self.write_event(out, name, id, data));
    }

    /// The same without a chunk of its own.
    pub fn write_event(self, out: &mut BytesMut, name: Option<&str>, id: Option<Position>, data: &[u8]) {
        if let Some(name) = name {
            put_line(out, b"event: ", name.as_bytes());
        }
        if let Some(id) = id.filter(|_| self.has_ids) {
            put_id(out, id);
        }
        put_data(out, data);
        out.put_u8(b'\n');
    }

    /// Appends what `write` adds, as a chunk if the stream has chunks. It adds about so many bytes.
    pub fn put_chunk(self, out: &mut BytesMut, bytes: usize, write: impl FnOnce(&mut BytesMut)) {
        if !self.is_chunked {
            return write(out);
        }
        out.reserve(CHUNK_HEADER_MAX + bytes + 2);
        let begin = out.len();
        out.put_bytes(b'0', CHUNK_HEADER_MAX);
        write(out);
        let len = out.len() - begin - CHUNK_HEADER_MAX;
        // The header's length is known only now: what was written moves up to it.
        let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1) as usize;
        for (at, digit) in out[begin..begin + digits].iter_mut().rev().enumerate() {
            *digit = HEX[len >> (4 * at) & 0xf];
        }
        out[begin + digits..begin + digits + 2].copy_from_slice(b"\r\n");
        out.copy_within(begin + CHUNK_HEADER_MAX.., begin + digits + 2);
        out.truncate(begin + digits + 2 + len);
        out.put_slice(b"\r\n");
    }

    /// Appends what ends the stream, if anything does but the end of the connection.
    pub fn put_last(self, out: &mut BytesMut) {
        if self.is_chunked {
            out.put_slice(LAST_CHUNK);
        }
    }
}

/// The event, charged to `account`.
pub(super) fn frame(message: &Message, form: EventForm, account: &Arc<Account>) -> Bytes {
    let payload = message.payload();
    let lines = payload.bytes().len() / 2;
    let mut room = BytesMut::with_capacity(CHUNK_HEADER_MAX + payload.bytes().len() + lines.min(256) + 96);
    let place = Position { epoch: message.epoch().0, offset: message.offset.0 };
    match (message.begins(), payload.kind()) {
        (Some(_), _) => {
            let mut data = BytesMut::new();
            write_reset(&mut data, &message.topic, place, ResetReason::Purged);
            form.put_event(&mut room, Some("reset"), Some(place), &data);
        }
        (None, _) if form.has_envelope => {
            let mut data = BytesMut::with_capacity(message.topic.len() + payload.bytes().len() + lines + 96);
            write_message(&mut data, &message.parts(form.is_state));
            form.put_event(&mut room, None, Some(place), &data);
        }
        (None, PayloadKind::Binary) => {
            form.put_event(&mut room, Some("binary"), Some(place), STANDARD.encode(payload.bytes()).as_bytes());
        }
        (None, PayloadKind::Text | PayloadKind::Json) => form.put_event(&mut room, None, Some(place), payload.bytes()),
    }
    let capacity = room.capacity();
    shared(room, capacity, 0, account, Held::Messages)
}

fn put_line(out: &mut BytesMut, field: &[u8], value: &[u8]) {
    out.put_slice(field);
    out.put_slice(value);
    out.put_u8(b'\n');
}

fn put_id(out: &mut BytesMut, id: Position) {
    out.put_slice(b"id: ");
    id.write_to(out);
    out.put_u8(b'\n');
}

/// One `data:` for each line. What has no line end has one line, also if it is empty.
fn put_data(out: &mut BytesMut, mut data: &[u8]) {
    while let Some(end) = data.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        put_line(out, b"data: ", &data[..end]);
        let is_pair = data[end..].starts_with(b"\r\n");
        data = &data[end + 1 + usize::from(is_pair)..];
    }
    put_line(out, b"data: ", data);
}

#[cfg(test)]
mod tests;
