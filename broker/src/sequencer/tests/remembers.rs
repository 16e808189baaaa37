//! Tests of what a sequencer remembers of all its topics together: what is evicted first, what is refused, what is forgotten
//! when, and walks.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::message::options::LeaseClaim;
use crate::sequencer::history::Size;
use crate::sequencer::history::recall::{Place, Recall};
use crate::sequencer::ledger::Usage;
use crate::sequencer::walk::WalkPlace;

const SECOND: Nanos = 1_000_000_000;

fn ruled(kind: HistoryKind) -> Registry {
    Registry::new(1, 1).ruled_by(SharedRules::only(Rule::of_kind(kind)))
}

fn limited(registry: &Registry, bytes_max: u64, entries_max: u64) -> Sequencer {
    sharing(registry, bytes_max, entries_max, &Usage::new(1))
}

fn sharing(registry: &Registry, bytes_max: u64, entries_max: u64, usage: &Usage) -> Sequencer {
    let history = HistoryLimits { bytes_max, entries_max, recovery_bytes_max: 1 << 20 };
    let limits = SequencerLimits { idle_timeout: 100, topics_max: 1000, history };
    Sequencer::new(Epoch(1), limits, registry, &Arc::default(), usage.state())
}

fn roomy(registry: &Registry) -> Sequencer {
    limited(registry, 1 << 30, 1 << 30)
}

fn retain() -> PublishOptions {
    PublishOptions { retain: true, ..PublishOptions::default() }
}

fn key(key: &str) -> PublishOptions {
    PublishOptions { key: Some(key.into()), ..PublishOptions::default() }
}

fn removing(options: PublishOptions) -> PublishOptions {
    PublishOptions { removed: true, ..options }
}

/// Publishes so many bytes.
fn put(
    sequencer: &mut Sequencer,
    topic: &TopicRef,
    bytes: usize,
    options: PublishOptions,
    now: Nanos,
) -> Result<Offset, Refusal> {
    let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; bytes], &Arc::default());
    let offset = sequencer.publish(topic.clone(), payload, Some(Box::new(options)), now)?.offset;
    sequencer.invariants().expect("invariants");
    Ok(offset)
}

/// Topics that have a window, by name.
fn windows(sequencers: &[&Sequencer]) -> BTreeSet<String> {
    sequencers.iter().flat_map(|sequencer| sequencer.kept()).map(|message| message.topic.to_string()).collect()
}

