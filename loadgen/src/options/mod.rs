//! The command line and the TOML file, which use the same names. Precedence: command line, file, scenario, default.
//!
//! | file | what it is |
//! | --- | --- |
//! | `access` | the options about TLS and tokens |
//! | `scenario` | the scenarios, and the options that each of them sets |
//! | `values` | the types of the options' values |
//!
//! Not responsible for whether the machine can do it (`machine`).

mod access;
mod scenario;
mod values;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

pub use self::access::{AccessOptions, Switch};
pub use self::scenario::Scenario;
use self::values::seconds;
pub use self::values::{Payload, Portion, Rate, Share};
use crate::adapter::Protocol;
use crate::stamp::{STAMP_LEN, STREAMS_MAX};
use crate::threshold::Threshold;
use crate::usage::StatsUrl;

/// The longest interval that a subscription can ask for.
const THROTTLE_MAX: Duration = Duration::from_secs(5);

/// What one run does. The file of `--config` takes the same options, without dashes.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// TOML file with options by their long names; the command line takes precedence
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What the clients do; sets the options below that are not given
    #[arg(long, value_enum, default_value_t)]
    pub scenario: Scenario,
    /// The server's wire protocol
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// Where clients connect: ws://HOST:PORT or wss://HOST:PORT, with a path unless the protocol's usual one is right
    #[arg(long, default_value = "ws://127.0.0.1:8080")]
    pub url: String,
    /// Where publishers connect, if elsewhere
    #[arg(long)]
    pub publish_url: Option<String>,

    /// Subscribing clients [default: 1000]
    #[arg(long, help_heading = "Clients")]
    pub clients: Option<u64>,
    /// Topics [default: 1]
    #[arg(long, help_heading = "Clients")]
    pub topics: Option<u32>,
    /// Topics each client subscribes to [default: 1]
    #[arg(long, help_heading = "Clients")]
    pub topics_per_client: Option<u32>,
    /// The name of the topic; with several, each has a number behind it
    #[arg(long, default_value = "loadgen", help_heading = "Clients")]
    pub topic_prefix: String,
    /// Clients that verify every message, the others only count bytes: `all`, or a share such as 0.02
    /// [default: all of up to 20,000, else 20,000]
    #[arg(long, help_heading = "Clients")]
    pub verify: Option<Share>,
    /// Seconds between two heartbeats of a client that only counts bytes, or reads slowly; 0: none
    #[arg(long, default_value = "20", value_parser = seconds, value_name = "SECONDS", help_heading = "Clients")]
    pub heartbeat: Duration,
    /// Share of the clients that read slowly or never: 0.1 [default: 0]
    #[arg(long, help_heading = "Clients")]
    pub slow_share: Option<f64>,
    /// Bytes per second that a slow client reads; 0: nothing [default: 0]
    #[arg(long, help_heading = "Clients")]
    pub slow_rate: Option<u32>,
    /// Seconds between two deliveries of a subscription at least, up to 5; the topic's rule may make it longer (v1)
    #[arg(long, value_parser = seconds, value_name = "SECONDS", help_heading = "Clients")]
    pub throttle: Option<Duration>,
    /// Subscriptions ended and begun again per second (connections, where the protocol has no unsubscribe) [default: 0]
    #[arg(long, help_heading = "Clients")]
    pub churn: Option<f64>,

    /// Connections dropped per second at random; each comes back and asks for what it missed since its last position, and
    /// that is checked (raw, v1) [default: 0]
    #[arg(long, help_heading = "History")]
    pub drops: Option<f64>,
    /// Seconds that a dropped connection stays away: from half of this to one and a half times
    #[arg(long, default_value = "0.5", value_parser = seconds, value_name = "SECONDS", help_heading = "History")]
    pub away: Duration,
    /// When everything has arrived, all clients drop their connections and come back at once: first without a position,
    /// then each at a place of its own, from half of this number of messages back to one and a half times
    #[arg(long, value_name = "MESSAGES", help_heading = "History")]
    pub behind: Option<u64>,
    /// Keys in each topic: message N has the key N modulo this (v1) [default: none]
    #[arg(long, help_heading = "History")]
    pub keys: Option<u32>,
    /// Every message becomes its topic's retained one (v1)
    #[arg(long, help_heading = "History")]
    pub retain: bool,

    /// Connections that enter the topic, in the scenario presence-crowd [default: 1000]
    #[arg(long, help_heading = "Presence")]
    pub members: Option<u64>,
    /// Connections that learn of them [default: 1000]
    #[arg(long, help_heading = "Presence")]
    pub watchers: Option<u64>,

    /// Connections that publish [default: 1; one per topic where the protocol needs it]
    #[arg(long, help_heading = "Publishing")]
    pub publishers: Option<u32>,
    /// Every client publishes on its topic
    #[arg(long, help_heading = "Publishing")]
    pub everyone_publishes: bool,
    /// Publish nothing
    #[arg(long, help_heading = "Publishing")]
    pub idle: bool,
    /// Bytes per message, at least 24: `128`, a list `64,1024`, or a range `100..2000` [default: 128]
    #[arg(long, help_heading = "Publishing")]
    pub payload: Option<Payload>,
    /// Open loop: messages per second of all publishers together, at fixed times; or `max`: a closed loop, see
    /// `--outstanding` [default: max]
    #[arg(long, help_heading = "Publishing")]
    pub rate: Option<Rate>,
    /// Closed loop: bursts of each stream that may be in flight to verifying subscribers [default: 1]
    #[arg(long, help_heading = "Publishing")]
    pub outstanding: Option<u32>,
    /// Messages published together, in one write
    #[arg(long, default_value_t = 1, help_heading = "Publishing")]
    pub burst: u32,

    /// Connects per second, or `max` [default: max]
    #[arg(long, help_heading = "Connecting")]
    pub ramp: Option<Rate>,
    /// Connections being opened at the same time
    #[arg(long, default_value_t = 1024, help_heading = "Connecting")]
    pub concurrency: u32,
    /// Seconds after which a connection that is refused or not answered is given up
    #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS", help_heading = "Connecting")]
    pub connect_timeout: Duration,
    /// Seconds without a new client, while some are missing, after which the run ends with exit status 3; 0: never
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS", help_heading = "Connecting")]
    pub stall_timeout: Duration,
    /// How often all connections are dropped and opened again in the measured time [default: 0]
    #[arg(long, help_heading = "Connecting")]
    pub storms: Option<u32>,
    /// Connections that the server ends are opened again, and are no errors
    #[arg(long, help_heading = "Connecting")]
    pub reconnect: bool,
    /// Source addresses [default: 127.0.0.0/8 in turn when the target is there, else the kernel's choice]
    #[arg(long, value_delimiter = ',', help_heading = "Connecting")]
    pub source: Vec<IpAddr>,

    /// How connections are encrypted.
    #[command(flatten)]
    pub access: AccessOptions,

    /// Seconds of publishing before the measurement
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS", help_heading = "Time")]
    pub warmup: Duration,
    /// Seconds of measurement
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS", help_heading = "Time")]
    pub duration: Duration,
    /// Seconds without a message after which what is missing counts as lost
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS", help_heading = "Time")]
    pub drain_timeout: Duration,
    /// Publishing begins at this time (seconds since 1970), so that several processes or machines begin together
    #[arg(long, value_name = "UNIX_TIME", help_heading = "Time")]
    pub start_at: Option<f64>,

    /// Threads, each with a ring of its own [default: one per core, more where descriptors demand it]
    #[arg(long, help_heading = "This program")]
    pub workers: Option<u32>,
    /// This process runs one of several equal shares: `2/4`. `merge` combines the results
    #[arg(long, default_value = "1/1", value_name = "I/N", help_heading = "This program")]
    pub share: Portion,
    /// Try even if ports, descriptors, memory or connection tracking seem too small
    #[arg(long, help_heading = "This program")]
    pub force: bool,

    /// The server's processes, to report their processor time and memory
    #[arg(long, help_heading = "Results")]
    pub server_pid: Vec<u32>,
    /// Where a Ringyard broker serves its counters, to report its sends: http://HOST:PORT of its --admin-listen
    /// [default: the host and port of --url, which answers with --admin-listen public]
    #[arg(long, value_name = "URL", requires = "server_pid", help_heading = "Results")]
    pub server_stats: Option<StatsUrl>,
    /// Write the results here as JSON; `-`: to standard output, the text goes to standard error then
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub json: Option<PathBuf>,
    /// Write an HTML report with plots here
    #[arg(long, value_name = "FILE.html", help_heading = "Results")]
    pub report: Option<PathBuf>,
    /// Exit with status 1 when this is true: `p99>50ms`, `delivered<100000`
    #[arg(long, value_name = "CONDITION", help_heading = "Results")]
    pub fail_if: Vec<Threshold>,
    /// Show no progress
    #[arg(long, short, help_heading = "Results")]
    pub quiet: bool,
}

