//! `--fail-if`: conditions that make a run fail, such as `p99>50ms`, `delivered<100000`, `server_cpu>90%`.
//!
//! A figure that was not measured counts as crossed, because the threshold could not be checked.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

use crate::format;
use crate::outcome::{Latencies, Outcome};

/// A figure, a comparison and a limit.
#[derive(Clone, PartialEq, Debug)]
pub struct Threshold {
    figure: Figure,
    comparison: Comparison,
    /// In the figure's own unit.
    limit: f64,
    /// As it was written.
    text: String,
}

impl Threshold {
    /// A sentence with what was measured: an error if the threshold is crossed.
    ///
    /// # Errors
    /// When it is crossed, or its figure was not measured.
    pub fn check(&self, outcome: &Outcome) -> Result<String, String> {
        let Some(value) = self.figure.value(outcome) else {
            let name = self.figure.name();
            let hint = if self.figure.needs_server() { " (it needs --server-pid)" } else { "" };
            return Err(format!("{}: {name} was not measured{hint}", self.text));
        };
        let crossed = match self.comparison {
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
        };
        let sentence = format!("{}: {} was {}", self.text, self.figure.name(), self.figure.unit().write(value));
        if crossed { Err(sentence) } else { Ok(sentence) }
    }
}

impl Threshold {
    /// What a storm of logins is judged by, unless the user says something else.
    pub(crate) fn login_ratio() -> Self {
        "login_ratio>2".parse().expect("a figure, a comparison and a limit")
    }

    /// Whether it judges a storm of logins.
    pub(crate) fn is_about_logins(&self) -> bool {
        self.figure.name() == "login_ratio"
    }
}

/// Checks all and keeps the sentences in [`Outcome::crossed`] and [`Outcome::passed`], in place of what was there.
pub fn check_all(thresholds: &[Threshold], outcome: &mut Outcome) {
    let (passed, crossed): (Vec<_>, Vec<_>) =
        thresholds.iter().map(|threshold| threshold.check(outcome)).partition(Result::is_ok);
    outcome.passed = passed.into_iter().filter_map(Result::ok).collect();
    outcome.crossed = crossed.into_iter().filter_map(Result::err).collect();
}

