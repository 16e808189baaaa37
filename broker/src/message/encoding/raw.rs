//! The payload as it came, in one WebSocket frame (RFC 6455 5.2). Costs a reference: the payload is stored that way.

use bytes::Bytes;

use crate::message::Message;

/// The frame.
pub(super) fn frame(message: &Message) -> Bytes {
    message.payload().raw_frame().clone()
}
