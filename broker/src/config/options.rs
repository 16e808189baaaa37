//! Every option of `ringyard`, once: from these definitions come the command line, `--help`, the variables of the
//! environment, the keys of the file, `config show` and `config example`.
//!
//! Not responsible for what a value looks like ([`values`](crate::config::values)), for rules between options
//! ([`rules`](crate::config::rules)), or for what the limits mean ([`Limits`](crate::config::limits::Limits)).
//!
//! An option is repeatable if, and only if, its type is a list. Whatever has no default of its own says at the end
//! of its text, in brackets, what holds then.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Arg, Args, Command, CommandFactory, Parser, Subcommand};
use ipnet::IpNet;

use crate::config::url::Url;
use crate::config::values::{
    List, address, admin, choice, duration, file, host, list, network, number, origin, size, truth,
};
use crate::config::{Admin, IoChoice, LogFormat, LogLevel};

/// The command line. Every option holds for every subcommand, before or behind its name. A variable of the
/// environment that is empty says nothing: that is how compose files and the like leave one out.
pub(super) fn command() -> Command {
    let mut command = Options::command().mut_args(|arg| {
        let arg = arg.hide_env_values(true).allow_negative_numbers(true).global(true);
        let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| {
            // White space around a value says nothing.
            value.to_str().is_some_and(|value| value.trim().is_empty())
        });
        if is_empty { arg.env(Resettable::Reset) } else { arg }
    });
    // Only then can an option print itself.
    command.build();
    command
}

/// The options that are settings: what the environment and the file may say too, or, of `--config`, the first only.
pub(super) fn settings(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, _)| !["help", "version"].contains(name))
}

/// The variable of the environment that says what the setting `name` is.
pub(super) fn variable(name: &str) -> String {
    format!("RINGYARD_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// The setting that names the file, and so cannot stand in it.
pub(super) const FILE: &str = "config";

/// Ringyard: an io_uring publish/subscribe broker for the web. A message published to a topic once is sent
/// to every WebSocket that subscribes to it.
#[derive(Parser, Debug)]
#[command(name = "ringyard", version, next_line_help = true, after_help = AFTER_HELP)]
pub(super) struct Options {
    /// TOML file with settings: each has the name it has here, without the dashes [default: none]
    #[arg(long, value_name = "FILE", env = "RINGYARD_CONFIG", value_parser = file())]
    pub(super) config: Option<PathBuf>,

    /// Address to listen on, as host:port; `[::]` is every address, of IPv6 and IPv4; port 0 picks a free one. One that
    /// other machines reach needs --allow-anonymous
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "RINGYARD_LISTEN", value_parser = address)]
    pub(super) listen: SocketAddr,

    /// Where operators find /metrics and /api: an address of their own, public (beside everything else on
    /// --listen), or off
    #[arg(
        long,
        value_name = "ADDR|public|off",
        default_value = "127.0.0.1:8081",
        env = "RINGYARD_ADMIN_LISTEN",
        value_parser = admin
    )]
    pub(super) admin_listen: Admin,

    /// What moves the bytes: io_uring, or epoll, on which every connection is a descriptor; auto is
    /// io_uring where it can be used, and else epoll with a warning that says why
    #[arg(
        long,
        value_name = "auto|uring|epoll",
        env = "RINGYARD_IO",
        default_value = "auto",
        value_parser = choice::<IoChoice>
    )]
    pub(super) io: IoChoice,

    /// Number of shards, each a thread with its own io_uring or epoll [default: the number of cores]
    #[arg(long, value_name = "N", env = "RINGYARD_SHARDS", value_parser = number)]
    pub(super) shards: Option<u64>,

    /// Web origin whose pages may connect and publish, as `scheme://host[:port]`, besides the pages of the
    /// host they call; repeatable; * allows every origin. `file://` lets devices in whose WebSocket library sends that,
    /// and pages opened from a disk. `null` lets in every page that hides its origin, which a page of any web site can
    /// have a sandboxed frame do: nearly as much as * [default: none]
    #[arg(long, value_name = "ORIGIN", env = "RINGYARD_ALLOW_ORIGIN", value_parser = list(origin))]
    pub(super) allow_origin: Vec<List<String>>,

    #[command(flatten, next_help_heading = "Access control")]
    pub(super) access: AccessOptions,

    #[command(flatten, next_help_heading = "Log")]
    pub(super) log: LogOptions,

    #[command(flatten, next_help_heading = "Limits")]
    pub(super) sizes: Sizes,

    #[command(flatten, next_help_heading = "Times")]
    pub(super) times: Times,

    #[command(subcommand)]
    pub(super) subcommand: Option<RunSubcommand>,
}

#[derive(Args, Debug)]
pub(super) struct AccessOptions {
    /// Host name, with or without a port, that requests may be addressed to, besides localhost and IP
    /// addresses (against DNS rebinding); repeatable; * allows every name [default: none]
    #[arg(long, value_name = "HOST", env = "RINGYARD_ALLOW_HOST", value_parser = list(host))]
    pub(super) allow_host: Vec<List<String>>,