/// The figures that can be compared, a line each, for `--help` and error messages.
#[must_use]
pub fn known() -> String {
    let mut out = String::from("p50, p90, p99, p99.9, p99.99 ... (any percentile of latency; a time: 50ms)\n");
    for (name, unit, what, _) in FIGURES {
        out.push_str(&format!("{name} ({what}; {})\n", unit.example()));
    }
    out
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let at = text.find(['<', '>']).with_context(|| {
            format!("`{text}` compares nothing: say a figure, <, <=, > or >=, and a limit, like p99>50ms")
        })?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let (comparison, limit) = match (rest.strip_prefix(">="), rest.strip_prefix("<=")) {
            (Some(limit), _) => (Comparison::AtLeast, limit),
            (_, Some(limit)) => (Comparison::AtMost, limit),
            _ if rest.starts_with('>') => (Comparison::Above, &rest[1..]),
            _ => (Comparison::Below, &rest[1..]),
        };
        let figure = Figure::named(name)
            .with_context(|| format!("`{name}` in `{text}` is no figure that is measured. There are:\n{}", known()))?;
        let limit = figure.unit().read(limit.trim()).with_context(|| format!("the limit in `{text}`"))?;
        Ok(Self { figure, comparison, limit, text: text.to_owned() })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Figure {
    /// A percentile of latency, 0 to 100.
    Percentile(f64),
    /// An index into [`FIGURES`].
    Named(usize),
}

type Row = (&'static str, Unit, &'static str, fn(&Outcome) -> Option<f64>);

const FIGURES: &[Row] = &[
    ("max", Unit::Time, "the longest latency", |o| latency(&o.latency, o.latency.max as f64)),
    ("mean", Unit::Time, "the mean latency", |o| latency(&o.latency, o.latency.mean)),
    ("admission_p50", Unit::Time, "upgrade request until subscribed, median", |o| {
        latency(&o.admission, o.admission.p50 as f64)
    }),
    ("admission_p99", Unit::Time, "the same, 99th percentile", |o| latency(&o.admission, o.admission.p99 as f64)),
    ("admission_max", Unit::Time, "the slowest admission", |o| latency(&o.admission, o.admission.max as f64)),
    ("lateness_p99", Unit::Time, "how late loadgen itself published", |o| Some(o.traffic.lateness_p99_ns as f64)),
    ("last_client", Unit::Time, "time to last subscriber, of the last message", |o| {
        (o.traffic.last_last_ns > 0).then_some(o.traffic.last_last_ns as f64)
    }),
    ("delivered", Unit::Count, "messages received in the measured time", |o| Some(o.traffic.delivered as f64)),
    ("delivered_per_second", Unit::Count, "the same per second", |o| Some(o.delivered_per_second())),
    ("published", Unit::Count, "messages published in the measured time", |o| {
        Some(o.traffic.published_measured as f64)
    }),
    ("published_per_second", Unit::Count, "the same per second", |o| Some(o.published_per_second())),
    ("lost", Unit::Count, "messages that a subscriber never got", |o| Some(o.errors.lost as f64)),
    ("doubled", Unit::Count, "messages that came again", |o| Some(o.errors.doubled as f64)),
    ("reordered", Unit::Count, "messages out of order", |o| Some(o.errors.reordered as f64)),
    ("corrupt", Unit::Count, "messages damaged, or that nobody published", |o| Some(o.errors.corrupt as f64)),
    ("miscounted", Unit::Count, "clients with a wrong number of bytes", |o| Some(o.errors.miscounted as f64)),
    ("untrue", Unit::Count, "answers about recovery that were not true", |o| Some(o.errors.untrue as f64)),
    ("misnumbered", Unit::Count, "messages whose offsets are not the next", |o| Some(o.errors.misnumbered as f64)),
    ("stale", Unit::Count, "keys of which a newcomer lacks the newest message", |o| Some(o.errors.stale as f64)),
    ("recovered", Unit::Count, "subscriptions that missed nothing", |o| Some(o.history.as_ref()?.recovered as f64)),
    ("not_recovered", Unit::Count, "subscriptions that were told so", |o| {
        Some(o.history.as_ref()?.not_recovered as f64)
    }),
    ("catch_up_p50", Unit::Time, "connect until what was missed had come, median", |o| catch_up(o, |l| l.p50)),
    ("catch_up_p99", Unit::Time, "the same, 99th percentile", |o| catch_up(o, |l| l.p99)),
    ("login_ratio", Unit::Count, "p99 of deliveries while clients log in, by that before", |o| {
        o.logins.as_ref()?.ratio()
    }),
    ("login_ns", Unit::Nanoseconds, "the server's processor time per login", |o| o.logins.as_ref()?.server_ns()),
    ("refused", Unit::Count, "clients that never became subscribed", |o| Some(sum(o.errors.refused.values()))),
    ("closed", Unit::Count, "connections that the server closed", |o| Some(sum(o.errors.closed.values()))),
    ("broken", Unit::Count, "protocol errors", |o| Some(sum(o.errors.broken.values()))),
    ("publishers_lost", Unit::Count, "publishing connections that ended", |o| Some(sum(o.errors.publishers.values()))),
    ("shed", Unit::Count, "slow consumers that the server disconnected", |o| Some(sum(o.errors.shed.values()))),
    ("errors", Unit::Count, "all errors together", |o| Some(o.errors.total() as f64)),
    ("clients", Unit::Count, "clients that became subscribed", |o| Some(o.connect.opened as f64)),
    ("retries", Unit::Count, "connects and upgrades that were retried", |o| Some(o.connect.retries as f64)),
    ("connect_seconds", Unit::Seconds, "first connect to last subscription", |o| Some(o.connect.seconds)),
    ("storm_seconds", Unit::Seconds, "the slowest recovery from a reconnect storm", |o| {
        o.connect.storm_seconds.iter().copied().reduce(f64::max)
    }),
    ("own_cpu", Unit::Share, "loadgen's share of one core", |o| (o.seconds > 0.0).then(|| o.own_cpu())),
    ("own_ns_per_message", Unit::Nanoseconds, "loadgen's processor time per message", |o| {
        (o.traffic.delivered > 0).then(|| o.own_ns_per_message())
    }),
    ("own_memory_per_client", Unit::Bytes, "loadgen's user memory", Outcome::own_bytes_per_client),
    ("server_cpu", Unit::Share, "the server's share of one core", Outcome::server_cpu),
    ("server_ns_per_message", Unit::Nanoseconds, "its processor time per message", Outcome::server_ns_per_message),
    ("server_ns_per_admission", Unit::Nanoseconds, "its processor time per client", Outcome::server_ns_per_admission),
    ("server_memory_per_client", Unit::Bytes, "its user memory", Outcome::server_bytes_per_connection),
    (
        "server_sends_per_message",
        Unit::Count,
        "its sends per message, of a Ringyard broker",
        Outcome::sends_per_message,
    ),
];

fn catch_up(outcome: &Outcome, of: fn(&Latencies) -> u64) -> Option<f64> {
    let known = &outcome.history.as_ref()?.catch_up;
    latency(known, of(known) as f64)
}

fn latency(of: &Latencies, value: f64) -> Option<f64> {
    (of.count > 0).then_some(value)
}

fn sum<'a>(counts: impl Iterator<Item = &'a u64>) -> f64 {
    counts.fold(0_u64, |sum, count| sum.saturating_add(*count)) as f64
}