proptest! {
    /// Two sequencers share a bound: what goes is what was used longest ago, on whichever of them it is.
    #[test]
    fn the_windows_that_were_used_longest_ago_are_evicted(
        uses in prop::collection::vec((0..2_usize, 0..8_usize), 1..80),
        kept in 1..12_u64,
    ) {
        let registry = ruled(HistoryKind::Window);
        let usage = Usage::new(2);
        let mut sequencers = [(); 2].map(|()| sharing(&registry, 1 << 30, 1 << 30, &usage));
        let mut used = BTreeMap::new();
        for (now, (at, topic)) in (1..).zip(uses) {
            let name = format!("{at}/{topic}");
            // Each use of a topic leaves one message of the same size.
            let topic = registry.resolve(&name);
            let epoch = sequencers[at].position(topic.id);
            if epoch.is_none() {
                put(&mut sequencers[at], &topic, 100, PublishOptions::default(), now).unwrap();
            } else {
                sequencers[at].recall(topic, Recall::State, now);
            }
            used.insert(name, now);
        }
        let one = sequencers[0].ledger.own().window_bytes + sequencers[1].ledger.own().window_bytes;
        let one = one / used.len() as u64;
        for sequencer in &mut sequencers {
            sequencer.ledger.limits.bytes_max = one * kept;
        }
        for turn in 0..60 {
            let id = turn % 2;
            sequencers[id].keep_within(&usage, ShardId(id as u16));
            sequencers[id].invariants().expect("invariants");
        }
        let mut newest: Vec<_> = used.into_iter().collect();
        newest.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
        newest.truncate(kept as usize);
        prop_assert_eq!(windows(&[&sequencers[0], &sequencers[1]]), newest.into_iter().map(|(name, _)| name).collect());
    }

    /// Sequencers that learn nothing of each other meanwhile keep no more state together than there may be: retained messages,
    /// keys and snapshots of any size, stamped or not. And nothing is refused for which there is room.
    #[test]
    fn state_is_within_its_bounds_whichever_sequencers_it_is_on(
        kind in prop_oneof![Just(HistoryKind::Window), Just(HistoryKind::Keyed), Just(HistoryKind::None)],
        stamps_time: bool,
        entries_max in 1..8_u64,
        steps in prop::collection::vec((0..3_usize, 0..4_u8, 0..3000_usize, 0..8_u8), 1..80),
    ) {
        let rule = Rule { stamps_time, ..Rule::of_kind(kind) };
        let registry = Registry::new(1, 1).ruled_by(SharedRules::only(rule));
        let (usage, bytes_max) = (Usage::new(3), 8_000);
        let mut sequencers = [(); 3].map(|()| sharing(&registry, bytes_max, entries_max, &usage));
        let payload = |bytes: usize| Payload::copy_of(PayloadKind::Text, &vec![b'x'; bytes], &Arc::default());
        for (at, name, bytes, step) in steps {
            let topic = registry.resolve(&format!("{at}/{name}"));
            let options = if kind == HistoryKind::Keyed { key(&format!("k{}", step % 3)) } else { retain() };
            let before = (usage.state_entries(), usage.state_bytes());
            let stored = match (step, sequencers[at].position(topic.id)) {
                (0, _) => put(&mut sequencers[at], &topic, bytes, removing(options), 1).map(|_| ()),
                (1, Some((epoch, next))) if kind == HistoryKind::Window => {
                    let up_to = Place { epoch, offset: Offset(next.0 - 1) };
                    sequencers[at].snapshot(topic, up_to, payload(bytes), LeaseClaim::None, 1)
                }
                (2, Some(_)) => {
                    sequencers[at].purge(topic.id, 1);
                    Ok(())
                }
                _ => put(&mut sequencers[at], &topic, bytes, options, 1).map(|_| ()),
            };
            sequencers.iter().for_each(|sequencer| sequencer.invariants().expect("invariants"));
            let sum = |count: fn(&Size) -> u64| sequencers.iter().map(|sequencer| count(&sequencer.ledger.own())).sum();
            let (entries, state_bytes): (u64, u64) = (sum(|own| own.state_entries), sum(|own| own.state_bytes));
            prop_assert_eq!((usage.state_entries(), usage.state_bytes()), (entries, state_bytes), "counted at once");
            prop_assert!(entries <= entries_max && state_bytes <= bytes_max, "{} entries, {} bytes", entries, state_bytes);
            if let Err(refusal) = stored {
                prop_assert!(matches!(refusal, Refusal::Limit(_)), "{:?}", refusal);
                let most = payload(bytes).weight() + 500;
                prop_assert!(before.0 + 1 > entries_max || before.1 + most > bytes_max, "{:?} and {}", before, most);
                prop_assert_eq!(before, (entries, state_bytes), "a refusal changes nothing");
            }
        }
    }

    /// Every topic that has state from the beginning of a walk to its end is in it, once; none that gets some later.
    #[test]
    fn a_walk_finds_what_was_there_when_it_began(
        changes in prop::collection::vec((0..3000_u32, any::<bool>()), 0..40),
        filter in prop_oneof![Just("#"), Just("t/+"), Just("t/1/#"), Just("+/0042"), Just("t/#")],
    ) {
        let registry = ruled(HistoryKind::None);
        let mut sequencer = roomy(&registry);
        let name = |n: u32| if n.is_multiple_of(7) { format!("t/1/{n:04}") } else { format!("t/{n:04}") };
        let publish = |sequencer: &mut Sequencer, n: u32, removed: bool, now| {
            let options = PublishOptions { removed, ..retain() };
            let payload = Payload::copy_of(PayloadKind::Text, b"x", &Arc::default());
            sequencer.publish(registry.resolve(&name(n)), payload, Some(Box::new(options)), now).map(|_| ())
        };
        for n in (0..3000).step_by(2) {
            publish(&mut sequencer, n, false, 1).unwrap();
        }
        let matching = |n: &u32| protocol::topic::matches(filter, &name(*n));
        let all: BTreeSet<_> = (0..3000).step_by(2).filter(matching).map(name).collect();
        let changed: BTreeSet<_> = changes.iter().map(|(n, _)| name(*n)).collect();
        let mut found = Vec::new();
        let mut place = Some(WalkPlace::default());
        let mut changes = changes.into_iter();
        while let Some(at) = place {
            let part = sequencer.walk(filter, &at, 2);
            found.extend(part.state.iter().map(|message| message.topic.to_string()));
            place = part.next;
            for (n, removed) in changes.by_ref().take(20) {
                publish(&mut sequencer, n, removed, 2).unwrap();
            }
        }
        let once: BTreeSet<_> = found.iter().cloned().collect();
        prop_assert_eq!(once.len(), found.len(), "each once");
        prop_assert!(once.is_subset(&all), "what came later is delivered live");
        prop_assert!(all.difference(&once).all(|name| changed.contains(name)), "what did not change is found");
        sequencer.invariants().expect("invariants");
    }

    /// The registry never says that there is no state where there is some.
    #[test]
    fn the_registry_knows_who_has_state(
        is_keyed: bool,
        steps in prop::collection::vec((0..3_u8, 0..3_u8, any::<bool>(), any::<bool>(), 0..3 * SECOND), 1..60),
    ) {
        let registry = ruled(if is_keyed { HistoryKind::Keyed } else { HistoryKind::None });
        let mut sequencer = roomy(&registry);
        let mut now = 1;
        let topics: Vec<_> = (0..3).map(|n| registry.resolve(&format!("{n}"))).collect();
        for (topic, name, removed, ttl, wait) in steps {
            let options = if is_keyed { key(&format!("k{name}")) } else { retain() };
            let options = PublishOptions { removed, ttl_ms: ttl.then_some(1_500), ..options };
            put(&mut sequencer, &topics[usize::from(topic)], 1, options, now).unwrap();
            now += wait;
            sequencer.expire(now, &registry);
            sequencer.invariants().expect("invariants");
            prop_assert!(registry.has_stateful() || !topics.iter().any(|topic| topic.is_stateful()));
            for topic in &topics {
                let held = sequencer.topics.get(topic.id).is_some_and(|held| held.has_state());
                prop_assert!(topic.is_stateful() || !held);
                let shown = sequencer.recall(topic.clone(), Recall::State, now).2.state;
                prop_assert!(shown.is_none() || topic.is_stateful());
                sequencer.invariants().expect("invariants");
            }
        }
        for topic in &topics {
            for name in 0..3 {
                let options = if is_keyed { key(&format!("k{name}")) } else { retain() };
                put(&mut sequencer, topic, 1, removing(options), now).unwrap();
            }
            prop_assert!(!topic.is_stateful());
        }
        prop_assert!(!registry.has_stateful());
    }
}

