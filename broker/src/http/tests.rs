//! The HTTP API through its router, with threads that stand in for shards: they sequence what they are
//! ordered to publish. Real sockets are served in `tests/sockets.rs`, slow and large bodies sent in
//! `tests/bodies.rs`, pages of other origins served in `tests/origins.rs`, batches and lines in `tests/many.rs`;
//! `tests/page.rs` has the page and the JavaScript client.

mod bodies;
mod many;
mod openapi;
mod options;
mod origins;
mod page;
mod sockets;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use ring::Io;
use serde_json::Value;

use crate::access::address::AddressLease;
use crate::access::lock;
use crate::capacity::budget::{Budget, Held};
use crate::capacity::buffer::Buffer;
use crate::capacity::connections::Capacity;
use crate::capacity::memory::MemoryPlan;
use crate::config::limits::Limits;
use crate::http::Operators;
use crate::http::app::App;
use crate::http::connection::Connection;
use crate::http::routes::{admin_router, router};
use crate::ids::{Epoch, Offset};
use crate::message::options::PublishOptions;
use crate::message::{Encoding, Message};
use crate::shard::handover::{Adopt, Purpose, Upgrade};
use crate::shard::shared::{ControlMessage, Published, SharedState, TopicState};
use crate::topics::registry::Congestion;

const EPOCH: Epoch = Epoch(0xabc);

/// What was published, and which sockets came back.
type Done = (Vec<Arc<Message>>, Vec<Adopt>);

/// Sequenced at this offset, with nobody there.
fn published(offset: u64) -> Published {
    Published { epoch: EPOCH, offset: Offset(offset), subscribers: 0, duplicate: false }
}

/// The control messages of two shards, carried out by one thread.
struct FakeShards {
    shared: Arc<SharedState>,
    stop: Arc<AtomicBool>,
    /// The options of every publish.
    options: Arc<Mutex<Vec<Option<Box<PublishOptions>>>>>,
    thread: Option<JoinHandle<Done>>,
}

