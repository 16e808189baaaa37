//! Topic rules: what a topic remembers, and for how long.
//!
//! A rule is a `[[topic]]` table of the configuration file. Exactly one applies to a topic; what it leaves out has its
//! default. Rules do not inherit from each other. Not responsible for reading the file (`config`), nor for keeping
//! messages (`sequencer`).
//!
//! Units: bytes, and [`Duration`]s; a duration of zero is no limit.

use std::sync::Arc;
use std::time::Duration;

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The topics that it may apply to; empty for the rules that are built in.
    pub filter: String,
    /// What is remembered besides the retained message.
    pub history: History,
    /// Messages of a window, or keys without an update, older than this are forgotten; zero: none is.
    pub history_ttl: Duration,
    /// Which message is retained.
    pub retain: Retain,
    /// Whether the broker writes the time of publication into each message.
    pub stamps_time: bool,
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

/// The kind of a [`History`], which a topic keeps for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryKind {
    /// See [`History::None`].
    None,
    /// See [`History::Window`].
    Window,
    /// See [`History::Keyed`].
    Keyed,
}

impl HistoryKind {
    /// All there are: `ALL[i] as usize == i`.
    pub const ALL: [Self; 3] = [Self::None, Self::Window, Self::Keyed];

    /// Its name in the protocol, unless it is none.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Window => Some("window"),
            Self::Keyed => Some("keyed"),
        }
    }
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
        }
    }
}

/// A rule among [`Rules`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RuleId(u16);

/// All rules of a broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { rules: vec![Rule::default()] }
    }
}

impl Rules {
    /// The rule that applies to a topic.
    #[must_use]
    pub fn rule_of(&self, _topic: &str) -> RuleId {
        RuleId(0)
    }

    /// One rule.
    #[must_use]
    pub fn get(&self, id: RuleId) -> &Rule {
        &self.rules[usize::from(id.0)]
    }
}

/// The rules of a broker, which may be replaced while it runs.
#[derive(Default, Debug)]
pub struct SharedRules {
    rules: Arc<Rules>,
}

impl SharedRules {
    /// Those that hold now.
    #[must_use]
    pub fn current(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// What kind of history a topic gets that is registered now.
    #[must_use]
    pub fn history_of(&self, topic: &str) -> HistoryKind {
        let rules = self.current();
        rules.get(rules.rule_of(topic)).history.kind()
    }

    /// How often they were replaced.
    #[must_use]
    pub fn version(&self) -> u64 {
        0
    }
}

#[cfg(test)]
impl SharedRules {
    /// One rule for every topic.
    pub(crate) fn only(rule: Rule) -> Arc<Self> {
        Arc::new(Self { rules: Arc::new(Rules { rules: vec![rule] }) })
    }
}
