//! SIGTERM and SIGINT: what was accepted is delivered, every WebSocket hears 1001, some of them after others, the exit
//! status is 0.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{post, request};
use crate::ws::{Ws, open, open_v1};

pub(crate) fn signal(broker: &Broker, name: &str) {
    let status = Command::new("kill").args(["-s", name, &broker.child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

pub(crate) async fn exit(broker: &mut Broker) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = broker.child.try_wait().unwrap() {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "still running");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn everybody_hears_1001_and_the_exit_status_is_0() {
    for name in ["TERM", "INT"] {
        let mut broker = Broker::start(&["--drain-window", "500ms"]);
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(open(broker.address, "/sub/a").await);
            clients.push(open(broker.address, "/pub/a").await);
            clients.push(open_v1(broker.address).await);
        }
        signal(&broker, name);
        for client in &mut clients {
            assert_eq!(client.close_code().await, 1001);
        }
        drop(clients);
        assert_eq!(exit(&mut broker).await.code(), Some(0), "after {name}");
    }
}

/// The window and the grace period are for connections; without any there is nothing to wait for.
#[tokio::test]
async fn with_nobody_connected_it_ends_at_once() {
    let mut broker = Broker::start(&["--shutdown-grace", "15s"]);
    signal(&broker, "TERM");
    let begun = Instant::now();
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

/// Every acknowledged publish reaches every subscriber, though the broker is told to end right behind it.
#[tokio::test]
async fn what_was_accepted_is_delivered() {
    for window in ["0s", "3s"] {
        what_was_accepted_is_delivered_within(window).await;
    }
}

async fn what_was_accepted_is_delivered_within(window: &str) {
    let mut broker = Broker::start(&["--drain-window", window]);
    let server = broker.address;
    let mut subscribers = Vec::new();
    for _ in 0..20 {
        subscribers.push(open(server, "/sub/last").await);
    }
    let mut publisher = open_v1(server).await;
    let large = "x".repeat(20_000);
    let mut acknowledged = 0;
    for at in 0..100 {
        let data = format!("{at} {large}");
        let command = serde_json::json!({"type": "publish", "id": at, "topic": "last", "data": data});
        assert_eq!(publisher.command(command).await["type"], "ok");
        acknowledged += 1;
    }
    signal(&broker, "TERM");
    for subscriber in &mut subscribers {
        for at in 0..acknowledged {
            assert!(subscriber.text().await.starts_with(&format!("{at} ")));
        }
        assert!(matches!(subscriber.next().await, Message::Close(Some(frame)) if u16::from(frame.code) == 1001));
    }
    drop((subscribers, publisher));
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

/// Peers that neither read nor answer cannot keep it from ending.
#[tokio::test]
async fn a_grace_period_is_all_it_waits() {
    let mut broker = Broker::start(&["--shutdown-grace", "2s", "--drain-window", "0s"]);
    let silent = open(broker.address, "/sub/a").await;
    let handshake = crate::http::Http::open(broker.address).await;
    let mut publisher = open(broker.address, "/pub/a").await;
    publisher.send(Message::binary(vec![0; 1 << 20])).await;
    signal(&broker, "TERM");
    let begun = Instant::now();
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop((silent, handshake, publisher));
}

/// SIGTERM: for the delay, all goes on but readiness. In the window clients go one after the other, served until then.
#[tokio::test]
async fn a_drain_takes_its_delay_and_its_window() {
    let mut broker = Broker::start(&["--drain-delay", "1s", "--drain-window", "3s", "--shards", "1"]);
    let server = broker.address;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(open(server, "/bus/a").await);
    }
    assert_eq!(request(server, "GET /readyz HTTP/1.1", b"").await.status, 200);
    signal(&broker, "TERM");
    while request(server, "GET /readyz HTTP/1.1", b"").await.status != 503 {}
    let begun = Instant::now();
    assert_eq!(post(server, "a", b"in the delay").await, 1);

    let goes = |mut client: Ws| async move {
        assert_eq!(client.text().await, "in the delay");
        assert_eq!(client.close_code().await, 1001);
        begun.elapsed()
    };
    let mut times = futures_util::future::join_all(clients.into_iter().map(goes)).await;
    times.sort();
    assert!(times[0] > Duration::from_millis(800), "{times:?}");
    assert!(times[11] - times[0] > Duration::from_millis(1500), "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_millis(1200)), "{times:?}");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

/// At the end a handshake that is not complete is refused with a time to come back.
#[tokio::test]
async fn at_the_end_newcomers_are_refused() {
    let mut broker = Broker::start(&[]);
    let mut late = crate::http::Http::open(broker.address).await;
    late.send("GET /sub/a HTTP/1.1\r\nHost: localhost\r\n").await;
    // It was accepted before this one.
    let mut client = open(broker.address, "/sub/a").await;
    signal(&broker, "TERM");
    assert_eq!(client.close_code().await, 1001);
    let refused = late.answer().await;
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    drop((client, late));
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

/// Who was sent everything and does not answer the close is not waited for.
#[tokio::test]
async fn without_a_window_it_ends_within_a_second_or_two() {
    let mut broker = Broker::start(&["--shutdown-grace", "20s"]);
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(open(broker.address, "/sub/a").await);
    }
    assert_eq!(post(broker.address, "a", b"last").await, 1);
    let begun = Instant::now();
    signal(&broker, "TERM");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for client in &mut silent {
        assert_eq!(client.text().await, "last");
        assert_eq!(client.close_code().await, 1001);
    }
}

#[tokio::test]
async fn sigint_waits_neither_for_the_delay_nor_for_the_window() {
    let mut broker = Broker::start(&["--drain-delay", "30s", "--drain-window", "30s"]);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(open(broker.address, "/sub/a").await);
    }
    let begun = Instant::now();
    signal(&broker, "INT");
    for client in &mut clients {
        assert_eq!(client.close_code().await, 1001);
    }
    drop(clients);
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT"), ("INT", "INT")] {
        let mut broker = Broker::start(&["--drain-delay", "30s", "--drain-window", "30s", "--shutdown-grace", "30s"]);
        // They never answer the close.
        let silent = [open(broker.address, "/sub/a").await, open(broker.address, "/sub/a").await];
        let begun = Instant::now();
        signal(&broker, first);
        if first == "TERM" {
            while request(broker.address, "GET /readyz HTTP/1.1", b"").await.status != 503 {}
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        signal(&broker, second);
        assert_eq!(exit(&mut broker).await.code(), Some(0), "{first}, then {second}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        drop(silent);
    }
}
