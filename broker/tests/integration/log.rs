//! What the broker says on standard error: lines of text or of JSON, few of them however much happens, and never a
//! reason to stop.

use std::io::Read;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::broker::{Broker, command};
use crate::http::{await_stat, request};
use crate::shutdown::{exit, signal};
use crate::ws::open;

/// A broker that is told to end, and everything that it said until then.
pub(crate) async fn said(mut broker: Broker, mut stderr: impl Read) -> String {
    signal(&broker, "INT");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    text
}

/// A broker whose standard error is kept.
pub(crate) fn start(arguments: &[&str]) -> (Broker, impl Read + use<>) {
    let mut child: Child =
        command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let stderr = child.stderr.take().expect("piped");
    (Broker::of(child), stderr)
}

pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn a_life_as_json() {
    let (broker, stderr) = start(&["--log-format", "json", "--log-level", "info"]);
    let (address, admin) = (broker.address, broker.admin);
    drop(open(address, "/sub/a").await);
    let lines = json_lines(&said(broker, stderr).await);
    for line in &lines {
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}"));
        assert!(text("timestamp").ends_with('Z') && text("timestamp").contains('T'), "{line}");
        assert!(["ERROR", "WARN", "INFO"].contains(&text("level")), "{line}");
        assert!(!text("message").is_empty(), "{line}");
    }
    let started = &lines[0];
    assert_eq!(started["message"], "started", "{started}");
    assert_eq!((&started["listen"], &started["admin"]), (&address.to_string().into(), &admin.to_string().into()));
    assert_eq!((&started["shards"], &started["version"]), (&2.into(), &env!("CARGO_PKG_VERSION").into()));
    assert!(started["driver"] == "io_uring" || started["driver"] == "epoll", "{started}");
    let last = lines.last().unwrap();
    assert_eq!((&last["message"], &last["level"]), (&"ended".into(), &"INFO".into()), "{last}");
}

/// Hundreds of refusals within a second or two are a line or two.
#[tokio::test]
async fn what_happens_often_is_told_once_a_second() {
    let begun = std::time::Instant::now();
    let (broker, stderr) = start(&["--log-format", "json"]);
    for _ in 0..300 {
        let head = "POST /pub/a HTTP/1.1\r\nOrigin: https://evil.example";
        assert_eq!(request(broker.address, head, b"x").await.status, 403);
        let head = "GET /sub/a HTTP/1.1\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(request(broker.address, head, b"").await.status, 403);
    }
    await_stat(&broker, "refused_origin", |refused| refused == 600).await;
    let lines = json_lines(&said(broker, stderr).await);
    let refusals: Vec<_> = lines.iter().filter(|line| line["reason"] == "origin").collect();
    let sum: u64 = refusals.iter().map(|line| line["count"].as_u64().expect("a number")).sum();
    assert_eq!(sum, 600, "{refusals:?}");
    assert!(refusals.len() as u64 <= begun.elapsed().as_secs() + 2, "{refusals:?}");
    assert!(refusals.iter().any(|line| line["first"] == "https://evil.example"), "{refusals:?}");
    for line in refusals {
        assert_eq!((&line["level"], &line["event"]), (&"WARN".into(), &"refused".into()), "{line}");
        assert!(line["message"].as_str().expect("text").contains("--allow-origin"), "{line}");
    }
}

#[tokio::test]
async fn text_is_for_people_and_the_level_leaves_out_what_matters_less() {
    let (broker, stderr) = start(&["--log-level", "info"]);
    let text = said(broker, stderr).await;
    let first = text.lines().next().expect("a line");
    assert!(first.contains(" INFO started ") && first.contains("shards=2"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where nobody looks: {text}");
    let (broker, stderr) = start(&["--log-level", "warn"]);
    assert_eq!(said(broker, stderr).await, "");
}

/// Whoever read the log is gone.
#[tokio::test]
async fn a_closed_standard_error_ends_nothing() {
    let (mut broker, stderr) = start(&["--log-level", "debug"]);
    drop(stderr);
    for _ in 0..3 {
        drop(open(broker.address, "/sub/a").await);
        await_stat(&broker, "connections", |open| open == 0).await;
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    }
    signal(&broker, "INT");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

/// A disk that is full when the broker starts.
#[tokio::test]
async fn a_full_disk_ends_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child =
        command(&["--log-level", "debug"]).stdout(Stdio::piped()).stderr(full).spawn().expect("the binary runs");
    let mut broker = Broker::of(child);
    assert_eq!(request(broker.address, "GET /healthz HTTP/1.1", b"").await.status, 200);
    signal(&broker, "TERM");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

/// A pipe that is full and stays so: the control plane answers all the same, and the end comes in time.
#[tokio::test]
async fn a_reader_that_does_not_read_stalls_nobody() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let stderr = writer.try_clone().unwrap();
    let (progress, filled) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Ends when the reader is gone.
        while std::io::Write::write(&mut writer, &[b'x'; 512]).is_ok() && progress.send(()).is_ok() {}
    });
    while filled.recv_timeout(std::time::Duration::from_millis(500)).is_ok() {}

    let child =
        command(&["--log-level", "debug"]).stdout(Stdio::piped()).stderr(stderr).spawn().expect("the binary runs");
    let mut broker = Broker::of(child);
    for _ in 0..5 {
        signal(&broker, "HUP");
        drop(open(broker.address, "/sub/a").await);
        await_stat(&broker, "connections", |open| open == 0).await;
        assert_eq!(request(broker.address, "GET /healthz HTTP/1.1", b"").await.status, 200);
    }
    let begun = std::time::Instant::now();
    signal(&broker, "TERM");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(reader);
}
