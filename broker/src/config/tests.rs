//! Flags, environment and files against what they become.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::schema::{DefaultValue, Kind, Table};
use crate::config::settings::FILE;

mod auth;
mod tables;
mod tls;
mod topics;

pub(super) fn read(options: &[&str]) -> Result<Task, Stop> {
    read_with(options, &[])
}

/// Reads options and variables of the environment.
fn read_with(options: &[&str], variables: &[(&str, &str)]) -> Result<Task, Stop> {
    let here = Surroundings { cores: 2, memory_bytes_default_max: 1 << 30 };
    let environment = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
    crate::config::read(["ringyard"].iter().chain(options), environment, &here)
}

pub(super) fn refused(options: &[&str]) -> String {
    match read(options) {
        Err(Stop::Refused(sentence)) => sentence,
        other => panic!("{options:?}: {other:?}"),
    }
}

pub(super) fn shown(options: &[&str]) -> String {
    match read(options) {
        Err(Stop::Shown(text)) => text,
        other => panic!("{options:?}: {other:?}"),
    }
}

fn config(options: &[&str]) -> Config {
    match read(options) {
        Ok(Task::Serve(config)) => *config,
        other => panic!("{options:?}: {other:?}"),
    }
}

fn config_with(variables: &[(&str, &str)]) -> Config {
    match read_with(&[], variables) {
        Ok(Task::Serve(config)) => *config,
        other => panic!("{variables:?}: {other:?}"),
    }
}

fn limits(options: &[&str]) -> Limits {
    config(options).limits
}

#[test]
fn defaults_are_those_of_limits() {
    let config = config(&["--shards", "1"]);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.within(1 << 30), Limits::default());
    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert!(config.shards >= 1);
    assert_eq!(config.connections_max, None);
}

#[test]
fn a_driver_is_chosen() {
    for (name, io) in [("auto", None), ("uring", Some(Io::Uring)), ("epoll", Some(Io::Epoll))] {
        assert_eq!(config(&["--io", name]).io, io);
    }
}

#[test]
fn a_larger_message_takes_the_other_limits_along() {
    let config = config(&["--max-message", "64m", "--shards", "2"]);
    assert_eq!((config.limits.message_bytes_max, config.limits.frame_bytes_max), (64 << 20, 64 << 20));
    let waiting = |config: &Config, budget: u64| {
        let limits = config.within(budget);
        (limits.lag_bytes_max >> 20, limits.log_bytes_max >> 20)
    };
    assert_eq!(config.memory_bytes_least(), 256 << 20);
    assert_eq!(waiting(&config, 256 << 20), (64, 64));
    assert_eq!(waiting(&config, 4 << 30), (256, 256));
    let config = crate::config::tests::config(&["--max-message", "1g"]);
    assert_eq!(waiting(&config, 4 << 30), (1024, 1024));
}

