//! Rules between settings. For each that is broken there is a sentence with every setting's value and source.
//!
//! Not responsible for the range of a single value ([`Kind`](crate::config::schema::Kind)).

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::provenance::Section;
use crate::config::values::{Size, is_loopback};
use crate::config::{Config, MESSAGES_IN_BUDGET};

/// The longest grace of a session.
const SESSION_GRACE_TOP: Duration = Duration::from_secs(300);

/// Sentences about all rules that the configuration breaks.
pub(super) fn check(config: &Config, settings: &Section) -> Vec<String> {
    let limits = &config.limits;
    let message = ("max-message", limits.message_bytes_max);
    let (lag, log) = (("max-lag", limits.lag_bytes_max), ("max-log", limits.log_bytes_max));
    let mut wrong = Vec::new();
    let mut at_most = |small, large| wrong.extend(above(small, large, settings));
    at_most(("max-frame", limits.frame_bytes_max), message);
    at_most(("max-topic", limits.topic_bytes_max as u64), ("max-head", limits.head_bytes_max as u64));
    at_most(message, lag);
    at_most(lag, log);
    if let Some(budget) = config.memory_bytes_max {
        config.lag_asked.into_iter().for_each(|bytes| at_most(("max-lag", bytes), ("max-memory", budget)));
        config.log_asked.into_iter().for_each(|bytes| at_most(("max-log", bytes), ("max-memory", budget)));
        config.history_asked.into_iter().for_each(|bytes| at_most(("max-history", bytes), ("max-memory", budget)));
    }
    wrong.extend(too_little_memory(config, settings));
    wrong.extend(exposed(config, settings));
    wrong.extend(wrong_tls(config, settings));
    if limits.session_grace > SESSION_GRACE_TOP {
        wrong.push(format!(
            "--session-grace ({}) must be at most 5m: until it is over, clients that have gone seem to be there",
            settings.source_of("session-grace")
        ));
    }
    if limits.proxy_protocol && limits.trusted_proxies.is_empty() {
        wrong.push(format!(
            "--proxy-protocol ({}) needs --trusted-proxy: the addresses that such a header is taken from",
            settings.source_of("proxy-protocol")
        ));
    }
    wrong
}

fn above((small, a): (&str, u64), (large, b): (&str, u64), settings: &Section) -> Option<String> {
    (a > b).then(|| {
        format!(
            "--{small} ({}, {}) must not be above --{large} ({}, {}): lower the one or raise the other",
            Size(a),
            settings.source_of(small),
            Size(b),
            settings.source_of(large)
        )
    })
}

fn too_little_memory(config: &Config, settings: &Section) -> Option<String> {
    let (message, budget) = (config.limits.message_bytes_max, config.memory_bytes_max?);
    (MESSAGES_IN_BUDGET * message > budget).then(|| {
        format!(
            "--max-message ({}, {}) must not be above a quarter of --max-memory ({}, {}): lower the one or raise the \
             other",
            Size(message),
            settings.source_of("max-message"),
            Size(budget),
            settings.source_of("max-memory")
        )
    })
}

/// What does not go together of the settings of TLS.
fn wrong_tls(config: &Config, settings: &Section) -> Vec<String> {
    let mut wrong = Vec::new();
    if config.tls_listen.is_some() && config.tls_tables.is_empty() {
        wrong.push(format!(
            "--tls-listen ({}) needs a certificate: a [[tls]] table with cert and key, in the file of --config",
            settings.source_of("tls-listen")
        ));
    }
    if !settings.get::<bool>("tls-only") {
        return wrong;
    }
    let source = settings.source_of("tls-only");
    if config.tls_listen.is_none() {
        wrong.push(format!("--tls-only ({source}) needs --tls-listen: else no other machine reaches the broker"));
    }
    if !is_loopback(config.listen.ip()) {
        wrong.push(format!(
            "--tls-only ({source}) contradicts --listen {} ({}), which other machines reach without TLS: listen on \
             127.0.0.1",
            config.listen,
            settings.source_of("listen")
        ));
    }
    wrong
}

fn exposed(config: &Config, settings: &Section) -> Option<String> {
    let beyond = |name, address: SocketAddr| (!is_loopback(address.ip())).then_some((name, address));
    let tls = config.tls_listen.and_then(|address| beyond("tls-listen", address));
    let (name, address) = beyond("listen", config.listen).or(tls)?;
    let is_anybody_meant = settings.get::<bool>("allow-anonymous") || config.access.is_required();
    (!is_anybody_meant).then(|| {
        let advice = if config.access.is_empty() { "" } else { ", or required = true in [auth]" };
        format!(
            "--{name} {address} ({}) can be reached from other machines: anyone who reaches it may {}; say --allow-anonymous \
             if that is meant{advice}",
            settings.source_of(name),
            config.anonymous_rights()
        )
    })
}
