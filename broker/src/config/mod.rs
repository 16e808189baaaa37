//! The configuration: flags, environment and one TOML file become a [`Task`], mostly to serve with a [`Config`].
//!
//! | file | its job |
//! | --- | --- |
//! | `settings` | the list of all settings |
//! | `schema` | what such a list consists of: tables, keys, types |
//! | `values` | how the text of one value is read |
//! | `origins` | the same of one value of `--allow-origin` |
//! | `command` | the command line, made from the list |
//! | `file` | the TOML file, read by the list |
//! | `sources` | flags, environment and file, one after the other |
//! | `provenance` | values with their sources, and which source holds |
//! | `rules` | rules between settings |
//! | `auth`, `auth_schema` | the tables `[auth]`, `[[allow]]` and `[[key]]`, and their schema |
//! | `tls` | the `[[tls]]` tables |
//! | `topics`, `topic_checks` | the `[[topic]]` tables |
//! | `demos` | those that are built in, for the demos |
//! | `limits` | the limits of the broker, taken from the settings |
//! | `render` | `config show` and `config example` |
//! | `suggestions` | names that are nearly right |
//! | `url` | where `healthcheck` asks |
//!
//! Precedence: flag, environment, file, default.
//!
//! Invariant: a [`Config`] is complete and consistent; nothing behind it checks settings again. Each error is a sentence
//! that says what to change ([`Stop::Refused`]). Rules between settings are checked once every single value is valid.

pub mod auth;
mod auth_schema;
mod command;
pub(crate) mod demos;
mod file;
pub mod limits;
mod origins;
mod provenance;
mod render;
mod rules;
mod schema;
mod settings;
mod sources;
mod suggestions;
#[cfg(test)]
mod tests;
pub mod tls;
mod topic_checks;
pub mod topics;
pub mod url;
mod values;

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use protocol::topic::TopicError;
use ring::Io;

pub use crate::config::suggestions::suggestions_for;

use crate::config::auth::AccessTables;
use crate::config::command::{AuthSubcommand, CommandLine, ConfigSubcommand, KeySubcommand, RunSubcommand};
pub use crate::config::command::{CheckedToken, NewKey};
use crate::config::limits::{Limits, history_bytes, waiting_bytes};
use crate::config::provenance::Section;
use crate::config::settings::{SETTINGS, SHARDS_TOP};
use crate::config::sources::Given;
use crate::config::tls::{KeyExchange, TlsTable};
use crate::config::topics::TopicTable;
use crate::config::url::Url;
use crate::config::values::Size;
pub(crate) use crate::config::values::{duration, is_loopback};

/// So many messages of the greatest length fit into the memory for what is held for clients, so that one on its way in
/// and one on its way out do not count as too many.
const MESSAGES_IN_BUDGET: u64 = 4;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Run the broker.
    Serve(Box<Config>),
    /// Look at the machine with this configuration, or with what is wrong with it.
    Doctor {
        /// Print JSON.
        json: bool,
        /// What the broker would serve with.
        config: Result<Box<Config>, Vec<String>>,
    },
    /// Replace the broker that listens here by one with these options.
    Restart {
        /// `--listen`.
        listen: SocketAddr,
        /// What stands behind `restart`.
        options: Vec<OsString>,
    },
    /// Say which topic rule applies to a topic.
    Topic {
        /// Its name, valid.
        topic: String,
        /// Every `[[topic]]` table.
        tables: Vec<TopicTable>,
    },
    /// Print a new API key and its table.
    NewKey(NewKey),
    /// Say what a token allows under these tables.
    CheckToken(CheckedToken, Box<AccessTables>),
    /// Say that the configuration is right, once the files of keys that these tables name are read too.
    Check(Box<AccessTables>),
    /// Ask whether a broker is alive, at these addresses in turn.
    Healthcheck(Vec<Url>),
}

/// Everything that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// What moves the bytes; `None`: io_uring where it can be used, else epoll.
    pub io: Option<Io>,
    /// Whether to take over from the broker that runs at `listen`.
    pub take_over: bool,
    /// How many shards, at least 1.
    pub shards: u16,
    /// Where operators ask.
    pub admin: Admin,
    /// The file with keys to publish with.
    pub publish_key: Option<PathBuf>,
    /// Most connections of all shards together; `None`: as many as descriptors and memory allow.
    pub connections_max: Option<NonZeroU32>,
    /// Most bytes held for clients; `None`: a part of what is available.
    pub memory_bytes_max: Option<u64>,
    /// What is logged, and how.
    pub log: Log,
    /// Every setting as it is written; empty where the default follows something else.
    pub written: Vec<(&'static str, String)>,
    /// The `[[topic]]` tables, whose filters all differ.
    pub topics: Vec<TopicTable>,
    /// Where to listen with TLS.
    pub tls_listen: Option<SocketAddr>,
    /// Whether only TLS 1.3 is spoken.
    pub tls_only_13: bool,
    /// What is preferred of the key exchanges that clients offer.
    pub tls_exchange: KeyExchange,
    /// The `[[tls]]` tables.
    pub tls_tables: Vec<TlsTable>,
    /// The tables of access control.
    pub access: AccessTables,
    /// All other limits. `lag_bytes_max`, `log_bytes_max` and `history_bytes_max` are those for the largest budget that there is by default;
    /// [`Config::within`] says which hold.
    pub limits: Limits,
    /// `--max-lag`, `--max-log` and `--max-history`, where they are set.
    lag_asked: Option<u64>,
    log_asked: Option<u64>,
    history_asked: Option<u64>,
}

