//! Messages that wait for their logs while logs come and go: each log gets what came after its join, all of it, in order,
//! and answers come behind the messages that they count.

use proptest::prelude::*;
use protocol::v1::PayloadKind;
use ring::ConnId;

use crate::ids::{Epoch, Offset, ShardId};
use crate::message::Payload;
use crate::sequencer::history::recall::Recalled;
use crate::shard::asked::{Found, RecallAnswer};
use crate::shard::fanout::append::*;
use crate::shard::fanout::log::Subscriber;
use crate::shard::shared::SharedState;

const TOPICS: [&str; 3] = ["a/b", "a/c", "d"];
const FILTERS: [&str; 6] = ["#", "a/+", "+/b", "a/b", "a/c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// A message of this topic comes.
    Message(usize),
    /// An answer about this topic comes.
    Answer(usize),
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
        2 => (0..TOPICS.len()).prop_map(Step::Answer),
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
    /// Answers that came and were not returned yet.
    waiting_answers: usize,
}

impl Stage {
    fn new() -> Self {
        let shared = Arc::new(SharedState::new(1, 1, Epoch(1)));
        let account = Arc::clone(shared.budget.of_shard(0));
        let fanout = FanOut::new(ShardId(0), &shared, &Arc::default(), &account);
        let sequenced = [0; TOPICS.len()];
        Self { fanout, shared, sequenced, expected: Default::default(), waiting_answers: 0 }
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
            Step::Turn(appends) => self.turn(appends),
            Step::Answer(at) => self.answer(at),
            Step::Join(_) => {}
        }
    }

    fn turn(&mut self, appends: usize) {
        let answers = self.fanout.append_up_to(appends);
        self.waiting_answers -= answers.len();
        answers.iter().for_each(|answer| self.check_answer(answer));
    }

    /// An answer that tells of all messages of a topic so far.
    fn answer(&mut self, at: usize) {
        let recalled = Found::Topic(Epoch(1), Recalled::default());
        let conn = ConnId { slot: 0, generation: 0 };
        let answer = RecallAnswer { conn, sub: at as u32, number: self.sequenced[at], found: recalled };
        let topic = self.shared.registry.resolve(TOPICS[at]).id;
        match self.fanout.appends.keep_behind(topic, answer) {
            Some(answer) => self.check_answer(&answer),
            None => self.waiting_answers += 1,
        }
    }

    /// What an answer tells of is in every log that it belongs to.
    fn check_answer(&self, answer: &RecallAnswer) {
        let topic = TOPICS[answer.sub as usize];
        for (slot, messages) in self.expected.iter().flatten() {
            let meant: Vec<Offset> = of(messages, topic).filter(|offset| offset.0 <= answer.number).collect();
            assert!(self.got(*slot, topic).starts_with(&meant), "{topic}");
        }
    }

    /// Of each topic of a log the first message that it still has to get.
    fn check_first_to_come(&self) {
        for (slot, messages) in self.expected.iter().flatten() {
            let mut found: Vec<(&str, Offset)> =
                self.fanout.first_to_come(*slot).map(|message| (&*message.topic, message.offset)).collect();
            found.sort_unstable();
            let missing = |topic| of(messages, topic).nth(self.got(*slot, topic).len()).map(|offset| (topic, offset));
            assert_eq!(found, TOPICS.into_iter().filter_map(missing).collect::<Vec<_>>());
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

/// The offsets of one topic.
fn of(messages: &Messages, topic: &str) -> impl Iterator<Item = Offset> {
    messages.iter().filter(move |(name, _)| *name == topic).map(|(_, offset)| *offset)
}

proptest! {
    #[test]
    fn a_log_gets_what_comes_after_its_join(steps in prop::collection::vec(step(), 1..120)) {
        let mut stage = Stage::new();
        for step in &steps {
            stage.take(step);
            stage.check_first_to_come();
        }
        let own: FxHashSet<LogSlot> = stage.expected.iter().flatten().map(|(slot, _)| *slot).collect();
        while !stage.fanout.appends.is_empty() {
            stage.turn(8);
        }
        prop_assert!(!stage.fanout.waits_for_any(&own));
        prop_assert_eq!(stage.waiting_answers, 0);
        for (slot, messages) in stage.expected.iter().flatten() {
            stage.fanout.logs[*slot].invariants().map_err(TestCaseError::fail)?;
            for topic in TOPICS {
                let expected: Vec<Offset> = of(messages, topic).collect();
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
