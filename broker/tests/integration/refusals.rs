//! Requests that are refused: with the right status, in a sentence, and the connection ends.

use serde_json::json;
use tokio_tungstenite::tungstenite::Error;

use crate::broker::Broker;
use crate::http::Http;
use crate::ws::try_open;

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Every one of these ends with that status and a closed connection.
#[tokio::test]
async fn handshakes_that_break_a_rule() {
    let broker = Broker::start(&["--max-head", "2048", "--max-headers", "20", "--max-topic", "50"]);
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases = [
        (400, "no host", format!("GET /sub/a HTTP/1.1\r\n{UPGRADE}{version}\r\n")),
        (400, "two hosts", format!("GET /sub/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n{UPGRADE}{version}\r\n")),
        (400, "bare line feeds", format!("GET /sub/a HTTP/1.1\nHost: a\n{UPGRADE}{version}\r\n")),
        (400, "no request at all", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
        (400, "a key of 15 bytes", {
            let upgrade = UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j");
            format!("GET /sub/a HTTP/1.1\r\nHost: a\r\n{upgrade}{version}\r\n")
        }),
        (400, "a body", format!("GET /sub/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n{UPGRADE}{version}\r\nabc")),
        (400, "/ws without sub-protocol", format!("GET /ws HTTP/1.1\r\nHost: a\r\n{UPGRADE}{version}\r\n")),
        (400, "an empty topic", format!("GET /sub/ HTTP/1.1\r\nHost: a\r\n{UPGRADE}{version}\r\n")),
        (400, "a wildcard to publish to", format!("GET /pub/a/+ HTTP/1.1\r\nHost: a\r\n{UPGRADE}{version}\r\n")),
        (400, "a long topic", format!("GET /sub/{} HTTP/1.1\r\nHost: a\r\n{UPGRADE}{version}\r\n", "t".repeat(51))),
        (403, "a topic of the broker", format!("GET /pub/$sys/a HTTP/1.1\r\nHost: a\r\n{UPGRADE}{version}\r\n")),
        (404, "no such endpoint", format!("GET /nowhere HTTP/1.1\r\nHost: a\r\n{UPGRADE}{version}\r\n")),
        (405, "another method", format!("POST /sub/a HTTP/1.1\r\nHost: a\r\n{UPGRADE}{version}\r\n")),
        (426, "no version", format!("GET /sub/a HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n")),
        (426, "an old version", format!("GET /sub/a HTTP/1.1\r\nHost: a\r\n{UPGRADE}Sec-WebSocket-Version: 8\r\n\r\n")),
        (
            431,
            "a long head",
            format!("GET /sub/a HTTP/1.1\r\nHost: a\r\nX: {}\r\n{UPGRADE}{version}\r\n", "x".repeat(2048)),
        ),
        (431, "a head without end", format!("GET /sub/a HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(2048))),
        (
            431,
            "many fields",
            format!("GET /sub/a HTTP/1.1\r\nHost: a\r\n{}{UPGRADE}{version}\r\n", "X: x\r\n".repeat(20)),
        ),
    ];
    for (status, what, head) in cases {
        let mut http = Http::open(broker.address).await;
        http.send(&head).await;
        let answer = http.answer().await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(!answer.body.is_empty(), "{what}: a sentence says why");
        assert!(status != 426 || answer.head.contains("sec-websocket-version: 13"), "{}", answer.head);
        assert!(http.ended().await, "{what}: the connection ends");
    }
}

/// A request for a WebSocket without an upgrade is answered that one is needed.
#[tokio::test]
async fn a_plain_get_of_a_websocket() {
    let broker = Broker::start(&[]);
    for path in ["/pub/a", "/bus/a", "/ws"] {
        let answer = crate::http::request(broker.address, &format!("GET {path} HTTP/1.1"), b"").await;
        assert_eq!(answer.status, 426, "{path}: {answer:?}");
    }
}

/// What is there stays usable; a new topic is refused by every door.
#[tokio::test]
async fn more_topics_than_allowed() {
    let broker = Broker::start(&["--max-topics", "2"]);
    let server = broker.address;
    let _first = try_open(server, "/bus/a", &[]).await.expect("the first topic");
    let _second = try_open(server, "/sub/b", &[]).await.expect("the second topic");
    let _again = try_open(server, "/sub/a", &[]).await.expect("a topic that is there");
    for path in ["/sub/c", "/pub/c", "/bus/c"] {
        match try_open(server, path, &[]).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 503, "{path}"),
            Err(other) => panic!("{path}: {other}"),
            Ok(_) => panic!("{path} was granted"),
        }
    }
    assert_eq!(crate::http::request(server, "POST /pub/c HTTP/1.1", b"x").await.status, 503);
    assert_eq!(crate::http::request(server, "POST /pub/a HTTP/1.1", b"x").await.status, 200);
    let mut client = crate::ws::open_v1(server).await;
    for command in [
        json!({"type": "subscribe", "id": 1, "topics": ["a", "c"]}),
        json!({"type": "publish", "id": 1, "topic": "c", "data": 1}),
    ] {
        assert_eq!(client.command(command).await["code"], "limit");
    }
    client.subscribe(&["a"]).await;
}

async fn status(server: std::net::SocketAddr, origin: &str) -> u16 {
    match try_open(server, "/bus/a", &[("origin", origin)]).await {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{origin}: {other}"),
    }
}

/// A page of another site may not use its visitor's connection (RFC 6455, section 10.2).
#[tokio::test]
async fn foreign_origins() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    assert_eq!(status(server, &format!("http://{server}")).await, 101);
    for origin in ["http://evil.example", "null", "http://127.0.0.1", &format!("http://{server}.evil.example")] {
        assert_eq!(status(server, origin).await, 403, "{origin}");
    }
    let broker = Broker::start(&["--allow-origin", "https://app.example"]);
    assert_eq!(status(broker.address, "https://app.example").await, 101);
    assert_eq!(status(broker.address, "https://other.example").await, 403);
    let broker = Broker::start(&["--allow-origin", "*"]);
    assert_eq!(status(broker.address, "https://other.example").await, 101);
}
