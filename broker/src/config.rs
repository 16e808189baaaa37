//! The command line: what `ringyard --help` shows, and how options become a [`Config`].
//!
//! Not responsible for what the limits mean ([`Limits`] says that) nor for starting anything.
//!
//! Invariant: a [`Config`] is whole and consistent; nothing behind it checks options again. Whatever is
//! wrong with an option is one sentence that says what to change ([`Stop::Refused`]).
//!
//! Units on the command line: sizes in bytes with an optional `k`, `m` or `g` (powers of 1024);
//! durations with `ms`, `s`, `m` or `h`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::{NonZeroU32, NonZeroUsize};
use std::thread::available_parallelism;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use ipnet::IpNet;

use crate::limits::Limits;
use crate::topics::registry::ShardId;

/// Longest message that may be configured: one send's length is a signed 32-bit number in the kernel.
const MESSAGE_BYTES_TOP: u64 = 1 << 30;
/// Longest duration that may be configured.
const DURATION_TOP: Duration = Duration::from_secs(1000 * 3600);
/// Most header fields that `protocol::head` reads.
const HEADERS_TOP: u64 = 100;
/// Most shards: far beyond any machine's cores, well within what queues between them cost.
const SHARDS_TOP: u64 = 1024;

/// Everything the broker was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// What moves the bytes.
    pub io: IoChoice,
    /// How many shards, at least 1.
    pub shards: ShardId,
    /// Where operators ask.
    pub admin: Admin,
    /// Most connections of all shards together; `None`: as many as descriptors and memory allow.
    pub connections_max: Option<NonZeroU32>,
    /// What is logged, and how.
    pub log: Log,
    /// All other limits.
    pub limits: Limits,
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

/// Why there is no [`Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `--help` or `--version`: a text for standard output, and success.
    Shown(String),
    /// A bad option: a sentence for standard error, and exit code 2.
    Refused(String),
}

impl Config {
    /// Reads the arguments, the program's name first, and the `RINGYARD_...` variables of the environment.
    ///
    /// # Errors
    /// [`Stop`]: help was asked for, or an option is wrong.
    pub fn from_args<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> Result<Self, Stop> {
        let command = Options::command().mut_args(|arg| arg.hide_env_values(true).allow_negative_numbers(true));
        let matches = command.try_get_matches_from(args).map_err(stop)?;
        Options::from_arg_matches(&matches).map_err(stop)?.check().map_err(Stop::Refused)
    }
}

/// Ringyard: an io_uring publish/subscribe broker for the web. A message published to a topic once is sent
/// to every WebSocket that subscribes to it.
#[derive(Parser, Debug)]
#[command(name = "ringyard", version, next_line_help = true, after_help = AFTER_HELP)]
struct Options {
    /// Address to listen on, as host:port; port 0 picks a free one. One that other machines reach needs
    /// --allow-anonymous
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "RINGYARD_LISTEN")]
    listen: String,

    /// Where operators find /metrics and /api: an address of their own, public (beside everything else on
    /// --listen), or off
    #[arg(long, value_name = "ADDR|public|off", default_value = "127.0.0.1:8081", env = "RINGYARD_ADMIN_LISTEN")]
    admin_listen: String,

    /// What moves the bytes: io_uring, or epoll, which does the same with more processor time; auto is
    /// io_uring where it can be used, and else epoll with a warning that says why
    #[arg(
        long,
        value_name = "auto|uring|epoll",
        env = "RINGYARD_IO",
        default_value = "auto",
        hide_possible_values = true
    )]
    io: IoChoice,

    /// Number of shards, each a thread with its own io_uring or epoll [default: the number of cores]
    #[arg(long, value_name = "N", env = "RINGYARD_SHARDS", value_parser = number)]
    shards: Option<u64>,

    /// Web origin whose pages may connect and publish, as `scheme://host[:port]`, besides the pages of the
    /// host they call; repeatable; * allows every origin [default: none]
    #[arg(long, value_name = "ORIGIN", env = "RINGYARD_ALLOW_ORIGIN", value_delimiter = ',', value_parser = origin)]
    allow_origin: Vec<String>,

    #[command(flatten, next_help_heading = "Doors")]
    doors: Doors,

    #[command(flatten, next_help_heading = "Log")]
    log: LogOptions,

    #[command(flatten, next_help_heading = "Limits")]
    sizes: Sizes,

    #[command(flatten, next_help_heading = "Times")]
    times: Times,
}

