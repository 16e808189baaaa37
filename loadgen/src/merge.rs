//! Merges the outcomes of several processes, each of which ran a share, into the outcome of the whole run.
//!
//! Counts are added, distributions merged, and what several processes observed is taken once. Only here the loss at the end
//! of a stream is known when one process published and another received.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};

use crate::adapter::Protocol;
use crate::outcome::{
    Connect, FORMAT, Facts, Latencies, Memory, Outcome, Own, Second, ServerUse, Slow, Terms, Tls, Traffic, add_streams,
    histogram,
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
        terms: terms(&parts),
        tls: tls(&parts),
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

fn terms(parts: &[Outcome]) -> Option<Terms> {
    parts.iter().filter_map(|part| part.terms.clone()).reduce(|mut whole, part| {
        whole.add(&part);
        whole
    })
}

fn tls(parts: &[Outcome]) -> Option<Tls> {
    parts.iter().filter_map(|part| part.tls.clone()).reduce(|mut whole, part| {
        whole.add(&part);
        whole
    })
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
mod tests;
