//! What the operator asks for: flags, the environment and one file become a [`Task`], mostly to serve with a
//! [`Config`].
//!
//! | file | its job |
//! | --- | --- |
//! | `options` | every option, once: name, text, default |
//! | `values` | what a single value may look like |
//! | `file` | the TOML file, as flags |
//! | `sources` | where each value came from |
//! | `rules` | ranges, and what goes with what |
//! | `written` | settings written as a file |
//! | `suggestions_for` | variables of the environment that nothing reads |
//! | `refusal` | the parser's complaints as sentences |
//!
//! Not responsible for what the limits mean ([`Limits`] says that) nor for starting anything.
//!
//! Precedence: flag, variable `RINGYARD_...`, file, default. Flags and environment are read first; what the file says
//! besides is read with them as flags. White space around a value says nothing, wherever it comes from.
//!
//! Invariant: a [`Config`] is whole and consistent; nothing behind it checks options again. Whatever is
//! wrong with an option is one sentence that says what to change ([`Stop::Refused`]).

mod file;
pub mod limits;
mod options;
mod refusal;
mod render;
mod rules;
mod sources;
mod suggestions;
pub mod url;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command, FromArgMatches, ValueEnum};
use ring::Io;

pub use crate::config::suggestions::suggestions_for;

use crate::config::file::File;
use crate::config::limits::Limits;
use crate::config::options::{ConfigSubcommand, Options, RunSubcommand};
use crate::config::refusal::stop;
use crate::config::sources::Sources;
use crate::config::url::Url;
use crate::ids::ShardId;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Run the broker.
    Serve(Box<Config>),
    /// Look at the machine with this configuration, or with what is wrong with it.
    Doctor {
        /// Print JSON.
        json: bool,
        /// What the broker would be arguments.
        config: Result<Box<Config>, Vec<String>>,
    },
    /// Ask whether a broker is alive, at these addresses in turn.
    Healthcheck(Vec<Url>),
}

/// Everything the broker was arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// What moves the bytes; `None`: io_uring where it can be used, else epoll.
    pub io: Option<Io>,
    /// How many shards, at least 1.
    pub shards: ShardId,
    /// Where operators ask.
    pub admin: Admin,
    /// Most connections of all shards together; `None`: as many as descriptors and memory allow.
    pub connections_max: Option<NonZeroU32>,
    /// Most bytes held for clients; `None`: a part of what is available.
    pub memory_bytes_max: Option<u64>,
    /// What is logged, and how.
    pub log: Log,
    /// All other limits. `lag_bytes_max` and `log_bytes_max` are those for the largest budget that there is by default;
    /// [`Config::within`] says which hold.
    pub limits: Limits,
    /// `--max-lag` and `--max-log`, where they are set.
    lag_asked: Option<u64>,
    log_asked: Option<u64>,
}

impl Config {
    /// Bytes that the budget must have for what is set: without that, `--max-memory` by default would contradict it.
    #[must_use]
    pub fn memory_bytes_least(&self) -> u64 {
        let message = rules::MESSAGES_IN_BUDGET * self.limits.message_bytes_max;
        [Some(message), self.lag_asked, self.log_asked].into_iter().flatten().max().unwrap_or(0)
    }

    /// The limits within a budget of so many bytes: what nobody set of `--max-lag` and `--max-log` fits into it.
    #[must_use]
    pub fn within(&self, budget_bytes: u64) -> Limits {
        let message = self.limits.message_bytes_max;
        let (lag, log) = rules::waiting_bytes(message, (self.lag_asked, self.log_asked), budget_bytes, self.shards);
        Limits { lag_bytes_max: lag, log_bytes_max: log, ..self.limits.clone() }
    }
}

/// Where `/metrics` and `/api` are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admin {
    /// On a listener of their own.
    At(SocketAddr),
    /// On the public port, beside everything else.
    Public,
    /// Nowhere.
    Off,
}

/// What is logged, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// The shape of a line.
    pub format: LogFormat,
    /// What matters less is not logged.
    pub level: LogLevel,
}

/// The shape of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much a log line matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogLevel {
    /// What has to be mended.
    Error,
    /// What may have to be.
    Warn,
    /// What happens to the broker.
    Info,
    /// What happens to single connections.
    Debug,
}

/// What moves the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum IoChoice {
    /// io_uring where it can be used, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

