//! Every limit of the broker, as the settings give it.
//!
//! Units: names end in what they count; bytes unless said otherwise, durations as [`Duration`].

use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::provenance::{Section, Source};
use crate::config::settings::SETTINGS;

/// Topics that one connection may begin at least, where there are as many: those of its subscriptions.
const OWN_TOPICS_LEAST: usize = 1024;
/// What subscribers may be behind by default, where there is room.
const LAG_BYTES_DEFAULT: u64 = 4 << 20;
/// What all topics of a shard keep by default, where there is room.
const LOG_BYTES_DEFAULT: u64 = 256 << 20;

/// What topics remember by default, where there is room.
const HISTORY_BYTES_DEFAULT: u64 = 64 << 20;

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
    /// Most requests of one `/ws` connection that wait for their answers. Beyond: the error `busy`.
    pub requests_max: usize,
    /// Most bytes of unswept or unread messages a shard keeps per topic. A subscriber that is further
    /// behind meets the slow-consumer policy (close 1013); a publisher that is further ahead waits.
    pub lag_bytes_max: u64,
    /// Most bytes of such messages over all topics of one shard. Beyond, whoever lags is closed (1013).
    pub log_bytes_max: u64,
    /// Most bytes that all topics remember: windows, keys, retained messages. Beyond, the window of the topic least
    /// recently published to is emptied; new keys and retained messages are refused.
    pub history_bytes_max: u64,
    /// Most keys and retained messages of all topics. Beyond, new ones are refused.
    pub keys_max: usize,
    /// Most bytes of missed messages that wait to be sent to one connection. A subscription with more is not recovered.
    pub recovery_bytes_max: u64,
    /// Most bytes of answers (acknowledgements, pongs) that wait for one connection that does not read.
    pub outbox_bytes_max: usize,
    /// A client that has to say who it is has so long for it.
    pub auth_timeout: Duration,
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
    /// How long a session waits for its client to come back.
    pub session_grace: Duration,
    /// Most sessions that clients can come back to; `None`: any number.
    pub sessions_max: Option<usize>,
    /// How long a topic nobody subscribes to remembers its offset after its last publish.
    pub topic_idle_timeout: Duration,
    /// After the signal, how long everything goes on while readiness says no.
    pub drain_delay: Duration,
    /// The time over which clients are closed, a few at a time; `None`: none without a successor, and with one a time
    /// that follows from their number.
    pub drain_window: Option<Duration>,
    /// How long a shutdown may take besides.
    pub shutdown_grace: Duration,
    /// Most connections of one client address that is not loopback; `None`: as many as it likes. Beyond: 429.
    pub connections_per_address_max: Option<NonZeroU32>,
    /// Most WebSocket handshakes a second, of all shards together. Beyond: 503 with Retry-After.
    pub accept_rate_max: Option<NonZeroU32>,
    /// Most messages a second that one WebSocket publishes. Beyond: close 1008, or the error `limit`.
    pub publish_rate_max: Option<NonZeroU32>,
    /// Whether clients may publish that bring no key.
    pub client_publish: bool,
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

impl Limits {
    /// The limits that are set. `lag` and `log` are `lag_bytes_max` and `log_bytes_max`, `history` is
    /// `history_bytes_max`.
    pub(super) fn new(settings: &Section, (lag, log): (u64, u64), history: u64) -> Self {
        let count = |name| settings.get::<u64>(name) as usize;
        let optional = |name| settings.find::<u64>(name).and_then(|number| NonZeroU32::new(number as u32));
        let message_bytes_max = settings.get("max-message");
        let topics_max = count("max-topics");
        let own_topics = settings.find::<u64>("max-topics-per-connection").map(|number| number as usize);
        Self {
            head_bytes_max: count("max-head"),
            headers_max: count("max-headers"),
            frame_bytes_max: settings.find("max-frame").unwrap_or(message_bytes_max),
            message_bytes_max,
            topic_bytes_max: count("max-topic"),
            topics_max,
            topics_per_connection_max: own_topics.unwrap_or((topics_max / 8).max(OWN_TOPICS_LEAST.min(topics_max))),
            subscriptions_max: count("max-subscriptions"),
            requests_max: count("max-requests"),
            lag_bytes_max: lag,
            log_bytes_max: log,
            history_bytes_max: history,
            keys_max: count("max-keys"),
            recovery_bytes_max: settings.get("max-recovery"),
            outbox_bytes_max: count("max-outbox"),
            auth_timeout: settings.get("auth-timeout"),
            handshake_timeout: settings.get("handshake-timeout"),
            message_timeout: settings.get("message-timeout"),
            http_idle_timeout: settings.get("http-idle-timeout"),
            ping_interval: settings.get("ping-interval"),
            ping_timeout: settings.get("ping-timeout"),
            close_timeout: settings.get("close-timeout"),
            session_grace: settings.get("session-grace"),
            sessions_max: settings.find::<u64>("max-sessions").map(|number| number as usize),
            topic_idle_timeout: settings.get("topic-idle-timeout"),
            drain_delay: settings.get("drain-delay"),
            drain_window: settings.find("drain-window"),
            shutdown_grace: settings.get("shutdown-grace"),
            connections_per_address_max: optional("max-connections-per-address"),
            accept_rate_max: optional("accept-rate"),
            publish_rate_max: optional("max-publish-rate"),
            client_publish: settings.choose("client-publish", &[("on", true), ("off", false)]),
            origins: settings.all("allow-origin"),
            hosts: settings.all("allow-host"),
            trusted_proxies: settings.all("trusted-proxy"),
            proxy_protocol: settings.get("proxy-protocol"),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let waiting = (LAG_BYTES_DEFAULT, LOG_BYTES_DEFAULT);
        Self::new(&Section::new(&SETTINGS, Source::Default), waiting, HISTORY_BYTES_DEFAULT)
    }
}

/// Bytes that subscribers of one topic may be behind, and bytes that all topics of a shard keep: as set, or what fits
/// into the budget, but never so little that the longest message does not fit.
pub(super) fn waiting_bytes(
    message: u64,
    (lag, log): (Option<u64>, Option<u64>),
    budget_bytes: u64,
    shards: u16,
) -> (u64, u64) {
    let lag = lag.unwrap_or_else(|| {
        let most = LAG_BYTES_DEFAULT.max(4 * message).min(budget_bytes / 4).max(message);
        log.map_or(most, |log| most.min(log.max(message)))
    });
    let log = log.unwrap_or_else(|| LOG_BYTES_DEFAULT.min(budget_bytes / 2 / u64::from(shards.max(1))).max(lag));
    (lag, log)
}

/// Bytes that all topics remember: as set, or what fits into the budget.
pub(super) fn history_bytes(history: Option<u64>, budget_bytes: u64) -> u64 {
    history.unwrap_or(HISTORY_BYTES_DEFAULT.min(budget_bytes / 4))
}
