//! Subscribers that skip, without sockets: every message is sent or part of a gap, once, in order.

use proptest::prelude::*;
use protocol::v1::{Id, PayloadKind};
use ring::{ConnId, Gather};

use super::*;
use crate::config::limits::Limits;
use crate::ids::{Epoch, ShardId};
use crate::message::{Message, Payload};
use crate::session::subscription::Begun;
use crate::session::v1::V1Session;
use crate::session::{Session, SessionKind};
use crate::shard::fanout::parts::Thrift;
use crate::shard::shared::SharedState;
use crate::topics::keys::Keys;
use crate::topics::rules::{Policy, Rule, Rules, SlowConsumer};

const ID: ConnId = ConnId { slot: 0, generation: 0 };
const TOPICS: [&str; 2] = ["t/a", "t/b"];
/// What a subscriber may be behind, in bytes: about ten short messages.
const LAG_BYTES_MAX: u64 = 4096;

#[derive(Clone, Debug)]
enum Step {
    /// A message of a topic, so many bytes long.
    Append(usize, usize),
    /// A topic is purged: an epoch begins.
    Reset(usize),
    /// A topic is forgotten and begins anew, which only subscribers of filters see: their logs have several topics.
    Forget(usize),
    /// The subscriber's connection is busy when its turn comes.
    Visit,
    /// Its connection is free.
    Take(Thrift),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..TOPICS.len(), prop_oneof![9 => Just(1_usize), 1 => Just(6000)]).prop_map(|(at, len)| Step::Append(at, len)),
        1 => (0..TOPICS.len()).prop_map(Step::Reset),
        1 => (0..TOPICS.len()).prop_map(Step::Forget),
        4 => Just(Step::Visit),
        1 => prop::sample::select(vec![Thrift::Fast, Thrift::Frugal]).prop_map(Step::Take),
    ]
}

/// What a subscriber was sent of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Got {
    Message(u64),
    Gap(u64, u64),
    Reset,
}

/// One subscriber of a filter, and what it was sent of each topic.
struct Rig {
    fanout: FanOut,
    shared: Arc<SharedState>,
    session: Session,
    slot: LogSlot,
    wildcard: bool,
    /// Of each topic: how many messages each of its epochs had, and whether it began with a marker.
    epochs: [Vec<(u64, bool)>; TOPICS.len()],
    got: [Vec<Got>; TOPICS.len()],
}