impl IoChoice {
    fn driver(self) -> Option<Io> {
        match self {
            Self::Auto => None,
            Self::Uring => Some(Io::Uring),
            Self::Epoll => Some(Io::Epoll),
        }
    }
}

/// Facts of the machine that some defaults follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Surroundings {
    /// Cores that the process may use at a time.
    pub cores: u64,
    /// The largest value that `--max-memory` has by default.
    pub memory_bytes_default_max: u64,
}

/// Why there is no [`Task`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What was asked for is a text for standard output, and success.
    Shown(String),
    /// A bad option: a sentence for standard error, or several, a line each, and exit code 2.
    Refused(String),
}

/// Reads the arguments, the program's name first, the `RINGYARD_...` variables of the environment, and the file.
///
/// # Errors
/// [`Stop`]: a text was asked for, or an option is wrong.
pub fn read<A: Into<OsString>>(args: impl IntoIterator<Item = A>, here: &Surroundings) -> Result<Task, Stop> {
    let arguments = RawArguments::new(args.into_iter().map(Into::into).collect())?;
    let refused = |wrong: Vec<String>| Stop::Refused(wrong.join("\n"));
    match arguments.options.subcommand.clone() {
        None => arguments.resolve(None, here).map(|resolved| Task::Serve(Box::new(resolved.config))).map_err(refused),
        Some(RunSubcommand::Doctor { json }) => {
            Ok(Task::Doctor { json, config: arguments.resolve(None, here).map(|resolved| Box::new(resolved.config)) })
        }
        Some(RunSubcommand::Healthcheck { url }) => arguments.healthcheck(url).map_err(refused),
        Some(RunSubcommand::Config { what: ConfigSubcommand::Example }) => {
            Err(Stop::Shown(render::example(&arguments.command)))
        }
        Some(RunSubcommand::Config { what: ConfigSubcommand::Check { file } }) => {
            arguments.resolve(file, here).map_err(refused)?;
            Err(Stop::Shown("ok\n".to_owned()))
        }
        Some(RunSubcommand::Config { what: ConfigSubcommand::Show { file } }) => {
            let ResolvedConfig { matches, sources, config } = arguments.resolve(file, here).map_err(refused)?;
            Err(Stop::Shown(render::show(&arguments.command, &matches, &sources, &config)))
        }
    }
}

/// Flags and environment, before the file.
struct RawArguments {
    command: Command,
    args: Vec<OsString>,
    matches: ArgMatches,
    options: Options,
}

/// Flags, environment and file.
struct ResolvedConfig {
    matches: ArgMatches,
    sources: Sources,
    config: Config,
}

impl RawArguments {
    fn new(args: Vec<OsString>) -> Result<Self, Stop> {
        let command = options::command();
        let matches = command.clone().try_get_matches_from(&args).map_err(|error| stop(&error))?;
        let options = Options::from_arg_matches(&matches).map_err(|error| stop(&error))?;
        Ok(Self { command, args, matches, options })
    }

    /// Adds the file, `instead` of that of `--config` if given, and applies the rules.
    fn resolve(&self, instead: Option<PathBuf>, here: &Surroundings) -> Result<ResolvedConfig, Vec<String>> {
        let (matches, sources) = self.with_file(instead.as_deref().or(self.options.config.as_deref()))?;
        let options = Options::from_arg_matches(&matches).map_err(|error| vec![refusal::sentence(&error)])?;
        let config = rules::check(options, &sources, here)?;
        Ok(ResolvedConfig { matches, sources, config })
    }

    fn with_file(&self, path: Option<&Path>) -> Result<(ArgMatches, Sources), Vec<String>> {
        let file = path.map(|path| File::read(path, &self.command)).transpose()?;
        let sources = Sources::new(&self.command, &self.matches, file.as_ref());
        let Some(file) = file else { return Ok((self.matches.clone(), sources)) };
        let mut args = self.args.clone();
        // Behind the program's name, where subcommands have not begun.
        let at = args.len().min(1);
        args.splice(at..at, file.flags(|name| sources.is_file(name)).map(OsString::from));
        let matches = self.command.clone().try_get_matches_from(&args);
        Ok((matches.map_err(|error| vec![refusal::sentence(&error)])?, sources))
    }

