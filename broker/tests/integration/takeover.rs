//! A successor takes over from a running broker: nobody is refused, nobody is long without a broker, and a successor that
//! fails changes nothing. And without a successor: anyone who comes while a broker drains is still served.

use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as SocketName, UnixDatagram, UnixStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::broker::{Broker, command};
use crate::http::{Answer, Http, await_stat, request};
use crate::shutdown::{exit, signal};
use crate::ws::{Ws, open, try_open};

/// How long a page waits before it connects again, as the broker's own does for its first try.
const PAGE_WAITS: Duration = Duration::from_millis(250);

/// The arguments with which a successor of `broker` starts, besides `more`.
pub(crate) fn succeeding(broker: &Broker, more: &[&str]) -> Vec<String> {
    let (listen, admin) = (broker.address.to_string(), broker.admin.to_string());
    ["--listen", &listen, "--admin-listen", &admin].into_iter().chain(more.iter().copied()).map(str::to_owned).collect()
}

pub(crate) fn start(arguments: &[String]) -> Broker {
    Broker::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What a start that must fail says.
fn failure(arguments: &[String]) -> String {
    let mut command = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let output = command.stdout(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

async fn publish(server: SocketAddr) -> Answer {
    request(server, "POST /pub/a HTTP/1.1", b"x").await
}

/// Which broker answers: each has an epoch of its own.
async fn epoch(server: SocketAddr) -> String {
    let answer = publish(server).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["epoch"].as_str().expect("an epoch").to_owned()
}

/// A page: connected all the time, as far as it can. Returns how long it was without a broker, each time.
async fn page(server: SocketAddr, number: u32, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut gaps = Vec::new();
    let mut lost: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        match try_open(server, "/sub/pages", &[]).await {
            Ok(mut socket) => {
                gaps.extend(lost.map(|at| at.elapsed()));
                while !stop.load(Ordering::Relaxed) {
                    let wait = tokio::time::timeout(Duration::from_millis(50), socket.stream.next());
                    if let Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) = wait.await {
                        break;
                    }
                }
            }
            Err(error) => panic!("page {number} was refused: {error}"),
        }
        lost = Some(Instant::now());
        sleep(PAGE_WAITS / 2 + PAGE_WAITS / 2 * (number % 10) / 10).await;
    }
    gaps
}

/// Newcomers, one after the other, until `stop`: none may be refused. Returns the epochs that their publishes had, in
/// their order.
async fn newcomers(server: SocketAddr, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut epochs = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        open(server, "/sub/new").await;
        epochs.push(epoch(server).await);
        assert_eq!(request(server, "GET / HTTP/1.1", b"").await.status, 200);
    }
    epochs
}

