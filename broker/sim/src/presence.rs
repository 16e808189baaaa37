//! Sessions and presence of a run: with what the broker is configured, in a share of the seeds.

use std::time::Duration;

use broker::config::auth::{AccessTables, AllowTable, AuthTable, GrantLists, Located, Who};
use broker::config::limits::Limits;
use broker::topics::rules::{self, History, PresenceInfo, Retain, Rule, SlowConsumer, Throttle};
use ring::Random;

use crate::access::SecretFile;

/// How the names of topics begin that say who is present, and how many are.
pub(crate) const PRESENCE: &str = "$presence/";
pub(crate) const COUNT: &str = "$count/";
/// Counts are said again after so long at the latest, in milliseconds; deliveries of presence wait for 250.
pub(crate) const WAITS_MS: u64 = 1_500;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Presence {
    /// The topics that can be entered, and how many members each lists.
    pub topics: Vec<(usize, u32)>,
    /// How long sessions wait for their clients.
    pub grace: Duration,
    /// How many sessions can be resumed; `None`: as many as there are.
    pub sessions_max: Option<usize>,
    /// The least time between two deliveries of who is present, in milliseconds.
    pub throttle_ms: u64,
    /// Whether some clients have tokens of users: then several are one member.
    pub has_users: bool,
}

impl Presence {
    /// Of a run with so many topics, from a generator of its own.
    pub(crate) fn draw(rng: &mut Random, topics: usize, may_have_users: bool) -> Self {
        let count = rng.range(1, topics.min(2));
        let first = rng.below(topics - count + 1);
        let topics = (first..first + count).map(|topic| (topic, rng.pick(&[1, 2, 4, 1000, 1000, 1000]))).collect();
        Self {
            topics,
            grace: Duration::from_millis(rng.pick(&[0, 40, 400, 2_000, 15_000])),
            sessions_max: rng.one_in(3).then(|| rng.range(0, 4)),
            throttle_ms: rng.pick(&[0, 0, 250]),
            has_users: may_have_users && rng.one_in(2),
        }
    }

    /// The limits with those of sessions.
    pub(crate) fn limits(&self, limits: Limits) -> Limits {
        Limits { session_grace: self.grace, sessions_max: self.sessions_max, ..limits }
    }

    /// How many members a topic lists, if it can be entered.
    #[must_use]
    pub fn members_max(&self, topic: usize) -> Option<u32> {
        self.topics.iter().find(|(index, _)| *index == topic).map(|(_, members_max)| *members_max)
    }

    /// A topic's rule with what it says of presence.
    pub(crate) fn rule(&self, topic: usize, rule: Rule) -> Rule {
        let presence =
            self.members_max(topic).map(|members_max| rules::Presence { members_max, info: PresenceInfo::Client });
        Rule { presence, ..rule }
    }

    /// The rule of the topics that say who is present: the built-in one but for its throttle.
    pub(crate) fn watching(&self) -> Rule {
        let tombstone_ttl = Duration::from_secs(600);
        Rule {
            filter: format!("{PRESENCE}#"),
            history: History::Keyed { keys_max: 1_000_000, bytes_max: 1 << 40, tombstone_ttl },
            history_ttl: Duration::ZERO,
            retain: Retain::Never,
            policy: rules::Policy {
                slow_consumer: SlowConsumer::Latest,
                lag_bytes_max: None,
                throttle: Throttle::at_least(Duration::from_millis(self.throttle_ms)),
            },
            ..Rule::default()
        }
    }

    /// Tables that grant everything to everybody: tokens only say who somebody is.
    pub(crate) fn tables(secret: &SecretFile) -> AccessTables {
        let source = || "run.toml:1".to_owned();
        let all = || vec!["#".to_owned()];
        let row = |principal| AllowTable {
            source: source(),
            principal,
            grants: GrantLists {
                subscribe: all(),
                publish: all(),
                rights: ["presence", "enter", "history", "request"].map(str::to_owned).to_vec(),
                respond: all(),
                lease: all(),
            },
        };
        let auth = AuthTable {
            source: source(),
            required: false,
            hs_secret_file: Some(Located { value: secret.path().to_owned(), source: source() }),
            algorithms: vec!["HS256".to_owned()],
            ..AuthTable::default()
        };
        AccessTables { auth: Some(auth), allows: vec![row(Who::User), row(Who::Anonymous)], keys: Vec::new() }
    }
}
