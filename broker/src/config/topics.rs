//! The `[[topic]]` tables of the file: what topics remember, and what becomes of their slow subscribers.
//!
//! Each table is complete: what it leaves out has its default, some of which follow `history`. Not responsible for
//! which table applies to a topic (`topics::rules`).

use std::collections::HashMap;
use std::time::Duration;

use protocol::topic::is_reserved;

use crate::config::provenance::{Section, Source};
use crate::config::schema::DefaultValue::{Fixed, Otherwise};
use crate::config::schema::Kind::{Choice, Filter, List, Number, Size, Stamp, Time};
use crate::config::schema::{Group, Key, Table, key};
use crate::config::values::{self, FromValue, SIZE_TOP};

/// Most messages of a window, and most keys.
const MESSAGES_TOP: u64 = 1_000_000;
/// Least value of `max-lag`: a few short messages.
const LAG_LEAST: u64 = 4 << 10;
/// Longest value of `throttle`.
const THROTTLE_TOP: Duration = Duration::from_secs(5);
/// What can be set for the broker's own topics, whose names begin with `$`.
const OF_RESERVED: &[&str] = &["match", "throttle"];
/// Most tables: a topic holds the number of its rule in 16 bits.
const TABLES_MAX: usize = 65_000;

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
    fn new(section: &Section) -> Self {
        use HistoryKind::{Keyed, None, Window};
        let filter: String = section.find("match").unwrap_or_default();
        let is_reserved = is_reserved(&filter);
        let history = section.choose("history", &[("none", None), ("window", Window), ("keyed", Keyed)]);
        let history = if is_reserved { None } else { history };
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
            retain: if is_reserved { RetainKind::Never } else { section.choose("retain", &retains) },
            stamps_time: section.all::<String>("stamp").iter().any(|stamp| stamp == "time"),
            slow_consumer: section.choose("slow-consumer", &policies),
            throttle: section.get("throttle"),
            lag_bytes_max: section.find("max-lag"),
            written: if is_reserved { written_of_reserved(section) } else { written(section, history) },
        }
    }
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
fn is_meant(name: &str, history: HistoryKind) -> bool {
    OF_HISTORY.iter().all(|(of_history, kinds)| *of_history != name || kinds.contains(&history))
}

/// Every value but the filter, in the order of the schema.
fn written(section: &Section, history: HistoryKind) -> Vec<Written> {
    let follows_setting = |key: &Key| key.name == "max-lag" && section.texts(key).is_empty();
    let keys = TOPIC.keys().filter(|key| key.name != "match" && is_meant(key.name, history));
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
fn written_of_reserved(section: &Section) -> Vec<Written> {
    let built_in = |name, value: &str| Written { name, value: value.to_owned(), source: "built in".to_owned() };
    let own = written(section, HistoryKind::None).into_iter().filter(|written| OF_RESERVED.contains(&written.name));
    [built_in("history", "\"none\""), built_in("retain", "\"never\"")].into_iter().chain(own).collect()
}

/// The tables of a file. `topic_bytes_max` is `max-topic`, `lag_bytes_max` is `max-lag` of the top.
///
/// # Errors
/// A sentence for everything that is wrong with one table, or between two, in the order of the file.
pub(super) fn read(
    settings: &Section,
    topic_bytes_max: usize,
    lag_bytes_max: u64,
) -> Result<Vec<TopicTable>, Vec<String>> {
    let sections: Vec<_> = settings.tables.iter().filter(|section| section.table.name == TOPIC.name).collect();
    let (mut wrong, mut seen) = (Vec::new(), HashMap::new());
    if let Some(section) = sections.get(TABLES_MAX) {
        wrong.push(format!("{}: there are {} [[topic]] tables: at most {TABLES_MAX}", section.source, sections.len()));
    }
    for section in &sections {
        wrong.extend(wrong_filter(section, topic_bytes_max, &mut seen));
        wrong.extend(meaningless(section));
        wrong.extend(wrong_lag(section, lag_bytes_max));
        wrong.extend(wrong_throttle(section));
    }
    if wrong.is_empty() { Ok(sections.into_iter().map(TopicTable::new).collect()) } else { Err(wrong) }
}

/// What is wrong with the filter of a table, given those before it.
fn wrong_filter(section: &Section, bytes_max: usize, seen: &mut HashMap<String, String>) -> Option<String> {
    let Some(filter) = section.find::<String>("match") else {
        return Some(format!("{}: the table [[topic]] needs match: a filter such as 'chat/#'", section.source));
    };
    let source = section.source_of("match");
    if filter.len() > bytes_max {
        return Some(format!(
            "{source}: invalid value '{filter}' for match: it has {} bytes, and --max-topic is {bytes_max}",
            filter.len()
        ));
    }
    let first = seen.insert(filter.clone(), source.to_string())?;
    Some(format!("{source}: invalid value '{filter}' for match: {first} has the same filter; a filter has one table"))
}

/// What is wrong with the `max-lag` of a table.
fn wrong_lag(section: &Section, bytes_max: u64) -> Option<String> {
    let bytes = section.find::<u64>("max-lag").filter(|bytes| *bytes > bytes_max)?;
    let (source, value) = (section.source_of("max-lag"), values::Size(bytes));
    Some(format!("{source}: invalid value '{value}' for max-lag: --max-lag is {}", values::Size(bytes_max)))
}

/// What is wrong with the `throttle` of a table.
fn wrong_throttle(section: &Section) -> Option<String> {
    let throttle = section.find::<Duration>("throttle").filter(|throttle| *throttle > THROTTLE_TOP)?;
    let source = section.source_of("throttle");
    Some(format!("{source}: invalid value '{}ms' for throttle: it must be at most 5s", throttle.as_millis()))
}

/// Sentences about keys that mean nothing beside the table's kind of history, or for the broker's own topics.
fn meaningless(section: &Section) -> Vec<String> {
    let set = || TOPIC.keys().filter(|key| !section.source_of(key.name).is_default());
    if is_reserved(&section.find::<String>("match").unwrap_or_default()) {
        let others = set().filter(|key| !OF_RESERVED.contains(&key.name));
        let wrong = others.map(|key| {
            let source = section.source_of(key.name);
            format!(
                "{source}: {} cannot be set for topics that begin with $, the broker's own: only throttle can",
                key.name
            )
        });
        return wrong.collect();
    }
    let history = TopicTable::new(section).history;
    set()
        .filter(|key| !is_meant(key.name, history))
        .map(|key| {
            let word: String = section.get("history");
            format!(
                "{}: {} has no meaning with history = \"{word}\": remove the one or change the other",
                section.source_of(key.name),
                key.name
            )
        })
        .collect()
}