/// Whether a client of the old broker, which hears itself, could still say something before its turn came.
async fn is_served_until_it_is_closed(mut client: Ws) -> bool {
    // Fails if it is closed already; then that is what it hears.
    let _ = client.stream.send(Message::text("still here")).await;
    match client.next().await {
        Message::Text(text) => {
            assert_eq!(text.as_str(), "still here");
            assert_eq!(client.close_code().await, 1001);
            true
        }
        Message::Close(Some(frame)) => {
            assert_eq!(u16::from(frame.code), 1001);
            false
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_successor_takes_over_and_nobody_is_refused() {
    let mut old = Broker::start(&["--drain-window", "2s"]);
    let stop = Arc::new(AtomicBool::new(false));
    let pages: Vec<_> = (0..60).map(|number| tokio::spawn(page(old.address, number, Arc::clone(&stop)))).collect();
    let comers: Vec<_> = (0..4).map(|_| tokio::spawn(newcomers(old.address, Arc::clone(&stop)))).collect();
    let mut staying = Vec::new();
    for number in 0..8 {
        staying.push(open(old.address, &format!("/bus/old/{number}")).await);
    }
    let (first, server) = (epoch(old.address).await, old.address);
    sleep(Duration::from_millis(300)).await;

    let new = start(&succeeding(&old, &["--take-over"]));
    // It is announced when the old one accepts nobody any more.
    let second = epoch(server).await;
    assert_ne!(first, second);
    let mut served = 0;
    for stays in staying {
        served += u32::from(is_served_until_it_is_closed(stays).await);
    }
    assert!(served > 0, "all of them were closed before");
    assert_eq!(exit(&mut old).await.code(), Some(0));
    sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);

    for comer in comers {
        let epochs = comer.await.expect("no newcomer is refused");
        assert!(epochs.contains(&first) && epochs.last() == Some(&second), "{epochs:?}");
    }
    let mut gaps = Vec::new();
    for page in pages {
        let own = page.await.expect("no page is refused");
        assert_eq!(own.len(), 1, "a page moves once");
        gaps.extend(own);
    }
    gaps.sort();
    assert!(gaps[30] < Duration::from_secs(1) && gaps[59] < Duration::from_secs(3), "{gaps:?}");
    assert_eq!(request(new.admin, "GET /readyz HTTP/1.1", b"").await.status, 200);
}

/// A connection may come while one broker stops accepting from the listeners that it shares with another. Nobody else
/// connects, so nobody else's connection brings it to light if both miss it.
#[tokio::test]
async fn a_lone_client_is_answered_through_one_takeover_after_the_other() {
    let mut old = Broker::start(&["--drain-window", "0s"]);
    let server = old.address;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let client = tokio::spawn(async move {
        let mut answered = 0;
        while !stopped.load(Ordering::Relaxed) {
            epoch(server).await;
            answered += 1;
        }
        answered
    });
    for _ in 0..8 {
        let new = start(&succeeding(&old, &["--take-over", "--drain-window", "0s"]));
        assert_eq!(exit(&mut old).await.code(), Some(0));
        old = new;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(client.await.expect("nobody is refused or left waiting") > 8);
}

/// Behind what a connection asked the old broker before, the next request reaches the new one.
#[tokio::test]
async fn a_connection_that_is_kept_ends_behind_its_answer() {
    let old = Broker::start(&["--drain-window", "30s"]);
    const REQUEST: &str = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n";
    let (mut idle, mut busy) = (Http::open(old.address).await, Http::open(old.address).await);
    assert_eq!(idle.send(format!("{REQUEST}x")).await.answer().await.status, 200);
    busy.send(REQUEST).await;
    // The broker has its head: it is under way.
    sleep(Duration::from_millis(100)).await;
    let _new = start(&succeeding(&old, &["--take-over"]));
    assert!(idle.ended().await);
    assert_eq!(busy.send("x").await.answer().await.status, 200);
    assert!(busy.ended().await);
}

#[tokio::test]
async fn who_does_not_ask_for_it_does_not_take_over() {
    let old = Broker::start(&[]);
    let mut client = open(old.address, "/bus/a").await;
    let said = failure(&succeeding(&old, &[]));
    assert!(said.contains("in use") && said.contains(&old.address.to_string()), "{said}");
    client.send(Message::text("still here")).await;
    assert_eq!(client.text().await, "still here");
}

/// With fewer shards connections would be lost; with a wrong option, and with an operators' address that somebody else
/// has, it does not start.
#[tokio::test]
async fn a_successor_that_does_not_start_changes_nothing() {
    let old = Broker::start(&["--drain-window", "0s"]);
    let mut client = open(old.address, "/bus/b").await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let own = old.address.to_string();
    for (arguments, wanted) in [
        (succeeding(&old, &["--take-over", "--shards", "1"]), "--shards 1: the running broker has 2"),
        (
            ["--listen", &own, "--take-over", "--admin-listen", &taken].map(str::to_owned).to_vec(),
            "cannot listen for operators",
        ),
    ] {
        let said = failure(&arguments);
        assert!(said.contains(wanted), "{said}");
        client.send(Message::text("still here")).await;
        assert_eq!(client.text().await, "still here");
        assert_eq!(publish(old.address).await.status, 200);
    }
    // And the next one can.
    let new = start(&succeeding(&old, &["--take-over"]));
    assert_eq!(client.close_code().await, 1001);
    assert_eq!(publish(new.address).await.status, 200);
}

/// A successor may start as soon as the broker has said that it is ready. Here it cannot say it, because the service manager does
/// not read its messages, and waits for a successor all the same.
#[tokio::test]
async fn a_broker_waits_for_a_successor_before_it_says_that_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&path).unwrap();
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"x", &path).is_ok() {}
    let mut command = command(&[]);
    let broker = Broker::of(command.env("NOTIFY_SOCKET", &path).stdout(Stdio::piped()).spawn().unwrap());
    let name = SocketName::from_abstract_name(format!("ringyard/take-over/{}", broker.address)).unwrap();
    let begun = Instant::now();
    while UnixStream::connect_addr(&name).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "it says that it is ready before a successor can ask");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Successors of successors; more shards than before; nobody to take over from.
