//! A last will: what is published when a client's connection ends without `disconnect`. Kept with the session at its home.
//!
//! Not responsible for when that is ([`sessions`](crate::presence::sessions)) and who may (`shard/wills.rs`). Memory: charged
//! with its session.

use std::sync::Arc;

use protocol::v1::PayloadKind;
use ring::Nanos;

use crate::access::principal::Principal;
use crate::capacity::budget::allocated;
use crate::message::options::PublishOptions;
use crate::topics::registry::TopicRef;

/// See the file's head.
#[derive(Debug)]
pub struct Will {
    /// Where it is published.
    pub topic: TopicRef,
    /// What its payload is.
    pub kind: PayloadKind,
    /// The payload. No [`Payload`](crate::message::Payload) yet: publishers do not wait for room that wills take.
    pub data: Box<[u8]>,
    /// How it is published.
    pub options: Option<Box<PublishOptions>>,
    /// How long it waits for its client.
    pub delay: Nanos,
    /// Whose it is; `None`: an anonymous client's.
    pub principal: Option<Arc<Principal>>,
}

impl Will {
    /// What it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let options = self.options.as_ref().map_or(0, |options| allocated(options.bytes()));
        allocated(size_of::<Self>()) + allocated(self.data.len()) + options
    }
}
