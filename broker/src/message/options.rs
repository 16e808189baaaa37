//! What a publish asks for besides being delivered, and why it may be refused. Made by whatever reads a client's command or
//! request; obeyed by the topic's sequencer.
//!
//! Units: milliseconds; bytes of UTF-8.

use std::fmt;

use protocol::v1;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;

/// Options of a publish. Most have none: they are carried as an `Option<Box<PublishOptions>>`, one word.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PublishOptions {
    /// Which entry of a keyed topic it is; without one, the entry of the empty key.
    pub key: Option<Box<str>>,
    /// It becomes the retained message.
    pub retain: bool,
    /// It deletes the entry of its key or, with `retain`, the retained message.
    pub removed: bool,
    /// After so many milliseconds newcomers are not given it; at least 1.
    pub ttl_ms: Option<u64>,
    /// A publish to this topic with the same key, by a client with the same rights, is the same publish.
    pub idempotency_key: Option<Box<str>>,
    /// Whether its publisher holds a key to publish with: its idempotency keys are not those of anonymous clients, who could
    /// use one up before.
    pub is_key_holder: bool,
    /// Compare-and-set: what the offset of the key's entry, or of the topic's newest message, has to be.
    pub if_offset: Option<Expected>,
    /// What it says of the topic's lease.
    pub lease: LeaseClaim,
}

/// What a publish says of its topic's lease, which it needs where the topic's rule says `exclusive`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum LeaseClaim {
    /// Nothing.
    #[default]
    None,
    /// It is made under the lease of this number.
    Number(u64),
    /// Its publisher needs none.
    Exempt,
}

impl LeaseClaim {
    /// What a command or a request says.
    #[must_use]
    pub fn of(number: Option<u64>) -> Self {
        number.map_or(Self::None, Self::Number)
    }
}

impl PublishOptions {
    /// What they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let len = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        size_of::<Self>() + len(&self.key) + len(&self.idempotency_key)
    }

    /// The same of a publisher that needs no lease.
    #[must_use]
    pub fn exempt(options: Option<Box<Self>>) -> Option<Box<Self>> {
        let mut options = options.unwrap_or_default();
        options.lease = LeaseClaim::Exempt;
        Some(options)
    }

    /// What a command or an item asks for, to be kept; `None`: nothing.
    #[must_use]
    pub fn of(options: v1::PublishOptions<'_>) -> Option<Box<Self>> {
        if options == v1::PublishOptions::default() {
            return None;
        }
        let v1::PublishOptions { key, retain, removed, ttl_ms, idempotency_key, if_offset, lease } = options;
        Some(Box::new(Self {
            key: key.map(Into::into),
            retain,
            removed,
            ttl_ms,
            idempotency_key: idempotency_key.map(Into::into),
            is_key_holder: false,
            if_offset: if_offset.map(|expected| match expected {
                v1::Expected::Absent => Expected::Absent,
                v1::Expected::Offset(offset) => Expected::Offset(offset),
            }),
            lease: LeaseClaim::of(lease),
        }))
    }
}

/// What [`PublishOptions::if_offset`] expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// There is none.
    Absent,
    /// It has this offset.
    Offset(u64),
}

/// The reason of [`Refusal::NotHolder`].
pub const NOT_HOLDER: &str = "the topic is exclusive, and this is not its current lease";

/// Why a sequencer did not carry out a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// What `if_offset` expects does not hold.
    Conflict {
        /// The offset that it was compared with; 0: there is none.
        offset: u64,
    },
    /// The topic's rule does not provide for it.
    Unsupported(&'static str),
    /// A limit is reached.
    Limit(&'static str),
    /// Nothing allows it.
    Forbidden(&'static str),
    /// What it is about is not there.
    NotFound(&'static str),
    /// The topic is published to under its lease only, and this is not the current one.
    NotHolder,
}

/// The code that `ringyard.v1` has for it, and the reason.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { offset } => write!(f, "conflict: the offset is {offset}, not what was expected"),
            Self::Unsupported(reason) => write!(f, "unsupported: {reason}"),
            Self::Limit(reason) => write!(f, "limit: {reason}"),
            Self::Forbidden(reason) => write!(f, "forbidden: {reason}"),
            Self::NotFound(reason) => write!(f, "not-found: {reason}"),
            Self::NotHolder => write!(f, "not-holder: {NOT_HOLDER}"),
        }
    }
}