#[test]
fn beyond_max_keys_only_new_state_is_refused() {
    let registry = ruled(HistoryKind::Keyed);
    let mut sequencer = limited(&registry, 1 << 20, 3);
    let topics = [registry.resolve("a"), registry.resolve("b")];
    for name in ["k1", "k2", "k3"] {
        put(&mut sequencer, &topics[0], 1, key(name), 1).unwrap();
    }
    for (topic, options) in [(0, key("k4")), (1, key("k1")), (1, PublishOptions::default())] {
        assert!(matches!(put(&mut sequencer, &topics[topic], 1, options, 1), Err(Refusal::Limit(_))));
    }
    put(&mut sequencer, &topics[0], 50, key("k2"), 2).expect("an update");
    let retained = PublishOptions { retain: true, ..key("k2") };
    put(&mut sequencer, &topics[0], 1, retained, 2).expect("an update: its entry is what is retained");
    put(&mut sequencer, &topics[0], 1, removing(key("k1")), 2).expect("a removal");
    put(&mut sequencer, &topics[1], 1, key("k1"), 2).expect("room for one");
    assert!(matches!(put(&mut sequencer, &topics[0], 1, key("k1"), 3), Err(Refusal::Limit(_))));
}

/// Entries that become larger count as well: small ones do not reserve room for large ones.
#[test]
fn state_does_not_grow_beyond_max_history_by_updates() {
    for kind in [HistoryKind::None, HistoryKind::Keyed] {
        let registry = ruled(kind);
        let mut sequencer = limited(&registry, 40_000, 1000);
        let topics: Vec<_> = (0..20).map(|n| registry.resolve(&format!("{n}"))).collect();
        let options = || if kind == HistoryKind::None { retain() } else { key("k") };
        let mut refused = 0;
        for bytes in [1, 500, 1_000, 2_000, 4_000, 8_000] {
            for topic in &topics {
                refused += usize::from(put(&mut sequencer, topic, bytes, options(), 1).is_err());
                assert!(sequencer.ledger.own().state_bytes <= 40_000);
            }
        }
        assert!((40..110).contains(&refused), "{refused}");
        for topic in &topics {
            put(&mut sequencer, topic, 1, options(), 2).expect("it becomes smaller");
            put(&mut sequencer, topic, 8_000, removing(options()), 2).expect("a removal");
            assert!(sequencer.ledger.own().state_bytes <= 40_000, "{}", sequencer.ledger.own().state_bytes);
        }
    }
}

