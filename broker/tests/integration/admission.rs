//! Whom the broker takes: how many, how many a second, and how fast they may publish. Whoever is over a limit is told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::broker::Broker;
use crate::http::{await_stat, request, stat};
use crate::ws::{Ws, open, open_v1, try_open};

/// The status of a refused upgrade, and after how many seconds to come back.
async fn refused(server: SocketAddr, path: &str) -> (u16, u32) {
    match try_open(server, path, &[]).await {
        Err(Error::Http(answer)) => {
            let retry = answer.headers().get("retry-after").expect("when to come back");
            (answer.status().as_u16(), retry.to_str().unwrap().parse().expect("seconds"))
        }
        other => panic!("not refused: {:?}", other.map(drop)),
    }
}

/// The limit is of all shards together, wherever the kernel puts the connections.
#[tokio::test]
async fn so_many_connections_and_no_more_but_requests_are_answered() {
    let broker = Broker::start(&["--max-connections", "40", "--shards", "2"]);
    let server = broker.address;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(open(server, "/sub/a").await);
    }
    let mut waits = BTreeSet::new();
    for _ in 0..20 {
        let (status, wait) = refused(server, "/sub/a").await;
        assert_eq!(status, 503);
        waits.insert(wait);
    }
    assert!(waits.len() > 3, "they would all come back together: {waits:?}");
    assert_eq!(request(server, "GET /healthz HTTP/1.1", b"").await.status, 200);
    assert_eq!(request(server, "POST /pub/a HTTP/1.1", b"hello").await.status, 200);
    for client in &mut clients {
        assert_eq!(client.text().await, "hello");
    }
    assert_eq!(stat(&broker, "refused_connections").await, 20);

    clients.pop().expect("forty").close().await;
    await_stat(&broker, "connections", |open| open < 40).await;
    clients.push(open(server, "/sub/a").await);
    assert_eq!(refused(server, "/sub/a").await.0, 503);
}

/// A crowd that comes at once: a second's worth is let in, the others are told when to come back, each does, and all
/// are in about as soon as the rate allows.
#[tokio::test]
async fn a_crowd_is_let_in_at_the_accept_rate() {
    const CROWD: usize = 300;
    const RATE: usize = 100;
    let broker = Broker::start(&["--accept-rate", &RATE.to_string(), "--shards", "2"]);
    let server = broker.address;
    let begun = Instant::now();
    let come = |_| async move {
        loop {
            match try_open(server, "/sub/a", &[]).await {
                Ok(client) => return client,
                Err(Error::Http(answer)) => {
                    assert_eq!(answer.status(), 503);
                    let wait = answer.headers()["retry-after"].to_str().unwrap().parse().expect("seconds");
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let clients: Vec<Ws> = futures_util::future::join_all((0..CROWD).map(come)).await;
    let took = begun.elapsed();
    let least = Duration::from_secs_f64((CROWD - RATE) as f64 / RATE as f64 - 0.1);
    assert!(took >= least, "{took:?}: faster than allowed");
    assert!(took < Duration::from_secs(10), "{took:?}");

    // All drop, and all come back.
    drop(clients);
    await_stat(&broker, "connections", |open| open == 0).await;
    let begun = Instant::now();
    let clients: Vec<Ws> = futures_util::future::join_all((0..CROWD).map(come)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(stat(&broker, "upgraded").await, 2 * CROWD as u64);
    assert!(stat(&broker, "refused_accept_rate").await > 0);
    drop(clients);
}

#[tokio::test]
async fn publishing_too_fast_ends_a_raw_connection_with_1008() {
    let broker = Broker::start(&["--max-publish-rate", "10"]);
    let server = broker.address;
    let mut reader = open(server, "/sub/a").await;
    let mut publisher = open(server, "/pub/a").await;
    for at in 0..20 {
        publisher.send(at.to_string()).await;
    }
    for at in 0..20 {
        assert_eq!(reader.text().await, at.to_string(), "two seconds' worth at once");
    }
    for at in 0..20 {
        // It may be closed meanwhile.
        let _ = futures_util::SinkExt::send(&mut publisher.stream, Message::text(at.to_string())).await;
    }
    assert_eq!(publisher.close_code().await, 1008);
    await_stat(&broker, "dropped_rate", |dropped| dropped == 1).await;
    // Others are not concerned.
    open(server, "/pub/a").await.send("another").await;
    while reader.text().await != "another" {}
}

#[tokio::test]
async fn publishing_too_fast_is_an_error_on_ringyard_v1_and_the_connection_goes_on() {
    let broker = Broker::start(&["--max-publish-rate", "10"]);
    let mut client = open_v1(broker.address).await;
    let mut answers = Vec::new();
    for id in 0..30 {
        answers.push(client.command(json!({"type": "publish", "id": id, "topic": "a", "data": id})).await);
    }
    let limited: Vec<_> = answers.iter().filter(|answer| answer["type"] == "error").collect();
    assert!((1..=10).contains(&limited.len()), "{answers:?}");
    assert!(limited.iter().all(|answer| answer["code"] == "limit"), "{limited:?}");
    assert!(answers[..20].iter().all(|answer| answer["type"] == "ok"), "{answers:?}");
    assert_eq!(stat(&broker, "commands_limited").await, limited.len() as u64);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(client.command(json!({"type": "publish", "id": 99, "topic": "a", "data": 1})).await["type"], "ok");
}
