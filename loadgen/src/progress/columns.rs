//! The lines of the running display, as text that fits a terminal: the columns of a second, the line of errors, and the
//! line of connecting clients.
//!
//! Every column is as wide as its largest value. Where a terminal is too narrow for all, columns are left out in a fixed
//! order; percentiles keep theirs. Widths are in characters, each of which takes one place.

use crate::format::{bytes, time};
use crate::outcome::{Phase, Second};

/// Where standard error is no terminal.
pub(super) const WIDTH: usize = 100;
const BETWEEN: usize = 1;

/// A column: heading, width, and how early it is left out: the highest first, 0 never.
type Column = (Name, &'static str, usize, u8);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Time,
    Phase,
    Clients,
    Delivered,
    Published,
    P50,
    P99,
    P999,
    Max,
    Own,
    Server,
    Memory,
}

const COLUMNS: [Column; 12] = [
    (Name::Time, "time", 7, 0),
    (Name::Phase, "phase", 7, 2),
    (Name::Clients, "clients", 7, 0),
    (Name::Delivered, "delivered", 9, 0),
    (Name::Published, "published", 9, 4),
    (Name::P50, "p50", 7, 0),
    (Name::P99, "p99", 7, 0),
    (Name::P999, "p99.9", 7, 5),
    (Name::Max, "max", 7, 0),
    (Name::Own, "own CPU", 7, 1),
    (Name::Server, "server", 7, 0),
    (Name::Memory, "B/client", 8, 3),
];

/// The columns that fit, in order; those of the server only if there is one.
fn columns(width: usize, server: bool) -> Vec<Column> {
    let mut columns = COLUMNS.to_vec();
    columns.retain(|(name, ..)| server || !matches!(name, Name::Server | Name::Memory));
    let taken = |columns: &[Column]| columns.iter().map(|(_, _, width, _)| width + BETWEEN).sum::<usize>() - BETWEEN;
    while taken(&columns) > width {
        let Some(first) = columns.iter().map(|(.., order)| *order).max().filter(|order| *order > 0) else { break };
        columns.retain(|(.., order)| *order != first);
    }
    columns
}

pub(super) fn heading(width: usize, server: bool) -> String {
    line(width, server, |_, heading| heading.to_owned())
}

/// One second; `memory` of the server per client, in bytes.
pub(super) fn row(width: usize, server: bool, second: &Second, memory: Option<f64>) -> String {
    let rate = |count: u64| {
        if second.span > 0.0 { format!("{}/s", short(count as f64 / second.span)) } else { "–".into() }
    };
    let latency = |ns: u64| if second.latency.count > 0 { time(ns as f64) } else { "–".into() };
    let share = |share: f64| format!("{:.0} %", share * 100.0);
    line(width, server, |name, _| match name {
        Name::Time => since(second.at),
        Name::Phase => second.phase.name().to_owned(),
        Name::Clients => short(second.clients as f64),
        Name::Delivered => rate(second.delivered),
        Name::Published => rate(second.published),
        Name::P50 => latency(second.latency.p50),
        Name::P99 => latency(second.latency.p99),
        Name::P999 => latency(second.latency.p999),
        Name::Max => latency(second.latency.max),
        Name::Own => share(second.own_cpu),
        Name::Server => second.server_cpu.map_or("–".into(), share),
        Name::Memory => memory.map_or("–".into(), bytes),
    })
}

fn line(width: usize, server: bool, cell: impl Fn(Name, &str) -> String) -> String {
    let cells = columns(width, server).into_iter().map(|(name, heading, width, _)| {
        let text = cell(name, heading);
        if name == Name::Phase { format!("{text:<width$}") } else { format!("{text:>width$}") }
    });
    cells.collect::<Vec<_>>().join(" ")
}

/// `! 12 lost, 3 refused`, under the second in which they were counted.
pub(super) fn errors(width: usize, kinds: &[String]) -> String {
    cut(&format!("! {}", kinds.join(", ")), width)
}

/// What connecting has come to: `connecting: 3,990 of 10,000 subscribed, 4,000/s, 2 s left, 10 failed`.
pub(super) fn connecting(width: usize, opened: u64, asked: u64, failed: u64, per_second: f64) -> String {
    let count = crate::format::count;
    let left = asked.saturating_sub(opened).saturating_sub(failed);
    let mut text = format!("connecting: {} of {} subscribed, {}/s", count(opened), count(asked), short(per_second));
    if left > 0 && per_second > 0.0 {
        text += &format!(", {} left", eta((left as f64 / per_second).ceil() as u64));
    }
    if failed > 0 {
        text += &format!(", {} failed", count(failed));
    }
    cut(&text, width)
}

