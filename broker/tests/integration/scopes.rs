//! What operators may ask from elsewhere than the broker's own machine: each endpoint with a key of each scope. From loopback
//! reading is free, so `policy` shows nothing of this. Clients seem to be elsewhere by a proxy's word, at the public port, or are,
//! by an address of this machine that is not loopback, at the operators' own.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::access::{Guarded, connected, sha256_hex, token};
use crate::doors::{own_ip, proxy_header};
use crate::http::{Answer, Http, PATIENCE, request};
use crate::ws::{Ws, open_v1, try_open};

const SCOPES: [&str; 4] = ["topics", "connections", "metrics", "inspect"];

/// One endpoint.
#[derive(Debug)]
struct Row {
    what: &'static str,
    /// Without it: 401 for who brings nothing, 403 for everybody else. `None`: it is for everybody.
    scope: Option<&'static str>,
    /// The status for who may.
    status: u16,
}

const fn anybody(what: &'static str) -> Row {
    Row { what, scope: None, status: 200 }
}

const fn row(what: &'static str, scope: &'static str, status: u16) -> Row {
    Row { what, scope: Some(scope), status }
}

/// Where operators have no port of their own these are on the public one.
const BOTH: &[Row] = &[
    anybody("GET /healthz"),
    anybody("GET /readyz"),
    anybody("GET /api/openapi.json"),
    anybody("GET /dashboard"),
    anybody("GET /dashboard/main.js"),
    row("GET /metrics", "metrics", 200),
    row("GET /api/stats", "metrics", 200),
    row("GET /api/topics", "topics", 200),
    row("GET /api/topics/chat%2F7", "inspect", 200),
    // There is nothing there; who may not ask does not learn that.
    row("GET /api/none", "connections", 404),
];

/// Only on the operators' own port.
const OWN: &[Row] = &[
    row("GET /api/connections", "connections", 200),
    row("GET /api/connections?user=7", "connections", 200),
    row("GET /api/connections/9-0-0/trace", "inspect", 404),
    row("POST /api/users/x/close", "connections", 200),
    row("POST /api/users/x/revoke", "connections", 200),
    row("GET /api/topics/chat%2F7/messages", "inspect", 200),
    row("DELETE /api/topics/chat%2F7/messages", "topics", 200),
];

/// Topics of the broker's own, and the scope that grants each.
const SYS: [(&str, &str); 3] = [("$sys/load", "metrics"), ("$sys/topics", "topics"), ("$sys/closed", "metrics")];

fn key_of(scope: &str) -> String {
    format!("rk_{scope}")
}

/// A key for each scope, one that may do everything but operate, and users who may do the same.
fn tables() -> String {
    let mut tables =
        "[[allow]]\nprincipal = 'user'\nsubscribe = ['#']\npublish = ['#']\nrights = ['history']\n".to_owned();
    let table = |name: &str, lists: &str| {
        format!("[[key]]\nname = '{name}'\nsha256 = '{}'\n{lists}\n", sha256_hex(&key_of(name)))
    };
    tables +=
        &table("unscoped", "subscribe = ['#']\npublish = ['#']\nrights = ['history', 'request', 'presence', 'enter']");
    for scope in SCOPES {
        tables += &table(scope, &format!("api = ['{scope}']"));
    }
    tables
}

/// Everybody who asks, by name: nobody in particular, a user, a key without scopes, one with each.
fn credentials() -> Vec<(&'static str, Option<String>)> {
    let mut credentials = vec![("nobody", None), ("a user", Some(token("7", 600, json!({}))))];
    let keys = ["unscoped"].into_iter().chain(SCOPES);
    credentials.extend(keys.map(|name| (name, Some(key_of(name)))));
    credentials
}

/// `before` comes first on the connection.
async fn ask(server: SocketAddr, before: &[u8], what: &str, credential: Option<&str>) -> Answer {
    let bearer = credential.map(|credential| format!("Authorization: Bearer {credential}\r\n")).unwrap_or_default();
    let head = format!("{what} HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Length: 0\r\n\r\n");
    Http::open(server).await.send([before, head.as_bytes()].concat()).await.answer().await
}

/// Asks for each of the rows as everybody.
async fn walk(server: SocketAddr, before: &[u8], rows: impl Iterator<Item = &Row>) {
    for row in rows {
        for (who, credential) in credentials() {
            let expected = match row.scope {
                Some(_) if credential.is_none() => 401,
                Some(scope) if scope != who => 403,
                _ => row.status,
            };
            let answer = ask(server, before, row.what, credential.as_deref()).await;
            assert_eq!(answer.status, expected, "{row:?} as {who}: {answer:?}");
            let challenge = answer.head.lines().find_map(|line| line.strip_prefix("www-authenticate: "));
            let challenged = match expected {
                401 => Some("bearer"),
                403 => Some("bearer error=\"insufficient_scope\""),
                _ => None,
            };
            assert_eq!(challenge, challenged, "{row:?} as {who}: {answer:?}");
        }
        if row.scope.is_some() {
            for bad in ["rk_none", "nonsense", &token("7", -600, json!({}))] {
                let answer = ask(server, before, row.what, Some(bad)).await;
                assert_eq!(answer.status, 401, "{row:?} with {bad}: {answer:?}");
                assert!(answer.head.contains("www-authenticate: bearer error=\"invalid_token\""), "{answer:?}");
            }
        }
    }
}

