//! What the broker says in `ringyard.v1`: one function per message, each appends one JSON object. No library
//! builds a tree first; the cost is that of copying the payload once.

use bytes::BufMut;

use super::json::{put_base64_string, put_hex_string, put_string, put_u64};
use super::{ErrorCode, GapReason, Id, MessageType, PayloadKind, Position, ResetReason};

/// One subscription that has begun.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Subscribed<'a> {
    /// The topic or filter.
    pub topic: &'a str,
    /// Where its first message stands. A filter with wildcards has none.
    pub position: Option<Position>,
    /// With `since`: whether everything after the client's position is there.
    pub recovered: Option<bool>,
    /// If not, the first and the last offset of the messages that the topic remembers, if any.
    pub available: Option<(u64, u64)>,
    /// What the topic remembers, `window` or `keyed`, if anything.
    pub history: Option<&'static str>,
    /// What happens if the subscriber is far behind, `skip` or `latest`, unless it is closed.
    pub slow_consumer: Option<&'static str>,
    /// The least time between two deliveries, in milliseconds; 0: there is none, and nothing is written.
    pub throttle_ms: u32,
}

/// A message of a topic, as subscribers get it. `payload` is what `kind` says: UTF-8 for [`PayloadKind::Text`], the text
/// of one JSON value for [`PayloadKind::Json`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageParts<'a> {
    /// The topic that it was published to.
    pub topic: &'a str,
    /// Its place; not written if there is `up_to`.
    pub offset: u64,
    /// What the payload is.
    pub kind: PayloadKind,
    /// The payload.
    pub payload: &'a [u8],
    /// Which entry of a keyed topic it is.
    pub key: Option<&'a str>,
    /// The entry, or the retained message, is removed.
    pub removed: bool,
    /// It is part of the state that a newcomer begins with.
    pub state: bool,
    /// It is a snapshot, which stands for the messages up to this offset.
    pub up_to: Option<u64>,
    /// When it was published, in milliseconds since 1970.
    pub time_ms: Option<u64>,
    /// The offset of the message before it, if that is not `offset - 1`.
    pub prev: Option<u64>,
}

impl<'a> MessageParts<'a> {
    /// A message with nothing but topic, offset and payload.
    #[must_use]
    pub const fn plain(topic: &'a str, offset: u64, kind: PayloadKind, payload: &'a [u8]) -> Self {
        Self {
            topic,
            offset,
            kind,
            payload,
            key: None,
            removed: false,
            state: false,
            up_to: None,
            time_ms: None,
            prev: None,
        }
    }
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
    for (i, topic) in topics.into_iter().enumerate() {
        out.put_slice(if i == 0 { b"{\"topic\":" } else { b",{\"topic\":" });
        put_string(out, topic.topic.as_bytes());
        if let Some(position) = topic.position {
            put_position(out, position);
        }
        if let Some(recovered) = topic.recovered {
            put_recovered(out, recovered);
        }
        if let Some((from, to)) = topic.available {
            out.put_slice(b",\"available\":{\"from\":");
            put_u64(out, from);
            put_number(out, b",\"to\":", to);
            out.put_u8(b'}');
        }
        if let Some(history) = topic.history {
            out.put_slice(b",\"history\":");
            put_string(out, history.as_bytes());
        }
        if let Some(slow_consumer) = topic.slow_consumer {
            out.put_slice(b",\"slow_consumer\":");
            put_string(out, slow_consumer.as_bytes());
        }
        if topic.throttle_ms > 0 {
            put_number(out, b",\"throttle\":", topic.throttle_ms.into());
        }
        out.put_u8(b'}');
    }
    out.put_slice(b"]}");
}

/// The message has been published, at this position; so many subscriptions match its topic. Or it is a `duplicate` of
/// one that has been before, at this position.
pub fn write_published(out: &mut impl BufMut, id: Option<&Id>, position: Position, subscribers: u32, duplicate: bool) {
    begin(out, MessageType::Ok, id);
    put_position(out, position);
    put_number(out, b",\"subscribers\":", subscribers.into());
    if duplicate {
        out.put_slice(b",\"duplicate\":true");
    }
    out.put_u8(b'}');
}