impl Config {
    fn new(settings: &Section, here: &Surroundings) -> Self {
        let shards = settings.find("shards").unwrap_or(here.cores.clamp(1, SHARDS_TOP)) as u16;
        let memory = settings.find("max-memory");
        let (lag_asked, log_asked) = (settings.find("max-lag"), settings.find("max-log"));
        let history_asked = settings.find("max-history");
        let message: u64 = settings.get("max-message");
        let budget = memory.unwrap_or(here.memory_bytes_default_max.max(MESSAGES_IN_BUDGET * message));
        let waiting = waiting_bytes(message, (lag_asked, log_asked), budget, shards);
        Self {
            listen: listen_address(settings),
            io: settings.choose("io", &[("auto", None), ("uring", Some(Io::Uring)), ("epoll", Some(Io::Epoll))]),
            take_over: settings.get("take-over"),
            shards,
            admin: settings.get("admin-listen"),
            publish_key: settings.find::<String>("publish-key").map(PathBuf::from),
            connections_max: settings.find::<u64>("max-connections").and_then(|number| NonZeroU32::new(number as u32)),
            memory_bytes_max: memory,
            log: Log {
                format: settings.choose("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
                level: settings.choose(
                    "log-level",
                    &[
                        ("error", LogLevel::Error),
                        ("warn", LogLevel::Warn),
                        ("info", LogLevel::Info),
                        ("debug", LogLevel::Debug),
                    ],
                ),
            },
            written: settings.table.keys().map(|key| (key.name, settings.texts(key).join(", "))).collect(),
            topics: Vec::new(),
            tls_listen: settings.find("tls-listen"),
            tls_only_13: settings.choose("tls-min", &[("1.2", false), ("1.3", true)]),
            tls_exchange: settings
                .choose("tls-key-exchange", &[("hybrid", KeyExchange::Hybrid), ("classic", KeyExchange::Classic)]),
            tls_tables: Vec::new(),
            access: AccessTables::default(),
            limits: Limits::new(settings, waiting, history_bytes(history_asked, budget)),
            lag_asked,
            log_asked,
            history_asked,
        }
    }

    /// The value of a setting that follows others, where the configuration alone decides it.
    fn following(&self, name: &str) -> Option<String> {
        match name {
            "shards" => Some(self.shards.to_string()),
            "max-frame" => Some(Size(self.limits.frame_bytes_max).to_string()),
            "max-lag" => Some(Size(self.limits.lag_bytes_max).to_string()),
            "max-log" => Some(Size(self.limits.log_bytes_max).to_string()),
            "max-history" => Some(Size(self.limits.history_bytes_max).to_string()),
            _ => None,
        }
    }

    /// What anyone who reaches the broker, and brings no key, may do: the rest of a sentence.
    #[must_use]
    pub fn anonymous_rights(&self) -> &'static str {
        match (self.access.is_empty(), self.access.is_required()) {
            (false, true) => return "do nothing without a token or a key",
            (false, false) => return "do what [[allow]] grants to anonymous",
            (true, _) => {}
        }
        match (self.limits.client_publish, &self.publish_key) {
            (true, None) => "publish and subscribe",
            (true, Some(_)) => "subscribe, and publish on /bus and /ws (see --client-publish)",
            (false, Some(_)) => "subscribe, and only holders of a key of --publish-key may publish",
            (false, None) => "subscribe, and nobody may publish (--client-publish off without --publish-key)",
        }
    }

    /// Bytes that the budget must have for what is set: without that, `--max-memory` by default would contradict it.
    #[must_use]
    pub fn memory_bytes_least(&self) -> u64 {
        let message = MESSAGES_IN_BUDGET * self.limits.message_bytes_max;
        [Some(message), self.lag_asked, self.log_asked, self.history_asked].into_iter().flatten().max().unwrap_or(0)
    }

