//! Merges the outcomes of several processes, each of which ran a share, into the outcome of the whole run.
//!
//! Counts are added, distributions merged, and what several processes observed is taken once. Only here the loss at the end
//! of a stream is known when one process published and another received.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};

use crate::adapter::Protocol;
use crate::outcome::{
    Connect, FORMAT, Facts, Latencies, Memory, Outcome, Own, Second, ServerUse, Slow, Traffic, add_streams, histogram,
};
use crate::series::{Track, align};
use crate::verdict::judge;

/// Merges and judges.
///
/// # Errors
/// If the parts are not shares of one run: another format, scenario, protocol, URL, payload or number of topics, or
/// the same share twice.
pub fn merge(mut parts: Vec<Outcome>) -> Result<Outcome> {
    ensure!(!parts.is_empty(), "nothing to merge");
    parts.iter().try_for_each(|part| same_run(&parts[0], part))?;
    if parts.len() == 1 {
        let mut whole = parts.remove(0);
        judge(&mut whole);
        return Ok(whole);
    }
    distinct_shares(&parts)?;
    parts.sort_by_key(|part| part.run.share);
    let began = parts.iter().map(|part| part.run.started_unix_ms).min().unwrap_or(0);
    let offset = |part: &Outcome| (part.run.started_unix_ms - began) as f64 / 1000.0;
    let watchers = watchers(&parts);
    let tracks: Vec<_> = parts
        .iter()
        .enumerate()
        .map(|(at, part)| Track { rows: &part.series, offset: offset(part), server: watchers.contains(&at) })
        .collect();
    let mut whole = Outcome {
        format: FORMAT,
        run: facts(&parts, began),
        connect: connect(&parts, &offset),
        seconds: parts.iter().map(|part| part.seconds).fold(0.0, f64::max),
        traffic: traffic(&parts),
        latency: latencies(parts.iter().map(|part| &part.latency)),
        admission: latencies(parts.iter().map(|part| &part.admission)),
        series: align(&tracks, 1.0),
        own: own(&parts),
        server: server(&parts),
        invalid: invalid(&parts),
        slow: slow(&parts, &offset),
        stalled: sentences(&parts, |part| part.stalled.as_ref()),
        ended: sentences(&parts, |part| part.ended.as_ref()),
        interrupted: parts.iter().any(|part| part.interrupted),
        parts: parts.iter().map(|part| part.parts.max(1)).sum(),
        ..Outcome::default()
    };
    for part in &parts {
        whole.errors.add(&part.errors);
        add_streams(&mut whole.streams, &part.streams);
    }
    judge(&mut whole);
    Ok(whole)
}

fn same_run(first: &Outcome, other: &Outcome) -> Result<()> {
    ensure!(
        other.format == FORMAT,
        "an outcome has format {}, this program merges format {FORMAT}: use the version that wrote it",
        other.format
    );
    let (a, b) = (&first.run, &other.run);
    let differ = |what: &str, a: String, b: String| -> Result<()> {
        ensure!(a == b, "these are different runs: one has {what} {a}, another {b}");
        Ok(())
    };
    differ("scenario", a.scenario.clone(), b.scenario.clone())?;
    let protocol = |facts: &Facts| facts.protocol.map_or("none", Protocol::name).to_owned();
    differ("protocol", protocol(a), protocol(b))?;
    differ("URL", a.url.clone(), b.url.clone())?;
    differ("payload", a.payload.clone(), b.payload.clone())?;
    differ("topics", a.topics.to_string(), b.topics.to_string())
}

fn distinct_shares(parts: &[Outcome]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for part in parts {
        let (share, of) = part.run.share;
        if of <= 1 {
            bail!("one of the outcomes is a whole run already (its share is {share}/{of}): there is nothing to add");
        }
        let expected = parts[0].run.share.1;
        ensure!(of == expected, "these are different runs: one was divided by {expected}, another by {of}");
        ensure!(seen.insert(share), "share {share}/{of} is there twice");
    }
    Ok(())
}

