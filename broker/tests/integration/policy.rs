//! Nothing gets past access control: every endpoint and every command, as everybody, against one written table.
//!
//! `200` stands for "it is done", whatever the request is answered exactly; the tables say who is refused and how. That they
//! have every endpoint and every command is checked against the API's own description and the protocol's list.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use protocol::v1::CommandType;
use serde_json::{Value, json};

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::access::{Guarded, KEY, connected, key_table, token};
use crate::http::{Http, PATIENCE, request};
use crate::upgrade::UPGRADE;
use crate::ws::open_v1;

/// Who asks: nobody in particular; a user whose token grants `chat/+`; a key that may publish and has no scope; a key that may
/// do everything.
pub(crate) const WHO: [&str; 4] = ["anonymous", "user", "key", "operator"];

/// Endpoints of the public port, with a topic that the user may use and one that it may not.
pub(crate) const PUBLIC: &[(&str, [u16; 4])] = &[
    ("POST /pub/chat/7", [401, 200, 200, 200]),
    ("POST /pub/secret", [401, 403, 200, 200]),
    // Each of its items is judged by itself: see below.
    ("POST /pub", [401, 200, 200, 200]),
    // Nobody serves it: who may ask learns that.
    ("POST /request/chat/7", [401, 403, 403, 404]),
    ("POST /request/secret", [401, 403, 403, 404]),
    ("WS /sub/chat/7", [401, 101, 403, 101]),
    ("WS /sub/secret", [401, 403, 403, 101]),
    ("WS /sub/chat/7?last=1", [401, 403, 403, 101]),
    ("WS /sub/chat/7?since=0000000000000001:0", [401, 403, 403, 101]),
    ("GET /sub/chat/7", [401, 200, 403, 200]),
    ("GET /sub/secret", [401, 403, 403, 200]),
    ("GET /sub/chat/7?last=1", [401, 403, 403, 200]),
    ("GET /sub/chat/7?since=0000000000000001:0&wait=0s", [401, 403, 403, 200]),
    ("HEAD /sub/chat/7", [401, 200, 403, 200]),
    ("HEAD /sub/secret", [401, 403, 403, 200]),
    ("HEAD /sub/chat/7?last=1", [401, 403, 403, 200]),
    // A poll is of one topic.
    ("GET /sub?topic=chat/7", [400; 4]),
    ("SSE /sub/chat/7", [401, 200, 403, 200]),
    ("SSE /sub/secret", [401, 403, 403, 200]),
    ("SSE /sub/chat/7?last=1", [401, 403, 403, 200]),
    ("SSE /sub/chat/7?since=0000000000000001:0", [401, 403, 403, 200]),
    ("SSE /sub?topic=chat/7&topic=secret", [401, 403, 403, 200]),
    ("WS /pub/chat/7", [401, 101, 101, 101]),
    ("WS /pub/secret", [401, 403, 101, 101]),
    ("WS /bus/chat/7", [401, 101, 403, 101]),
    ("WS /bus/secret", [401, 403, 403, 101]),
    ("WS /ws", [101, 101, 101, 101]),
    // No handshakes.
    ("GET /pub", [426; 4]),
    ("GET /pub/chat/7", [426; 4]),
    ("GET /bus/chat/7", [426; 4]),
    ("GET /ws", [426; 4]),
    ("GET /healthz", [200; 4]),
    ("GET /readyz", [200; 4]),
    ("GET /api/openapi.json", [200; 4]),
    ("GET /", [200; 4]),
    // Their pages only: what they publish and subscribe to is asked as above.
    ("GET /compare", [200; 4]),
    ("GET /demos/", [200; 4]),
    ("GET /demos/chat", [200; 4]),
    ("GET /demos/editor", [200; 4]),
    ("GET /demos/game", [200; 4]),
    ("GET /demos/railway", [200; 4]),
    ("GET /demos/status", [200; 4]),
];

