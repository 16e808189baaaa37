//! The load generator against a small broker with and without faults: a run without errors must report none, every kind of
//! error must be found and named, and a run that is impossible must be refused before it begins.

mod encrypted;
mod ends;
mod history;
mod logins;
mod mini;
mod policies;
mod refusals;

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loadgen::Outcome;
use mini::{Fault, File, Run, broker, command, run, start, with_each};

/// Of so many messages, how many are the last of a hundred.
fn hundredths(outcome: &Outcome) -> u64 {
    let published = outcome.traffic.published;
    assert!(published >= 200, "{published} published");
    published / 100
}

// ---- honest servers

#[test]
fn every_scenario_delivers_everything() {
    with_each(
        [
            ("--scenario fan-out", 20),
            ("--scenario many-topics", 20),
            ("--scenario chat --rate 200", 20),
            ("--scenario telemetry --clients 4 --publishers 30 --rate 500", 4),
            ("--scenario idle", 20),
            ("--scenario connect-storm", 20),
            ("--scenario reconnect-storm --rate 100", 20),
            ("--scenario slow-consumers", 20),
            ("--scenario churn --churn 50 --rate 100", 20),
            ("--scenario mixed-sizes --clients 5", 5),
        ],
        |(arguments, clients)| {
            let done = run(broker(Fault::None), arguments);
            let outcome = done.is_good();
            assert_eq!(outcome.connect.opened, clients, "{arguments}");
            assert!(outcome.connect.seconds > 0.0, "{arguments}");
            let silent = arguments.contains("idle") || arguments.contains("connect-storm");
            if arguments.contains("reconnect-storm") {
                assert_eq!(outcome.connect.storm_seconds.len(), 3, "{done}");
                assert!(outcome.connect.storm_seconds.iter().all(|seconds| *seconds > 0.0), "{done}");
                assert_eq!(outcome.connect.reopened, 3 * clients, "{done}");
            } else if silent {
                assert_eq!((outcome.traffic.published, outcome.traffic.delivered_total), (0, 0), "{arguments}");
            } else {
                assert!(outcome.traffic.published > 0 && outcome.traffic.delivered_total > 0, "{arguments}: {done}");
                assert!(outcome.connect.storm_seconds.is_empty(), "{arguments}: {done}");
            }
            if arguments.contains("churn") {
                assert!(outcome.connect.reopened >= 5, "{done}");
            }
        },
    );
}

#[test]
fn every_pacing_delivers_everything() {
    with_each(
        [
            ("", 20),
            ("--outstanding 4 --workers 3", 20),
            ("--outstanding 2 --burst 10 --workers 3 --topics 4", 5),
            ("--scenario chat --outstanding 1 --workers 3", 10),
            ("--publishers 3 --outstanding 2", 20),
            ("--rate 500", 20),
            ("--rate 1000 --burst 10 --workers 3", 20),
            ("--rate 300 --payload 24 --workers 30", 20),
            ("--rate 50 --payload 100000", 20),
            ("--rate 300 --payload 24..2000 --ramp 500 --concurrency 2", 20),
            ("--rate 300 --topics 7 --publishers 10", 0),
            ("--rate 300 --verify 0.25", 20),
            ("--verify 0.25 --payload 24,126,70000 --rate 60", 20),
            ("--verify 0.25 --heartbeat 0.1", 20),
        ],
        |(arguments, each)| {
            let done = run(broker(Fault::None), arguments);
            let outcome = done.is_good();
            let traffic = &outcome.traffic;
            assert!(traffic.published >= 20, "{arguments}: {done}");
            if each > 0 {
                let expected = traffic.published * each;
                let slack = match arguments {
                    // Bytes are divided by a mean length, from which that of a few messages differs.
                    _ if arguments.contains(',') => expected / 2,
                    // The bytes of clients that only count them include pings.
                    _ if arguments.contains("verify") => expected / 20,
                    _ => 0,
                };
                assert!(traffic.delivered_total.abs_diff(expected) <= slack, "{arguments}: {done}");
            }
            assert!(outcome.latency.count > 0 && outcome.latency.p50 > 0, "{arguments}: {done}");
            let verifying = if arguments.contains("verify") { 5 } else { 20 };
            assert_eq!((outcome.run.verifying, traffic.pings), (verifying, verifying), "{arguments}: {done}");
        },
    );
}

