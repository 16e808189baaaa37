//! Tests of many subscriptions: few and many give the same answers, and memory is what is charged.

use proptest::prelude::*;

use crate::session::subscriptions::*;

fn add(subs: &mut Subscriptions, log: usize, filter: &str) -> u32 {
    subs.add(LogSlot::new(log), filter.into(), Keys::from_seed(1))
}

#[test]
fn the_first_live_subscription_that_matches_sends() {
    let mut subs = Subscriptions::default();
    let wide = add(&mut subs, 0, "a/#");
    let exact = add(&mut subs, 1, "a/b");
    subs.go_live(exact, 0, Seq(0));
    assert!(!subs.overlapping);
    subs.go_live(wide, 0, Seq(0));
    assert!(subs.overlapping);
    assert_eq!(subs.sender_of("a/b"), Some(exact), "the exact one went live first");
    assert_eq!(subs.sender_of("a/c"), Some(wide));
    assert_eq!(subs.sender_of("b"), None);
    subs.remove(exact);
    assert_eq!(subs.sender_of("a/b"), Some(wide));
}

#[test]
fn keys_are_reused_and_nothing_stays_behind() {
    let mut subs = Subscriptions::default();
    for round in 0..1000 {
        let key = add(&mut subs, round, "t");
        subs.go_live(key, 0, Seq(0));
        subs.set_pending(key);
        assert!(key == 0 && subs.sub(0).subscription.live && subs.sub(0).subscription.log == LogSlot::new(round));
        subs.remove(key);
    }
    assert_eq!((subs.len(), subs.subs.len(), subs.pending().len()), (0, 0, 0));
}

/// Millions of connections with one subscription have to fit.
#[test]
fn a_few_subscriptions_keep_nothing_else() {
    assert!(size_of::<Option<Sub>>() <= 96, "{}", size_of::<Option<Sub>>());
    let mut subs = Subscriptions::default();
    for n in 0..FEW {
        add(&mut subs, n, &format!("{n}"));
        assert_eq!((subs.subs.capacity(), subs.index.is_none()), (n + 1, true));
    }
    add(&mut subs, 100, "one more");
    assert!(subs.index.is_some());
}

#[test]
fn many_that_end_together_leave_the_others_pending() {
    let mut subs = Subscriptions::default();
    let keys: Vec<u32> = (0..100).map(|n| add(&mut subs, n, &format!("{n}"))).collect();
    for &key in &keys {
        subs.set_pending(key);
    }
    subs.forget_pending(&keys[10..]);
    for &key in &keys[10..] {
        subs.remove(key);
    }
    assert_eq!(subs.take_pending(), keys[..10]);
    assert!(keys[..10].iter().all(|&key| !subs.sub(key).subscription.pending));
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
        let mut subs = Subscriptions::default();
        let mut model: Vec<(u32, String, Option<u64>)> = Vec::new();
        let mut order = 0;
        for step in steps {
            match step {
                Step::Add(n) if model.iter().all(|(_, held, _)| *held != filter(n)) => {
                    prop_assert_eq!(subs.find_filter(&filter(n)), None);
                    let key = add(&mut subs, n, &filter(n));
                    prop_assert!(model.iter().all(|&(other, ..)| other != key));
                    model.push((key, filter(n), None));
                }
                Step::Live(at) => {
                    let waiting: Vec<usize> = (0..model.len()).filter(|&at| model[at].2.is_none()).collect();
                    if !waiting.is_empty() {
                        let held = &mut model[waiting[at.index(waiting.len())]];
                        subs.go_live(held.0, 0, Seq(0));
                        held.2 = Some(order);
                        order += 1;
                    }
                }
                Step::Remove(at) if !model.is_empty() => {
                    let (key, filter, _) = model.swap_remove(at.index(model.len()));
                    prop_assert_eq!(subs.find_filter(&filter), Some(key));
                    prop_assert_eq!(&*subs.remove(key).unwrap().filter, &*filter);
                }
                _ => {}
            }
            prop_assert_eq!(subs.len(), model.len());
            let live: Vec<_> = model.iter().filter(|sub| sub.2.is_some()).collect();
            let overlap = live.iter().enumerate().any(|(at, a)| {
                live[..at].iter().any(|b| protocol::topic::overlap(&a.1, &b.1))
            });
            prop_assert!(subs.overlapping || !overlap);
            for topic in ["a/b", "b/b", "a", "c/a", "a/b/c/a", "d/d/d/d"] {
                let matching = live.iter().filter(|sub| protocol::topic::matches(&sub.1, topic));
                let expected = matching.min_by_key(|sub| sub.2).map(|sub| sub.0);
                prop_assert_eq!(subs.sender_of(topic), expected, "{}", topic);
            }
        }
    }
}
