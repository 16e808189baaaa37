//! The state of a topic as frames, made once for the newcomers that come at about the same time.
//!
//! Bounds: a few lists, for a second each.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ring::Nanos;

use crate::capacity::budget::{Account, Held};
use crate::capacity::shared_bytes::shared;
use crate::message::{Encoding, Message};
use crate::shard::backlog::Frames;

/// Lists that are remembered.
const LISTS_MAX: usize = 4;
/// How long, in nanoseconds.
const TTL: Nanos = 1_000_000_000;
/// Frames are put together up to this length, in bytes: a send takes a whole number of such parts.
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
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for message in state {
        let frame = message.frame(encoding, account, false);
        if bytes + frame.len() > PART_BYTES && bytes > 0 {
            parts.push(together(&part, bytes, account));
            part.clear();
            bytes = 0;
        }
        bytes += frame.len();
        part.push(frame);
    }
    if bytes > 0 {
        parts.push(together(&part, bytes, account));
    }
    parts.into()
}

/// One range of all these frames, `bytes` long.
fn together(frames: &[Bytes], bytes: usize, account: &Arc<Account>) -> Bytes {
    let mut part = BytesMut::with_capacity(bytes);
    frames.iter().for_each(|frame| part.extend_from_slice(frame));
    let capacity = part.capacity();
    shared(part, capacity, 0, account, Held::Messages)
}

#[cfg(test)]
mod tests {
    use protocol::v1::PayloadKind;

    use super::*;
    use crate::capacity::budget::{Budget, allocated};
    use crate::ids::{Offset, TopicId};
    use crate::message::Payload;

    fn state(budget: &Budget, lengths: &[usize]) -> Arc<[Arc<Message>]> {
        let message = |(offset, &len): (u64, &usize)| {
            let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; len], budget.of_shard(0));
            Arc::new(Message::new((TopicId(1), "t".into()), Offset(offset), payload, 0))
        };
        (1..).zip(lengths).map(message).collect()
    }

    #[test]
    fn parts_are_as_long_as_can_be_and_take_no_more_than_that() {
        let budget = Budget::new(1, 64 << 20);
        let account = budget.of_shard(0);
        for lengths in [vec![100; 3000], vec![70_000, 10, 70_000, 10, 10], vec![30_000; 7], vec![5]] {
            let state = state(&budget, &lengths);
            let before = budget.held(Held::Messages);
            let frames = make(&state, Encoding::Json, account);
            let whole: Vec<Bytes> = state.iter().map(|message| message.frame(Encoding::Json, account, false)).collect();
            assert_eq!(frames.concat(), whole.concat(), "every frame, in order");
            drop(whole);
            for pair in frames.windows(2) {
                assert!(pair[0].len() + pair[1].len() > PART_BYTES, "both would fit into one");
            }
            let is_one_frame = |part: &Bytes| lengths.iter().any(|len| part.len() >= *len && *len > PART_BYTES);
            assert!(frames.iter().all(|part| part.len() <= PART_BYTES || is_one_frame(part)));
            let most: u64 = frames.iter().map(|part| allocated(part.len()) + 128).sum();
            assert!(budget.held(Held::Messages) - before <= most, "no room that is not used");
        }
    }

    #[test]
    fn a_list_is_made_once_a_second() {
        let budget = Budget::new(1, 64 << 20);
        let (account, state) = (budget.of_shard(0), state(&budget, &[5; 40]));
        let mut made = StateFrames::default();
        let first = made.of(&state, Encoding::JsonState, account, 0);
        assert!(Arc::ptr_eq(&first, &made.of(&state, Encoding::JsonState, account, TTL - 1)));
        assert!(!Arc::ptr_eq(&first, &made.of(&state, Encoding::Raw, account, TTL - 1)), "another encoding");
        assert!(!Arc::ptr_eq(&first, &made.of(&state, Encoding::JsonState, account, TTL)), "later");
    }
}
