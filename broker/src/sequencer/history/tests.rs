//! A topic's history against plain models of it: lists that are searched from end to end, and the map that a subscriber
//! would have who never lost its connection.
//!
//! Times are in nanoseconds and small; weights are those of real messages.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::v1::PayloadKind;

use super::recall::{HistoryQuery, Now, Page, Place, Recall, Recalled};
use super::*;
use crate::capacity::budget::Account;
use crate::ids::{Epoch, TopicId};
use crate::message::Payload;

const EPOCH: Epoch = Epoch(7);

fn message(offset: u64, bytes: usize, options: Option<PublishOptions>, now: Nanos) -> Arc<Message> {
    let account: Arc<Account> = Arc::default();
    let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; bytes], &account);
    let message = Message::new((TopicId(1), "t".into()), Offset(offset), payload, now);
    Arc::new(message.with_options(&mut options.unwrap_or_default(), &account))
}

fn offsets<'m>(messages: impl IntoIterator<Item = &'m Arc<Message>>) -> Vec<u64> {
    messages.into_iter().map(|message| message.offset.0).collect()
}

fn key_name(key: u8) -> Option<Box<str>> {
    (key > 0).then(|| format!("k{key}").into())
}

/// What happens to a topic.
#[derive(Clone, Debug)]
enum Step {
    Publish { bytes: usize, key: u8, retain: bool, removed: bool, ttl: bool },
    Snapshot { back: u64 },
    Wait(u64),
    Evict,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish =
        (0..400_usize, 0..5_u8, prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    let step = prop_oneof![
        12 => publish.prop_map(|(bytes, key, retain, removed, ttl)| Step::Publish { bytes, key, retain, removed, ttl }),
        1 => (0..6_u64).prop_map(|back| Step::Snapshot { back }),
        4 => (1..3_000_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Evict),
    ];
    vec(step, 1..60)
}

/// A history, and what it should hold.
struct Model {
    rule: Rule,
    history: History,
    now: Nanos,
    /// Every message since the topic began.
    all: Vec<Arc<Message>>,
    window: Vec<Arc<Message>>,
    retained: Option<Arc<Message>>,
    snapshot: Option<Arc<Message>>,
}

impl Model {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            history: History::default(),
            now: 1,
            all: Vec::new(),
            window: Vec::new(),
            retained: None,
            snapshot: None,
        }
    }

    fn next(&self) -> Offset {
        Offset(self.all.len() as u64 + 1)
    }

    fn at(&self) -> Now {
        Now { epoch: EPOCH, next: self.next(), time: self.now }
    }

    fn is_keyed(&self) -> bool {
        key_bounds(&self.rule).is_some()
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Publish { bytes, key, retain, removed, ttl } => {
                let removed = removed && (self.is_keyed() || retain);
                let ttl_ms = ttl.then_some(1);
                let options =
                    PublishOptions { key: key_name(key), retain, removed, ttl_ms, ..PublishOptions::default() };
                self.publish(bytes, options);
            }
            Step::Snapshot { back } => self.store(self.all.len().saturating_sub(back as usize) as u64),
            Step::Wait(time) => self.now += time,
            Step::Evict => {
                self.history.evict();
                self.window.clear();
            }
        }
        self.history.expire(&self.rule, self.now);
        self.trim();
        // As the sequencer does it.
        if self.history.is_empty() {
            self.history = History::default();
        }
        self.check();
    }

    fn publish(&mut self, bytes: usize, options: PublishOptions) -> bool {
        self.now += 1;
        let message = message(self.next().0, bytes, Some(options.clone()), self.now);
        let growth = self.history.growth(&options, message.weight(), &self.rule);
        if self.history.check(&options, message.weight(), &self.rule, self.next(), self.now).is_err() {
            return false;
        }
        let before = self.history.size();
        self.history.remember(&message, &self.rule, options.retain, Keys::from_seed(1));
        let after = self.history.size();
        assert!(options.removed || after.state_bytes + growth.freed <= before.state_bytes + growth.added);
        assert!(options.removed || after.state_entries <= before.state_entries + growth.entries);
        self.all.push(Arc::clone(&message));
        if !self.is_keyed() {
            self.window.push(Arc::clone(&message));
        }
        if options.retain && !self.is_keyed() {
            self.retained = (!options.removed).then_some(message);
        }
        true
    }

    fn store(&mut self, up_to: u64) {
        let older = self.snapshot.as_ref().is_some_and(|older| older.offset.0 > up_to);
        if self.is_keyed() || older {
            return;
        }
        let snapshot = message(up_to, 5, None, self.now);
        let snapshot = Arc::try_unwrap(snapshot).expect("just made").into_snapshot();
        let snapshot = Arc::new(snapshot);
        self.history.set_snapshot(Arc::clone(&snapshot));
        self.snapshot = Some(snapshot);
        self.window.retain(|message| message.offset.0 > up_to);
    }

    /// Does to the lists what the rule says.
    fn trim(&mut self) {
        let Bounds { messages_max, bytes_max, ttl } = bounds(&self.rule);
        let weight = |window: &[Arc<Message>]| -> u64 {
            window.iter().map(|message| message.weight() + window::ENTRY_BYTES).sum()
        };
        while self.window.len() > messages_max as usize || weight(&self.window) > bytes_max {
            self.window.remove(0);
        }
        self.window.retain(|message| ttl == 0 || message.sequenced_at + ttl > self.now);
        self.retained.take_if(|retained| retained.expires_at().is_some_and(|at| at <= self.now));
    }

    /// The map of a subscriber who got every message up to `position`.
    fn copy_at(&self, position: u64) -> BTreeMap<String, u64> {
        let mut copy = BTreeMap::new();
        apply(&mut copy, &self.all[..position as usize]);
        copy
    }

    /// Offsets of the messages that newcomers of a keyed topic are given for its keys.
    fn entries(&self) -> Vec<u64> {
        let ttl = key_bounds(&self.rule).expect("a keyed topic").ttl;
        let newest = self.copy_at(self.all.len() as u64);
        let alive = |message: &&Arc<Message>| {
            message.expires_at().is_none_or(|at| at > self.now) && (ttl == 0 || message.sequenced_at + ttl > self.now)
        };
        let mut entries = offsets(newest.values().map(|&offset| &self.all[offset as usize - 1]).filter(alive));
        entries.sort_unstable();
        entries
    }

    fn check(&mut self) {
        let history = &self.history;
        history.invariants(self.next()).expect("invariants");
        assert_eq!(offsets(history.window.iter()), offsets(&self.window));
        assert_eq!(offsets(&history.retained), offsets(&self.retained));
        let weigh = |message: &Arc<Message>| message.weight();
        let keyed: Vec<_> = history.keyed().into_iter().flat_map(|keyed| keyed.iter()).collect();
        let values = keyed.iter().filter(|message| !message.is_removal()).count() as u64;
        let single = || history.retained.iter().chain(history.snapshot());
        let size = Size {
            window_bytes: self.window.iter().map(|message| weigh(message) + window::ENTRY_BYTES).sum(),
            state_bytes: single().map(weigh).sum::<u64>()
                + keyed.iter().map(|message| weigh(message) + keyed::ENTRY_BYTES).sum::<u64>(),
            state_entries: single().count() as u64 + values,
            overhead_bytes: if history.is_empty() {
                0
            } else {
                let (windows, keys) = (self.window.len() as u64, keyed.len() as u64);
                let rare = if history.rare.is_some() { RARE_BYTES } else { 0 };
                let list = if matches!(history.window, Window::Many(_)) { window::LIST_BYTES } else { 0 };
                LISTED_BYTES + rare + list + windows * window::ENTRY_BYTES + keys * keyed::ENTRY_BYTES
            },
        };
        assert_eq!(history.size(), size);
        if let Some(bounds) = key_bounds(&self.rule) {
            let bytes: u64 = keyed.iter().map(|message| weigh(message) + keyed::ENTRY_BYTES).sum();
            assert!(values <= u64::from(bounds.keys_max) && bytes <= bounds.bytes_max + keyed::ENTRY_BYTES);
        }
    }

    fn recall(&mut self, recall: Recall, bytes_max: u64) -> Recalled {
        let at = self.at();
        self.history.recall(recall, &self.rule, at, bytes_max)
    }

    /// What a newcomer is given, by offset: state, and what is replayed behind a snapshot.
    fn newcomer(&self, bytes_max: u64) -> (Vec<u64>, Vec<u64>) {
        if let Some(snapshot) = &self.snapshot {
            return (vec![snapshot.offset.0], self.newest(usize::MAX, bytes_max));
        }
        (self.with_retained(if self.is_keyed() { self.entries() } else { Vec::new() }, 0), Vec::new())
    }

    /// These with the retained message, if it comes after `after` and is not one of them.
    fn with_retained(&self, mut state: Vec<u64>, after: u64) -> Vec<u64> {
        state.extend(self.retained.iter().map(|retained| retained.offset.0).filter(|offset| *offset > after));
        state.sort_unstable();
        state.dedup();
        state
    }

    fn newest(&self, count: usize, bytes_max: u64) -> Vec<u64> {
        let suffixes = (0..=self.window.len()).map(|from| &self.window[from..]);
        let fits = |part: &&[Arc<Message>]| {
            part.len() <= count && part.iter().map(|message| message.weight()).sum::<u64>() <= bytes_max
        };
        offsets(suffixes.filter(fits).max_by_key(|part| part.len()).expect("none always fits"))
    }
}

