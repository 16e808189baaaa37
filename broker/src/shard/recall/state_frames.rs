//! The state of a topic as frames, made once for the newcomers that come at about the same time.
//!
//! Bounds: a few lists, for a second each.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ring::Nanos;

use crate::capacity::budget::{self, Account, Held};
use crate::message::{Encoding, Message};
use crate::shard::backlog::Frames;

/// Lists that are remembered.
const LISTS_MAX: usize = 4;
/// How long, in nanoseconds.
const TTL: Nanos = 1_000_000_000;
/// Frames are put together up to about this length, in bytes.
const PART_BYTES: usize = 64 << 10;

/// See the file's head.
#[derive(Default, Debug)]
pub(super) struct StateFrames(Vec<Made>);

#[derive(Debug)]
struct Made {
    state: Arc<[Arc<Message>]>,
    encoding: Encoding,
    frames: Frames,
    at: Nanos,
}

impl StateFrames {
    /// The frames of a list, in its order.
    pub(super) fn of(
        &mut self,
        state: &Arc<[Arc<Message>]>,
        encoding: Encoding,
        account: &Arc<Account>,
        now: Nanos,
    ) -> Frames {
        self.expire(now);
        if let Some(made) = self.0.iter().find(|made| made.encoding == encoding && Arc::ptr_eq(&made.state, state)) {
            return Arc::clone(&made.frames);
        }
        let frames = make(state, encoding, account);
        if self.0.len() == LISTS_MAX {
            self.0.remove(0);
        }
        self.0.push(Made { state: Arc::clone(state), encoding, frames: Arc::clone(&frames), at: now });
        frames
    }

    /// Forgets what is old.
    pub(super) fn expire(&mut self, now: Nanos) {
        self.0.retain(|made| made.at + TTL > now);
    }
}

fn make(state: &[Arc<Message>], encoding: Encoding, account: &Arc<Account>) -> Frames {
    let mut parts = Vec::new();
    let mut part = BytesMut::new();
    for message in state {
        part.extend_from_slice(&message.frame(encoding, account, false));
        if part.len() >= PART_BYTES {
            parts.push(charged(std::mem::take(&mut part), account));
        }
    }
    if !part.is_empty() {
        parts.push(charged(part, account));
    }
    parts.into()
}

fn charged(part: BytesMut, account: &Arc<Account>) -> Bytes {
    let capacity = part.capacity();
    budget::shared(part, capacity, 0, account, Held::Messages)
}