#[derive(Args, Debug)]
struct Doors {
    /// Host name, with or without a port, that requests may be addressed to, besides localhost and IP
    /// addresses (against DNS rebinding); repeatable; * allows every name [default: none]
    #[arg(long, value_name = "HOST", env = "RINGYARD_ALLOW_HOST", value_delimiter = ',', value_parser = host)]
    allow_host: Vec<String>,

    /// Listen beyond loopback without authentication: whoever reaches the address may publish and subscribe
    #[arg(long, env = "RINGYARD_ALLOW_ANONYMOUS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set)]
    allow_anonymous: bool,

    /// Address or network (10.0.0.0/8) of a proxy that is believed what it says of its clients' addresses
    /// (X-Forwarded-For, and the PROXY protocol with --proxy-protocol); repeatable [default: none]
    #[arg(long, value_name = "NET", env = "RINGYARD_TRUSTED_PROXY", value_delimiter = ',', value_parser = network)]
    trusted_proxy: Vec<IpNet>,

    /// Connections from trusted proxies begin with a PROXY protocol header, version 2
    #[arg(long, env = "RINGYARD_PROXY_PROTOCOL", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set)]
    proxy_protocol: bool,
}

#[derive(Args, Debug)]
struct LogOptions {
    /// Shape of a log line, on standard error
    #[arg(
        long,
        value_name = "text|json",
        env = "RINGYARD_LOG_FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    log_format: LogFormat,

    /// What matters less is not logged
    #[arg(
        long,
        value_name = "error|warn|info|debug",
        env = "RINGYARD_LOG_LEVEL",
        default_value = "info",
        hide_possible_values = true
    )]
    log_level: LogLevel,
}

#[derive(Args, Debug)]
struct Sizes {
    /// Connections of all shards together; beyond, 503 [default: as many as descriptors and memory allow]
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_CONNECTIONS", value_parser = number)]
    max_connections: Option<u64>,

    /// Connections of one client address (of one /64 with IPv6); beyond, 429; loopback is exempt
    /// [default: a quarter of --max-connections]
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_CONNECTIONS_PER_ADDRESS", value_parser = number)]
    max_connections_per_address: Option<u64>,

    /// WebSocket handshakes a second, of all shards together; beyond, 503 with Retry-After [default: no limit]
    #[arg(long, value_name = "N", env = "RINGYARD_ACCEPT_RATE", value_parser = number)]
    accept_rate: Option<u64>,

    /// Messages a second that one WebSocket may publish, and twice as many at once; beyond, close 1008, or
    /// the error `limit` on /ws [default: no limit]
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_PUBLISH_RATE", value_parser = number)]
    max_publish_rate: Option<u64>,

    /// Bytes of one message, all its frames together, and of the body of one POST
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_MESSAGE", default_value = "1m", value_parser = size)]
    max_message: u64,

    /// Bytes of one WebSocket frame [default: what --max-message says]
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_FRAME", value_parser = size)]
    max_frame: Option<u64>,

    /// Bytes of one request head
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_HEAD", default_value = "8k", value_parser = size)]
    max_head: u64,

    /// Header fields of one request
    #[arg(
        long,
        value_name = "N",
        env = "RINGYARD_MAX_HEADERS",
        default_value = "64", value_parser = number
    )]
    max_headers: u64,

    /// Bytes of one topic or filter, as UTF-8
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_TOPIC", default_value = "255", value_parser = size)]
    max_topic: u64,

    /// Topics and filters at a time, those that are only remembered included
    #[arg(long, value_name = "N", env = "RINGYARD_MAX_TOPICS", default_value = "1000000", value_parser = number)]
    max_topics: u64,

    /// Subscriptions of one /ws connection
    #[arg(
        long,
        value_name = "N",
        env = "RINGYARD_MAX_SUBSCRIPTIONS",
        default_value = "1024", value_parser = number
    )]
    max_subscriptions: u64,

    /// Bytes of messages that each shard keeps per topic for subscribers that are behind; one that is
    /// further behind is closed with code 1013 [default: 4m, or four messages if that is more]
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_LAG", value_parser = size)]
    max_lag: Option<u64>,

    /// Bytes of such messages in all topics of one shard [default: 256m, or --max-lag if that is more]
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_LOG", value_parser = size)]
    max_log: Option<u64>,

    /// Bytes of acknowledgements and pongs that wait for one connection that does not read
    #[arg(long, value_name = "SIZE", env = "RINGYARD_MAX_OUTBOX", default_value = "256k", value_parser = size)]
    max_outbox: u64,
}

