//! Tests of many subscriptions: few and many give the same answers, and memory is what is charged.

use proptest::prelude::*;

use crate::capacity::budget::Budget;
use crate::session::v1::*;

fn add(multi: &mut Multi, log: LogSlot, filter: &str) -> u32 {
    multi.add(log, filter.into(), Keys::from_seed(1))
}

#[test]
fn the_first_live_subscription_that_matches_sends() {
    let mut multi = Multi::default();
    let wide = add(&mut multi, 0, "a/#");
    let exact = add(&mut multi, 1, "a/b");
    multi.go_live(exact, 0, 0, None);
    assert!(!multi.overlapping);
    multi.go_live(wide, 0, 0, None);
    assert!(multi.overlapping);
    assert_eq!(multi.sender_of("a/b"), Some(exact), "the exact one went live first");
    assert_eq!(multi.sender_of("a/c"), Some(wide));
    assert_eq!(multi.sender_of("b"), None);
    multi.remove(exact);
    assert_eq!(multi.sender_of("a/b"), Some(wide));
}

#[test]
fn keys_are_reused_and_nothing_stays_behind() {
    let mut multi = Multi::default();
    for round in 0..1000 {
        let key = add(&mut multi, round, "t");
        multi.go_live(key, 0, 0, None);
        multi.sub_mut(key).dirty = true;
        multi.dirty.push(key);
        assert!(key == 0 && multi.is_live(0, round) && !multi.is_live(0, round + 1));
        multi.remove(key);
    }
    assert_eq!((multi.len(), multi.subs.len(), multi.dirty.len()), (0, 0, 0));
}

/// What `/ws` connections without and with one subscription take: millions of them have to fit.
#[test]
fn a_connection_with_one_subscription_keeps_nothing_else() {
    assert!(size_of::<Multi>() <= 176, "{}", size_of::<Multi>());
    assert!(size_of::<Option<Sub>>() <= 96, "{}", size_of::<Option<Sub>>());
    let mut multi = Multi::default();
    for n in 0..FEW {
        add(&mut multi, n as LogSlot, &format!("{n}"));
        assert_eq!((multi.subs.capacity(), multi.index.is_none()), (n + 1, true));
    }
    add(&mut multi, 100, "one more");
    assert!(multi.index.is_some());
}

#[test]
fn what_is_charged_grows_with_the_subscriptions_and_goes_with_them() {
    let budget = Budget::new(1, 1 << 30);
    let mut multi = Multi::default();
    let mut estimate = 0;
    let keys: Vec<u32> = (0..1024)
        .map(|n| {
            let filter = format!("+/{}/{n}/+", n % 7);
            estimate += Multi::bytes_of(&filter);
            add(&mut multi, n, &filter)
        })
        .collect();
    multi.charge(budget.of_shard(0));
    let used = budget.used();
    assert!(used > 1024 * 150 && used <= estimate, "{used} of {estimate}");
    for key in keys {
        multi.remove(key);
    }
    multi.charge(budget.of_shard(0));
    assert_eq!(budget.used(), 0);
}

#[test]
fn many_that_end_together_leave_the_others_dirty() {
    let mut multi = Multi::default();
    let keys: Vec<u32> = (0..100).map(|n| add(&mut multi, n, &format!("{n}"))).collect();
    for &key in &keys {
        multi.sub_mut(key).dirty = true;
        multi.dirty.push(key);
    }
    multi.forget_dirty(&keys[10..]);
    for &key in &keys[10..] {
        multi.remove(key);
    }
    assert_eq!(multi.dirty, keys[..10]);
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
        let mut multi = Multi::default();
        let mut model: Vec<(u32, String, Option<u64>)> = Vec::new();
        let mut order = 0;
        for step in steps {
            match step {
                Step::Add(n) if model.iter().all(|(_, held, _)| *held != filter(n)) => {
                    prop_assert_eq!(multi.find_filter(&filter(n)), None);
                    let key = add(&mut multi, n as LogSlot, &filter(n));
                    prop_assert!(model.iter().all(|&(other, ..)| other != key));
                    model.push((key, filter(n), None));
                }
                Step::Live(at) => {
                    let waiting: Vec<usize> = (0..model.len()).filter(|&at| model[at].2.is_none()).collect();
                    if !waiting.is_empty() {
                        let sub = &mut model[waiting[at.index(waiting.len())]];
                        multi.go_live(sub.0, 0, 0, None);
                        sub.2 = Some(order);
                        order += 1;
                    }
                }
                Step::Remove(at) if !model.is_empty() => {
                    let (key, filter, _) = model.swap_remove(at.index(model.len()));
                    prop_assert_eq!(multi.find_filter(&filter), Some(key));
                    prop_assert_eq!(&*multi.remove(key).unwrap().filter, &*filter);
                }
                _ => {}
            }
            prop_assert_eq!(multi.len(), model.len());
            let live: Vec<_> = model.iter().filter(|sub| sub.2.is_some()).collect();
            let overlap = live.iter().enumerate().any(|(at, a)| {
                live[..at].iter().any(|b| protocol::topic::overlap(&a.1, &b.1))
            });
            prop_assert!(multi.overlapping || !overlap);
            for topic in ["a/b", "b/b", "a", "c/a", "a/b/c/a", "d/d/d/d"] {
                let matching = live.iter().filter(|sub| protocol::topic::matches(&sub.1, topic));
                let expected = matching.min_by_key(|sub| sub.2).map(|sub| sub.0);
                prop_assert_eq!(multi.sender_of(topic), expected, "{}", topic);
            }
        }
    }
}
