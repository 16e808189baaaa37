//! What operators see of a running broker, and clients do not: the broker's own topics, messages of a topic, the trace of a
//! connection, and the page that shows it all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error;

use crate::access::{Guarded, KEY, key_table};
use crate::broker::Broker;
use crate::http::{PATIENCE, post, request};
use crate::ws::{Ws, open_v1, try_open};

const FOR_OPERATORS: [&str; 2] = ["$sys/topics", "$sys/closed"];
const V1: (&str, &str) = ("sec-websocket-protocol", "ringyard.v1");

/// The next value of one of the broker's topics of which this holds.
async fn value(client: &mut Ws, topic: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let message = client.json().await;
            if message["topic"] == topic && is_meant(&message["data"]) {
                return message["data"].clone();
            }
        }
    };
    timeout(2 * PATIENCE, found).await.expect("in time")
}

#[tokio::test]
async fn clients_do_not_see_what_is_for_operators() {
    let broker = Broker::start(&[]);
    let mut everything = open_v1(broker.address).await;
    everything.subscribe(&["$sys/#"]).await;
    let mut client = open_v1(broker.address).await;
    for topic in FOR_OPERATORS {
        for command in [
            json!({"type": "subscribe", "id": 1, "topics": [topic]}),
            json!({"type": "subscribe", "id": 1, "topic": topic, "last": 1}),
            json!({"type": "history", "id": 1, "topic": topic}),
        ] {
            let answer = client.command(command).await;
            assert_eq!(answer["code"], "forbidden", "{answer}");
        }
        let refused = try_open(broker.address, &format!("/sub/{topic}"), &[]).await.err();
        let Some(Error::Http(answer)) = refused else { panic!("{topic} is open to all") };
        assert_eq!(answer.status(), 403);
    }
    let mut operator = open_v1(broker.admin).await;
    operator.subscribe(&FOR_OPERATORS).await;
    for topic in FOR_OPERATORS {
        value(&mut operator, topic, |_| true).await;
    }
    for _ in 0..3 {
        assert_eq!(everything.json().await["topic"], "$sys/load");
    }
}

#[tokio::test]
async fn operators_see_load_topics_and_ends() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut operator = open_v1(broker.admin).await;
    operator.subscribe(&["$sys/topics", "$sys/closed", "$sys/load"]).await;
    let mut subscriber = open_v1(broker.address).await;
    subscriber.subscribe(&["busy/+"]).await;
    let publishing = async {
        loop {
            post(broker.address, "busy/1", b"0123456789").await;
            sleep(Duration::from_millis(10)).await;
        }
    };
    let is_busy = |row: &Value| row["topic"] == "busy/1" && row["messages_per_second"].as_f64() > Some(5.0);
    let is_listed = |listing: &Value| listing["topics"].as_array().is_some_and(|rows| rows.iter().any(is_busy));
    let seen = async {
        let listing = value(&mut operator, "$sys/topics", is_listed).await;
        (listing, value(&mut operator, "$sys/load", |load| load["messages_out"].as_u64() > Some(5)).await)
    };
    let (listing, load) = tokio::select! {
        () = publishing => unreachable!("it goes on"),
        seen = seen => seen,
    };
    let row = listing["topics"].as_array().and_then(|rows| rows.iter().find(|row| is_busy(row))).expect("a row");
    assert!(row["bytes_per_second"].as_u64() > Some(50) && row["offset"].as_u64() > Some(5), "{row}");
    assert_eq!((&row["subscribers"], &row["history"]), (&json!(1), &json!("window")), "{row}");
    assert_eq!(load["shards"].as_array().map(Vec::len), Some(2), "{load}");
    assert!(load["delivery_us"]["p50"].is_u64() && load["messages_per_send"].as_f64() >= Some(1.0), "{load}");
    assert!(load["memory"]["held"].as_u64() > Some(0) && load["totals"]["messages_in"].as_u64() > Some(5), "{load}");
    let before = value(&mut operator, "$sys/closed", |_| true).await;
    subscriber.close().await;
    let count = |ends: &Value| ends["closed"]["by_client"].as_u64();
    value(&mut operator, "$sys/closed", |ends| count(ends) > count(&before)).await;
}