#[derive(Args, Debug)]
struct Times {
    /// From the connection's first moment to a complete request head
    #[arg(long, value_name = "TIME", env = "RINGYARD_HANDSHAKE_TIMEOUT", default_value = "10s", value_parser = duration)]
    handshake_timeout: Duration,

    /// An idle WebSocket is pinged this often
    #[arg(long, value_name = "TIME", env = "RINGYARD_PING_INTERVAL", default_value = "25s", value_parser = duration)]
    ping_interval: Duration,

    /// Silence after a ping, or a send without progress, that ends a connection
    #[arg(long, value_name = "TIME", env = "RINGYARD_PING_TIMEOUT", default_value = "20s", value_parser = duration)]
    ping_timeout: Duration,

    /// How long a client may take to answer a close
    #[arg(long, value_name = "TIME", env = "RINGYARD_CLOSE_TIMEOUT", default_value = "5s", value_parser = duration)]
    close_timeout: Duration,

    /// How long a topic without subscribers remembers its offset after its last message
    #[arg(long, value_name = "TIME", env = "RINGYARD_TOPIC_IDLE_TIMEOUT", default_value = "1m", value_parser = duration)]
    topic_idle_timeout: Duration,

    /// After SIGTERM, how long everything goes on while /readyz already says 503, so that load balancers
    /// look elsewhere
    #[arg(long, value_name = "TIME", env = "RINGYARD_DRAIN_DELAY", default_value = "0s", value_parser = duration)]
    drain_delay: Duration,

    /// After SIGTERM, the time over which clients are told to go (1001), a few at a time, so that they do not
    /// come back all at once; SIGINT tells all of them at once
    #[arg(long, value_name = "TIME", env = "RINGYARD_DRAIN_WINDOW", default_value = "25s", value_parser = duration)]
    drain_window: Duration,

    /// How long a shutdown may take besides; a second signal ends the broker at once
    #[arg(long, value_name = "TIME", env = "RINGYARD_SHUTDOWN_GRACE", default_value = "4s", value_parser = duration)]
    shutdown_grace: Duration,
}

const AFTER_HELP: &str = "\
SIZE is a number of bytes with an optional k, m or g (powers of 1024): 64k, 16m, 1g.
TIME is a number with its unit, ms, s, m or h: 500ms, 10s, 2m.

Publish with:   curl -d 'hello' http://127.0.0.1:8080/pub/demo
Subscribe with: new WebSocket('ws://127.0.0.1:8080/sub/demo'), or open http://127.0.0.1:8080/";

