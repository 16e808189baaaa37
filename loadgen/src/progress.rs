//! What a run shows while it runs, on stderr: a progress bar while connecting, then a line a second.
//!
//! On a terminal the bar is redrawn in place; elsewhere there is at most one plain line a second. Errors of writing to
//! stderr are ignored. The clock is read here only to limit how often lines are written.

use std::io::{IsTerminal, Stderr, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;
use crate::outcome::{Errors, Facts, Phase, Second};
use crate::verdict::kinds;

/// Between two plain lines while connecting.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Lines between two headings.
const HEADING_EVERY: u32 = 20;

/// The running display.
pub struct ProgressDisplay<W: Write = Stderr> {
    /// `None`: shows nothing.
    out: Option<W>,
    /// Only on a terminal, only while connecting.
    bar: Option<ProgressBar>,
    asked: u64,
    /// The last plain line while connecting: when it was written, clients subscribed, clients failed.
    last_line: Option<(Instant, u64, u64)>,
    /// Rows written.
    rows: u32,
    /// Whether the heading has columns for a server.
    server: bool,
}

impl ProgressDisplay {
    /// Writes to stderr; shows nothing unless `enabled`.
    #[must_use]
    pub fn new(facts: &Facts, enabled: bool) -> Self {
        let bar = (enabled && stderr().is_terminal()).then(|| bar(facts.clients));
        Self { bar, ..Self::on(facts, enabled.then(stderr)) }
    }
}

impl<W: Write> ProgressDisplay<W> {
    /// Writes plain lines to `out`.
    fn on(facts: &Facts, out: Option<W>) -> Self {
        Self { out, bar: None, asked: facts.clients, last_line: None, rows: 0, server: false }
    }

    /// Shows how many clients have subscribed and failed so far, and how many subscribed in the last second. May be
    /// called at any rate.
    pub fn connecting(&mut self, opened: u64, failed: u64, per_second: f64) {
        self.connecting_at(Instant::now(), opened, failed, per_second);
    }

    fn connecting_at(&mut self, now: Instant, opened: u64, failed: u64, per_second: f64) {
        let left = self.asked.saturating_sub(opened).saturating_sub(failed);
        if let Some(bar) = &self.bar {
            bar.set_position(opened);
            bar.set_message(rate(left, failed, per_second));
            return;
        }
        let done = left == 0;
        let (due, changed) = self.last_line.map_or((true, true), |(written, last_opened, last_failed)| {
            (now.duration_since(written) >= LINE_INTERVAL, (opened, failed) != (last_opened, last_failed))
        });
        if (due || done) && changed {
            self.last_line = Some((now, opened, failed));
            let (opened, asked) = (format::count(opened), format::count(self.asked));
            self.line(&format!("connecting: {opened} of {asked} subscribed, {}", rate(left, failed, per_second)));
        }
    }

    /// Shows one second of the run; `errors` are those of the whole run so far. Seconds of the connecting phase are
    /// left out, because [`Self::connecting`] shows that phase.
    pub fn second(&mut self, second: &Second, errors: &Errors, server_bytes_per_client: Option<f64>) {
        if second.phase == Phase::Connect || self.out.is_none() {
            return;
        }
        self.end_of_bar();
        let server = second.server_cpu.is_some() || server_bytes_per_client.is_some();
        if self.rows.is_multiple_of(HEADING_EVERY) || server != self.server {
            self.server = server;
            self.line(&heading(server));
        }
        self.rows += 1;
        self.line(&row(second, errors, self.server, server_bytes_per_client));
    }

    /// Ends the display: a progress bar is removed.
    pub fn done(&mut self) {
        self.end_of_bar();
        if let Some(out) = &mut self.out {
            let _ = out.flush();
        }
    }

    fn end_of_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            let opened = bar.position();
            bar.finish_and_clear();
            let (opened, asked) = (format::count(opened), format::count(self.asked));
            self.line(&format!(
                "{opened} of {asked} clients subscribed after {}",
                format::time(bar.elapsed().as_nanos() as f64)
            ));
        }
    }

    fn line(&mut self, text: &str) {
        if let Some(out) = &mut self.out {
            let _ = writeln!(out, "{text}");
        }
    }
}

fn bar(asked: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("connecting [{bar:30}] {human_pos}/{human_len} subscribed, {msg}")
        .expect("a valid template")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(asked), ProgressDrawTarget::stderr()).with_style(style)
}

/// `12,000/s, 7 s left, 3 failed`.
fn rate(left: u64, failed: u64, per_second: f64) -> String {
    let mut text = format!("{}/s", format::number(per_second));
    if left > 0 && per_second > 0.0 {
        text += &format!(", {} left", eta((left as f64 / per_second).ceil() as u64));
    }
    if failed > 0 {
        text += &format!(", {} failed", format::count(failed));
    }
    text
}

