//! `ringyard.v1`: many topics over one WebSocket, as JSON in text frames. The types its parts share.
//!
//! The grammar, for people who write clients, is `protocol/RINGYARD-V1.md`; `protocol/vectors/v1.json` holds
//! examples that the tests here and the clients' tests run. Commands come in through [`Parser`], messages go
//! out through the `write_` functions, which append JSON text only: framing is [`crate::frame`]'s. What a
//! command does, and how many topics it may name, is the broker's business.

mod command;
mod flat;
mod interpret;
mod item;
mod json;
mod lease;
mod members;
mod message;
mod names;
mod options;
mod page;
mod position;
mod precheck;
mod presence;
mod request;
mod value;

pub use command::{Command, CommandError, Parser, SessionAsked, Topics};
pub use item::{ITEM_TOPICS_MAX, Item, split};
pub use json::put_string;
pub use lease::{
    LEASE_DEFAULT_MS, LEASE_MAX_MS, LEASE_MIN_MS, LEASE_WAIT_MAX_MS, LeaseAsked, WILL_DELAY_MAX_MS, Will, write_held,
    write_lease_lost, write_leased,
};
pub use message::{
    Connected, MemberParts, MessageParts, Subscribed, write_connected, write_ended, write_error, write_gap,
    write_goaway, write_members, write_message, write_ok, write_ping, write_pong, write_published, write_refresh,
    write_reset, write_state_end, write_subscribed,
};
pub use names::{CommandType, ErrorCode, GapReason, LeaseLostReason, MessageType, ResetReason};
pub use options::{
    Expected, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, HistoryQuery, IDEMPOTENCY_KEY_LEN_MAX, KEY_LEN_MAX,
    MEMBERS_LIMIT_DEFAULT, MEMBERS_LIMIT_MAX, PublishOptions, SESSION_LEN_MAX, THROTTLE_MAX_MS,
};
pub use page::{write_history, write_polled};
pub use position::{Position, Positions, Start};
pub use request::{
    Reply, RequestParts, TIMEOUT_DEFAULT_MS, TIMEOUT_MS, write_answered, write_request, write_responder_error,
};
pub use value::{ValueError, Values};

use crate::frame::MessageKind;

/// The name under which the handshake offers and selects it (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "ringyard.v1";

/// The greatest number that a command may have as its id, or as an offset: JavaScript's numbers are exact up to here.
pub const ID_NUMBER_MAX: u64 = (1 << 53) - 1;

/// The longest string that may be an id, in bytes.
pub const ID_TEXT_LEN_MAX: usize = 64;

/// How deeply published JSON may nest.
pub const DEPTH_MAX: usize = 64;

/// What a published payload is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PayloadKind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
    /// The text of a JSON value: subscribers of this sub-protocol get the value, others its text.
    Json,
}

impl From<MessageKind> for PayloadKind {
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Text => Self::Text,
            MessageKind::Binary => Self::Binary,
        }
    }
}

/// What a client calls a command, to know the answer by. Owned, so that it can wait for an answer that comes
/// from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Id {
    /// At most [`ID_NUMBER_MAX`].
    Number(u64),
    /// At most [`ID_TEXT_LEN_MAX`] bytes.
    Text(IdText),
}

impl Id {
    /// A number as an id, if it is small enough.
    #[must_use]
    pub fn number(number: u64) -> Option<Self> {
        (number <= ID_NUMBER_MAX).then_some(Self::Number(number))
    }

    /// A string as an id, if it is short enough.
    #[must_use]
    pub fn text(text: &str) -> Option<Self> {
        let mut bytes = [0; ID_TEXT_LEN_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self::Text(IdText { len: text.len() as u8, bytes }))
    }
}

/// A short string. Invariant: the bytes behind its end are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdText {
    len: u8,
    bytes: [u8; ID_TEXT_LEN_MAX],
}

impl IdText {
    /// The string's bytes, which are UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}
