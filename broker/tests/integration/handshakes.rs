//! A handshake with a token or a key gets the same answer from the shard that accepted its connection and, on a connection that was
//! used before, from the control plane: status, fields, body and close frame. One table, sent both ways.

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::access::{Guarded, KEY, connected, key_table, now_s, offered, post_as, token};
use crate::http::{Answer, Http, PATIENCE, await_stat, request, stat};
use crate::planes::{case, compare};
use crate::upgrade::UPGRADE;
use crate::ws::{Ws, open_v1, try_open};

/// Everybody reads and writes `chat/+`, nobody may read what was; a key reads and writes `shop/+`.
fn guarded() -> Guarded {
    let allow = "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\n";
    let key = key_table("subscribe = ['shop/+']\npublish = ['shop/+']\napi = ['connections']");
    Guarded::start("cookie = 'session'\nleeway = '0s'", &format!("{allow}{key}"))
}

/// What a handshake gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gets {
    /// 101, or for a stream 200, and it stays open.
    In,
    /// 101 and then a close frame with this code.
    Closed(u16),
    /// 401 with `invalid_token`.
    BadToken,
    /// 401 that asks for a token.
    Missing,
    /// 403 with `insufficient_scope`.
    NoGrant,
    /// This status, without a challenge.
    Refused(u16),
}
use Gets::{BadToken, Closed, In, Missing, NoGrant, Refused};

/// How a credential is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Header,
    Protocol,
    Cookie,
}

/// A request to this path, with whole lines of fields.
fn head(path: &str, fields: &str, is_stream: bool) -> String {
    let host = if fields.contains("Host:") { "" } else { "Host: localhost\r\n" };
    let begin = format!("GET {path} HTTP/1.1\r\n{host}");
    if is_stream {
        return format!("{begin}Accept: text/event-stream\r\n{fields}\r\n");
    }
    let protocol = if path.starts_with("/ws") && !fields.contains("Protocol") {
        "Sec-WebSocket-Protocol: ringyard.v1\r\n"
    } else {
        ""
    };
    format!("{begin}{UPGRADE}{protocol}{fields}\r\n")
}

/// The line that sends a credential to this path.
fn line(path: &str, by: By, credential: &str) -> String {
    let own = if path.starts_with("/ws") { "ringyard.v1" } else { "ringyard.raw" };
    match by {
        By::Header => format!("Authorization: Bearer {credential}\r\n"),
        By::Protocol => format!("Sec-WebSocket-Protocol: {own}, ringyard.token.{credential}\r\n"),
        By::Cookie => format!("Cookie: a=b; session={credential}\r\n"),
    }
}

/// Sends a request, on a connection that the control plane has if `is_used`; the answer, and the code and reason of the close
/// frame that follows it. Where none is expected a ping is answered.
async fn ask(guarded: &Guarded, head: &str, is_used: bool, closes: bool) -> (Answer, Option<(u16, String)>) {
    let mut http = Http::open(guarded.address()).await;
    if is_used {
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
    }
    let answer = http.send(head).await.answer().await;
    if answer.status != 101 {
        return (answer, None);
    }
    if !closes {
        http.send(b"\x89\x80\0\0\0\0").await;
    }
    let (mut stream, mut read) = http.into_parts();
    while read.len() < 2 || read.len() < 2 + usize::from(read[1]) {
        let more = timeout(PATIENCE, stream.read_buf(&mut read)).await.expect("a frame in time").unwrap();
        assert!(more > 0, "ended without a close frame: {head}");
    }
    if read == b"\x8a\0" {
        return (answer, None);
    }
    assert_eq!(read[0], 0x88, "a close frame: {}", read.escape_ascii());
    let reason = String::from_utf8(read[4..2 + usize::from(read[1])].to_vec()).unwrap();
    (answer, Some((u16::from_be_bytes([read[2], read[3]]), reason)))
}

/// Status line and fields without the date, sorted.
fn fields(answer: &Answer) -> Vec<String> {
    let mut fields: Vec<_> =
        answer.head.lines().filter(|line| !line.starts_with("date: ")).map(str::to_owned).collect();
    fields.sort();
    fields
}

