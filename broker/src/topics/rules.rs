//! Topic rules: what a topic remembers, and for how long.
//!
//! A rule is a `[[topic]]` table of the configuration file. Exactly one applies to a topic; what it leaves out has its
//! default. Rules do not inherit from each other. Not responsible for reading the file (`config`), nor for keeping
//! messages (`sequencer`).
//!
//! Units: bytes, and [`Duration`]s; a duration of zero is no limit.

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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
