//! Every setting of the broker, once. From this list come the flags and `--help`, the variables of the environment, the
//! keys of the file, `config show`, `config example` and the table of CONFIGURATION.md.
//!
//! To add a setting: one entry here, and the field of [`Config`](crate::config::Config) or
//! [`Limits`](crate::config::limits::Limits) that takes its value. What holds between settings is in
//! [`rules`](crate::config::rules).

use crate::config::auth_schema::{ALLOW, AUTH, KEY};
use crate::config::schema::DefaultValue::{Fixed, Otherwise};
use crate::config::schema::Kind::{
    Address, Admin, Bool, Choice, Host, List, Network, Number, Origin, Path, Size, Time,
};
use crate::config::schema::{Group, Key, Table, key};
use crate::config::tls::TLS;
use crate::config::topics::TOPIC;
use crate::config::values::SIZE_TOP;

/// Longest message that may be configured: one send's length is a signed 32-bit number in the kernel.
const MESSAGE_BYTES_TOP: u64 = 1 << 30;
/// Least memory for what is held for clients: below, nothing would get on.
const MEMORY_BYTES_LEAST: u64 = 4 << 20;
/// Most header fields that `protocol::head` reads.
const HEADERS_TOP: u64 = 100;
/// Most shards: far beyond any machine's cores, well within what queues between them cost.
pub(super) const SHARDS_TOP: u64 = 1024;
/// The highest count.
const COUNT_TOP: u64 = u32::MAX as u64;

/// The setting that names the file: a flag and a variable, but no key of the file.
pub(super) static FILE: Key = key("config", Path, Otherwise("none", "ringyard.toml"), "0.1")
    .help("TOML file with settings: each has the name it has here, without the dashes");

/// All other settings.
pub(super) static SETTINGS: Table = Table {
    name: "",
    is_array: false,
    help: "Every setting of ringyard with its default. Printed by `ringyard config example`; `ringyard config check \
           FILE` checks a file. Precedence: flag, environment, file, default. To change a setting, remove the # in \
           front of it.",
    groups: &[
        Group { heading: "", keys: GENERAL },
        Group { heading: "Access control", keys: ACCESS },
        Group { heading: "Log", keys: LOG },
        Group { heading: "Limits", keys: LIMITS },
        Group { heading: "Times", keys: TIMES },
    ],
    tables: &[TOPIC, AUTH, ALLOW, KEY, TLS],
};

const GENERAL: &[Key] = &[
    key("listen", Address, Fixed("127.0.0.1:8080"), "0.1").help(
        "Address to listen on, as host:port; `[::]` is every address, of IPv6 and IPv4; port 0 picks a free one. One \
         that other machines reach needs [auth] or --allow-anonymous",
    ),
    key("admin-listen", Admin, Fixed("127.0.0.1:8081"), "0.1").help(
        "Where operators find /metrics and /api: an address of their own, public (beside everything else on --listen), \
         or off",
    ),
    key("tls-listen", Address, Otherwise("none", "0.0.0.0:8443"), "0.1").help(
        "Address to listen on with TLS (wss://, https://), beside --listen; needs a [[tls]] table in the file",
    ),
    key("tls-only", Bool, Fixed("false"), "0.1").help(
        "Of the two ports, let other machines reach only that of --tls-listen: --listen on every address is --listen on \
         loopback then",
    ),
    key("tls-min", Choice("1.2|1.3"), Fixed("1.2"), "0.1").help("Oldest version of TLS that is spoken"),
    key("tls-key-exchange", Choice("hybrid|classic"), Fixed("hybrid"), "0.1").help(
        "Key exchanges that are taken: hybrid, X25519 with ML-KEM-768, which a future quantum computer does not break, and \
         the others; classic, only X25519, P-256 and P-384, with hellos that are 1 KB shorter",
    ),
    key("io", Choice("auto|uring|epoll"), Fixed("auto"), "0.1").help(
        "I/O driver: io_uring, or epoll, on which every connection is a descriptor; auto is io_uring where it can be \
         used, else epoll with a warning that says why",
    ),
    key("take-over", Bool, Fixed("false"), "0.1").help(
        "Take over from the broker that runs at --listen: it hands over its listening sockets, so that no newcomer is \
         refused, and leaves when this one is ready; where none runs, start as usual",
    ),
    key("shards", Number(1, SHARDS_TOP), Otherwise("the number of cores", "2"), "0.1")
        .help("Number of shards, each a thread with its own io_uring or epoll"),
    key("allow-origin", List(&Origin), Otherwise("none", "https://example.org"), "0.1").help(
        "Web origin whose pages may connect and publish, as `scheme://host[:port]`, besides the pages of the host they \
         call; repeatable. `http://localhost:*` allows every port, `https://*.example.org` one level in place of *, and * \
         every origin. `file://` lets devices in whose WebSocket library sends that, and \
         pages opened from a disk. `null` lets in every page that hides its origin, which a page of any web site can \
         have a sandboxed frame do: nearly as much as *",
    ),
];

