//! Tests of the sequencer: offsets, who is wanted, and what is forgotten when.

use protocol::v1::PayloadKind;

use crate::sequencer::*;
use crate::topics::registry::Publisher;
use crate::topics::rules::{HistoryKind, Rule, SharedRules};

fn payload() -> Payload {
    Payload::copy_of(PayloadKind::Text, b"x", crate::capacity::budget::Budget::new(1, 1 << 20).of_shard(0))
}

/// Names of topics that remember nothing.
fn registry(shards: u16) -> Registry {
    Registry::new(shards, 1).ruled_by(SharedRules::only(Rule::of_kind(HistoryKind::None)))
}

fn sequencer(epoch_base: Epoch, registry: &Registry) -> Sequencer {
    sequencer_of(epoch_base, 1000, registry)
}

fn sequencer_of(epoch_base: Epoch, topics_max: usize, registry: &Registry) -> Sequencer {
    let history = HistoryLimits { bytes_max: 1 << 20, entries_max: 1000, recovery_bytes_max: 1 << 20 };
    let limits = SequencerLimits { idle_timeout: 100, topics_max, history };
    Sequencer::new(epoch_base, limits, registry, &Arc::default(), &Arc::default())
}

/// Publishes without options.
fn publish(sequencer: &mut Sequencer, topic: TopicRef, now: Nanos) -> Sequenced<'_> {
    sequencer.publish(topic, payload(), None, now).expect("a plain publish")
}

#[test]
fn offsets_are_dense_from_one_and_a_filter_widens_who_is_wanted() {
    let registry = registry(2);
    let mut sequencer = sequencer(Epoch(7), &registry);
    assert_eq!(sequencer.join(registry.resolve("a/b"), ShardId(1), 0), (Epoch(7), Offset(1)));
    let first = publish(&mut sequencer, registry.resolve("a/b"), 0);
    assert_eq!((first.offset, first.epoch, first.wanted), (Offset(1), Epoch(7), &[ShardId(1)][..]));
    sequencer.join(registry.resolve("a/+"), ShardId(0), 0);
    let second = publish(&mut sequencer, registry.resolve("a/b"), 0);
    assert_eq!((second.offset, second.wanted), (Offset(2), &[ShardId(0), ShardId(1)][..]));
    sequencer.leave(&registry.resolve("a/+"), ShardId(0), 0);
    assert_eq!(publish(&mut sequencer, registry.resolve("a/b"), 0).wanted, &[ShardId(1)]);
}

#[test]
fn a_topic_out_of_use_is_forgotten_and_begins_a_new_epoch() {
    let registry = registry(1);
    let mut sequencer = sequencer(Epoch(7), &registry);
    publish(&mut sequencer, registry.resolve("t"), 0);
    publish(&mut sequencer, registry.resolve("t"), 50);
    sequencer.expire(100, &registry);
    assert_eq!(sequencer.len(), 1, "used at 50");
    sequencer.expire(250, &registry);
    assert!(sequencer.is_empty());
    assert!(registry.is_empty(), "the name is forgotten with its last holder");
    assert_eq!(sequencer.join(registry.resolve("t"), ShardId(0), 300), (Epoch(8), Offset(1)));
}

#[test]
fn a_joined_topic_is_kept_and_a_million_joins_leave_nothing_behind() {
    let registry = registry(1);
    let mut sequencer = sequencer(Epoch(1), &registry);
    sequencer.join(registry.resolve("t"), ShardId(0), 0);
    sequencer.expire(1_000, &registry);
    assert_eq!(sequencer.len(), 1);
    sequencer.leave(&registry.resolve("t"), ShardId(0), 1_000);
    for round in 0..1_000_000_u64 {
        let now = 1_000 + round;
        sequencer.join(registry.resolve("t"), ShardId(0), now);
        sequencer.leave(&registry.resolve("t"), ShardId(0), now);
        sequencer.expire(now, &registry);
    }
    assert!(sequencer.unused.len() <= 2);
    sequencer.expire(2_000_000_000, &registry);
    assert!(sequencer.is_empty() && registry.is_empty());
}