/// Asks both planes, and holds their answers against each other and what is expected.
async fn check(guarded: &Guarded, path: &str, more: &str, is_stream: bool, gets: Gets) {
    let (head, closes) = (head(path, more, is_stream), matches!(gets, Closed(_)));
    let before = stat(&guarded.broker, "handed_over").await;
    let (shard, shard_closed) = ask(guarded, &head, false, closes).await;
    assert_eq!(stat(&guarded.broker, "handed_over").await, before, "the shard answered {head}");
    let (plane, plane_closed) = ask(guarded, &head, true, closes).await;
    await_stat(&guarded.broker, "handed_over", |now| now > before).await;
    let (status, challenge) = match gets {
        In => (if is_stream { 200 } else { 101 }, None),
        Closed(_) => (101, None),
        BadToken => (401, Some("bearer error=\"invalid_token\"")),
        Missing => (401, Some("bearer")),
        NoGrant => (403, Some("bearer error=\"insufficient_scope\"")),
        Refused(status) => (status, None),
    };
    for (answer, closed) in [(&shard, &shard_closed), (&plane, &plane_closed)] {
        assert_eq!(answer.status, status, "{gets:?} {head}: {answer:?}");
        let challenged = answer.head.lines().find_map(|line| line.strip_prefix("www-authenticate: "));
        assert_eq!(challenged, challenge, "{head}: {answer:?}");
        let code = closed.as_ref().map(|(code, _)| Closed(*code));
        assert_eq!(code, Some(gets).filter(|_| closes), "{head}");
        assert!(!answer.head.contains("ringyard.token"), "tokens are not sent back: {answer:?}");
    }
    assert_eq!(fields(&shard), fields(&plane), "{head}");
    assert_eq!((shard.body, shard_closed), (plane.body, plane_closed), "{head}");
}

const RAW: [&str; 3] = ["/sub/chat/7", "/pub/chat/7", "/bus/chat/7"];