const ACCESS: &[Key] = &[
    key("allow-host", List(&Host), Otherwise("none", "example.org"), "0.1").help(
        "Host name, with or without a port, that requests may be addressed to, besides localhost and IP addresses \
         (against DNS rebinding); repeatable; * allows every name",
    ),
    key("allow-anonymous", Bool, Fixed("false"), "0.1")
        .help(
            "Listen beyond loopback though no token or key is required: without [auth], [[allow]] and [[key]] everyone who \
             reaches the address may publish and subscribe",
        ),
    key("client-publish", Choice("on|off"), Fixed("on"), "0.1").help(
        "Whether clients may publish without a key: on /bus and /ws and, if there is no --publish-key, with POST /pub and \
         on /pub; off: they only subscribe, and publishing gets 403, or the error `forbidden` on /ws",
    ),
    key("publish-key", Path, Otherwise("none", "/etc/ringyard/publish-key"), "0.1").help(
        "File with keys to publish with, one a line, each of at least 16 visible ASCII characters; anyone who sends \
         one (Authorization: Bearer KEY) may publish; without one, POST /pub and /pub get 401. Several lines are several valid \
         keys, so that one can be replaced; # begins a comment",
    ),
    key("trusted-proxy", List(&Network), Otherwise("none", "10.0.0.0/8"), "0.1").help(
        "Address or network (10.0.0.0/8) of a proxy that is trusted to name its clients' addresses (X-Forwarded-For, \
         and the PROXY protocol with --proxy-protocol); repeatable",
    ),
    key("proxy-protocol", Bool, Fixed("false"), "0.1")
        .help("Connections from trusted proxies begin with a PROXY protocol header, version 2"),
];

const LOG: &[Key] = &[
    key("log-format", Choice("text|json"), Fixed("text"), "0.1").help("Shape of a log line, on standard error"),
    key("log-level", Choice("error|warn|info|debug"), Fixed("info"), "0.1").help("Least severity that is logged"),
];

