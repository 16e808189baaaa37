//! The load generator against a small broker with and without faults: a run without errors must report none, every kind of
//! error must be found and named, and a run that is impossible must be refused before it begins.

mod history;
mod mini;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loadgen::Outcome;
use mini::{Done, Fault, File, Run, broker, command, run, start, start_without_json, with_each};

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

// ---- ends

#[test]
fn a_server_that_ends_is_measured_as_long_as_it_lived() {
    let done = run(broker(Fault::Restart), "--rate 200 --duration 30 --warmup 0");
    let outcome = done.is_failed();
    assert!(outcome.ended.as_ref().unwrap().starts_with("the last client lost its connection"), "{done}");
    assert!(outcome.seconds < 10.0 && outcome.published_per_second() > 100.0, "{done}");
    // A process that ends beside the broker.
    let mut server = Command::new("sleep").arg("100").spawn().unwrap();
    let mut command = command(&format!("ws://{}", broker(Fault::None)));
    command.args(["--server-pid", &server.id().to_string()]);
    let run = start(command, "--rate 100 --duration 600");
    std::thread::sleep(Duration::from_millis(1500));
    server.kill().unwrap();
    let done = run.wait();
    server.wait().unwrap();
    let (outcome, server) = (done.outcome(), done.outcome().server.as_ref().unwrap());
    assert!(done.status == Some(1) && outcome.good() && outcome.seconds < 30.0, "{done}");
    assert!(done.stdout.contains("FAILED: the server ended ") && done.stdout.contains(" until it ended, "), "{done}");
    assert!(server.ended_at.unwrap() > 0.3 && server.lived.unwrap() <= outcome.seconds + 0.1, "{server:?} {done}");
    assert!(outcome.published_per_second() > 50.0, "{done}");
}

