//! The HTTP API through its router, with threads that stand in for shards: they sequence what they are
//! ordered to publish. The last tests serve real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use ring::Io;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::Operators;
use super::room::Room;
use super::routes::{App, admin_router, router};
use super::serve::Server;
use crate::address::Guest;
use crate::limits::Limits;
use crate::shard::link::{Adopt, Handover, Links, Order, Published, Purpose};
use crate::topics::message::Message;

const EPOCH: u64 = 0xabc;

/// What was published, and which sockets came back.
type Done = (Vec<Arc<Message>>, Vec<Adopt>);

/// Two shards' orders, carried out by one thread.
struct FakeShards {
    links: Arc<Links>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Done>>,
}

impl FakeShards {
    fn start(links: &Arc<Links>) -> Self {
        let (links, stop) = (Arc::clone(links), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (links, stop) = (Arc::clone(&links), Arc::clone(&stop));
            move || {
                let (mut messages, mut adopted) = (Vec::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    for inbox in &links.inboxes {
                        while let Some(order) = inbox.next_order() {
                            match order {
                                Order::Publish { topic, payload, answer } => {
                                    let offset = messages.len() as u64 + 1;
                                    messages.push(Arc::new(Message::new(&topic, offset, payload, 0)));
                                    links.registry.release(topic);
                                    let _ = answer.send(Published { epoch: EPOCH, offset });
                                }
                                Order::Adopt(adopt) => adopted.push(adopt),
                                Order::Shutdown { .. } => {}
                            }
                        }
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                (messages, adopted)
            }
        });
        Self { links, stop, thread: Some(thread) }
    }

    /// What was published, and which sockets came back. Checks that no topic's name was kept.
    fn finish(mut self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.take().unwrap().join().unwrap();
        assert!(self.links.registry.is_empty(), "a request kept a topic's name");
        done
    }
}

fn app(limits: Limits) -> (App, Arc<Links>) {
    app_for(limits, Operators { on_public_port: true, fallback: None })
}

fn app_for(limits: Limits, operators: Operators) -> (App, Arc<Links>) {
    let links = Arc::new(Links::new(2, 1, EPOCH));
    let room = Room::new(Io::Uring, None, 2, 20_000, None).expect("there is room");
    (App::new(Arc::clone(&links), Arc::new(limits), room, operators), links)
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the answer is JSON")
    }

