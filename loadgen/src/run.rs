//! One run: open, warm up, measure, drain, report.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::children::Children;
use crate::clock::now_ns;
use crate::options::{Options, Pace};
use crate::report::{Latency, Report, ServerUse};
use crate::server::{Counters, Memory, cpu_ns};
use crate::session::{Part, Session};
use crate::target::Target;

/// After the last upgrade: what the server still does for it belongs to admission.
const SETTLE: Duration = Duration::from_millis(300);

/// Runs what `options` ask for, prints the report and writes it to `--json`.
///
/// # Errors
/// When the run could not take place. What went wrong with messages stands in the report.
pub fn run(options: &Options) -> Result<Report> {
    options.check()?;
    if let Some(index) = options.child {
        crate::children::serve(options, index)?;
        return Ok(Report::default());
    }
    let report = measure(options)?;
    println!("{report}");
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(report)
}

fn measure(options: &Options) -> Result<Report> {
    let target = Target::parse(&options.url)?;
    let before = options.server_pid.map(|pid| anyhow::Ok((Memory::of(pid)?, cpu_ns(pid)?))).transpose()?;

    let opening = now_ns();
    let mut children = Children::start(options)?;
    let subscribers = if options.processes == 1 { options.clients } else { 0 };
    let mut session = Session::open(options, &target, subscribers, 0)?;
    children.await_connected()?;
    let connect_seconds = seconds_since(opening);
    session.run_for(SETTLE)?;
    let admitted_cpu = options.server_pid.map(cpu_ns).transpose()?;

    if !options.idle_only {
        session.open_publisher(options)?;
    }
    session.run_for(options.warmup)?;

    let counters_before = Counters::ask(target.address);
    let cpu_before = options.server_pid.map(cpu_ns).transpose()?;
    let published_before = session.published();
    children.tell("begin")?;
    session.begin();
    session.run_for(options.duration)?;
    session.end();
    children.tell("end")?;
    let cpu_after = options.server_pid.map(cpu_ns).transpose()?;
    let memory_after = options.server_pid.map(Memory::of).transpose()?;
    let published_in_window = session.published() - published_before;
    let counters_after = Counters::ask(target.address);

    let published = session.published();
    children.tell(&format!("finish {published}"))?;
    let mut part = session.finish(published, options.drain_timeout)?;
    for child in children.results()? {
        part.merge(&child);
    }

    let mut report = totals(options, &part);
    report.connect_seconds = connect_seconds;
    report.published = published;
    report.published_per_second = published_in_window as f64 / part.seconds;
    report.counters = counters_before.zip(counters_after).map(|(before, after)| after - before);
    report.sends_per_message = report
        .counters
        .filter(|counters| counters.messages_out > 0)
        .map(|counters| counters.sends as f64 / counters.messages_out as f64);
    if let (Some((memory_before, cpu_start)), Some(admitted), Some(before), Some(after), Some(memory_after)) =
        (before, admitted_cpu, cpu_before, cpu_after, memory_after)
    {
        let used = after.saturating_sub(before) as f64;
        report.server = Some(ServerUse {
            admission_ns: admitted.saturating_sub(cpu_start) as f64 / options.clients as f64,
            message_ns: (part.delivered > 0).then(|| used / part.delivered as f64),
            cpu_share: used / (part.seconds * 1e9),
            memory_before,
            memory_after,
        });
    }
    Ok(report)
}

fn totals(options: &Options, part: &Part) -> Report {
    let pacing = match options.pace() {
        _ if options.idle_only => "idle".to_owned(),
        Pace::Closed { bursts } => format!("{bursts} outstanding"),
        Pace::Open { per_second } => format!("{per_second}/s"),
        Pace::Max => "as fast as taken".to_owned(),
    };
    let mut report = Report {
        clients: options.clients,
        payload_bytes: options.payload,
        burst: options.burst,
        pacing,
        seconds: part.seconds,
        delivered: part.delivered,
        delivered_per_second: part.delivered as f64 / part.seconds,
        latency: Latency::of(&part.latencies),
        messages_per_read: part.delivered as f64 / part.reads.max(1) as f64,
        pings: part.pings,
        errors: part.errors.clone(),
        ..Report::default()
    };
    report.judge_client(part.cpu_share);
    report
}

fn seconds_since(begun_ns: u64) -> f64 {
    (now_ns() - begun_ns) as f64 / 1e9
}