fn facts(parts: &[Outcome], began: u64) -> Facts {
    let first = &parts[0].run;
    let add = |of: fn(&Facts) -> u64| parts.iter().map(|part| of(&part.run)).sum();
    let join = |of: fn(&Facts) -> &String| {
        let distinct: BTreeSet<_> = parts.iter().map(|part| of(&part.run).as_str()).collect();
        distinct.into_iter().collect::<Vec<_>>().join(", ")
    };
    // All shares together are a whole run.
    let complete = parts.len() >= first.share.1 as usize;
    Facts {
        clients: add(|run| run.clients),
        verifying: add(|run| run.verifying),
        publishers: add(|run| run.publishers),
        slow: add(|run| run.slow),
        topics_per_client: parts.iter().map(|part| part.run.topics_per_client).max().unwrap_or(0),
        streams: parts.iter().map(|part| part.run.streams).max().unwrap_or(0),
        burst: parts.iter().map(|part| part.run.burst).max().unwrap_or(0),
        pacing: join(|run| &run.pacing),
        workers: parts.iter().map(|part| part.run.workers).sum(),
        started_unix_ms: began,
        share: if complete { (1, 1) } else { first.share },
        machine: join(|run| &run.machine),
        version: join(|run| &run.version),
        ..first.clone()
    }
}

fn connect(parts: &[Outcome], offset: &dyn Fn(&Outcome) -> f64) -> Connect {
    let mut whole = Connect::default();
    let (mut first, mut last) = (f64::INFINITY, 0.0_f64);
    for part in parts {
        let connect = &part.connect;
        whole.opened += connect.opened;
        whole.retries += connect.retries;
        whole.reopened += connect.reopened;
        if connect.seconds > 0.0 {
            first = first.min(offset(part));
            last = last.max(offset(part) + connect.seconds);
        }
        // A storm ends when the slowest part is complete again.
        let storms = whole.storm_seconds.len().max(connect.storm_seconds.len());
        whole.storm_seconds.resize(storms, 0.0);
        whole.storm_seconds.iter_mut().zip(&connect.storm_seconds).for_each(|(most, it)| *most = most.max(*it));
    }
    whole.seconds = (last - first).max(0.0);
    whole
}

fn traffic(parts: &[Outcome]) -> Traffic {
    let mut whole = Traffic::default();
    for Outcome { traffic, .. } in parts {
        whole.published += traffic.published;
        whole.published_measured += traffic.published_measured;
        whole.delivered += traffic.delivered;
        whole.delivered_total += traffic.delivered_total;
        whole.bytes += traffic.bytes;
        whole.receives += traffic.receives;
        whole.pings += traffic.pings;
        whole.gaps += traffic.gaps;
        whole.lateness_p99_ns = whole.lateness_p99_ns.max(traffic.lateness_p99_ns);
        whole.last_first_ns = match (whole.last_first_ns, traffic.last_first_ns) {
            (0, known) | (known, 0) => known,
            (a, b) => a.min(b),
        };
        whole.last_last_ns = whole.last_last_ns.max(traffic.last_last_ns);
    }
    whole
}

fn latencies<'a>(parts: impl Iterator<Item = &'a Latencies>) -> Latencies {
    let mut whole = histogram();
    for (value, count) in parts.flat_map(|part| &part.values) {
        whole.saturating_record_n(*value, *count);
    }
    Latencies::of(&whole)
}

fn own(parts: &[Outcome]) -> Own {
    let mut whole = Own::default();
    let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
    for part in parts {
        whole.cpu_ns += part.own.cpu_ns;
        whole.connect_cpu_ns += part.own.connect_cpu_ns;
        whole.busiest_worker = whole.busiest_worker.max(part.own.busiest_worker);
        *shares.entry(&part.run.machine).or_default() += part.own.cpu_share;
    }
    // Processes of one machine share its cores; of several machines the busiest counts.
    whole.cpu_share = shares.into_values().fold(0.0, f64::max);
    whole.memory_before =
        memory(parts.iter().map(|part| (part.run.machine.as_str(), part.own.memory_before)), u64::min);
    whole.memory_after = memory(parts.iter().map(|part| (part.run.machine.as_str(), part.own.memory_after)), u64::max);
    whole
}

