//! SIGTERM and SIGINT: what was accepted is delivered, every WebSocket hears 1001, the exit status is 0.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::ws::{open, open_v1};

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
        let mut broker = Broker::start(&[]);
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

/// The grace period is for connections; without any there is nothing to wait for.
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
    let mut broker = Broker::start(&[]);
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
    let mut broker = Broker::start(&["--shutdown-grace", "2s"]);
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