/// What a subscriber does with what it is sent.
fn apply(copy: &mut BTreeMap<String, u64>, messages: &[Arc<Message>]) {
    for message in messages {
        let key = message.key().unwrap_or_default();
        match message.is_removal() {
            true => drop(copy.remove(key)),
            false => drop(copy.insert(key.to_owned(), message.offset.0)),
        }
    }
}

fn state_of(recalled: &Recalled) -> Vec<u64> {
    recalled.state.iter().flat_map(|state| offsets(state.iter())).collect()
}

fn window_rule(messages_max: u32, bytes_max: u64, ttl: u64) -> Rule {
    let history = rules::History::Window { messages_max, bytes_max };
    Rule { history, history_ttl: Duration::from_nanos(ttl), ..Rule::default() }
}

fn keyed_rule(keys_max: u32, bytes_max: u64, ttl: u64, tombstone_ttl: u64) -> Rule {
    let history = rules::History::Keyed { keys_max, bytes_max, tombstone_ttl: Duration::from_nanos(tombstone_ttl) };
    Rule { history, history_ttl: Duration::from_nanos(ttl), ..Rule::default() }
}

fn since(offset: u64, state: bool) -> Recall {
    Recall::Since { place: Place { epoch: EPOCH, offset: Offset(offset) }, state }
}

