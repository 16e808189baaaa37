//! The result on a terminal: names on the left, figures on the right, the verdict in the last line.

use std::fmt::Write;

use super::{Line, errors, lines};
use crate::format::plain;
use crate::outcome::Outcome;
use crate::verdict::Verdict;

/// All that is to be said about a run, as text. Judge it first.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let run = &outcome.run;
    let protocol = run.protocol.map_or(String::new(), |protocol| format!(" over {}", protocol.name()));
    let mut out = plain(&format!("{}{protocol}, {}", run.scenario, run.url));
    out.push('\n');
    let mut all = lines(outcome);
    all.push(Line { name: "errors", text: errors(outcome) });
    all.push(Line { name: "crossed", text: outcome.crossed.iter().map(|sentence| plain(sentence)).collect() });
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
    use crate::sample;

    #[test]
    fn a_good_run() {
        let text = table(&sample::good());
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "fan-out over raw, ws://127.0.0.1:8080/sub/load",
                "  asked      15,000 clients, 1,500 of them verifying every message, 1 publisher",
                "             1 topic; 128 bytes, 100/s; 2 workers",
                "  connect    15,000 in 3.87 s, 3,876/s, 12 tried again",
                "             admission p50 932 µs   p99 3.90 ms   max 21.4 ms",
                "             server CPU 21.3 µs per client",
                "  measured   60.0 s",
                "  delivered  90,000,000 messages, 1,499,500/s, 189 MiB/s, 1.48 per receive",
                "  published  6,000 messages, 100/s, at p99 48.0 µs late",
                "  latency    p50 1.46 ms   p90 2.61 ms   p99 8.34 ms   p99.9 131 ms   p99.99 277 ms   max 1.17 s",
                "  server     CPU 488 ns per message, 73.1 % of a core",
                "             0.933 sends per message",
                "             memory 231 B per client",
                "  loadgen    CPU 251 ns per message, 37.7 % of a core (18.8 % of those it may use; busiest worker 39.0 %)",
                "             memory 402 B per client",
                "  machine    kernel memory per client of what runs here: TCP buffers 1.17 KiB, slab 6.74 KiB",
                "",
                "valid",
            ]
        );
    }

    #[test]
    fn a_run_with_errors() {
        let text = table(&sample::bad());
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
                "             1 broken: breaches of the protocol, or refusals in words (1 × masked frame from a server <script>alert(1)</script>)",
                "             no error: slow consumers that the server closed (7 × 4008 the application's own)",
                "  crossed    p99.9>50ms: p99.9 was 61.2 ms",
                "",
            ]
        );
        assert_eq!(
            *last,
            "FAILED: 1,204 lost, 2 reordered, 1 corrupt, 34 refused, 43 closed, 1 broken, p99.9>50ms: p99.9 was 61.2 ms; \
             and INVALID: loadgen was the bottleneck: worker 2 used 99 % of its core (interrupted before its time)"
        );
    }

    #[test]
    fn nothing_measured_is_nothing_said() {
        let text = table(&Outcome::default());
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
        assert!(!table(&outcome).contains(['\x1b', '\x07']));
    }
}
