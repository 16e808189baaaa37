//! Topic rules: what a topic remembers, for how long, and what becomes of its slow subscribers.
//!
//! A rule is a `[[topic]]` table of the configuration file. Exactly one applies to a topic; what it leaves out has its
//! default. Rules do not inherit from each other. Not responsible for reading the file (`config`), nor for keeping
//! messages (`sequencer`).
//!
//! Which one: of the rules whose filter matches the topic, the greatest in the order of [`compare`]. It is a total
//! order of filters, so neither the order in the file nor that in which [`Filters`] finds them matters. Where none
//! matches, the default rule applies; to the broker's own topics, rules that are built in.
//!
//! Cost: [`Rules::rule_of`] is one search in [`Filters`] and a comparison for each match: once per topic, not per
//! message. A shard asks [`SharedRules::version`] before it uses what it looked up: one relaxed load.
//! Units: bytes, and [`Duration`]s; a duration of zero is no limit.

mod policy;
mod throttle;

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering as Memory};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use crate::config::topics::{HistoryKind, Presence, PresenceInfo};
use crate::config::topics::{RetainKind, TopicTable};
use crate::topics::filters::Filters;
use crate::topics::keys::Keys;
pub use crate::topics::rules::policy::{Policy, SlowConsumer};
pub use crate::topics::rules::throttle::Throttle;

/// The broker's own topics that have rules of their own. No filter matches those for operators.
const BUILT_IN: [&str; 7] =
    ["$sys/#", "$sys/load", "$sys/topics", "$sys/closed", "$presence/#", "$count/#", "$lease/#"];

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The topics that it may apply to; empty for the default rule.
    pub filter: String,
    /// What is remembered besides the retained message.
    pub history: History,
    /// Messages of a window, or keys without an update, older than this are forgotten; zero: none is.
    pub history_ttl: Duration,
    /// Which message is retained.
    pub retain: Retain,
    /// Whether the broker writes the time of publication into each message.
    pub stamps_time: bool,
    /// What becomes of subscribers that are far behind.
    pub policy: Policy,
    /// Whether clients can enter, and how.
    pub presence: Option<Presence>,
    /// Whether only who has the lease may publish.
    pub is_exclusive: bool,
}

/// What a topic remembers besides its retained message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum History {
    /// Nothing.
    None,
    /// The newest messages: no more than so many, and no more than so many bytes.
    Window {
        /// At least 1.
        messages_max: u32,
        /// Of payloads with their overhead.
        bytes_max: u64,
    },
    /// The newest message of each key. A new key beyond these bounds is refused.
    Keyed {
        /// At least 1.
        keys_max: u32,
        /// Of payloads with their overhead.
        bytes_max: u64,
        /// How long a removed key is remembered, for recovery.
        tombstone_ttl: Duration,
    },
}

impl History {
    /// Its kind.
    #[must_use]
    pub const fn kind(self) -> HistoryKind {
        match self {
            Self::None => HistoryKind::None,
            Self::Window { .. } => HistoryKind::Window,
            Self::Keyed { .. } => HistoryKind::Keyed,
        }
    }
}

impl Rule {
    /// A rule with this kind of history and defaults otherwise.
    #[must_use]
    pub fn of_kind(kind: HistoryKind) -> Self {
        let default = Self::default();
        match kind {
            HistoryKind::None => Self { history: History::None, ..default },
            HistoryKind::Window => default,
            HistoryKind::Keyed => Self {
                history: History::Keyed {
                    keys_max: 10_000,
                    bytes_max: 4 << 20,
                    tombstone_ttl: Duration::from_secs(600),
                },
                history_ttl: Duration::ZERO,
                ..default
            },
        }
    }
}

/// Which message of a topic is retained: shown to every newcomer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retain {
    /// The newest that was published with `retain`.
    Flag,
    /// The newest.
    Always,
    /// None; publishing with `retain` is refused.
    Never,
}

impl Default for Rule {
    /// The rule of a topic that no table matches.
    fn default() -> Self {
        Self {
            filter: String::new(),
            history: History::Window { messages_max: 256, bytes_max: 256 << 10 },
            history_ttl: Duration::from_secs(120),
            retain: Retain::Flag,
            stamps_time: false,
            policy: Policy::default(),
            presence: None,
            is_exclusive: false,
        }
    }
}

