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
    let mut series: Vec<_> =
        (1..=4).map(|at| Second { at: f64::from(at), span: 1.0, phase: Phase::Measure, ..Second::default() }).collect();
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
    (outcome.latency, outcome.admission, outcome.series) = (Latencies::of(&latency), Latencies::of(&admission), series);
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