#[test]
fn what_a_server_used_before_the_run_is_not_shown() {
    let mut server = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let used = || loadgen::usage::cpu_ns(server.id()).unwrap();
    while used() < 1_500_000_000 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(server.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let done = run(broker(Fault::None), &format!("--rate 100 --server-pid {}", server.id()));
    server.kill().unwrap();
    server.wait().unwrap();
    let series: Vec<_> = done.is_good().series.iter().filter_map(|row| row.server_cpu).collect();
    assert!(!series.is_empty() && series.iter().all(|share| *share < 0.5), "{series:?}");
}

#[test]
fn a_share_without_publishers_knows_when_messages_were_published() {
    let address = broker(Fault::None);
    let start_at = SystemTime::now() + Duration::from_secs(2);
    let start_at = start_at.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let all = format!("--rate 2 --duration 1.4 --start-at {start_at} --drain-timeout 1");
    let parts =
        ["1/2", "2/2"].map(|share| start(command(&format!("ws://{address}")), &format!("{all} --share {share}")));
    let parts = parts.map(Run::wait);
    for part in &parts {
        let traffic = &part.is_good().traffic;
        assert!((1..1_000_000_000).contains(&traffic.last_last_ns), "{traffic:?} {part}");
        assert!(traffic.last_first_ns <= traffic.last_last_ns, "{traffic:?} {part}");
        assert!(part.stdout.contains("time to first subscriber"), "{part}");
    }
    assert!(parts[0].stdout.contains("publishers elsewhere"), "{}", parts[0]);
    let merged = Command::new(env!("CARGO_BIN_EXE_ringyard-loadgen"))
        .args(["merge", "--json", "-"])
        .args(parts.iter().map(|part| part.json.as_ref().unwrap().path()))
        .output()
        .unwrap();
    let merged: Outcome = serde_json::from_slice(&merged.stdout).unwrap();
    assert!((1..1_000_000_000).contains(&merged.traffic.last_last_ns), "{:?}", merged.traffic);
}

#[test]
fn results_go_to_standard_output_when_asked_and_a_scheme_has_any_case() {
    let mut upper = command(&format!("WS://{}", broker(Fault::None)));
    upper.args(["--json", "-"]);
    let done = start_without_json(upper, "--scenario chat --rate 100").wait();
    let outcome: Outcome = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"));
    assert!(outcome.good() && done.status == Some(0), "{done}");
    assert!(
        done.stderr.contains("20 clients, each of them publishes too") && done.stderr.contains("\nvalid"),
        "{done}"
    );
}

#[test]
fn an_interrupt_still_prints_the_results() {
    let interrupt = |fault, arguments: &str| {
        let mut command = command(&format!("ws://{}", broker(fault)));
        command.args(["--server-pid", &std::process::id().to_string()]);
        let run = start(command, arguments);
        // Counting is under way, or connecting is.
        std::thread::sleep(Duration::from_millis(1500));
        let pid = rustix::process::Pid::from_raw(run.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        run.wait()
    };
    with_each(["--rate 100 --duration 600", "--outstanding 2 --duration 600", "--start-at 99999999999"], |arguments| {
        interrupt(Fault::None, arguments).is_interrupted();
    });
    let done = interrupt(Fault::Drop, "--rate 500 --duration 600 --drain-timeout 0.5");
    assert!(done.outcome().interrupted && done.status == Some(130), "{done}");
    assert!(done.stdout.contains("\nFAILED"), "{done}");
    // The rest of the clients was not waited for.
    let done = interrupt(Fault::None, "--ramp 5 --clients 100 --rate 10");
    let outcome = done.is_interrupted();
    assert!((1..100).contains(&outcome.connect.opened), "{done}");
    assert!(outcome.connect.seconds > 0.5, "{done}");
    let done = interrupt(Fault::Silent, "");
    assert!(done.status == Some(130) && done.stderr.contains("interrupted"), "{done}");
}

#[test]
fn thresholds_decide_the_exit_status() {
    let address = broker(Fault::None);
    let done = run(address, "--rate 100 --fail-if p99>100s --fail-if delivered<10");
    assert_eq!(done.status, Some(0), "{done}");
    assert!(
        done.stdout.contains("passed: p99>100s: p99 was") && done.stdout.contains("passed: delivered<10"),
        "{done}"
    );
    let done = run(address, "--rate 100 --fail-if p50>1ns");
    assert_eq!(done.status, Some(1), "{done}");
    assert!(done.stdout.contains("FAILED: p50>1ns"), "{done}");
}

#[test]
fn a_page_is_written_and_a_reader_may_leave() {
    let page = File::new("html");
    let done = run(broker(Fault::None), &format!("--rate 100 --report {}", page.path()));
    done.is_good();
    assert!(std::fs::read_to_string(&page.path).unwrap().contains("</html>"));
    for file in [format!("{} (HTML)", page.path()), format!("{} (JSON)", done.json.as_ref().unwrap().path())] {
        assert!(done.stdout.contains(&file), "{file}: {done}");
    }
    let mut run = start(command(&format!("ws://{}", broker(Fault::None))), "--rate 100");
    drop(run.child.stdout.take());
    run.wait().is_good_silently();
}

// ---- what is said before the run

#[test]
fn what_cannot_be_is_said_before_the_run() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    run(nobody, "").is_refused(&format!("nobody answers at {nobody}"));
    let address = broker(Fault::None);
    with_each(
        [
            ("--url http://127.0.0.1:1", "ws://"),
            ("--payload 10", "--payload"),
            ("--storms 1", "--storms needs --rate"),
            ("--share 1/2", "--share needs --rate"),
            ("--clients 40000 --source 127.0.0.1", "--source"),
            ("--clients 4000000000", "enough for --clients"),
            ("--server-pid 4294967295", "--server-pid 4294967295"),
            ("--duration 1e12", "--duration"),
            ("--duration 0", "--duration must be above 0"),
            ("--scenario chat --churn 5", "--churn"),
            ("--topics 5 --clients 2", "closed loop"),
            ("--json /nowhere/at/all.json", "writing /nowhere/at/all.json"),
            ("--protocol v1 --rate 1", "subprotocol"),
        ],
        |(arguments, sentence)| {
            // The last of several is what counts.
            let done = run_without_json(address, arguments);
            assert!(done.status == Some(2) && done.stderr.contains(sentence), "{arguments}: {sentence}: {done}");
        },
    );
}

#[test]
fn too_few_descriptors_are_said_before_the_run() {
    let limited = |descriptors: u64, arguments: &str| {
        let inner = command(&format!("ws://{}", broker(Fault::None)));
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={descriptors}:{descriptors}")).arg(inner.get_program()).args(inner.get_args());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        start(command, arguments).wait()
    };
    limited(200, "--clients 9000 --rate 10").is_refused("descriptors");
    limited(200, "--clients 500 --rate 10 --workers 1").is_refused("rings");
    // More rings than cores are no burden.
    let done = limited(400, "--clients 600 --rate 10");
    assert!(done.is_good().run.workers >= 3, "{done}");
}

#[test]
fn earlier_results_survive_a_run_that_does_not_take_place() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [old, new] = [File::with("json", "earlier"), File::new("json")];
    for file in [&old, &new] {
        let done = run_without_json(nobody, &format!("--json {}", file.path()));
        assert_eq!(done.status, Some(2), "{done}");
    }
    assert_eq!(std::fs::read_to_string(&old.path).unwrap(), "earlier");
    assert!(!new.path.exists());
}

#[test]
fn a_file_of_options_is_read_and_its_mistakes_are_named() {
    let address = broker(Fault::None);
    let with = |text: &str, arguments: &str| {
        let file = File::with("toml", text);
        let done = run(address, &format!("--config {} {arguments}", file.path()));
        (done, file)
    };
    let (done, _file) = with("scenario = \"chat\"\ntopics = 4\nrate = 100\npayload = \"64,128\"\n", "--topics 5");
    let outcome = done.is_good();
    assert_eq!((&outcome.run.scenario[..], outcome.run.topics), ("chat", 5), "the command line wins: {done}");
    assert_eq!(outcome.run.payload, "64,128");
    with_each(
        [
            ("clinets = 5", "--clinets"),
            ("clients = \"many\"", "--clients"),
            ("rate = -1", "--rate"),
            ("clients = { a = 1 }", "clients"),
            ("config = \"other\"", "config"),
            ("scenario = \"chaos\"", "--scenario"),
            ("clients = ", "no TOML"),
        ],
        |(text, key)| {
            let (done, file) = with(text, "");
            assert!(done.status == Some(2) && done.outcome.is_none(), "{text}: {done}");
            assert!(done.stderr.contains(key) && done.stderr.contains(file.path()), "{text}: {done}");
        },
    );
    let done = run(address, "--config /nowhere.toml");
    assert!(done.status == Some(2) && done.stderr.contains("/nowhere.toml"), "{done}");
}

/// Without a JSON file of the test's own.
fn run_without_json(address: SocketAddr, arguments: &str) -> Done {
    start_without_json(command(&format!("ws://{address}")), arguments).wait()
}