const LIMITS: &[Key] = &[
    key("max-connections", Number(1, COUNT_TOP), Otherwise("as many as descriptors and memory allow", "100000"), "0.1")
        .help("Connections of all shards together; beyond, 503"),
    key(
        "max-connections-per-address",
        Number(1, COUNT_TOP),
        Otherwise("a quarter of --max-connections", "1000"),
        "0.1",
    )
    .help("Connections of one client address (of one /64 with IPv6); beyond, 429; loopback is exempt"),
    key("accept-rate", Number(1, COUNT_TOP), Otherwise("no limit", "1000"), "0.1")
        .help("WebSocket handshakes a second, of all shards together; beyond, 503 with Retry-After"),
    key("max-publish-rate", Number(1, COUNT_TOP), Otherwise("no limit", "1000"), "0.1").help(
        "Messages a second that one WebSocket may publish, and twice as many at once; beyond, close 1008, or the error \
         `limit` on /ws",
    ),
    key("max-message", Size(1, MESSAGE_BYTES_TOP), Fixed("1m"), "0.1")
        .help("Bytes of one message, all its frames together, and of the body of one POST"),
    key("max-frame", Size(1, MESSAGE_BYTES_TOP), Otherwise("the same as --max-message", "1m"), "0.1")
        .help("Bytes of one WebSocket frame"),
    key("max-head", Size(256, 1 << 20), Fixed("8k"), "0.1").help("Bytes of one request head"),
    key("max-headers", Number(4, HEADERS_TOP), Fixed("64"), "0.1").help("Header fields of one request"),
    key("max-topic", Size(1, 1 << 16), Fixed("255"), "0.1").help("Bytes of one topic or filter, as UTF-8"),
    key("max-topics", Number(1, COUNT_TOP), Fixed("1000000"), "0.1")
        .help("Topics and filters at a time, those that are only remembered included"),
    key(
        "max-topics-per-connection",
        Number(1, COUNT_TOP),
        Otherwise("an eighth of --max-topics, but at least 1024 of them", "1000"),
        "0.1",
    )
    .help("Topics that one connection may begin within --topic-idle-timeout"),
    key("max-subscriptions", Number(1, COUNT_TOP), Fixed("1024"), "0.1").help("Subscriptions of one /ws connection"),
    key("max-requests", Number(1, 1 << 16), Fixed("64"), "0.1")
        .help("Requests of one /ws connection that wait for their answers; beyond, the error `busy`"),
    key("max-sessions", Number(0, COUNT_TOP), Otherwise("--max-connections", "100000"), "0.1").help(
        "Sessions that clients of /ws can come back to, of all shards together; beyond, the one that would end first makes room, \
         or there is none",
    ),
    key(
        "max-memory",
        Size(MEMORY_BYTES_LEAST, SIZE_TOP),
        Otherwise("a quarter of the memory that is available at start, at most 1g", "1g"),
        "0.1",
    )
    .help(
        "Bytes that the broker holds for its clients: messages, input, answers, HTTP bodies, names, subscriptions, \
         with what the allocator adds",
    ),
    key(
        "max-lag",
        Size(0, SIZE_TOP),
        Otherwise("4m, or four messages if that is more; at most a quarter of --max-memory", "4m"),
        "0.1",
    )
    .help(
        "Bytes of messages that each shard keeps per topic for subscribers that are behind; one that is further \
         behind is closed with code 1013",
    ),
    key(
        "max-log",
        Size(0, SIZE_TOP),
        Otherwise("256m, or the shard's part of half of --max-memory if that is less, but at least --max-lag", "256m"),
        "0.1",
    )
    .help("Bytes of such messages in all topics of one shard"),
    key(
        "max-history",
        Size(0, SIZE_TOP),
        Otherwise("64m, or a quarter of --max-memory if that is less", "64m"),
        "0.1",
    )
    .help(
        "Bytes that topics remember, in all: their windows, keys and retained messages; beyond, the window of the topic \
         that was least recently published to is emptied, and new keys and retained messages are refused",
    ),
    key("max-keys", Number(0, COUNT_TOP), Fixed("1000000"), "0.1")
        .help("Keys and retained messages, in all topics; beyond, new ones are refused"),
    key("max-recovery", Size(0, SIZE_TOP), Fixed("4m"), "0.1")
        .help(
            "Bytes of missed messages that may wait to be sent to one connection, of all its subscriptions; one that \
             would be sent more is not recovered",
        ),
    key("max-outbox", Size(1 << 10, MESSAGE_BYTES_TOP), Fixed("256k"), "0.1")
        .help("Bytes of acknowledgements and pongs that wait for one connection that does not read"),
];

const TIMES: &[Key] = &[
    key("auth-timeout", Time(1), Fixed("10s"), "0.1").help(
        "Time in which a client of ringyard.v1 has to send a token, where one is needed; then it is closed with 4408",
    ),
    key("handshake-timeout", Time(1), Fixed("10s"), "0.1")
        .help("From the connection's first moment to a complete request head"),
    key("message-timeout", Time(1), Fixed("30s"), "0.1")
        .help("From the first byte of a message, or of the body of a POST, to its last"),
    key("http-idle-timeout", Time(1), Fixed("75s"), "0.1")
        .help("How long an HTTP connection may be idle between two requests"),
    key("ping-interval", Time(1), Fixed("25s"), "0.1").help("An idle WebSocket is pinged this often"),
    key("ping-timeout", Time(1), Fixed("20s"), "0.1")
        .help("Silence after a ping, or a send without progress, that ends a connection"),
    key("close-timeout", Time(1), Fixed("5s"), "0.1").help("How long a client may take to answer a close"),
    key("topic-idle-timeout", Time(0), Fixed("1m"), "0.1")
        .help("How long a topic without subscribers remembers its offset after its last message"),
    key("session-grace", Time(0), Fixed("15s"), "0.1").help(
        "How long a session waits for its client to come back, of up to 5m; until then its client is present where it was",
    ),
    key("drain-delay", Time(0), Fixed("0s"), "0.1").help(
        "After SIGTERM, how long everything goes on while /readyz already says 503, so that load balancers look \
         elsewhere",
    ),
    key(
        "drain-window",
        Time(0),
        Otherwise("0s; with a successor a second for each 10,000 clients, from 1s to 25s", "10s"),
        "0.1",
    )
    .help(
        "After SIGTERM, or when a successor takes over, the time over which clients are asked to go (1001), a few at a \
         time, so that they do not come back all at once; SIGINT asks all of them at once",
    ),
    key("shutdown-grace", Time(0), Fixed("4s"), "0.1")
        .help("How long a shutdown may take beyond that; a second signal ends the broker at once"),
];
