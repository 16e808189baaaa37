//! Tests of many subscriptions: few and many give the same answers, and memory is what is charged.

use proptest::prelude::*;

use crate::capacity::budget::Budget;
use crate::session::v1::*;

fn add(v1: &mut V1Session, log: LogSlot, filter: &str) -> u32 {
    v1.add(log, filter.into(), Keys::from_seed(1))
}

#[test]
fn the_first_live_subscription_that_matches_sends() {
    let mut v1 = V1Session::default();
    let wide = add(&mut v1, 0, "a/#");
    let exact = add(&mut v1, 1, "a/b");
    v1.go_live(exact, 0, 0, None);
    assert!(!v1.overlapping);
    v1.go_live(wide, 0, 0, None);
    assert!(v1.overlapping);
    assert_eq!(v1.sender_of("a/b"), Some(exact), "the exact one went live first");
    assert_eq!(v1.sender_of("a/c"), Some(wide));
    assert_eq!(v1.sender_of("b"), None);
    v1.remove(exact);
    assert_eq!(v1.sender_of("a/b"), Some(wide));
}

#[test]
fn keys_are_reused_and_nothing_stays_behind() {
    let mut v1 = V1Session::default();
    for round in 0..1000 {
        let key = add(&mut v1, round, "t");
        v1.go_live(key, 0, 0, None);
        v1.sub_mut(key).dirty = true;
        v1.dirty.push(key);
        assert!(key == 0 && v1.is_live(0, round) && !v1.is_live(0, round + 1));
        v1.remove(key);
    }
    assert_eq!((v1.len(), v1.subs.len(), v1.dirty.len()), (0, 0, 0));
}

/// What `/ws` connections without and with one subscription take: millions of them have to fit.
#[test]
fn a_connection_with_one_subscription_keeps_nothing_else() {
    assert!(size_of::<V1Session>() <= 176, "{}", size_of::<V1Session>());
    assert!(size_of::<Option<Sub>>() <= 96, "{}", size_of::<Option<Sub>>());
    let mut v1 = V1Session::default();
    for n in 0..FEW {
        add(&mut v1, n as LogSlot, &format!("{n}"));
        assert_eq!((v1.subs.capacity(), v1.index.is_none()), (n + 1, true));
    }
    add(&mut v1, 100, "one more");
    assert!(v1.index.is_some());
}

#[test]
fn what_is_charged_grows_with_the_subscriptions_and_goes_with_them() {
    let budget = Budget::new(1, 1 << 30);
    let mut v1 = V1Session::default();
    let mut estimate = 0;
    let keys: Vec<u32> = (0..1024)
        .map(|n| {
            let filter = format!("+/{}/{n}/+", n % 7);
            estimate += V1Session::bytes_of(&filter);
            add(&mut v1, n, &filter)
        })
        .collect();
    v1.charge(budget.of_shard(0));
    let used = budget.used();
    assert!(used > 1024 * 150 && used <= estimate, "{used} of {estimate}");
    for key in keys {
        v1.remove(key);
    }
    v1.charge(budget.of_shard(0));
    assert_eq!(budget.used(), 0);
}

#[test]
fn many_that_end_together_leave_the_others_dirty() {
    let mut v1 = V1Session::default();
    let keys: Vec<u32> = (0..100).map(|n| add(&mut v1, n, &format!("{n}"))).collect();
    for &key in &keys {
        v1.sub_mut(key).dirty = true;
        v1.dirty.push(key);
    }
    v1.forget_dirty(&keys[10..]);
    for &key in &keys[10..] {
        v1.remove(key);
    }
    assert_eq!(v1.dirty, keys[..10]);
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Live(prop::sample::Index),
    Remove(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..40_usize).prop_map(Step::Add),
        4 => any::<prop::sample::Index>().prop_map(Step::Live),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
    ]
}

fn filter(n: usize) -> String {
    let level = |n: usize| ["+", "a", "b", "c"][n % 4];
    match n % 3 {
        0 => format!("{}/{}", level(n), level(n / 4)),
        1 => format!("{}/#", level(n)),
        _ => format!("{}/{}/{}/{}", level(n), level(n / 2), level(n / 4), level(n / 8)),
    }
}

proptest! {
    /// Few or many: the same filters are found, the same one sends, and overlaps are never missed.
    #[test]
    fn with_an_index_or_without_the_answers_are_the_same(steps in prop::collection::vec(step(), 1..80)) {
        let mut v1 = V1Session::default();
        let mut model: Vec<(u32, String, Option<u64>)> = Vec::new();
        let mut order = 0;
        for step in steps {
            match step {
                Step::Add(n) if model.iter().all(|(_, held, _)| *held != filter(n)) => {
                    prop_assert_eq!(v1.find_filter(&filter(n)), None);
                    let key = add(&mut v1, n as LogSlot, &filter(n));
                    prop_assert!(model.iter().all(|&(other, ..)| other != key));
                    model.push((key, filter(n), None));
                }
                Step::Live(at) => {
                    let waiting: Vec<usize> = (0..model.len()).filter(|&at| model[at].2.is_none()).collect();
                    if !waiting.is_empty() {
                        let sub = &mut model[waiting[at.index(waiting.len())]];
                        v1.go_live(sub.0, 0, 0, None);
                        sub.2 = Some(order);
                        order += 1;
                    }
                }
                Step::Remove(at) if !model.is_empty() => {
                    let (key, filter, _) = model.swap_remove(at.index(model.len()));
                    prop_assert_eq!(v1.find_filter(&filter), Some(key));
                    prop_assert_eq!(&*v1.remove(key).unwrap().filter, &*filter);
                }
                _ => {}
            }
            prop_assert_eq!(v1.len(), model.len());
            let live: Vec<_> = model.iter().filter(|sub| sub.2.is_some()).collect();
            let overlap = live.iter().enumerate().any(|(at, a)| {
                live[..at].iter().any(|b| protocol::topic::overlap(&a.1, &b.1))
            });
            prop_assert!(v1.overlapping || !overlap);
            for topic in ["a/b", "b/b", "a", "c/a", "a/b/c/a", "d/d/d/d"] {
                let matching = live.iter().filter(|sub| protocol::topic::matches(&sub.1, topic));
                let expected = matching.min_by_key(|sub| sub.2).map(|sub| sub.0);
                prop_assert_eq!(v1.sender_of(topic), expected, "{}", topic);
            }
        }
    }
}
