//! The `ringyard.v1` envelope, in one WebSocket text frame: topic, offset and payload, or that an epoch
//! begins. One allocation, one copy of the payload.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use protocol::frame::{HEADER_MAX, Opcode, server_header};
use protocol::v1::{Position, ResetReason, write_message, write_reset};

use crate::capacity::budget::{Account, Held};
use crate::capacity::shared_bytes::shared;
use crate::message::Message;

/// The frame, charged to `account`. `state`: of a message that is part of a topic's state.
pub(super) fn frame(message: &Message, state: bool, account: &Arc<Account>) -> Bytes {
    let payload = message.payload().bytes();
    // The header's length is known only once the envelope is: room for the longest is left in front.
    let mut room = BytesMut::with_capacity(HEADER_MAX + message.topic.len() + payload.len() + payload.len() / 2 + 96);
    room.put_bytes(0, HEADER_MAX);
    match message.begins() {
        None => write_message(&mut room, &message.parts(state)),
        Some(epoch) => {
            let position = Position { epoch: epoch.0, offset: 0 };
            write_reset(&mut room, &message.topic, position, ResetReason::Purged);
        }
    }
    let mut header = [0; HEADER_MAX];
    let len = server_header(Opcode::Text, (room.len() - HEADER_MAX) as u64, &mut header);
    room[HEADER_MAX - len..HEADER_MAX].copy_from_slice(&header[..len]);
    let capacity = room.capacity();
    shared(room, capacity, 0, account, Held::Messages).slice(HEADER_MAX - len..)
}