    /// Listen beyond loopback without authentication: whoever reaches the address may publish and subscribe
    #[arg(long, env = "RINGYARD_ALLOW_ANONYMOUS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = truth,
        action = clap::ArgAction::Set)]
    pub(super) allow_anonymous: bool,

    /// Address or network (10.0.0.0/8) of a proxy that is believed what it says of its clients' addresses
    /// (X-Forwarded-For, and the PROXY protocol with --proxy-protocol); repeatable [default: none]
    #[arg(long, value_name = "NET", env = "RINGYARD_TRUSTED_PROXY", value_parser = list(network))]
    pub(super) trusted_proxy: Vec<List<IpNet>>,

    /// Connections from trusted proxies begin with a PROXY protocol header, version 2
    #[arg(long, env = "RINGYARD_PROXY_PROTOCOL", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = truth,
        action = clap::ArgAction::Set)]
    pub(super) proxy_protocol: bool,
}

#[derive(Args, Debug)]
pub(super) struct LogOptions {
    /// Shape of a log line, on standard error
    #[arg(
        long,
        value_name = "text|json",
        env = "RINGYARD_LOG_FORMAT",
        default_value = "text",
        value_parser = choice::<LogFormat>
    )]
    pub(super) log_format: LogFormat,

    /// What matters less is not logged
    #[arg(
        long,
        value_name = "error|warn|info|debug",
        env = "RINGYARD_LOG_LEVEL",
        default_value = "info",
        value_parser = choice::<LogLevel>
    )]
    pub(super) log_level: LogLevel,
}

#[derive(Args, Debug)]
pub(super) struct Sizes {
    /// Connections of all shards together; beyond, 503 [default: as many as descriptors and memory allow]
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_CONNECTIONS", value_parser = number)]
    pub(super) max_connections: Option<u64>,

    /// Connections of one client address (of one /64 with IPv6); beyond, 429; loopback is exempt
    /// [default: a quarter of --max-connections]
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_CONNECTIONS_PER_ADDRESS", value_parser = number)]
    pub(super) max_connections_per_address: Option<u64>,

    /// WebSocket handshakes a second, of all shards together; beyond, 503 with Retry-After [default: no limit]
    #[arg(long, value_name = "N", env = "RINGYARD_ACCEPT_RATE", value_parser = number)]
    pub(super) accept_rate: Option<u64>,

    /// Messages a second that one WebSocket may publish, and twice as many at once; beyond, close 1008, or
    /// the error `limit` on /ws [default: no limit]
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_PUBLISH_RATE", value_parser = number)]
    pub(super) max_publish_rate: Option<u64>,

    /// Bytes of one message, all its frames together, and of the body of one POST
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_MESSAGE", default_value = "1m", value_parser = size)]
    pub(super) max_message: u64,

    /// Bytes of one WebSocket frame [default: what --max-message says]
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_FRAME", value_parser = size)]
    pub(super) max_frame: Option<u64>,

    /// Bytes of one request head
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_HEAD", default_value = "8k", value_parser = size)]
    pub(super) max_head: u64,

    /// Header fields of one request
    #[arg(
        long,
        value_name = "N",
        env = "RINGYARD_MAX_HEADERS",
        default_value = "64", value_parser = number
    )]
    pub(super) max_headers: u64,

    /// Bytes of one topic or filter, as UTF-8
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_TOPIC", default_value = "255", value_parser = size)]
    pub(super) max_topic: u64,

    /// Topics and filters at a time, those that are only remembered included
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_TOPICS", default_value = "1000000", value_parser = number)]
    pub(super) max_topics: u64,

    /// Topics that one connection may begin within --topic-idle-timeout [default: an eighth of --max-topics, but 1024 of them at least]
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_TOPICS_PER_CONNECTION", value_parser = number)]
    pub(super) max_topics_per_connection: Option<u64>,

    /// Subscriptions of one /ws connection
    #[arg(
        long,
        value_name = "N",
        env = "RINGYARD_MAX_SUBSCRIPTIONS",
        default_value = "1024", value_parser = number
    )]
    pub(super) max_subscriptions: u64,

    /// Bytes that the broker holds for its clients: messages, input, answers, HTTP bodies, names, subscriptions, with
    /// what the allocator adds [default: a quarter of the memory that is available at start, at most 1g]
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_MEMORY", value_parser = size)]
    pub(super) max_memory: Option<u64>,

    /// Bytes of messages that each shard keeps per topic for subscribers that are behind; one that is
    /// further behind is closed with code 1013 [default: 4m, or four messages if that is more; at most a quarter of
    /// --max-memory]
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_LAG", value_parser = size)]
    pub(super) max_lag: Option<u64>,

    /// Bytes of such messages in all topics of one shard [default: 256m, or the shard's part of half of --max-memory if
    /// that is less, but at least --max-lag]
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_LOG", value_parser = size)]
    pub(super) max_log: Option<u64>,

    /// Bytes of acknowledgements and pongs that wait for one connection that does not read
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_OUTBOX", default_value = "256k", value_parser = size)]
    pub(super) max_outbox: u64,
}

