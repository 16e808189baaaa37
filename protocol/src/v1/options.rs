//! What a publish may ask for beyond its payload, and what a history command asks for. Strings point into the frame.
//!
//! Not here: what the options mean for a topic (`topics` and `sequencer` in the broker). Times are milliseconds,
//! lengths bytes.

use super::position::Position;

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 255;

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_LEN_MAX: usize = 64;

/// The longest throttle of a subscription, in milliseconds.
pub const THROTTLE_MAX_MS: u32 = 5000;

/// How many messages one history command gets when it does not say.
pub const HISTORY_LIMIT_DEFAULT: u32 = 100;

/// How many messages one history command may ask for.
pub const HISTORY_LIMIT_MAX: u32 = 1000;

/// How many members one command gets when it does not say.
pub const MEMBERS_LIMIT_DEFAULT: u32 = 100;

/// How many members one command may ask for.
pub const MEMBERS_LIMIT_MAX: u32 = 1000;

/// The longest session, in bytes. What the broker gives out is shorter.
pub const SESSION_LEN_MAX: usize = 64;

/// The options of a publish; by default none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct PublishOptions<'a> {
    /// The entry of a keyed topic; at most [`KEY_LEN_MAX`] bytes, at least one: the empty key is none.
    pub key: Option<&'a str>,
    /// The message becomes the retained one.
    pub retain: bool,
    /// The key's entry, or with `retain` the retained message, is removed.
    pub removed: bool,
    /// For how long newcomers are given the message, in milliseconds; at least 1.
    pub ttl_ms: Option<u64>,
    /// Tells a repeated publish; 1 to [`IDEMPOTENCY_KEY_LEN_MAX`] bytes.
    pub idempotency_key: Option<&'a str>,
    /// The publish holds only if this does.
    pub if_offset: Option<Expected>,
    /// The number of the lease that it is made under; at least 1.
    pub lease: Option<u64>,
}

/// The newest message that a publisher expects: of the key in a keyed topic, else of the topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// There is none.
    Absent,
    /// It has this offset, which is at least 1.
    Offset(u64),
}

/// Which messages of a topic a client wants to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryQuery {
    /// Only messages after this one.
    pub since: Option<Position>,
    /// Only messages before this one. There are not both.
    pub before: Option<Position>,
    /// So many at most: 1 to [`HISTORY_LIMIT_MAX`].
    pub limit: u32,
    /// Newest first.
    pub reverse: bool,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self { since: None, before: None, limit: HISTORY_LIMIT_DEFAULT, reverse: false }
    }
}