impl FakeShards {
    fn start(shared: &Arc<SharedState>) -> Self {
        let (shared, stop) = (Arc::clone(shared), Arc::new(AtomicBool::new(false)));
        let all_options: Arc<Mutex<Vec<_>>> = Arc::default();
        let thread = thread::spawn({
            let (shared, stop, all_options) = (Arc::clone(&shared), Arc::clone(&stop), Arc::clone(&all_options));
            move || {
                let (mut messages, mut adopted) = (Vec::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    for inbox in &shared.inboxes {
                        while let Some(order) = inbox.next_control() {
                            match order {
                                ControlMessage::Publish { topic, payload, options, answer } => {
                                    let offset = Offset(messages.len() as u64 + 1);
                                    let mut message = Message::new(topic.key(), offset, payload, 0);
                                    lock(&all_options).push(options.clone());
                                    if let Some(mut options) = options {
                                        message = message.with_options(&mut options, shared.budget.of_plane());
                                    }
                                    messages.push(Arc::new(message));
                                    let _ = answer.send(Ok(Published {
                                        epoch: EPOCH,
                                        offset,
                                        subscribers: 2,
                                        duplicate: false,
                                    }));
                                }
                                ControlMessage::Adopt(adopt) => adopted.push(adopt),
                                ControlMessage::Inspect { topics, answer } => {
                                    let _ = answer.send(vec![TopicState::default(); topics.len()]);
                                }
                                // Its answer's way ends: as if the broker went.
                                ControlMessage::Ask(_)
                                | ControlMessage::Poll(_)
                                | ControlMessage::Slowest { .. }
                                | ControlMessage::Present { .. }
                                | ControlMessage::Busiest { .. }
                                | ControlMessage::OfClient { .. }
                                | ControlMessage::Trace { .. }
                                | ControlMessage::Newest { .. }
                                | ControlMessage::Purge { .. }
                                | ControlMessage::Peers { .. }
                                | ControlMessage::CloseUser { .. }
                                | ControlMessage::SignedIn { .. }
                                | ControlMessage::RightsChanged
                                | ControlMessage::AcceptAnew
                                | ControlMessage::Shutdown { .. } => {}
                            }
                        }
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                (messages, adopted)
            }
        });
        Self { shared, stop, options: all_options, thread: Some(thread) }
    }

    /// What was published, and which sockets came back. Checks that no topic's name was kept.
    fn finish(mut self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.take().unwrap().join().unwrap();
        assert!(self.shared.registry.is_empty(), "a request kept a topic's name");
        done
    }
}

fn app(limits: Limits) -> (App, Arc<SharedState>) {
    app_for(limits, Operators { on_public_port: true, fallback: None })
}

fn app_for(limits: Limits, operators: Operators) -> (App, Arc<SharedState>) {
    app_on(SharedState::new(2, 1, EPOCH), limits, operators)
}

fn app_on(shared: SharedState, limits: Limits, operators: Operators) -> (App, Arc<SharedState>) {
    let shared = Arc::new(shared);
    let room = Capacity::new(Io::Uring, None, 2, 20_000, MemoryPlan::new(None, 0, 2, None)).expect("there is room");
    (App::new(Arc::clone(&shared), Arc::new(limits), room, operators), shared)
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
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!((&json["type"], &json["status"]), (&"about:blank".into(), &self.status.as_u16().into()), "{json}");
        assert!(json["code"].is_string() && json["title"].is_string(), "{json}");
        let sentence = json["detail"].as_str().expect("a refusal has its sentence");
        assert!(sentence.ends_with('.'), "{sentence}");
        sentence.to_owned()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().expect("an error has its code").to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn ask(router: &Router, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let connection = Arc::new(Connection::new(AddressLease::default(), || None, &Limits::default()));
    let request = Request::builder().extension(connection).header(header::HOST, "localhost:8080");
    let mut request = request.method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = TowerToHyperService::new(router.clone()).call(request.body(body.into()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: head.status, headers: head.headers, body }
}

fn null() -> std::os::fd::OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

async fn get(router: &Router, target: &str) -> Answer {
    ask(router, "GET", target, &[], Body::empty()).await
}

fn raw_frames(messages: &[Arc<Message>]) -> Vec<(String, Vec<u8>)> {
    let budget = Budget::new(1, 0);
    let raw = |m: &Message| m.frame(Encoding::Raw, budget.of_plane(), true).to_vec();
    messages.iter().map(|m| (m.topic.to_string(), raw(m))).collect()
}

#[tokio::test]
async fn a_publish_is_sequenced_and_answered() {
    let (app, shared) = app(Limits::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let answer = ask(&router, "POST", "/pub/chat/r%C3%A4ume%2F1", &[], "hello").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected =
        serde_json::json!({ "topic": "chat/räume/1", "epoch": "0000000000000abc", "offset": 1, "subscribers": 2 });
    assert_eq!(answer.json(), expected);
    let json = [("content-type", "application/json")];
    assert_eq!(ask(&router, "POST", "/pub/a", &json, "[1]").await.json()["offset"], 2);
    let bad = ask(&router, "POST", "/pub/a", &json, "[1").await;
    assert_eq!((bad.status, bad.code()), (StatusCode::BAD_REQUEST, "bad-json".to_owned()));
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
    let bad = ["/pub/", "/pub/../a", "/pub/a/.", "/pub/+", "/pub/%23", "/pub/%ff", "/pub/a%zz", "/pub/a%2", &long];
    for target in bad {
        let answer = ask(&router, "POST", target, &[], "x").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "bad-topic".to_owned()), "{target}");
        answer.sentence();
    }
    let reserved = ask(&router, "POST", "/pub/$sys/x", &[], "x").await;
    assert_eq!((reserved.status, reserved.code()), (StatusCode::FORBIDDEN, "forbidden".to_owned()));
    assert!(reserved.sentence().contains('$'));
}

#[tokio::test]
async fn bodies_up_to_the_limit() {
    let (app, shared) = app(Limits { message_bytes_max: 1000, ..Limits::default() });
    let shards = FakeShards::start(&shared);
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
    let (app, shared) = app(Limits::default());
    let sequencer = shared.registry.resolve("a").sequencer;
    let order = || {
        ControlMessage::Adopt(Adopt {
            socket: null(),
            upgrade: Upgrade {
                purpose: Purpose::V1Session,
                accept: [b'='; 28],
                subprotocol: None,
                has_key: false,
                entry: crate::shard::handover::Entry::Anyone,
                start: protocol::head::RawStart::default(),
            }
            .into(),
            read: Buffer::new(shared.budget.of_plane(), Held::Http),
            lease: AddressLease::default(),
        })
    };
    while shared.send_control(sequencer, order()).is_ok() {}
    let router = router(app);
    let started = tokio::time::Instant::now();
    let answer = ask(&router, "POST", "/pub/a", &[], "x").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.sentence().contains("overloaded"));
    assert_eq!(started.elapsed().as_secs(), 5);
    // Capacity while it waits: taken.
    let publish = ask(&router, "POST", "/pub/a", &[], "x");
    let make_room = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        while let Some(order) = shared.inboxes[usize::from(sequencer)].next_control() {
            drop(order);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        match shared.inboxes[usize::from(sequencer)].next_control() {
            Some(ControlMessage::Publish { answer, .. }) => answer.send(Ok(published(9))).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let (answer, ()) = tokio::join!(publish, make_room);
    assert_eq!(answer.json()["offset"], 9);
}

#[tokio::test]
async fn a_stopping_broker_says_so() {
    let (app, shared) = app(Limits::default());
    let router = router(app.clone());
    // Ordered, then dropped unanswered by a shard that ended.
    let publish = ask(&router, "POST", "/pub/a", &[], "x");
    let shard = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if shared.inboxes.iter().find_map(|inbox| inbox.next_control()).is_some() {
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
    app.stop();
    let refused = ask(&router, "POST", "/pub/a", &[], "x").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    let health = get(&router, "/healthz").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (StatusCode::OK, Some("stopping")), "it is alive");
}

/// Every refusal has a cause, counted once; what is no refusal has none.
#[tokio::test]
async fn refusals_are_counted_by_their_cause() {
    let (app, shared) = app(Limits { message_bytes_max: 10, topics_max: 0, ..Limits::default() });
    let router = router(app.clone());
    let foreign = [("origin", "https://evil.example")];
    type Sent<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'static str);
    let requests: [Sent<'_>; 9] = [
        ("GET", "/healthz", &[], ""),
        ("GET", "/", &foreign, ""),
        ("POST", "/pub/a", &foreign, "x"),
        ("OPTIONS", "/pub/a", &foreign, ""),
        ("POST", "/pub/a", &[], "x"),
        ("POST", "/pub/a", &[], "longer than ten bytes"),
        ("GET", "/nothing", &[], ""),
        ("DELETE", "/healthz", &[], ""),
        ("GET", "/bus/+", &[], ""),
    ];
    for (method, target, headers, body) in requests {
        ask(&router, method, target, headers, body).await;
    }
    app.stop();
    ask(&router, "POST", "/pub/a", &[], "x").await;
    get(&router, "/readyz").await;
    let counted: Vec<_> = shared.plane.snapshot().refused_by().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [("origin", 2), ("draining", 1), ("topics", 1), ("request", 4)]);
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
        for target in ["/api/stats", "/metrics", "/dashboard", "/dashboard/main.js"] {
            let expected = if on_public_port { StatusCode::OK } else { StatusCode::NOT_FOUND };
            assert_eq!(get(&public, target).await.status, expected, "{target}");
            assert_eq!(get(&admin, target).await.status, StatusCode::OK, "{target}");
        }
        // With shards that answer nothing: only that somebody looks at the query.
        let listing = if on_public_port { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND };
        assert_eq!(get(&public, "/api/topics?limit=0").await.status, listing);
        assert_eq!(get(&admin, "/api/topics?limit=0").await.status, StatusCode::BAD_REQUEST);
        for router in [&public, &admin] {
            let health = get(router, "/healthz").await.json();
            assert_eq!(health["counters"], on_public_port);
            assert_eq!(health["fallback"], cause.to_string());
        }
        for target in ["/", "/sub/a", "/page.js"] {
            let answer = get(&admin, target).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{target} is the public's");
            assert!(answer.sentence().contains("/healthz"));
        }
        assert_eq!(ask(&admin, "POST", "/healthz", &[], "").await.status, StatusCode::METHOD_NOT_ALLOWED);
        let foreign = ask(&admin, "POST", "/api/stats", &[("origin", "https://evil.example")], "").await;
        assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    }
}

/// RFC 9110 §9.3.7, §15.5.6.
#[tokio::test]
async fn every_resource_says_what_it_answers() {
    let (app, _) = app(Limits::default());
    let (public, admin) = (router(app.clone()), admin_router(app));
    for (router, target, allow) in [
        (&public, "/pub/a", "GET,HEAD,OPTIONS,POST"),
        (&public, "/sub/a", "GET,HEAD,OPTIONS"),
        (&public, "/ws", "GET,HEAD,OPTIONS"),
        (&public, "/", "GET,HEAD,OPTIONS"),
        (&public, "/healthz", "GET,HEAD,OPTIONS"),
        (&admin, "/metrics", "GET,HEAD,OPTIONS"),
        (&admin, "/readyz", "GET,HEAD,OPTIONS"),
    ] {
        let sorted = |answer: &Answer| {
            let mut allowed: Vec<String> =
                answer.header("allow").expect("Allow").split(',').map(str::to_owned).collect();
            allowed.sort_unstable();
            allowed.join(",")
        };
        for method in ["PUT", "DELETE", "TRACE", "get", "M-SEARCH"] {
            let answer = ask(router, method, target, &[], "").await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {target}");
            assert_eq!(sorted(&answer), allow, "{method} {target}");
        }
        let answer = ask(router, "OPTIONS", target, &[], "").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{target}");
        assert_eq!(sorted(&answer), allow);
    }
    for router in [&public, &admin] {
        let answer = ask(router, "OPTIONS", "*", &[], "").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert!(answer.header("allow").is_some());
        assert_eq!(ask(router, "OPTIONS", "/nothing", &[], "").await.status, StatusCode::NOT_FOUND);
    }
}

/// A topic whose subscribers are far behind lets its publishers wait, over HTTP too.
#[tokio::test(start_paused = true)]
async fn a_congested_topic_is_waited_for() {
    let (app, shared) = app(Limits::default());
    let router = router(app);
    let topic = shared.registry.resolve("a");
    let congestion = Congestion::of(topic.clone());
    let started = tokio::time::Instant::now();
    let answer = ask(&router, "POST", "/pub/a", &[], "x").await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    assert_eq!(started.elapsed().as_secs(), 5);
    let publish = ask(&router, "POST", "/pub/a", &[], "x");
    let relieve = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(shared.inboxes[usize::from(topic.sequencer)].next_control().is_none(), "it waits");
        drop(congestion);
        tokio::time::sleep(Duration::from_secs(1)).await;
        match shared.inboxes[usize::from(topic.sequencer)].next_control() {
            Some(ControlMessage::Publish { answer, .. }) => answer.send(Ok(published(3))).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let (answer, ()) = tokio::join!(publish, relieve);
    assert_eq!(answer.json()["offset"], 3);
}

#[tokio::test]
async fn every_other_path_and_method_has_its_answer() {
    let router = router(app(Limits::default()).0);
    for target in ["/pub/a", "/bus/a", "/ws", "/pub/"] {
        let answer = get(&router, target).await;
        assert_eq!(answer.status, StatusCode::UPGRADE_REQUIRED, "{target}");
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        answer.sentence();
    }
    let nothing = get(&router, "/nothing?here").await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    assert!(nothing.sentence().contains("/nothing."));
    for (method, target, allow) in [
        ("DELETE", "/pub/a", "GET,HEAD,OPTIONS,POST"),
        ("POST", "/healthz", "GET,HEAD,OPTIONS"),
        ("PUT", "/", "GET,HEAD,OPTIONS"),
    ] {
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

/// What operators do with one topic, as far as no shard is asked.
#[tokio::test]
async fn one_topic_is_one_segment_of_the_path() {
    for on_public_port in [true, false] {
        let (app, _) = app_for(Limits::default(), Operators { on_public_port, fallback: None });
        let (public, admin) = (router(app.clone()), admin_router(app));
        for (method, tail) in [("GET", ""), ("DELETE", "/messages"), ("GET", "/messages")] {
            for (topic, status, code) in [
                ("a%2Fb", StatusCode::NOT_FOUND, "not-found"),
                ("a%2F%23", StatusCode::BAD_REQUEST, "bad-topic"),
                ("%ff", StatusCode::BAD_REQUEST, "bad-command"),
                ("a/b", StatusCode::NOT_FOUND, "not-found"),
            ] {
                let answer = ask(&admin, method, &format!("/api/topics/{topic}{tail}"), &[], "").await;
                answer.sentence();
                assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{method} {topic}");
            }
        }
        let wrong = ask(&admin, "POST", "/api/topics/a/messages", &[], "").await;
        assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
        let options = ask(&admin, "OPTIONS", "/api/topics/a/messages", &[], "").await;
        assert_eq!(options.header("allow"), Some("DELETE,GET,HEAD,OPTIONS"));
        // Another origin's page may not purge, and on the public port nobody may.
        let foreign = ask(&admin, "DELETE", "/api/topics/a/messages", &[("origin", "https://evil.example")], "").await;
        assert_eq!(foreign.status, StatusCode::FORBIDDEN);
        let public = ask(&public, "DELETE", "/api/topics/a/messages", &[], "").await;
        assert_eq!((public.status, public.sentence().contains("nothing at")), (StatusCode::NOT_FOUND, true));
    }
}