/// A topic that can be asked about.
async fn begin_a_topic(guarded: &Guarded) {
    assert_eq!(ask(guarded.address(), b"", "POST /pub/chat/7", Some(&key_of("unscoped"))).await.status, 200);
}

#[tokio::test]
async fn from_elsewhere_every_endpoint_takes_a_key_with_its_scope() {
    let arguments = ["--admin-listen", "public", "--proxy-protocol", "--trusted-proxy", "127.0.0.0/8"];
    let guarded = Guarded::with("", &tables(), &arguments);
    for client in [[203, 0, 113, 7], [127, 0, 0, 1]] {
        let header = proxy_header(0x21, client, b"");
        let published = ask(guarded.address(), &header, "POST /pub/chat/7", Some(&key_of("unscoped"))).await;
        assert_eq!(published.status, 200);
        walk(guarded.address(), &header, BOTH.iter()).await;
    }
    // What is only on the operators' own port is not here for anybody.
    let header = proxy_header(0x21, [203, 0, 113, 7], b"");
    for row in OWN {
        for scope in SCOPES {
            let status = ask(guarded.address(), &header, row.what, Some(&key_of(scope))).await.status;
            assert_eq!(status, if row.scope == Some(scope) { 404 } else { 403 }, "{row:?} with {scope}");
        }
    }
}

/// An address of the operators' own port that is not loopback.
fn elsewhere(guarded: &Guarded) -> Option<SocketAddr> {
    own_ip().map(|ip| SocketAddr::new(ip, guarded.broker.admin.port()))
}

#[tokio::test]
async fn from_elsewhere_the_own_port_takes_a_key_with_the_scope_too() {
    let guarded = Guarded::with("", &tables(), &["--admin-listen", "0.0.0.0:0"]);
    let Some(server) = elsewhere(&guarded) else { return };
    begin_a_topic(&guarded).await;
    walk(server, b"", BOTH.iter().chain(OWN)).await;
    let described = ask(server, b"", "GET /api/openapi.json", None).await.json();
    let listed: BTreeSet<String> = BOTH.iter().chain(OWN).map(|row| described_as(row.what)).collect();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"].into_iter().filter(|method| methods[method].is_object())
        {
            let endpoint = format!("{} {path}", method.to_uppercase());
            let is_guarded = path == "/metrics" || path.starts_with("/api/");
            assert!(!is_guarded || listed.contains(&endpoint), "the table lacks {endpoint}");
        }
    }
}

/// As the API's description writes it.
fn described_as(what: &str) -> String {
    let what = what.split('?').next().unwrap();
    what.replace("chat%2F7", "{topic}").replace("/x/", "/{user}/").replace("9-0-0", "{connection}")
}

/// From the broker's own machine reading is free, and changing is not.
#[tokio::test]
async fn from_this_machine_what_changes_something_takes_its_scope() {
    let guarded = Guarded::start("", &tables());
    begin_a_topic(&guarded).await;
    let server = guarded.broker.admin;
    let is_free = |row: &&Row| row.what.starts_with("GET ") && row.scope != Some("inspect");
    for row in BOTH.iter().chain(OWN).filter(is_free) {
        assert_eq!(ask(server, b"", row.what, None).await.status, row.status, "{row:?}");
    }
    assert_eq!(ask(server, b"", "GET /api/topics/chat%2F7", None).await.status, 200);
    walk(server, b"", OWN.iter().filter(|row| !is_free(row))).await;
}

/// The operators' `/ws` with a key in its handshake.
async fn operators_ws(server: SocketAddr, credential: Option<&str>) -> Ws {
    let bearer = credential.map(|credential| format!("Bearer {credential}"));
    let mut fields = vec![("sec-websocket-protocol", "ringyard.v1"), ("host", "localhost")];
    fields.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    try_open(server, "/ws", &fields).await.expect("an upgrade")
}

async fn subscribing(client: &mut Ws, topic: &str) -> Value {
    client.command(json!({"type": "subscribe", "id": 1, "topic": topic, "state": false})).await
}