/// The command has not been carried out. `offset` is what [`ErrorCode::Conflict`] found.
pub fn write_error(out: &mut impl BufMut, id: Option<&Id>, code: ErrorCode, reason: &str, offset: Option<u64>) {
    begin(out, MessageType::Error, id);
    out.put_slice(b",\"code\":");
    put_string(out, code.as_str().as_bytes());
    out.put_slice(b",\"reason\":");
    put_string(out, reason.as_bytes());
    if let Some(offset) = offset {
        put_number(out, b",\"offset\":", offset);
    }
    out.put_u8(b'}');
}

/// How a connection begins.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Connected<'a> {
    /// What its client may bring to go on with its session, if it has one.
    pub session: Option<&'a str>,
    /// Whether the session is one that the client had before.
    pub resumed: bool,
    /// The name that others see.
    pub member: &'a str,
    /// Milliseconds until its token ends.
    pub expires_ms: Option<u64>,
    /// A client that wants pings as messages gets one when it has said nothing for so many milliseconds.
    pub ping_ms: Option<u64>,
    /// Name and version of the broker.
    pub server: &'a str,
}

/// The connection has begun.
pub fn write_connected(out: &mut impl BufMut, id: Option<&Id>, connected: &Connected<'_>) {
    begin(out, MessageType::Ok, id);
    if let Some(session) = connected.session {
        out.put_slice(b",\"session\":");
        put_string(out, session.as_bytes());
        out.put_slice(if connected.resumed { b",\"resumed\":true" } else { b",\"resumed\":false" });
    }
    out.put_slice(b",\"member\":");
    put_string(out, connected.member.as_bytes());
    if let Some(expires_ms) = connected.expires_ms {
        put_number(out, b",\"expires\":", expires_ms);
    }
    if let Some(ping_ms) = connected.ping_ms {
        put_number(out, b",\"ping\":", ping_ms);
    }
    out.put_slice(b",\"server\":");
    put_string(out, connected.server.as_bytes());
    out.put_u8(b'}');
}

/// One member of a topic. `info` is the text of a JSON value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberParts<'a> {
    /// Its name.
    pub member: &'a str,
    /// What it says of itself.
    pub info: Option<&'a [u8]>,
    /// How many sessions it is present with.
    pub connections: u32,
}

/// Who is present at a topic: how many in all, some of them, and whether those are not all.
pub fn write_members<'a>(
    out: &mut impl BufMut,
    id: Option<&Id>,
    count: u64,
    members: impl IntoIterator<Item = MemberParts<'a>>,
    more: bool,
) {
    begin(out, MessageType::Ok, id);
    put_number(out, b",\"count\":", count);
    out.put_slice(b",\"members\":[");
    for (i, member) in members.into_iter().enumerate() {
        out.put_slice(if i == 0 { b"{\"member\":" } else { b",{\"member\":" });
        put_string(out, member.member.as_bytes());
        if let Some(info) = member.info {
            out.put_slice(b",\"info\":");
            out.put_slice(info);
        }
        put_number(out, b",\"connections\":", member.connections.into());
        out.put_u8(b'}');
    }
    out.put_slice(if more { b"],\"more\":true}" } else { b"],\"more\":false}" });
}

/// The broker shuts down and closes the connection: its client comes back after so many milliseconds.
pub fn write_goaway(out: &mut impl BufMut, retry_ms: u64) {
    begin(out, MessageType::Goaway, None);
    put_number(out, b",\"retry\":", retry_ms);
    out.put_u8(b'}');
}

/// Asks the client for a pong.
pub fn write_ping(out: &mut impl BufMut) {
    begin(out, MessageType::Ping, None);
    out.put_u8(b'}');
}

/// The answer to a ping.
pub fn write_pong(out: &mut impl BufMut, id: Option<&Id>) {
    begin(out, MessageType::Pong, id);
    out.put_u8(b'}');
}

