//! How subscribers are delivered to, and what becomes of those that are far behind: the part of the rules that a subscription
//! follows.
//!
//! A topic has the policy of its rule. A filter spans topics of several rules: it has what all rules agree on that its topics
//! may have, and the default otherwise.
//!
//! Cost: of a topic that of [`Rules::rule_of`]; of a filter linear in the rules, unless they all agree. Asked once per log of a
//! shard, not per subscription.

use protocol::topic::{is_reserved, is_wildcard, overlap};

pub use crate::config::topics::SlowConsumer;
use crate::topics::rules::throttle::Throttle;
use crate::topics::rules::{Rule, RuleId, Rules};

/// See the file's head.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Policy {
    /// What is done with a subscriber that is more than `lag_bytes_max` behind.
    pub slow_consumer: SlowConsumer,
    /// How far that is, if the rule says so; `--max-lag` is a bound in any case.
    pub lag_bytes_max: Option<u64>,
    /// The least time between two deliveries to a subscriber.
    pub throttle: Throttle,
}

impl Policy {
    /// What both say.
    fn agreed(self, other: Self) -> Self {
        let slow_consumer =
            if self.slow_consumer == other.slow_consumer { self.slow_consumer } else { SlowConsumer::default() };
        let lag_bytes_max = self.lag_bytes_max.filter(|_| self.lag_bytes_max == other.lag_bytes_max);
        let throttle = if self.throttle == other.throttle { self.throttle } else { Throttle::NONE };
        Self { slow_consumer, lag_bytes_max, throttle }
    }
}

impl Rules {
    /// The policy of a topic or filter.
    #[must_use]
    pub fn policy_of(&self, filter: &str) -> Policy {
        if !is_wildcard(filter) {
            return self.get(self.rule_of(filter)).policy;
        }
        let default = self.get(RuleId::DEFAULT).policy;
        let others = || self.rules.iter().filter(|rule| !rule.filter.is_empty());
        if others().all(|rule| rule.policy == default) {
            return default;
        }
        let contained = others().any(|rule| contains(&rule.filter, filter));
        let overlapping = others().filter(|rule| overlap(&rule.filter, filter)).map(|rule: &Rule| rule.policy);
        overlapping.chain((!contained).then_some(default)).reduce(Policy::agreed).unwrap_or(default)
    }
}

/// Whether every topic that `inner` matches is matched by `outer`. It may deny that of filters that are spelt differently and
/// mean the same.
fn contains(outer: &str, inner: &str) -> bool {
    if outer.starts_with(['+', '#']) && is_reserved(inner) {
        return false;
    }
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            (Some("#"), _) | (None, None) => return true,
            (None, _) | (_, None | Some("#")) => return false,
            (Some(out), Some(level)) if out != "+" && out != level => return false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use protocol::topic::matches;

    use super::*;
    use crate::topics::keys::Keys;

    fn rules(list: &[(&str, SlowConsumer)]) -> Rules {
        let rule = |&(filter, slow_consumer): &(&str, SlowConsumer)| Rule {
            filter: filter.to_owned(),
            policy: Policy { slow_consumer, ..Policy::default() },
            ..Rule::default()
        };
        Rules::new(list.iter().map(rule).collect(), Keys::from_seed(1)).unwrap()
    }

    #[test]
    fn a_filter_has_what_all_rules_of_its_topics_say() {
        use SlowConsumer::{Disconnect, Skip};
        let rules = rules(&[("a/#", Skip), ("a/b/+", Skip), ("c/+", Skip), ("c/d", Disconnect)]);
        for (filter, expected) in [
            ("a/b", Skip),
            ("a/#", Skip),
            ("a/+/+", Skip),
            ("+/b", Disconnect),
            ("#", Disconnect),
            ("c/x", Skip),
            ("c/d", Disconnect),
            ("c/+", Disconnect),
            ("c/#", Disconnect),
            ("d/#", Disconnect),
            ("$sys/#", Disconnect),
        ] {
            assert_eq!(rules.policy_of(filter).slow_consumer, expected, "{filter}");
        }
    }

    #[test]
    fn bounds_that_differ_are_nobodys() {
        let second = Throttle::at_least(Duration::from_secs(1));
        let rule = |filter: &str, bytes, throttle| Rule {
            filter: filter.to_owned(),
            policy: Policy { slow_consumer: SlowConsumer::Skip, lag_bytes_max: Some(bytes), throttle },
            ..Rule::default()
        };
        let rules =
            Rules::new(vec![rule("a/#", 1, second), rule("a/b", 2, Throttle::NONE)], Keys::from_seed(1)).unwrap();
        assert_eq!(rules.policy_of("a/b").lag_bytes_max, Some(2));
        let both = Policy { slow_consumer: SlowConsumer::Skip, ..Policy::default() };
        assert_eq!(rules.policy_of("a/+"), both);
        let one = Policy { slow_consumer: SlowConsumer::Skip, lag_bytes_max: Some(1), throttle: second };
        assert_eq!(rules.policy_of("a/c/#"), one);
    }

    /// A few levels of these, and perhaps `#`.
    fn levels(of: &'static [&'static str], hash: bool) -> impl Strategy<Value = String> {
        let levels = prop::collection::vec(prop::sample::select(of), 1..4);
        (levels, any::<bool>()).prop_map(move |(mut levels, ends)| {
            levels.extend((hash && ends).then_some("#"));
            levels.join("/")
        })
    }

    proptest! {
        /// A filter that is contained matches nothing that the other one does not.
        #[test]
        fn what_contains_a_filter_matches_its_topics(
            outer in levels(&["a", "b", "+"], true),
            inner in levels(&["a", "b", "+"], true),
            topics in prop::collection::vec(levels(&["a", "b", "c"], false), 64),
        ) {
            for topic in topics.iter().filter(|topic| matches(&inner, topic)) {
                prop_assert!(!contains(&outer, &inner) || matches(&outer, topic), "{} in {}: {}", inner, outer, topic);
            }
            prop_assert!(contains(&outer, &outer));
        }
    }
}
