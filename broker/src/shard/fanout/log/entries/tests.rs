//! The newest message of each key, against a list that keeps everything.

use proptest::prelude::*;
use protocol::v1::PayloadKind;

use super::*;
use crate::capacity::budget::Budget;
use crate::ids::{Epoch, Offset, TopicId};
use crate::message::Payload;
use crate::message::options::PublishOptions;

#[derive(Clone, Debug)]
enum Step {
    /// A message of this topic, with this key if it is not 0.
    Push(u64, u8),
    /// An epoch of this topic begins.
    Reset(u64),
    /// Positions before one that is so far from the head are not needed.
    Trim(u64),
    /// Those that keep up are so far behind the head.
    Behind(u64),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..2_u64, 0..5_u8).prop_map(|(topic, key)| Step::Push(topic, key)),
        1 => (0..2_u64).prop_map(Step::Reset),
        3 => (0..20_u64).prop_map(Step::Trim),
        3 => (0..20_u64).prop_map(Step::Behind),
        1 => Just(Step::Clear),
    ]
}

/// All that was pushed, and from where on it is needed.
#[derive(Default)]
struct Model {
    all: Vec<Arc<Message>>,
    keep: usize,
    behind: usize,
}

impl Model {
    /// What nobody has superseded, from a position on.
    fn newest(&self, from: usize) -> Vec<(Seq, Arc<Message>)> {
        let from = from.max(self.keep);
        let same = |a: &Message, b: &Message| a.topic_id == b.topic_id && a.key() == b.key() && b.begins().is_none();
        let stays = |at: usize| {
            let message = &self.all[at];
            message.begins().is_some() || !self.all[at + 1..].iter().any(|later| same(message, later))
        };
        let kept = (from..self.all.len()).filter(|at| stays(*at));
        kept.map(|at| (Seq(at as u64), Arc::clone(&self.all[at]))).collect()
    }
}

proptest! {
    #[test]
    fn each_key_has_its_newest_message_and_nothing_else(steps in prop::collection::vec(step(), 1..200)) {
        let budget = Budget::new(1, 1 << 40);
        let account = budget.of_shard(0);
        let mut entries = Entries::latest(Keys::from_seed(1));
        let mut model = Model::default();
        for step in steps {
            let head = model.all.len();
            match step {
                Step::Push(topic, key) => {
                    let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; usize::from(key) * 10], account);
                    let key = (key > 0).then(|| key.to_string().into());
                    let mut options = PublishOptions { key, ..PublishOptions::default() };
                    let place = (TopicId(topic), "t".into());
                    let message = Message::new(place, Offset(1), payload, 0).with_options(&mut options, account);
                    model.all.push(Arc::new(message));
                    entries.push(Arc::clone(&model.all[head]));
                }
                Step::Reset(topic) => {
                    model.all.push(Arc::new(Message::reset((TopicId(topic), "t".into()), Epoch(2), 0, account)));
                    entries.push(Arc::clone(&model.all[head]));
                }
                Step::Behind(distance) => {
                    model.behind = model.behind.max(head.saturating_sub(distance as usize));
                    entries.set_behind(Seq(model.behind as u64));
                }
                Step::Trim(distance) => {
                    // Nobody that keeps up needs what is trimmed.
                    model.keep = model.keep.max(head.saturating_sub(distance as usize).min(model.behind));
                    entries.trim(Seq(model.keep as u64));
                }
                Step::Clear => {
                    (model.keep, model.behind) = (head, head);
                    entries.clear();
                }
            }
            prop_assert_eq!(entries.invariants(), Ok(()));
            let head = model.all.len();
            prop_assert_eq!(entries.head(), Seq(head as u64));
            for from in [0, model.keep, model.behind, head / 2, head] {
                let expected = model.newest(from);
                let expected: Vec<_> = expected.iter().map(|(seq, message)| (*seq, Arc::as_ptr(message))).collect();
                let found: Vec<_> =
                    entries.pending(Seq(from as u64)).map(|(seq, message)| (seq, Arc::as_ptr(message))).collect();
                prop_assert_eq!(found, expected, "from {}", from);
                let bytes: u64 = model.newest(from).iter().map(|(_, message)| weight_of(message)).sum();
                prop_assert_eq!(entries.bytes_from(Seq(from as u64)), bytes);
            }
            let behind: u64 = model.newest(model.behind).iter().map(|(_, message)| weight_of(message)).sum();
            prop_assert_eq!(entries.bytes_behind(Seq(model.behind as u64)), behind);
            let kept = model.newest(0);
            prop_assert_eq!(entries.tail(), kept.first().map_or(Seq(head as u64), |(seq, _)| *seq));
        }
    }
}