impl Figure {
    fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace('-', "_");
        if let Some(at) = FIGURES.iter().position(|(known, ..)| *known == name) {
            return Some(Self::Named(at));
        }
        let digits = name.strip_prefix('p')?;
        let percent: f64 =
            digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then(|| digits.parse())?.ok()?;
        (0.0..=100.0).contains(&percent).then_some(Self::Percentile(percent))
    }

    fn name(self) -> String {
        match self {
            Self::Percentile(percent) => format!("p{percent}"),
            Self::Named(at) => FIGURES[at].0.into(),
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Percentile(_) => Unit::Time,
            Self::Named(at) => FIGURES[at].1,
        }
    }

    fn value(self, outcome: &Outcome) -> Option<f64> {
        match self {
            Self::Percentile(percent) => {
                let known = &outcome.latency;
                latency(known, crate::outcome::percentile(&known.histogram(), percent) as f64)
            }
            Self::Named(at) => FIGURES[at].3(outcome),
        }
    }

    fn needs_server(self) -> bool {
        self.name().starts_with("server_")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    /// Nanoseconds. A limit must have a unit, because `p99>50` is ambiguous.
    Time,
    /// Nanoseconds, as the figure's name says; a limit may have another unit.
    Nanoseconds,
    /// Seconds, likewise.
    Seconds,
    Count,
    /// 1.0 is one core.
    Share,
    Bytes,
}

