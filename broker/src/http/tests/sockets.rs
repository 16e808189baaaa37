//! Connections as shards hand them over, served on real sockets.

use std::sync::Arc;
use std::time::Duration;

use ring::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::access::address::AddressLease;
use crate::capacity::budget::Held;
use crate::capacity::buffer::Buffer;
use crate::capacity::connections::Capacity;
use crate::capacity::memory::MemoryPlan;
use crate::config::limits::Limits;
use crate::http::Operators;
use crate::http::app::App;
use crate::http::serve::Server;
use crate::http::tests::{EPOCH, FakeShards, app};
use crate::shard::handover::{Handover, Purpose, Upgrade};
use crate::shard::shared::SharedState;

const HANDSHAKE: &str = "Host: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A client whose first bytes a shard has read, the others not.
async fn hand_over(shared: &SharedState, read: &str) -> TcpStream {
    hand_over_as(shared, read, AddressLease::default()).await
}

async fn hand_over_as(shared: &SharedState, read: &str, lease: AddressLease) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let socket = socket.into_std().unwrap().into();
    let mut early = Buffer::new(shared.budget.of_plane(), Held::Http);
    early.extend(read.as_bytes());
    shared.handovers.push(Handover { socket, read: early, lease, is_bridged: false }).unwrap();
    client
}

/// Runs `test` where the server runs: on one thread, with local tasks.
async fn with_server<T>(limits: Limits, test: impl AsyncFnOnce(App, Arc<SharedState>, Server) -> T) -> T {
    let (app, shared) = app(limits);
    let local = tokio::task::LocalSet::new();
    local.run_until(async { test(app.clone(), shared, Server::start(&app)).await }).await
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
    with_server(Limits::default(), async |_, shared, _server| {
        let shards = FakeShards::start(&shared);
        let requests: String = (0..50)
            .map(|n| format!("POST /pub/t{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{n:02}", n % 3))
            .collect();
        // The cut goes through the middle of a request.
        let (read, rest) = requests.split_at(333);
        let mut client = hand_over(&shared, read).await;
        client.write_all(rest.as_bytes()).await.unwrap();
        let answers = read_until(&mut client, "\"offset\":50,\"subscribers\":2}").await;
        assert_eq!(answers.matches("200 OK").count(), 50);
        let (messages, _) = shards.finish();
        let payloads: Vec<String> =
            messages.iter().map(|message| String::from_utf8(message.payload().bytes().to_vec()).unwrap()).collect();
        let expected: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
        assert_eq!(payloads, expected);
    })
    .await;
}