/// With little memory defaults shrink; what somebody set holds, or is refused with both settings and their sources.
#[test]
fn what_waits_fits_into_the_memory() {
    for (options, expected) in [
        (&["--max-memory=4m", "--shards=2"][..], (1, 1)),
        (&["--max-memory=16m", "--shards=2"], (4, 4)),
        (&["--max-memory=16m", "--shards=8", "--max-message=2m"], (4, 4)),
        (&["--max-memory=64m", "--shards=2"], (4, 16)),
        (&["--max-memory=4g", "--shards=4"], (4, 256)),
        (&["--max-memory=16m", "--shards=1", "--max-log=2m"], (2, 2)),
        (&["--max-memory=16m", "--shards=4", "--max-lag=8m"], (8, 8)),
    ] {
        let limits = limits(options);
        assert_eq!((limits.lag_bytes_max >> 20, limits.log_bytes_max >> 20), expected, "{options:?}");
    }
    for (options, parts) in [
        (&["--max-memory=16m", "--max-message=5m"][..], ["--max-message (5m, flag)", "--max-memory (16m, flag)"]),
        (&["--max-memory=16m", "--max-lag=17m"], ["--max-lag (17m, flag)", "--max-memory (16m, flag)"]),
        (&["--max-memory=16m", "--max-log=17m"], ["--max-log (17m, flag)", "--max-memory (16m, flag)"]),
        (&["--max-memory=16m", "--max-history=17m"], ["--max-history (17m, flag)", "--max-memory (16m, flag)"]),
        (&["--max-log=1k"], ["--max-log (1k, flag)", "--max-lag (1m, default)"]),
    ] {
        let sentence = refused(options);
        assert!(parts.iter().all(|part| sentence.contains(part)), "{options:?}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
    }
    for (options, expected) in [
        (&["--max-memory=16m"][..], 4),
        (&["--max-memory=4g"], 64),
        (&["--max-memory=16m", "--max-history=16m"], 16),
        (&["--max-history=0"], 0),
    ] {
        assert_eq!(limits(options).history_bytes_max >> 20, expected, "{options:?}");
    }
    assert_eq!(config(&[]).within(16 << 20).history_bytes_max, 4 << 20);
    assert_eq!(config(&["--max-history", "3g"]).memory_bytes_least(), 3 << 30);
    // Nobody set the memory, so it is as much as the others need.
    assert_eq!(config(&["--max-log", "3g"]).memory_bytes_least(), 3 << 30);
    assert!(refused(&["--max-memory", "3m"]).contains("'3m' for --max-memory: it must be at least 4m"));
}

#[test]
fn a_smaller_message_takes_the_frame_along() {
    assert_eq!(limits(&["--max-message", "4k"]).frame_bytes_max, 4 << 10);
    assert_eq!(limits(&["--max-frame", "4k"]).message_bytes_max, 1 << 20);
}

#[test]
fn every_option_reaches_its_limit() {
    let limits = limits(&[
        "--max-head=16k",
        "--max-headers=32",
        "--max-frame=2k",
        "--max-message=3k",
        "--max-topic=100",
        "--max-subscriptions=5",
        "--max-requests=15",
        "--max-lag=1m",
        "--max-log=2m",
        "--max-outbox=8k",
        "--max-history=3m",
        "--max-keys=8",
        "--max-recovery=9k",
        "--auth-timeout=14s",
        "--handshake-timeout=1s",
        "--ping-interval=2s",
        "--ping-timeout=3s",
        "--max-topics=7",
        "--close-timeout=4s",
        "--topic-idle-timeout=5s",
        "--session-grace=5m",
        "--max-sessions=16",
        "--shutdown-grace=6s",
        "--allow-origin=http://a.b",
        "--allow-origin=https://c",
        "--allow-host=D,e:1",
        "--trusted-proxy=10.0.0.0/8",
        "--proxy-protocol",
        "--drain-delay=7s",
        "--drain-window=8s",
        "--max-connections-per-address=9",
        "--accept-rate=10",
        "--max-publish-rate=11",
        "--max-topics-per-connection=6",
        "--message-timeout=12s",
        "--http-idle-timeout=13s",
        "--client-publish=off",
    ]);
    let expected = Limits {
        head_bytes_max: 16 << 10,
        headers_max: 32,
        frame_bytes_max: 2 << 10,
        message_bytes_max: 3 << 10,
        topic_bytes_max: 100,
        topics_max: 7,
        topics_per_connection_max: 6,
        subscriptions_max: 5,
        requests_max: 15,
        lag_bytes_max: 1 << 20,
        log_bytes_max: 2 << 20,
        history_bytes_max: 3 << 20,
        keys_max: 8,
        recovery_bytes_max: 9 << 10,
        outbox_bytes_max: 8 << 10,
        auth_timeout: Duration::from_secs(14),
        handshake_timeout: Duration::from_secs(1),
        message_timeout: Duration::from_secs(12),
        http_idle_timeout: Duration::from_secs(13),
        ping_interval: Duration::from_secs(2),
        ping_timeout: Duration::from_secs(3),
        close_timeout: Duration::from_secs(4),
        session_grace: Duration::from_secs(300),
        sessions_max: Some(16),
        topic_idle_timeout: Duration::from_secs(5),
        shutdown_grace: Duration::from_secs(6),
        drain_delay: Duration::from_secs(7),
        drain_window: Some(Duration::from_secs(8)),
        connections_per_address_max: NonZeroU32::new(9),
        accept_rate_max: NonZeroU32::new(10),
        publish_rate_max: NonZeroU32::new(11),
        client_publish: false,
        origins: vec!["http://a.b".into(), "https://c".into()],
        hosts: vec!["d".into(), "e:1".into()],
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        proxy_protocol: true,
    };
    assert_eq!(limits, expected);
}

#[test]
fn bad_options_are_one_sentence_that_names_them() {
    let cases: &[(&[&str], &str)] = &[
        (&["--lisen", "x"], "--listen"),
        (&["--listen"], "--listen"),
        (&["--io", "aio"], "epoll"),
        (&["--shards", "0"], "--shards"),
        (&["--shards", "many"], "--shards"),
        (&["--shards", "99999"], "1024"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--max-message", "0"], "--max-message"),
        (&["--max-message", "-1"], "--max-message"),
        (&["--max-message", "2g"], "1g"),
        (&["--max-message", "1q"], "64k"),
        (&["--max-frame", "2m"], "--max-message (1m, default)"),
        (&["--max-lag", "1k"], "--max-lag (1k, flag)"),
        (&["--max-log", "1k"], "--max-log (1k, flag)"),
        (&["--max-topic", "9k"], "--max-head (8k, default)"),
        (&["--max-head", "1"], "256"),
        (&["--ping-interval", "0s"], "--ping-interval"),
        (&["--listen", "0.0.0.0:8080"], "--allow-anonymous"),
        (&["--admin-listen", "nowhere"], "--admin-listen"),
        (&["--allow-host", "http://a"], "--allow-host"),
        (&["--trusted-proxy", "10.0.0.0/33"], "10.0.0.0/8"),
        (&["--proxy-protocol"], "--trusted-proxy"),
        (&["--client-publish", "no"], "on, off"),
        (&["--accept-rate", "0"], "--accept-rate"),
        (&["--log-format", "xml"], "json"),
        (&["--close-timeout", "5"], "unit"),
        (&["--allow-origin", "example.org"], "scheme"),
        (&["--allow-origin", "https://a.*.org"], "first level"),
        (&["stray"], "stray"),
    ];
    for (options, part) in cases {
        let sentence = refused(options);
        assert!(sentence.contains(part), "{options:?}: {sentence}");
        assert!(!sentence.contains('\n'), "{options:?}: {sentence}");
    }
}

#[test]
fn help_explains_every_setting() {
    let help = shown(&["--help"]);
    for key in std::iter::once(&FILE).chain(SETTINGS.keys()) {
        let name = key.name;
        let at = [' ', '\n', '['].iter().find_map(|end| help.find(&format!("\n      --{name}{end}")));
        let text = &help[at.unwrap_or_else(|| panic!("{name} is not explained")) + 1..];
        let text =
            text[..text.find("\n      --").unwrap_or(text.len())].split_whitespace().collect::<Vec<_>>().join(" ");
        let end = format!("[default: {}] [env: {}]", key.default_text(), key.variable());
        assert!(text.contains(key.help) && text.contains(&end), "{name}: {text}");
    }
}

#[test]
fn defaults_and_examples_are_valid_values() {
    for key in SETTINGS.keys().chain(SETTINGS.tables.iter().flat_map(Table::keys)) {
        assert_eq!(key.kind.read(key.example()).err(), None, "{}", key.name);
        let is_fixed = matches!(key.default, DefaultValue::Fixed(_));
        assert!(!(is_fixed && key.is_list()), "{}: a list is empty by default", key.name);
        assert!(!key.help.ends_with('.') && !key.since.is_empty(), "{}", key.name);
    }
}

#[test]
fn every_word_has_a_meaning() {
    for key in SETTINGS.keys() {
        if let Kind::Choice(words) = key.kind {
            words.split('|').for_each(|word| drop(config(&[&format!("--{}", key.name), word])));
        }
    }
}

#[test]
fn commas_separate_the_values_of_a_list() {
    for (text, expected) in
        [("a,b", &["a", "b"][..]), (" a , b ", &["a", "b"]), ("a,", &["a"]), (",,a\n", &["a"]), ("", &[]), (" , ", &[])]
    {
        assert_eq!(limits(&["--allow-host", text]).hosts, expected, "{text:?}");
    }
    assert_eq!(limits(&["--allow-host=a", "--allow-host=b,c"]).hosts, ["a", "b", "c"]);
    assert!(refused(&["--allow-host", "a, *x"]).starts_with("invalid value '*x' for --allow-host: "));
}

#[test]
fn every_setting_has_its_variable() {
    assert_eq!(config_with(&[("RINGYARD_MAX_LAG", "8m")]).limits.lag_bytes_max, 8 << 20);
    assert_eq!(
        config_with(&[("RINGYARD_ALLOW_ORIGIN", "https://a, https://b,")]).limits.origins,
        ["https://a", "https://b"]
    );
    assert_eq!(config_with(&[("RINGYARD_IO", " ")]).io, None);
    let wrong = read_with(&[], &[("RINGYARD_SHARDS", "many"), ("RINGYARD_IO", "aio")]);
    let Err(Stop::Refused(sentences)) = wrong else { panic!("{wrong:?}") };
    let sentences: Vec<_> = sentences.lines().collect();
    assert!(
        sentences[0].contains("'aio' for RINGYARD_IO") && sentences[1].contains("RINGYARD_SHARDS"),
        "{sentences:?}"
    );
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFIGURATION.md");

/// A table of CONFIGURATION.md.
fn options_table(name: &str, schema: &Table) -> String {
    let mut table = format!("| {name} | value | default | what it is | since |\n| --- | --- | --- | --- | --- |\n");
    for key in schema.keys() {
        let value = key.kind.placeholder().replace('|', "\\|");
        let list = if key.is_list() { ", a list" } else { "" };
        let default = key.fixed_default().map_or(key.default_text().to_owned(), |text| format!("`{text}`"));
        let (name, help, since) = (key.name, key.help, key.since);
        table += &format!("| `{name}` | `{value}`{list} | {default} | {help} | {since} |\n");
    }
    table
}

/// The tables of CONFIGURATION.md: the head of the first column, and what it lists.
fn pages() -> Vec<(String, &'static Table)> {
    let tables = SETTINGS.tables.iter().map(|table| (format!("key of `{}`", table.header()), table));
    [("option".to_owned(), &SETTINGS)].into_iter().chain(tables).collect()
}

#[test]
fn the_page_lists_every_option() {
    for (name, schema) in pages() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (head, old) = page.split_at(page.find(&format!("| {name} |")).expect("a table"));
        let end = old.find("\n\n").map_or(old.len(), |at| at + 1);
        let table = options_table(&name, schema);
        if std::env::var_os("RINGYARD_WRITE_OPTIONS").is_some() {
            std::fs::write(PAGE, [head, &table, &old[end..]].concat()).unwrap();
        }
        let advice =
            "CONFIGURATION.md is old: RINGYARD_WRITE_OPTIONS=1 cargo test -p ringyard-broker --lib the_page_lists";
        assert!(std::fs::read_to_string(PAGE).unwrap().contains(&table), "{advice}");
    }
}

/// A file for one test, gone with it.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringyard-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_gives_what_flags_do_not() {
    let file = Kept::new("gives", "max-lag = '8m'\nshards = 3\nallow-origin = ['https://a', 'https://b']\n");
    for place in [&["--config", file.path(), "--shards", "5"][..], &["--shards=5", "--config", file.path()]] {
        let config = config(place);
        assert_eq!((config.shards, config.limits.lag_bytes_max), (5, 8 << 20));
        assert_eq!(config.limits.origins, ["https://a", "https://b"]);
    }
    assert_eq!(config(&["--config", file.path(), "--allow-origin", "https://c"]).limits.origins, ["https://c"]);
}

#[test]
fn rules_name_the_line_that_broke_them() {
    let file = Kept::new("rules", "\nmax-message = '2m'\nmax-lag = '1m'\n");
    let sentences = refused(&["--config", file.path(), "--max-frame", "3m"]);
    let sentences: Vec<_> = sentences.lines().collect();
    let (second, third) = (format!("{}:2", file.path()), format!("{}:3", file.path()));
    assert_eq!(sentences.len(), 2, "{sentences:?}");
    assert!(sentences[0].contains("--max-frame (3m, flag)"), "{sentences:?}");
    assert!(sentences[0].contains(&format!("--max-message (2m, {second})")), "{sentences:?}");
    assert!(sentences[1].contains(&format!("--max-lag (1m, {third})")), "{sentences:?}");
}

#[test]
fn a_broken_range_is_complained_of_once() {
    assert_eq!(refused(&["--max-message", "2g", "--max-frame", "2g"]).lines().count(), 2);
    assert_eq!(refused(&["--max-message", "0", "--max-lag", "1k"]).lines().count(), 1);
}

#[test]
fn a_file_is_checked_and_shown() {
    let (good, bad) = (Kept::new("good", "io = 'epoll'\n"), Kept::new("bad", "io = 'aio'\nmax_lag = 1\n"));
    assert_eq!(shown(&["config", "check", good.path()]), "ok\n");
    assert_eq!(shown(&["config", "check", "--config", good.path()]), "ok\n");
    assert_eq!(shown(&["config", "check"]), "ok\n");
    let line = format!("io = \"epoll\" # {}:1", good.path());
    assert!(shown(&["config", "show", good.path()]).contains(&line));
    let wrong = refused(&["config", "check", bad.path()]);
    assert!(wrong.contains("bad.toml:1: ") && wrong.contains("\n") && wrong.contains("max-lag?"), "{wrong}");
    // An overridden value that is wrong is wrong all the same.
    assert!(refused(&["--config", bad.path(), "--io", "uring"]).contains("bad.toml:1: "));
    assert!(refused(&["config"]).contains("check, show and example"));
    assert!(refused(&["--config", "/nowhere.toml"]).contains("/nowhere.toml"));
}

#[test]
fn flags_hold_before_and_behind_a_command() {
    for flags in [["--max-lag=1k", "config", "check"], ["config", "check", "--max-lag=1k"]] {
        assert!(refused(&flags).contains("--max-lag (1k, flag)"), "{flags:?}");
    }
}

#[test]
fn beyond_loopback_asks_for_a_word() {
    for listen in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80"] {
        assert!(refused(&["--listen", listen]).contains("--allow-anonymous"), "{listen}");
        assert_eq!(config(&["--listen", listen, "--allow-anonymous"]).listen, listen.parse().unwrap());
    }
    assert!(refused(&["--proxy-protocol"]).contains("--trusted-proxy"));
}