#[tokio::test]
async fn one_takes_over_after_the_other() {
    let mut old = Broker::start(&["--take-over", "--drain-window", "0s"]);
    let server = old.address;
    for shards in ["2", "3", "3"] {
        let new = start(&succeeding(&old, &["--take-over", "--shards", shards, "--drain-window", "0s"]));
        assert_eq!(exit(&mut old).await.code(), Some(0));
        for _ in 0..20 {
            assert_eq!(publish(server).await.status, 200);
        }
        old = new;
    }
}

#[tokio::test]
async fn a_signal_ends_the_window_behind_a_successor() {
    let mut old = Broker::start(&["--drain-window", "60s"]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(open(old.address, "/bus/a").await);
    }
    let new = start(&succeeding(&old, &["--take-over"]));
    let begun = Instant::now();
    signal(&old, "TERM");
    for client in &mut clients {
        assert_eq!(client.close_code().await, 1001);
    }
    drop(clients);
    assert_eq!(exit(&mut old).await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(publish(new.address).await.status, 200);
}

/// `ringyard restart` returns when the successor has taken over, and says where it is; it fails where the successor does.
#[tokio::test]
async fn the_command_restarts_in_the_background() {
    let mut old = Broker::start(&["--drain-window", "0s"]);
    let (server, first) = (old.address, epoch(old.address).await);
    let own = succeeding(&old, &[]);
    // The successor inherits standard error and keeps it: a pipe would not end.
    let restart = |more: &[&str]| {
        let mut file = tempfile::tempfile().unwrap();
        let mut restart = std::process::Command::new(env!("CARGO_BIN_EXE_ringyard"));
        restart.arg("restart").args(&own).args(more).stdin(Stdio::null()).stderr(file.try_clone().unwrap());
        let done = restart.output().unwrap();
        let mut said = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut said).unwrap();
        (done, said)
    };
    let (failed, said) = restart(&["--shards", "1"]);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("the broker that runs goes on") && said.contains("--shards 1"), "{said}");
    assert_eq!(epoch(server).await, first);

    let (done, _) = restart(&["--shards", "2"]);
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0), "{said}");
    let process =
        said.strip_prefix("process ").and_then(|rest| rest.split_once(':')).expect("its process").0.to_owned();
    assert_ne!(epoch(server).await, first);
    assert_eq!(exit(&mut old).await.code(), Some(0));
    assert!(std::process::Command::new("kill").arg(&process).status().unwrap().success());
    let begun = Instant::now();
    while std::net::TcpStream::connect(server).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the successor runs still");
        sleep(Duration::from_millis(20)).await;
    }
    let (nobody, said) = restart(&[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(said.contains("no broker runs at"), "{said}");
}

/// A broker of which nobody knows another: a page that is sent away comes back, and stays until the end.
#[tokio::test]
async fn without_a_successor_newcomers_are_served_until_the_end() {
    let mut broker = Broker::start(&["--drain-window", "3s"]);
    let server = broker.address;
    let mut clients: Vec<Ws> = Vec::new();
    for _ in 0..10 {
        clients.push(open(server, "/bus/a").await);
    }
    signal(&broker, "TERM");
    // Who comes before all shards have begun is one of those who leave over the window.
    await_stat(&broker, "closed_shutdown", |closed| closed > 0).await;
    let mut newcomer = open(server, "/bus/b").await;
    newcomer.send(Message::text("served")).await;
    assert_eq!(newcomer.text().await, "served");
    assert_eq!(publish(server).await.status, 200);
    for mut client in clients {
        loop {
            match client.next().await {
                Message::Close(Some(frame)) => break assert_eq!(u16::from(frame.code), 1001),
                Message::Text(_) | Message::Binary(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(newcomer.close_code().await, 1001);
    drop(newcomer);
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}