impl Options {
    /// The options of a file as arguments of the command line.
    ///
    /// # Errors
    /// When the file cannot be read or is no table of values; names the key.
    pub fn arguments_of(file: &std::path::Path) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let table: toml::Table = text.parse().with_context(|| format!("{} is no TOML", file.display()))?;
        let mut arguments = Vec::new();
        for (key, value) in table {
            let name = key.replace('_', "-");
            ensure!(name != "config", "{}: config: a file cannot name another", file.display());
            let mut put = |value: &toml::Value| {
                match value {
                    toml::Value::Boolean(false) => {}
                    toml::Value::Boolean(true) => arguments.push(format!("--{name}")),
                    toml::Value::String(text) => arguments.push(format!("--{name}={text}")),
                    toml::Value::Integer(number) => arguments.push(format!("--{name}={number}")),
                    toml::Value::Float(number) => arguments.push(format!("--{name}={number}")),
                    _ => bail!("{}: {key}: a number, a text, true or false", file.display()),
                }
                Ok(())
            };
            match &value {
                toml::Value::Array(values) => values.iter().try_for_each(&mut put)?,
                value => put(value)?,
            }
        }
        Ok(arguments)
    }

    /// Checks how options fit together. Of completed options.
    ///
    /// # Errors
    /// A sentence that says which option to change.
    pub fn check(&self) -> Result<()> {
        let topics = self.topics.unwrap_or(1);
        ensure!(self.clients != Some(0), "--clients must be at least 1");
        ensure!(!self.duration.is_zero(), "--duration must be above 0: the seconds of measurement");
        ensure!(
            self.report.as_deref().is_none_or(|file| file.as_os_str() != "-"),
            "--report needs a file name; only --json can be written to standard output"
        );
        ensure!((1..STREAMS_MAX).contains(&topics), "--topics must be from 1 to {}", STREAMS_MAX - 1);
        ensure!(
            (1..=topics).contains(&self.topics_per_client.unwrap_or(1)),
            "--topics-per-client must be from 1 to the number of topics, {topics}"
        );
        ensure!(self.burst > 0 && self.outstanding != Some(0), "--burst and --outstanding must be at least 1");
        ensure!(self.concurrency > 0 && self.workers != Some(0), "--concurrency and --workers must be at least 1");
        ensure!(self.publishers != Some(0), "--publishers must be at least 1; --idle publishes nothing");
        ensure!(
            self.slow_share.is_none_or(|share| (0.0..=1.0).contains(&share)),
            "--slow-share is a share: from 0 to 1"
        );
        ensure!(
            self.churn.is_none_or(|rate| rate >= 0.0 && rate.is_finite()),
            "--churn is a number of subscriptions per second"
        );
        if let Some(Payload(sizes)) = &self.payload {
            ensure!(
                sizes.min() as usize >= STAMP_LEN,
                "--payload must be at least {STAMP_LEN} bytes: stream, number and time of the message"
            );
            ensure!(sizes.max() <= 64 << 20, "--payload may be 64 MiB at most");
        }
        if self.everyone_publishes {
            ensure!(
                self.topics_per_client == Some(1) && self.publishers.is_none(),
                "--everyone-publishes goes with one topic per client and no --publishers"
            );
        }
        ensure!(
            self.members.is_none() && self.watchers.is_none(),
            "--members and --watchers are for --scenario presence-crowd"
        );
        self.check_history()?;
        self.check_conflation()?;
        self.check_logins()?;
        self.check_closed_loop()
    }
}