    /// The limits within a budget of so many bytes: what nobody set of `--max-lag`, `--max-log` and `--max-history`
    /// fits into it.
    #[must_use]
    pub fn within(&self, budget_bytes: u64) -> Limits {
        let message = self.limits.message_bytes_max;
        let (lag, log) = waiting_bytes(message, (self.lag_asked, self.log_asked), budget_bytes, self.shards);
        let history = history_bytes(self.history_asked, budget_bytes);
        Limits { lag_bytes_max: lag, log_bytes_max: log, history_bytes_max: history, ..self.limits.clone() }
    }
}

/// `--listen`, which `--tls-only` keeps to this machine.
fn listen_address(settings: &Section) -> SocketAddr {
    let asked: SocketAddr = settings.get("listen");
    if settings.get("tls-only") && asked.ip().is_unspecified() {
        let loopback = if asked.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        return SocketAddr::new(loopback, asked.port());
    }
    asked
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much a log line matters. What matters less is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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

/// Reads the arguments, the program's name first, the variables of the environment, and the file.
///
/// # Errors
/// [`Stop`]: a text was asked for, or something is wrong.
pub fn read<A: Into<OsString>>(
    args: impl IntoIterator<Item = A>,
    environment: impl Fn(&str) -> Option<OsString>,
    here: &Surroundings,
) -> Result<Task, Stop> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let line = CommandLine::parse(args.iter().cloned())?;
    let refused = |wrong: Vec<String>| Stop::Refused(wrong.join("\n"));
    let given = Given::new(&line, environment).map_err(refused)?;
    match line.subcommand {
        None => given.resolve(None, here).map(|(config, _)| Task::Serve(Box::new(config))).map_err(refused),
        Some(RunSubcommand::Doctor { json }) => {
            Ok(Task::Doctor { json, config: given.resolve(None, here).map(|(config, _)| Box::new(config)) })
        }
        Some(RunSubcommand::Restart) if args[1] != "restart" => {
            Err(Stop::Refused("write `ringyard restart` first, and options behind it".to_owned()))
        }
        Some(RunSubcommand::Restart) => {
            let (config, _) = given.resolve(None, here).map_err(refused)?;
            Ok(Task::Restart { listen: config.listen, options: args[2..].to_vec() })
        }
        Some(RunSubcommand::Topic { topic }) => {
            let (config, _) = given.resolve(None, here).map_err(refused)?;
            explained_topic(topic, config)
        }
        Some(RunSubcommand::Key { what: KeySubcommand::New(key) }) => Ok(Task::NewKey(key)),
        Some(RunSubcommand::Auth { what: AuthSubcommand::Check(token) }) => {
            let (config, _) = given.resolve(None, here).map_err(refused)?;
            Ok(Task::CheckToken(token, Box::new(config.access)))
        }
        Some(RunSubcommand::Healthcheck { url: Some(url) }) => Ok(Task::Healthcheck(vec![url])),
        Some(RunSubcommand::Healthcheck { url: None }) => {
            Ok(Task::Healthcheck(health_urls(&given.with_file(None).map_err(refused)?)))
        }
        Some(RunSubcommand::Config { what: ConfigSubcommand::Example }) => Err(Stop::Shown(render::example(&SETTINGS))),
        Some(RunSubcommand::Config { what: ConfigSubcommand::Check { file } }) => {
            let (config, _) = given.resolve(file, here).map_err(refused)?;
            match config.access.is_empty() {
                true => Err(Stop::Shown("ok\n".to_owned())),
                false => Ok(Task::Check(Box::new(config.access))),
            }
        }
        Some(RunSubcommand::Config { what: ConfigSubcommand::Show { file } }) => {
            let (config, settings) = given.resolve(file, here).map_err(refused)?;
            let following = |section: &Section, name: &str| match section.table.name {
                "" => config.following(name),
                "topic" => topics::following(section, name),
                _ => None,
            };
            Err(Stop::Shown(render::show(&settings, following)))
        }
    }
}

/// What `ringyard topic` is asked.
fn explained_topic(topic: String, config: Config) -> Result<Task, Stop> {
    // A topic of the broker's own has a rule too.
    match protocol::topic::check_name(&topic, config.limits.topic_bytes_max) {
        Ok(()) | Err(TopicError::Reserved) => Ok(Task::Topic { topic, tables: config.topics }),
        Err(error) => {
            let (topic, why) = (topic.escape_debug(), error.to_string());
            Err(Stop::Refused(format!("'{topic}' is not a topic: {}", why.trim_end_matches('.'))))
        }
    }
}

/// Where to ask for health, in turn. The rules do not apply: they are the broker's concern.
fn health_urls(settings: &Section) -> Vec<Url> {
    let mut urls = match settings.get("admin-listen") {
        Admin::At(address) => Url::health(address),
        Admin::Public | Admin::Off => Vec::new(),
    };
    urls.extend(Url::health(settings.get("listen")));
    urls
}
