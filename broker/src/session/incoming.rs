//! A message of a client, and where its bytes are.

use bytes::BytesMut;
use protocol::frame::{HEADER_MAX, MessageKind};

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
    /// The message's bytes.
    pub(crate) fn bytes(self) -> &'a mut [u8] {
        match self {
            Self::Received(bytes) => bytes,
            Self::Gathered(room) => &mut room[HEADER_MAX..],
        }
    }
}