#[test]
fn a_topic_is_kept_while_a_filter_matches_it_and_a_timeout_longer() {
    let registry = registry(1);
    let mut sequencer = sequencer(Epoch(7), &registry);
    publish(&mut sequencer, registry.resolve("chat/7"), 0);
    // The filter comes after the message: what was known of the topic is out of date when its time comes.
    sequencer.join(registry.resolve("chat/+"), ShardId(0), 1);
    publish(&mut sequencer, registry.resolve("other"), 1);
    for now in (100..1000).step_by(100) {
        sequencer.expire(now, &registry);
    }
    assert_eq!(sequencer.len(), 1, "nobody would notice `other`");
    assert_eq!(publish(&mut sequencer, registry.resolve("chat/7"), 1000).offset, Offset(2));
    sequencer.leave(&registry.resolve("chat/+"), ShardId(0), 1001);
    for now in (1100..1400).step_by(100) {
        sequencer.expire(now, &registry);
    }
    assert!(sequencer.is_empty() && registry.is_empty());
}

#[test]
fn a_topic_is_kept_while_a_publisher_has_it() {
    let registry = registry(1);
    let mut sequencer = sequencer(Epoch(7), &registry);
    let publisher = Publisher::new(registry.resolve("t"));
    publish(&mut sequencer, registry.resolve("t"), 0);
    for now in (100..1000).step_by(100) {
        sequencer.expire(now, &registry);
    }
    let next = publish(&mut sequencer, publisher.topic().clone(), 1000);
    assert_eq!((next.epoch, next.offset), (Epoch(7), Offset(2)));
    drop(publisher);
    for now in (1100..1400).step_by(100) {
        sequencer.expire(now, &registry);
    }
    assert!(sequencer.is_empty() && registry.is_empty());
}

/// Endless topics under `#`: the oldest make room, those in use do not, and a table that is not full keeps all.
#[test]
fn when_the_registry_is_nearly_full_idle_topics_make_room_although_a_filter_matches() {
    let registry = registry(1);
    let mut sequencer = sequencer_of(Epoch(1), 64, &registry);
    sequencer.join(registry.resolve("#"), ShardId(0), 0);
    let mut now = 0;
    for n in 0..1000 {
        now += 10;
        sequencer.expire(now, &registry);
        let name = format!("t{n}");
        assert!(registry.admits(&name, 64), "{n}");
        publish(&mut sequencer, registry.resolve(&name), now);
        publish(&mut sequencer, registry.resolve("busy"), now);
    }
    assert!(registry.len() >= 55, "no more are forgotten than have to be: {}", registry.len());
    assert_eq!(publish(&mut sequencer, registry.resolve("busy"), now).offset, Offset(1001));
    let again = publish(&mut sequencer, registry.resolve("t0"), now);
    assert_eq!(again.offset, Offset(1));
    assert!(again.epoch > Epoch(1000), "another epoch than before");
}

#[test]
fn one_call_forgets_a_bounded_number() {
    let registry = registry(1);
    let mut sequencer = sequencer(Epoch(1), &registry);
    for n in 0..900 {
        publish(&mut sequencer, registry.resolve(&format!("{n}")), 0);
    }
    sequencer.expire(100, &registry);
    assert_eq!(sequencer.len(), 900 - 64, "so many a turn");
    assert_eq!(sequencer.next_expiry(), Some(100), "the rest at once");
    (0..20).for_each(|_| sequencer.expire(100, &registry));
    assert!(sequencer.is_empty());
}

mod remembers;

