//! Which rule applies, against the contract's example and against a list that is searched from end to end.

use proptest::prelude::*;

use super::*;

fn rule(filter: &str, history: History) -> Rule {
    Rule { filter: filter.to_owned(), history, ..Rule::default() }
}

const WINDOW: History = History::Window { messages_max: 1000, bytes_max: 1 << 20 };
const KEYED: History = History::Keyed { keys_max: 9, bytes_max: 9, tombstone_ttl: Duration::from_secs(1) };

fn rules(filters: &[(&str, History)]) -> Rules {
    let rules = filters.iter().map(|(filter, history)| rule(filter, *history)).collect();
    Rules::new(rules, Keys::from_seed(1)).unwrap()
}

fn applying<'a>(rules: &'a Rules, topic: &str) -> &'a str {
    &rules.get(rules.rule_of(topic)).filter
}

#[test]
fn of_four_rules_the_most_particular_one_applies() {
    let four = [("#", WINDOW), ("chat/#", WINDOW), ("chat/+/typing", History::None), ("+/7/typing", KEYED)];
    for turn in 0..four.len() {
        let mut turned = four;
        turned.rotate_left(turn);
        let rules = rules(&turned);
        for (topic, expected) in [
            ("chat/7/typing", "chat/+/typing"),
            ("chat/7", "chat/#"),
            ("chat", "chat/#"),
            ("news/7/typing", "+/7/typing"),
            ("news/7", "#"),
            ("/", "#"),
            ("$sys/load", "$sys/load"),
            ("$sys/topics", "$sys/topics"),
            ("$sys/other", "$sys/#"),
            ("$sys", "$sys/#"),
            ("$other", ""),
        ] {
            assert_eq!(applying(&rules, topic), expected, "{topic}");
        }
        let found = rules.matching("chat/7/typing");
        let found: Vec<_> = found.iter().map(|id| rules.get(*id).filter.as_str()).collect();
        assert_eq!(found, ["chat/+/typing", "chat/#", "+/7/typing", "#"]);
    }
}

#[test]
fn the_end_of_a_filter_beats_a_hash() {
    let rules = rules(&[("a/#", WINDOW), ("a", KEYED), ("a/+", History::None), ("a//b", KEYED)]);
    for (topic, expected) in [("a", "a"), ("a/b", "a/+"), ("a/", "a/+"), ("a/b/c", "a/#"), ("a//b", "a//b"), ("b", "")]
    {
        assert_eq!(applying(&rules, topic), expected, "{topic}");
    }
}

#[test]
fn a_rule_does_not_inherit() {
    let all = Rule { filter: "#".into(), history_ttl: Duration::from_secs(600), ..Rule::default() };
    let rules = Rules::new(vec![all, rule("chat/#", WINDOW)], Keys::from_seed(1)).unwrap();
    assert_eq!(rules.get(rules.rule_of("news")).history_ttl, Duration::from_secs(600));
    assert_eq!(rules.get(rules.rule_of("chat/7")).history_ttl, Duration::from_secs(120));
}

#[test]
fn what_is_built_in_applies_without_rules() {
    let rules = Rules::default();
    assert_eq!(rules.rule_of("chat/7"), RuleId::DEFAULT);
    assert_eq!(*rules.get(RuleId::DEFAULT), Rule::default());
    let built_in = |topic: &str| {
        let id = rules.rule_of(topic);
        assert!(id.is_built_in(), "{topic}");
        let rule = rules.get(id);
        (rule.history.kind(), rule.retain, rule.policy.throttle.millis())
    };
    assert!(!RuleId::DEFAULT.is_built_in());
    assert_eq!(built_in("$sys/load"), (HistoryKind::Window, Retain::Never, 0));
    assert_eq!(rules.get(rules.rule_of("$sys/load")).history_ttl, Duration::from_secs(900));
    for topic in ["$sys/topics", "$sys/closed", "$sys/other"] {
        assert_eq!(built_in(topic), (HistoryKind::None, Retain::Never, 0), "{topic}");
    }
    assert_eq!(built_in("$presence/chat/7"), (HistoryKind::Keyed, Retain::Never, 250));
    assert_eq!(built_in("$count/chat/7"), (HistoryKind::None, Retain::Always, 0));
}

#[test]
fn a_topic_without_a_table_has_the_defaults_of_a_table() {
    assert_eq!(Rule::from(&TopicTable::default()), Rule::default());
}

