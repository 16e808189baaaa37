//! Messages that a topic remembers: the answer to the command `history`, and to a long poll.

use bytes::BufMut;

use super::json::put_hex_string;
use super::message::{MessageParts, begin, put_number, put_position, put_recovered, write_message};
use super::{Id, MessageType, Position};

/// What a topic remembers, as far as it was asked for. `position` is its epoch and the offset of its newest message, 0
/// if there is none. `recovered` says whether everything after the position that was asked for is there, `more` whether
/// the topic remembers more than was asked for.
pub fn write_history<'a>(
    out: &mut impl BufMut,
    id: Option<&Id>,
    position: Position,
    recovered: Option<bool>,
    messages: impl IntoIterator<Item = MessageParts<'a>>,
    more: bool,
) {
    begin(out, MessageType::Ok, id);
    put_position(out, position);
    if let Some(recovered) = recovered {
        put_recovered(out, recovered);
    }
    put_messages(out, messages);
    out.put_slice(if more { b"],\"more\":true}" } else { b"],\"more\":false}" });
}

/// The answer to a long poll over HTTP: the same of a topic, without a type. `position` is what to ask for next.
pub fn write_polled<'a>(
    out: &mut impl BufMut,
    position: Position,
    recovered: Option<bool>,
    messages: impl IntoIterator<Item = MessageParts<'a>>,
) {
    out.put_slice(b"{\"epoch\":");
    put_hex_string(out, position.epoch);
    put_number(out, b",\"offset\":", position.offset);
    if let Some(recovered) = recovered {
        put_recovered(out, recovered);
    }
    put_messages(out, messages);
    out.put_slice(b"]}");
}

fn put_messages<'a>(out: &mut impl BufMut, messages: impl IntoIterator<Item = MessageParts<'a>>) {
    out.put_slice(b",\"messages\":[");
    for (i, message) in messages.into_iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        write_message(out, &message);
    }
}
