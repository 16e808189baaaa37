//! What a connection asked for that waits, and lets everything behind it wait: a publish for its topic
//! ([`pause`](crate::shard::transport::pause)), or a `connect` for keys ([`for_keys`](crate::shard::transport::for_keys)), as a copy
//! of the command that is charged as kept input.

use std::sync::Arc;

use protocol::v1::{Id, PayloadKind, PublishOptions, SessionAsked, Will};

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::message::Payload;
use crate::message::options;
use crate::shard::shared::Origin;
use crate::topics::registry::TopicRef;

/// A publish that waits until its topic is no longer congested.
#[derive(Debug)]
pub(crate) struct HeldPublish {
    pub(crate) topic: TopicRef,
    pub(crate) payload: Payload,
    pub(crate) options: Option<Box<options::PublishOptions>>,
    pub(crate) origin: Origin,
}

/// A `connect` that waits until keys were fetched.
#[derive(Debug)]
pub(crate) struct HeldConnect {
    id: Option<Id>,
    token: Box<str>,
    /// The session that it asks for: `None` a new one.
    session: Option<Option<Box<str>>>,
    will: Option<HeldWill>,
    _charge: Charge,
}

/// Its will.
#[derive(Debug)]
struct HeldWill {
    topic: Box<str>,
    kind: PayloadKind,
    data: Box<[u8]>,
    key: Option<Box<str>>,
    retain: bool,
    ttl_ms: Option<u64>,
    delay_ms: u32,
}

impl HeldConnect {
    pub(in crate::shard) fn new(
        id: Option<Id>,
        token: &str,
        session: Option<SessionAsked<'_>>,
        will: Option<Will<'_>>,
        account: &Arc<Account>,
    ) -> Box<Self> {
        let session = session.map(|asked| match asked {
            SessionAsked::New => None,
            SessionAsked::Resumed(secret) => Some(secret.into()),
        });
        let will = will.map(|will| HeldWill {
            topic: will.topic.into(),
            kind: will.kind,
            data: will.data.into(),
            key: will.options.key.map(Into::into),
            retain: will.options.retain,
            ttl_ms: will.options.ttl_ms,
            delay_ms: will.delay_ms,
        });
        let mut held = Self { id, token: token.into(), session, will, _charge: Charge::new(account, Held::Input, 0) };
        let bytes = held.bytes();
        held._charge.resize(bytes);
        Box::new(held)
    }

    /// What it takes.
    pub(in crate::shard) fn bytes(&self) -> u64 {
        let session = self.session.iter().flatten().map(|secret| allocated(secret.len()));
        let will = self.will.iter().map(|will| {
            let key = will.key.as_ref().map_or(0, |key| allocated(key.len()));
            allocated(will.topic.len()) + allocated(will.data.len()) + key
        });
        allocated(size_of::<Self>()) + allocated(self.token.len()) + session.chain(will).sum::<u64>()
    }

    pub(in crate::shard) fn id(&self) -> Option<Id> {
        self.id
    }

    pub(in crate::shard) fn token(&self) -> &str {
        &self.token
    }

    pub(in crate::shard) fn session(&self) -> Option<SessionAsked<'_>> {
        self.session.as_ref().map(|session| session.as_deref().map_or(SessionAsked::New, SessionAsked::Resumed))
    }

    pub(in crate::shard) fn will(&self) -> Option<Will<'_>> {
        self.will.as_ref().map(HeldWill::asked)
    }
}

impl HeldWill {
    fn asked(&self) -> Will<'_> {
        let (key, retain, ttl_ms) = (self.key.as_deref(), self.retain, self.ttl_ms);
        let options = PublishOptions { key, retain, ttl_ms, ..PublishOptions::default() };
        Will { topic: &self.topic, kind: self.kind, data: &self.data, options, delay_ms: self.delay_ms }
    }
}
