//! Nothing gets past access control: every endpoint and every command, as everybody, against one written table.
//!
//! `200` stands for "it is done", whatever the request is answered exactly; the tables say who is refused and how. That they
//! have every endpoint and every command is checked against the API's own description and the protocol's list.

use std::collections::BTreeSet;

use protocol::v1::CommandType;
use serde_json::{Value, json};

use crate::access::{Guarded, KEY, connected, key_table, token};
use crate::http::request;
use crate::ws::{open_v1, try_open};

/// Who asks: nobody in particular; a user whose token grants `chat/+`; a key that may publish and has no scope; a key that may
/// do everything.
const WHO: [&str; 4] = ["anonymous", "user", "key", "operator"];

/// Endpoints of the public port, with a topic that the user may use and one that it may not.
const PUBLIC: &[(&str, [u16; 4])] = &[
    ("POST /pub/chat/7", [401, 200, 200, 200]),
    ("POST /pub/secret", [401, 403, 200, 200]),
    ("POST /pub", [401, 200, 200, 200]),
    // Nobody serves it: who may ask learns that.
    ("POST /request/chat/7", [401, 403, 403, 404]),
    ("POST /request/secret", [401, 403, 403, 404]),
    ("WS /sub/chat/7", [401, 101, 403, 101]),
    ("WS /sub/secret", [401, 403, 403, 101]),
    ("WS /sub/chat/7?last=1", [401, 403, 403, 101]),
    ("GET /sub/chat/7", [401, 200, 403, 200]),
    ("GET /sub/secret", [401, 403, 403, 200]),
    ("GET /sub/chat/7?last=1", [401, 403, 403, 200]),
    ("SSE /sub/chat/7", [401, 200, 403, 200]),
    ("SSE /sub/secret", [401, 403, 403, 200]),
    ("SSE /sub/chat/7?last=1", [401, 403, 403, 200]),
    ("SSE /sub?topic=chat/7&topic=secret", [401, 403, 403, 200]),
    ("WS /pub/chat/7", [401, 101, 101, 101]),
    ("WS /pub/secret", [401, 403, 101, 101]),
    ("WS /bus/chat/7", [401, 101, 403, 101]),
    ("WS /bus/secret", [401, 403, 403, 101]),
    ("WS /ws", [101, 101, 101, 101]),
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

fn guarded() -> Guarded {
    let everything = key_table(
        "subscribe = ['#']\npublish = ['#']\nrespond = ['#']\nlease = ['#']\nrights = ['history', 'request', 'presence', 'enter']\napi = ['topics', 'connections', 'metrics', 'inspect']",
    );
    let everything = everything.replace("'shop'", "'operator'");
    let everything = everything.replace(&crate::access::sha256_hex(KEY), &crate::access::sha256_hex(OPERATOR));
    let user = "[[topic]]\nmatch = 'chat/#'\npresence = true\npresence-info = 'client'\n[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\n";
    Guarded::start("", &format!("{user}{}{everything}", key_table("publish = ['#']")))
}

/// The credentials of each in [`WHO`].
fn credentials() -> [Option<String>; 4] {
    [None, Some(token("7", 600, json!({}))), Some(KEY.to_owned()), Some(OPERATOR.to_owned())]
}

async fn status(server: std::net::SocketAddr, what: &str, credential: Option<&str>) -> u16 {
    let bearer = credential.map(|credential| format!("Bearer {credential}"));
    let (method, path) = what.split_once(' ').unwrap();
    if method == "WS" {
        let mut fields = vec![("sec-websocket-protocol", "ringyard.v1")];
        fields.retain(|_| path == "/ws");
        fields.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        return match try_open(server, path, &fields).await {
            Ok(_) => 101,
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
            Err(error) => panic!("{what}: {error}"),
        };
    }
    let bearer = bearer.map(|bearer| format!("\r\nAuthorization: {bearer}")).unwrap_or_default();
    let (method, bearer) = match method {
        "SSE" => ("GET", format!("\r\nAccept: text/event-stream{bearer}")),
        method => (method, bearer),
    };
    let (kind, body) = match what {
        "POST /pub" => ("\r\nContent-Type: application/json", r#"{"messages":[{"topic":"chat/7","data":1}]}"#),
        _ if method == "POST" && path.starts_with("/pub") => ("", "x"),
        _ => ("", ""),
    };
    request(server, &format!("{method} {path} HTTP/1.1{kind}{bearer}"), body.as_bytes()).await.status
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
            }
        }
        let described = request(server, "GET /api/openapi.json HTTP/1.1", b"").await.json();
        let listed: BTreeSet<String> = table.iter().map(|(what, _)| family(what.split_once(' ').unwrap().1)).collect();
        for path in described["paths"].as_object().unwrap().keys() {
            let is_file = path.contains('.') && path != "/api/openapi.json";
            assert!(is_file || listed.contains(&family(path)), "the table lacks {path}");
        }
    }
}

/// A path without what differs between two of its kind.
fn family(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    for (prefix, rest) in [("/sub/", ""), ("/bus/", ""), ("/pub/", ""), ("/request/", "")] {
        if path.starts_with(prefix) {
            return format!("{prefix}{rest}");
        }
    }
    if let Some(rest) = path.strip_prefix("/api/topics/") {
        return format!("/api/topics/*{}", if rest.ends_with("/messages") { "/messages" } else { "" });
    }
    if path.starts_with("/api/connections/") {
        return "/api/connections/*/trace".to_owned();
    }
    match path.strip_prefix("/api/users/") {
        Some(rest) => format!("/api/users/*/{}", rest.rsplit('/').next().unwrap()),
        None => path.to_owned(),
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
