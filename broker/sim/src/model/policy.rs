//! Which policy a topic or filter has, by the rules of a run, and what filters match: written down a second time on purpose.

use super::{Model, StreamId};
use crate::rules::{Policy, Slow};

impl Model {
    /// The same with rules for filters.
    #[must_use]
    pub fn with_filters(mut self, filters: Vec<(String, Policy)>) -> Self {
        self.past.filters = filters;
        self
    }

    /// How a subscription that a client asked for is sent what it has.
    #[must_use]
    pub fn policy_asked(&self, stream: StreamId, filter: &str) -> Option<Policy> {
        self.streams[stream].policy_of(filter)
    }

    /// How subscribers of a topic or filter are sent what it has. A filter has what all rules say of which it may match
    /// topics, the default among them where it may match topics without a rule.
    #[must_use]
    pub fn policy_of(&self, filter: &str) -> Policy {
        let own = self.topics.iter().position(|topic| topic == filter);
        if let (Some(topic), false) = (own, filter.contains(['+', '#'])) {
            return self.rule(topic).policy;
        }
        if !filter.contains(['+', '#']) {
            let mut rules = self.past.filters.iter().filter(|(rule, _)| matches(rule, filter));
            return rules.next().map_or(Policy::default(), |&(_, policy)| policy);
        }
        let topics = self.topics.iter().enumerate().map(|(index, topic)| (topic.as_str(), self.rule(index).policy));
        let filters = self.past.filters.iter().map(|(rule, policy)| (rule.as_str(), *policy));
        let rules: Vec<_> = topics.chain(filters).filter(|(rule, _)| overlap(&levels(rule), &levels(filter))).collect();
        let is_covered = rules.iter().any(|(rule, _)| contains(rule, filter));
        let mut all = rules.iter().map(|&(_, policy)| policy).chain((!is_covered).then(Policy::default));
        let Some(first) = all.next() else { return Policy::default() };
        let others: Vec<_> = all.collect();
        let agree = |same: fn(&Policy, &Policy) -> bool| others.iter().all(|other| same(&first, other));
        let lag_bytes_max =
            first.lag_bytes_max.filter(|_| agree(|one, other| one.lag_bytes_max == other.lag_bytes_max));
        Policy {
            slow: if agree(|one, other| one.slow == other.slow) { first.slow } else { Slow::Disconnect },
            lag_bytes_max,
            throttle_ms: if agree(|one, other| one.throttle_ms == other.throttle_ms) { first.throttle_ms } else { 0 },
        }
    }
}

fn levels(filter: &str) -> Vec<&str> {
    filter.split('/').collect()
}

/// Whether there may be a topic that both match.
fn overlap(one: &[&str], other: &[&str]) -> bool {
    match (one, other) {
        (["#"], _) | (_, ["#"]) | ([], []) => true,
        ([a, one @ ..], [b, other @ ..]) if a == b || *a == "+" || *b == "+" => overlap(one, other),
        _ => false,
    }
}

/// Whether `outer` matches whatever `inner` does.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    fn by_level(outer: &[&str], inner: &[&str]) -> bool {
        match (outer, inner) {
            (["#"], _) | ([], []) => true,
            (_, ["#"]) => false,
            ([out, outer @ ..], [level, inner @ ..]) if out == level || *out == "+" => by_level(outer, inner),
            _ => false,
        }
    }
    by_level(&levels(outer), &levels(inner))
}

/// Whether `filter` matches `topic`: level by level, written down a second time on purpose.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    fn agree(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([level, filter @ ..], [name, topic @ ..]) if *level == "+" || level == name => agree(filter, topic),
            _ => false,
        }
    }
    agree(&levels(filter), &levels(topic))
}