/// Memory of processes is added; memory of a machine is taken once: the least that its processes observed before the run,
/// the most that they observed later.
fn memory<'a>(parts: impl Iterator<Item = (&'a str, Memory)>, of: fn(u64, u64) -> u64) -> Memory {
    let mut whole = Memory::default();
    let mut machines: BTreeMap<&str, Memory> = BTreeMap::new();
    for (machine, part) in parts {
        whole.anonymous += part.anonymous;
        whole.pss += part.pss;
        let seen = machines.entry(machine).or_insert(part);
        seen.tcp = of(seen.tcp, part.tcp);
        seen.slab = of(seen.slab, part.slab);
        seen.available = of(seen.available, part.available);
    }
    for machine in machines.values() {
        whole.tcp += machine.tcp;
        whole.slab += machine.slab;
        whole.available += machine.available;
    }
    whole
}

/// The parts by the server whose process they observed.
fn by_server(parts: &[Outcome]) -> BTreeMap<(&str, u32), Vec<usize>> {
    let mut servers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        if let Some(server) = &part.server {
            servers.entry((part.run.machine.as_str(), server.pid)).or_default().push(at);
        }
    }
    servers
}

/// Of the parts that observed the same server, the one that did so longest.
fn watchers(parts: &[Outcome]) -> BTreeSet<usize> {
    let watched = |at: usize| {
        let rows = parts[at].series.iter().filter(|row| row.server_cpu.is_some() || row.server_memory.is_some());
        rows.map(|row: &Second| row.span).sum::<f64>()
    };
    by_server(parts)
        .into_values()
        .filter_map(|seen| seen.into_iter().max_by(|a, b| watched(*a).total_cmp(&watched(*b)).then(b.cmp(a))))
        .collect()
}

fn server(parts: &[Outcome]) -> Option<ServerUse> {
    let servers: Vec<_> = by_server(parts)
        .into_iter()
        .map(|((machine, _), seen)| {
            let seen = seen.into_iter().filter_map(|at| parts[at].server.clone());
            (machine, seen.reduce(longest).expect("somebody saw it"))
        })
        .collect();
    let at = |of: fn(&ServerUse) -> Memory, pick| {
        memory(servers.iter().map(|(machine, server)| (*machine, of(server))), pick)
    };
    let add =
        |of: fn(&ServerUse) -> Option<u64>| servers.iter().filter_map(|(_, server)| of(server)).reduce(|a, b| a + b);
    Some(ServerUse {
        pid: servers.first()?.1.pid,
        connect_cpu_ns: servers.iter().map(|(_, server)| server.connect_cpu_ns).sum(),
        cpu_ns: servers.iter().map(|(_, server)| server.cpu_ns).sum(),
        memory_before: at(|server| server.memory_before, u64::min),
        ended_at: servers.iter().filter_map(|(_, server)| server.ended_at).reduce(f64::max),
        lived: servers.iter().filter_map(|(_, server)| server.lived).reduce(f64::max),
        memory_connected: at(|server| server.memory_connected, u64::max),
        memory_after: at(|server| server.memory_after, u64::max),
        sends: add(|server| server.sends),
        messages: add(|server| server.messages),
    })
}

/// Two observations of one server as one: from the least before to the most after.
fn longest(a: ServerUse, b: ServerUse) -> ServerUse {
    let more = |a: Memory, b: Memory| if b.pss > a.pss { b } else { a };
    // 0 means not measured.
    let less = |a: Memory, b: Memory| if a.pss == 0 || (b.pss > 0 && b.pss < a.pss) { b } else { a };
    ServerUse {
        pid: a.pid,
        connect_cpu_ns: a.connect_cpu_ns.max(b.connect_cpu_ns),
        cpu_ns: a.cpu_ns.max(b.cpu_ns),
        memory_before: less(a.memory_before, b.memory_before),
        ended_at: a.ended_at.or(b.ended_at),
        lived: a.lived.or(b.lived),
        memory_connected: more(a.memory_connected, b.memory_connected),
        memory_after: more(a.memory_after, b.memory_after),
        sends: a.sends.max(b.sends),
        messages: a.messages.max(b.messages),
    }
}

