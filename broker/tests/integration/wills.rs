//! Last wills over real sockets: what is published when a connection ends, when, and when not. That nothing came is shown by
//! what comes next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use crate::http::{await_stat, post, request, stat};
use crate::leases::{Railway, granted, lease, publish, queue, take};
use crate::presence::{join, ok};
use crate::shutdown::{exit, signal};
use crate::ws::{Ws, open_v1};

/// A client with a session whose will is `said`, with more members.
async fn willing(server: SocketAddr, topic: &str, said: &str, more: Value) -> (Ws, Value) {
    let mut will = json!({"topic": topic, "data": said});
    will.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    let mut client = open_v1(server).await;
    let answer = client.command(json!({"type": "connect", "id": "c", "session": true, "will": will})).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    (client, answer)
}

fn reset(client: Ws) {
    client.stream.get_ref().set_zero_linger().unwrap();
}

async fn watcher(server: SocketAddr, topic: &str) -> Ws {
    let mut watcher = open_v1(server).await;
    watcher.subscribe(&[topic]).await;
    watcher
}

/// What is published next.
async fn said(watcher: &mut Ws) -> Value {
    let message = watcher.json().await;
    assert_eq!(message["type"], "message", "{message}");
    message["data"].clone()
}

/// Nothing was published before this.
async fn nothing(server: SocketAddr, watcher: &mut Ws, topic: &str) {
    post(server, topic, b"nothing").await;
    assert_eq!(said(watcher).await, "nothing");
}

