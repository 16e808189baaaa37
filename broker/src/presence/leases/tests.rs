//! Single promises about leases, and what holds after any commands.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ring::ConnId;

use super::*;
use crate::capacity::budget::Budget;
use crate::ids::ShardId;
use crate::presence::Owner;
use crate::topics::registry::Registry;

struct Stage {
    leases: Leases,
    topics: [TopicRef; 2],
    budget: Budget,
    tickets: u64,
    _registry: Registry,
}

fn session(number: u64) -> SessionRef {
    SessionRef { home: ShardId(0), number }
}

impl Stage {
    fn new() -> Self {
        let budget = Budget::new(1, u64::MAX >> 1);
        let registry = Registry::new(1, 1);
        let topics = ["a", "b"].map(|name| registry.resolve(name));
        Self { leases: Leases::new(0, budget.of_shard(0)), topics, budget, tickets: 0, _registry: registry }
    }

    fn asker(&mut self, number: u64) -> Asker {
        self.tickets += 1;
        let owner = Owner { shard: ShardId(0), conn: ConnId { slot: number as u32, generation: 0 } };
        Asker { session: session(number), by: format!("m{number}").into(), answer: (owner, self.tickets) }
    }

    fn take(&mut self, number: u64, ttl: Nanos, wait: Nanos, now: Nanos) -> Vec<String> {
        let (asker, topic) = (self.asker(number), self.topics[0].clone());
        self.leases.take(&topic, asker, ttl, wait, now);
        self.said()
    }

    fn renew(&mut self, number: u64, lease: u64, now: Nanos) -> Vec<String> {
        let (asker, topic) = (self.asker(number), self.topics[0].clone());
        self.leases.renew(&topic, asker, lease, None, now);
        self.said()
    }

    fn expire(&mut self, now: Nanos) -> Vec<String> {
        while self.leases.expire(now) {}
        self.said()
    }

    /// A word for every event; what is said of the topic is who has its lease and until when.
    fn said(&mut self) -> Vec<String> {
        self.leases.check().unwrap();
        let events = self.leases.take_events();
        let current = self.leases.current(self.topics[0].id);
        let words = events.into_iter().map(|event| match event {
            Event::Answered { asker, outcome, .. } => {
                let name = asker.by;
                match outcome {
                    Outcome::Granted { number, ttl } => format!("{name} has {number} for {ttl}"),
                    Outcome::Released => format!("{name} gave it back"),
                    Outcome::Held { by, left } => format!("{name} hears of {by} for {left}"),
                    Outcome::NotThere => format!("{name} has it not"),
                }
            }
            Event::Lost { session, number, reason, .. } => {
                format!("m{} lost {number}: {}", session.number, reason.as_str())
            }
            Event::Changed(_) => {
                current.as_ref().map_or("free".to_owned(), |current| format!("{} until {}", current.by, current.until))
            }
        });
        words.collect()
    }
}

#[test]
fn who_waits_gets_it_in_the_order_of_the_commands() {
    let mut stage = Stage::new();
    assert_eq!(stage.take(1, 10, 0, 0), ["m1 has 1 for 10"]);
    assert_eq!(stage.take(2, 10, 0, 4), ["m2 hears of m1 for 6"]);
    assert_eq!(stage.take(3, 20, 50, 5), <[&str; 0]>::default());
    assert_eq!(stage.take(2, 10, 50, 5), <[&str; 0]>::default());
    assert_eq!(stage.take(3, 30, 40, 6), ["m3 hears of m1 for 4"], "its place is that of the first command");
    assert_eq!(stage.take(1, 10, 0, 7), ["m1 until 17", "m1 has 1 for 10"], "it has it already");
    let (asker, topic) = (stage.asker(1), stage.topics[0].clone());
    stage.leases.release(&topic, asker, 1, 8);
    assert_eq!(stage.said(), ["m1 gave it back", "m3 until 38", "m3 has 2 for 30"]);
    assert_eq!(stage.renew(1, 1, 8), ["m1 has it not"]);
    stage.leases.free(topic.id, session(3), 9);
    assert_eq!(stage.said(), ["m2 until 19", "m2 has 3 for 10"]);
    stage.leases.free(topic.id, session(2), 9);
    assert_eq!(stage.said(), ["free"]);
    assert_eq!(stage.take(1, 10, 0, 9), ["m1 has 4 for 10"], "no number comes twice");
}

#[test]
fn a_lease_runs_out_unless_it_is_renewed() {
    let mut stage = Stage::new();
    stage.take(1, 10, 0, 0);
    assert_eq!(stage.renew(1, 1, 9), ["m1 until 19", "m1 has 1 for 10"]);
    assert_eq!(stage.expire(18), <[&str; 0]>::default());
    stage.take(2, 10, 3, 10);
    stage.take(3, 10, 9, 10);
    stage.take(4, 10, 90, 10);
    assert_eq!(stage.leases.next_due(), Some(13));
    // A late turn: the second had waited long enough when the lease ended, the third had not.
    let said = stage.expire(25);
    assert_eq!(said[..2], ["m2 hears of m1 for 0", "m1 lost 1: expired"], "{said:?}");
    assert_eq!(said[2..], ["m3 until 35", "m3 has 2 for 10"]);
    assert_eq!(stage.renew(1, 1, 25), ["m1 has it not"]);
    stage.leases.close(stage.topics[0].id, session(3), 26);
    assert_eq!(stage.said(), ["m3 lost 2: closed", "m4 until 36", "m4 has 3 for 10"]);
    assert_eq!(stage.expire(36), ["m4 lost 3: expired", "free"]);
    assert_eq!((stage.leases.next_due(), stage.leases.len()), (None, 0));
    assert_eq!(stage.budget.of_shard(0).held(Held::Subscriptions), 0);
}

