//! Access control over real sockets: tokens and keys on every way in, what they grant, and what becomes of connections when a
//! token ends, rights change or an operator acts.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::http::{Answer, request};
use crate::shutdown::signal;
use crate::ws::{Ws, open_v1, try_open};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A key, and its SHA-256.
pub(crate) const KEY: &str = "rk_test";

/// A broker with access control, and the folder of its files.
pub(crate) struct Guarded {
    pub(crate) broker: Broker,
    pub(crate) folder: tempfile::TempDir,
}

impl Guarded {
    /// With `[auth]` for HS256 tokens, to which `auth` adds lines, and these other tables.
    pub(crate) fn start(auth: &str, tables: &str) -> Self {
        Self::with(auth, tables, &[])
    }

    pub(crate) fn with(auth: &str, tables: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hs"), SECRET).unwrap();
        write(folder.path(), auth, tables);
        let config = folder.path().join("ringyard.toml");
        let broker = Broker::start(&[&["--config", config.to_str().unwrap()], arguments].concat());
        Self { broker, folder }
    }

    /// Writes the file anew, and has the broker read it.
    pub(crate) fn rewrite(&self, auth: &str, tables: &str) {
        write(self.folder.path(), auth, tables);
        signal(&self.broker, "HUP");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.address
    }
}

fn write(folder: &std::path::Path, auth: &str, tables: &str) {
    let secret = folder.join("hs");
    let text = format!("[auth]\nhs-secret-file = {secret:?}\nalgorithms = ['HS256']\n{auth}\n{tables}\n");
    std::fs::write(folder.join("ringyard.toml"), text).unwrap();
}

/// A `[[key]]` table of [`KEY`].
pub(crate) fn key_table(lists: &str) -> String {
    format!("[[key]]\nname = 'shop'\nsha256 = '{}'\n{lists}\n", sha256_hex(KEY))
}

