//! The rules that hold for values: the range of each, and what goes with what. They make the [`Config`] of the
//! options, or tell everything that is wrong. A complaint names each setting with its value and its source.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::limits::Limits;
use crate::config::options::Options;
use crate::config::sources::Sources;
use crate::config::values::{List, Size};
use crate::config::{Config, Log, Surroundings};
use crate::ids::ShardId;

/// Longest message that may be configured: one send's length is a signed 32-bit number in the kernel.
const MESSAGE_BYTES_TOP: u64 = 1 << 30;
/// Least memory for what is held for clients: below, nothing would get on.
const MEMORY_BYTES_LEAST: u64 = 4 << 20;
/// Topics that one connection may begin at least, where there are as many: those of its subscriptions.
const OWN_TOPICS_LEAST: u64 = 1024;
/// So many messages of the greatest length fit into the memory for what is held for clients, so that one on its way in
/// and one on its way out are no shortage.
pub(super) const MESSAGES_IN_BUDGET: u64 = 4;
/// What subscribers may be behind by default, where there is room.
const LAG_BYTES_DEFAULT: u64 = 4 << 20;
/// What all topics of a shard keep by default, where there is room.
const LOG_BYTES_DEFAULT: u64 = 256 << 20;
/// Most header fields that `protocol::head` reads.
const HEADERS_TOP: u64 = 100;
/// Most shards: far beyond any machine's cores, well within what queues between them cost.
const SHARDS_TOP: u64 = 1024;

/// The configuration that the options are.
pub(super) fn check(options: Options, sources: &Sources, here: &Surroundings) -> Result<Config, Vec<String>> {
    let mut rules = Rules { sources, broken: Vec::new(), wrong: Vec::new() };
    let Options { access, log: logging, sizes, times, .. } = options;
    let message = rules.bytes("max-message", sizes.max_message, 1, MESSAGE_BYTES_TOP);
    let frame = rules.bytes("max-frame", sizes.max_frame.unwrap_or(message), 1, MESSAGE_BYTES_TOP);
    rules.at_most(("max-frame", frame), ("max-message", message));
    let head = rules.bytes("max-head", sizes.max_head, 256, 1 << 20);
    let topic = rules.bytes("max-topic", sizes.max_topic, 1, 1 << 16);
    rules.at_most(("max-topic", topic), ("max-head", head));
    let headers = rules.count("max-headers", sizes.max_headers, 4, HEADERS_TOP);
    let memory = sizes.max_memory.map(|bytes| rules.bytes("max-memory", bytes, MEMORY_BYTES_LEAST, u64::MAX >> 1));
    let outbox = rules.bytes("max-outbox", sizes.max_outbox, 1 << 10, MESSAGE_BYTES_TOP);
    let subscriptions = rules.count("max-subscriptions", sizes.max_subscriptions, 1, u64::from(u32::MAX));
    let topics = rules.count("max-topics", sizes.max_topics, 1, u64::from(u32::MAX));
    let own_topics = sizes.max_topics_per_connection.unwrap_or((topics / 8).max(OWN_TOPICS_LEAST.min(topics)));
    let own_topics = rules.count("max-topics-per-connection", own_topics, 1, u64::from(u32::MAX));
    let shards = rules.count("shards", options.shards.unwrap_or(here.cores.min(SHARDS_TOP)), 1, SHARDS_TOP);
    let shards = ShardId::try_from(shards).expect("at most SHARDS_TOP");
    let least = MESSAGES_IN_BUDGET * message;
    let budget = memory.unwrap_or(here.memory_bytes_default_max.max(least));
    if least > budget && !rules.broken.contains(&"max-memory") && !rules.broken.contains(&"max-message") {
        rules.refuse(format!(
            "--max-message ({}, {}) must not be above a quarter of --max-memory ({}, {}): lower the one or raise the \
             other",
            Size(message),
            sources.of("max-message"),
            Size(budget),
            sources.of("max-memory")
        ));
    }
    let (lag, log) = waiting_bytes(message, (sizes.max_lag, sizes.max_log), budget, shards);
    rules.at_most(("max-message", message), ("max-lag", lag));
    rules.at_most(("max-lag", lag), ("max-log", log));
    if memory.is_some() {
        let own = |name, bytes: Option<u64>| bytes.map(|bytes| (name, bytes));
        for small in [own("max-lag", sizes.max_lag), own("max-log", sizes.max_log)].into_iter().flatten() {
            rules.at_most(small, ("max-memory", budget));
        }
    }
    if !options.listen.ip().to_canonical().is_loopback() && !access.allow_anonymous {
        rules.refuse(format!(
            "--listen {} ({}) can be reached from other machines, and there is no authentication: whoever reaches it \
             may publish and subscribe; say --allow-anonymous if that is meant",
            options.listen,
            sources.of("listen")
        ));
    }
    let trusted = joined(access.trusted_proxy);
    if access.proxy_protocol && trusted.is_empty() {
        rules.refuse(format!(
            "--proxy-protocol ({}) needs --trusted-proxy: the addresses that such a header is taken from",
            sources.of("proxy-protocol")
        ));
    }
    let config = Config {
        listen: options.listen,
        admin: options.admin_listen,
        log: Log { format: logging.log_format, level: logging.log_level },
        io: options.io.driver(),
        shards,
        memory_bytes_max: memory,
        lag_asked: sizes.max_lag,
        log_asked: sizes.max_log,
        connections_max: rules.optional("max-connections", sizes.max_connections),
        limits: Limits {
            head_bytes_max: head as usize,
            headers_max: headers as usize,
            frame_bytes_max: frame,
            message_bytes_max: message,
            topic_bytes_max: topic as usize,
            topics_max: topics as usize,
            topics_per_connection_max: own_topics as usize,
            subscriptions_max: subscriptions as usize,
            lag_bytes_max: lag,
            log_bytes_max: log,
            outbox_bytes_max: outbox as usize,
            handshake_timeout: rules.above_zero("handshake-timeout", times.handshake_timeout),
            message_timeout: rules.above_zero("message-timeout", times.message_timeout),
            http_idle_timeout: rules.above_zero("http-idle-timeout", times.http_idle_timeout),
            ping_interval: rules.above_zero("ping-interval", times.ping_interval),
            ping_timeout: rules.above_zero("ping-timeout", times.ping_timeout),
            close_timeout: rules.above_zero("close-timeout", times.close_timeout),
            topic_idle_timeout: times.topic_idle_timeout,
            drain_delay: times.drain_delay,
            drain_window: times.drain_window,
            shutdown_grace: times.shutdown_grace,
            connections_per_address_max: rules
                .optional("max-connections-per-address", sizes.max_connections_per_address),
            accept_rate_max: rules.optional("accept-rate", sizes.accept_rate),
            publish_rate_max: rules.optional("max-publish-rate", sizes.max_publish_rate),
            origins: joined(options.allow_origin),
            hosts: joined(access.allow_host),
            trusted_proxies: trusted,
            proxy_protocol: access.proxy_protocol,
        },
    };
    if rules.wrong.is_empty() { Ok(config) } else { Err(rules.wrong) }
}