#[tokio::test]
async fn after_a_reset_the_will_is_there_at_once_and_the_lease_after_the_grace() {
    let railway = Railway::start("", &["--session-grace", "2s"]);
    let server = railway.address();
    let mut watcher = watcher(server, "loco/1").await;
    let (mut ada, _) = willing(server, "loco/1", "stop", json!({})).await;
    let number = take(&mut ada, json!({"ttl": 1000})).await;
    let mut bob = open_v1(server).await;
    queue(&mut bob, 60_000).await;
    let began = Instant::now();
    reset(ada);
    assert_eq!(said(&mut watcher).await, "stop", "under her own lease");
    assert!(began.elapsed() < Duration::from_millis(1000), "{:?}", began.elapsed());
    let next = bob.json().await;
    assert!(granted(&next) > number);
    assert!((1900..9000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(publish(&mut bob, json!("go"), next["lease"].as_u64()).await, "ok");
    assert_eq!(said(&mut watcher).await, "go");
    assert_eq!(stat(&railway.broker, "wills_published").await, 1);
}

/// Nobody could come back: the will is first, and the next holder has the lease at once.
#[tokio::test]
async fn without_a_session_all_is_at_once() {
    let railway = Railway::start("", &["--session-grace", "5m"]);
    let server = railway.address();
    let mut watcher = watcher(server, "loco/1").await;
    for round in 0..20 {
        let mut ada = open_v1(server).await;
        let will =
            json!({"topic": "loco/1", "data": ["stop", round], "delay": if round % 2 == 0 { 0 } else { 60_000 }});
        ok(&mut ada, json!({"type": "will", "id": 1, "will": will})).await;
        take(&mut ada, json!({})).await;
        let mut bob = open_v1(server).await;
        queue(&mut bob, 60_000).await;
        reset(ada);
        let number = granted(&bob.json().await);
        assert_eq!(publish(&mut bob, json!(["go", round]), Some(number)).await, "ok");
        assert_eq!(said(&mut watcher).await, json!(["stop", round]));
        assert_eq!(said(&mut watcher).await, json!(["go", round]));
        ok(&mut bob, json!({"type": "disconnect", "id": 1})).await;
    }
}

/// Whatever ends a connection but `disconnect`.
#[tokio::test]
async fn each_end_but_a_disconnect_publishes_the_will() {
    let railway = Railway::start("", &["--ping-interval", "1s", "--ping-timeout", "1s", "--max-message", "1000"]);
    let server = railway.address();
    let mut watcher = watcher(server, "news").await;
    for end in ["reset", "fin", "close", "violation", "disconnect", "silence"] {
        let (mut client, _) = willing(server, "news", end, json!({})).await;
        match end {
            "reset" => reset(client),
            "fin" => drop(client),
            "close" => client.close().await,
            "violation" => {
                client.send(Message::binary(vec![1])).await;
                assert_eq!(client.close_code().await, 1003);
            }
            "disconnect" => {
                ok(&mut client, json!({"type": "disconnect", "id": 1})).await;
                assert_eq!(client.close_code().await, 1000);
                nothing(server, &mut watcher, "news").await;
                continue;
            }
            // It answers no ping.
            _ => {
                assert_eq!(said(&mut watcher).await, end);
                await_stat(&railway.broker, "dropped_ping_timeout", |dropped| dropped == 1).await;
                continue;
            }
        }
        assert_eq!(said(&mut watcher).await, end);
    }
}

#[tokio::test]
async fn a_delayed_will_waits_for_its_client() {
    let railway = Railway::start("", &["--session-grace", "3s"]);
    let server = railway.address();
    let mut watcher = watcher(server, "news").await;
    // Who comes back in time has said nothing, and has to set a will anew.
    let (mut page, first) = willing(server, "news", "gone", json!({"delay": 1500})).await;
    for _ in 0..4 {
        reset(page);
        let (next, answer) = join(server, &first["session"]).await;
        assert_eq!(answer["resumed"], true);
        page = next;
        let will = json!({"topic": "news", "data": "gone", "delay": 1500});
        ok(&mut page, json!({"type": "will", "id": 1, "will": will})).await;
    }
    reset(page);
    let (page, _) = join(server, &first["session"]).await;
    reset(page);
    sleep(Duration::from_millis(1700)).await;
    nothing(server, &mut watcher, "news").await;
    // After the delay; with the end of the session at the latest.
    for (delay, range) in [(1000, 1000..2900), (60_000, 2900..9000)] {
        let (page, _) = willing(server, "news", "gone", json!({"delay": delay})).await;
        let began = Instant::now();
        reset(page);
        assert_eq!(said(&mut watcher).await, "gone");
        assert!(range.contains(&began.elapsed().as_millis()), "{delay}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_takeover_publishes_a_will_without_delay_and_cancels_one_with_a_delay() {
    let railway = Railway::start("", &["--session-grace", "2s"]);
    let server = railway.address();
    let mut watcher = watcher(server, "news").await;
    for (delay, expected) in [(0, "first"), (1000, "nothing")] {
        let (mut first, answer) = willing(server, "news", "first", json!({"delay": delay})).await;
        let mut second = open_v1(server).await;
        let connect = json!({"type": "connect", "id": 1, "session": answer["session"], "will": {"topic": "news", "data": "second"}});
        assert_eq!(second.command(connect).await["resumed"], true);
        assert_eq!(first.close_code().await, 4409);
        if delay > 0 {
            sleep(Duration::from_millis(1200)).await;
            post(server, "news", b"nothing").await;
        }
        assert_eq!(said(&mut watcher).await, expected);
        reset(second);
        assert_eq!(said(&mut watcher).await, "second");
    }
}

#[tokio::test]
async fn another_will_replaces_it_and_it_is_taken_back() {
    let railway = Railway::start("[[topic]]\nmatch = 'seats/#'\nhistory = 'keyed'", &[]);
    let server = railway.address();
    let mut watcher = watcher(server, "news").await;
    let (mut client, _) = willing(server, "news", "first", json!({})).await;
    ok(&mut client, json!({"type": "will", "id": 1, "will": {"topic": "news", "data": "second"}})).await;
    reset(client);
    assert_eq!(said(&mut watcher).await, "second");
    let (mut client, _) = willing(server, "news", "first", json!({})).await;
    ok(&mut client, json!({"type": "will", "id": 1, "end": true})).await;
    reset(client);
    // What else a publish may say: a retained message, and the value of a key.
    let (client, _) = willing(server, "news", "kept", json!({"retain": true})).await;
    reset(client);
    assert_eq!(said(&mut watcher).await, "kept", "and the one that was taken back did not come");
    let mut late = open_v1(server).await;
    ok(&mut late, json!({"type": "subscribe", "id": 1, "topic": "news"})).await;
    assert_eq!(late.json().await["data"], "kept");
    let (client, _) = willing(server, "seats/1", "Zm9v", json!({"key": "a", "encoding": "base64"})).await;
    let mut seats = open_v1(server).await;
    ok(&mut seats, json!({"type": "subscribe", "id": 1, "topic": "seats/1"})).await;
    assert_eq!(seats.json().await["type"], "state-end");
    reset(client);
    let message = seats.json().await;
    let known = (&message["key"], &message["data"], &message["encoding"]);
    assert_eq!(known, (&json!("a"), &json!("Zm9v"), &json!("base64")), "{message}");
}

/// A new version of the broker is no reason to stop every train: not those of clients that it asks to leave, and none once it
/// has ended its window.
#[tokio::test]
async fn a_drain_publishes_no_will() {
    for window in ["2s", "0s"] {
        let Railway { mut broker, _folder } = Railway::start("", &["--drain-window", window]);
        let server = broker.address;
        let mut watcher = watcher(server, "news").await;
        let mut clients = Vec::new();
        for number in 0..20 {
            let delay = if number % 2 == 0 { 0 } else { 100 };
            let (mut client, _) = willing(server, "news", "gone", json!({"delay": delay})).await;
            take(&mut client, json!({"topic": format!("loco/{number}")})).await;
            clients.push(client);
        }
        signal(&broker, "TERM");
        // Without a window nobody is asked before every shard has ended it.
        let asked = if window == "0s" { 10 } else { 20 };
        let others = clients.split_off(asked);
        for mut client in clients {
            assert_eq!(client.json().await["type"], "goaway");
            reset(client);
        }
        others.into_iter().for_each(reset);
        // If a will came, it would come before the close.
        let mut messages = Vec::new();
        loop {
            match watcher.next().await {
                Message::Text(text) => messages.push(text.to_string()),
                Message::Close(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(messages.len() == 1 && messages[0].contains("goaway"), "{messages:?}");
        assert_eq!(exit(&mut broker).await.code(), Some(0));
    }
}

/// Whom the broker has not yet asked to leave is served as before.
#[tokio::test]
async fn the_will_of_a_client_that_is_lost_during_the_window_is_published() {
    let Railway { broker, _folder } = Railway::start("", &["--drain-window", "60s", "--shards", "1"]);
    let server = broker.address;
    let mut watchers = [watcher(server, "news").await, watcher(server, "news").await];
    let mut clients = [
        willing(server, "news", "lost", json!({"delay": 100})).await.0,
        willing(server, "news", "lost", json!({"delay": 100})).await.0,
    ];
    signal(&broker, "TERM");
    // One of the four is asked at once, and the next one 15 s later. Which watcher and which client stay?
    let [watcher, other] = &mut watchers;
    let [client, last] = &mut clients;
    let (message, watcher, client) = tokio::select! {
        message = watcher.json() => (message, 1, 0),
        message = other.json() => (message, 0, 0),
        message = client.json() => (message, 0, 1),
        message = last.json() => (message, 0, 0),
    };
    assert_eq!(message["type"], "goaway", "{message}");
    reset(clients.into_iter().nth(client).unwrap());
    assert_eq!(said(&mut watchers[watcher]).await, "lost");
}

#[tokio::test]
async fn leases_those_who_wait_and_wills_are_charged_to_the_budget() {
    const CLIENTS: usize = 100;
    const WILL: usize = 16 << 10;
    let railway = Railway::start("", &["--max-memory", "64m", "--max-subscriptions", "100"]);
    let server = railway.address();
    let held = async || {
        let stats = request(railway.broker.admin, "GET /api/stats HTTP/1.1", b"").await.json();
        stats["memory"]["held"]["subscriptions"].as_u64().expect("bytes")
    };
    let mut holder = open_v1(server).await;
    for number in 0..100 {
        take(&mut holder, json!({"topic": format!("loco/{number}"), "ttl": 600_000})).await;
    }
    let leases = held().await;
    assert!(leases > 100 * 200, "{leases}");
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = open_v1(server).await;
        client.send(lease(json!({"topic": "loco/7", "wait": 60_000})).to_string()).await;
        let will = json!({"topic": "news", "data": "x".repeat(WILL)});
        ok(&mut client, json!({"type": "will", "id": 2, "will": will})).await;
        clients.push(client);
    }
    let wills = held().await - leases;
    assert!((CLIENTS * WILL..2 * CLIENTS * WILL).contains(&(wills as usize)), "{wills}");
    // More than there is room for is refused, and nothing else is.
    let mut refused = None;
    for _ in 0..10_000 {
        let mut client = open_v1(server).await;
        let will = json!({"topic": "news", "data": "x".repeat(60_000)});
        let answer = client.command(json!({"type": "will", "id": 2, "will": will})).await;
        clients.push(client);
        if answer["type"] == "error" {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("more wills than --max-memory has room for");
    assert_eq!(refused["code"], "limit", "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("--max-memory"), "{refused}");
    drop((holder, clients));
    await_stat(&railway.broker, "connections", |open| open == 0).await;
    let began = Instant::now();
    while held().await > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", held().await);
        sleep(Duration::from_millis(20)).await;
    }
}