proptest! {
    /// Every recall of a topic with a window gives what the protocol promises.
    #[test]
    fn a_window_gives_what_the_protocol_says(
        steps in steps(),
        rule in (1..12_u32, 200..6_000_u64, prop_oneof![Just(0), 1..9_000_000_u64]),
        bytes_max in 0..6_000_u64,
        count in 1..15_u32,
        state: bool,
    ) {
        let mut model = Model::new(window_rule(rule.0, rule.1, rule.2));
        for step in &steps {
            model.run(step);
        }
        let newest = model.all.len() as u64;
        for position in 0..=newest {
            let given = model.recall(since(position, state), bytes_max);
            let missed: Vec<_> = model.all[position as usize..].to_vec();
            let weight: u64 = missed.iter().map(|message| message.weight()).sum();
            let kept = offsets(&model.window);
            let up_to = model.snapshot.as_ref().map(|snapshot| snapshot.offset.0);
            let (shown, behind) = if state { model.newcomer(bytes_max) } else { Default::default() };
            let (recovered, shown, replay) = if missed.is_empty() {
                (true, Vec::new(), Vec::new())
            } else if let Some(up_to) = up_to.filter(|up_to| state && position < *up_to) {
                (behind == (up_to + 1..=newest).collect::<Vec<_>>(), shown, behind)
            } else if offsets(&missed).iter().all(|offset| kept.contains(offset)) && weight <= bytes_max {
                (true, Vec::new(), offsets(&missed))
            } else {
                (false, shown, behind)
            };
            prop_assert_eq!(given.recovered, Some(recovered), "from {}", position);
            prop_assert_eq!((state_of(&given), offsets(&given.replay)), (shown, replay), "from {}", position);
            let available = kept.first().map(|first| (Offset(*first), Offset(newest)));
            prop_assert!(recovered || given.available == available);
        }
        for (epoch, offset) in [(EPOCH, newest + 1), (EPOCH, (1 << 53) - 1), (EPOCH, u64::MAX), (Epoch(8), 0)] {
            let place = Place { epoch, offset: Offset(offset) };
            let given = model.recall(Recall::Since { place, state }, bytes_max);
            prop_assert_eq!(given.recovered, Some(false));
            let newcomer = if state { model.newcomer(bytes_max) } else { Default::default() };
            prop_assert_eq!((state_of(&given), offsets(&given.replay)), newcomer);
        }
        let given = model.recall(Recall::State, bytes_max);
        prop_assert_eq!((state_of(&given), offsets(&given.replay)), model.newcomer(bytes_max));
        let given = model.recall(Recall::Last { count, state }, bytes_max);
        let last = model.newest(count as usize, bytes_max);
        let retained = model.with_retained(Vec::new(), 0);
        let is_shown = state && retained.first().is_some_and(|retained| last.first().is_none_or(|first| retained < first));
        prop_assert_eq!(state_of(&given), if is_shown { retained } else { Vec::new() });
        prop_assert_eq!(offsets(&given.replay), last);
    }

    /// A subscriber that is behind in a keyed topic gets exactly what it missed, or learns that it has to begin anew: never a part of it.
    #[test]
    fn a_keyed_topic_never_loses_a_removal(
        steps in steps(),
        rule in (1..6_u32, 1_500..4_000_u64, prop_oneof![Just(0), 1..9_000_000_u64], 1..9_000_000_u64),
        state: bool,
    ) {
        let mut model = Model::new(keyed_rule(rule.0, rule.1, rule.2, rule.3));
        for step in &steps {
            model.run(step);
            let newest = model.all.len() as u64;
            for position in 0..=newest {
                let given = model.recall(since(position, state), 0);
                if given.recovered == Some(true) {
                    let mut copy = model.copy_at(position);
                    let sent: Vec<_> = given.state.iter().flat_map(|state| state.iter().cloned()).collect();
                    let after = |message: &Arc<Message>| message.offset.0 > position;
                    prop_assert!(sent.is_sorted_by_key(|message| message.offset) && sent.iter().all(after));
                    apply(&mut copy, &sent);
                    prop_assert_eq!(copy, model.copy_at(newest), "from {} of {}", position, newest);
                } else {
                    prop_assert!(position < newest);
                    let shown = if state { model.newcomer(0).0 } else { Vec::new() };
                    prop_assert_eq!(state_of(&given), shown);
                }
            }
            let shown = model.newcomer(0).0;
            prop_assert_eq!(state_of(&model.recall(Recall::State, 0)), shown.clone());
            prop_assert_eq!(state_of(&model.recall(Recall::Last { count: 1, state: true }, 0)), shown);
        }
    }

    /// Without limits of time and room every position of a keyed topic is recovered.
    #[test]
    fn a_keyed_topic_that_forgets_nothing_recovers_everybody(steps in steps()) {
        let mut model = Model::new(keyed_rule(100, 1 << 20, 0, 1 << 60));
        // A topic without any keys begins anew with the next one.
        model.run(&Step::Publish { bytes: 1, key: 9, retain: false, removed: false, ttl: false });
        for mut step in steps {
            if let Step::Publish { ttl, .. } = &mut step {
                *ttl = false;
            }
            model.run(&step);
        }
        for position in 0..=model.all.len() as u64 {
            let given = model.recall(since(position, false), 0);
            prop_assert_eq!(given.recovered, Some(true));
            let mut copy = model.copy_at(position);
            apply(&mut copy, given.state.as_deref().unwrap_or_default());
            prop_assert_eq!(copy, model.copy_at(model.all.len() as u64));
        }
    }

    /// `history` reads what a list, filtered, sorted and cut, would give.
    #[test]
    fn a_page_is_a_part_of_what_is_kept(
        steps in steps(),
        is_keyed: bool,
        since in prop::option::of(0..70_u64),
        before in prop::option::of(prop_oneof![0..70_u64, Just(u64::MAX)]),
        limit in 1..20_u32,
        reverse: bool,
    ) {
        let rule = if is_keyed { keyed_rule(10, 1 << 20, 0, 1 << 60) } else { window_rule(20, 1 << 20, 0) };
        let mut model = Model::new(rule);
        for step in &steps {
            model.run(step);
        }
        let newest = model.all.len() as u64;
        let place = |offset| Place { epoch: EPOCH, offset: Offset(offset) };
        let query = HistoryQuery { since: since.map(place), before: before.map(place), limit, reverse };
        let at = model.at();
        let Page { recovered, messages, more } = model.history.page(&query, &model.rule, at);
        let after = since.filter(|offset| *offset <= newest);
        let state = model.recall(super::tests::since(after.unwrap_or(0), false), u64::MAX);
        let mut kept = offsets(&model.window);
        if is_keyed {
            kept = model.entries();
            if after.is_some() && state.recovered == Some(true) {
                kept = state_of(&state);
            }
        }
        kept.retain(|&offset| after.is_none_or(|after| offset > after) && before.is_none_or(|before| offset < before));
        if reverse {
            kept.reverse();
        }
        prop_assert_eq!(more, kept.len() > limit as usize);
        kept.truncate(limit as usize);
        prop_assert_eq!(offsets(&messages), kept);
        let complete = after.is_some_and(|after| match is_keyed {
            true => state.recovered == Some(true),
            false => (after + 1..=newest).all(|offset| offsets(&model.window).contains(&offset)),
        });
        prop_assert_eq!(recovered, since.map(|_| complete));
    }

    /// The newest thousand idempotency keys of the last five minutes, and no others.
    #[test]
    fn idempotency_keys_are_the_newest_of_the_last_minutes(
        waits in vec(prop_oneof![9 => 0..200_000_000_u64, 1 => Just(100_000_000_000)], 1..1500),
    ) {
        let (mut history, mut now) = (History::default(), 0);
        let mut keys: Vec<(String, u64, Nanos)> = Vec::new();
        for (offset, wait) in (1..).zip(waits) {
            now += wait;
            history.remember_key(&format!("k{offset}"), Offset(offset), Keys::from_seed(1), now);
            keys.push((format!("k{offset}"), offset, now));
        }
        let first = keys.len().saturating_sub(1000);
        let mut bytes = 0;
        for (at, (key, offset, published)) in keys.iter().enumerate() {
            let is_known = at >= first && published + 300_000_000_000 > now;
            bytes += if is_known { key.len() as u64 + 96 } else { 0 };
            prop_assert_eq!(history.find_duplicate(key, now), is_known.then_some(Offset(*offset)));
        }
        prop_assert_eq!(history.size().window_bytes, bytes);
        history.expire(&Rule::default(), now + 300_000_000_000);
        prop_assert!(history.is_empty());
    }
}