fn eta(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn heading(server: bool) -> String {
    let mut text = format!(
        "{:>8} {:<8}{:>10} {:>12} {:>12} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "time", "phase", "clients", "delivered/s", "published/s", "p50", "p99", "p99.9", "max", "own CPU"
    );
    if server {
        text += &format!(" {:>7} {:>10}", "server", "per client");
    }
    text
}

fn row(second: &Second, errors: &Errors, server: bool, server_bytes_per_client: Option<f64>) -> String {
    let rate = |count: u64| if second.span > 0.0 { format::number(count as f64 / second.span) } else { "–".into() };
    let latency = &second.latency;
    let time = |ns: u64| if latency.count > 0 { format::time(ns as f64) } else { "–".into() };
    let share = |share: Option<f64>| share.map_or("–".into(), |share| format!("{:.0} %", share * 100.0));
    let mut text = format!(
        "{:>6.1} s {:<8}{:>10} {:>12} {:>12} {:>8} {:>8} {:>8} {:>8} {:>7}",
        second.at,
        second.phase.name(),
        format::count(second.clients),
        rate(second.delivered),
        rate(second.published),
        time(latency.p50),
        time(latency.p99),
        time(latency.p999),
        time(latency.max),
        share(Some(second.own_cpu)),
    );
    if server {
        let memory = server_bytes_per_client.map_or("–".into(), format::bytes);
        text += &format!(" {:>7} {memory:>10}", share(second.server_cpu));
    }
    let errors: Vec<_> = kinds(errors).iter().map(|kind| kind.in_words()).collect();
    if !errors.is_empty() {
        text += &format!("  ! {}", errors.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Latencies;

    fn display() -> ProgressDisplay<Vec<u8>> {
        ProgressDisplay::on(&Facts { clients: 10_000, ..Facts::default() }, Some(Vec::new()))
    }

    fn lines(display: ProgressDisplay<Vec<u8>>) -> Vec<String> {
        String::from_utf8(display.out.unwrap()).unwrap().lines().map(str::to_owned).collect()
    }

    fn second() -> Second {
        Second {
            at: 12.0,
            span: 0.5,
            phase: Phase::Measure,
            clients: 10_000,
            delivered: 500_000,
            published: 50,
            latency: Latencies {
                count: 9,
                p50: 1_200_000,
                p99: 3_400_000,
                p999: 7_000_000,
                max: 12_000_000,
                ..Latencies::default()
            },
            own_cpu: 0.44,
            server_cpu: Some(0.91),
            ..Second::default()
        }
    }

    #[test]
    fn progress_is_a_line_a_second_at_most_and_always_the_last() {
        let mut display = display();
        let start = Instant::now();
        for tick in 0..=25_u32 {
            let at = start + Duration::from_millis(100) * tick;
            display.connecting_at(at, u64::from(tick) * 399, u64::from(tick), 4000.0);
        }
        display.connecting_at(start + Duration::from_millis(2600), 9975, 25, 4000.0);
        assert_eq!(
            lines(display),
            [
                "connecting: 0 of 10,000 subscribed, 4,000/s, 3 s left",
                "connecting: 3,990 of 10,000 subscribed, 4,000/s, 2 s left, 10 failed",
                "connecting: 7,980 of 10,000 subscribed, 4,000/s, 1 s left, 20 failed",
                "connecting: 9,975 of 10,000 subscribed, 4,000/s, 25 failed",
            ]
        );
    }

    #[test]
    fn a_second_is_a_line_under_its_heading() {
        let mut display = display();
        display.second(&Second::default(), &Errors::default(), None);
        display.second(&second(), &Errors::default(), Some(231.0));
        let errors = Errors { lost: 12, refused: [("503".into(), 3)].into(), ..Errors::default() };
        display.second(&Second { latency: Latencies::default(), ..second() }, &errors, None);
        display.done();
        assert_eq!(
            lines(display),
            [
                "    time phase      clients  delivered/s  published/s      p50      p99    p99.9      max own CPU  server per client",
                "  12.0 s measure     10,000    1,000,000          100  1.20 ms  3.40 ms  7.00 ms  12.0 ms    44 %    91 %      231 B",
                "  12.0 s measure     10,000    1,000,000          100        –        –        –        –    44 %    91 %          –  ! 12 lost, 3 refused",
            ]
        );
    }

    #[test]
    fn the_heading_comes_again_and_nothing_comes_when_not_asked_for() {
        let mut display = display();
        (0..41).for_each(|_| display.second(&second(), &Errors::default(), None));
        assert_eq!(lines(display).iter().filter(|line| line.contains("delivered/s")).count(), 3);
        let mut quiet = ProgressDisplay::new(&Facts::default(), false);
        quiet.connecting(1, 0, 1.0);
        quiet.second(&second(), &Errors::default(), None);
        quiet.done();
        assert!(quiet.out.is_none());
    }
}