    fn sentence(&self) -> String {
        let json = self.json();
        let sentence = json["error"].as_str().expect("a refusal has its sentence");
        assert!(sentence.ends_with('.'), "{sentence}");
        sentence.to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn ask(router: &Router, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, "localhost:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: head.status, headers: head.headers, body }
}

async fn get(router: &Router, target: &str) -> Answer {
    ask(router, "GET", target, &[], Body::empty()).await
}

fn raw_frames(messages: &[Arc<Message>]) -> Vec<(String, Vec<u8>)> {
    messages.iter().map(|m| (m.topic.to_string(), m.raw().to_vec())).collect()
}

#[tokio::test]
async fn a_publish_is_sequenced_and_answered() {
    let (app, links) = app(Limits::default());
    let shards = FakeShards::start(&links);
    let router = router(app);
    let answer = ask(&router, "POST", "/pub/chat/r%C3%A4ume%2F1", &[], "hello").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = serde_json::json!({ "topic": "chat/räume/1", "epoch": "0000000000000abc", "offset": 1 });
    assert_eq!(answer.json(), expected);
    let json = [("content-type", "application/json")];
    assert_eq!(ask(&router, "POST", "/pub/a", &json, "[1]").await.json()["offset"], 2);
    assert_eq!(ask(&router, "POST", "/pub/a", &json, "[1").await.status, StatusCode::BAD_REQUEST);
    let binary = [("content-type", "application/octet-stream")];
    assert_eq!(ask(&router, "POST", "/pub/a", &binary, "x").await.json()["offset"], 3);
    let (messages, _) = shards.finish();
    let expected = [
        ("chat/räume/1".to_owned(), b"\x81\x05hello".to_vec()),
        ("a".to_owned(), b"\x81\x03[1]".to_vec()),
        ("a".to_owned(), b"\x82\x01x".to_vec()),
    ];
    assert_eq!(raw_frames(&messages), expected);
}

#[tokio::test]
async fn bad_topics_are_refused_with_a_sentence() {
    let router = router(app(Limits::default()).0);
    let long = format!("/pub/{}", "x".repeat(256));
    let bad =
        ["/pub", "/pub/", "/pub/a//b", "/pub/a/", "/pub/+", "/pub/%23", "/pub/%ff", "/pub/a%zz", "/pub/a%2", &long];
    for target in bad {
        let answer = ask(&router, "POST", target, &[], "x").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{target}");
        answer.sentence();
    }
    let reserved = ask(&router, "POST", "/pub/$sys/x", &[], "x").await;
    assert_eq!(reserved.status, StatusCode::FORBIDDEN);
    assert!(reserved.sentence().contains('$'));
}

#[tokio::test]
async fn bodies_up_to_the_limit() {
    let (app, links) = app(Limits { message_bytes_max: 1000, ..Limits::default() });
    let shards = FakeShards::start(&links);
    let router = router(app);
    for len in [0, 125, 126, 1000] {
        assert_eq!(ask(&router, "POST", "/pub/a", &[], vec![b'x'; len]).await.status, StatusCode::OK, "{len}");
    }
    let beyond = ask(&router, "POST", "/pub/a", &[], vec![b'x'; 1001]).await;
    assert_eq!(beyond.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(beyond.sentence().contains("1000 bytes"));
    let announced = ask(&router, "POST", "/pub/a", &[("content-length", "5000")], "x").await;
    assert_eq!(announced.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(shards.finish().0.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_waited_for_and_then_refused() {
    let (app, links) = app(Limits::default());
    let home = links.registry.resolve("a").home;
    let order =
        || Order::Adopt(Adopt { socket: null(), purpose: Purpose::Multi, read: Vec::new(), guest: Guest::default() });
    while links.order(home, order()).is_ok() {}
    let router = router(app);
    let started = tokio::time::Instant::now();
    let answer = ask(&router, "POST", "/pub/a", &[], "x").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.sentence().contains("overloaded"));
    assert_eq!(started.elapsed().as_secs(), 5);
    // Room while it waits: taken.
    let publish = ask(&router, "POST", "/pub/a", &[], "x");
    let make_room = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        while let Some(order) = links.inboxes[usize::from(home)].next_order() {
            drop(order);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        match links.inboxes[usize::from(home)].next_order() {
            Some(Order::Publish { answer, .. }) => answer.send(Published { epoch: EPOCH, offset: 9 }).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let (answer, ()) = tokio::join!(publish, make_room);
    assert_eq!(answer.json()["offset"], 9);
}

#[tokio::test]
async fn a_stopping_broker_says_so() {
    let (app, links) = app(Limits::default());
    let router = router(app.clone());
    // Ordered, then dropped unanswered by a shard that ended.
    let publish = ask(&router, "POST", "/pub/a", &[], "x");
    let shard = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if links.inboxes.iter().find_map(|inbox| inbox.next_order()).is_some() {
                break;
            }
        }
    };
    let (answer, ()) = tokio::join!(publish, shard);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::OK);
    app.drain();
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&router, "/healthz").await.status, StatusCode::OK);
    app.leave();
    let refused = ask(&router, "POST", "/pub/a", &[], "x").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    app.stop();
    assert_eq!(ask(&router, "POST", "/pub/a", &[], "x").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let health = get(&router, "/healthz").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (StatusCode::OK, Some("stopping")), "it is alive");
}

/// Every refusal has a cause, counted once; what is no refusal has none.
#[tokio::test]
async fn refusals_are_counted_by_their_cause() {
    let (app, links) = app(Limits { message_bytes_max: 10, topics_max: 0, ..Limits::default() });
    let router = router(app.clone());
    let foreign = [("origin", "https://evil.example")];
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let foreign_upgrade = [&upgrade[..], &foreign[..]].concat();
    type Sent<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'static str);
    let requests: [Sent<'_>; 11] = [
        ("GET", "/healthz", &[], ""),
        ("GET", "/", &foreign, ""),
        ("POST", "/pub/a", &foreign, "x"),
        ("OPTIONS", "/pub/a", &foreign, ""),
        ("GET", "/bus/a", &foreign_upgrade, ""),
        ("POST", "/pub/a", &[], "x"),
        ("GET", "/sub/a", &upgrade, ""),
        ("POST", "/pub/a", &[], "longer than ten bytes"),
        ("GET", "/nothing", &[], ""),
        ("DELETE", "/healthz", &[], ""),
        ("GET", "/bus/+", &upgrade, ""),
    ];
    for (method, target, headers, body) in requests {
        ask(&router, method, target, headers, body).await;
    }
    app.leave();
    ask(&router, "POST", "/pub/a", &[], "x").await;
    get(&router, "/readyz").await;
    let counted: Vec<_> = links.plane.snapshot().refused_by().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [("origin", 3), ("draining", 1), ("topics", 2), ("request", 4)]);
}

#[tokio::test]
async fn readiness_ends_before_the_broker_does() {
    let (app, _) = app(Limits::default());
    for router in [router(app.clone()), admin_router(app.clone())] {
        assert_eq!(get(&router, "/readyz").await.status, StatusCode::OK);
    }
    app.stop();
    for router in [router(app.clone()), admin_router(app)] {
        let answer = get(&router, "/readyz").await;
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
        answer.sentence();
    }
}

#[tokio::test]
async fn counters_are_where_operators_are_to_find_them() {
    let cause = ring::Cause::GVisor;
    for on_public_port in [true, false] {
        let operators = Operators { on_public_port, fallback: Some(cause.clone()) };
        let (app, _) = app_for(Limits::default(), operators);
        let (public, admin) = (router(app.clone()), admin_router(app));
        for target in ["/api/stats", "/metrics"] {
            let expected = if on_public_port { StatusCode::OK } else { StatusCode::NOT_FOUND };
            assert_eq!(get(&public, target).await.status, expected, "{target}");
            assert_eq!(get(&admin, target).await.status, StatusCode::OK, "{target}");
        }
        for router in [&public, &admin] {
            let health = get(router, "/healthz").await.json();
            assert_eq!(health["counters"], on_public_port);
            assert_eq!(health["fallback"], cause.to_string());
        }
        for target in ["/", "/pub/a", "/sub/a", "/ws", "/page.js"] {
            let answer = get(&admin, target).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{target} is the public's");
            assert!(answer.sentence().contains("/healthz"));
        }
        assert_eq!(ask(&admin, "POST", "/healthz", &[], "").await.status, StatusCode::METHOD_NOT_ALLOWED);
        let foreign = ask(&admin, "POST", "/api/stats", &[("origin", "https://evil.example")], "").await;
        assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_not_publish() {
    let (app, links) = app(Limits { origins: vec!["https://app.example".to_owned()], ..Limits::default() });
    let shards = FakeShards::start(&links);
    let router = router(app);
    for origin in ["https://evil.example", "null", "http://localhost:8081"] {
        let answer = ask(&router, "POST", "/pub/a", &[("origin", origin)], "x").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert!(answer.sentence().contains("--allow-origin"));
        let asked = ask(&router, "OPTIONS", "/pub/a", &[("origin", origin)], "").await;
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (StatusCode::FORBIDDEN, None));
    }
    let twice = [("origin", "http://localhost:8080"), ("origin", "https://evil.example")];
    assert_eq!(ask(&router, "POST", "/pub/a", &twice, "x").await.status, StatusCode::FORBIDDEN);
    for origin in ["http://localhost:8080", "https://app.example"] {
        let answer = ask(&router, "POST", "/pub/a", &[("origin", origin)], "x").await;
        assert_eq!(answer.status, StatusCode::OK, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("vary"), Some("Origin"));
        let asked = ask(&router, "OPTIONS", "/pub/a", &[("origin", origin)], "").await;
        assert_eq!(asked.status, StatusCode::NO_CONTENT);
        assert_eq!(asked.header("access-control-allow-methods"), Some("GET, POST"));
        assert_eq!(asked.header("access-control-allow-headers"), Some("Content-Type"));
    }
    assert_eq!(shards.finish().0.len(), 2);
}

#[tokio::test]
async fn every_other_path_and_method_has_its_answer() {
    let router = router(app(Limits::default()).0);
    for target in ["/pub/a", "/sub/a/b", "/bus/a", "/ws", "/pub/"] {
        let answer = get(&router, target).await;
        assert_eq!(answer.status, StatusCode::UPGRADE_REQUIRED, "{target}");
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        answer.sentence();
    }
    let nothing = get(&router, "/nothing?here").await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    assert!(nothing.sentence().contains("/nothing."));
    for (method, target, allow) in
        [("DELETE", "/pub/a", "GET,HEAD,POST"), ("POST", "/healthz", "GET,HEAD"), ("PUT", "/", "GET,HEAD")]
    {
        let answer = ask(&router, method, target, &[], "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {target}");
        let mut allowed: Vec<&str> = answer.header("allow").unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {target}");
        answer.sentence();
    }
    let health = get(&router, "/healthz").await;
    assert_eq!(health.json()["status"], "ok");
    assert_eq!(health.json()["shards"], 2);
    assert_eq!(health.header("cache-control"), Some("no-store"));
    let stats = get(&router, "/api/stats").await;
    assert_eq!(stats.json()["shards"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_page_and_its_assets() {
    let router = router(app(Limits::default()).0);
    for (target, media) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(&router, target).await;
        assert_eq!(answer.status, StatusCode::OK, "{target}");
        assert_eq!(answer.header("content-type"), Some(media));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
        let tag = answer.header("etag").unwrap().to_owned();
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = ask(&router, "GET", target, &[("if-none-match", &known)], "").await;
            assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
            assert_eq!(again.header("etag"), Some(&*tag));
        }
        let changed = ask(&router, "GET", target, &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(changed.status, StatusCode::OK);
    }
}

// ---- over sockets

const HANDSHAKE: &str = "Host: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn null() -> std::os::fd::OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

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
            .map(|message| String::from_utf8(message.raw()[2..].to_vec()).unwrap())
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
        read_all(&mut client).await;
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