#[test]
fn compare_and_set_compares_with_the_key_or_the_newest_message() {
    let expect = |key: u8, expected| PublishOptions {
        key: key_name(key),
        if_offset: Some(expected),
        ..PublishOptions::default()
    };
    let mut model = Model::new(keyed_rule(10, 1 << 20, 0, 1 << 60));
    assert!(!model.publish(1, expect(1, Expected::Offset(1))));
    assert!(model.publish(1, expect(1, Expected::Absent)));
    assert!(model.publish(1, expect(2, Expected::Offset(0))), "0 is no message");
    assert!(!model.publish(1, expect(1, Expected::Offset(2))), "that is another key");
    assert!(model.publish(1, expect(1, Expected::Offset(1))));
    assert!(model.publish(1, PublishOptions { removed: true, ..expect(1, Expected::Offset(3)) }));
    assert!(model.publish(1, PublishOptions { ttl_ms: Some(1), ..expect(1, Expected::Absent) }), "it was removed");
    model.now += 2_000_000;
    let conflict = model.history.check(&expect(1, Expected::Offset(5)), 1, &model.rule, model.next(), model.now);
    assert_eq!(conflict, Err(Refusal::Conflict { offset: 0 }), "it is too old");
    let mut model = Model::new(window_rule(1, 1 << 20, 0));
    assert!(model.publish(1, expect(1, Expected::Absent)));
    assert!(model.publish(1, expect(2, Expected::Offset(1))));
    assert!(!model.publish(1, expect(1, Expected::Offset(u64::MAX))));
    model.history.evict();
    assert!(model.publish(1, expect(1, Expected::Offset(2))), "what is forgotten was published all the same");
}