/// Endpoints of the operators' port, asked from the broker's own machine: what changes something needs a key.
const OPERATORS: &[(&str, [u16; 4])] = &[
    ("GET /healthz", [200; 4]),
    ("GET /readyz", [200; 4]),
    ("GET /api/openapi.json", [200; 4]),
    ("GET /metrics", [200; 4]),
    ("GET /api/stats", [200; 4]),
    ("GET /api/topics", [200; 4]),
    ("GET /api/topics/chat%2F7", [200; 4]),
    ("GET /api/connections", [200; 4]),
    ("GET /dashboard", [200; 4]),
    ("WS /ws", [101; 4]),
    ("WS /sub/chat/7", [404; 4]),
    ("WS /pub/chat/7", [404; 4]),
    ("GET /ws", [426; 4]),
    ("GET /pub/chat/7", [426; 4]),
    ("HEAD /metrics", [200; 4]),
    ("POST /pub/chat/7", [401, 200, 200, 200]),
    ("POST /pub/secret", [401, 403, 200, 200]),
    ("GET /api/topics/chat%2F7/messages", [401, 403, 403, 200]),
    ("GET /api/connections/9-0-0/trace", [401, 403, 403, 404]),
    ("DELETE /api/topics/chat%2F7/messages", [401, 403, 403, 200]),
    ("POST /api/users/x/close", [401, 403, 403, 200]),
    ("POST /api/users/x/revoke", [401, 403, 403, 200]),
];