mod wanted {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However filters come and go: who is wanted is who joined the topic or a filter that matches it.
        #[test]
        fn who_is_wanted_is_who_joined(
            steps in prop::collection::vec((0..7_usize, 0..3_u16, any::<bool>(), any::<bool>()), 1..300)
        ) {
            const NAMES: [&str; 7] = ["a/b", "a/+", "+/b", "#", "a/#", "c/#", "a"];
            let registry = registry(3);
            let mut sequencer = sequencer(Epoch(1), &registry);
            let mut joined = std::collections::BTreeSet::new();
            for (name, shard, join, message) in steps {
                let topic = registry.resolve(NAMES[name]);
                if join && joined.insert((name, shard)) {
                    sequencer.join(topic, ShardId(shard), 0);
                } else if !join && joined.remove(&(name, shard)) {
                    sequencer.leave(&topic, ShardId(shard), 0);
                }
                if message {
                    let wants = |shard| joined.iter().any(|&(name, by)| {
                        ShardId(by) == shard && protocol::topic::matches(NAMES[name], "a/b")
                    });
                    let expected: Vec<ShardId> = ShardId::all(3).filter(|&shard| wants(shard)).collect();
                    prop_assert_eq!(publish(&mut sequencer, registry.resolve("a/b"), 0).wanted, &expected[..]);
                }
            }
        }
    }
}

/// Whatever is remembered, the number is that of the filters that match now.
#[test]
fn subscriptions_of_a_topic_are_its_own_and_those_of_matching_filters() {
    let registry = registry(1);
    let mut sequencer = sequencer(Epoch(1), &registry);
    let topic = registry.resolve("a/b");
    assert_eq!(sequencer.subscriptions(&topic), 0);
    topic.subscription_begins();
    let names = ["a/+", "a/#", "+/b", "#", "a/c", "b/#"];
    let filters = names.map(|name| registry.resolve(name));
    let mut expected = 1;
    for (filter, matches) in filters.iter().zip([1, 1, 1, 1, 0, 0]) {
        sequencer.join(filter.clone(), ShardId(0), 0);
        assert_eq!(sequencer.subscriptions(&topic), expected, "{}: nobody yet", filter.name);
        filter.subscription_begins();
        filter.subscription_begins();
        expected += 2 * matches;
        assert_eq!(sequencer.subscriptions(&topic), expected, "{}", filter.name);
    }
    filters[0].subscription_ends();
    assert_eq!(sequencer.subscriptions(&topic), expected - 1);
    sequencer.leave(&filters[3], ShardId(0), 0);
    assert_eq!(sequencer.subscriptions(&topic), expected - 3);
    // More filters than are remembered of one topic.
    for n in 0..100 {
        let filter =
            registry.resolve(&format!("{}/{}", "+", if n % 2 == 0 { "b".to_owned() } else { format!("x{n}") }));
        filter.subscription_begins();
        sequencer.join(filter, ShardId(0), 0);
    }
    assert_eq!(sequencer.subscriptions(&topic), expected - 3 + 50);
    drop((filters, sequencer));
    assert_eq!(registry.len(), 1, "names are not held by what is remembered");
}

/// A topic that very many filters match, and topics whose ids fall on the same place of what is remembered.
#[test]
fn many_matching_filters_and_topics_are_counted_all_the_same() {
    let registry = registry(1);
    let mut sequencer = sequencer(Epoch(1), &registry);
    let topics: Vec<TopicRef> = (0..600).map(|n| registry.resolve(&format!("t/{n}/a/b/c/d/e/f"))).collect();
    for mask in 0..128_u32 {
        let level = |at: u32, name: &'static str| if mask >> at & 1 == 1 { "+" } else { name };
        let levels = ["a", "b", "c", "d", "e", "f"];
        let tail: Vec<_> = (0..).zip(levels).map(|(at, name)| level(at, name)).collect();
        let end = if mask >> 6 & 1 == 1 { "/#" } else { "" };
        let filter = registry.resolve(&format!("t/+/{}{end}", tail.join("/")));
        filter.subscription_begins();
        sequencer.join(filter, ShardId(0), 0);
    }
    for _ in 0..2 {
        for topic in &topics {
            assert_eq!(sequencer.subscriptions(topic), 128);
        }
    }
}