impl From<&TopicTable> for Rule {
    fn from(table: &TopicTable) -> Self {
        let (bytes_max, tombstone_ttl) = (table.bytes_max, table.tombstone_ttl);
        Self {
            filter: table.filter.clone(),
            history: match table.history {
                HistoryKind::None => History::None,
                HistoryKind::Window => History::Window { messages_max: table.messages_max, bytes_max },
                HistoryKind::Keyed => History::Keyed { keys_max: table.messages_max, bytes_max, tombstone_ttl },
            },
            history_ttl: table.history_ttl,
            retain: match table.retain {
                RetainKind::Flag => Retain::Flag,
                RetainKind::Always => Retain::Always,
                RetainKind::Never => Retain::Never,
            },
            stamps_time: table.stamps_time,
            policy: Policy {
                slow_consumer: table.slow_consumer,
                lag_bytes_max: table.lag_bytes_max,
                throttle: Throttle::at_least(table.throttle),
            },
            presence: table.presence,
            is_exclusive: table.is_exclusive,
        }
    }
}

/// A rule among the [`Rules`] that gave it. Others may have another rule under it, or none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RuleId(u16);

impl RuleId {
    /// The rule of topics that no filter matches.
    pub const DEFAULT: Self = Self(0);

    /// Whether it is a rule for the broker's own topics that no table gave, or one that took its place.
    #[must_use]
    pub const fn is_built_in(self) -> bool {
        1 <= self.0 && self.0 as usize <= BUILT_IN.len()
    }
}

/// What a topic's rule has the broker keep of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The version of the rules, or the one before.
    pub version: u64,
    /// Besides the retained message.
    pub history: HistoryKind,
    /// Which message is retained.
    pub retain: Retain,
    /// See [`Rule`].
    pub is_exclusive: bool,
}

impl Kept {
    /// Of a filter with wildcards, which nobody publishes to.
    pub const NOTHING: Self =
        Self { version: 0, history: HistoryKind::None, retain: Retain::Never, is_exclusive: false };
}

/// Why there are no [`Rules`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RulesError {
    /// Two rules have this filter.
    Twice(String),
    /// More rules than [`RULES_MAX`].
    TooMany,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(filter) => write!(f, "two topic rules have the filter '{filter}'"),
            Self::TooMany => write!(f, "there are more than {RULES_MAX} topic rules"),
        }
    }
}

impl std::error::Error for RulesError {}

/// Most rules that are not built in.
pub const RULES_MAX: usize = u16::MAX as usize - 1;

/// All rules of a broker.
#[derive(Debug)]
pub struct Rules {
    /// The default rule, those of [`BUILT_IN`], then all others.
    rules: Vec<Rule>,
    filters: Filters<RuleId>,
}

impl Default for Rules {
    /// Those of a broker without `[[topic]]` tables.
    fn default() -> Self {
        Self::new(Vec::new(), Keys::from_seed(0)).expect("no two filters are equal")
    }
}

impl Rules {
    /// These rules, and those that are built in where they have no other. Filters, already checked, are hashed under `keys`.
    ///
    /// # Errors
    /// Two filters are equal, or there are too many.
    pub fn new(rules: Vec<Rule>, keys: Keys) -> Result<Self, RulesError> {
        if rules.len() > RULES_MAX {
            return Err(RulesError::TooMany);
        }
        let (mut own, others): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| BUILT_IN.contains(&&*rule.filter));
        let built_in = BUILT_IN.map(|filter| {
            let table = own.iter().position(|rule| rule.filter == filter).map(|at| own.swap_remove(at));
            table.unwrap_or_else(|| Rule::from(&TopicTable::built_in(filter)))
        });
        if let Some(twice) = own.pop() {
            return Err(RulesError::Twice(twice.filter));
        }
        let all: Vec<_> = [Rule::default()].into_iter().chain(built_in).chain(others).collect();
        let mut filters = Filters::new(keys);
        for (id, rule) in all.iter().enumerate().skip(1) {
            if filters.get(&rule.filter).is_some() {
                return Err(RulesError::Twice(rule.filter.clone()));
            }
            filters.insert(rule.filter.as_str().into(), RuleId(id as u16));
        }
        Ok(Self { rules: all, filters })
    }

    /// The rule that applies to a topic.
    #[must_use]
    pub fn rule_of(&self, topic: &str) -> RuleId {
        let mut best = RuleId::DEFAULT;
        self.filters.each_match(topic, |id| {
            if best == RuleId::DEFAULT || compare(&self.get(*id).filter, &self.get(best).filter).is_gt() {
                best = *id;
            }
        });
        best
    }

    /// All rules whose filters match a topic, the one that applies first.
    #[must_use]
    pub fn matching(&self, topic: &str) -> Vec<RuleId> {
        let mut found = Vec::new();
        self.filters.each_match(topic, |id| found.push(*id));
        found.sort_by(|a, b| compare(&self.get(*b).filter, &self.get(*a).filter));
        found
    }

    /// One rule.
    ///
    /// # Panics
    /// If other rules, of which there are more, gave the id.
    #[must_use]
    pub fn get(&self, id: RuleId) -> &Rule {
        &self.rules[usize::from(id.0)]
    }

    /// Filters, of these rules or of `new`, to whose topics `new` gives another kind of history. Sorted. Where one of
    /// the two has not that very filter, the rule counts that would apply to a topic that is spelt like it.
    #[must_use]
    pub fn history_changes<'a>(&'a self, new: &'a Self) -> Vec<&'a str> {
        let kind = |rules: &'a Self, filter: &str| {
            let id = rules.filters.get(filter).copied().unwrap_or_else(|| rules.rule_of(filter));
            rules.get(id).history.kind()
        };
        let both = self.rules.iter().chain(&new.rules).map(|rule| rule.filter.as_str());
        let mut changed: Vec<_> =
            both.filter(|filter| !filter.is_empty() && kind(self, filter) != kind(new, filter)).collect();
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

