//! Connections as shards hand them over, served on real sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{FakeShards, app};
use crate::address::Guest;
use crate::control::routes::App;
use crate::control::serve::Server;
use crate::limits::Limits;
use crate::shard::link::{Handover, Links, Purpose};
use crate::topics::message::Encoding;

const HANDSHAKE: &str = "Host: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A client whose first bytes a shard has read, the others not.
async fn hand_over(links: &Links, read: &str) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let socket = socket.into_std().unwrap().into();
    links.handovers.push(Handover { socket, read: read.as_bytes().to_vec(), guest: Guest::default() }).unwrap();
    client
}

/// Runs `test` where the server runs: on one thread, with local tasks.
async fn with_server<T>(limits: Limits, test: impl AsyncFnOnce(App, Arc<Links>, Server) -> T) -> T {
    let (app, links) = app(limits);
    let local = tokio::task::LocalSet::new();
    local.run_until(async { test(app.clone(), links, Server::start(&app)).await }).await
}

async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let mut some = [0; 1024];
        let n = client.read(&mut some).await.unwrap();
        assert!(n > 0, "the end came before {end:?}: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&some[..n]);
    }
    String::from_utf8(all).unwrap()
}

async fn read_all(client: &mut TcpStream) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn pipelined_publishes_keep_their_order() {
    with_server(Limits::default(), async |_, links, _server| {
        let shards = FakeShards::start(&links);
        let requests: String = (0..50)
            .map(|n| format!("POST /pub/t{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{n:02}", n % 3))
            .collect();
        // The cut goes through the middle of a request.
        let (read, rest) = requests.split_at(333);
        let mut client = hand_over(&links, read).await;
        client.write_all(rest.as_bytes()).await.unwrap();
        let answers = read_until(&mut client, "\"offset\":50}").await;
        assert_eq!(answers.matches("200 OK").count(), 50);
        let (messages, _) = shards.finish();
        let payloads: Vec<String> = messages
            .iter()
            .map(|message| String::from_utf8(message.frame(Encoding::Raw)[2..].to_vec()).unwrap())
            .collect();
        let expected: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
        assert_eq!(payloads, expected);
    })
    .await;
}

#[tokio::test]
async fn a_handshake_on_a_kept_connection_goes_to_a_shard() {
    with_server(Limits::default(), async |_, links, server| {
        let shards = FakeShards::start(&links);
        let mut client = hand_over(&links, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        read_until(&mut client, "}").await;
        // The first frame comes together with the head.
        let request = format!("GET /bus/a%2Fb HTTP/1.1\r\n{HANDSHAKE}\r\nFIRST");
        client.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut client, "\r\n\r\n").await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        server.idle().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (_, adopted) = shards.finish();
        let [adopt] = &adopted[..] else { panic!("{adopted:?}") };
        assert_eq!(adopt.purpose, Purpose::Bus("a/b".to_owned()));
        assert_eq!(adopt.read, b"FIRST");
        let socket = std::net::TcpStream::from(adopt.socket.try_clone().unwrap());
        std::io::Write::write_all(&mut &socket, b"frames").unwrap();
        drop(socket);
        drop(adopted);
        assert_eq!(read_all(&mut client).await, "frames");
    })
    .await;
}

#[tokio::test]
async fn handshakes_are_refused_as_shards_refuse_them() {
    with_server(Limits::default(), async |_, links, _server| {
        let version = HANDSHAKE.replace("Version: 13", "Version: 8");
        let foreign = format!("{HANDSHAKE}Origin: https://evil.example\r\n");
        for (target, fields, status) in [
            ("/bus/a", &*version, "426"),
            ("/bus/+", HANDSHAKE, "400"),
            ("/pub/$sys", HANDSHAKE, "403"),
            ("/", HANDSHAKE, "404"),
            ("/ws", HANDSHAKE, "400"),
            ("/bus/a", &*foreign, "403"),
        ] {
            let mut client = hand_over(&links, &format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).await;
            client.shutdown().await.unwrap();
            let answer = read_all(&mut client).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn long_and_late_heads_and_bodies_are_answered() {
    let limits = Limits {
        head_bytes_max: 600,
        handshake_timeout: Duration::from_millis(100),
        message_timeout: Duration::from_millis(100),
        http_idle_timeout: Duration::from_millis(100),
        message_bytes_max: 100,
        ..Limits::default()
    };
    with_server(limits, async |_, links, server| {
        let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(600));
        let mut client = hand_over(&links, &long).await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 431 "));
        let mut client =
            hand_over(&links, "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nx").await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 408 "));
        let mut client = hand_over(&links, "GET / HT").await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 408 "));
        let mut client = hand_over(&links, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200 "), "an idle connection ends in time");
        let mut client =
            hand_over(&links, "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n").await;
        client.write_all(&[b'x'; 5000]).await.unwrap();
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 413 "));
        let expect = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n";
        let mut client = hand_over(&links, expect).await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 413 "));
        server.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_answers_what_waits() {
    with_server(Limits::default(), async |app, links, server| {
        let mut idle = hand_over(&links, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        read_until(&mut idle, "}").await;
        let mut busy = hand_over(&links, "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nx").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        app.stop();
        assert_eq!(read_all(&mut idle).await, "");
        busy.write_all(b"y").await.unwrap();
        assert!(read_all(&mut busy).await.starts_with("HTTP/1.1 503 "));
        let mut late = hand_over(&links, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(read_all(&mut late).await.contains("stopping"));
        server.idle().await;
    })
    .await;
}