/// Commands on `/ws`, and the code of their answer; "" is success. `T` is the topic.
const COMMANDS: &[(&str, &str, [&str; 4])] = &[
    ("subscribe", r#"{"type":"subscribe","id":1,"topic":"chat/7"}"#, ["unauthorized", "", "forbidden", ""]),
    ("subscribe", r#"{"type":"subscribe","id":1,"topic":"secret"}"#, ["unauthorized", "forbidden", "forbidden", ""]),
    // Scopes grant what the broker says of itself.
    ("subscribe", r#"{"type":"subscribe","id":1,"topic":"$sys/load"}"#, ["unauthorized", "forbidden", "forbidden", ""]),
    (
        "subscribe",
        r#"{"type":"subscribe","id":1,"topic":"$sys/topics"}"#,
        ["unauthorized", "forbidden", "forbidden", ""],
    ),
    (
        "subscribe",
        r#"{"type":"subscribe","id":1,"topic":"$sys/closed"}"#,
        ["unauthorized", "forbidden", "forbidden", ""],
    ),
    (
        "subscribe",
        r#"{"type":"subscribe","id":1,"topic":"chat/8","last":1}"#,
        ["unauthorized", "forbidden", "forbidden", ""],
    ),
    ("publish", r#"{"type":"publish","id":1,"topic":"chat/7","data":1,"ack":true}"#, ["unauthorized", "", "", ""]),
    (
        "publish",
        r#"{"type":"publish","id":1,"topic":"secret","data":1,"ack":true}"#,
        ["unauthorized", "forbidden", "", ""],
    ),
    ("history", r#"{"type":"history","id":1,"topic":"chat/7"}"#, ["unauthorized", "forbidden", "forbidden", ""]),
    (
        "snapshot",
        r#"{"type":"snapshot","id":1,"topic":"secret","up_to":{"epoch":"0000000000000001","offset":1},"data":1}"#,
        ["unauthorized", "forbidden", "conflict", "conflict"],
    ),
    ("lease", r#"{"type":"lease","id":1,"topic":"chat/7"}"#, ["unauthorized", "forbidden", "forbidden", ""]),
    ("will", r#"{"type":"will","id":1,"will":{"topic":"secret","data":1}}"#, ["unauthorized", "forbidden", "", ""]),
    (
        "request",
        r#"{"type":"request","id":1,"topic":"chat/7","data":1}"#,
        ["unauthorized", "forbidden", "forbidden", "no-responder"],
    ),
    ("respond", r#"{"type":"respond","id":1,"topic":"chat/7"}"#, ["unauthorized", "forbidden", "forbidden", ""]),
    ("reply", r#"{"type":"reply","id":1,"reply":0,"data":1}"#, ["unauthorized", "not-found", "not-found", "not-found"]),
    (
        "unsubscribe",
        r#"{"type":"unsubscribe","id":1,"topic":"none"}"#,
        ["unauthorized", "not-subscribed", "not-subscribed", "not-subscribed"],
    ),
    ("ping", r#"{"type":"ping","id":1}"#, ["unauthorized", "", "", ""]),
    ("connect", r#"{"type":"connect","id":1}"#, ["unauthorized", "", "", ""]),
    ("disconnect", r#"{"type":"disconnect","id":1}"#, ["unauthorized", "", "", ""]),
    ("enter", r#"{"type":"enter","id":1,"topic":"chat/7"}"#, ["unauthorized", "forbidden", "forbidden", ""]),
    (
        "update",
        r#"{"type":"update","id":1,"topic":"chat/7","info":1}"#,
        ["unauthorized", "forbidden", "forbidden", "not-found"],
    ),
    ("leave", r#"{"type":"leave","id":1,"topic":"chat/7"}"#, ["unauthorized", "not-found", "not-found", "not-found"]),
    ("members", r#"{"type":"members","id":1,"topic":"chat/7"}"#, ["unauthorized", "forbidden", "forbidden", ""]),
];

const OPERATOR: &str = "rk_operator";

/// Their tables.
pub(crate) fn tables() -> String {
    let everything = key_table(
        "subscribe = ['#']\npublish = ['#']\nrespond = ['#']\nlease = ['#']\nrights = ['history', 'request', 'presence', 'enter']\napi = ['topics', 'connections', 'metrics', 'inspect']",
    );
    let everything = everything.replace("'shop'", "'operator'");
    let everything = everything.replace(&crate::access::sha256_hex(KEY), &crate::access::sha256_hex(OPERATOR));
    let user = "[[topic]]\nmatch = 'chat/#'\npresence = true\npresence-info = 'client'\n[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\n";
    format!("{user}{}{everything}", key_table("publish = ['#']"))
}

fn guarded() -> Guarded {
    Guarded::start("", &tables())
}

/// The credentials of each in [`WHO`].
pub(crate) fn credentials() -> [Option<String>; 4] {
    [None, Some(token("7", 600, json!({}))), Some(KEY.to_owned()), Some(OPERATOR.to_owned())]
}

/// The request of a table's line: its method, or `WS` for a handshake and `SSE` for a stream.
pub(crate) fn bytes(what: &str, credential: Option<&str>) -> Vec<u8> {
    let (method, path) = what.split_once(' ').unwrap();
    let bearer = credential.map(|credential| format!("Authorization: Bearer {credential}\r\n")).unwrap_or_default();
    let (method, fields) = match method {
        "SSE" => ("GET", "Accept: text/event-stream\r\n".to_owned()),
        "WS" if path == "/ws" => ("GET", format!("Sec-WebSocket-Protocol: ringyard.v1\r\n{UPGRADE}")),
        "WS" => ("GET", UPGRADE.to_owned()),
        _ if what == "POST /pub" => ("POST", "Content-Type: application/json\r\n".to_owned()),
        method => (method, String::new()),
    };
    let body = match what {
        "POST /pub" => r#"{"messages":[{"topic":"chat/7","data":1}]}"#,
        _ if method == "POST" && path.starts_with("/pub") => "x",
        _ => "",
    };
    let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}{bearer}{length}\r\n{body}").into_bytes()
}

/// What a request is answered with first: it may be all of it, as to `HEAD`.
async fn status(server: SocketAddr, what: &str, credential: Option<&str>) -> u16 {
    status_on(Http::open(server).await, what, credential).await
}

async fn status_on(mut http: Http, what: &str, credential: Option<&str>) -> u16 {
    http.send(bytes(what, credential)).await;
    let mut line = [0; "HTTP/1.1 200".len()];
    timeout(PATIENCE, http.stream.read_exact(&mut line)).await.expect("in time").expect("an answer");
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_endpoint_is_as_the_table_says() {
    let guarded = guarded();
    for (server, table) in [(guarded.broker.address, PUBLIC), (guarded.broker.admin, OPERATORS)] {
        for (what, expected) in table {
            // So that there is such a topic.
            assert_eq!(status(guarded.broker.address, "POST /pub/chat/7", Some(KEY)).await, 200);
            for ((who, credential), expected) in WHO.iter().zip(credentials()).zip(expected) {
                assert_eq!(status(server, what, credential.as_deref()).await, *expected, "{what} as {who}");
                // On a connection that was used before the control plane answers what a shard does else.
                let mut used = Http::open(server).await;
                used.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                assert_eq!(used.answer().await.status, 200);
                let again = status_on(used, what, credential.as_deref()).await;
                assert_eq!(again, *expected, "{what} as {who} after another request");
            }
        }
    }
}

#[tokio::test]
async fn the_tables_have_every_method_of_every_path() {
    let guarded = guarded();
    for (server, table) in [(guarded.broker.address, PUBLIC), (guarded.broker.admin, OPERATORS)] {
        let described = request(server, "GET /api/openapi.json HTTP/1.1", b"").await.json();
        for (path, methods) in described["paths"].as_object().unwrap() {
            let is_file = path.contains('.') && path != "/api/openapi.json";
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                if methods[method.to_lowercase()].is_null() {
                    // And the description has every method.
                    let what = format!("{method} {}", path.replace(['{', '}'], ""));
                    assert_eq!(status(server, &what, Some(OPERATOR)).await, 405, "{what}");
                    continue;
                }
                for way in ways(method, path) {
                    let is_listed = |(what, _): &(&str, _)| {
                        what.split_once(' ').is_some_and(|(listed, target)| listed == way && is_of(target, path))
                    };
                    assert!(is_file || table.iter().any(is_listed), "the table lacks {way} {path}");
                }
            }
        }
    }
}

/// As what the tables have a method of a path: a `GET` may be a handshake or ask for a stream as well.
fn ways<'a>(method: &'a str, path: &str) -> Vec<&'a str> {
    match (method, path) {
        ("GET", "/sub/{filter}") => vec!["GET", "SSE", "WS"],
        ("GET", "/sub") => vec!["GET", "SSE"],
        ("GET", "/pub/{topic}" | "/bus/{topic}" | "/ws") => vec!["GET", "WS"],
        _ => vec![method],
    }
}

/// Whether a target is one of this path. What stands for a part of it has no `/`, or, outside of `/api`, is all the rest.
fn is_of(target: &str, path: &str) -> bool {
    let target = target.split('?').next().unwrap();
    if let Some((prefix, "")) = path.split_once('{').map(|(prefix, rest)| (prefix, rest.split_once('}').unwrap().1))
        && !path.starts_with("/api/")
    {
        return target.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    }
    let (target, path): (Vec<_>, Vec<_>) = (target.split('/').collect(), path.split('/').collect());
    target.len() == path.len() && target.iter().zip(path).all(|(own, part)| *own == part || part.starts_with('{'))
}

/// The results of a batch that publishes to a topic that users may use, to one that they may not, and to both at once.
#[tokio::test]
async fn every_item_of_a_batch_is_judged_by_itself() {
    let guarded = guarded();
    let items = [
        r#"{"topic":"chat/7","data":1}"#,
        r#"{"topic":"secret","data":2}"#,
        r#"{"topics":["secret","chat/7"],"data":3}"#,
    ];
    let forms = [
        ("application/json", format!("{{\"messages\":[{}]}}", items.join(","))),
        ("application/x-ndjson", format!("{}\n", items.join("\n"))),
    ];
    let mut secret = connected(guarded.address(), OPERATOR).await;
    secret.subscribe(&["secret"]).await;
    for (kind, body) in forms {
        for (who, credential) in WHO.iter().zip(credentials()) {
            let Some(credential) = credential else {
                let head = format!("POST /pub HTTP/1.1\r\nContent-Type: {kind}");
                assert_eq!(request(guarded.address(), &head, body.as_bytes()).await.status, 401, "{kind}");
                continue;
            };
            let head = format!("POST /pub HTTP/1.0\r\nContent-Type: {kind}\r\nAuthorization: Bearer {credential}");
            let mut http = Http::open(guarded.address()).await;
            let length = format!("\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            http.send(head + &length).await;
            let mut answer = String::new();
            timeout(PATIENCE, http.stream.read_to_string(&mut answer)).await.expect("in time").unwrap();
            let forbidden = answer.matches("\"forbidden\"").count();
            let published = answer.matches("\"offset\"").count();
            let expected = if *who == "user" { (2, 2) } else { (0, 4) };
            assert_eq!((forbidden, published), expected, "{kind} as {who}: {answer}");
            let arrived = if *who == "user" { &[][..] } else { &[2, 3] };
            for data in arrived {
                assert_eq!(secret.json().await["data"], *data, "{kind} as {who}");
            }
        }
    }
}

#[tokio::test]
async fn every_command_is_as_the_table_says() {
    let guarded = guarded();
    for (_, command, expected) in COMMANDS {
        for ((who, credential), expected) in WHO.iter().zip(credentials()).zip(expected) {
            let mut client = match &credential {
                Some(credential) => connected(guarded.broker.address, credential).await,
                None => open_v1(guarded.broker.address).await,
            };
            let answer = client.command(serde_json::from_str::<Value>(command).unwrap()).await;
            assert_eq!(answer["code"].as_str().unwrap_or_default(), *expected, "{command} as {who}: {answer}");
        }
    }
    let listed: BTreeSet<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    for command in CommandType::ALL.map(CommandType::as_str) {
        assert!(command == "pong" || listed.contains(command), "the table lacks {command}");
    }
}
