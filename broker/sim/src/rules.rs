//! Topic rules of a run: what the broker is configured with, and what the model expects of it.

use std::time::Duration;

use broker::topics::rules::{History, Retain, Rule};
use ring::Random;

use crate::model::Options;

/// A rule, as far as the model minds. Durations in nanoseconds; 0: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicRule {
    /// What is remembered.
    pub history: History,
    /// Which message is retained.
    pub retain: Retain,
    /// How long messages of a window, or keys without an update, are remembered.
    pub ttl: u64,
}

impl Default for TopicRule {
    fn default() -> Self {
        Self::of(&Rule::default())
    }
}

impl TopicRule {
    fn of(rule: &Rule) -> Self {
        Self { history: rule.history, retain: rule.retain, ttl: rule.history_ttl.as_nanos() as u64 }
    }

    /// The table of the configuration for one topic.
    #[must_use]
    pub fn table(&self, topic: &str) -> Rule {
        let history_ttl = Duration::from_nanos(self.ttl);
        Rule { filter: topic.to_owned(), history: self.history, history_ttl, retain: self.retain, ..Rule::default() }
    }

    pub(crate) fn is_keyed(&self) -> bool {
        matches!(self.history, History::Keyed { .. })
    }

    pub(crate) fn is_window(&self) -> bool {
        matches!(self.history, History::Window { .. })
    }

    pub(crate) fn is_none(&self) -> bool {
        self.history == History::None
    }

    pub(crate) fn retains_always(&self) -> bool {
        self.retain == Retain::Always
    }

    /// Whether a publish without options may be refused.
    pub(crate) fn may_refuse(&self) -> bool {
        self.is_keyed() || self.retains_always()
    }

    /// Whether the rule does not provide for what a publish asks for.
    pub(crate) fn refuses(&self, options: &Options) -> bool {
        (options.retain && self.retain == Retain::Never) || (options.removed && !self.is_keyed() && !options.retain)
    }

    /// How long a removal is remembered.
    pub(crate) fn tombstone_ttl(&self) -> u64 {
        match self.history {
            History::Keyed { tombstone_ttl, .. } => tombstone_ttl.as_nanos() as u64,
            _ => 0,
        }
    }

    /// How many messages are remembered for certain, if memory is not short.
    pub(crate) fn window(&self) -> Option<(u64, u64)> {
        match self.history {
            History::Window { messages_max, bytes_max } => Some((u64::from(messages_max), bytes_max)),
            _ => None,
        }
    }
}

/// One rule per topic. Drawn from a generator of its own, which shifts nothing else.
pub(crate) fn draw(topics: usize, seed: u64) -> Vec<TopicRule> {
    let mut rng = Random::new(seed ^ 0x0072_756c_6573);
    if rng.one_in(4) {
        return vec![TopicRule::default(); topics];
    }
    (0..topics).map(|_| one(&mut rng)).collect()
}

fn one(rng: &mut Random) -> TopicRule {
    let seconds = |seconds: usize| seconds as u64 * 1_000_000_000;
    let window = |messages_max, bytes_max| History::Window { messages_max, bytes_max };
    let keyed = |keys_max, bytes_max, tombstone| History::Keyed {
        keys_max,
        bytes_max,
        tombstone_ttl: Duration::from_millis(tombstone),
    };
    let default = TopicRule::default();
    let retain = rng.pick(&[Retain::Flag, Retain::Flag, Retain::Flag, Retain::Always, Retain::Never]);
    let (history, ttl, retain) = match rng.below(12) {
        0 | 1 => (History::None, default.ttl, retain),
        2 | 3 => (window(rng.range(1, 8) as u32, rng.pick(&[2 << 10, 1 << 20])), default.ttl, retain),
        4 | 5 => (window(100_000, 4 << 20), seconds(rng.pick(&[1, 2, 10])), retain),
        6..=8 => (keyed(rng.range(2, 5) as u32, 1 << 20, rng.pick(&[50, 500, 600_000])), 0, Retain::Never),
        9 => (keyed(100, rng.pick(&[2 << 10, 1 << 20]), 2000), seconds(rng.range(1, 5)), Retain::Never),
        10 => (window(100_000, 4 << 20), 0, retain),
        _ => (default.history, default.ttl, retain),
    };
    TopicRule { history, retain, ttl }
}