impl Rig {
    fn new(filter: &str) -> Self {
        let policy =
            Policy { slow_consumer: SlowConsumer::Skip, lag_bytes_max: Some(LAG_BYTES_MAX), ..Policy::default() };
        let rules = Rules::new(vec![Rule { filter: "#".into(), policy, ..Rule::default() }], Keys::from_seed(1));
        let shared = Arc::new(SharedState::new(1, 1, Epoch(1)).with_rules(rules.unwrap()));
        let account = Arc::clone(shared.budget.of_shard(0));
        let mut fanout = FanOut::new(ShardId(0), &shared, &Arc::new(Limits::default()), &account);
        let topic = shared.registry.resolve(filter);
        let (slot, join) = fanout.open_log(&topic, 1);
        assert!(fanout.joined(topic.id, join, Epoch(1), Offset(1)).is_empty(), "nobody waits");
        let mut session = V1Session::default();
        let key = session.add(slot, filter.into(), shared.registry.keys());
        session.begin_subscribe(Id::number(1), vec![key]);
        let log = &mut fanout.logs[slot];
        let index = log.add(Subscriber { conn: ID, sub: key });
        session.go_live(key, index as u32, log.head());
        session.begin(key, Begun::default(), &mut BytesMut::new());
        let session = Session::V1(Box::new(session));
        let (wildcard, epochs) = (topic.wildcard, std::array::from_fn(|_| vec![(0, false)]));
        Self { fanout, shared, session, slot, wildcard, epochs, got: Default::default() }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(at, len) => {
                let offset = self.epochs[at].last_mut().unwrap();
                offset.0 += 1;
                let offset = Offset(offset.0);
                let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; len], self.shared.budget.of_shard(0));
                let topic = self.shared.registry.resolve(TOPICS[at]);
                self.fanout.append(&Arc::new(Message::new(topic.key(), offset, payload, 0)));
            }
            Step::Reset(at) => {
                self.epochs[at].push((0, true));
                let (topic, epoch) = (self.shared.registry.resolve(TOPICS[at]), Epoch(self.epochs[at].len() as u64));
                let account = self.shared.budget.of_shard(0);
                self.fanout.append(&Arc::new(Message::reset(topic.key(), epoch, 0, account)));
            }
            Step::Forget(at) if self.wildcard => self.epochs[at].push((0, false)),
            Step::Forget(_) => {}
            Step::Visit => self.visit(),
            Step::Take(thrift) => {
                if let Some(gather) = self.fanout.take_pending(ID, &mut self.session, false, thrift, 0) {
                    self.read(&gather);
                }
            }
        }
        self.fanout.delivered(self.slot);
        self.fanout.trim_delivered();
    }

    /// What a delivery round does with a connection that shares its sends.
    fn visit(&mut self) {
        let log = &mut self.fanout.logs[self.slot];
        let Some(subscriber) = log.next_in_round() else { return };
        let subscription = self.session.subscription_mut(subscriber.sub).unwrap();
        if subscription.cursor == log.head() {
            return;
        }
        if let Some(target) = log.skip_target(subscription.cursor) {
            self.fanout.skip(subscriber, self.slot, subscription.cursor, target, true);
            subscription.cursor = target;
        }
        let log = &mut self.fanout.logs[self.slot];
        log.lags(subscription.cursor, !std::mem::replace(&mut subscription.lagging, true));
        self.session.set_pending(subscriber.sub);
    }

    fn read(&mut self, gather: &Gather) {
        let bytes: Vec<u8> = gather.parts().iter().flat_map(|part| part.to_vec()).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            assert_eq!(rest[0], 0x81, "a whole text frame");
            let (head, len) = match rest[1] {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                len => (2, len.into()),
            };
            self.read_text(std::str::from_utf8(&rest[head..head + len]).unwrap().to_owned().as_str());
            rest = &rest[head + len..];
        }
    }

    fn read_text(&mut self, text: &str) {
        let number = |name: &str| {
            let digits = text.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("{name}: {text}"));
            digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
        };
        let at = TOPICS.iter().position(|topic| text.contains(&format!("\"topic\":\"{topic}\""))).expect(text);
        self.got[at].push(match text.split('"').nth(3) {
            Some("gap") => Got::Gap(number("from"), number("to")),
            Some("reset") => Got::Reset,
            Some("message") => Got::Message(number("offset")),
            other => panic!("{other:?}"),
        });
    }

    /// Every message of a topic was sent, or was part of one gap of its epoch, in order, and every marker was sent.
    fn check(&self, at: usize) -> Result<(), TestCaseError> {
        let mut got = self.got[at].iter().copied();
        for (number, &(messages, marked)) in self.epochs[at].iter().enumerate() {
            if marked {
                prop_assert_eq!(got.next(), Some(Got::Reset), "epoch {} of {:?}", number, self.got[at]);
            }
            let mut next = 1;
            while next <= messages {
                match got.next() {
                    Some(Got::Message(offset)) => {
                        prop_assert_eq!(offset, next, "epoch {} of {:?}", number, self.got[at]);
                        next += 1;
                    }
                    Some(Got::Gap(from, to)) => {
                        prop_assert!(from == next && from <= to, "epoch {} of {:?}", number, self.got[at]);
                        next = to + 1;
                    }
                    other => prop_assert!(false, "{:?} in epoch {} of {:?}", other, number, self.got[at]),
                }
            }
            prop_assert_eq!(next, messages + 1, "epoch {} of {:?}", number, self.got[at]);
        }
        prop_assert_eq!(got.next(), None, "{:?}", self.got[at]);
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_is_not_sent_is_a_gap(steps in prop::collection::vec(step(), 1..400), wildcard in any::<bool>()) {
        let mut rig = Rig::new(if wildcard { "t/+" } else { TOPICS[0] });
        for step in &steps {
            rig.step(step);
            let cursor = rig.session.subscriptions().next().unwrap().cursor;
            let log = &rig.fanout.logs[rig.slot];
            prop_assert_eq!(log.invariants(), Ok(()));
            if matches!(step, Step::Visit) && !log.has_pending() {
                let newest = log.pending(cursor).last().map_or(0, |(_, message)| message.weight() + 64);
                prop_assert!(log.lag_bytes(cursor) <= LAG_BYTES_MAX.max(newest), "{}", log.lag_bytes(cursor));
            }
        }
        let slot = rig.slot;
        while rig.fanout.logs[slot].has_pending() {
            rig.step(&Step::Visit);
        }
        while !rig.fanout.has_sent_all(&rig.session) {
            rig.step(&Step::Take(Thrift::Fast));
        }
        rig.check(0)?;
        if wildcard {
            rig.check(1)?;
        }
        prop_assert!(rig.fanout.gaps.0.is_empty());
        prop_assert_eq!(rig.fanout.logs[slot].kept_bytes(), 0);
    }
}

