//! The lines of a report, in any form: figures under a name.
//!
//! | file | what it is |
//! | --- | --- |
//! | `table` | the lines on a terminal |
//! | `history` | the lines about recovery and state |
//! | `logins` | the lines about a storm of logins |
//! | `tls` | the lines about TLS |
//! | `terms` | the lines about slow consumers and throttles |
//! | `html` | a page of its own, with plots |
//!
//! A figure that was not measured has no line. Text from outside is made safe for a terminal here; `html` escapes it.

mod history;
mod html;
mod logins;
mod table;
mod terms;
mod tls;

pub use html::page;
pub use table::table;

use crate::format::{bytes, count, number, of, percent, plain, seconds, time};
use crate::outcome::{Latencies, Outcome, percentile};
use crate::verdict::{by_code, kinds};

/// Reasons shown for each kind of error; the rest is in `--json`.
const REASONS_SHOWN: usize = 8;

/// Some figures under a name.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    name: &'static str,
    /// One or more lines of text.
    text: Vec<String>,
}

/// All lines but verdict and errors.
fn lines(outcome: &Outcome) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |name, text: Vec<String>| {
        let text: Vec<_> = text.iter().filter(|text| !text.is_empty()).map(|text| plain(text)).collect();
        if !text.is_empty() {
            lines.push(Line { name, text });
        }
    };
    line("load", asked(outcome));
    line("connect", connect(outcome));
    line("tls", tls::tls(outcome));
    // A run that ended while connecting measured nothing.
    if outcome.seconds > 0.0 {
        line("measured", vec![seconds(outcome.seconds)]);
        line("delivered", delivered(outcome));
        line("published", published(outcome));
    }
    line("latency", vec![percentiles(&outcome.latency)]);
    line("broadcast", broadcast(outcome));
    line("slow", slow(outcome));
    line("logins", logins::logins(outcome));
    line("delivery", terms::terms(outcome));
    line("history", history::history(outcome));
    line("server", server(outcome));
    line("loadgen", own(outcome));
    line("machine", machine(outcome));
    lines
}

/// The percentiles of every report, in this order; the longest comes last.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// `p50 1.20 ms   p90 2.50 ms   p99 3.40 ms   p99.9 7.00 ms   max 12.0 ms`.
fn percentiles(latencies: &Latencies) -> String {
    if latencies.count == 0 {
        return String::new();
    }
    let histogram = latencies.histogram();
    let mut text = String::new();
    for percent in PERCENTILES {
        text += &format!("p{percent} {}   ", time(percentile(&histogram, percent) as f64));
    }
    text + &format!("max {}", time(latencies.max as f64))
}

fn asked(outcome: &Outcome) -> Vec<String> {
    let run = &outcome.run;
    let mut who = of(run.clients, "client");
    if run.verifying < run.clients {
        who += &format!(", {} of them verify every message", count(run.verifying));
    }
    who += &match (run.publishers, run.everyone_publishes) {
        (0, true) => ", each of them publishes too".to_owned(),
        (0, false) if run.streams == 0 => ", nobody publishes".to_owned(),
        (0, false) => ", publishers elsewhere".to_owned(),
        (publishers, _) => format!(", {}", of(publishers, "publisher")),
    };
    let mut where_ = of(u64::from(run.topics), "topic");
    if run.topics_per_client > 1 {
        where_ += &format!(", {} per client", count(u64::from(run.topics_per_client)));
    }
    let mut what = format!("{} bytes, {}", run.payload, run.pacing);
    if run.burst > 1 {
        what += &format!(", bursts of {}", run.burst);
    }
    let mut how = of(u64::from(run.workers), "worker");
    if outcome.parts > 1 {
        how += &format!(" in {} processes", outcome.parts);
    }
    vec![who, format!("{where_}; {what}; {how}")]
}

fn connect(outcome: &Outcome) -> Vec<String> {
    let connect = &outcome.connect;
    let mut opened = format!("{} clients in {}", count(connect.opened), seconds(connect.seconds));
    if connect.seconds > 0.0 {
        opened += &format!(", {}/s", number(connect.opened as f64 / connect.seconds));
    }
    for (number, what) in [(connect.retries, "retries"), (connect.reopened, "reconnects")] {
        if number > 0 {
            opened += &format!(", {} {what}", count(number));
        }
    }
    let mut admission = percentiles(&outcome.admission);
    if !admission.is_empty() {
        admission = format!("admission {admission}");
    }
    let cpu =
        outcome.server_ns_per_admission().map_or(String::new(), |ns| format!("server CPU {} per client", time(ns)));
    let mut storms = connect.storm_seconds.iter().map(|storm| seconds(*storm)).collect::<Vec<_>>().join(", ");
    if !storms.is_empty() {
        storms = format!("reconnected after each storm in {storms}");
    }
    vec![opened, admission, cpu, storms]
}

fn delivered(outcome: &Outcome) -> Vec<String> {
    let traffic = &outcome.traffic;
    let mut text = format!("{} messages, {}/s", count(traffic.delivered), number(outcome.delivered_per_second()));
    if outcome.seconds > 0.0 && traffic.bytes > 0 {
        text += &format!(", {}/s", bytes(traffic.bytes as f64 / outcome.seconds));
    }
    if traffic.receives > 0 {
        text += &format!(", {} per receive", number(traffic.delivered as f64 / traffic.receives as f64));
    }
    vec![text]
}