#[test]
fn what_strangers_may_do_follows_the_options() {
    for (options, parts) in [
        (&[][..], &["publish and subscribe"][..]),
        (&["--publish-key=/keys"], &["subscribe, and publish on /bus and /ws", "--client-publish"]),
        (&["--publish-key=/keys", "--client-publish=off"], &["subscribe, and only holders of a key"]),
        (&["--client-publish=off"], &["nobody may publish", "--publish-key"]),
    ] {
        let exposed = [&["--listen", "0.0.0.0:80"], options].concat();
        let sentence = refused(&exposed);
        assert!(parts.iter().all(|part| sentence.contains(part)), "{options:?}: {sentence}");
        let config = config(&[&exposed[..], &["--allow-anonymous"]].concat());
        assert!(sentence.contains(config.anonymous_rights()), "{options:?}: {sentence}");
    }
    assert_eq!(config(&["--publish-key", " /a/b "]).publish_key, Some(PathBuf::from("/a/b")));
}

#[test]
fn health_is_asked_where_the_broker_listens() {
    let asked = |options: &[&str]| match read(options) {
        Ok(Task::Healthcheck(urls)) => urls.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("{options:?}: {other:?}"),
    };
    let file = Kept::new("health", "listen = '[::]:90'\nadmin-listen = 'off'\n");
    assert_eq!(asked(&["healthcheck"]), ["http://127.0.0.1:8081/healthz", "http://127.0.0.1:8080/healthz"]);
    assert_eq!(asked(&["healthcheck", "--url", "http://a:1"]), ["http://a:1/healthz"]);
    assert_eq!(
        asked(&["healthcheck", "--listen=0.0.0.0:80", "--admin-listen=public"]),
        ["http://127.0.0.1:80/healthz"]
    );
    assert_eq!(
        asked(&["healthcheck", "--config", file.path()]),
        ["http://127.0.0.1:90/healthz", "http://[::1]:90/healthz"]
    );
    assert_eq!(
        asked(&["healthcheck", "--listen=[::ffff:10.0.0.1]:80", "--admin-listen=[::1]:81"]),
        ["http://[::1]:81/healthz", "http://10.0.0.1:80/healthz"]
    );
    assert!(refused(&["healthcheck", "--url", "https://a"]).contains("--url"));
}
