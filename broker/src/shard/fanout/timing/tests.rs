//! Throttles on a clock of the test: who is delivered to when, and that nothing is lost on the way.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use protocol::v1::PayloadKind;
use ring::{ConnId, Nanos};

use super::*;
use crate::config::limits::Limits;
use crate::ids::{Epoch, Offset, ShardId};
use crate::message::{Message, Payload};
use crate::session::raw::RawSession;
use crate::session::subscription::Begun;
use crate::session::{Session, SessionKind};
use crate::shard::fanout::log::Subscriber;
use crate::shard::fanout::parts::Thrift;
use crate::shard::shared::SharedState;
use crate::topics::keys::Keys;
use crate::topics::registry::TopicRef;
use crate::topics::rules::{Policy, Rule, Rules};

const MILLI: Nanos = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// A message comes.
    Publish,
    /// So many milliseconds pass.
    Pass(u64),
    /// A subscriber comes that asks for this throttle, in milliseconds.
    Join(u64),
    /// One of them leaves.
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Publish),
        4 => (1..40_u64).prop_map(Step::Pass),
        1 => (200..1500_u64).prop_map(Step::Pass),
        2 => prop::sample::select(vec![0, 20, 90, 400]).prop_map(Step::Join),
        1 => any::<usize>().prop_map(Step::Leave),
    ]
}

/// A subscriber, and the messages that it was sent with the time of their sends.
struct Reader {
    id: ConnId,
    session: Session,
    throttle: Nanos,
    /// The first message that it is to be sent.
    begins: u64,
    got: Vec<(Nanos, u64)>,
}

struct Rig {
    fanout: FanOut,
    shared: Arc<SharedState>,
    topic: TopicRef,
    anchor: Option<LogSlot>,
    now: Nanos,
    /// When each message was published.
    published: Vec<Nanos>,
    readers: Vec<Reader>,
    gone: Vec<Reader>,
    next_id: u32,
}

impl Rig {
    /// With a rule of this throttle.
    fn new(throttle_ms: u64) -> Self {
        let policy = Policy { throttle: Throttle::at_least(Duration::from_millis(throttle_ms)), ..Policy::default() };
        let rules = Rules::new(vec![Rule { filter: "#".into(), policy, ..Rule::default() }], Keys::from_seed(1));
        let shared = Arc::new(SharedState::new(1, 1, Epoch(1)).with_rules(rules.unwrap()));
        let account = Arc::clone(shared.budget.of_shard(0));
        let fanout = FanOut::new(ShardId(0), &shared, &Arc::new(Limits::default()), &account);
        let topic = shared.registry.resolve("t");
        let (now, published) = (1, Vec::new());
        Self { fanout, shared, topic, anchor: None, now, published, readers: Vec::new(), gone: Vec::new(), next_id: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish => {
                self.published.push(self.now);
                let text = (self.published.len() - 1).to_string();
                let payload = Payload::copy_of(PayloadKind::Text, text.as_bytes(), self.shared.budget.of_shard(0));
                let offset = Offset(self.published.len() as u64);
                self.fanout.append(&Arc::new(Message::new(self.topic.key(), offset, payload, self.now)));
            }
            Step::Pass(millis) => {
                for _ in 0..millis {
                    self.now += MILLI;
                    self.fanout.open_due_rounds(self.now);
                    self.deliver();
                }
            }
            Step::Join(throttle_ms) => self.join(throttle_ms),
            Step::Leave(at) if !self.readers.is_empty() => {
                let at = at % self.readers.len();
                self.leave(at);
            }
            Step::Leave(_) => {}
        }
        self.deliver();
    }

    fn join(&mut self, throttle_ms: u64) {
        let anchor = self.anchor.unwrap_or_else(|| {
            let (slot, join) = self.fanout.open_log(&self.topic, 1);
            let next = Offset(self.published.len() as u64 + 1);
            assert!(self.fanout.joined(self.topic.id, join, Epoch(1), next).is_empty());
            slot
        });
        self.anchor = Some(anchor);
        let slot = self.fanout.open_group(anchor, Throttle::at_least(Duration::from_millis(throttle_ms)));
        let id = ConnId { slot: self.next_id, generation: 0 };
        self.next_id += 1;
        let mut session = RawSession::default();
        let key = session.add(slot, "t".into(), self.shared.registry.keys());
        let log = &mut self.fanout.logs[slot];
        let index = log.add(Subscriber { conn: id, sub: key });
        session.go_live(key, index as u32, log.head());
        session.begin(key, Begun::default(), &mut bytes::BytesMut::new());
        let throttle = log.policy.throttle.nanos();
        let begins = self.published.len() as u64;
        self.readers.push(Reader { id, session: Session::Raw(session), throttle, begins, got: Vec::new() });
    }

    fn leave(&mut self, at: usize) {
        let reader = self.readers.swap_remove(at);
        let subscription = *reader.session.subscription(0).unwrap();
        let moved = self.fanout.remove_subscriber(subscription.log, subscription.index, subscription.lagging);
        if let Some(moved) = moved {
            let other = self.readers.iter_mut().find(|reader| reader.id == moved.conn).unwrap();
            other.session.subscription_mut(0).unwrap().index = subscription.index;
        }
        if self.fanout.close_unused(subscription.log).is_some() {
            assert!(self.readers.is_empty(), "the topic is left with its last subscriber");
            self.anchor = None;
        }
        self.gone.push(reader);
    }

