//! The command line. Not responsible for parsing addresses (`target`).

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::payload::STAMP_LEN;

/// Connections one process opens at most: below the common limit of 20,000 descriptors, with room for its own.
pub const CLIENTS_PER_PROCESS_MAX: usize = 19_000;

/// What one run does.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where subscribers connect.
    #[arg(long, default_value = "ws://127.0.0.1:8080/sub/bench")]
    pub url: String,
    /// Where the publisher connects [default: the same with /pub/ instead of /sub/].
    #[arg(long)]
    pub publish_url: Option<String>,
    /// How many subscribers.
    #[arg(long, default_value_t = 1000)]
    pub clients: usize,
    /// Bytes per message, at least 16.
    #[arg(long, default_value_t = 128)]
    pub payload: usize,
    /// Closed loop: at most this many bursts that not all subscribers have received [default: 1].
    #[arg(long, conflicts_with = "rate")]
    pub outstanding: Option<u32>,
    /// Open loop: messages per second, or `max`. Latency counts from the scheduled time.
    #[arg(long)]
    pub rate: Option<Rate>,
    /// Messages published together, in one write.
    #[arg(long, default_value_t = 1)]
    pub burst: u32,
    /// Seconds before the measurement.
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub warmup: Duration,
    /// Seconds of measurement.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub duration: Duration,
    /// Seconds without a message after which what is missing counts as lost.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Publish nothing; only hold the connections and answer pings.
    #[arg(long)]
    pub idle_only: bool,
    /// Further processes that hold the connections, for more than 19,000.
    #[arg(long, default_value_t = 1)]
    pub processes: usize,
    /// Connections being opened at the same time.
    #[arg(long, default_value_t = 128)]
    pub concurrency: usize,
    /// The server's process, to report its processor time and memory.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Write the report here as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// This process is a further one, with this number.
    #[arg(long, hide = true)]
    pub child: Option<usize>,
}

/// An open loop's rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rate {
    /// Messages per second.
    PerSecond(f64),
    /// As fast as the server takes them.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Self::PerSecond(rate)),
            _ => Err("a number above 0, or `max`".to_owned()),
        }
    }
}

/// When the publisher publishes its next burst.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// When fewer than this many bursts are on their way to some subscriber.
    Closed {
        /// Bursts on their way.
        bursts: u32,
    },
    /// At fixed times.
    Open {
        /// Messages per second.
        per_second: f64,
    },
    /// As soon as the socket takes it.
    Max,
}

impl Options {
    /// The pacing that the options ask for.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match self.rate {
            Some(Rate::PerSecond(per_second)) => Pace::Open { per_second },
            Some(Rate::Max) => Pace::Max,
            None => Pace::Closed { bursts: self.outstanding.unwrap_or(1) },
        }
    }

    /// The publisher's address.
    #[must_use]
    pub fn publish_url(&self) -> String {
        self.publish_url.clone().unwrap_or_else(|| self.url.replacen("/sub/", "/pub/", 1))
    }

    /// Subscribers of process `index` of [`Options::processes`].
    #[must_use]
    pub fn clients_of(&self, index: usize) -> usize {
        self.clients / self.processes + usize::from(index < self.clients % self.processes)
    }

    /// Checks what one option alone cannot tell.
    ///
    /// # Errors
    /// A sentence that says which option to change.
    pub fn check(&self) -> Result<()> {
        ensure!(self.clients > 0, "--clients must be at least 1");
        ensure!(
            self.payload >= STAMP_LEN,
            "--payload must be at least {STAMP_LEN} bytes: number and time of the message"
        );
        ensure!(self.burst > 0 && self.outstanding != Some(0), "--burst and --outstanding must be at least 1");
        ensure!(self.processes > 0 && self.concurrency > 0, "--processes and --concurrency must be at least 1");
        ensure!(
            self.clients_of(0) <= CLIENTS_PER_PROCESS_MAX,
            "--clients {} need --processes {} or more: one process opens at most {CLIENTS_PER_PROCESS_MAX}",
            self.clients,
            self.clients.div_ceil(CLIENTS_PER_PROCESS_MAX),
        );
        ensure!(
            self.processes == 1 || self.idle_only || !matches!(self.pace(), Pace::Closed { .. }),
            "--processes needs --rate or --idle-only: a closed loop would wait for news from other processes"
        );
        Ok(())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
