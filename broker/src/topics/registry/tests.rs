//! Tests of the registry: what is registered while who holds it, what it is charged, and where topics are sequenced.

use super::*;
use crate::capacity::budget::Budget;

#[test]
fn a_full_table_admits_only_the_names_it_has() {
    let registry = Registry::new(1, 1);
    let first = registry.resolve("a");
    assert!(registry.admits("b", 2));
    let _second = registry.resolve("b");
    assert!(registry.admits("a", 2) && !registry.admits("c", 2));
    drop(first);
    assert!(registry.admits("c", 2));
}

#[test]
fn a_name_is_charged_while_anybody_holds_it() {
    let budget = Budget::new(1, 1 << 20);
    let account = Arc::clone(budget.of_plane());
    let registry = Registry::new(1, 1).charging(account, name_bytes("a", 1) + name_bytes("b/+", 1));
    let first = registry.resolve("a");
    assert_eq!(budget.held(Held::Names), name_bytes("a", 1));
    let again = registry.resolve("a");
    let filter = registry.resolve("b/+");
    assert!(name_bytes("b/+", 1) > name_bytes("b/c", 1) && name_bytes("b/+", 4) > name_bytes("b/+", 1));
    assert!(registry.admits("a", 10) && !registry.admits("c", 10) && registry.is_pressed(10));
    drop(first);
    drop(filter);
    assert!(registry.admits("c", 10) && !registry.is_pressed(10));
    assert_eq!(budget.held(Held::Names), name_bytes("a", 1));
    drop(again);
    assert_eq!((budget.held(Held::Names), registry.len()), (0, 0));
}

#[test]
fn publishers_and_congestion_end_with_their_handles() {
    let registry = Registry::new(1, 1);
    let publisher = Publisher::new(registry.resolve("a"));
    let marks = [Congestion::of(publisher.topic().clone()), Congestion::of(publisher.topic().clone())];
    let topic = registry.resolve("a");
    assert!(topic.has_publisher() && topic.is_congested());
    let [first, second] = marks;
    drop(first);
    assert!(topic.is_congested(), "one is left");
    drop((second, publisher));
    assert!(!topic.has_publisher() && !topic.is_congested());
    drop(topic);
    assert!(registry.is_empty());
}

/// Threads that take and drop handles of few names: at the end none is registered, none is charged, and meanwhile
/// two handles of one name that exist together have one id.
#[test]
fn handles_of_several_threads_leave_nothing_behind() {
    let budget = Budget::new(1, 1 << 20);
    let registry = Registry::new(2, 1).charging(Arc::clone(budget.of_plane()), u64::MAX);
    let held = registry.resolve("held");
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (registry, held) = (&registry, &held);
            threads.spawn(move || {
                for round in 0..20_000 {
                    let topic = registry.resolve(["a", "b", "held"][(thread + round) % 3]);
                    let again = registry.resolve(&topic.name);
                    assert_eq!(topic.id, again.id);
                    assert!(*topic.name != *"held" || topic.id == held.id);
                }
            });
        }
    });
    assert_eq!(registry.len(), 1);
    drop(held);
    assert_eq!((registry.len(), budget.held(Held::Names)), (0, 0));
}

#[test]
fn it_is_pressed_a_sixteenth_before_it_is_full() {
    let registry = Registry::new(1, 1);
    let mut names = Vec::new();
    for n in 0..30 {
        assert!(!registry.is_pressed(32), "{n}");
        names.push(registry.resolve(&format!("{n}")));
    }
    assert!(registry.is_pressed(32) && registry.is_pressed(1) && registry.admits("new", 32));
}

#[test]
fn the_seed_decides_where_topics_are_sequenced() {
    let places = |seed| {
        let registry = Registry::new(4, seed);
        (0..64).map(|n| registry.resolve(&format!("t{n}")).sequencer).collect::<Vec<_>>()
    };
    assert_eq!(places(1), places(1));
    assert_ne!(places(1), places(2));
    assert!(ShardId::all(4).all(|shard| places(1).contains(&shard)));
}