impl Unit {
    /// A limit, in this unit.
    fn read(self, text: &str) -> Result<f64> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_' | ','))).unwrap_or(text.len());
        let digits: String = text[..end].chars().filter(|c| !matches!(c, '_' | ',')).collect();
        let number: f64 = digits.parse().ok().with_context(|| format!("`{text}` does not begin with a number"))?;
        let suffix = text[end..].trim();
        let Some(factor) = self.factor(suffix) else {
            ensure!(!suffix.is_empty(), "`{text}` needs a unit, like {}", self.example());
            bail!("`{suffix}` is no unit here: write it like {}", self.example());
        };
        Ok(number * factor)
    }

    fn factor(self, suffix: &str) -> Option<f64> {
        let ns = match suffix {
            "ns" => Some(1.0),
            "us" | "µs" | "μs" => Some(1e3),
            "ms" => Some(1e6),
            "s" => Some(1e9),
            "min" => Some(60e9),
            _ => None,
        };
        match (self, suffix) {
            (Self::Time, _) => ns,
            (Self::Nanoseconds | Self::Seconds | Self::Count | Self::Share | Self::Bytes, "") => Some(1.0),
            (Self::Nanoseconds, _) => ns,
            (Self::Seconds, _) => ns.map(|ns| ns / 1e9),
            (Self::Count, "k" | "K") => Some(1e3),
            (Self::Count, "m" | "M") => Some(1e6),
            (Self::Count, "g" | "G") => Some(1e9),
            (Self::Share, "%") => Some(0.01),
            (Self::Bytes, "B") => Some(1.0),
            (Self::Bytes, "KB" | "kB") => Some(1e3),
            (Self::Bytes, "MB") => Some(1e6),
            (Self::Bytes, "GB") => Some(1e9),
            (Self::Bytes, "KiB") => Some(1024.0),
            (Self::Bytes, "MiB") => Some(1_048_576.0),
            (Self::Bytes, "GiB") => Some(1_073_741_824.0),
            _ => None,
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Time => "50us, 50ms, 1.5s",
            Self::Nanoseconds => "900 for nanoseconds, or 2us",
            Self::Seconds => "60 for seconds, or 500ms",
            Self::Count => "100000, 100k, 2M",
            Self::Share => "0.9 or 90%",
            Self::Bytes => "256 for bytes, 4KB, 4KiB",
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            Self::Time | Self::Nanoseconds => format::time(value),
            Self::Seconds => format::seconds(value),
            Self::Count if value.fract() == 0.0 => format::count(value as u64),
            Self::Count => format::number(value),
            Self::Share => format::percent(value),
            Self::Bytes => format::bytes(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{ServerUse, histogram};

    fn outcome() -> Outcome {
        let mut latency = histogram();
        (1..=1000).for_each(|ms| latency.record(ms * 100_000).unwrap());
        let mut outcome = Outcome { seconds: 10.0, latency: Latencies::of(&latency), ..Outcome::default() };
        outcome.traffic.delivered = 150_000;
        outcome.connect.opened = 1000;
        outcome.connect.seconds = 61.0;
        outcome.errors.lost = 12;
        outcome
    }

    fn sentence(text: &str) -> Option<String> {
        text.parse::<Threshold>().unwrap().check(&outcome()).err()
    }

    #[test]
    fn limits_are_compared_in_their_units() {
        assert_eq!(sentence("p99>50ms").unwrap(), "p99>50ms: p99 was 99.0 ms");
        assert_eq!(sentence("p50 > 60 ms"), None);
        assert_eq!(sentence("p99.9 >= 99900us").unwrap(), "p99.9 >= 99900us: p99.9 was 99.9 ms");
        assert_eq!(sentence("max>1s"), None);
        assert_eq!(sentence("delivered<100000"), None);
        assert_eq!(sentence("delivered<200k").unwrap(), "delivered<200k: delivered was 150,000");
        assert_eq!(
            sentence("delivered-per-second<=15_000").unwrap(),
            "delivered-per-second<=15_000: delivered_per_second was 15,000"
        );
        assert_eq!(sentence("lost>0").unwrap(), "lost>0: lost was 12");
        assert_eq!(sentence("closed>0"), None);
        assert_eq!(sentence("connect_seconds>60").unwrap(), "connect_seconds>60: connect_seconds was 61.0 s");
        assert_eq!(sentence("connect_seconds>2min"), None);
    }

    #[test]
    fn what_was_not_measured_counts_as_crossed() {
        let line = sentence("server_cpu>0.9").unwrap();
        assert_eq!(line, "server_cpu>0.9: server_cpu was not measured (it needs --server-pid)");
        let nothing = "p99>1s".parse::<Threshold>().unwrap().check(&Outcome::default());
        assert!(nothing.unwrap_err().ends_with("not measured"));
        let mut outcome = outcome();
        outcome.server = Some(ServerUse { cpu_ns: 9_500_000_000, ..ServerUse::default() });
        outcome.server.as_mut().unwrap().memory_connected.pss = 300_000;
        let thresholds = ["server_cpu>90%", "server_memory_per_client>256", "server_memory_per_client > 1KiB"];
        check_all(&thresholds.map(|text| text.parse().unwrap()), &mut outcome);
        assert_eq!(
            outcome.crossed,
            [
                "server_cpu>90%: server_cpu was 95.0 %",
                "server_memory_per_client>256: server_memory_per_client was 300 B"
            ]
        );
        assert_eq!(outcome.passed, ["server_memory_per_client > 1KiB: server_memory_per_client was 300 B"]);
    }

    #[test]
    fn an_unknown_figure_lists_the_known_ones() {
        let error = |text: &str| format!("{:#}", text.parse::<Threshold>().unwrap_err());
        assert!(error("throughput>5").contains("delivered_per_second"));
        assert!(error("p101>5ms").contains("p99.9"));
        assert!(error("pinf>5ms").contains("p99.9"));
        assert!(error("p99").contains("compares nothing"));
        assert!(error("p99>50").contains("needs a unit"));
        assert!(error("p99>ms").contains("number"));
        assert!(error("lost>5ms").contains("no unit here"));
        for (name, unit, ..) in FIGURES {
            let limit = if *unit == Unit::Time { "1ms" } else { "1" };
            assert!(format!("{name}>{limit}").parse::<Threshold>().is_ok(), "{name}");
        }
    }
}
