//! Every limit of the broker, with its default. Not responsible for parsing options (`main`'s `config`).
//!
//! Units: names end in what they count; bytes unless said otherwise, durations as [`Duration`].

use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;

/// What one broker allows. Shared, read-only, by all shards and the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request head. Beyond: 431.
    pub head_bytes_max: usize,
    /// Most header fields of one request. Beyond: 431.
    pub headers_max: usize,
    /// Longest payload of one frame. Beyond: close 1009.
    pub frame_bytes_max: u64,
    /// Longest message, all its frames together, and longest body of a POST. Beyond: close 1009, or 413.
    pub message_bytes_max: u64,
    /// Longest topic or filter, in bytes of UTF-8.
    pub topic_bytes_max: usize,
    /// Most topics and filters at a time. A new one beyond: 503, or the error `limit`.
    pub topics_max: usize,
    /// Most topics that one connection (over HTTP: one client address) may begin within `topic_idle_timeout`. Beyond:
    /// the error `limit`, or 429.
    pub topics_per_connection_max: usize,
    /// Most subscriptions of one `/ws` connection.
    pub subscriptions_max: usize,
    /// Most bytes of unswept or unread messages a shard keeps per topic. A subscriber that is further
    /// behind meets the slow-consumer policy (close 1013); a publisher that is further ahead waits.
    pub lag_bytes_max: u64,
    /// Most bytes of such messages over all topics of one shard. Beyond, whoever lags is closed (1013).
    pub log_bytes_max: u64,
    /// Most bytes of answers (acknowledgements, pongs) that wait for one connection that does not read.
    pub outbox_bytes_max: usize,
    /// From accept to a complete request head. Beyond: 408.
    pub handshake_timeout: Duration,
    /// From the first byte of a message (or of a POST's body) to its last. Beyond: close 1008, or 408.
    pub message_timeout: Duration,
    /// How long an HTTP connection may be idle between two requests.
    pub http_idle_timeout: Duration,
    /// An idle connection is pinged this often.
    pub ping_interval: Duration,
    /// Silence after a ping, or a send that makes no progress, for this long ends the connection.
    pub ping_timeout: Duration,
    /// How long a closing connection may take to answer the close.
    pub close_timeout: Duration,
    /// How long a topic nobody subscribes to remembers its offset after its last publish.
    pub topic_idle_timeout: Duration,
    /// After the signal, how long everything goes on while readiness says no.
    pub drain_delay: Duration,
    /// The time over which clients are told to go, a few at a time.
    pub drain_window: Duration,
    /// How long a shutdown may take besides.
    pub shutdown_grace: Duration,
    /// Most connections of one client address that is not loopback; `None`: as many as it likes. Beyond: 429.
    pub connections_per_address_max: Option<NonZeroU32>,
    /// Most WebSocket handshakes a second, of all shards together. Beyond: 503 with Retry-After.
    pub accept_rate_max: Option<NonZeroU32>,
    /// Most messages a second that one WebSocket publishes. Beyond: close 1008, or the error `limit`.
    pub publish_rate_max: Option<NonZeroU32>,
    /// Origins allowed besides the page's own host; `*` alone allows all.
    pub origins: Vec<String>,
    /// Host names allowed besides localhost and IP addresses, in lower case, with a port or without (then with any);
    /// `*` allows all. Another: 421.
    pub hosts: Vec<String>,
    /// Whom to believe what they say of their clients' addresses.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections from trusted proxies begin with a PROXY protocol header.
    pub proxy_protocol: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 8 << 10,
            headers_max: 64,
            frame_bytes_max: 1 << 20,
            message_bytes_max: 1 << 20,
            topic_bytes_max: protocol::topic::TOPIC_LEN_MAX_DEFAULT,
            topics_max: 1_000_000,
            topics_per_connection_max: 125_000,
            subscriptions_max: 1024,
            lag_bytes_max: 4 << 20,
            log_bytes_max: 256 << 20,
            outbox_bytes_max: 256 << 10,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            http_idle_timeout: Duration::from_secs(75),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            topic_idle_timeout: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            drain_window: Duration::from_secs(25),
            shutdown_grace: Duration::from_secs(4),
            connections_per_address_max: None,
            accept_rate_max: None,
            publish_rate_max: None,
            origins: Vec::new(),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}
