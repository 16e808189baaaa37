//! The result on a terminal: names on the left, figures on the right, the verdict in the last line.

use std::fmt::Write;

use super::{Line, conditions, errors, lines};
use crate::format::plain;
use crate::outcome::Outcome;
use crate::verdict::Verdict;

/// The report of a run as text, with the files that were written. Judge the outcome first.
#[must_use]
pub fn table(outcome: &Outcome, files: &[String]) -> String {
    let run = &outcome.run;
    let protocol = run.protocol.map_or(String::new(), |protocol| format!(" over {}", protocol.name()));
    let mut out = plain(&format!("{}{protocol}, {}", run.scenario, run.url));
    out.push('\n');
    let mut all = lines(outcome);
    all.push(Line { name: "errors", text: errors(outcome) });
    all.push(conditions(outcome));
    all.push(Line { name: "files", text: files.iter().map(|file| plain(file)).collect() });
    let width = all.iter().map(|line| line.name.len()).max().unwrap_or(0);
    for Line { name, text } in &all {
        for (at, text) in text.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            // Writing to a string does not fail.
            let _ = writeln!(out, "  {name:width$}  {text}");
        }
    }
    let _ = writeln!(out, "\n{}", Verdict::of(outcome));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Slow;
    use crate::sample;

    #[test]
    fn a_good_run() {
        let text = table(&sample::good(), &["good.json (JSON)".into()]);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "fan-out over raw, ws://127.0.0.1:8080/sub/load",
                "  load       15,000 clients, 1,500 of them verify every message, 1 publisher",
                "             1 topic; 128 bytes, 100/s; 2 workers",
                "  connect    15,000 clients in 3.87 s, 3,876/s, 12 retries",
                "             admission p50 932 µs   p90 1.65 ms   p99 3.90 ms   p99.9 10.4 ms   max 21.4 ms",
                "             server CPU 21.3 µs per client",
                "  measured   60.0 s",
                "  delivered  90,000,000 messages, 1,499,500/s, 189 MiB/s, 1.48 per receive",
                "  published  6,000 messages, 100/s, lateness p99 48.0 µs",
                "  latency    p50 1.46 ms   p90 2.61 ms   p99 8.34 ms   p99.9 131 ms   max 1.17 s",
                "  server     CPU 488 ns per message, 73.1 % of a core",
                "             0.933 sends per message",
                "             memory 231 B per client",
                "  loadgen    CPU 251 ns per message, 37.7 % of a core (18.8 % of the cores it may use; busiest worker 39.0 %)",
                "             memory 402 B per client",
                "  machine    kernel memory per client, of both ends where both are here: TCP buffers 1.17 KiB, slab 6.74 KiB",
                "  files      good.json (JSON)",
                "",
                "valid",
            ]
        );
    }

    #[test]
    fn a_run_with_errors() {
        let text = table(&sample::bad(), &[]);
        let end: Vec<_> = text.lines().skip_while(|line| !line.starts_with("  errors")).collect();
        let (last, end) = end.split_last().unwrap();
        assert_eq!(
            end,
            [
                "  errors     1,204 lost: messages that a subscriber never got",
                "             2 reordered: messages that came after a later one of their stream",
                "             1 corrupt: messages with the wrong length, filler or topic, or that nobody published",
                "             34 refused: clients that never became subscribed (30 × 503 Service Unavailable, 4 × timed out after 10 s)",
                "             43 closed: connections that the server closed (40 × 1011 internal error, 3 × 1006 no close frame)",
                "             1 broken: protocol errors, or error messages of the server (1 × masked frame from a server <script>alert(1)</script>)",
                "             no error: connections that the server closed as expected (7 × 4008 the application's own)",
                "  fail-if    FAILED: p99.9>50ms: p99.9 was 61.2 ms",
                "",
            ]
        );
        assert_eq!(
            *last,
            "FAILED: 1,204 lost, 2 reordered, 1 corrupt, 34 refused, 43 closed, 1 broken, p99.9>50ms: p99.9 was 61.2 ms; \
             and INVALID: loadgen was the bottleneck: worker 2 used 99 % of its core (interrupted: the figures are of the time before)"
        );
    }

    #[test]
    fn conditions_that_passed_are_listed_too() {
        let mut outcome = sample::good();
        outcome.crossed = vec!["p50>1ms: p50 was 1.46 ms".into()];
        outcome.passed = vec!["p99>50ms: p99 was 8.34 ms".into(), "lost>0: lost was 0".into()];
        let text = table(&outcome, &[]);
        let end: Vec<_> = text.lines().skip_while(|line| !line.starts_with("  fail-if")).take(3).collect();
        assert_eq!(
            end,
            [
                "  fail-if    FAILED: p50>1ms: p50 was 1.46 ms",
                "             passed: p99>50ms: p99 was 8.34 ms",
                "             passed: lost>0: lost was 0",
            ]
        );
        assert!(crate::results::page(&outcome).contains("passed: lost&gt;0: lost was 0"));
    }

    #[test]
    fn figures_that_are_none_are_left_out() {
        let mut outcome = sample::good();
        outcome.own.memory_after.slab = outcome.own.memory_before.slab - (8 << 20);
        outcome.own.memory_after.tcp = 0;
        outcome.own.memory_after.pss = outcome.own.memory_before.pss;
        outcome.server.as_mut().unwrap().memory_connected.pss = 0;
        let text = table(&outcome, &[]);
        assert!(!text.contains("slab") && !text.contains("memory") && !text.contains("0 B per client"), "{text}");
    }

    #[test]
    fn who_publishes_is_said() {
        let mut outcome = sample::good();
        outcome.run.publishers = 0;
        let of = |outcome: &Outcome| table(outcome, &[]).lines().nth(1).unwrap().to_owned();
        assert!(of(&outcome).ends_with("publishers elsewhere"), "{}", of(&outcome));
        outcome.run.everyone_publishes = true;
        assert!(of(&outcome).ends_with("each of them publishes too"));
        outcome.run.everyone_publishes = false;
        outcome.run.streams = 0;
        assert!(of(&outcome).ends_with("nobody publishes"));
    }

    #[test]
    fn slow_clients_and_the_end_of_a_server_are_reported() {
        let mut outcome = sample::good();
        outcome.traffic.last_first_ns = 5_100_000;
        outcome.traffic.last_last_ns = 740_000_000;
        outcome.run.slow = 100;
        let closed = [(1013, 88), (1006, 2)].into();
        outcome.slow = Some(Slow { behind: 10, behind_messages: 310, closed, cut_off: Some((1.25, 3.5)) });
        let server = outcome.server.as_mut().unwrap();
        (server.ended_at, server.lived, server.cpu_ns) = (Some(12.5), Some(5.0), 5_000_000_000);
        outcome.ended = Some("the server ended 12.5 s after the start".into());
        let text = table(&outcome, &[]);
        for line in [
            "  broadcast  last message: time to first subscriber 5.10 ms, to last subscriber 740 ms",
            "  slow       100 slow clients: 90 closed by the server, 10 behind when publishing ended",
            "             closed with 88 × 1013 try again later, 2 × 1006 no close frame; last messages to them 1.25 s to 3.50 s after the start",
            "             behind by up to 310 messages",
            "  server     CPU 55.6 ns per message, 100 % of a core until it ended, 12.5 s after the start",
            "FAILED: the server ended 12.5 s after the start",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn nothing_measured_is_nothing_said() {
        let text = table(&Outcome::default(), &[]);
        assert!(!text.contains("measured") && !text.contains("loadgen"), "{text}");
        assert!(!text.contains("latency") && !text.contains("server") && !text.contains("NaN"), "{text}");
        assert!(text.ends_with("\nvalid\n"), "{text}");
    }

    #[test]
    fn what_comes_from_outside_does_not_drive_the_terminal() {
        let mut outcome = sample::bad();
        outcome.run.url = "ws://\x1b[31m/".into();
        outcome.errors.broken.insert("\x1b]0;x\x07".into(), 1);
        outcome.invalid.push("\x1bc".into());
        outcome.crossed.push("\x1bc".into());
        assert!(!table(&outcome, &[]).contains(['\x1b', '\x07']));
    }
}