/// It goes on with the newest quarter, and gets one notice, whatever it skipped meanwhile.
#[test]
fn a_subscriber_that_is_too_far_behind_goes_on_with_the_newest_quarter() {
    let mut rig = Rig::new(TOPICS[0]);
    for _ in 0..100 {
        rig.step(&Step::Append(0, 1));
        rig.step(&Step::Visit);
    }
    assert!(rig.fanout.logs[rig.slot].kept_bytes() <= 2 * LAG_BYTES_MAX, "what nobody gets is freed");
    assert!(rig.fanout.stats().skips.get() > 1);
    rig.step(&Step::Take(Thrift::Fast));
    let [Got::Gap(1, _), rest @ ..] = &rig.got[0][..] else { panic!("{:?}", rig.got[0]) };
    assert!(rest.iter().all(|got| matches!(got, Got::Message(_))));
    rig.check(0).unwrap();
}

/// A subscriber of a filter that skips too many topics is closed.
#[test]
fn gaps_of_too_many_topics_close_the_connection() {
    let mut rig = Rig::new("#");
    for number in 0..2 * NOTICES_MAX {
        let topic = rig.shared.registry.resolve(&format!("n/{number}"));
        let payload = Payload::copy_of(PayloadKind::Text, b"x", rig.shared.budget.of_shard(0));
        rig.fanout.append(&Arc::new(Message::new(topic.key(), Offset(1), payload, 0)));
        rig.step(&Step::Visit);
        rig.fanout.append_waiting();
    }
    assert!(!rig.fanout.too_slow.is_empty());
    assert!(rig.fanout.gaps.0.values().all(|skipped| skipped.charge.bytes() > 0));
    rig.fanout.forget_gaps(Subscriber { conn: ID, sub: 0 });
    assert!(rig.fanout.gaps.0.is_empty());
}

/// A send that is full already leaves the gap for the next one.
#[test]
fn a_gap_that_has_no_room_waits() {
    let mut rig = Rig::new(TOPICS[0]);
    for _ in 0..40 {
        rig.step(&Step::Append(0, 1));
        rig.step(&Step::Visit);
    }
    let (subscriber, account) = (Subscriber { conn: ID, sub: 0 }, Arc::clone(rig.shared.budget.of_shard(0)));
    let mut full = Parts::new(Thrift::Frugal);
    assert!(full.push(vec![0; 16 << 10].into()));
    assert_eq!(rig.fanout.gaps.tell(subscriber, (&mut full, Encoding::Json), &account, |_, _| true), Notice::Deferred);
    assert!(full.len() == 1 && rig.fanout.gaps.has(subscriber));
    let mut empty = Parts::new(Thrift::Frugal);
    assert_eq!(rig.fanout.gaps.tell(subscriber, (&mut empty, Encoding::Json), &account, |_, _| true), Notice::Sent);
    assert!(empty.len() == 1 && !rig.fanout.gaps.has(subscriber));
}
