//! The `[[topic]]` tables: what they become, and what is wrong with them.

use super::*;
use crate::config::topics::{HistoryKind, Presence, PresenceInfo, RetainKind, SlowConsumer};

/// A configuration with this file, whose name is `a.toml` in what it says.
fn tables(name: &str, text: &str) -> Result<Vec<TopicTable>, String> {
    let file = Kept::new(name, text);
    let mut tables = match read(&["--config", file.path()]) {
        Ok(Task::Serve(config)) => config.topics,
        Err(Stop::Refused(sentences)) => return Err(sentences.replace(file.path(), "a.toml")),
        other => panic!("{other:?}"),
    };
    for table in &mut tables {
        table.source = table.source.replace(file.path(), "a.toml");
        table.written.iter_mut().for_each(|written| written.source = written.source.replace(file.path(), "a.toml"));
    }
    Ok(tables)
}

fn lines(table: &TopicTable) -> Vec<String> {
    table.written.iter().map(|written| format!("{} = {} # {}", written.name, written.value, written.source)).collect()
}

#[test]
fn what_a_table_leaves_out_follows_its_history() {
    let text = "[[topic]]\nmatch = 'a/#'\n[[topic]]\nmatch = 'b c '\nhistory = 'keyed'\nstamp = ['time']\n\
                [[topic]]\nmatch = '/+'\nhistory = 'none'\nretain = 'always'\n";
    let tables = tables("follows", text).unwrap();
    let [window, keyed, none] = &tables[..] else { panic!("{tables:?}") };
    assert_eq!((window.filter.as_str(), window.source.as_str()), ("a/#", "a.toml:1"));
    assert_eq!(lines(window)[..2], ["history = \"window\" # default", "history-messages = 256 # default"]);
    assert_eq!((window.history, window.messages_max, window.bytes_max), (HistoryKind::Window, 256, 256 << 10));
    assert_eq!((window.history_ttl, window.retain), (Duration::from_secs(120), RetainKind::Flag));
    assert_eq!((keyed.filter.as_str(), keyed.history, keyed.stamps_time), ("b c ", HistoryKind::Keyed, true));
    assert_eq!((keyed.messages_max, keyed.bytes_max, keyed.history_ttl), (10_000, 4 << 20, Duration::ZERO));
    assert_eq!(keyed.tombstone_ttl, Duration::from_secs(600));
    assert_eq!((none.history, none.retain), (HistoryKind::None, RetainKind::Always));
    let expected = [
        "history = \"none\" # a.toml:9",
        "retain = \"always\" # a.toml:10",
        "stamp = [] # default",
        "slow-consumer = \"disconnect\" # default",
        "throttle = \"0s\" # default",
        "presence = false # default",
        "exclusive = false # default",
    ];
    assert_eq!(lines(none), expected);
}

#[test]
fn every_key_reaches_its_value() {
    let text = "[[topic]]\nmatch = '#'\nhistory = 'keyed'\nhistory-messages = 1_000_000\nhistory-bytes = '1g'\n\
                history-ttl = '3s'\ntombstone-ttl = '1ms'\nretain = 'never'\nstamp = 'time'\nslow-consumer = 'skip'\n\
                throttle = '5s'\nmax-lag = '64k'\npresence = true\npresence-members = 7\npresence-info = 'client'\nexclusive = true\n";
    let tables = tables("every", text).unwrap();
    let expected = TopicTable {
        filter: "#".into(),
        source: "a.toml:1".into(),
        history: HistoryKind::Keyed,
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        history_ttl: Duration::from_secs(3),
        tombstone_ttl: Duration::from_millis(1),
        retain: RetainKind::Never,
        stamps_time: true,
        slow_consumer: SlowConsumer::Skip,
        throttle: Duration::from_secs(5),
        presence: Some(Presence { members_max: 7, info: PresenceInfo::Client }),
        is_exclusive: true,
        lag_bytes_max: Some(64 << 10),
        written: tables[0].written.clone(),
    };
    assert_eq!(tables, [expected]);
    assert_eq!(lines(&tables[0]).len(), 14, "all but the filter: {:?}", tables[0]);
}