impl Options {
    /// The rules that hold between options.
    fn check(self) -> Result<Config, String> {
        let Self { doors, log: logging, sizes, times, .. } = self;
        let message = within("--max-message", sizes.max_message, 1, MESSAGE_BYTES_TOP)?;
        let frame = within("--max-frame", sizes.max_frame.unwrap_or(message), 1, MESSAGE_BYTES_TOP)?;
        at_most(("--max-frame", frame), ("--max-message", message))?;
        let head = within("--max-head", sizes.max_head, 256, 1 << 20)?;
        let topic = within("--max-topic", sizes.max_topic, 1, 1 << 16)?;
        at_most(("--max-topic", topic), ("--max-head", head))?;
        let headers = count("--max-headers", sizes.max_headers, 4, HEADERS_TOP)?;
        let lag = sizes.max_lag.unwrap_or((4 << 20).max(4 * message));
        at_most(("--max-message", message), ("--max-lag", lag))?;
        let log = sizes.max_log.unwrap_or((256 << 20).max(lag));
        at_most(("--max-lag", lag), ("--max-log", log))?;
        let outbox = within("--max-outbox", sizes.max_outbox, 1 << 10, MESSAGE_BYTES_TOP)?;
        if let Some(connections) = sizes.max_connections {
            count("--max-connections", connections, 1, u64::from(u32::MAX))?;
        }
        let optional = |option, value: Option<u64>| {
            value
                .map(|n| {
                    count(option, n, 1, u64::from(u32::MAX)).map(|n| NonZeroU32::new(n as u32).expect("at least 1"))
                })
                .transpose()
        };
        let per_address = optional("--max-connections-per-address", sizes.max_connections_per_address)?;
        let accept_rate = optional("--accept-rate", sizes.accept_rate)?;
        let publish_rate = optional("--max-publish-rate", sizes.max_publish_rate)?;
        let subscriptions = count("--max-subscriptions", sizes.max_subscriptions, 1, u64::from(u32::MAX))?;
        let topics = count("--max-topics", sizes.max_topics, 1, u64::from(u32::MAX))?;
        let cores = available_parallelism().map_or(1, NonZeroUsize::get) as u64;
        let shards = count("--shards", self.shards.unwrap_or(cores.min(SHARDS_TOP)), 1, SHARDS_TOP)?;
        let listen = address("--listen", &self.listen)?;
        if !listen.ip().to_canonical().is_loopback() && !doors.allow_anonymous {
            return Err(format!(
                "--listen {listen} can be reached from other machines, and there is no authentication: whoever \
                 reaches it may publish and subscribe; say --allow-anonymous if that is meant"
            ));
        }
        if doors.proxy_protocol && doors.trusted_proxy.is_empty() {
            return Err("--proxy-protocol needs --trusted-proxy: the addresses that such a header is taken from".into());
        }
        let admin = match self.admin_listen.trim() {
            "public" => Admin::Public,
            "off" => Admin::Off,
            text => Admin::At(address("--admin-listen", text)?),
        };
        Ok(Config {
            listen,
            admin,
            log: Log { format: logging.log_format, level: logging.log_level },
            io: self.io,
            shards: ShardId::try_from(shards).expect("at most SHARDS_TOP"),
            connections_max: sizes.max_connections.map(|n| NonZeroU32::new(n as u32).expect("checked above")),
            limits: Limits {
                head_bytes_max: head as usize,
                headers_max: headers as usize,
                frame_bytes_max: frame,
                message_bytes_max: message,
                topic_bytes_max: topic as usize,
                topics_max: topics as usize,
                subscriptions_max: subscriptions as usize,
                lag_bytes_max: lag,
                log_bytes_max: log,
                outbox_bytes_max: outbox as usize,
                handshake_timeout: above_zero("--handshake-timeout", times.handshake_timeout)?,
                ping_interval: above_zero("--ping-interval", times.ping_interval)?,
                ping_timeout: above_zero("--ping-timeout", times.ping_timeout)?,
                close_timeout: above_zero("--close-timeout", times.close_timeout)?,
                topic_idle_timeout: times.topic_idle_timeout,
                drain_delay: times.drain_delay,
                drain_window: times.drain_window,
                shutdown_grace: times.shutdown_grace,
                connections_per_address_max: per_address,
                accept_rate_max: accept_rate,
                publish_rate_max: publish_rate,
                origins: self.allow_origin,
                hosts: doors.allow_host,
                trusted_proxies: doors.trusted_proxy,
                proxy_protocol: doors.proxy_protocol,
            },
        })
    }
}

fn count(option: &str, value: u64, least: u64, most: u64) -> Result<u64, String> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(format!("{option} is {value}, but must be from {least} to {most}"))
}

fn within(option: &str, value: u64, least: u64, most: u64) -> Result<u64, String> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(format!("{option} is {}, but must be from {} to {}", Size(value), Size(least), Size(most)))
}

fn at_most((small, a): (&str, u64), (large, b): (&str, u64)) -> Result<(), String> {
    if a <= b {
        return Ok(());
    }
    Err(format!("{small} ({}) must not be above {large} ({}): lower the one or raise the other", Size(a), Size(b)))
}

fn above_zero(option: &str, time: Duration) -> Result<Duration, String> {
    if time.is_zero() {
        return Err(format!("{option} is 0, but must be at least 1ms"));
    }
    Ok(time)
}

/// Bytes as the command line writes them.
struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(30, "g"), (20, "m"), (10, "k")];
        match units.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// `64`, `1024`.
fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "it must be a whole number, such as 4".into())
}

/// `64k`, `16m`, `1g`, `1000`.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => {
            return Err("a size is a number of bytes with an optional k, m or g, such as 64k or 16m".into());
        }
    };
    let number: u64 = number.parse().map_err(|_| "a size is a whole number, such as 4096, 64k or 16m")?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than any machine can hold".into())
}

