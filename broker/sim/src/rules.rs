//! Topic rules of a run: what the broker is configured with, and what the model expects of it.

use std::time::Duration;

use broker::topics::rules::{self, History, Retain, Rule, Throttle};
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
    /// How its subscribers are sent what it has.
    pub policy: Policy,
    /// Whether only who has the lease may publish.
    pub exclusive: bool,
}

/// What becomes of a subscriber that is far behind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Slow {
    /// It is closed.
    #[default]
    Disconnect,
    /// It goes on with newer messages, and is notified which were left out.
    Skip,
    /// Of what waits for it, it gets the newest message of each key.
    Latest,
}

/// How subscribers of a topic or filter are sent what it has.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Policy {
    /// If they are slow.
    pub slow: Slow,
    /// How many bytes they may be behind, if the rule says so.
    pub lag_bytes_max: Option<u64>,
    /// The least time between two deliveries, in milliseconds; 0: none.
    pub throttle_ms: u64,
}

/// The times that there are.
const THROTTLES_MS: [u64; 8] = [0, 20, 50, 100, 250, 500, 1000, 5000];

impl Policy {
    /// As the broker is configured with it.
    fn table(self) -> rules::Policy {
        let slow_consumer = match self.slow {
            Slow::Disconnect => rules::SlowConsumer::Disconnect,
            Slow::Skip => rules::SlowConsumer::Skip,
            Slow::Latest => rules::SlowConsumer::Latest,
        };
        let throttle = Throttle::at_least(Duration::from_millis(self.throttle_ms));
        rules::Policy { slow_consumer, lag_bytes_max: self.lag_bytes_max, throttle }
    }

    /// The same for a subscription that asks for a throttle: the longer of the two.
    #[must_use]
    pub fn throttled(self, asked_ms: u64) -> Self {
        let given = THROTTLES_MS.into_iter().find(|given| *given >= asked_ms).expect("5 s is the longest");
        Self { throttle_ms: self.throttle_ms.max(given), ..self }
    }

    /// The rule of a filter, which says nothing but this.
    #[must_use]
    pub fn rule(self, filter: &str) -> Rule {
        Rule { filter: filter.to_owned(), policy: self.table(), ..Rule::default() }
    }
}

impl Default for TopicRule {
    fn default() -> Self {
        Self::of(&Rule::default())
    }
}

impl TopicRule {
    fn of(rule: &Rule) -> Self {
        let (history, retain, policy) = (rule.history, rule.retain, Policy::default());
        Self { history, retain, ttl: rule.history_ttl.as_nanos() as u64, policy, exclusive: rule.is_exclusive }
    }

    /// The table of the configuration for one topic.
    #[must_use]
    pub fn table(&self, topic: &str) -> Rule {
        let history_ttl = Duration::from_nanos(self.ttl);
        Rule {
            history: self.history,
            history_ttl,
            retain: self.retain,
            is_exclusive: self.exclusive,
            ..self.policy.rule(topic)
        }
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
        self.is_keyed() || self.retains_always() || self.exclusive
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
    TopicRule { history, retain, ttl, ..default }
}

/// Policies for topics and, where filters are to have one, rules for those. `steady`: so that deliveries can be timed.
pub(crate) fn with_policies(
    topics: &[String],
    rules: &mut [TopicRule],
    steady: bool,
    rng: &mut Random,
) -> Vec<(String, Policy)> {
    let spread = rng.below(4);
    let (all, some) = (policy(steady, rng), policy(steady, rng));
    for (topic, rule) in topics.iter().zip(rules) {
        rule.policy = match spread {
            // Each its own: filters agree on nothing but by chance.
            0 => policy(steady, rng),
            1 | 2 => all,
            _ if topic.starts_with("a/") => some,
            _ => all,
        };
    }
    let filters: &[(&str, Policy)] = match spread {
        0 => &[("a/#", some), ("x/+", all)],
        1 => &[("#", all)],
        2 => &[("#", all), ("a/+/+", all)],
        _ => &[("a/#", some), ("+", all), ("b/#", all)],
    };
    filters.iter().map(|&(filter, policy)| (filter.to_owned(), policy)).collect()
}

fn policy(steady: bool, rng: &mut Random) -> Policy {
    let slow = rng.pick(&[Slow::Disconnect, Slow::Skip, Slow::Latest, Slow::Latest]);
    let short = !steady && rng.one_in(2);
    let lag_bytes_max = if short { Some(rng.pick(&[4 << 10, 6 << 10, 32 << 10])) } else { None };
    let throttle_ms =
        if steady { rng.pick(&[0, 100, 250, 500, 1000]) } else { rng.pick(&[0, 0, 0, 20, 50, 100, 250, 1000, 5000]) };
    Policy { slow, lag_bytes_max, throttle_ms }
}