#[test]
fn of_the_brokers_own_topics_only_the_throttle_is_set() {
    let tables = tables("reserved", "[[topic]]\nmatch = '$sys/#'\nthrottle = '5s'\n").unwrap();
    let lines = lines(&tables[0]);
    let expected = ["history = \"none\" # built in", "retain = \"never\" # built in", "throttle = \"5s\" # a.toml:3"];
    assert_eq!(lines, expected);
    assert_eq!((tables[0].history, tables[0].retain), (HistoryKind::None, RetainKind::Never));
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_key() {
    for (number, (keys, parts)) in [
        ("retain = 'flag'", &["a.toml:1: ", "needs match"][..]),
        ("match = ''", &["a.toml:2: ", "match", "empty"]),
        ("match = 'a#'", &["a.toml:2: invalid value 'a#' for match: ", "alone"]),
        ("match = '#/a'", &["a.toml:2: ", "match", "last level"]),
        ("match = \"a\\nb\"", &["a.toml:2: ", "'a\\nb' for match", "control"]),
        ("match = '$sys/#'\nretain = 'flag'", &["a.toml:3: retain ", "begin with $", "only throttle"]),
        ("match = 5\nhistory = 'all'", &["a.toml:3: ", "history", "none, window, keyed"]),
        ("match = 'a'\nhistory-messages = 0", &["a.toml:3: ", "history-messages", "from 1 to 1000000"]),
        ("match = 'a'\nhistory-messages = 1000001", &["a.toml:3: ", "history-messages", "from 1 to 1000000"]),
        ("match = 'a'\nhistory-bytes = 'lots'", &["a.toml:3: ", "history-bytes", "64k"]),
        ("match = 'a'\nslow-consumer = 'drop'", &["a.toml:3: ", "slow-consumer", "disconnect"]),
        ("match = 'a'\nmax-lag = '1k'", &["a.toml:3: ", "max-lag"]),
        ("match = 'a'\nmax-lag = '1g'", &["a.toml:3: ", "max-lag", "--max-lag is 4m"]),
        ("match = 'a'\nhistory-ttl = 5", &["a.toml:3: ", "history-ttl", "unit"]),
        ("match = 'a'\nhistory_ttl = '5s'", &["a.toml:3: ", "[[topic]]", "did you mean history-ttl?"]),
        ("match = 'a'\nretain = true", &["a.toml:3: ", "retain", "flag, always, never"]),
        ("match = 'a'\nstamp = ['time', 'from']", &["a.toml:3: ", "'from' for stamp", "not built yet"]),
        ("match = 'a'\nstamp = 'clock'", &["a.toml:3: ", "stamp", "must be time"]),
        ("match = 'a'\nhistory = 'none'\nhistory-messages = 5", &["a.toml:4: history-messages ", "\"none\""]),
        ("match = 'a'\nhistory = 'none'\nhistory-bytes = 5", &["a.toml:4: history-bytes ", "\"none\""]),
        ("match = 'a'\nhistory = 'none'\nhistory-ttl = '5s'", &["a.toml:4: history-ttl ", "\"none\""]),
        ("match = 'a'\ntombstone-ttl = '5s'", &["a.toml:3: tombstone-ttl ", "\"window\""]),
        ("match = 'a'\nthrottle = '5001ms'", &["a.toml:3: ", "'5001ms' for throttle", "at most 5s"]),
        ("match = 'a'\nthrottle = '50'", &["a.toml:3: ", "throttle", "unit"]),
        ("match = 'a'\npresence = 'maybe'", &["a.toml:3: ", "presence"]),
        ("match = 'a'\npresence-members = 5", &["a.toml:3: presence-members ", "without presence = true"]),
        ("match = 'a'\npresence = true\npresence-members = 0", &["a.toml:4: ", "presence-members", "from 1"]),
        ("match = 'a'\npresence = true\npresence-info = 'both'", &["a.toml:4: ", "token, client"]),
        ("match = '$presence/#'\npresence = true", &["a.toml:3: presence ", "only throttle"]),
        ("match = 'a'\ndurable = 'always'", &["a.toml:3: ", "no setting 'durable' in [[topic]]"]),
        ("match = 'a'\n[[topic]]\nmatch = 'a'", &["a.toml:4: ", "'a' for match", "a.toml:2 has the same filter"]),
    ]
    .into_iter()
    .enumerate()
    {
        let wrong = tables(&format!("wrong-{number}"), &format!("[[topic]]\n{keys}\n")).unwrap_err();
        assert_eq!(wrong.lines().count(), 1, "{keys:?}: {wrong}");
        assert!(parts.iter().all(|part| wrong.contains(part)), "{keys:?}: {wrong}");
    }
    let long = tables("long", "max-topic = 3\n[[topic]]\nmatch = 'abcd'\n[[topic]]\n").unwrap_err();
    let long: Vec<_> = long.lines().collect();
    assert!(long[0].starts_with("a.toml:3: ") && long[0].contains("--max-topic is 3"), "{long:?}");
    assert!(long.len() == 2 && long[1].starts_with("a.toml:4: "), "{long:?}");
}

#[test]
fn what_is_shown_gives_the_same_tables() {
    let text = "[[topic]]\nmatch = '#'\nhistory = 'keyed'\n[[topic]]\nmatch = 'a/+'\nhistory = 'none'\nstamp = 'time'\n\
                [[topic]]\nmatch = 'a'\n";
    let file = Kept::new("shown-topics", text);
    let shown = shown(&["config", "show", file.path()]);
    assert!(shown.contains(&format!("\n[[topic]] # {}:4\nmatch = \"a/+\" # {0}:5\n", file.path())), "{shown}");
    for line in [
        "# history-messages = 10000 # default: 256, with keyed 10000",
        "# history-bytes is not set: 256k, with keyed 4m",
    ] {
        assert!(shown.lines().any(|other| other == line), "{line}: {shown}");
    }
    let values = |tables: Vec<TopicTable>| {
        let table = |table: TopicTable| TopicTable { source: String::new(), written: Vec::new(), ..table };
        tables.into_iter().map(table).collect::<Vec<_>>()
    };
    assert_eq!(values(tables("again", &shown).unwrap()), values(tables("first", text).unwrap()));
}

#[test]
fn a_topic_is_asked_about() {
    let file = Kept::new("asked", "max-topic = 9\n[[topic]]\nmatch = 'chat/#'\n");
    for topic in ["chat/7", "$sys/load", "/"] {
        match read(&["topic", topic, "--config", file.path()]) {
            Ok(Task::Topic { topic: asked, tables }) => assert_eq!((asked.as_str(), tables.len()), (topic, 1)),
            other => panic!("{topic}: {other:?}"),
        }
    }
    for (topic, part) in
        [("chat/#", "only subscriptions"), ("", "empty"), ("a\nb", "control"), ("0123456789", "9 bytes")]
    {
        let sentence = refused(&["topic", topic, "--config", file.path()]);
        assert!(sentence.contains("is not a topic: ") && sentence.contains(part), "{topic:?}: {sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
    assert!(refused(&["topic"]).contains("<TOPIC>"));
}
