//! The lines about a storm of logins.

use super::percentiles;
use crate::format::{number, of, percent, seconds, time};
use crate::outcome::Outcome;

pub(super) fn logins(outcome: &Outcome) -> Vec<String> {
    let Some(logins) = &outcome.logins else { return Vec::new() };
    let whose = if logins.reused { "tokens that the server had seen" } else { "tokens that were new to it" };
    let mut lines = vec![format!(
        "{} in {}, {}/s, with {whose}",
        of(logins.opened, "login"),
        seconds(logins.seconds),
        number(logins.per_second())
    )];
    for (name, latencies) in
        [("until logged in", &logins.took), ("deliveries before", &logins.calm), ("meanwhile", &logins.storm)]
    {
        if latencies.count > 0 {
            lines.push(format!("{name}: {}", percentiles(latencies)));
        }
    }
    if let Some(ratio) = logins.ratio() {
        lines.push(format!(
            "p99 meanwhile {} times that before; this program used {} of a core meanwhile",
            number(ratio),
            percent(logins.own_cpu)
        ));
    }
    if let Some(ns) = logins.server_ns() {
        lines.push(format!("server CPU {} per login, beyond deliveries", time(ns)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Latencies, Logins, histogram};

    #[test]
    fn a_storm() {
        let around = |nanos| {
            let mut latency = histogram();
            latency.record_n(nanos, 100).unwrap();
            Latencies::of(&latency)
        };
        let logins = Logins {
            opened: 10_000,
            seconds: 2.5,
            took: around(300_000_000),
            calm: around(2_000_000),
            storm: around(3_000_000),
            server_cpu_ns: Some(500_000_000),
            own_cpu: 0.75,
            reused: false,
        };
        let mut outcome = Outcome { logins: Some(logins), ..Outcome::default() };
        let lines = super::logins(&outcome);
        assert_eq!(lines[0], "10,000 logins in 2.50 s, 4,000/s, with tokens that were new to it");
        assert!(lines[1].starts_with("until logged in: p50 300 ms"), "{lines:?}");
        assert!(lines[2].starts_with("deliveries before: p50 2.00 ms") && lines[3].starts_with("meanwhile: p50 3.0"));
        assert_eq!(lines[4], "p99 meanwhile 1.50 times that before; this program used 75.0 % of a core meanwhile");
        assert_eq!(lines[5], "server CPU 50.0 µs per login, beyond deliveries");
        outcome.logins = Some(Logins { opened: 3, reused: true, ..Logins::default() });
        assert_eq!(super::logins(&outcome).len(), 1);
        assert!(super::logins(&Outcome::default()).is_empty());
    }
}
