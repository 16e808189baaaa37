//! Sessions against a model, and single promises.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ring::ConnId;

use super::*;
use crate::capacity::budget::Budget;
use crate::presence::secret::Secrets;
use crate::topics::registry::Registry;

const GRACE: Nanos = 10;

#[derive(Clone, Debug)]
enum Step {
    /// A connection opens a session, perhaps with the secret that this one got.
    Open {
        conn: u32,
        user: Option<usize>,
        like: Option<u32>,
    },
    Enter {
        conn: u32,
        topic: usize,
    },
    Leave {
        conn: u32,
        topic: usize,
    },
    Drop {
        conn: u32,
    },
    End {
        conn: u32,
    },
    Wait(Nanos),
}

fn step() -> impl Strategy<Value = Step> {
    let conn = || 0..5_u32;
    prop_oneof![
        3 => (conn(), prop::option::of(0..2_usize), prop::option::of(0..5_u32))
            .prop_map(|(conn, user, like)| Step::Open { conn, user, like }),
        3 => (conn(), 0..3_usize).prop_map(|(conn, topic)| Step::Enter { conn, topic }),
        1 => (conn(), 0..3_usize).prop_map(|(conn, topic)| Step::Leave { conn, topic }),
        3 => conn().prop_map(|conn| Step::Drop { conn }),
        1 => conn().prop_map(|conn| Step::End { conn }),
        2 => (1..15_u64).prop_map(Step::Wait),
    ]
}

fn owner(slot: u32) -> Owner {
    Owner { shard: ShardId(0), conn: ConnId { slot, generation: 0 } }
}

/// What the model knows of a session.
#[derive(Clone, Debug)]
struct Expected {
    secret: Secret,
    user: Option<usize>,
    conn: Option<u32>,
    ends: Option<Nanos>,
    entered: Vec<usize>,
}

proptest! {
    #[test]
    fn a_session_lasts_for_its_grace_and_no_longer(steps in prop::collection::vec(step(), 1..100)) {
        let budget = Budget::new(1, u64::MAX >> 1);
        let registry = Registry::new(1, 1);
        let secrets = Secrets::seeded(1);
        let mut sessions = Sessions::new(ShardId(0), GRACE, 100, budget.of_shard(0));
        let topics: Vec<_> = ["a", "b", "c"].map(|name| registry.resolve(name)).into();
        let users: [Arc<str>; 2] = ["ada".into(), "bob".into()];
        let (mut model, mut last, mut now) = (Vec::<Expected>::new(), BTreeMap::new(), 0);
        for step in steps {
            let mut over = Vec::new();
            match step {
                Step::Open { conn, user, like } => {
                    if model.iter().any(|session| session.conn == Some(conn)) {
                        continue;
                    }
                    let resume = like.and_then(|like| last.get(&like).copied());
                    let asked = Asked {
                        resume,
                        fresh: secrets.draw(ShardId(0)),
                        user: user.map(|user| Arc::clone(&users[user])),
                        member: "m".into(),
                    };
                    let fresh = asked.fresh;
                    let opened = sessions.open(owner(conn), asked);
                    let known = model.iter_mut().find(|session| resume == Some(session.secret) && session.user == user);
                    prop_assert_eq!(opened.resumed, known.is_some());
                    match known {
                        Some(known) => {
                            prop_assert_eq!(opened.taken_from, known.conn.map(owner));
                            (known.conn, known.ends) = (Some(conn), None);
                        }
                        None => {
                            let secret = fresh.unwrap();
                            prop_assert_eq!((opened.secret, opened.taken_from), (Some(secret), None));
                            let entered = Vec::new();
                            model.push(Expected { secret, user, conn: Some(conn), ends: None, entered });
                        }
                    }
                    last.insert(conn, opened.secret.unwrap());
                }
                Step::Enter { conn, topic } => {
                    let Some(known) = model.iter_mut().find(|session| session.conn == Some(conn)) else { continue };
                    let fits = known.entered.contains(&topic) || known.entered.len() < 2;
                    prop_assert_eq!(sessions.enter(owner(conn), topics[topic].clone(), 2), fits);
                    if fits && !known.entered.contains(&topic) {
                        known.entered.push(topic);
                    }
                }
                Step::Leave { conn, topic } => {
                    let known = model.iter_mut().find(|session| session.conn == Some(conn));
                    let was_there = known.is_some_and(|known| {
                        let before = known.entered.len();
                        known.entered.retain(|entered| *entered != topic);
                        known.entered.len() < before
                    });
                    prop_assert_eq!(sessions.leave(owner(conn), topics[topic].id).is_some(), was_there);
                }
                Step::Drop { conn } => {
                    prop_assert!(sessions.drop_owner(owner(conn), now).is_none());
                    let known = model.iter_mut().find(|session| session.conn == Some(conn));
                    known.into_iter().for_each(|known| (known.conn, known.ends) = (None, Some(now + GRACE)));
                }
                Step::End { conn } => {
                    over.extend(sessions.end(owner(conn)));
                    let at = model.iter().position(|session| session.conn == Some(conn));
                    prop_assert_eq!(over.len(), usize::from(at.is_some()));
                    at.into_iter().for_each(|at| check_over(&over[0], &model.remove(at), &topics));
                }
                Step::Wait(time) => {
                    now += time;
                    while let Some(ended) = sessions.take_due(now) {
                        over.push(ended);
                    }
                    let due: Vec<_> = model.iter().filter(|s| s.ends.is_some_and(|ends| ends <= now)).cloned().collect();
                    model.retain(|session| session.ends.is_none_or(|ends| ends > now));
                    prop_assert_eq!(due.len(), over.len());
                    let count = |all: &mut dyn Iterator<Item = usize>| all.sum::<usize>();
                    let entered = count(&mut due.iter().map(|session| session.entered.len()));
                    prop_assert_eq!(entered, count(&mut over.iter().map(|ended| ended.entered.len())));
                }
            }
            sessions.check().map_err(TestCaseError::fail)?;
            prop_assert_eq!(sessions.len(), model.len());
            prop_assert_eq!(sessions.next_due(), model.iter().filter_map(|session| session.ends).min());
        }
        for conn in 0..5 {
            drop(sessions.end(owner(conn)));
        }
        while sessions.take_due(Nanos::MAX).is_some() {}
        prop_assert!(sessions.is_empty() && sessions.by_secret.is_empty());
        prop_assert_eq!(budget.of_shard(0).used(), 0);
    }
}