/// The same with a bar, if there is room for one.
pub(super) fn bar(width: usize, opened: u64, asked: u64, failed: u64, per_second: f64) -> String {
    const SHORTEST: usize = 12;
    let text = connecting(width, opened, asked, failed, per_second);
    // A terminal may wrap a line that fills it.
    let room = width.saturating_sub(text.chars().count() + 2).min(32);
    if room < SHORTEST {
        return text;
    }
    let inner = room - 2;
    let done = (inner as f64 * opened as f64 / asked.max(1) as f64) as usize;
    format!("[{:<inner$}] {text}", "=".repeat(done.min(inner)))
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A number in seven characters at most.
fn short(value: f64) -> String {
    match value {
        _ if value < 999_999.5 => crate::format::number(value),
        _ if value < 999.95e6 => format!("{:.1}M", value / 1e6),
        _ => format!("{:.1}G", value / 1e9),
    }
}

/// Since the start, in seven characters at most.
fn since(seconds: f64) -> String {
    match seconds {
        _ if seconds < 9999.95 => format!("{seconds:.1}s"),
        _ if seconds < 99_999.5 => format!("{seconds:.0}s"),
        _ => format!("{:.0}h", seconds / 3600.0),
    }
}

fn eta(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Whether a second is shown: connecting has a line of its own.
pub(super) fn is_shown(second: &Second) -> bool {
    second.phase != Phase::Connect
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{LATENCY_MAX_NS, Latencies};

    /// The largest figures of a year's run with millions of clients.
    fn largest() -> Second {
        let most = LATENCY_MAX_NS;
        Second {
            at: 366.0 * 86400.0,
            span: 1.0,
            phase: Phase::WarmUp,
            clients: 10_000_000,
            delivered: 999_949_000_000,
            published: 999_940_000,
            latency: Latencies {
                count: 1,
                p50: most,
                p90: most,
                p99: most,
                p999: most,
                max: most,
                ..Latencies::default()
            },
            own_cpu: 64.0,
            server_cpu: Some(640.0),
            ..Second::default()
        }
    }

    fn longest(text: &str) -> usize {
        text.chars().count()
    }

    #[test]
    fn every_line_fits() {
        for width in [60, 80, 100] {
            for server in [false, true] {
                let (heading, row) = (heading(width, server), row(width, server, &largest(), Some(1023.9 * 1024.0)));
                assert!(longest(&heading) <= width && longest(&row) <= width, "{width}\n{heading}\n{row}");
                // Each value stands under its heading.
                assert_eq!(longest(&heading), longest(&row), "{width}\n{heading}\n{row}");
            }
            let kinds: Vec<_> = ["lost", "duplicated", "refused", "closed", "publishers lost"]
                .iter()
                .map(|kind| format!("18,446,744,073,709,551,615 {kind}"))
                .collect();
            assert!(longest(&errors(width, &kinds)) <= width);
            for per_second in [0.0, 0.3, 999_999.0] {
                let text = bar(width, 9_000_000, 10_000_000, 999_999, per_second);
                assert!(longest(&text) < width + usize::from(!text.starts_with('[')), "{width}\n{text}");
            }
        }
        assert!(bar(100, 5, 10, 0, 1.0).starts_with("[==============="));
        assert!(bar(60, 50_000, 100_000, 0, 1000.0).starts_with("connecting: 50,000 of 100,000"));
    }

    #[test]
    fn narrow_terminals_keep_what_matters() {
        let full =
            "   time phase   clients delivered published     p50     p99   p99.9     max own CPU  server B/client";
        assert_eq!(heading(100, true), full);
        assert_eq!(heading(80, true), "   time phase   clients delivered     p50     p99     max own CPU  server");
        assert_eq!(heading(60, true), "   time clients delivered     p50     p99     max  server");
        assert_eq!(heading(80, false), "   time phase   clients delivered published     p50     p99     max own CPU");
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.25, 999_999.0, 999_999.6, 12_345_678.0, 2.5e9].map(short);
        assert_eq!(numbers, ["0", "0.250", "999,999", "1.0M", "12.3M", "2.5G"]);
        assert_eq!([12.0, 9999.99, 400_000.0].map(since), ["12.0s", "10000s", "111h"]);
    }
}