#[tokio::test]
async fn both_planes_judge_tokens_alike() {
    let guarded = guarded();
    let good = token("7", 600, json!({}));
    for path in RAW.into_iter().chain(["/ws"]) {
        for by in [By::Header, By::Protocol, By::Cookie] {
            check(&guarded, path, &line(path, by, &good), false, In).await;
        }
        check(&guarded, path, "", false, if path == "/ws" { In } else { Missing }).await;
    }
    let mut forged = good.clone().into_bytes();
    let at = forged.len() - 5;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let revoked = token("8", 600, json!({"iat": now_s() - 100}));
    let revoke = format!("POST /api/users/8/revoke HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    assert_eq!(request(guarded.broker.admin, &revoke, b"").await.status, 200);
    let expired = token("7", -600, json!({}));
    let bad = [String::from_utf8(forged).unwrap(), "nonsense".to_owned(), "rk_none".to_owned(), revoked];
    for path in ["/sub/chat/7", "/bus/chat/7", "/ws"] {
        for by in [By::Header, By::Protocol, By::Cookie] {
            let gets = |code| if by == By::Header { BadToken } else { Closed(code) };
            for bad in &bad {
                check(&guarded, path, &line(path, by, bad), false, gets(4400)).await;
            }
            check(&guarded, path, &line(path, by, &expired), false, gets(4401)).await;
        }
    }
}

#[tokio::test]
async fn both_planes_refuse_what_nothing_grants_alike() {
    let guarded = guarded();
    let good = token("7", 600, json!({}));
    let ungranted = ["/sub/secret", "/pub/secret", "/bus/secret", "/sub/chat/%23", "/sub/chat/7?last=1", "/bus/shop/1"];
    for path in ungranted {
        for by in [By::Header, By::Protocol, By::Cookie] {
            let gets = if by == By::Header { NoGrant } else { Closed(4403) };
            check(&guarded, path, &line(path, by, &good), false, gets).await;
        }
    }
    // A key may stand wherever a token may.
    for by in [By::Header, By::Protocol, By::Cookie] {
        for path in ["/sub/shop/1", "/pub/shop/1", "/bus/shop/1", "/ws"] {
            check(&guarded, path, &line(path, by, KEY), false, In).await;
        }
        let gets = if by == By::Header { NoGrant } else { Closed(4403) };
        check(&guarded, "/sub/chat/7", &line("/sub", by, KEY), false, gets).await;
    }
}

#[tokio::test]
async fn both_planes_treat_odd_credentials_and_foreign_pages_alike() {
    let guarded = guarded();
    let good = token("7", 600, json!({}));
    let of = |by, credential: &str| line("/sub", by, credential);
    let both = of(By::Header, &good) + &of(By::Protocol, &good);
    let (foreign, near) = ("Origin: https://evil.example\r\n", "Origin: http://localhost\r\n");
    let cases = [
        (both, BadToken),
        // A cookie counts only alone: browsers add it by themselves.
        (of(By::Header, &good) + &of(By::Cookie, "nonsense"), In),
        (of(By::Header, "nonsense") + &of(By::Cookie, &good), BadToken),
        (of(By::Protocol, "nonsense") + &of(By::Cookie, &good), Closed(4400)),
        (of(By::Header, &good).repeat(2), BadToken),
        // Another scheme is no token at all.
        ("Authorization: Basic YTpi\r\n".to_owned(), Missing),
        ("Cookie: other=1\r\n".to_owned(), Missing),
        // A page of another site learns nothing of its visitor's token.
        (foreign.to_owned() + &of(By::Cookie, &good), Refused(403)),
        (foreign.to_owned() + &of(By::Cookie, "nonsense"), Refused(403)),
        (foreign.to_owned() + &of(By::Protocol, "nonsense"), Refused(403)),
        (foreign.to_owned() + &of(By::Header, "nonsense"), Refused(403)),
        (near.to_owned() + &of(By::Cookie, &good), In),
        (near.to_owned() + &of(By::Header, "nonsense"), BadToken),
        ("Host: elsewhere.example\r\n".to_owned() + &of(By::Header, "nonsense"), Refused(421)),
    ];
    for (fields, gets) in cases {
        check(&guarded, "/sub/chat/7", &fields, false, gets).await;
    }
}

/// Their pages read the status, so they get no close code.
#[tokio::test]
async fn both_planes_judge_streams_alike() {
    let guarded = guarded();
    let (good, expired) = (token("7", 600, json!({})), token("7", -600, json!({})));
    for by in [By::Header, By::Cookie] {
        for (path, credential, gets) in [
            ("/sub/chat/7", &*good, In),
            ("/sub/chat/7?last=1", &good, NoGrant),
            ("/sub/secret", &good, NoGrant),
            ("/sub?topic=chat/7&topic=secret", &good, NoGrant),
            ("/sub/chat/7", "nonsense", BadToken),
            ("/sub/chat/7", &expired, BadToken),
            ("/sub/shop/1", KEY, In),
            ("/sub/chat/7", KEY, NoGrant),
        ] {
            check(&guarded, path, &line(path, by, credential), true, gets).await;
        }
    }
    check(&guarded, "/sub/chat/7", "", true, Missing).await;
    let foreign = "Origin: https://evil.example\r\n".to_owned() + &line("/sub", By::Cookie, &good);
    check(&guarded, "/sub/chat/7", &foreign, true, Refused(403)).await;
}

#[tokio::test]
async fn both_planes_judge_publishes_alike() {
    let guarded = guarded();
    let expired = token("7", -600, json!({}));
    let of = |credential: &str| line("/pub", By::Header, credential);
    let (good, key, bad, expired) = (of(&token("7", 600, json!({}))), of(KEY), of("rk_none"), of(&expired));
    let cookie = line("/pub", By::Cookie, KEY);
    let cases = [
        case("/pub/chat/7", &good, b"x", 200),
        case("/pub/shop/1", &key, b"x", 200),
        case("/pub/shop/1", &cookie, b"x", 200),
        case("/pub/secret", &good, b"x", 403),
        case("/pub/chat/7", &key, b"x", 403),
        case("/pub/chat/7", &cookie, b"x", 403),
        case("/pub/chat/7", "", b"x", 401),
        case("/pub/chat/7", &bad, b"x", 401),
        case("/pub/chat/7", &expired, b"x", 401),
    ];
    compare(&guarded.broker, &cases).await;
    // Both answer alike, so one of them says what.
    for (topic, bearer, status, error) in [
        ("chat/7", None, 401, "bearer\r\n"),
        ("chat/7", Some("rk_none"), 401, "bearer error=\"invalid_token\"\r\n"),
        ("chat/7", Some(KEY), 403, "bearer error=\"insufficient_scope\"\r\n"),
    ] {
        let answer = post_as(guarded.address(), topic, bearer).await;
        assert_eq!(answer.status, status);
        assert!(answer.head.contains(&format!("\r\nwww-authenticate: {error}")), "{answer:?}");
    }
}

/// As a key's holder, and as nobody else: it may publish to its topics.
#[tokio::test]
async fn a_key_works_wherever_a_token_may_stand() {
    let guarded = guarded();
    let server = guarded.address();
    let mut reader = connected(server, KEY).await;
    reader.subscribe(&["shop/1"]).await;
    let by = |fields: &[(&'static str, String)]| {
        let fields = fields.to_vec();
        async move {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
            try_open(server, "/ws", &fields).await.expect("an upgrade")
        }
    };
    let v1 = ("sec-websocket-protocol", "ringyard.v1".to_owned());
    let clients: [(&str, Ws); 4] = [
        ("connect", connected(server, KEY).await),
        ("header", by(&[v1.clone(), ("authorization", format!("Bearer {KEY}"))]).await),
        ("cookie", by(&[v1, ("cookie", format!("session={KEY}"))]).await),
        ("protocol", offered(server, "/ws", KEY).await),
    ];
    for (how, mut client) in clients {
        for (topic, code) in [("shop/1", None), ("chat/7", Some("forbidden"))] {
            let publish = json!({"type": "publish", "id": 1, "topic": topic, "data": how, "ack": true});
            let answer = client.command(publish).await;
            assert_eq!(answer["code"].as_str(), code, "by {how} to {topic}: {answer}");
        }
        assert_eq!(reader.json().await["data"], how);
    }
    for how in ["offered", "cookie"] {
        let mut raw = match how {
            "offered" => offered(server, "/pub/shop/1", KEY).await,
            _ => try_open(server, "/pub/shop/1", &[("cookie", &format!("session={KEY}"))]).await.expect("an upgrade"),
        };
        raw.send(how).await;
        assert_eq!(reader.json().await["data"], how);
    }
    let poll = format!("GET /sub/shop/1?timeout=1s HTTP/1.1\r\nCookie: session={KEY}");
    assert!(matches!(request(server, &poll, b"").await.status, 200 | 204));
}

/// Tokens from before the second that is named are refused and their connections closed; newer ones stay.
#[tokio::test]
async fn a_revocation_closes_the_connections_of_older_tokens_only() {
    let guarded = guarded();
    let (server, now_s) = (guarded.address(), now_s());
    let of = |user: &str, age: u64| token(user, 600, json!({"iat": now_s - age}));
    let (old, new) = (of("7", 200), of("7", 100));
    let mut closed = [connected(server, &old).await, offered(server, "/sub/chat/7", &old).await];
    let mut stays = [connected(server, &new).await, connected(server, &of("8", 200)).await];
    let mut raw = offered(server, "/sub/chat/7", &new).await;
    let revoke = format!("POST /api/users/7/revoke HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    let body = json!({"before": now_s - 100}).to_string();
    let answer = request(guarded.broker.admin, &revoke, body.as_bytes()).await;
    assert_eq!(answer.json(), json!({"user": "7", "closed": 2, "before": now_s - 100}), "{answer:?}");
    for client in &mut closed {
        assert_eq!(client.close_code().await, 4403);
    }
    for client in &mut stays {
        let publish = json!({"type": "publish", "id": 1, "topic": "chat/7", "data": 1, "ack": true});
        assert_eq!(client.command(publish).await["type"], "ok");
        assert_eq!(raw.text().await, "1");
    }
    let mut again = open_v1(server).await;
    assert_eq!(again.command(json!({"type": "connect", "id": 1, "token": old})).await["code"], "bad-token");
    assert_eq!(post_as(server, "chat/7", Some(&old)).await.status, 401);
    assert_eq!(post_as(server, "chat/7", Some(&new)).await.status, 200);
    drop(connected(server, &new).await);
    // One from the second itself is good, one from the second before is not.
    assert_eq!(post_as(server, "chat/7", Some(&of("7", 101))).await.status, 401);
}
