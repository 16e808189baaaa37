//! The `[[topic]]` tables of the file: what topics remember, and what becomes of their slow subscribers.
//!
//! Each table is complete: what it leaves out has its default, some of which follow `history`. Not responsible for
//! which table applies to a topic (`topics::rules`).

use std::time::Duration;

use protocol::topic::{COUNT, LEASE, LOAD, PRESENCE, is_reserved};

use crate::config::provenance::{Section, Source};
use crate::config::schema::DefaultValue::{Fixed, Otherwise};
use crate::config::schema::Kind::{Bool, Choice, Filter, List, Number, Size, Stamp, Time};
use crate::config::schema::{Group, Key, Table, key};
use crate::config::values::{FromValue, SIZE_TOP};

/// Most messages of a window, and most keys.
const MESSAGES_TOP: u64 = 1_000_000;
/// Least value of `max-lag`: a few short messages.
const LAG_LEAST: u64 = 4 << 10;
/// Default of `throttle` for topics that list members: a crowd that comes costs deliveries per subscriber, not per member.
const PRESENCE_THROTTLE: Duration = Duration::from_millis(250);
/// What is remembered of the load, which is published once a second: a quarter of an hour, or a mebibyte.
const LOAD_WINDOW: (u32, u64, Duration) = (900, 1 << 20, Duration::from_secs(900));

/// The schema of one table.
pub(super) const TOPIC: Table = Table {
    name: "topic",
    is_array: true,
    help: "Topic rules: what the topics that a filter matches remember. Of the tables that match a topic exactly one \
           applies, the most particular one; what it leaves out has its default",
    groups: &[Group { heading: "", keys: KEYS }],
    tables: &[],
};

const KEYS: &[Key] = &[
    key("match", Filter, Otherwise("none, it is required", "chat/#"), "0.1")
        .help("Filter of the topics that the table is for, as subscriptions write it, with + and #"),
    key("history", Choice("none|window|keyed"), Fixed("window"), "0.1").help(
        "What a topic remembers: none, nothing; window, its newest messages; keyed, the newest message of each key",
    ),
    key("history-messages", Number(1, MESSAGES_TOP), Otherwise("256, with keyed 10000", "256"), "0.1")
        .help("Messages of a window, the newest ones; with keyed, keys: a new one beyond them is refused"),
    key("history-bytes", Size(1, SIZE_TOP), Otherwise("256k, with keyed 4m", "256k"), "0.1")
        .help("Bytes that they take; beyond, the oldest of a window go, and a new key is refused"),
    key("history-ttl", Time(0), Otherwise("2m, with keyed 0s", "2m"), "0.1")
        .help("Age beyond which messages of a window, or keys without an update, are forgotten; 0s: no limit"),
    key("tombstone-ttl", Time(1), Otherwise("10m", "10m"), "0.1")
        .help("How long a removed key is remembered, for recovery; only with keyed"),
    key("retain", Choice("flag|always|never"), Fixed("flag"), "0.1").help(
        "Message that newcomers are shown: flag, the newest that was published with `retain`; always, the newest; \
         never, none",
    ),
    key("stamp", List(&Stamp), Otherwise("none", "time"), "0.1")
        .help("What the broker writes into each message: time, the time of publication"),
    key("slow-consumer", Choice("disconnect|skip|latest"), Fixed("disconnect"), "0.1").help(
        "What becomes of a subscriber that is more than max-lag behind: disconnect, it is closed with code 1013; skip, it \
         goes on with newer messages, and publishers never wait for it. latest: of what waits for a subscriber, only the \
         newest message of each key is sent",
    ),
    key("throttle", Time(0), Fixed("0s"), "0.1").help(
        "Least time between two deliveries to one subscriber, of up to 5s: what is published meanwhile is sent together; \
         0s, everything at once",
    ),
    key("presence", Bool, Fixed("false"), "0.1").help(
        "Whether clients can enter a topic, so that others see who is there: see $presence/{topic} in RINGYARD-V1.md",
    ),
    key("presence-members", Number(1, MESSAGES_TOP), Otherwise("1000", "1000"), "0.1")
        .help("Members that a topic lists; those beyond are counted; only with presence"),
    key("presence-info", Choice("token|client"), Otherwise("token", "token"), "0.1").help(
        "Who says what others see of a member: token, the claim `info` of its token; client, the member itself, as where \
         there is no access control; only with presence",
    ),
    key("exclusive", Bool, Fixed("false"), "0.1").help(
        "Whether a topic takes messages only under its lease, which one client at a time has: see lease in RINGYARD-V1.md",
    ),
    key("max-lag", Size(LAG_LEAST, SIZE_TOP), Otherwise("--max-lag", "4m"), "0.1")
        .help("How far a subscriber may be behind, in bytes of messages; at most --max-lag"),
];