    /// Where to ask: without the rules, which are the broker's concern, not of who asks after it.
    fn healthcheck(&self, url: Option<Url>) -> Result<Task, Vec<String>> {
        if let Some(url) = url {
            return Ok(Task::Healthcheck(vec![url]));
        }
        let (matches, _) = self.with_file(self.options.config.as_deref())?;
        let options = Options::from_arg_matches(&matches).map_err(|error| vec![refusal::sentence(&error)])?;
        let mut urls = match options.admin_listen {
            Admin::At(address) => Url::health(address),
            Admin::Public | Admin::Off => Vec::new(),
        };
        urls.extend(Url::health(options.listen));
        Ok(Task::Healthcheck(urls))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    pub(super) fn read(options: &[&str]) -> Result<Task, Stop> {
        let here = Surroundings { cores: 2, memory_bytes_default_max: 1 << 30 };
        crate::config::read(["ringyard"].iter().chain(options), &here)
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
            (&["--max-log=1k"], ["--max-log (1k, flag)", "--max-lag (1m, default)"]),
        ] {
            let sentence = refused(options);
            assert!(parts.iter().all(|part| sentence.contains(part)), "{options:?}: {sentence}");
            assert_eq!(sentence.lines().count(), 1, "{sentence}");
        }
        // Nobody set the memory, so it is as much as the others need.
        assert_eq!(config(&["--max-log", "3g"]).memory_bytes_least(), 3 << 30);
        assert!(refused(&["--max-memory", "3m"]).contains("--max-memory is 3m (flag)"));
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
            "--max-lag=1m",
            "--max-log=2m",
            "--max-outbox=8k",
            "--handshake-timeout=1s",
            "--ping-interval=2s",
            "--ping-timeout=3s",
            "--max-topics=7",
            "--close-timeout=4s",
            "--topic-idle-timeout=5s",
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
            lag_bytes_max: 1 << 20,
            log_bytes_max: 2 << 20,
            outbox_bytes_max: 8 << 10,
            handshake_timeout: Duration::from_secs(1),
            message_timeout: Duration::from_secs(12),
            http_idle_timeout: Duration::from_secs(13),
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(3),
            close_timeout: Duration::from_secs(4),
            topic_idle_timeout: Duration::from_secs(5),
            shutdown_grace: Duration::from_secs(6),
            drain_delay: Duration::from_secs(7),
            drain_window: Duration::from_secs(8),
            connections_per_address_max: NonZeroU32::new(9),
            accept_rate_max: NonZeroU32::new(10),
            publish_rate_max: NonZeroU32::new(11),
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
            (&["--accept-rate", "0"], "--accept-rate"),
            (&["--log-format", "xml"], "json"),
            (&["--close-timeout", "5"], "unit"),
            (&["--allow-origin", "example.org"], "scheme"),
            (&["stray"], "stray"),
        ];
        for (options, part) in cases {
            let sentence = refused(options);
            assert!(sentence.contains(part), "{options:?}: {sentence}");
            assert!(!sentence.contains('\n'), "{options:?}: {sentence}");
        }
    }

    #[test]
    fn help_explains_every_option_with_its_default() {
        let help = shown(&["--help"]);
        for argument in options::command().get_arguments() {
            let name = argument.get_long().unwrap();
            let at = [' ', '\n', '['].iter().find_map(|end| help.find(&format!("--{name}{end}")));
            let text = &help[at.unwrap_or_else(|| panic!("{name} is not explained"))..];
            let text = &text[..text.find("\n      --").unwrap_or(text.len())];
            assert!(name == "help" || name == "version" || text.contains("[default: "), "{name}: {text}");
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
        let file = Kept::new("rules", "\nmax-message = '2m'\nmax-lag = '1m'\nping-interval = '0s'\n");
        let sentences = refused(&["--config", file.path(), "--max-frame", "3m"]);
        let sentences: Vec<_> = sentences.lines().collect();
        let (second, third, fourth) =
            (format!("{}:2", file.path()), format!("{}:3", file.path()), format!("{}:4", file.path()));
        assert_eq!(sentences.len(), 3, "{sentences:?}");
        assert!(sentences[0].contains("--max-frame (3m, flag)"), "{sentences:?}");
        assert!(sentences[0].contains(&format!("--max-message (2m, {second})")), "{sentences:?}");
        assert!(sentences[1].contains(&format!("--max-lag (1m, {third})")), "{sentences:?}");
        assert!(sentences[2].contains(&format!("--ping-interval is 0 ({fourth})")), "{sentences:?}");
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
        assert!(refused(&["config"]).contains("check, show or example"));
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
}