fn published(outcome: &Outcome) -> Vec<String> {
    let traffic = &outcome.traffic;
    let mut text =
        format!("{} messages, {}/s", count(traffic.published_measured), number(outcome.published_per_second()));
    if traffic.lateness_p99_ns > 0 {
        text += &format!(", lateness p99 {}", time(traffic.lateness_p99_ns as f64));
    }
    vec![text]
}

fn broadcast(outcome: &Outcome) -> Vec<String> {
    let traffic = &outcome.traffic;
    if traffic.last_last_ns == 0 {
        return Vec::new();
    }
    let (first, last) = (time(traffic.last_first_ns as f64), time(traffic.last_last_ns as f64));
    vec![format!("last message: time to first subscriber {first}, to last subscriber {last}")]
}

fn server(outcome: &Outcome) -> Vec<String> {
    let cpu = outcome.server_cpu().map_or(String::new(), |share| {
        let each =
            outcome.server_ns_per_message().map_or(String::new(), |ns| format!("CPU {} per message, ", time(ns)));
        let until = outcome.server.as_ref().and_then(|server| server.ended_at);
        let until = until.map_or(String::new(), |at| format!(" until it ended, {} after the start", seconds(at)));
        format!("{each}{} of a core{until}", percent(share))
    });
    let sends =
        outcome.sends_per_message().map_or(String::new(), |sends| format!("{} sends per message", number(sends)));
    let memory = outcome
        .server_bytes_per_connection()
        .filter(|each| *each > 0.0)
        .map_or(String::new(), |each| format!("memory {} per client", bytes(each)));
    vec![cpu, sends, memory]
}

fn own(outcome: &Outcome) -> Vec<String> {
    let own = &outcome.own;
    let each = if outcome.traffic.delivered > 0 {
        format!("CPU {} per message, ", time(outcome.own_ns_per_message()))
    } else {
        String::new()
    };
    let cpu = if outcome.seconds > 0.0 {
        format!(
            "{each}{} of a core ({} of the cores it may use; busiest worker {})",
            percent(outcome.own_cpu()),
            percent(own.cpu_share),
            percent(own.busiest_worker)
        )
    } else {
        String::new()
    };
    let memory = outcome
        .own_bytes_per_client()
        .filter(|each| *each > 0.0)
        .map_or(String::new(), |each| format!("memory {} per client", bytes(each)));
    vec![cpu, memory]
}

/// The kernel's memory for the connections: both ends where server and loadgen share the machine.
fn machine(outcome: &Outcome) -> Vec<String> {
    let (before, after, opened) = (outcome.own.memory_before, outcome.own.memory_after, outcome.connect.opened as f64);
    // The kernel frees memory of others meanwhile: what became less tells nothing about the connections.
    let each = |name: &str, before: u64, after: u64| {
        let grown = after.checked_sub(before).filter(|grown| *grown > 0 && opened > 0.0)?;
        Some(format!("{name} {}", bytes((grown as f64 / opened).round())))
    };
    let parts = [each("TCP buffers", before.tcp, after.tcp), each("slab", before.slab, after.slab)];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return Vec::new();
    }
    vec![format!("kernel memory per client, of both ends where both are here: {}", parts.join(", "))]
}

/// The slow clients: how many the server closed, how many were behind.
fn slow(outcome: &Outcome) -> Vec<String> {
    let Some(slow) = &outcome.slow else { return Vec::new() };
    let closed: u64 = slow.closed.values().sum();
    let all = format!(
        "{}: {} closed by the server, {} behind when publishing ended",
        of(outcome.run.slow, "slow client"),
        count(closed),
        count(slow.behind)
    );
    let mut by_code = by_code(&slow.closed);
    by_code.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let mut codes = if by_code.is_empty() { String::new() } else { format!("closed with {}", reasons(&by_code)) };
    if let Some((first, last)) = slow.cut_off {
        codes += &format!("; last messages to them {} to {} after the start", seconds(first), seconds(last));
    }
    let behind = if slow.behind > 0 {
        format!("behind by up to {}", of(slow.behind_messages, "message"))
    } else {
        String::new()
    };
    vec![all, codes, behind]
}

/// The conditions of `--fail-if`, each with what was measured.
fn conditions(outcome: &Outcome) -> Line {
    let passed = outcome.passed.iter().map(|sentence| format!("passed: {}", plain(sentence)));
    let crossed = outcome.crossed.iter().map(|sentence| format!("FAILED: {}", plain(sentence)));
    Line { name: "fail-if", text: crossed.chain(passed).collect() }
}

/// The errors, a line each, and the slow consumers that were closed, which are no errors.
fn errors(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in kinds(&outcome.errors) {
        let mut line = format!("{}: {}", kind.in_words(), kind.meaning);
        if !kind.details.is_empty() {
            line += &format!(" ({})", reasons(&kind.details));
        }
        lines.push(line);
    }
    let shed = by_code(&outcome.errors.shed);
    if !shed.is_empty() {
        lines.push(format!("no error: connections that the server closed as expected ({})", reasons(&shed)));
    }
    lines
}

fn reasons(details: &[(String, u64)]) -> String {
    let mut shown: Vec<_> =
        details.iter().take(REASONS_SHOWN).map(|(reason, number)| format!("{} × {reason}", count(*number))).collect();
    if details.len() > REASONS_SHOWN {
        shown.push(format!("{} more reasons", details.len() - REASONS_SHOWN));
    }
    shown.join(", ")
}
