//! How runs end: with their server, by a signal, by conditions; and what they leave behind.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loadgen::Outcome;

use crate::mini::{Fault, File, Run, broker, command, run, start, start_without_json, with_each};

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
