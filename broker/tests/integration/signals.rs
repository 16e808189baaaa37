//! Signals that end a process which does not handle them: only SIGTERM and SIGINT end the broker, and never without a
//! word, however early they come.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::{Broker, command};
use crate::http::post;
use crate::shutdown::{exit, signal};
use crate::ws::open;

/// The bit of SIGTERM in the masks of `/proc`.
const SIGTERM_BIT: u64 = 1 << 14;

#[tokio::test]
async fn other_signals_are_logged_and_ignored() {
    let mut child =
        command(&["--log-level", "info"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut broker = Broker::of(child);
    let mut client = open(broker.address, "/sub/a").await;
    let mut offset = 0;
    for (name, is_logged) in [
        ("HUP", true),
        ("USR1", true),
        ("USR2", true),
        ("ALRM", true),
        ("VTALRM", true),
        ("IO", true),
        ("PWR", true),
        ("PIPE", false),
        ("XFSZ", false),
        ("34", false),
        ("64", false),
    ] {
        signal(&broker, name);
        if is_logged {
            let mut line = String::new();
            while !line.contains("signal=") {
                line.clear();
                assert!(log.read_line(&mut line).unwrap() > 0, "the log ended before SIG{name} was in it");
            }
            assert_eq!(line.contains("none of them has changed"), name == "HUP", "{line}");
        }
        offset += 1;
        assert_eq!(post(broker.address, "a", name.as_bytes()).await, offset, "SIG{name}");
        assert_eq!(client.text().await, name);
    }
    signal(&broker, "INT");
    assert_eq!(client.close_code().await, 1001);
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

/// SIGHUP: the log's level holds at once, other settings are named, and a file with a mistake changes nothing.
#[tokio::test]
async fn settings_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("drain-delay = \"0s\"\n");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringyard"));
    command.args(["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin-listen", "off"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut broker = Broker::of(child);
    let mut hang_up = |text: &str, wanted: &[&str]| {
        write(text);
        signal(&broker, "HUP");
        let mut line = String::new();
        while !line.contains("SIGHUP") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the log ended before {wanted:?}");
        }
        assert!(wanted.iter().all(|part| line.contains(part)), "{line}");
    };
    hang_up("drain-delay = \"0s\"\nlog-level = \"debug\"\n", &["log-level = debug from now on"]);
    hang_up("max-connections = 5\n", &["log-level = info from now on", "max-connections = 5 after a restart"]);
    hang_up("max-conections = 5\n", &["nothing has changed", "ringyard.toml:1", "max-connections"]);
    hang_up("log-level = \"error\"\n", &["log-level = error from now on"]);
    hang_up("shards = 0\n", &["nothing has changed", "shards"]);
    assert_eq!(post(broker.address, "a", b"x").await, 1);
    signal(&broker, "TERM");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "what is no error is not logged any more");
}

/// The start takes as long as its configuration file, a pipe, gives nothing to read.
#[tokio::test]
async fn a_signal_during_the_start_is_an_orderly_end_after_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["TERM", "INT"] {
        let pipe = folder.path().join(name);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let arguments = ["--config", pipe.to_str().unwrap(), "--log-level", "info"];
        let mut child = command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        let status = format!("/proc/{}/status", child.id());
        let begun = Instant::now();
        while !is_held(&std::fs::read_to_string(&status).unwrap_or_default()) {
            assert!(begun.elapsed() < Duration::from_secs(20), "signals are not held");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let killed = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        std::fs::OpenOptions::new().write(true).open(&pipe).unwrap().write_all(b"shards = 1\n").unwrap();
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "SIG{name}: {said}");
        assert!(said.contains("draining") && said.contains("ended"), "SIG{name}: {said}");
    }
}

fn is_held(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGTERM_BIT != 0)
}

/// Whatever is no broker ends as programs do.
#[test]
fn a_command_is_killed_by_a_signal() {
    use std::os::unix::process::ExitStatusExt;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringyard"))
        .args(["healthcheck", "--url", &url])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It has begun, for it asks.
    let (mut asking, _) = silent.accept().unwrap();
    assert!(asking.read(&mut [0; 64]).unwrap() > 0);
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}