/// A key that was removed, and whose removal was forgotten with everything else, does not come back.
#[test]
fn a_topic_whose_keys_are_all_gone_does_not_recover_older_positions() {
    let mut model = Model::new(keyed_rule(10, 1 << 20, 0, 1_000));
    let put = Step::Publish { bytes: 1, key: 1, retain: false, removed: false, ttl: false };
    let remove = Step::Publish { bytes: 1, key: 1, retain: false, removed: true, ttl: false };
    for step in [put, remove, Step::Wait(2_000)] {
        model.run(&step);
    }
    assert!(model.history.is_empty());
    model.run(&Step::Publish { bytes: 1, key: 2, retain: false, removed: false, ttl: false });
    assert_eq!(model.recall(since(1, true), 0).recovered, Some(false), "it has the key that was removed");
    assert_eq!(model.recall(since(2, true), 0).recovered, Some(true));
}

/// Neither updates nor removals take more room than the rule allows.
#[test]
fn updates_and_removals_stay_within_the_bytes_of_the_rule() {
    let mut model = Model::new(keyed_rule(100, 4_000, 0, 1 << 60));
    let put = |key: u8, bytes| Step::Publish { bytes, key, retain: false, removed: false, ttl: false };
    for key in 1..=4 {
        model.run(&put(key, 10));
    }
    for round in 0..50 {
        (1..=4).for_each(|key| model.run(&put(key, 100 * round)));
    }
    for key in 1..=4 {
        model.run(&Step::Publish { bytes: 3_000, key, retain: false, removed: true, ttl: false });
        model.run(&put(key, 10));
    }
    assert_eq!(model.history.size().state_entries, 4, "removals make room");
}