/// A level of a filter, or its end, in the order in which they win.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level<'a> {
    Hash,
    Plus,
    Literal(&'a str),
    End,
}

fn levels(filter: &str) -> impl Iterator<Item = Level<'_>> {
    let levels = filter.split('/').map(|level| match level {
        "#" => Level::Hash,
        "+" => Level::Plus,
        text => Level::Literal(text),
    });
    levels.chain([Level::End])
}

/// Compares two filters level by level from the left; the greater one wins. A literal beats `+`, `+` beats `#`, and the
/// end of a filter beats `#`. The rest of the order, which decides between filters that match no topic both, is that of
/// the text. Only equal filters are equal.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    levels(a).cmp(levels(b))
}

/// The first level, from 1, at which two filters differ, with what each has there; `None` is the end of a filter.
#[must_use]
pub fn first_difference<'a>(a: &'a str, b: &'a str) -> Option<(usize, [Option<&'a str>; 2])> {
    let levels = |filter: &'a str| filter.split('/').map(Some).chain([None]);
    let mut pairs = levels(a).zip(levels(b)).zip(1..);
    pairs.find(|((a, b), _)| a != b).map(|((a, b), level)| (level, [a, b]))
}

/// The rules of a running broker: one set for all threads, which can be replaced.
///
/// A shard keeps the [`Arc`] with the version that it read *before* it took it, and takes it again once
/// [`SharedRules::version`] is another.
#[derive(Debug, Default)]
pub struct SharedRules {
    current: Mutex<Arc<Rules>>,
    /// Changes with `current`, under its lock: so a reader that sees a new version finds the new rules behind the lock.
    version: AtomicU64,
}

impl SharedRules {
    /// Shares these.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { current: Mutex::new(Arc::new(rules)), version: AtomicU64::new(0) }
    }

    /// The rules in force.
    #[must_use]
    pub fn current(&self) -> Arc<Rules> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What kind of history a topic gets that is registered now.
    #[must_use]
    pub fn history_of(&self, topic: &str) -> HistoryKind {
        self.kept_of(topic).history
    }

    /// What the rule of a topic has the broker keep of it.
    #[must_use]
    pub fn kept_of(&self, topic: &str) -> Kept {
        let (version, rules) = (self.version(), self.current());
        let &Rule { history, retain, is_exclusive, .. } = rules.get(rules.rule_of(topic));
        Kept { version, history: history.kind(), retain, is_exclusive }
    }

    /// How often they were replaced.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Memory::Relaxed)
    }

    /// Puts others in force.
    pub fn replace(&self, rules: Rules) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(rules);
        self.version.fetch_add(1, Memory::Relaxed);
    }
}

#[cfg(test)]
impl SharedRules {
    /// One rule for every topic.
    pub(crate) fn only(rule: Rule) -> Arc<Self> {
        let rule = Rule { filter: "#".to_owned(), ..rule };
        Arc::new(Self::new(Rules::new(vec![rule], Keys::from_seed(1)).expect("one filter")))
    }
}

#[cfg(test)]
mod tests;