#[test]
fn a_lease_waits_with_its_session() {
    let mut stage = Stage::new();
    let topic = stage.topics[0].id;
    stage.take(1, 10, 0, 0);
    stage.take(2, 10, 100, 0);
    stage.leases.keep(topic, session(1), 15, 0);
    assert_eq!(stage.said(), ["m1 until 15"]);
    assert_eq!(stage.expire(16), <[&str; 0]>::default(), "its home says when it is over");
    stage.leases.resume(topic, session(1), 16);
    assert_eq!(stage.said(), ["m1 until 26"]);
    stage.leases.resume(topic, session(1), 20);
    assert_eq!(stage.said(), <[&str; 0]>::default(), "who was not away has no more time");
    // Who waits and goes does not get it.
    stage.leases.keep(topic, session(2), 30, 20);
    assert_eq!(stage.said(), ["m2 hears of m1 for 6"]);
    stage.leases.free(topic, session(1), 21);
    assert_eq!(stage.said(), ["free"]);
}

#[derive(Clone, Debug)]
enum Step {
    Take { ttl: Nanos, wait: Nanos },
    Renew { back: u64 },
    Release { back: u64 },
    Keep,
    Resume,
    Close,
    Free,
    Pass(Nanos),
}

fn step() -> impl Strategy<Value = (u64, usize, Step)> {
    let step = prop_oneof![
        4 => (1..20_u64, prop_oneof![Just(0), 1..30_u64]).prop_map(|(ttl, wait)| Step::Take { ttl, wait }),
        2 => (0..2_u64).prop_map(|back| Step::Renew { back }),
        1 => (0..2_u64).prop_map(|back| Step::Release { back }),
        1 => Just(Step::Keep),
        1 => Just(Step::Resume),
        1 => Just(Step::Close),
        1 => Just(Step::Free),
        3 => (1..15_u64).prop_map(Step::Pass),
    ];
    (0..4_u64, 0..2_usize, step)
}

proptest! {
    /// Every command has one answer; numbers only rise; a lease is granted to nobody while another session has it.
    #[test]
    fn leases_exclude(steps in prop::collection::vec(step(), 1..80)) {
        let mut stage = Stage::new();
        let (mut now, mut last, mut answered) = (0, 0, 0);
        let mut holders: BTreeMap<TopicId, (SessionRef, u64)> = BTreeMap::new();
        let mut away: Vec<(SessionRef, TopicId)> = Vec::new();
        for (number, at, step) in steps {
            let (who, topic) = (session(number), stage.topics[at].clone());
            let id = topic.id;
            let lease = |back: u64| holders.get(&id).map_or(0, |(_, number)| number - back.min(*number));
            match step {
                Step::Take { ttl, wait } => {
                    let asker = stage.asker(number);
                    stage.leases.take(&topic, asker, ttl, wait, now);
                }
                Step::Renew { back } => {
                    let asker = stage.asker(number);
                    stage.leases.renew(&topic, asker, lease(back), None, now);
                }
                Step::Release { back } => {
                    let asker = stage.asker(number);
                    stage.leases.release(&topic, asker, lease(back), now);
                }
                Step::Keep => {
                    stage.leases.keep(id, who, now + 15, now);
                    away.push((who, id));
                }
                Step::Resume => stage.leases.resume(id, who, now),
                Step::Close => stage.leases.close(id, who, now),
                Step::Free => {
                    stage.leases.free(id, who, now);
                    // Nobody learns of it: the session is over.
                    holders.retain(|topic, (holder, _)| *topic != id || *holder != who);
                }
                Step::Pass(time) => {
                    now += time;
                    while stage.leases.expire(now) {}
                }
            }
            stage.leases.check().unwrap();
            for event in stage.leases.take_events() {
                match event {
                    Event::Answered { topic, asker, outcome } => {
                        answered += 1;
                        let holder = holders.get(&topic.id).copied();
                        match outcome {
                            Outcome::Granted { number, .. } if holder.is_some_and(|(who, _)| who == asker.session)
                                && holder.is_some_and(|(_, held)| held == number) => {}
                            Outcome::Granted { number, .. } => {
                                prop_assert!(number > last, "{number} after {last}");
                                prop_assert_eq!(holder, None);
                                last = number;
                                holders.insert(topic.id, (asker.session, number));
                            }
                            Outcome::Released => drop(holders.remove(&topic.id)),
                            Outcome::Held { by, .. } => prop_assert_ne!(by, asker.by),
                            Outcome::NotThere => {}
                        }
                    }
                    Event::Lost { topic, session, number, .. } => {
                        prop_assert_eq!(holders.remove(&topic.id), Some((session, number)));
                    }
                    Event::Changed(_) => {}
                }
            }
            for topic in &stage.topics {
                let current = stage.leases.current(topic.id).map(|current| (current.session, current.number));
                prop_assert_eq!(current, holders.get(&topic.id).copied());
            }
        }
        // All who are away come back, and time passes: everybody who waits is answered.
        for (who, topic) in away {
            stage.leases.resume(topic, who, now);
        }
        // Who waited may get it in a late turn, and has it for its time.
        for _ in 0..5 {
            now += 1000;
            while stage.leases.expire(now) {}
        }
        answered += stage.leases.take_events().iter().filter(|event| matches!(event, Event::Answered { .. })).count() as u64;
        prop_assert_eq!((answered, stage.leases.len()), (stage.tickets, 0));
    }
}
