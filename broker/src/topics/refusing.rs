//! Whether a topic's sequencer may refuse a publish without options, remembered with the version of the rules that say so.
//!
//! That is where every message becomes part of a bounded state: in keyed topics, and where the newest message is always
//! retained; and in exclusive topics. Not responsible for refusing (`sequencer::history`). Cost of an answer: two loads, and a look-up when the rules
//! have changed since the last one.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::topics::rules::{HistoryKind, Kept, Retain, SharedRules};

/// The version, doubled, and one more if publishes may be refused. Nobody replaces rules two billion times, after which a
/// version would come again.
#[derive(Debug)]
pub(super) struct Refusing(AtomicU32);

impl Refusing {
    /// For a topic that begins with this.
    pub(super) fn new(kept: Kept) -> Self {
        Self(AtomicU32::new(encode(kept.history, kept)))
    }

    /// Whether publishes to `topic`, which has this kind of history, may be refused by the rules in force.
    pub(super) fn holds(&self, topic: &str, history: HistoryKind, rules: &SharedRules) -> bool {
        let mut known = self.0.load(Ordering::Relaxed);
        if known >> 1 != (rules.version() as u32) & (u32::MAX >> 1) {
            known = encode(history, rules.kept_of(topic));
            self.0.store(known, Ordering::Relaxed);
        }
        known & 1 == 1
    }
}

/// A rule only applies to topics with its kind of history (`KnownRules` of the sequencer).
fn encode(history: HistoryKind, Kept { version, history: kind, retain, is_exclusive }: Kept) -> u32 {
    let refuses = history == HistoryKind::Keyed || (history == kind && (retain == Retain::Always || is_exclusive));
    (version as u32) << 1 | u32::from(refuses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::keys::Keys;
    use crate::topics::registry::Registry;
    use crate::topics::rules::{Rule, Rules};

    fn rules(rules: &[(&str, HistoryKind, Retain)]) -> Rules {
        let rule = |&(filter, kind, retain): &(&str, HistoryKind, Retain)| {
            let filter = filter.to_owned();
            Rule { filter, retain, ..Rule::of_kind(kind) }
        };
        Rules::new(rules.iter().map(rule).collect(), Keys::from_seed(1)).expect("different filters")
    }

    #[test]
    fn publishes_may_be_refused_where_state_is_bounded_and_as_the_rules_stand() {
        use HistoryKind::{Keyed, None, Window};
        let first = [
            ("game", Keyed, Retain::Flag),
            ("status", Window, Retain::Always),
            ("log", Window, Retain::Flag),
            ("live", None, Retain::Always),
        ];
        let registry = Registry::new(1, 1).ruled_by(SharedRules::new(rules(&first)).into());
        let topics = ["game", "status", "log", "live", "other"].map(|name| registry.resolve(name));
        let refuses = || topics.each_ref().map(|topic| topic.may_refuse(registry.rules()));
        assert_eq!(refuses(), [true, true, false, true, false]);
        // A topic keeps the kind of history that it began with, and rules of another kind do not apply to it.
        let second = [
            ("game", Window, Retain::Flag),
            ("status", Window, Retain::Flag),
            ("log", Window, Retain::Always),
            ("live", Keyed, Retain::Always),
            ("other", Keyed, Retain::Flag),
        ];
        registry.rules().replace(rules(&second));
        assert_eq!(refuses(), [true, false, true, false, false]);
        assert_eq!(refuses(), [true, false, true, false, false]);
    }
}