#[tokio::test]
async fn a_handshake_on_a_kept_connection_goes_to_a_shard_unanswered() {
    with_server(Limits::default(), async |_, shared, server| {
        let shards = FakeShards::start(&shared);
        let mut client = hand_over(&shared, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        read_until(&mut client, "}").await;
        // The first frame comes together with the head.
        let request = format!("GET /bus/a%2Fb HTTP/1.1\r\n{HANDSHAKE}\r\nFIRST");
        client.write_all(request.as_bytes()).await.unwrap();
        server.idle().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (_, adopted) = shards.finish();
        let [adopt] = &adopted[..] else { panic!("{adopted:?}") };
        let accept = *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let expected = Upgrade {
            purpose: Purpose::Bus("a/b".to_owned()),
            accept,
            subprotocol: None,
            has_key: false,
            entry: crate::shard::handover::Entry::Anyone,
            start: protocol::head::RawStart::default(),
        };
        assert_eq!(*adopt.upgrade, expected);
        assert_eq!(adopt.read.as_ref(), b"FIRST");
        assert!(shared.budget.held(Held::Http) >= 5, "what follows a head is charged");
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
    with_server(Limits::default(), async |_, shared, _server| {
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
            let mut client = hand_over(&shared, &format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).await;
            client.shutdown().await.unwrap();
            let answer = read_all(&mut client).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
        }
        let counted: Vec<_> = shared.plane.snapshot().refused_by().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("origin", 1), ("request", 5)]);
        assert_eq!(shared.admission.open(), 0);
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
    with_server(limits, async |_, shared, server| {
        let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(600));
        let mut client = hand_over(&shared, &long).await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 431 "));
        let mut client =
            hand_over(&shared, "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nx").await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 408 "));
        let mut client = hand_over(&shared, "GET / HT").await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 408 "));
        let mut client = hand_over(&shared, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200 "), "an idle connection ends in time");
        let mut client =
            hand_over(&shared, "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n").await;
        client.write_all(&[b'x'; 5000]).await.unwrap();
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 413 "));
        let expect = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n";
        let mut client = hand_over(&shared, expect).await;
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 413 "));
        server.idle().await;
    })
    .await;
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_answers_what_waits() {
    with_server(Limits::default(), async |app, shared, server| {
        let mut idle = hand_over(&shared, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        read_until(&mut idle, "}").await;
        let mut busy =
            hand_over(&shared, "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nx").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        app.close();
        assert_eq!(read_all(&mut idle).await, "");
        app.stop();
        busy.write_all(b"y").await.unwrap();
        assert!(read_all(&mut busy).await.starts_with("HTTP/1.1 503 "));
        let mut late = hand_over(&shared, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(read_all(&mut late).await.contains("stopping"));
        server.idle().await;
    })
    .await;
}

/// A server with so many places for HTTP connections.
async fn with_places<T>(http_connections_max: u32, test: impl AsyncFnOnce(Arc<SharedState>) -> T) -> T {
    let limits = Limits { origins: vec!["https://app.example".to_owned()], ..Limits::default() };
    let room = Capacity::new(Io::Uring, None, 2, 20_000, MemoryPlan::new(None, 0, 2, None)).expect("there is room");
    let shared = Arc::new(SharedState::new(2, 1, EPOCH));
    let room = Capacity { http_connections_max, ..room };
    let app = App::new(Arc::clone(&shared), Arc::new(limits), room, Operators::default());
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let _server = Server::start(&app);
            test(shared).await
        })
        .await
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BODY: &str =
    "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\nContent-Length: 5\r\n\r\nx";

/// Sixteen places, of which one answers and one lets newcomers wait when the others are taken.
#[tokio::test]
async fn probes_are_answered_when_all_places_are_taken() {
    with_places(16, async |shared| {
        let mut held = Vec::new();
        for _ in 0..14 {
            held.push(hand_over(&shared, BODY).await);
        }
        for _ in 0..20 {
            for target in ["/healthz", "/readyz"] {
                let probe = HEALTH.replace("/healthz", target);
                let answer = read_all(&mut hand_over(&shared, &probe).await).await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
            }
            let answer = read_all(&mut hand_over(&shared, BODY).await).await.to_ascii_lowercase();
            assert!(answer.starts_with("http/1.1 503 "), "{answer}");
            for field in ["retry-after: 1\r\n", "access-control-allow-origin: https://app.example\r\n"] {
                assert!(answer.contains(field), "{field}: {answer}");
            }
        }
    })
    .await;
}

/// Newcomers take the places of idle connections, and then of bodies that are long under way.
#[tokio::test]
async fn the_idle_and_the_slow_make_place() {
    with_places(16, async |shared| {
        let shards = FakeShards::start(&shared);
        let mut idle = Vec::new();
        for _ in 0..14 {
            let mut client = hand_over(&shared, HEALTH).await;
            read_until(&mut client, "}").await;
            idle.push(client);
        }
        let mut slow = Vec::new();
        for client in &mut idle {
            slow.push(hand_over(&shared, BODY).await);
            assert_eq!(read_all(client).await, "", "the longest idle one ends");
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let whole = BODY.replace("Content-Length: 5", "Content-Length: 1");
        let mut newcomer = hand_over(&shared, &whole).await;
        assert!(read_until(&mut newcomer, "}").await.starts_with("HTTP/1.1 200 "));
        assert!(read_all(&mut slow[0]).await.starts_with("HTTP/1.1 503 "), "the longest under way was given up");
        assert_eq!(shards.finish().0.len(), 1);
    })
    .await;
}

/// One client has a quarter of the places.
#[tokio::test]
async fn a_client_has_its_share() {
    with_places(16, async |shared| {
        let hand_over_for = async |ip: &str, read: &str| {
            let slot = shared.addresses.admit(ip.parse().unwrap(), std::num::NonZeroU32::new(100)).unwrap();
            hand_over_as(&shared, read, AddressLease::new(&shared.addresses, slot)).await
        };
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(hand_over_for("203.0.113.7", BODY).await);
        }
        let answer = read_all(&mut hand_over_for("203.0.113.7", BODY).await).await;
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: "), "{answer}");
        let probe = read_all(&mut hand_over_for("203.0.113.7", HEALTH).await).await;
        assert!(probe.starts_with("HTTP/1.1 200 "), "{probe}");
        let mut other = hand_over_for("203.0.113.8", HEALTH).await;
        assert!(read_until(&mut other, "}").await.starts_with("HTTP/1.1 200 "));
        drop(held);
        drop(other);
    })
    .await;
}

#[tokio::test]
async fn answers_say_how_long_the_connection_stays() {
    with_server(Limits::default(), async |_, shared, _server| {
        for (head, kept) in [
            ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n", true),
            ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n", true),
            ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", false),
            ("GET /healthz HTTP/1.0\r\nHost: localhost\r\n", false),
        ] {
            let mut client = hand_over(&shared, &format!("{head}\r\n")).await;
            let answer = read_until(&mut client, "}").await.to_ascii_lowercase();
            assert_eq!(answer.contains("keep-alive: timeout=70\r\n"), kept, "{answer}");
            assert_eq!(answer.contains("connection: keep-alive\r\n"), kept, "{answer}");
            if !kept {
                assert_eq!(read_all(&mut client).await, "");
            }
        }
    })
    .await;
}

/// An idle connection ends after its own time; a request that has begun by then is waited for.
#[tokio::test]
async fn a_request_that_arrives_is_not_cut_off() {
    let limits = Limits { http_idle_timeout: Duration::from_millis(300), ..Limits::default() };
    with_server(limits, async |_, shared, _server| {
        let mut client = hand_over(&shared, HEALTH).await;
        read_until(&mut client, "}").await;
        let (begin, rest) = HEALTH.split_at(10);
        client.write_all(begin.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
        client.write_all(rest.as_bytes()).await.unwrap();
        assert!(read_until(&mut client, "}").await.starts_with("HTTP/1.1 200 "));
        assert_eq!(read_all(&mut client).await, "");
    })
    .await;
}