#[derive(Args, Debug)]
pub(super) struct Times {
    /// From the connection's first moment to a complete request head
    #[arg(long, value_name = "TIME", env = "RINGYARD_HANDSHAKE_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub(super) handshake_timeout: Duration,

    /// From the first byte of a message, or of the body of a POST, to its last
    #[arg(long, value_name = "TIME", env = "RINGYARD_MESSAGE_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub(super) message_timeout: Duration,

    /// How long an HTTP connection may be idle between two requests
    #[arg(long, value_name = "TIME", env = "RINGYARD_HTTP_IDLE_TIMEOUT", default_value = "75s", value_parser = duration)]
    pub(super) http_idle_timeout: Duration,

    /// An idle WebSocket is pinged this often
    #[arg(long, value_name = "TIME", env = "RINGYARD_PING_INTERVAL", default_value = "25s", value_parser = duration)]
    pub(super) ping_interval: Duration,

    /// Silence after a ping, or a send without progress, that ends a connection
    #[arg(long, value_name = "TIME", env = "RINGYARD_PING_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub(super) ping_timeout: Duration,

    /// How long a client may take to answer a close
    #[arg(long, value_name = "TIME", env = "RINGYARD_CLOSE_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub(super) close_timeout: Duration,

    /// How long a topic without subscribers remembers its offset after its last message
    #[arg(long, value_name = "TIME", env = "RINGYARD_TOPIC_IDLE_TIMEOUT", default_value = "1m", value_parser = duration)]
    pub(super) topic_idle_timeout: Duration,

    /// After SIGTERM, how long everything goes on while /readyz already says 503, so that load balancers
    /// look elsewhere
    #[arg(long, value_name = "TIME", env = "RINGYARD_DRAIN_DELAY", default_value = "0s", value_parser = duration)]
    pub(super) drain_delay: Duration,

    /// After SIGTERM, the time over which clients are told to go (1001), a few at a time, so that they do not
    /// come back all at once; SIGINT tells all of them at once
    #[arg(long, value_name = "TIME", env = "RINGYARD_DRAIN_WINDOW", default_value = "25s", value_parser = duration)]
    pub(super) drain_window: Duration,

    /// How long a shutdown may take besides; a second signal ends the broker at once
    #[arg(long, value_name = "TIME", env = "RINGYARD_SHUTDOWN_GRACE", default_value = "4s", value_parser = duration)]
    pub(super) shutdown_grace: Duration,
}

const AFTER_HELP: &str = "\
Without a command the broker starts. A setting is taken from its flag; else from its variable in the environment; else \
from the file of --config; else its default holds. `ringyard config show` prints which it was.

SIZE is a number of bytes with an optional k, m or g (powers of 1024): 64k, 16m, 1g.
TIME is a number with its unit, ms, s, m or h: 500ms, 10s, 2m.

Publish with:   curl -d 'hello' http://127.0.0.1:8080/pub/demo
Subscribe with: new WebSocket('ws://127.0.0.1:8080/sub/demo'), or open http://127.0.0.1:8080/";

#[derive(Subcommand, Clone, Debug)]
pub(super) enum RunSubcommand {
    /// Look at this machine: what the broker would find here, and the command that mends what is amiss
    ///
    /// Looks at the kernel, io_uring, limits, memory and network as the broker would with the same options, and says
    /// for each whether it is ok, and if not, what mends it. Exit status: 0, all is well or there are warnings; 1, there
    /// is a problem; 2, a flag is wrong.
    Doctor {
        /// Print an array of {name, status, value, advice}
        #[arg(long)]
        json: bool,
    },

    /// Ask the running broker whether it is alive, as container engines do
    ///
    /// Asks for /healthz at --admin-listen, or at --listen. Exit status: 0, it is healthy; 1, it is not.
    Healthcheck {
        /// Ask here instead, as http://host:port[/path]
        #[arg(long, value_name = "URL", value_parser = Url::parse)]
        url: Option<Url>,
    },

    /// Check, show or explain the settings
    Config {
        #[command(subcommand)]
        what: ConfigSubcommand,
    },
}

#[derive(Subcommand, Clone, Debug)]
pub(super) enum ConfigSubcommand {
    /// Say ok, or everything that is wrong with flags, environment and file. Exit status: 0 or 2
    Check {
        /// The file, if not that of --config
        file: Option<PathBuf>,
    },
    /// Print every setting with its value and where that comes from, as a file that --config takes
    Show {
        /// The file, if not that of --config
        file: Option<PathBuf>,
    },
    /// Print a file with every setting, its explanation and its default
    Example,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_variable() {
        for (name, arg) in settings(&command()) {
            assert_eq!(arg.get_env().map(|variable| variable.to_string_lossy().into_owned()), Some(variable(name)));
        }
    }
}