impl Options {
    /// Whether clients come back with their positions.
    #[must_use]
    pub fn recovers(&self) -> bool {
        self.drops.is_some_and(|drops| drops > 0.0) || self.behind.is_some_and(|behind| behind > 0)
    }

    fn check_conflation(&self) -> Result<()> {
        ensure!(
            self.throttle.is_none_or(|throttle| {
                throttle <= THROTTLE_MAX && throttle.subsec_nanos().is_multiple_of(1_000_000)
            }),
            "--throttle is a time from 0 to 5 seconds, in whole milliseconds"
        );
        if self.scenario == Scenario::Conflate {
            let name = "--scenario conflate";
            ensure!(self.share.of == 1, "{name}: in one process, which knows what was published; not with --share");
            ensure!(!self.everyone_publishes && !self.idle, "{name}: publishers publish, and clients only receive");
            ensure!(
                self.publishers.is_none_or(|publishers| publishers <= self.topics.unwrap_or(1)),
                "--publishers with {name}: one for each topic at most, so that numbers tell which message of a key is newer"
            );
        }
        Ok(())
    }

    fn check_closed_loop(&self) -> Result<()> {
        if self.rate == Some(Rate::Max) && !self.idle {
            let moving = [
                ("--storms", self.storms.is_some_and(|storms| storms > 0)),
                ("--churn", self.churn.is_some_and(|churn| churn > 0.0)),
                ("--slow-share", self.slow_share.is_some_and(|share| share > 0.0)),
                ("--drops", self.recovers()),
                ("--scenario keyed-state", self.scenario == Scenario::KeyedState),
                ("--scenario login-storm", self.scenario == Scenario::LoginStorm),
            ];
            for (name, given) in moving {
                ensure!(
                    !given,
                    "{name} needs --rate with a number: a closed loop would wait for clients that are not there"
                );
            }
            ensure!(
                self.share.of == 1,
                "--share needs --rate with a number: a closed loop would have to wait for other processes"
            );
        }
        Ok(())
    }