pub(crate) fn sha256_hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn now_s() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// A token of a user that ends in so many seconds, with more claims.
pub(crate) fn token(sub: &str, seconds: i64, more: Value) -> String {
    let mut claims = json!({"sub": sub, "iat": now_s() - 1, "exp": now_s() as i64 + seconds});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

/// A client of `/ws` that has sent this token.
pub(crate) async fn connected(server: SocketAddr, token: &str) -> Ws {
    let mut client = open_v1(server).await;
    let answer = client.command(json!({"type": "connect", "id": "c", "token": token})).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    client
}

/// A WebSocket whose handshake offers a token as a page does.
pub(crate) async fn offered(server: SocketAddr, path: &str, token: &str) -> Ws {
    let own = if path == "/ws" { "ringyard.v1" } else { "ringyard.raw" };
    let offers = format!("{own}, ringyard.token.{token}");
    try_open(server, path, &[("sec-websocket-protocol", &offers)]).await.expect("101, whatever comes then")
}

/// A `POST` with this `Authorization`.
pub(crate) async fn post_as(server: SocketAddr, topic: &str, bearer: Option<&str>) -> Answer {
    let bearer = bearer.map(|bearer| format!("\r\nAuthorization: Bearer {bearer}")).unwrap_or_default();
    request(server, &format!("POST /pub/{topic} HTTP/1.1{bearer}"), b"x").await
}

pub(crate) const CHAT: &str =
    "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+', 'user/{sub}/#']\npublish = ['chat/+']\n";

#[tokio::test]
async fn a_user_does_what_is_granted_and_nothing_else() {
    let guarded = Guarded::start("explain = true", CHAT);
    let mut ada = connected(guarded.address(), &token("7", 600, json!({}))).await;
    for (topic, code) in [
        ("chat/7", None),
        ("user/7/+/x", None),
        ("chat/#", Some("forbidden")),
        ("user/8/x", Some("forbidden")),
        ("#", Some("forbidden")),
        ("$sys/load", Some("forbidden")),
    ] {
        let answer = ada.command(json!({"type": "subscribe", "id": topic, "topic": topic, "state": false})).await;
        assert_eq!(answer["code"].as_str(), code, "{topic}: {answer}");
    }
    let refused = ada.command(json!({"type": "publish", "id": 1, "topic": "news", "data": 1, "ack": true})).await;
    assert_eq!(refused["code"], "forbidden");
    assert!(refused["reason"].as_str().unwrap().contains("the nearest grant is \"chat/+\""), "{refused}");
    let silent = json!({"type": "publish", "id": 2, "topic": "news", "data": 1, "ack": false});
    ada.send(silent.to_string()).await;
    assert_eq!(ada.json().await["code"], "forbidden", "refused whether an answer was asked for or not");
    ada.send(json!({"type": "publish", "topic": "chat/7", "data": "hello"}).to_string()).await;
    assert_eq!(ada.json().await["data"], "hello");
    let history = ada.command(json!({"type": "history", "id": 3, "topic": "chat/7"})).await;
    assert_eq!(history["code"], "forbidden", "that is a right of its own");
}

#[tokio::test]
async fn what_topics_remember_needs_the_right_to_it() {
    let reader = json!({"topics": {"subscribe": ["chat/+"], "publish": ["chat/+"], "rights": ["history"]}});
    let guarded = Guarded::start("", CHAT);
    let reader = token("7", 600, reader);
    let mut with = connected(guarded.address(), &reader).await;
    let sent = with.command(json!({"type": "publish", "id": 1, "topic": "chat/7", "data": "a", "ack": true})).await;
    let since = json!({"epoch": sent["epoch"], "offset": 0});
    let page = with.command(json!({"type": "history", "id": 2, "topic": "chat/7"})).await;
    assert_eq!(page["messages"][0]["data"], "a", "{page}");
    let mut without = connected(guarded.address(), &token("8", 600, json!({}))).await;
    let asked = |id: u64| json!({"type": "subscribe", "id": id, "topic": "chat/7", "since": since});
    let answer = with.command(asked(3)).await;
    assert_eq!(answer["topics"][0]["recovered"], true, "{answer}");
    assert_eq!(with.json().await["data"], "a");
    let answer = without.command(asked(3)).await;
    assert_eq!(answer["topics"][0]["recovered"], false, "{answer}");
    let last = json!({"type": "subscribe", "id": 4, "topic": "chat/8", "last": 1});
    assert_eq!(without.command(last).await["code"], "forbidden");
    let raw = |start: &str| format!("/sub/chat/7?{start}");
    let plain = token("8", 600, json!({}));
    let since = format!("since={}:0", sent["epoch"].as_str().unwrap());
    for start in ["last=1", &since] {
        assert_eq!(offered(guarded.address(), &raw(start), &plain).await.close_code().await, 4403, "{start}");
        let poll = format!("GET {} HTTP/1.1\r\nAuthorization: Bearer", raw(start));
        assert_eq!(request(guarded.address(), &format!("{poll} {plain}"), b"").await.status, 403, "{start}");
        let answer = request(guarded.address(), &format!("{poll} {reader}"), b"").await;
        assert_eq!((answer.status, &answer.json()["messages"][0]["data"]), (200, &"a".into()), "{answer:?}");
    }
}

#[tokio::test]
async fn nobody_speaks_before_saying_who_it_is() {
    let guarded = Guarded::with("", CHAT, &["--auth-timeout", "400ms"]);
    let mut client = open_v1(guarded.address()).await;
    let answer = client.command(json!({"type": "subscribe", "id": 1, "topic": "chat/7"})).await;
    assert_eq!(answer["code"], "unauthorized");
    assert_eq!(client.command(json!({"type": "connect", "id": 2})).await["code"], "unauthorized");
    assert_eq!(client.close_code().await, 4408);
    let raw = try_open(guarded.address(), "/sub/chat/7", &[]).await.err().expect("refused");
    assert!(raw.to_string().contains("401"), "{raw}");
    assert_eq!(post_as(guarded.address(), "chat/7", None).await.status, 401);
}

#[tokio::test]
async fn a_token_is_good_on_every_way_in_and_never_sent_back() {
    let guarded = Guarded::start("cookie = 'session'\nquery-token = true", CHAT);
    let server = guarded.address();
    let good = token("7", 600, json!({}));
    for path in ["/sub/chat/7", "/pub/chat/7", "/bus/chat/7", "/ws"] {
        drop(offered(server, path, &good).await);
        let bearer = format!("Bearer {good}");
        let fields = [("authorization", &*bearer), ("sec-websocket-protocol", "ringyard.v1")];
        let fields = if path == "/ws" { &fields[..] } else { &fields[..1] };
        try_open(server, path, fields).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let cookie = format!("a=b; session={good}");
        let fields = [("cookie", &*cookie), ("sec-websocket-protocol", "ringyard.v1")];
        let fields = if path == "/ws" { &fields[..] } else { &fields[..1] };
        try_open(server, path, fields).await.unwrap_or_else(|error| panic!("{path} by cookie: {error}"));
    }
    assert_eq!(post_as(server, "chat/7", Some(&good)).await.status, 200);
    let head = format!(
        "GET /sub/chat/7 HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: ringyard.token.{good}, ringyard.raw\r\n\r\n"
    );
    let mut http = crate::http::Http::open(server).await;
    http.send(&head).await;
    let answer = http.answer().await;
    assert!(answer.status == 101 && answer.head.contains("ringyard.raw"), "{answer:?}");
    assert!(!answer.head.contains("token"), "{answer:?}");
}

#[tokio::test]
async fn a_bad_token_is_answered_alike_whatever_is_wrong_with_it() {
    let guarded = Guarded::start("", CHAT);
    let server = guarded.address();
    let good = token("7", 600, json!({}));
    let expired = token("7", -600, json!({}));
    let bad =
        ["nonsense".to_owned(), format!("{good}x"), token("7", 600, json!({"nbf": now_s() + 600})), "rk_no".to_owned()];
    let mut answers = Vec::new();
    for bad in bad.iter().chain([&expired]) {
        let mut client = open_v1(server).await;
        let answer = client.command(json!({"type": "connect", "id": 1, "token": bad})).await;
        let (code, _) = client.close_frame().await;
        assert_eq!(code, if *bad == expired { 4401 } else { 4400 }, "{answer}");
        answers.push(answer);
        for path in ["/ws", "/sub/chat/7"] {
            let expected = if *bad == expired { 4401 } else { 4400 };
            assert_eq!(offered(server, path, bad).await.close_code().await, expected, "{path}");
        }
        let by_header = try_open(server, "/sub/chat/7", &[("authorization", &format!("Bearer {bad}"))]).await;
        assert!(by_header.err().expect("refused").to_string().contains("401"));
        let posted = post_as(server, "chat/7", Some(bad)).await;
        assert_eq!((posted.status, posted.json()["code"].as_str()), (401, Some("bad-token")));
        assert!(posted.head.contains("error=\"invalid_token\""), "{}", posted.head);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let metrics = request(guarded.broker.admin, "GET /metrics HTTP/1.1", b"").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    for cause in ["malformed", "not-yet", "expired", "unknown-api-key"] {
        let counted = format!("ringyard_auth_refused_total{{cause=\"{cause}\"}} 0");
        assert!(!metrics.contains(&counted) && metrics.contains(&format!("cause=\"{cause}\"")), "{cause}");
    }
    assert!(!metrics.contains(&good));
}

#[tokio::test]
async fn a_token_is_renewed_on_the_open_connection() {
    let guarded = Guarded::start("grace = '1s'\nleeway = '0s'", CHAT);
    let mut ada = connected(guarded.address(), &token("7", 3, json!({}))).await;
    let refresh = ada.json().await;
    assert_eq!(refresh["type"], "refresh", "it ends within a minute");
    assert!((1..=3000).contains(&refresh["in"].as_u64().unwrap()), "{refresh}");
    ada.subscribe(&["chat/7"]).await;
    let again = ada.command(json!({"type": "connect", "id": 2, "token": token("7", 600, json!({}))})).await;
    assert_eq!(again["type"], "ok");
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let pong = ada.command(json!({"type": "ping", "id": 3})).await;
    assert_eq!(pong["type"], "pong", "the connection lives on");
    let refused = ada.command(json!({"type": "connect", "id": 4, "token": "nonsense"})).await;
    assert_eq!(refused["code"], "bad-token");
    assert_eq!(ada.command(json!({"type": "ping", "id": 5})).await["type"], "pong", "nothing has changed");
    let other = ada.command(json!({"type": "connect", "id": 6, "token": token("8", 600, json!({}))})).await;
    assert_eq!((other["code"].as_str(), ada.close_code().await), (Some("forbidden"), 4403));
}

#[tokio::test]
async fn a_token_that_ends_closes_its_connection_after_the_grace() {
    let guarded = Guarded::start("grace = '1s'\nleeway = '0s'", CHAT);
    let mut v1 = connected(guarded.address(), &token("7", 1, json!({}))).await;
    let mut raw = offered(guarded.address(), "/sub/chat/7", &token("7", 1, json!({}))).await;
    assert_eq!(v1.json().await["type"], "refresh");
    assert_eq!((v1.close_code().await, raw.close_code().await), (4401, 4401));
}

#[tokio::test]
async fn what_a_new_token_no_longer_grants_ends() {
    let of = |topics: Value| token("7", 600, json!({"topics": {"subscribe": topics}}));
    let guarded = Guarded::start("", &key_table("publish = ['#']"));
    let mut ada = connected(guarded.address(), &of(json!(["a", "b", "c/+"]))).await;
    ada.subscribe(&["a", "b", "c/7"]).await;
    let less = ada.command(json!({"type": "connect", "id": 2, "token": of(json!(["b"]))})).await;
    assert_eq!(less["type"], "ok");
    let mut ended = [ada.json().await, ada.json().await];
    ended.sort_by_key(|message| message["topic"].as_str().unwrap().to_owned());
    assert_eq!(ended[0], json!({"type": "ended", "topic": "a", "code": "forbidden"}));
    assert_eq!(ended[1], json!({"type": "ended", "topic": "c/7", "code": "forbidden"}));
    for topic in ["a", "c/7", "b"] {
        assert_eq!(post_as(guarded.address(), topic, Some(KEY)).await.status, 200);
    }
    assert_eq!(ada.json().await["topic"], "b", "and nothing of the others");
}

#[tokio::test]
async fn rules_that_change_hold_for_open_connections() {
    let guarded = Guarded::start("", CHAT);
    let mut ada = connected(guarded.address(), &token("7", 600, json!({}))).await;
    ada.subscribe(&["chat/7", "user/7/x"]).await;
    let mut raw = offered(guarded.address(), "/sub/chat/7", &token("7", 600, json!({}))).await;
    let mut publisher = offered(guarded.address(), "/pub/chat/7", &token("7", 600, json!({}))).await;
    guarded.rewrite("", "[[allow]]\nprincipal = 'user'\nsubscribe = ['user/{sub}/#']\npublish = ['new']\n");
    assert_eq!(ada.json().await, json!({"type": "ended", "topic": "chat/7", "code": "forbidden"}));
    assert_eq!((raw.close_code().await, publisher.close_code().await), (4403, 4403));
    let published = ada.command(json!({"type": "publish", "id": 3, "topic": "new", "data": 1, "ack": true})).await;
    assert_eq!(published["type"], "ok");
    guarded.rewrite("nonsense = 1", CHAT);
    let still = ada.command(json!({"type": "publish", "id": 4, "topic": "chat/7", "data": 1, "ack": true})).await;
    assert_eq!(still["code"], "forbidden", "a file with a mistake changes nothing");
}

#[tokio::test]
async fn an_employee_who_leaves_is_closed_and_stays_out() {
    let tables = format!("{CHAT}{}", key_table("api = ['connections']"));
    let guarded = Guarded::start("", &tables);
    let (server, admin) = (guarded.address(), guarded.broker.admin);
    let old = token("7", 600, json!({}));
    let mut ada = connected(server, &old).await;
    let mut eve = connected(server, &token("8", 600, json!({}))).await;
    let listed = request(admin, "GET /api/connections?user=7 HTTP/1.1", b"").await.json();
    assert_eq!((listed["total"].as_u64(), listed["connections"][0]["user"].as_str()), (Some(1), Some("7")), "{listed}");
    let revoke = |bearer: &str| format!("POST /api/users/7/revoke HTTP/1.1\r\nAuthorization: Bearer {bearer}");
    assert_eq!(request(admin, "POST /api/users/7/revoke HTTP/1.1", b"").await.status, 401, "it changes something");
    assert_eq!(request(admin, &revoke(&old), b"").await.status, 403, "a user is no operator");
    let revoked = request(admin, &revoke(KEY), b"").await;
    assert_eq!((revoked.status, revoked.json()["closed"].as_u64()), (200, Some(1)), "{revoked:?}");
    assert_eq!(ada.close_code().await, 4403);
    let mut again = open_v1(server).await;
    let answer = again.command(json!({"type": "connect", "id": 1, "token": old})).await;
    assert_eq!((answer["code"].as_str(), again.close_code().await), (Some("bad-token"), 4400));
    assert_eq!(eve.command(json!({"type": "ping", "id": 1})).await["type"], "pong");
    let close = format!("POST /api/users/8/close HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    assert_eq!(request(admin, &close, b"").await.json()["closed"], 1);
    assert_eq!(eve.close_code().await, 4403);
    drop(connected(server, &token("8", 600, json!({}))).await);
}

#[tokio::test]
async fn the_shortest_safe_set_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    let (_, behind) = include_str!("../../../README.md").split_once("The shortest\nsafe set-up").expect("the section");
    let text = behind.split("```").nth(1).and_then(|block| block.strip_prefix("toml\n")).expect("the file");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() <= 5, "{text}");
    let (before, digest) = text.split_once("sha256 = \"").expect("a key");
    std::fs::write(&file, format!("{before}sha256 = \"{}{}", sha256_hex(KEY), &digest[64..])).unwrap();
    let broker = Broker::start(&["--config", file.to_str().unwrap()]);
    let mut page = open_v1(broker.address).await;
    page.subscribe(&["news"]).await;
    let refused = page.command(json!({"type": "publish", "id": 2, "topic": "news", "data": 1, "ack": true})).await;
    assert_eq!(refused["code"], "forbidden");
    assert_eq!(post_as(broker.address, "news", None).await.status, 403);
    assert_eq!(post_as(broker.address, "news", Some(KEY)).await.status, 200);
    assert_eq!(page.json().await["topic"], "news");
}