#[tokio::test]
async fn from_elsewhere_the_operators_web_socket_takes_a_key() {
    let guarded = Guarded::with("", &tables(), &["--admin-listen", "0.0.0.0:0"]);
    let Some(server) = elsewhere(&guarded) else { return };
    for (topic, scope) in SYS {
        for name in SCOPES.into_iter().chain(["unscoped"]) {
            // `$sys/load` is everybody's whom a grant allows it; no `#` does.
            let expected = if name == scope { None } else { Some("forbidden") };
            let mut client = operators_ws(server, Some(&key_of(name))).await;
            let answer = subscribing(&mut client, topic).await;
            assert_eq!(answer["code"].as_str(), expected, "{topic} with {name}: {answer}");
        }
        let mut nobody = operators_ws(server, None).await;
        let answer = subscribing(&mut nobody, topic).await;
        assert_eq!(answer["code"], "unauthorized", "{topic}: {answer}");
        let connect = json!({"type": "connect", "id": 2, "token": key_of(scope)});
        assert_eq!(nobody.command(connect).await["type"], "ok");
        assert_eq!(subscribing(&mut nobody, topic).await["type"], "ok", "{topic}");
    }
    let bad = [("sec-websocket-protocol", "ringyard.v1"), ("host", "localhost"), ("authorization", "Bearer rk_none")];
    assert!(try_open(server, "/ws", &bad).await.err().expect("refused").to_string().contains("401"));
    // Who is on this machine reads without one, and does nothing else.
    let near = SocketAddr::from(([127, 0, 0, 1], server.port()));
    for (topic, _) in SYS {
        assert_eq!(subscribing(&mut open_v1(near).await, topic).await["type"], "ok", "{topic}");
    }
    let mut near = open_v1(near).await;
    let publish = json!({"type": "publish", "id": 3, "topic": "a", "data": 1, "ack": true});
    assert_eq!(near.command(publish).await["code"], "forbidden");
    assert_eq!(subscribing(&mut near, "a").await["code"], "forbidden");
}

/// With `[auth]` and without any `[[key]]` nobody could say who an operator is: who is on the broker's machine is one.
/// Payloads and traces take a key wherever there is access control, so nobody sees them.
#[tokio::test]
async fn without_any_key_who_is_on_this_machine_is_an_operator() {
    let guarded = Guarded::start("", "[[allow]]\nprincipal = 'user'\nsubscribe = ['#']\npublish = ['#']\n");
    let (server, user) = (guarded.address(), token("7", 600, json!({})));
    assert_eq!(ask(server, b"", "POST /pub/chat/7", Some(&user)).await.status, 200);
    let admin = guarded.broker.admin;
    for row in BOTH.iter().chain(OWN) {
        let looks_into = row.what.ends_with("/messages") && row.what.starts_with("GET") || row.what.ends_with("/trace");
        let expected = if looks_into { 401 } else { row.status };
        assert_eq!(ask(admin, b"", row.what, None).await.status, expected, "{row:?}");
    }
    // What they do has an effect.
    let closed = request(admin, "POST /api/users/7/revoke HTTP/1.1", b"").await;
    assert_eq!(closed.status, 200);
    assert_eq!(ask(server, b"", "POST /pub/chat/7", Some(&user)).await.status, 401);
    // They are no publishers.
    assert_eq!(ask(admin, b"", "POST /pub/chat/7", None).await.status, 401);
}

/// Who reads without a key needs one as soon as there is one, and changes nothing before; who is on the broker's machine does.
#[tokio::test]
async fn with_the_first_key_operators_from_elsewhere_need_one() {
    let users = "[[allow]]\nprincipal = 'user'\nsubscribe = ['#']\n";
    let guarded = Guarded::with("", users, &["--admin-listen", "0.0.0.0:0"]);
    let Some(server) = elsewhere(&guarded) else { return };
    let mut far = operators_ws(server, None).await;
    let mut near = open_v1(SocketAddr::from(([127, 0, 0, 1], server.port()))).await;
    for client in [&mut far, &mut near] {
        assert_eq!(subscribing(client, "$sys/load").await["type"], "ok");
    }
    assert_eq!(ask(server, b"", "GET /metrics", None).await.status, 200);
    for row in OWN.iter().filter(|row| !row.what.starts_with("GET")) {
        assert_eq!(ask(server, b"", row.what, None).await.status, 401, "it changes something: {row:?}");
    }
    guarded.rewrite("", &tables());
    // It reads until then: messages come every second.
    assert_eq!(timeout(PATIENCE, far.close_code()).await.expect("closed in time"), 4403);
    assert_eq!(ask(server, b"", "GET /metrics", None).await.status, 401);
    near.send(json!({"type": "ping", "id": 2}).to_string()).await;
    while near.json().await["type"] != "pong" {}
}

#[tokio::test]
async fn a_key_that_is_removed_is_good_for_nothing() {
    let guarded = Guarded::start("", &tables());
    let (server, admin, key) = (guarded.address(), guarded.broker.admin, key_of("connections"));
    let mut client = connected(server, &key_of("unscoped")).await;
    let close = "POST /api/users/x/close";
    assert_eq!(ask(admin, b"", close, Some(&key)).await.status, 200);
    guarded.rewrite(
        "",
        "[[key]]\nname = 'other'\nsha256 = '0000000000000000000000000000000000000000000000000000000000000000'\n",
    );
    assert_eq!(client.close_code().await, 4403);
    for (server, what, key) in [(admin, close, &key), (server, "POST /pub/a", &key_of("unscoped"))] {
        let answer = ask(server, b"", what, Some(key)).await;
        assert!(answer.status == 401 && answer.head.contains("invalid_token"), "{what}: {answer:?}");
    }
}