#[test]
fn equal_filters_and_too_many_are_refused() {
    for filter in ["a/+", "$sys/#"] {
        let twice = Rules::new(vec![rule(filter, WINDOW), rule(filter, KEYED)], Keys::from_seed(1));
        assert_eq!(twice.unwrap_err(), RulesError::Twice(filter.to_owned()));
    }
    let many = (0..=RULES_MAX).map(|n| rule(&n.to_string(), WINDOW)).collect();
    assert_eq!(Rules::new(many, Keys::from_seed(1)).unwrap_err(), RulesError::TooMany);
}

#[test]
fn what_has_another_kind_of_history_is_named() {
    let old = rules(&[("#", WINDOW), ("a/#", KEYED), ("b", WINDOW), ("c", KEYED), ("d/+", KEYED)]);
    let other_bounds = History::Window { messages_max: 1, bytes_max: 1 };
    let new = rules(&[("#", other_bounds), ("a/#", WINDOW), ("b", WINDOW), ("d/#", KEYED), ("e", History::None)]);
    // `c` falls to `#`, and `d/#` was `#` in part; `d/+` keeps its kind.
    assert_eq!(old.history_changes(&new), ["a/#", "c", "e"]);
    assert_eq!(old.history_changes(&old), <[&str; 0]>::default());
    assert_eq!(Rules::default().history_changes(&rules(&[("#", KEYED)])), ["#"]);
}

#[test]
fn the_level_that_decides_is_found() {
    assert_eq!(first_difference("chat/+/typing", "chat/#"), Some((2, [Some("+"), Some("#")])));
    assert_eq!(first_difference("a", "a/#"), Some((2, [None, Some("#")])));
    assert_eq!(first_difference("a/b", "a/b"), None);
}

#[test]
fn replaced_rules_have_another_version() {
    let shared = SharedRules::new(rules(&[("a", KEYED)]));
    let (version, held) = (shared.version(), shared.current());
    assert!(Arc::ptr_eq(&held, &shared.current()));
    shared.replace(Rules::default());
    assert_ne!(shared.version(), version);
    assert_eq!(applying(&shared.current(), "a"), "");
    assert_eq!(applying(&held, "a"), "a", "who holds the old ones may go on with them");
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "+", "+"])
}

fn filter() -> impl Strategy<Value = String> {
    (prop::collection::vec(level(), 0..5), any::<bool>()).prop_map(|(mut levels, open)| {
        if open || levels.iter().all(|level| level.is_empty()) {
            levels.push("#");
        }
        levels.join("/")
    })
}

/// Whether `a` beats `b`, as the contract says it for two filters that match one topic.
fn beats(a: &str, b: &str) -> bool {
    let (a, b): (Vec<_>, Vec<_>) = (a.split('/').collect(), b.split('/').collect());
    let rank = |filter: &[&str], at: usize| match filter.get(at) {
        Some(&"#") => 0,
        Some(&"+") => 1,
        Some(_) | None => 2,
    };
    let decides = (0..=a.len().max(b.len())).find(|at| rank(&a, *at) != rank(&b, *at));
    decides.is_some_and(|at| rank(&a, at) > rank(&b, at))
}

proptest! {
    #[test]
    fn the_rule_that_applies_beats_all_others_that_match(
        filters in prop::collection::btree_set(filter(), 0..30),
        topics in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ""]), 1..6), 1..30),
        seed in any::<u64>(),
    ) {
        let list = filters.iter().map(|filter| rule(filter, WINDOW)).collect();
        let rules = Rules::new(list, Keys::from_seed(seed)).unwrap();
        for topic in topics.iter().map(|levels| levels.join("/")).filter(|topic| !topic.is_empty()) {
            let matching: Vec<_> = filters.iter().filter(|filter| protocol::topic::matches(filter, &topic)).collect();
            let best = matching.iter().find(|a| matching.iter().all(|b| a == &b || beats(a, b)));
            prop_assert_eq!(best.is_some(), !matching.is_empty(), "one beats all others: {:?}", matching);
            let applies = applying(&rules, &topic);
            prop_assert_eq!(applies, best.map_or("", |best| best.as_str()), "{}", topic);
            let ordered = rules.matching(&topic);
            prop_assert_eq!(ordered.len(), matching.len());
            prop_assert!(ordered.first().is_none_or(|first| *first == rules.rule_of(&topic)));
        }
    }

    #[test]
    fn the_order_is_total(a in filter(), b in filter(), c in filter()) {
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        prop_assert_eq!(compare(&a, &b).is_eq(), a == b);
        if compare(&a, &b).is_lt() && compare(&b, &c).is_lt() {
            prop_assert!(compare(&a, &c).is_lt());
        }
    }
}