fn check_over(ended: &Ended, expected: &Expected, topics: &[TopicRef]) {
    let mut entered: Vec<_> = ended.entered.iter().map(|topic| topic.id).collect();
    let mut wanted: Vec<_> = expected.entered.iter().map(|&topic| topics[topic].id).collect();
    entered.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(entered, wanted);
}

#[test]
fn without_a_secret_a_session_ends_with_its_connection() {
    let budget = Budget::new(1, u64::MAX >> 1);
    let mut sessions = Sessions::new(ShardId(0), GRACE, 1, budget.of_shard(0));
    assert_eq!(sessions.of(owner(1)), None);
    let known = sessions.begin(owner(1), None, "~x".into());
    assert_eq!((known.member.as_ref(), sessions.of(owner(1))), ("~x", Some(known.clone())));
    assert_eq!(sessions.drop_owner(owner(1), 5).map(|ended| ended.session), Some(known.session));
    assert!(sessions.is_empty());
}

#[test]
fn beyond_the_most_the_one_that_ends_first_makes_room() {
    let budget = Budget::new(1, u64::MAX >> 1);
    let secrets = Secrets::seeded(1);
    let mut sessions = Sessions::new(ShardId(0), GRACE, 2, budget.of_shard(0));
    let asked = || Asked { resume: None, fresh: secrets.draw(ShardId(0)), user: None, member: "m".into() };
    for conn in 1..3 {
        assert!(sessions.open(owner(conn), asked()).secret.is_some());
    }
    let refused = sessions.open(owner(3), asked());
    assert!(refused.secret.is_none() && refused.ended.is_none(), "nobody is away");
    assert!(sessions.drop_owner(owner(2), 7).is_none());
    assert!(sessions.drop_owner(owner(1), 8).is_none());
    let opened = sessions.open(owner(4), asked());
    assert!(opened.secret.is_some());
    assert_eq!(opened.ended.map(|ended| ended.session.number), Some(2));
}