#[test]
fn an_open_loop_publishes_what_was_asked() {
    let done = run(broker(Fault::None), "--rate 200 --duration 1 --warmup 0");
    // The run may have been cut by a busy machine, but it never publishes more.
    assert!((100..=200).contains(&done.is_good().traffic.published), "{done}");
}

#[test]
fn shares_are_one_run() {
    let address = broker(Fault::Drop);
    let start_at = SystemTime::now() + Duration::from_secs(2);
    let start_at = start_at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let all = format!("--publishers 2 --rate 600 --duration 0.8 --start-at {start_at} --drain-timeout 1.5");
    let parts: Vec<_> = ["1/2", "2/2"]
        .map(|share| start(command(&format!("ws://{address}")), &format!("{all} --share {share}")))
        .into_iter()
        .collect();
    let parts: Vec<_> = parts.into_iter().map(Run::wait).collect();
    for part in &parts {
        let outcome = part.outcome();
        assert_eq!((outcome.run.clients, outcome.run.publishers), (10, 1), "{part}");
        assert!(part.stdout.contains("merge"), "{part}");
        // What it cannot know is no error.
        assert_eq!((outcome.errors.corrupt, outcome.errors.doubled), (0, 0), "{part}");
    }
    let whole = File::new("json");
    let output = Command::new(env!("CARGO_BIN_EXE_ringyard-loadgen"))
        .args(["merge", "--json", whole.path()])
        .args(parts.iter().map(|part| part.json.as_ref().unwrap().path()))
        .output()
        .unwrap();
    let merged: Outcome = serde_json::from_str(&std::fs::read_to_string(&whole.path).unwrap()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((merged.run.clients, merged.run.share, merged.parts), (20, (1, 1), 2));
    assert_eq!(merged.errors.lost, 20 * hundredths(&merged), "{:?}", merged.errors);
    assert_eq!(merged.errors.total(), merged.errors.lost, "{:?}", merged.errors);
}

// ---- dishonest servers

#[test]
fn what_becomes_of_messages_is_noticed() {
    with_each([(Fault::Drop, 2), (Fault::Double, 3), (Fault::Swap, 1), (Fault::Damage, 2)], |(fault, workers)| {
        let done = run(broker(fault), &format!("--rate 500 --drain-timeout 1 --workers {workers}"));
        let outcome = done.is_failed();
        let errors = &outcome.errors;
        let wrong = 20 * hundredths(outcome);
        // A message that is kept back at the very end does not come.
        let kept = if outcome.traffic.published.is_multiple_of(100) { 20 } else { 0 };
        let counts = (errors.lost, errors.doubled, errors.reordered, errors.corrupt);
        let expected = match fault {
            Fault::Drop => (wrong, 0, 0, 0),
            Fault::Double => (0, wrong, 0, 0),
            Fault::Swap => (kept, 0, wrong - kept, 0),
            _ => (wrong, 0, 0, wrong),
        };
        assert_eq!(counts, expected, "{fault:?} {done}");
        assert_eq!(errors.total(), counts.0 + counts.1 + counts.2 + counts.3, "{fault:?} {done}");
    });
}

#[test]
fn a_closed_loop_notices_the_same() {
    for fault in [Fault::Drop, Fault::Damage] {
        let done = run(broker(fault), "--drain-timeout 0.5 --duration 1 --outstanding 3");
        let errors = &done.is_failed().errors;
        // What comes behind a message tells that it is lost, and the loop goes on.
        assert!(errors.lost >= 40 && errors.lost.is_multiple_of(20), "{errors:?} {done}");
        assert_eq!(errors.corrupt, if fault == Fault::Drop { 0 } else { errors.lost }, "{errors:?} {done}");
    }
}

#[test]
fn messages_of_another_topic_are_noticed() {
    let done = run(broker(Fault::Elsewhere), "--topics 2 --rate 800 --drain-timeout 1 --duration 0.6");
    let errors = &done.is_failed().errors;
    // 560 messages on two topics of ten clients each: two of each are missing here and foreign there.
    assert!(errors.lost > 0 && errors.lost == errors.corrupt, "{errors:?} {done}");
    assert_eq!(errors.lost % 10, 0, "{errors:?}");
}

#[test]
fn wrong_numbers_of_bytes_are_noticed() {
    for fault in [Fault::Drop, Fault::Double] {
        let done = run(broker(fault), "--rate 500 --verify 0.25 --drain-timeout 1");
        let outcome = done.is_failed();
        let errors = &outcome.errors;
        let wrong = 5 * hundredths(outcome);
        let expected = if fault == Fault::Drop { (wrong, 0) } else { (0, wrong) };
        assert_eq!((errors.lost, errors.doubled), expected, "{fault:?} {done}");
        assert_eq!(errors.miscounted, 15, "{fault:?} {done}");
    }
}

#[test]
fn a_client_that_is_closed_is_noticed_and_the_loop_goes_on() {
    let address = |fault| broker(fault);
    with_each(["--rate 300", "--outstanding 1", "--outstanding 2 --workers 3"], |arguments| {
        let done = run(address(Fault::CloseOne), arguments);
        let outcome = done.is_failed();
        assert_eq!(outcome.errors.closed.get(&1011), Some(&1), "{arguments}: {done}");
        assert_eq!(outcome.errors.total(), 1, "{arguments}: {:?}", outcome.errors);
        assert!(outcome.traffic.published > 30, "{arguments}: the others are still served: {done}");
    });
    let done = run(address(Fault::CloseOne), "--rate 300 --reconnect");
    let outcome = done.is_good();
    assert_eq!((outcome.errors.shed.get(&1011), outcome.connect.reopened), (Some(&1), 1), "{done}");
}

#[test]
fn breaches_of_the_protocol_count_once() {
    let done = run(broker(Fault::Nonsense), "--rate 300 --drain-timeout 0.5");
    let errors = &done.is_failed().errors;
    assert_eq!((errors.broken.values().sum::<u64>(), errors.total()), (20, 20), "{errors:?}");
}

#[test]
fn a_server_that_restarts_loses_its_clients_or_gets_them_back() {
    let done = run(broker(Fault::Restart), "--rate 200 --drain-timeout 0.5");
    let errors = &done.is_failed().errors;
    assert_eq!(errors.closed.values().sum::<u64>(), 20, "{errors:?}");
    assert_eq!(errors.publishers.values().sum::<u64>(), 1, "{errors:?}");
    with_each(["--rate 200", "--outstanding 1", "--scenario chat --topics 1 --rate 200"], |arguments| {
        let done = run(broker(Fault::Restart), &format!("{arguments} --reconnect --duration 1.2 --workers 2"));
        let outcome = done.is_good();
        assert_eq!((outcome.errors.shed.get(&1006), outcome.connect.reopened), (Some(&20), 20), "{arguments}: {done}");
        assert!(outcome.traffic.published > 40, "{arguments}: it goes on: {done}");
        assert!(outcome.traffic.delivered_total > 20 * 30, "{arguments}: and is heard: {done}");
        assert!(!outcome.connect.storm_seconds.is_empty(), "{arguments}: {done}");
    });
}

#[test]
fn who_does_not_come_back_is_missed() {
    // The run may be over before the server listens again.
    let done = run(broker(Fault::Restart), "--rate 200 --reconnect --duration 0.3 --drain-timeout 0.01");
    let outcome = done.outcome();
    // A fast machine has them all back, a slow one none.
    let missing: u64 = outcome.errors.refused.values().sum();
    assert_eq!(missing + outcome.connect.reopened, 20, "{done}");
}

#[test]
fn slow_consumers_that_are_shed_are_no_error() {
    let arguments = "--scenario slow-consumers --slow-share 0.2 --payload 16384 --rate 150 --duration 1";
    with_each(["", "--verify 0.3", "--slow-rate 1000"], |rest| {
        let done = run(broker(Fault::Shed), &format!("{arguments} {rest}"));
        let outcome = done.is_good();
        assert_eq!(outcome.errors.shed.iter().collect::<Vec<_>>(), [(&1013, &4)], "{rest}: {done}");
        let published = outcome.traffic.published;
        assert!(outcome.latency.count <= 16 * published, "{rest}: who reads late says nothing of latency: {done}");
        let slow = outcome.slow.as_ref().unwrap();
        assert_eq!((outcome.run.slow, slow.closed.get(&1013), slow.behind), (4, Some(&4), 0), "{rest}: {done}");
        let (first, last) = slow.cut_off.unwrap();
        assert!(0.0 < first && first <= last && last < 10.0, "{rest}: {slow:?} {done}");
        assert!(done.stdout.contains("4 slow clients: 4 closed by the server"), "{rest}: {done}");
        assert!(done.stdout.contains("closed with 4 × 1013 try again later; last messages to them"), "{rest}: {done}");
    });
}

#[test]
fn refusals_are_tried_again_where_that_helps() {
    let done = run(broker(Fault::Busy(10)), "--rate 100");
    let outcome = done.is_good();
    assert!(outcome.connect.retries >= 10 && outcome.connect.opened == 20, "{done}");
    run(broker(Fault::Forbidden), "").is_refused("403");
    run(broker(Fault::Silent), "--connect-timeout 1").is_refused("no answer within 1 s");
    // The server answers nobody: the other clients are not tried a few at a time.
    let refused = run(broker(Fault::Silent), "--connect-timeout 1 --concurrency 1 --clients 200");
    refused.is_refused("the server answered no client any more");

    let done = run(broker(Fault::ForbiddenFifth), "--rate 100");
    let outcome = done.is_failed();
    let refused: u64 = outcome.errors.refused.values().sum();
    assert_eq!((refused + outcome.connect.opened, outcome.errors.total()), (20, refused), "{done}");
    assert!(outcome.errors.refused.keys().all(|reason| reason.contains("403")), "{done}");

    for arguments in ["--rate 100", "--outstanding 1"] {
        let done = run(broker(Fault::ForbiddenPublishers), arguments);
        let outcome = done.is_failed();
        assert_eq!(outcome.errors.publishers.values().sum::<u64>(), 1, "{done}");
        assert_eq!((outcome.traffic.published, outcome.errors.total()), (0, 1), "{done}");
    }
}

#[test]
fn a_full_server_ends_the_run() {
    let begun = Instant::now();
    let done = run(broker(Fault::Full(11)), "--rate 100 --duration 60 --stall-timeout 1");
    assert!(begun.elapsed() < Duration::from_secs(20), "{done}");
    let outcome = done.outcome();
    assert_eq!(done.status, Some(3), "{done}");
    let stalled = outcome.stalled.as_ref().unwrap();
    assert!(stalled.starts_with("the server took 10 of 20 clients: no new client in 1."), "{done}");
    assert!(done.stdout.contains(&format!("FAILED: {stalled}")), "{done}");
    assert_eq!(outcome.errors.refused.values().sum::<u64>(), 10, "{done}");
    assert!(outcome.errors.refused.keys().all(|reason| reason.contains("503")), "{done}");
    assert!(outcome.seconds == 0.0 && outcome.traffic.published == 0 && outcome.connect.seconds < 1.0, "{done}");
    // It lasts as long as asked for.
    let done = run(broker(Fault::Full(11)), "--rate 100 --connect-timeout 2 --stall-timeout 0");
    assert!(done.is_failed().stalled.is_none() && done.outcome().traffic.published > 0, "{done}");
}

#[test]
fn slow_consumers_that_are_kept_are_counted() {
    let done =
        run(broker(Fault::None), "--scenario slow-consumers --slow-share 0.2 --payload 65536 --rate 150 --duration 1");
    let slow = done.is_good().slow.as_ref().unwrap();
    assert!(slow.closed.is_empty() && slow.behind == 4 && slow.behind_messages > 10, "{slow:?} {done}");
    assert!(done.stdout.contains("4 slow clients: 0 closed by the server, 4 behind when publishing ended"), "{done}");
}
