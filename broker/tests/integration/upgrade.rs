//! The upgrade, however its bytes arrive.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::broker::Broker;
use crate::http::{Http, PATIENCE, await_stat, post};
use crate::ws::Ws;

/// The fields of a request for a WebSocket.
pub(crate) const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The head of a request for a WebSocket.
pub(crate) fn head(server: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n{UPGRADE}\r\n")
}

/// Expects the 101, and goes on as a WebSocket.
async fn upgraded(mut http: Http) -> Ws {
    let answer = http.answer().await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert!(answer.head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{}", answer.head);
    let (stream, early) = http.into_parts();
    Ws { stream: WebSocketStream::from_partially_read(stream, early, Role::Client, None).await }
}

#[tokio::test]
async fn byte_by_byte() {
    let broker = Broker::start(&[]);
    let mut http = Http::open(broker.address).await;
    http.stream.set_nodelay(true).unwrap();
    for byte in head(broker.address, "/bus/slow").bytes() {
        http.send([byte]).await;
        tokio::task::yield_now().await;
    }
    let mut client = upgraded(http).await;
    client.send("hello").await;
    assert_eq!(client.text().await, "hello");
}

/// A client that does not wait for the answer: its first frames come with the head.
#[tokio::test]
async fn together_with_the_first_frames() {
    let broker = Broker::start(&[]);
    let frames = b"\x81\x83\0\0\0\0one\x81\x83\0\0\0\0two\x81\x85\0\0\0\0th";
    let mut http = Http::open(broker.address).await;
    http.send([head(broker.address, "/bus/eager").as_bytes(), frames].concat()).await;
    let mut client = upgraded(http).await;
    assert_eq!(client.text().await, "one");
    assert_eq!(client.text().await, "two");
    client.stream.get_mut().try_write(b"ree").unwrap();
    assert_eq!(client.text().await, "three");
}

/// A browser reuses the connection that fetched the page.
#[tokio::test]
async fn on_a_connection_that_was_used_for_requests() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    for path in ["/bus/reused", "/bus/reused/again"] {
        let mut http = Http::open(server).await;
        http.send(format!("GET /healthz HTTP/1.1\r\nHost: {server}\r\n\r\n")).await;
        assert_eq!(http.answer().await.status, 200);
        http.send(format!("POST /pub/x HTTP/1.1\r\nHost: {server}\r\nContent-Length: 1\r\n\r\nx")).await;
        assert_eq!(http.answer().await.status, 200);
        http.send(head(server, path)).await;
        let mut client = upgraded(http).await;
        client.send("over the same connection").await;
        assert_eq!(client.text().await, "over the same connection");
        post(server, &path[5..], b"from outside").await;
        assert_eq!(client.text().await, "from outside");
        client.close().await;
    }
    await_stat(&broker, "subscriptions", |subscriptions| subscriptions == 0).await;
}

/// The same with a request, the upgrade and the first frame in one segment.
#[tokio::test]
async fn behind_a_request_in_one_segment() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    let mut http = Http::open(server).await;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {server}\r\n\r\n");
    http.send([request.as_bytes(), head(server, "/bus/all").as_bytes(), b"\x81\x82\0\0\0\0hi"].concat()).await;
    assert_eq!(http.answer().await.status, 200);
    assert_eq!(upgraded(http).await.text().await, "hi");
}

/// Names in any case and order, lists of tokens, repeated fields (RFC 9110, section 5; RFC 6455, section 4.2.1).
#[tokio::test]
async fn any_way_to_write_it() {
    let broker = Broker::start(&[]);
    let mut http = Http::open(broker.address).await;
    http.send(
        "GET /bus/odd?query=1 HTTP/1.1\r\nsec-websocket-VERSION:13\r\nSEC-WEBSOCKET-KEY:   dGhlIHNhbXBsZSBub25jZQ==  \r\n\
         connection: keep-alive\r\nConnection: foo, UPGRADE\r\nUpgrade: h2c, WebSocket\r\nhOsT: localhost\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    )
    .await;
    let mut client = upgraded(http).await;
    client.send("odd but right").await;
    assert_eq!(client.text().await, "odd but right");
}

/// Frames before the upgrade was accepted are not frames when it is refused (RFC 9931).
#[tokio::test]
async fn a_refused_upgrade_ends_the_connection() {
    let broker = Broker::start(&[]);
    let mut http = Http::open(broker.address).await;
    let request = format!("POST /pub/smuggled HTTP/1.1\r\nHost: {}\r\nContent-Length: 1\r\n\r\nx", broker.address);
    http.send(head(broker.address, "/nowhere") + &request).await;
    assert_eq!(http.answer().await.status, 404);
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, http.stream.read_to_end(&mut rest)).await.expect("an end in time");
    assert!(rest.is_empty(), "no second answer: {}", rest.escape_ascii());
    assert_eq!(post(broker.address, "smuggled", b"first").await, 1);
}