    /// What delivery rounds do with connections that are free.
    fn deliver(&mut self) {
        while let Some(slot) = self.fanout.fresh.pop_front() {
            let Some(log) = self.fanout.logs.get_mut(slot) else { continue };
            log.queued = false;
            while let Some(subscriber) = self.fanout.logs.get_mut(slot).and_then(|log| log.next_in_round()) {
                self.send(subscriber);
            }
            self.fanout.delivered(slot);
        }
        for (slot, subscriber) in std::mem::take(&mut self.fanout.moved) {
            if self.fanout.logs.get(slot).is_some_and(|log| log.has_pending()) {
                self.send(subscriber);
            }
        }
        self.fanout.trim_delivered();
        for log in self.fanout.logs.iter() {
            log.invariants().unwrap();
        }
    }

    fn send(&mut self, subscriber: Subscriber) {
        let reader = self.readers.iter_mut().find(|reader| reader.id == subscriber.conn).unwrap();
        let subscription = reader.session.subscription(0).unwrap();
        if subscription.cursor == self.fanout.logs[subscription.log].head() {
            return;
        }
        let gather = self.fanout.take_one(subscriber.conn, &mut reader.session, 0, Thrift::Fast, self.now).unwrap();
        let bytes: Vec<u8> = gather.parts().iter().flat_map(|part| part.to_vec()).collect();
        let mut rest = &bytes[..];
        while let [0x81, len, text @ ..] = rest {
            let (text, others) = text.split_at(usize::from(*len));
            reader.got.push((self.now, std::str::from_utf8(text).unwrap().parse().unwrap()));
            rest = others;
        }
        assert!(rest.is_empty());
    }

    /// Everybody was sent everything, in order, once an interval at most, and in time.
    fn check(&self) -> Result<(), TestCaseError> {
        for (reader, is_gone) in
            self.readers.iter().map(|reader| (reader, false)).chain(self.gone.iter().map(|reader| (reader, true)))
        {
            let numbers: Vec<_> = reader.got.iter().map(|(_, number)| *number).collect();
            let end = if is_gone { reader.begins + numbers.len() as u64 } else { self.published.len() as u64 };
            prop_assert_eq!(numbers, (reader.begins..end).collect::<Vec<_>>());
            let mut sends: Vec<_> = reader.got.iter().map(|(at, _)| *at).collect();
            sends.dedup();
            for pair in sends.windows(2) {
                prop_assert!(pair[1] - pair[0] >= reader.throttle, "{:?} with {}", pair, reader.throttle);
            }
            for (at, number) in &reader.got {
                let waited = at - self.published[*number as usize];
                prop_assert!(waited <= reader.throttle, "message {} waited {}", number, waited);
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn once_an_interval_everything(
        rule_ms in prop::sample::select(vec![0_u64, 0, 50, 250]),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut rig = Rig::new(rule_ms);
        for step in &steps {
            rig.step(step);
        }
        rig.step(&Step::Pass(600));
        rig.check()?;
        prop_assert_eq!(rig.fanout.log_bytes, 0);
        while !rig.readers.is_empty() {
            rig.step(&Step::Leave(0));
        }
        prop_assert_eq!(rig.fanout.logs.len(), 0);
        rig.step(&Step::Pass(600));
        prop_assert_eq!(rig.fanout.next_deadline(), None, "nobody is waited for");
    }
}

/// The first message after silence is sent at once, those that follow together when the interval is over.
#[test]
fn the_first_message_after_silence_does_not_wait() {
    let mut rig = Rig::new(100);
    rig.step(&Step::Join(0));
    for silence in 0..3 {
        let begun = rig.now;
        rig.step(&Step::Publish);
        rig.step(&Step::Pass(10));
        rig.step(&Step::Publish);
        rig.step(&Step::Pass(10));
        rig.step(&Step::Publish);
        rig.step(&Step::Pass(400));
        let times: Vec<_> = rig.readers[0].got[3 * silence..].iter().map(|(at, _)| at - begun).collect();
        assert_eq!(times, [0, 100 * MILLI, 100 * MILLI]);
    }
}

/// More than a quarter of what a subscriber may be behind does not wait, so that nobody waits for a throttle; nor does anything
/// once the broker ends.
#[test]
fn much_does_not_wait_and_the_end_does_not_either() {
    let mut rig = Rig::new(5000);
    rig.step(&Step::Join(0));
    rig.step(&Step::Publish);
    let slot = rig.anchor.unwrap();
    rig.fanout.logs[slot].policy.bytes_max = 4096;
    for _ in 0..100 {
        rig.step(&Step::Publish);
        assert!(!rig.fanout.logs[slot].congested && rig.fanout.logs[slot].kept_bytes() <= 2048);
    }
    assert!(rig.readers[0].got.len() > 90, "{}", rig.readers[0].got.len());
    rig.fanout.end_throttles();
    rig.deliver();
    assert_eq!(rig.readers[0].got.len(), 101);
    rig.step(&Step::Publish);
    assert_eq!(rig.readers[0].got.len(), 102);
}
