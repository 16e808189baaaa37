//! What the broker says while it runs: one line per event on standard error, for people or as JSON.
//!
//! Shards never log: they count. So a reader of the log that has stopped reading can hold up the control plane, never a
//! message on its way.

use std::io;

use tracing::level_filters::LevelFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// From now on events are written, as `log` says. To be called once.
pub fn start(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_writer(io::stderr)
        // It would complain of a closed standard error on standard error, and panic.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
}