#[test]
fn snapshots_take_the_place_of_older_ones_within_max_history() {
    let registry = ruled(HistoryKind::Window);
    let mut sequencer = limited(&registry, 4_000, 1000);
    let topic = registry.resolve("t");
    let store = |sequencer: &mut Sequencer, offset, bytes| {
        let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; bytes], &Arc::default());
        let up_to = Place { epoch: Epoch(1), offset: Offset(offset) };
        let stored = sequencer.snapshot(topic.clone(), up_to, payload, LeaseClaim::None, 5);
        sequencer.invariants().expect("invariants");
        stored
    };
    for _ in 0..4 {
        put(&mut sequencer, &topic, 10, PublishOptions::default(), 1).unwrap();
    }
    assert_eq!(store(&mut sequencer, 2, 100), Ok(()));
    assert!(matches!(store(&mut sequencer, 3, 8_000), Err(Refusal::Limit(_))), "larger than there may be");
    assert_eq!(store(&mut sequencer, 1, 1), Err(Refusal::Conflict { offset: 2 }), "below the older one's");
    for offset in [5, (1 << 53) - 1, u64::MAX] {
        assert_eq!(store(&mut sequencer, offset, 1), Err(Refusal::Conflict { offset: 4 }));
    }
    assert_eq!(store(&mut sequencer, 3, 200), Ok(()));
    let (_, next, recalled) = sequencer.recall(topic.clone(), Recall::State, 6);
    assert_eq!((next, recalled.replay.len()), (Offset(5), 1));
}

#[test]
fn a_topic_with_state_stays_and_one_with_a_window_until_that_is_too_old() {
    let registry = ruled(HistoryKind::Window);
    let mut sequencer = roomy(&registry);
    put(&mut sequencer, &registry.resolve("state"), 1, retain(), 1).unwrap();
    put(&mut sequencer, &registry.resolve("window"), 1, PublishOptions::default(), 1).unwrap();
    for now in (0..119).map(|second| second * SECOND) {
        sequencer.expire(now, &registry);
    }
    assert_eq!(sequencer.len(), 2);
    (119..130).for_each(|second| sequencer.expire(second * SECOND, &registry));
    assert_eq!((sequencer.len(), registry.len()), (1, 1), "what has state stays");
    let state = registry.resolve("state");
    assert!(state.is_stateful() && sequencer.position(state.id) == Some((Epoch(1), Offset(2))));
}

#[test]
fn a_topic_whose_state_was_removed_is_forgotten() {
    let registry = ruled(HistoryKind::None);
    let mut sequencer = roomy(&registry);
    put(&mut sequencer, &registry.resolve("t"), 1, retain(), 1).unwrap();
    (1..10).for_each(|round| sequencer.expire(round * 1_000, &registry));
    assert_eq!(sequencer.len(), 1);
    put(&mut sequencer, &registry.resolve("t"), 1, removing(retain()), 10_000).unwrap();
    (10..20).for_each(|round| sequencer.expire(round * 1_000, &registry));
    assert!(sequencer.is_empty() && registry.is_empty());
}

/// Endless topics with windows: those go first that were used longest ago, and one with state never does.
#[test]
fn a_full_registry_forgets_windows_but_no_state() {
    let registry = ruled(HistoryKind::Window);
    let mut sequencer = roomy(&registry);
    sequencer.topics_max = 64;
    put(&mut sequencer, &registry.resolve("state"), 1, retain(), 1).unwrap();
    for n in 0..500 {
        let now = 10 + n * 10;
        sequencer.expire(now, &registry);
        let name = format!("t{n}");
        assert!(registry.admits(&name, 64), "{n}");
        put(&mut sequencer, &registry.resolve(&name), 1, PublishOptions::default(), now).unwrap();
    }
    assert!((50..64).contains(&registry.len()));
    assert_eq!(sequencer.position(registry.resolve("state").id), Some((Epoch(1), Offset(2))));
    assert!(sequencer.position(registry.resolve("t499").id).is_some());
}

/// Topics that come and go leave nothing behind: not even an entry of a list.
#[test]
fn lists_do_not_grow_with_topics_that_were_forgotten() {
    let registry = ruled(HistoryKind::Window);
    let mut sequencer = roomy(&registry);
    for round in 0..2_000 {
        let now = round * SECOND;
        for name in [format!("t{round}"), "again".into()] {
            // One comes back as soon as its window is too old.
            if name != "again" || round % 150 == 0 {
                put(&mut sequencer, &registry.resolve(&name), 1, PublishOptions::default(), now).unwrap();
            }
        }
        sequencer.expire(now, &registry);
    }
    assert!(sequencer.len() < 200, "{}", sequencer.len());
    let (entries, entries_max) = sequencer.ledger.listed(sequencer.len());
    assert!(entries <= entries_max && entries_max < 500, "{entries} of {entries_max}");
}