    fn check_logins(&self) -> Result<()> {
        let AccessOptions { logins, token_reuse, token, token_file, token_secret_file, .. } = &self.access;
        let name = "--scenario login-storm";
        if self.scenario != Scenario::LoginStorm {
            ensure!(logins.is_none() && !token_reuse, "--logins and --token-reuse are for {name}");
            return Ok(());
        }
        ensure!(*logins != Some(0), "--logins must be at least 1");
        ensure!(
            token.is_some() || token_file.is_some() || token_secret_file.is_some(),
            "{name}: --token-secret-file gives each client a token of its own; --token-file and --token are possible too"
        );
        ensure!(self.share.of == 1, "{name}: in one process; not with --share");
        ensure!(!self.everyone_publishes && !self.idle, "{name}: publishers publish, and clients only receive");
        let moving = [self.churn, self.drops, self.behind.map(|_| 1.0), self.storms.map(f64::from)];
        ensure!(
            moving.into_iter().flatten().all(|each| each == 0.0),
            "{name}: not together with --churn, --drops, --behind or --storms"
        );
        Ok(())
    }

    fn check_history(&self) -> Result<()> {
        let state = self.scenario == Scenario::KeyedState;
        ensure!(
            self.drops.is_none_or(|rate| rate >= 0.0 && rate.is_finite()),
            "--drops is a number of connections per second"
        );
        ensure!(self.keys != Some(0), "--keys must be at least 1");
        ensure!(self.keys.is_none() || !self.retain, "--keys and --retain: a message has a key, or is retained");
        if self.recovers() || state {
            let (name, away) = if state { ("--scenario keyed-state", true) } else { ("--drops and --behind", false) };
            ensure!(self.share.of == 1, "{name}: in one process, which knows what was published; not with --share");
            ensure!(!self.everyone_publishes && !self.idle, "{name}: publishers publish, and clients only receive");
            let churns = self.churn.is_some_and(|churn| churn > 0.0);
            let slow = self.slow_share.is_some_and(|share| share > 0.0);
            let storms = away && self.storms.is_some_and(|storms| storms > 0);
            ensure!(!churns && !slow && !storms, "{name}: not together with --churn, --slow-share or --storms");
        }
        if state {
            ensure!(!self.recovers(), "--scenario keyed-state: its clients come once, so not with --drops or --behind");
            ensure!(
                !self.retain || self.topics.is_some_and(|topics| topics > 1),
                "--retain with --scenario keyed-state: --topics must be at least 2, as clients subscribe to a filter"
            );
        }
        if self.behind.is_some_and(|behind| behind > 0) {
            ensure!(
                self.topics_per_client == Some(1)
                    && self.publishers.is_none_or(|many| many <= self.topics.unwrap_or(1)),
                "--behind: each client has one topic, and each topic one publisher"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