/// `500ms`, `10s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        _ => return Err("a time needs its unit, ms, s, m or h, such as 500ms or 10s".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a time is a whole number with its unit, such as 500ms or 10s")?;
    let time = number.checked_mul(unit_ms).map(Duration::from_millis).filter(|time| *time <= DURATION_TOP);
    time.ok_or_else(|| format!("the longest time is {}h", DURATION_TOP.as_secs() / 3600))
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `https://example.org`, `http://localhost:3000` or `*`, as a browser would write it: lower case, no
/// default port, nothing behind the port (RFC 6454 §6.2).
fn origin(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{why}; an origin is scheme://host[:port], such as https://example.org, or *"));
    if text == "*" {
        return Ok(text.to_owned());
    }
    let origin = text.to_ascii_lowercase();
    let Some((scheme, rest)) = origin.split_once("://") else {
        return wrong("the scheme is missing");
    };
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase())
        || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return wrong("the scheme is none");
    }
    if rest.ends_with('/') {
        return wrong("there is a slash at its end");
    }
    let Ok(authority) = rest.parse::<axum::http::uri::Authority>() else {
        return wrong("the host is none, or something follows it");
    };
    let host = authority.host();
    if authority.as_str().contains('@') || host.is_empty() || host.contains('*') {
        return wrong("the host is none");
    }
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => None,
        Some(_) => match authority.port_u16() {
            Some(port) => Some(port),
            None => return wrong("the port is none"),
        },
        None => return wrong("the host is none"),
    };
    Ok(match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

/// `example.org`, `example.org:8080`, `*`.
fn host(text: &str) -> Result<String, String> {
    let wrong = || "a host is a name with or without a port, such as example.org or example.org:8080, or *".to_owned();
    let host = text.trim().to_ascii_lowercase();
    if host == "*" {
        return Ok(host);
    }
    let authority = host.parse::<axum::http::uri::Authority>().map_err(|_| wrong())?;
    let name = authority.host();
    let port = authority.as_str().strip_prefix(name).ok_or_else(wrong)?;
    if name.is_empty() || name.contains(['*', '@']) || !(port.is_empty() || authority.port_u16().is_some()) {
        return Err(wrong());
    }
    Ok(host)
}

/// `10.0.0.0/8`, `::1`.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        "a network is an address with or without a prefix length, such as 10.0.0.0/8 or 192.168.1.5".to_owned()
    })
}

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
fn address(option: &str, text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let sentence = || {
        format!(
            "'{text}' is no address for {option}: give host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:8080"
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(sentence)?;
    if host.is_empty() || host.contains([':', '/', ' ']) || port.parse::<u16>().is_err() {
        return Err(sentence());
    }
    let resolved = text.to_socket_addrs().map_err(|_| {
        format!("the host '{host}' of {option} is not known to this machine: give one of its names or addresses")
    })?;
    let mut resolved: Vec<_> = resolved.collect();
    // Where a name means both, the printed address, 127.0.0.1 in scripts and `localhost` all work with IPv4.
    resolved.sort_by_key(SocketAddr::is_ipv6);
    resolved.first().copied().ok_or_else(sentence)
}

/// A parser's complaint as one sentence.
fn stop(error: clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Stop::Shown(error.render().to_string());
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    let mut sentence = words.join(" ");
    if let Some(similar) = context(ContextKind::SuggestedArg) {
        sentence.push_str(&format!(": did you mean {similar}?"));
    }
    Stop::Refused(format!("{sentence} (`ringyard --help` explains every option)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[&str]) -> Result<Config, String> {
        Config::from_args(["ringyard"].iter().chain(options)).map_err(|stop| match stop {
            Stop::Refused(sentence) => sentence,
            Stop::Shown(text) => panic!("shown: {text}"),
        })
    }

    fn limits(options: &[&str]) -> Limits {
        config(options).unwrap().limits
    }

    #[test]
    fn defaults_are_those_of_limits() {
        let config = config(&[]).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
        assert!(config.shards >= 1);
        assert_eq!(config.connections_max, None);
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("77", 77), ("64k", 64 << 10), ("16M", 16 << 20), ("1g", 1 << 30), ("2 KiB", 2048)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1.5m", "1t", "0x10", "99999999999999999999", "18446744073709551615k"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(
            [Size(0), Size(1000), Size(8 << 10), Size(3 << 20), Size(1 << 30)].map(|s| s.to_string()),
            ["0", "1000", "8k", "3m", "1g"]
        );
    }

    #[test]
    fn durations() {
        let cases = [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1d", "1001h", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn origins() {
        let cases = [
            ("*", "*"),
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG:443", "https://example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
        ];
        for (text, expected) in cases {
            assert_eq!(origin(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "example.org",
            "https://",
            "https://example.org/",
            "https://example.org/a",
            "https://a b",
            "null",
            "://a",
            "https://u@a",
            "https://a:b",
            "https://a:99999",
            "https://a:",
            "https://*.a",
            "1x://a",
            "https://a?b",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (text, expected) in
            [("[::1]:81", "[::1]:81"), ("0.0.0.0:0", "0.0.0.0:0"), ("localhost:8080", "127.0.0.1:8080")]
        {
            assert_eq!(address("--listen", text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "8080", ":8080", "localhost", "::1:8080", "127.0.0.1:99999", "http://localhost:8080", "a b:1"]
        {
            assert!(address("--listen", text).unwrap_err().contains("--listen"), "{text}");
        }
    }

    #[test]
    fn a_driver_is_chosen() {
        for (name, io) in [("auto", IoChoice::Auto), ("uring", IoChoice::Uring), ("epoll", IoChoice::Epoll)] {
            assert_eq!(config(&["--io", name]).unwrap().io, io);
        }
    }

    #[test]
    fn a_larger_message_takes_the_other_limits_along() {
        let limits = limits(&["--max-message", "64m"]);
        assert_eq!(limits.message_bytes_max, 64 << 20);
        assert_eq!(limits.frame_bytes_max, 64 << 20);
        assert_eq!(limits.lag_bytes_max, 256 << 20);
        assert_eq!(limits.log_bytes_max, 256 << 20);
        let limits = super::tests::limits(&["--max-message", "1g"]);
        assert_eq!((limits.lag_bytes_max, limits.log_bytes_max), (4 << 30, 4 << 30));
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
            "--drain-delay=8s",
            "--drain-window=9s",
            "--shutdown-grace=6s",
            "--max-connections-per-address=10",
            "--accept-rate=11",
            "--max-publish-rate=12",
            "--allow-host=Broker.example,b:81",
            "--trusted-proxy=10.0.0.0/8,::1",
            "--proxy-protocol",
            "--allow-origin=http://a.b",
            "--allow-origin=https://c",
        ]);
        let expected = Limits {
            head_bytes_max: 16 << 10,
            headers_max: 32,
            frame_bytes_max: 2 << 10,
            message_bytes_max: 3 << 10,
            topic_bytes_max: 100,
            topics_max: 7,
            subscriptions_max: 5,
            lag_bytes_max: 1 << 20,
            log_bytes_max: 2 << 20,
            outbox_bytes_max: 8 << 10,
            handshake_timeout: Duration::from_secs(1),
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(3),
            close_timeout: Duration::from_secs(4),
            topic_idle_timeout: Duration::from_secs(5),
            drain_delay: Duration::from_secs(8),
            drain_window: Duration::from_secs(9),
            shutdown_grace: Duration::from_secs(6),
            connections_per_address_max: NonZeroU32::new(10),
            accept_rate_max: NonZeroU32::new(11),
            publish_rate_max: NonZeroU32::new(12),
            hosts: vec!["broker.example".into(), "b:81".into()],
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            proxy_protocol: true,
            origins: vec!["http://a.b".into(), "https://c".into()],
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
            (&["--max-frame", "2m"], "--max-message (1m)"),
            (&["--max-lag", "1k"], "--max-lag (1k)"),
            (&["--max-log", "1m"], "--max-log (1m)"),
            (&["--max-topic", "9k"], "--max-head (8k)"),
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
            let sentence = config(options).unwrap_err();
            assert!(sentence.contains(part), "{options:?}: {sentence}");
            assert!(!sentence.contains('\n'), "{options:?}: {sentence}");
        }
    }

    #[test]
    fn help_explains_every_option_with_its_default() {
        let Err(Stop::Shown(help)) = Config::from_args(["ringyard", "--help"]) else { panic!("no help") };
        for argument in Options::command().get_arguments() {
            let name = argument.get_long().unwrap();
            let at = [' ', '\n', '['].iter().find_map(|end| help.find(&format!("--{name}{end}")));
            let text = &help[at.unwrap_or_else(|| panic!("{name} is not explained"))..];
            let text = &text[..text.find("\n      --").unwrap_or(text.len())];
            assert!(name == "help" || name == "version" || text.contains("[default: "), "{name}: {text}");
        }
    }
}
