//! The rules of topics as a sequencer knows them.
//!
//! Cost: a comparison per message; a search when the rules were replaced, or a topic is new.

use std::sync::Arc;

use crate::sequencer::topic::Topic;
use crate::topics::rules::{HistoryKind, Rule, Rules, SharedRules};

/// The rules, as of the beginning of a turn.
#[derive(Debug)]
pub(super) struct KnownRules {
    shared: Arc<SharedRules>,
    current: Arc<Rules>,
    version: u32,
    /// For topics that began under a rule with another kind of history, one of each kind.
    of_kind: [Rule; HistoryKind::ALL.len()],
}

impl KnownRules {
    pub(super) fn new(shared: &Arc<SharedRules>) -> Self {
        let of_kind = HistoryKind::ALL.map(Rule::of_kind);
        // The version first: see [`SharedRules`].
        let version = version_of(shared);
        Self { shared: Arc::clone(shared), current: shared.current(), version, of_kind }
    }

    /// A turn begins.
    pub(super) fn refresh(&mut self) {
        let version = version_of(&self.shared);
        if version != self.version {
            (self.current, self.version) = (self.shared.current(), version);
        }
    }

    /// The rule of a topic. What kind of history a topic has was decided when it began.
    pub(super) fn of(&self, held: &mut Topic) -> &Rule {
        if held.rule_version != self.version {
            held.rule = self.current.rule_of(&held.topic.name);
            held.rule_version = self.version;
        }
        let rule = self.current.get(held.rule);
        if rule.history.kind() == held.topic.history { rule } else { &self.of_kind[held.topic.history as usize] }
    }
}

/// 0 stands for a topic whose rule was not looked up yet.
fn version_of(rules: &SharedRules) -> u32 {
    (rules.version() as u32).wrapping_add(1).max(1)
}
