//! What the broker says in `ringyard.v1`: one function per message, each appends one JSON object. No library
//! builds a tree first; the cost is that of copying the payload once.

use bytes::BufMut;

use super::json::{put_base64_string, put_hex_string, put_string, put_u64};
use super::{ErrorCode, Id, MessageType, PayloadKind};

/// A place in a topic: where it stood when a subscription to it began, or where a message was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The life of the topic's log; offsets of another epoch mean nothing here.
    pub epoch: u64,
    /// The offset of the first message the subscription will see, or of the message.
    pub offset: u64,
}

/// One subscription that has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribed<'a> {
    /// The topic or filter.
    pub topic: &'a str,
    /// A filter with wildcards has none.
    pub position: Option<Position>,
}

/// The command has been carried out.
pub fn write_ok(out: &mut impl BufMut, id: Option<&Id>) {
    begin(out, MessageType::Ok, id);
    out.put_u8(b'}');
}

/// The subscriptions have begun, in the order in which they were asked for.
pub fn write_subscribed<'a>(out: &mut impl BufMut, id: Option<&Id>, topics: impl IntoIterator<Item = Subscribed<'a>>) {
    begin(out, MessageType::Ok, id);
    out.put_slice(b",\"topics\":[");
    for (i, Subscribed { topic, position }) in topics.into_iter().enumerate() {
        out.put_slice(if i == 0 { b"{\"topic\":" } else { b",{\"topic\":" });
        put_string(out, topic.as_bytes());
        if let Some(Position { epoch, offset }) = position {
            put_position(out, epoch, offset);
        }
        out.put_u8(b'}');
    }
    out.put_slice(b"]}");
}

/// The message has been published, at this position; so many subscriptions match its topic.
pub fn write_published(out: &mut impl BufMut, id: Option<&Id>, position: Position, subscribers: u32) {
    begin(out, MessageType::Ok, id);
    put_position(out, position.epoch, position.offset);
    out.put_slice(b",\"subscribers\":");
    put_u64(out, subscribers.into());
    out.put_u8(b'}');
}

/// The command has not been carried out.
pub fn write_error(out: &mut impl BufMut, id: Option<&Id>, code: ErrorCode, reason: &str) {
    begin(out, MessageType::Error, id);
    out.put_slice(b",\"code\":");
    put_string(out, code.as_str().as_bytes());
    out.put_slice(b",\"reason\":");
    put_string(out, reason.as_bytes());
    out.put_u8(b'}');
}

/// The answer to a ping.
pub fn write_pong(out: &mut impl BufMut, id: Option<&Id>) {
    begin(out, MessageType::Pong, id);
    out.put_u8(b'}');
}

/// A message of a topic. The same bytes for every subscriber. `payload` is what `kind` says: UTF-8 for
/// [`PayloadKind::Text`], the text of one JSON value for [`PayloadKind::Json`].
pub fn write_message(out: &mut impl BufMut, topic: &str, offset: u64, kind: PayloadKind, payload: &[u8]) {
    begin(out, MessageType::Message, None);
    out.put_slice(b",\"topic\":");
    put_string(out, topic.as_bytes());
    out.put_slice(b",\"offset\":");
    put_u64(out, offset);
    out.put_slice(b",\"data\":");
    match kind {
        PayloadKind::Text => put_string(out, payload),
        PayloadKind::Json => out.put_slice(payload),
        PayloadKind::Binary => {
            put_base64_string(out, payload);
            out.put_slice(b",\"encoding\":\"base64\"");
        }
    }
    out.put_u8(b'}');
}

/// The front that all messages have in common; the closing brace is the caller's.
fn begin(out: &mut impl BufMut, message: MessageType, id: Option<&Id>) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(message.as_str().as_bytes());
    out.put_u8(b'"');
    if let Some(id) = id {
        out.put_slice(b",\"id\":");
        match id {
            Id::Number(number) => put_u64(out, *number),
            Id::Text(text) => put_string(out, text.as_bytes()),
        }
    }
}

fn put_position(out: &mut impl BufMut, epoch: u64, offset: u64) {
    out.put_slice(b",\"epoch\":");
    put_hex_string(out, epoch);
    out.put_slice(b",\"offset\":");
    put_u64(out, offset);
}