#[tokio::test]
async fn the_operators_websocket_reads_and_is_for_the_brokers_own_page() {
    let broker = Broker::start(&["--allow-origin", "https://app.example"]);
    let mut operator = open_v1(broker.admin).await;
    let publish = json!({"type": "publish", "id": 1, "topic": "a", "data": 1, "ack": true});
    assert_eq!(operator.command(publish).await["code"], "forbidden");
    let subscribe = json!({"type": "subscribe", "id": 1, "topics": ["a"]});
    assert_eq!(operator.command(subscribe).await["code"], "forbidden");
    let own = format!("http://{}", broker.admin);
    try_open(broker.admin, "/ws", &[V1, ("origin", own.as_str())]).await.expect("the dashboard's page");
    for origin in ["https://app.example", "https://evil.example"] {
        let refused = try_open(broker.admin, "/ws", &[V1, ("origin", origin)]).await.err();
        let Some(Error::Http(answer)) = refused else { panic!("{origin} is let in") };
        assert_eq!(answer.status(), 403, "{origin}");
    }
    let page = request(broker.admin, "GET /dashboard HTTP/1.1", b"").await;
    assert_eq!((page.status, page.head.contains("default-src 'none'")), (200, true));
    assert_eq!(request(broker.address, "GET /dashboard HTTP/1.1", b"").await.status, 404);
    let published = request(broker.admin, "POST /pub/a HTTP/1.1", b"x").await;
    assert_eq!(published.status, 200, "{published:?}");
    let foreign = "POST /pub/a HTTP/1.1\r\nOrigin: https://evil.example";
    assert_eq!(request(broker.admin, foreign, b"x").await.status, 403);
}

#[tokio::test]
async fn payloads_need_a_key_where_there_is_access_control() {
    let guarded = Guarded::start("", &key_table("api = ['inspect']\npublish = ['#']"));
    let admin = guarded.broker.admin;
    let with_key = |head: &str| format!("{head} HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    assert_eq!(request(guarded.address(), &with_key("POST /pub/a"), b"hello").await.status, 200);
    for head in ["GET /api/topics/a/messages", "GET /api/connections/0-0-0/trace"] {
        assert_eq!(request(admin, &format!("{head} HTTP/1.1"), b"").await.status, 401, "{head}");
    }
    let shown = request(admin, &with_key("GET /api/topics/a/messages?last=5"), b"").await.json();
    assert_eq!((&shown["messages"][0]["data"], &shown["more"]), (&json!("hello"), &json!(false)), "{shown}");
    // On this machine, reading counters needs no key.
    let mut operator = open_v1(admin).await;
    operator.subscribe(&FOR_OPERATORS).await;
    // With a key, on the public port, what its scopes say.
    let mut client = open_v1(guarded.address()).await;
    assert_eq!(client.command(json!({"type": "connect", "id": 1, "token": KEY})).await["type"], "ok");
    let subscribe = json!({"type": "subscribe", "id": 2, "topics": ["$sys/closed"]});
    assert_eq!(client.command(subscribe).await["code"], "forbidden");
}

#[tokio::test]
async fn a_trace_has_commands_answers_and_the_end() {
    let broker = Broker::start(&["--shards", "1"]);
    let mut client = open_v1(broker.address).await;
    let mut found = None;
    for (slot, generation) in (0..64).flat_map(|slot| [(slot, 0), (slot, 1)]) {
        let mut stream = TcpStream::connect(broker.admin).await.expect("the operators' port");
        let path = format!("/api/connections/0-{slot}-{generation}/trace");
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut status = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut status)).await.expect("in time").expect("an answer");
        if status == *b"HTTP/1.1 200" {
            found = Some(stream);
            break;
        }
    }
    let mut trace = found.expect("the connection is one of the first");
    assert_eq!(client.command(json!({"type": "ping", "id": 7})).await["type"], "pong");
    client.send(json!({"type": "connect", "id": 8, "session": true}).to_string()).await;
    assert_eq!(client.json().await["type"], "ok");
    client.close().await;
    let mut text = String::new();
    timeout(PATIENCE, trace.read_to_string(&mut text)).await.expect("in time").expect("to its end");
    for part in ["\"begun\"", "\"received\"", "\\\"id\\\":7", "\"answered\"", "\"sent\"", "\"reason\":\"by_client\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("session"), "secrets are left out: {text}");
}