/// Keys that only some kinds of history have.
const OF_HISTORY: &[(&str, &[HistoryKind])] = &[
    ("history-messages", &[HistoryKind::Window, HistoryKind::Keyed]),
    ("history-bytes", &[HistoryKind::Window, HistoryKind::Keyed]),
    ("history-ttl", &[HistoryKind::Window, HistoryKind::Keyed]),
    ("tombstone-ttl", &[HistoryKind::Keyed]),
];

/// Keys that mean something with `presence` only.
pub(super) const OF_PRESENCE: &[&str] = &["presence-members", "presence-info"];

/// The value of `history`: the kind of a topic's history, which it keeps for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryKind {
    /// Nothing is remembered.
    None,
    /// The newest messages are.
    Window,
    /// The newest message of each key is.
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

/// The value of `retain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetainKind {
    /// What was published with `retain`.
    Flag,
    /// The newest message.
    Always,
    /// Nothing.
    Never,
}

/// The value of `slow-consumer`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum SlowConsumer {
    /// The subscriber is closed.
    #[default]
    Disconnect,
    /// It goes on with newer messages, and is notified of those that it was not sent.
    Skip,
    /// Of what waits for it, only the newest message of each key is sent.
    Latest,
}

impl SlowConsumer {
    /// Its name in the protocol, where it is said.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Disconnect => None,
            Self::Skip => Some("skip"),
            Self::Latest => Some("latest"),
        }
    }
}

/// The value of `presence-info`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PresenceInfo {
    /// The member's token says it.
    Token,
    /// The member does.
    Client,
}

impl PresenceInfo {
    /// How it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Client => "client",
        }
    }
}

/// What `presence` and its other keys say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence {
    /// `presence-members`.
    pub members_max: u32,
    /// `presence-info`.
    pub info: PresenceInfo,
}

/// One table, with the defaults of what it leaves out. What its kind of history has not is meaningless.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicTable {
    /// `match`; empty for the defaults.
    pub filter: String,
    /// Where the table begins: `FILE:LINE`, or `default`.
    pub source: String,
    /// `history`.
    pub history: HistoryKind,
    /// `history-messages`: messages, or keys.
    pub messages_max: u32,
    /// `history-bytes`.
    pub bytes_max: u64,
    /// `history-ttl`; zero is no limit.
    pub history_ttl: Duration,
    /// `tombstone-ttl`.
    pub tombstone_ttl: Duration,
    /// `retain`.
    pub retain: RetainKind,
    /// Whether `stamp` has "time".
    pub stamps_time: bool,
    /// `slow-consumer`.
    pub slow_consumer: SlowConsumer,
    /// `throttle`; zero is none.
    pub throttle: Duration,
    /// `presence`: clients can enter.
    pub presence: Option<Presence>,
    /// `exclusive`: only who has the lease may publish.
    pub is_exclusive: bool,
    /// `max-lag`, if it is set.
    pub lag_bytes_max: Option<u64>,
    /// Every value that has a meaning, as the file writes it.
    pub written: Vec<Written>,
}

/// A value as the file writes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// Its key.
    pub name: &'static str,
    /// The value in TOML.
    pub value: String,
    /// `FILE:LINE`, or `default`.
    pub source: String,
}

impl Default for TopicTable {
    /// What holds for topics that no table is for.
    fn default() -> Self {
        Self::new(&Section::new(&TOPIC, Source::Default))
    }
}

impl TopicTable {
    pub(super) fn new(section: &Section) -> Self {
        use HistoryKind::{Keyed, None, Window};
        let filter: String = section.find("match").unwrap_or_default();
        if is_reserved(&filter) {
            return Self::of_reserved(section, filter);
        }
        let history = section.choose("history", &[("none", None), ("window", Window), ("keyed", Keyed)]);
        let retains = [("flag", RetainKind::Flag), ("always", RetainKind::Always), ("never", RetainKind::Never)];
        let policies =
            [("disconnect", SlowConsumer::Disconnect), ("skip", SlowConsumer::Skip), ("latest", SlowConsumer::Latest)];
        Self {
            filter,
            source: section.source.to_string(),
            history,
            messages_max: value::<u64>(section, "history-messages", history) as u32,
            bytes_max: value(section, "history-bytes", history),
            history_ttl: value(section, "history-ttl", history),
            tombstone_ttl: value(section, "tombstone-ttl", history),
            retain: section.choose("retain", &retains),
            stamps_time: section.all::<String>("stamp").iter().any(|stamp| stamp == "time"),
            slow_consumer: section.choose("slow-consumer", &policies),
            throttle: section.get("throttle"),
            presence: presence(section),
            is_exclusive: section.get("exclusive"),
            lag_bytes_max: section.find("max-lag"),
            written: written(section, history),
        }
    }