/// The members of all values of a setting.
fn joined<T>(lists: Vec<List<T>>) -> Vec<T> {
    lists.into_iter().flat_map(|List(members)| members).collect()
}

/// Bytes that subscribers of one topic may be behind, and bytes that all topics of a shard keep: as `asked`, or what
/// fits into the budget, but never so little that the longest message does not fit.
pub(super) fn waiting_bytes(
    message: u64,
    (lag, log): (Option<u64>, Option<u64>),
    budget_bytes: u64,
    shards: ShardId,
) -> (u64, u64) {
    let lag = lag.unwrap_or_else(|| {
        let most = LAG_BYTES_DEFAULT.max(4 * message).min(budget_bytes / 4).max(message);
        log.map_or(most, |log| most.min(log.max(message)))
    });
    let log = log.unwrap_or_else(|| LOG_BYTES_DEFAULT.min(budget_bytes / 2 / u64::from(shards.max(1))).max(lag));
    (lag, log)
}

/// What was found wrong up to now. Checks go on with a value that would be right.
struct Rules<'a> {
    sources: &'a Sources,
    /// Settings that were refused: what else they do not go with is no news.
    broken: Vec<&'static str>,
    wrong: Vec<String>,
}

impl Rules<'_> {
    fn refuse(&mut self, sentence: String) {
        self.wrong.push(sentence);
    }

    fn range(&mut self, name: &'static str, value: u64, range: (u64, u64), write: impl Fn(u64) -> String) -> u64 {
        let (least, most) = range;
        if !(least..=most).contains(&value) {
            let (value, least, most) = (write(value), write(least), write(most));
            let source = self.sources.of(name);
            self.refuse(format!("--{name} is {value} ({source}), but must be from {least} to {most}"));
            self.broken.push(name);
        }
        value.clamp(least, most)
    }

    fn count(&mut self, name: &'static str, value: u64, least: u64, most: u64) -> u64 {
        self.range(name, value, (least, most), |value| value.to_string())
    }

    fn bytes(&mut self, name: &'static str, value: u64, least: u64, most: u64) -> u64 {
        self.range(name, value, (least, most), |value| Size(value).to_string())
    }

    fn optional(&mut self, name: &'static str, value: Option<u64>) -> Option<NonZeroU32> {
        value.and_then(|value| NonZeroU32::new(self.count(name, value, 1, u64::from(u32::MAX)) as u32))
    }

    fn at_most(&mut self, (small, a): (&'static str, u64), (large, b): (&'static str, u64)) {
        if a <= b || self.broken.contains(&small) || self.broken.contains(&large) {
            return;
        }
        let (small_source, large_source) = (self.sources.of(small), self.sources.of(large));
        self.refuse(format!(
            "--{small} ({}, {small_source}) must not be above --{large} ({}, {large_source}): lower the one or raise \
             the other",
            Size(a),
            Size(b)
        ));
    }

    fn above_zero(&mut self, name: &'static str, time: Duration) -> Duration {
        if time.is_zero() {
            let source = self.sources.of(name);
            self.refuse(format!("--{name} is 0 ({source}), but must be at least 1ms"));
        }
        time
    }
}