fn slow(parts: &[Outcome], offset: &dyn Fn(&Outcome) -> f64) -> Option<Slow> {
    let mut whole = None;
    for part in parts {
        if let Some(slow) = &part.slow {
            whole.get_or_insert_with(Slow::default).add(slow, offset(part));
        }
    }
    whole
}

/// What some parts say, with their shares.
fn sentences(parts: &[Outcome], of: fn(&Outcome) -> Option<&String>) -> Option<String> {
    let said =
        parts.iter().filter_map(|part| Some(format!("share {}/{}: {}", part.run.share.0, part.run.share.1, of(part)?)));
    said.reduce(|all, one| format!("{all}; {one}"))
}

fn invalid(parts: &[Outcome]) -> Vec<String> {
    let said = parts.iter().flat_map(|part| {
        let (share, of) = part.run.share;
        part.invalid.iter().map(move |why| format!("share {share}/{of}: {why}"))
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Phase;

    const MESSAGES: u64 = 40;
    const SHARES: u32 = 3;

    /// A run of 90 clients, or a share of it: 4 streams, every client on all of them, some clients miss something.
    fn run(share: Option<u32>) -> Outcome {
        let mine = |number: u32| share.is_none_or(|share| number % SHARES + 1 == share);
        let mut outcome = Outcome { format: FORMAT, seconds: 4.0, parts: 1, ..Outcome::default() };
        outcome.run = Facts {
            scenario: "chat".into(),
            protocol: Some(Protocol::Raw),
            url: "ws://127.0.0.1:8080/".into(),
            payload: "128".into(),
            topics: 2,
            streams: 4,
            pacing: "10/s".into(),
            started_unix_ms: 1_800_000_000_000,
            share: (share.unwrap_or(1), if share.is_some() { SHARES } else { 1 }),
            ..Facts::default()
        };
        let (mut latency, mut admission) = (histogram(), histogram());
        let mut series: Vec<_> = (1..=4)
            .map(|at| Second { at: f64::from(at), span: 1.0, phase: Phase::Measure, ..Second::default() })
            .collect();
        for stream in (0..4).filter(|stream| mine(*stream)) {
            outcome.streams.entry(stream).or_default().published = MESSAGES;
            outcome.traffic.published += MESSAGES;
            series.iter_mut().for_each(|row| row.published += 10);
        }
        for client in (0..90).filter(|client| mine(*client)) {
            outcome.run.clients += 1;
            outcome.connect.opened += 1;
            admission.record(u64::from(client) * 50_000 + 100_000).unwrap();
            series.iter_mut().for_each(|row| row.clients += 1);
            for stream in 0..4 {
                // Every tenth client does not get the last three messages of stream 1, every seventh has a gap.
                let next = if client % 10 == 0 && stream == 1 { MESSAGES - 3 } else { MESSAGES };
                let gap = u64::from(client % 7 == 0 && stream == 2);
                *outcome.streams.entry(stream).or_default().reached.entry(next).or_default() += 1;
                outcome.traffic.gaps += gap;
                outcome.traffic.delivered += next - gap;
                (0..next - gap).for_each(|seq| {
                    latency.record(seq * 37_000 + u64::from(client) * 1_013 + 20_000).unwrap();
                    series[(seq / 10) as usize].delivered += 1;
                });
            }
            if client == 17 {
                *outcome.errors.closed.entry(1011).or_default() += 1;
                *outcome.errors.refused.entry("503".into()).or_default() += 2;
                outcome.errors.corrupt += 1;
            }
        }
        (outcome.latency, outcome.admission, outcome.series) =
            (Latencies::of(&latency), Latencies::of(&admission), series);
        judge(&mut outcome);
        outcome
    }

    fn parts() -> Vec<Outcome> {
        (1..=SHARES).map(|share| run(Some(share))).collect()
    }

    fn refusal(change: impl FnOnce(&mut Vec<Outcome>)) -> String {
        let mut parts = parts();
        change(&mut parts);
        merge(parts).unwrap_err().to_string()
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let whole = run(None);
        assert_eq!(whole.errors.lost, 9 * 3 + 13, "missing ends and gaps");
        let mut merged = merge(parts()).unwrap();
        assert_eq!(merged.parts, SHARES);
        merged.parts = 1;
        let json = |outcome: &Outcome| serde_json::to_value(outcome).unwrap();
        assert_eq!(json(&merged), json(&whole));
    }

    #[test]
    fn the_order_of_the_parts_does_not_matter() {
        let mut reversed = parts();
        reversed.reverse();
        let json = |parts| serde_json::to_string(&merge(parts).unwrap()).unwrap();
        assert_eq!(json(reversed), json(parts()));
    }

    #[test]
    fn a_share_alone_is_judged_by_what_it_knows() {
        let alone = merge(vec![run(Some(1))]).unwrap();
        assert!(alone.errors.lost < 9 * 3 + 13);
        assert_eq!(alone.run.share, (1, SHARES));
    }

    #[test]
    fn a_server_that_all_watched_counts_once_and_different_ones_add_up() {
        let watched = |pid, cpu_ns, pss| {
            let memory = Memory { pss, tcp: 7, ..Memory::default() };
            Some(ServerUse { pid, cpu_ns, memory_after: memory, sends: Some(cpu_ns / 2), ..ServerUse::default() })
        };
        let mut parts = parts();
        parts.iter_mut().for_each(|part| part.series[0].server_cpu = Some(0.25));
        parts[0].server = watched(5, 100, 1000);
        parts[2].server = watched(5, 120, 900);
        let server = merge(parts.clone()).unwrap().server.unwrap();
        assert_eq!((server.pid, server.cpu_ns, server.memory_after.pss, server.sends), (5, 120, 1000, Some(60)));
        parts[2].server.as_mut().unwrap().pid = 6;
        let merged = merge(parts.clone()).unwrap();
        let server = merged.server.unwrap();
        assert_eq!((server.cpu_ns, server.memory_after.pss, server.memory_after.tcp), (220, 1900, 7));
        assert_eq!(merged.series[0].server_cpu, Some(0.5));
        parts[2].run.machine = "another".into();
        assert_eq!(merge(parts).unwrap().server.unwrap().memory_after.tcp, 14);
    }

    #[test]
    fn later_starts_are_laid_beside_each_other() {
        let mut parts = parts();
        parts[1].run.started_unix_ms += 2500;
        parts[1].connect.seconds = 1.0;
        parts[0].connect.seconds = 0.5;
        parts[2].invalid.push("its worker was busy".into());
        parts[2].interrupted = true;
        let merged = merge(parts).unwrap();
        assert_eq!(merged.series.len(), 7);
        assert!((merged.series[6].at - 6.5).abs() < 1e-9);
        assert_eq!(merged.series.iter().map(|row| row.delivered).sum::<u64>(), merged.traffic.delivered);
        assert!((merged.connect.seconds - 3.5).abs() < 1e-9);
        assert_eq!(merged.invalid, ["share 3/3: its worker was busy"]);
        assert!(merged.interrupted);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert!(refusal(|parts| parts.clear()).contains("nothing"));
        assert!(refusal(|parts| parts[1].format = 9).contains("format 9"));
        assert_eq!(
            refusal(|parts| parts[1].run.scenario = "churn".into()),
            "these are different runs: one has scenario chat, another churn"
        );
        assert!(refusal(|parts| parts[1].run.protocol = Some(Protocol::Mqtt)).contains("protocol raw, another mqtt"));
        assert!(refusal(|parts| parts[1].run.url = "ws://b/".into()).contains("URL"));
        assert!(refusal(|parts| parts[1].run.payload = "64".into()).contains("payload 128, another 64"));
        assert!(refusal(|parts| parts[1].run.topics = 3).contains("topics 2, another 3"));
        assert!(refusal(|parts| parts[1].run.share = (1, 3)).contains("share 1/3 is there twice"));
        assert!(refusal(|parts| parts[1].run.share = (4, 4)).contains("divided by 3, another by 4"));
        assert!(refusal(|parts| parts[0].run.share = (1, 1)).contains("whole run already"));
    }

    #[test]
    fn missing_shares_are_reported() {
        let mut parts = parts();
        parts.remove(1);
        let merged = merge(parts).unwrap();
        assert_eq!(merged.run.share, (1, 3));
        assert!(crate::verdict::Verdict::of(&merged).to_string().contains("2 of 3 shares"));
    }
}