    /// The rule of the broker's own topics that `filter` matches, with the throttle of the table.
    fn of_reserved(section: &Section, filter: String) -> Self {
        use HistoryKind::{Keyed, None, Window};
        let is_presence = filter.starts_with(PRESENCE);
        let default = if is_presence { PRESENCE_THROTTLE } else { Duration::ZERO };
        let throttle = section.find("throttle").unwrap_or(default);
        let (history, retain) = match is_presence {
            true => (Keyed, RetainKind::Never),
            false if [COUNT, LEASE].iter().any(|of_topics| filter.starts_with(of_topics)) => (None, RetainKind::Always),
            false if filter == LOAD => (Window, RetainKind::Never),
            false => (None, RetainKind::Never),
        };
        // The members of a topic have a bound of their own.
        let (messages_max, bytes_max, history_ttl) =
            if history == Window { LOAD_WINDOW } else { (MESSAGES_TOP as u32, SIZE_TOP, Duration::ZERO) };
        Self {
            filter,
            source: section.source.to_string(),
            history,
            messages_max,
            bytes_max,
            history_ttl,
            tombstone_ttl: value(section, "tombstone-ttl", history),
            retain,
            stamps_time: false,
            slow_consumer: if is_presence { SlowConsumer::Latest } else { SlowConsumer::Disconnect },
            throttle,
            presence: Option::None,
            is_exclusive: false,
            lag_bytes_max: Option::None,
            written: written_of_reserved(section, history, retain, default),
        }
    }

    /// The rule that is built in for a filter of the broker's own topics.
    #[must_use]
    pub fn built_in(filter: &str) -> Self {
        Self {
            source: "built in".to_owned(),
            ..Self::of_reserved(&Section::new(&TOPIC, Source::Default), filter.to_owned())
        }
    }
}

fn presence(section: &Section) -> Option<Presence> {
    let none = HistoryKind::None;
    let members_max = value::<u64>(section, "presence-members", none) as u32;
    let info: String = value(section, "presence-info", none);
    let info = if info == PresenceInfo::Client.name() { PresenceInfo::Client } else { PresenceInfo::Token };
    section.get::<bool>("presence").then_some(Presence { members_max, info })
}

/// The value of a key of a table that follows its kind of history, if it means something beside that.
pub(super) fn following(section: &Section, name: &str) -> Option<String> {
    let history = TopicTable::new(section).history;
    let follows = OF_HISTORY.iter().any(|(of_history, _)| *of_history == name);
    (follows && is_meant(name, history)).then(|| default_of(name, history).to_owned())
}

/// The default of a key that follows the kind of history.
fn default_of(name: &str, history: HistoryKind) -> &'static str {
    match (name, history) {
        ("history-messages", HistoryKind::Keyed) => "10000",
        ("history-messages", _) => "256",
        ("history-bytes", HistoryKind::Keyed) => "4m",
        ("history-bytes", _) => "256k",
        ("history-ttl", HistoryKind::Keyed) => "0s",
        ("history-ttl", _) => "2m",
        ("tombstone-ttl", _) => "10m",
        ("presence-members", _) => "1000",
        ("presence-info", _) => "token",
        _ => panic!("{name} has a default of its own"),
    }
}

/// The value of such a key.
fn value<T: FromValue>(section: &Section, name: &str, history: HistoryKind) -> T {
    section.find(name).unwrap_or_else(|| {
        let key = TOPIC.key(name).expect("a key of the schema");
        let default = key.kind.read(default_of(name, history)).expect("a default is a valid value");
        T::from_value(&default).expect("a default has its key's type")
    })
}

/// Whether a key means anything beside this kind of history.
pub(super) fn is_meant(name: &str, history: HistoryKind) -> bool {
    OF_HISTORY.iter().all(|(of_history, kinds)| *of_history != name || kinds.contains(&history))
}

/// Every value but the filter, in the order of the schema.
fn written(section: &Section, history: HistoryKind) -> Vec<Written> {
    let follows_setting = |key: &Key| key.name == "max-lag" && section.texts(key).is_empty();
    let has_presence = section.get::<bool>("presence");
    let is_shown = |key: &&Key| has_presence || !OF_PRESENCE.contains(&key.name);
    let keys = TOPIC.keys().filter(|key| key.name != "match" && is_meant(key.name, history)).filter(is_shown);
    keys.filter(|key| !follows_setting(key))
        .map(|key| {
            let mut texts = section.texts(key);
            if texts.is_empty() && !key.is_list() {
                texts.push(default_of(key.name, history).to_owned());
            }
            Written { name: key.name, value: key.literal(&texts), source: section.source_of(key.name).to_string() }
        })
        .collect()
}

/// The same of the broker's own topics.
fn written_of_reserved(section: &Section, history: HistoryKind, retain: RetainKind, default: Duration) -> Vec<Written> {
    let throttle = section.texts(TOPIC.key("throttle").expect("a key of the schema")).pop();
    let default = || if default.is_zero() { "0s".to_owned() } else { format!("{}ms", default.as_millis()) };
    let throttle_source = section.source_of("throttle").to_string();
    let written =
        |name, value: &str, source: &str| Written { name, value: format!("\"{value}\""), source: source.to_owned() };
    let retain = if retain == RetainKind::Always { "always" } else { "never" };
    vec![
        written("history", history.name().unwrap_or("none"), "built in"),
        written("retain", retain, "built in"),
        written("throttle", &throttle.unwrap_or_else(default), &throttle_source),
    ]
}
