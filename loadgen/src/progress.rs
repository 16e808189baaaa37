//! What a run shows while it runs, on stderr: a progress bar while connecting, then a line a second.
//!
//! On a terminal the bar is redrawn in place, and lines are as long as it is wide; elsewhere there is at most one plain line
//! a second, of 100 characters at most. Errors of writing to stderr are ignored. The clock is read here only to limit how
//! often lines are written. `columns` makes the lines.

mod columns;

use std::io::{IsTerminal, Stderr, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;
use crate::outcome::{Errors, Facts, Second};
use crate::verdict::{Kind, kinds};

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
    /// Whether the width is that of standard error.
    terminal: bool,
    asked: u64,
    /// The last plain line while connecting: when it was written, clients subscribed, clients failed.
    last_line: Option<(Instant, u64, u64)>,
    /// Rows written.
    rows: u32,
    /// Whether the heading has columns for a server, and the width that it was made for.
    heading: (bool, usize),
    /// The errors that were shown.
    errors: Vec<String>,
}

impl ProgressDisplay {
    /// Writes to stderr; shows nothing unless `enabled`.
    #[must_use]
    pub fn new(facts: &Facts, enabled: bool) -> Self {
        let terminal = enabled && stderr().is_terminal();
        Self { bar: terminal.then(|| bar(facts.clients)), terminal, ..Self::on(facts, enabled.then(stderr)) }
    }
}

impl<W: Write> ProgressDisplay<W> {
    /// Writes plain lines to `out`.
    fn on(facts: &Facts, out: Option<W>) -> Self {
        Self {
            out,
            bar: None,
            terminal: false,
            asked: facts.clients,
            last_line: None,
            rows: 0,
            heading: (false, 0),
            errors: Vec::new(),
        }
    }

    /// Shows how many clients have subscribed and failed so far, and how many subscribed in the last second. May be
    /// called at any rate.
    pub fn connecting(&mut self, opened: u64, failed: u64, per_second: f64) {
        self.connecting_at(Instant::now(), opened, failed, per_second);
    }

    fn connecting_at(&mut self, now: Instant, opened: u64, failed: u64, per_second: f64) {
        let width = self.width();
        if let Some(bar) = &self.bar {
            bar.set_message(columns::bar(width, opened, self.asked, failed, per_second));
            return;
        }
        let done = self.asked <= opened.saturating_add(failed);
        let (due, changed) = self.last_line.map_or((true, true), |(written, last_opened, last_failed)| {
            (now.duration_since(written) >= LINE_INTERVAL, (opened, failed) != (last_opened, last_failed))
        });
        if (due || done) && changed {
            self.last_line = Some((now, opened, failed));
            self.line(&columns::connecting(width, opened, self.asked, failed, per_second));
        }
    }

    /// Connecting is over: so many clients have subscribed, the last of them after so many seconds.
    pub fn connected(&mut self, opened: u64, seconds: f64) {
        self.end_of_bar();
        let (opened, asked) = (format::count(opened), format::count(self.asked));
        self.line(&format!("{opened} of {asked} clients subscribed in {}", format::seconds(seconds)));
    }

    /// Shows one second of the run; `errors` are those of the whole run so far, which have a line of their own when they
    /// have changed. Seconds of the connecting phase are left out, because [`Self::connecting`] shows that phase.
    pub fn second(&mut self, second: &Second, errors: &Errors, server_bytes_per_client: Option<f64>) {
        if !columns::is_shown(second) || self.out.is_none() {
            return;
        }
        let width = self.width();
        let server = second.server_cpu.is_some() || server_bytes_per_client.is_some() || self.heading.0;
        if self.rows.is_multiple_of(HEADING_EVERY) || self.heading != (server, width) {
            self.heading = (server, width);
            self.line(&columns::heading(width, server));
        }
        self.rows += 1;
        self.line(&columns::row(width, server, second, server_bytes_per_client));
        let errors: Vec<_> = kinds(errors).iter().map(Kind::in_words).collect();
        if errors != self.errors {
            self.line(&columns::errors(width, &errors));
            self.errors = errors;
        }
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
            bar.finish_and_clear();
        }
    }

    /// Of the terminal now: it may change while the run goes on.
    fn width(&self) -> usize {
        let size = self.terminal.then(|| rustix::termios::tcgetwinsize(stderr()).ok()).flatten();
        size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(columns::WIDTH)
    }

    fn line(&mut self, text: &str) {
        if let Some(out) = &mut self.out {
            let _ = writeln!(out, "{text}");
        }
    }
}

fn bar(asked: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}").expect("a valid template");
    ProgressBar::with_draw_target(Some(asked), ProgressDrawTarget::stderr()).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Latencies, Phase};

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
        display.connected(10_000, 0.008_88);
        display.second(&second(), &Errors::default(), Some(231.0));
        let errors = Errors { lost: 12, refused: [("503".into(), 3)].into(), ..Errors::default() };
        display.second(&Second { latency: Latencies::default(), ..second() }, &errors, None);
        // The same errors again have no line, and a server that has ended keeps its columns.
        display.second(&Second { server_cpu: None, ..second() }, &errors, None);
        display.done();
        assert_eq!(
            lines(display),
            [
                "10,000 of 10,000 clients subscribed in 8.88 ms",
                "   time phase   clients delivered published     p50     p99   p99.9     max own CPU  server B/client",
                "  12.0s measure  10,000    1.0M/s     100/s 1.20 ms 3.40 ms 7.00 ms 12.0 ms    44 %    91 %    231 B",
                "  12.0s measure  10,000    1.0M/s     100/s       –       –       –       –    44 %    91 %        –",
                "! 12 lost, 3 refused",
                "  12.0s measure  10,000    1.0M/s     100/s 1.20 ms 3.40 ms 7.00 ms 12.0 ms    44 %       –        –",
            ]
        );
    }

    #[test]
    fn the_heading_comes_again_and_nothing_comes_when_not_asked_for() {
        let mut display = display();
        (0..41).for_each(|_| display.second(&second(), &Errors::default(), None));
        assert_eq!(lines(display).iter().filter(|line| line.contains("delivered")).count(), 3);
        let mut quiet = ProgressDisplay::new(&Facts::default(), false);
        quiet.connecting(1, 0, 1.0);
        quiet.second(&second(), &Errors::default(), None);
        quiet.done();
        assert!(quiet.out.is_none());
    }
}