/// A message of a topic. The same bytes for every subscriber.
pub fn write_message(out: &mut impl BufMut, message: &MessageParts<'_>) {
    begin(out, MessageType::Message, None);
    out.put_slice(b",\"topic\":");
    put_string(out, message.topic.as_bytes());
    match message.up_to {
        None => put_number(out, b",\"offset\":", message.offset),
        Some(up_to) => put_number(out, b",\"up_to\":", up_to),
    }
    put_data(out, message.kind, message.payload);
    if let Some(key) = message.key {
        out.put_slice(b",\"key\":");
        put_string(out, key.as_bytes());
    }
    if message.removed {
        out.put_slice(b",\"removed\":true");
    }
    if message.state {
        out.put_slice(b",\"state\":true");
    }
    if let Some(time_ms) = message.time_ms {
        put_number(out, b",\"time\":", time_ms);
    }
    if let Some(prev) = message.prev {
        put_number(out, b",\"prev\":", prev);
    }
    out.put_u8(b'}');
}

/// All of the state that the subscription to `topic` begins with has been sent, as of `offset`. A filter with wildcards
/// has no offset.
pub fn write_state_end(out: &mut impl BufMut, topic: &str, offset: Option<u64>) {
    begin_of_topic(out, MessageType::StateEnd, topic);
    if let Some(offset) = offset {
        put_number(out, b",\"offset\":", offset);
    }
    out.put_u8(b'}');
}

/// The messages of a topic from the offset `from` to the offset `to`, both included, will not come.
pub fn write_gap(out: &mut impl BufMut, topic: &str, from: u64, to: u64, reason: GapReason) {
    begin_of_topic(out, MessageType::Gap, topic);
    put_number(out, b",\"from\":", from);
    put_number(out, b",\"to\":", to);
    put_reason(out, reason.as_str());
}

/// The topic's epoch ended; the position is the subscriber's from now on, in the new epoch.
pub fn write_reset(out: &mut impl BufMut, topic: &str, position: Position, reason: ResetReason) {
    begin_of_topic(out, MessageType::Reset, topic);
    put_position(out, position);
    put_reason(out, reason.as_str());
}

/// The client's token ends in so many milliseconds: it should send another.
pub fn write_refresh(out: &mut impl BufMut, in_ms: u64) {
    begin(out, MessageType::Refresh, None);
    put_number(out, b",\"in\":", in_ms);
    out.put_u8(b'}');
}

/// The broker ended the subscription of a topic or filter, or, if so it says, that requests for it come here.
pub fn write_ended(out: &mut impl BufMut, topic: &str, code: ErrorCode, responds: bool) {
    begin_of_topic(out, MessageType::Ended, topic);
    out.put_slice(b",\"code\":");
    put_string(out, code.as_str().as_bytes());
    if responds {
        out.put_slice(b",\"respond\":true");
    }
    out.put_u8(b'}');
}

/// The front that all messages have in common; the closing brace is the caller's.
pub(super) fn begin(out: &mut impl BufMut, message: MessageType, id: Option<&Id>) {
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

/// The front of messages that are about a topic; the closing brace is the caller's.
pub(super) fn begin_of_topic(out: &mut impl BufMut, message: MessageType, topic: &str) {
    begin(out, message, None);
    out.put_slice(b",\"topic\":");
    put_string(out, topic.as_bytes());
}

/// `data`, and `encoding` where that is needed. `payload` is what `kind` says.
pub(super) fn put_data(out: &mut impl BufMut, kind: PayloadKind, payload: &[u8]) {
    out.put_slice(b",\"data\":");
    match kind {
        PayloadKind::Text => put_string(out, payload),
        PayloadKind::Json => out.put_slice(payload),
        PayloadKind::Binary => {
            put_base64_string(out, payload);
            out.put_slice(b",\"encoding\":\"base64\"");
        }
    }
}

pub(super) fn put_position(out: &mut impl BufMut, position: Position) {
    out.put_slice(b",\"epoch\":");
    put_hex_string(out, position.epoch);
    put_number(out, b",\"offset\":", position.offset);
}

pub(super) fn put_number(out: &mut impl BufMut, name: &[u8], number: u64) {
    out.put_slice(name);
    put_u64(out, number);
}

pub(super) fn put_recovered(out: &mut impl BufMut, recovered: bool) {
    out.put_slice(if recovered { b",\"recovered\":true" } else { b",\"recovered\":false" });
}

/// The reason of a gap, a reset or a lost lease, which is its last member.
pub(super) fn put_reason(out: &mut impl BufMut, reason: &str) {
    out.put_slice(b",\"reason\":");
    put_string(out, reason.as_bytes());
    out.put_u8(b'}');
}
