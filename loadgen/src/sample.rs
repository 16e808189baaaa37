//! Realistic outcomes, for the tests of reports.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::adapter::Protocol;
use crate::outcome::{
    Connect, Errors, FORMAT, Facts, Latencies, Memory, Outcome, Own, Phase, Second, ServerUse, Stream, Traffic,
    histogram,
};

/// Nanoseconds around a middle, with a long tail.
fn latency_ns(rng: &mut Rng, middle_ns: f64) -> u64 {
    let tail = 1.0 / (1.0 - rng.f64()).powf(0.35);
    (middle_ns * (0.6 + 0.4 * rng.f64()) * tail) as u64
}

/// A minute of fan-out to 15,000 clients without errors; the server is slow in one second.
pub(crate) fn good() -> Outcome {
    let mut rng = Rng::with_seed(7);
    let (clients, rate, connecting) = (15_000_u64, 100_u64, 4);
    let (mut latency, mut admission) = (histogram(), histogram());
    let mut series = Vec::new();
    for at in 1..=connecting + 3 + 60 + 1 {
        let phase = match at {
            _ if at <= connecting => Phase::Connect,
            _ if at <= connecting + 3 => Phase::WarmUp,
            _ if at <= connecting + 63 => Phase::Measure,
            _ => Phase::Drain,
        };
        let is_slow = at == 41;
        let mut second = histogram();
        for _ in 0..1500 {
            let slow = if is_slow && rng.f64() < 0.4 { 60.0 } else { 1.0 };
            match phase {
                Phase::Connect => second.record(latency_ns(&mut rng, 900_000.0)).unwrap(),
                Phase::Drain => {}
                _ => second.record(latency_ns(&mut rng, 1_400_000.0 * slow)).unwrap(),
            }
        }
        match phase {
            Phase::Connect => admission.add(&second).unwrap(),
            Phase::Measure => latency.add(&second).unwrap(),
            _ => {}
        }
        let published = if matches!(phase, Phase::WarmUp | Phase::Measure) { rate } else { 0 };
        let delivered = (published * clients) as f64 * if is_slow { 0.7 } else { 0.995 + 0.01 * rng.f64() };
        let busy = published > 0;
        series.push(Second {
            at: f64::from(at),
            span: 1.0,
            phase,
            clients: clients.min(at as u64 * clients / connecting as u64),
            opened: if phase == Phase::Connect { clients / connecting as u64 } else { 0 },
            published,
            delivered: delivered as u64,
            bytes: delivered as u64 * 132,
            latency: Latencies { values: Vec::new(), ..Latencies::of(&second) },
            errors: 0,
            own_cpu: if busy { 0.36 + 0.03 * rng.f64() } else { 0.2 },
            server_cpu: Some(if busy { 0.71 + 0.05 * rng.f64() } else { 0.3 }),
            server_memory: Some(3_000_000 + clients.min(at as u64 * 3750) * 220 + if is_slow { 4_000_000 } else { 0 }),
        });
    }
    let memory = |pss, tcp, slab| Memory { anonymous: pss, pss, tcp, slab, available: 20 << 30 };
    Outcome {
        format: FORMAT,
        run: Facts {
            scenario: "fan-out".into(),
            protocol: Some(Protocol::Raw),
            url: "ws://127.0.0.1:8080/sub/load".into(),
            clients,
            verifying: 1_500,
            publishers: 1,
            everyone_publishes: false,
            slow: 0,
            topics: 1,
            topics_per_client: 1,
            streams: 1,
            payload: "128".into(),
            burst: 1,
            pacing: "100/s".into(),
            workers: 2,
            started_unix_ms: 1_800_000_000_000,
            share: (1, 1),
            machine: "here".into(),
            version: "0.1.0".into(),
        },
        connect: Connect { opened: clients, seconds: 3.87, retries: 12, ..Connect::default() },
        seconds: 60.02,
        traffic: Traffic {
            published: 6300,
            published_measured: 6000,
            delivered: 90_000_000,
            delivered_total: 94_500_000,
            bytes: 90_000_000 * 132,
            receives: 61_000_000,
            lateness_p99_ns: 48_000,
            ..Traffic::default()
        },
        latency: Latencies::of(&latency),
        admission: Latencies::of(&admission),
        series,
        streams: BTreeMap::from([(0, Stream { published: 6300, reached: BTreeMap::from([(6300, 1500)]) })]),
        own: Own {
            cpu_ns: 22_600_000_000,
            connect_cpu_ns: 900_000_000,
            cpu_share: 0.188,
            busiest_worker: 0.39,
            memory_before: memory(2_100_000, 0, 60 << 20),
            memory_after: memory(2_100_000 + clients * 402, clients * 1200, (60 << 20) + clients * 6900),
        },
        server: Some(ServerUse {
            pid: 4242,
            ended_at: None,
            lived: None,
            connect_cpu_ns: 320_000_000,
            cpu_ns: 43_900_000_000,
            memory_before: memory(3_000_000, 0, 60 << 20),
            memory_connected: memory(3_000_000 + clients * 231, clients * 1200, (60 << 20) + clients * 6900),
            memory_after: memory(3_000_000 + clients * 240, clients * 1200, (60 << 20) + clients * 6900),
            sends: Some(84_000_000),
            messages: Some(90_000_000),
        }),
        parts: 1,
        ..Outcome::default()
    }
}

/// The same with errors of every kind.
pub(crate) fn bad() -> Outcome {
    let mut outcome = good();
    outcome.run.scenario = "chat rooms".into();
    outcome.errors = Errors {
        lost: 1_204,
        reordered: 2,
        corrupt: 1,
        refused: BTreeMap::from([("503 Service Unavailable".into(), 30), ("timed out after 10 s".into(), 4)]),
        closed: BTreeMap::from([(1006, 3), (1011, 40)]),
        broken: BTreeMap::from([("masked frame from a server <script>alert(1)</script>".into(), 1)]),
        shed: BTreeMap::from([(4008, 7)]),
        ..Errors::default()
    };
    outcome.series[40].errors = 1_281;
    outcome.invalid = vec!["worker 2 used 99 % of its core".into()];
    outcome.crossed = vec!["p99.9>50ms: p99.9 was 61.2 ms".into()];
    outcome.interrupted = true;
    outcome
}
