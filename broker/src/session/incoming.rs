//! What a session is given: a whole message, where its bytes are, and what sessions of one shard share.

use bytes::BytesMut;
use protocol::frame::{HEADER_MAX, MessageKind};
use protocol::v1::Parser;

use crate::config::limits::Limits;

/// A whole message of a client.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) kind: MessageKind,
    pub(crate) data: Data<'a>,
}

/// Where its bytes are.
#[derive(Debug)]
pub(crate) enum Data<'a> {
    /// In the buffer that they were received in.
    Received(&'a mut [u8]),
    /// In a buffer of their own, because they came in pieces, behind room for a frame header ([`HEADER_MAX`]).
    Gathered(&'a mut BytesMut),
}

impl<'a> Data<'a> {
    /// The message's bytes, to look at.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Received(bytes) => bytes,
            Self::Gathered(room) => &room[HEADER_MAX..],
        }
    }

    /// The message's bytes.
    pub(crate) fn bytes(self) -> &'a mut [u8] {
        match self {
            Self::Received(bytes) => bytes,
            Self::Gathered(room) => &mut room[HEADER_MAX..],
        }
    }
}

/// What sessions of one shard share.
#[derive(Debug)]
pub(crate) struct Codec<'a, 'o> {
    pub(crate) parser: &'a mut Parser,
    pub(crate) limits: &'o Limits,
    /// Whether its client may do anything but say who it is.
    pub(crate) is_identified: bool,
    /// Where an answer is written.
    pub(crate) out: &'o mut BytesMut,
}
