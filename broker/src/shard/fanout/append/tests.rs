//! Messages that wait for their logs while logs come and go: each log gets what came after its join, all of it, in order.

use proptest::prelude::*;
use protocol::v1::PayloadKind;
use ring::ConnId;

use crate::ids::{Epoch, Offset, ShardId};
use crate::message::Payload;
use crate::shard::fanout::append::*;
use crate::shard::fanout::log::Subscriber;
use crate::shard::shared::SharedState;

const TOPICS: [&str; 3] = ["a/b", "a/c", "d"];
const FILTERS: [&str; 6] = ["#", "a/+", "+/b", "a/b", "a/c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// A message of this topic comes.
    Message(usize),
    /// A subscriber comes for this filter, if it has none, and its join is answered at once.
    Join(usize),
    /// The log of this filter goes, if it has one.
    Leave(usize),
    /// A turn with room for so many appends.
    Turn(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..TOPICS.len()).prop_map(Step::Message),
        3 => (0..FILTERS.len()).prop_map(Step::Join),
        1 => (0..FILTERS.len()).prop_map(Step::Leave),
        3 => (0..4_usize).prop_map(Step::Turn),
    ]
}

/// Topics and offsets.
type Messages = Vec<(&'static str, Offset)>;

struct Stage {
    fanout: FanOut,
    shared: Arc<SharedState>,
    /// Messages of each topic so far.
    sequenced: [u64; TOPICS.len()],
    /// For each filter with a log: where it is, and the messages that it has to get.
    expected: [Option<(LogSlot, Messages)>; FILTERS.len()],
}

impl Stage {
    fn new() -> Self {
        let shared = Arc::new(SharedState::new(1, 1, Epoch(1)));
        let account = Arc::clone(shared.budget.of_shard(0));
        let fanout = FanOut::new(ShardId(0), &shared, &Arc::default(), &account);
        Self { fanout, shared, sequenced: [0; TOPICS.len()], expected: Default::default() }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Message(at) => self.message(at),
            Step::Join(at) if self.expected[at].is_none() => self.join(at),
            Step::Leave(at) => {
                if let Some((slot, _)) = self.expected[at].take() {
                    self.fanout.remove_subscriber(slot, 0, false);
                    assert!(self.fanout.close_unused(slot).is_some());
                }
            }
            Step::Turn(appends) => self.fanout.append_up_to(appends),
            Step::Join(_) => {}
        }
    }

    fn message(&mut self, at: usize) {
        self.sequenced[at] += 1;
        let offset = Offset(self.sequenced[at]);
        let topic = self.shared.registry.resolve(TOPICS[at]);
        let payload = Payload::copy_of(PayloadKind::Text, b"x", self.shared.budget.of_shard(0));
        for (filter, expected) in FILTERS.iter().zip(&mut self.expected) {
            if let Some((_, messages)) = expected
                && protocol::topic::matches(filter, TOPICS[at])
            {
                messages.push((TOPICS[at], offset));
            }
        }
        self.fanout.append(&Arc::new(Message::new(topic.key(), offset, payload, 0)));
    }

    fn join(&mut self, at: usize) {
        let topic = self.shared.registry.resolve(FILTERS[at]);
        let (slot, join) = self.fanout.open_log(&topic, 1);
        let next = TOPICS.iter().position(|name| *name == FILTERS[at]).map_or(0, |at| self.sequenced[at] + 1);
        assert!(self.fanout.joined(topic.id, join, Epoch(1), Offset(next)).is_empty(), "nobody waits");
        self.fanout.logs[slot].add(Subscriber { conn: ConnId { slot: at as u32, generation: 0 }, sub: 0 });
        self.expected[at] = Some((slot, Vec::new()));
    }

    /// Messages of each topic that a log has, in its order.
    fn got(&self, slot: LogSlot, topic: &str) -> Vec<Offset> {
        self.fanout.logs[slot].kept().filter(|message| *message.topic == *topic).map(|message| message.offset).collect()
    }
}

proptest! {
    #[test]
    fn a_log_gets_what_comes_after_its_join(steps in prop::collection::vec(step(), 1..120)) {
        let mut stage = Stage::new();
        for step in &steps {
            stage.take(step);
        }
        let own: FxHashSet<LogSlot> = stage.expected.iter().flatten().map(|(slot, _)| *slot).collect();
        while !stage.fanout.appends.is_empty() {
            stage.fanout.append_up_to(8);
        }
        prop_assert!(!stage.fanout.waits_for_any(&own));
        for (slot, messages) in stage.expected.iter().flatten() {
            stage.fanout.logs[*slot].invariants().map_err(TestCaseError::fail)?;
            for topic in TOPICS {
                let expected: Vec<Offset> =
                    messages.iter().filter(|(name, _)| *name == topic).map(|(_, offset)| *offset).collect();
                prop_assert_eq!(stage.got(*slot, topic), expected, "{}", topic);
            }
        }
    }
}

#[test]
fn a_message_on_its_way_into_a_log_is_waited_for() {
    let mut stage = Stage::new();
    for step in [Step::Join(0), Step::Join(1), Step::Turn(0), Step::Message(0)] {
        stage.take(&step);
    }
    let slot_of = |stage: &Stage, at: usize| stage.expected[at].as_ref().expect("a log").0;
    let [all, matching] = [0, 1].map(|at| FxHashSet::from_iter([slot_of(&stage, at)]));
    assert!(stage.fanout.waits_for_any(&all) && stage.fanout.waits_for_any(&matching));
    stage.take(&Step::Join(5));
    let unrelated = FxHashSet::from_iter([slot_of(&stage, 5)]);
    assert!(!stage.fanout.waits_for_any(&unrelated), "nobody waits for messages of other topics");
    stage.take(&Step::Turn(8));
    assert!(!stage.fanout.waits_for_any(&all));
}
