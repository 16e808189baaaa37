//! The payload as it came, in one WebSocket frame (RFC 6455 5.2). Costs a reference: the payload is stored that way.

use bytes::Bytes;

use crate::message::Message;

/// The frame; nothing of what marks the beginning of an epoch: there is no envelope that could say so.
pub(super) fn frame(message: &Message) -> Bytes {
    match message.begins() {
        None => message.payload().raw_frame().clone(),
        Some(_) => Bytes::new(),
    }
}
