//! Leases and wills with access control: who may take a lease and leave a will, and what becomes of them when that changes.

use serde_json::{Value, json};

use crate::access::{Guarded, KEY, connected, key_table, token};
use crate::http::{Http, await_stat, request};
use crate::leases::{lease, publish, take};
use crate::presence::ok;
use crate::ws::{Ws, try_open};

/// Users drive, publish news and watch; `loco/...` is exclusive.
const TABLES: &str = "[[topic]]\nmatch = 'loco/#'\nexclusive = true\n[[allow]]\nprincipal = 'user'\n\
                      subscribe = ['loco/+', 'news']\npublish = ['loco/+', 'news']\nlease = ['loco/+']\n";

fn will(more: Value) -> Value {
    let mut will = json!({"topic": "news", "data": "gone"});
    will.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    json!({"type": "will", "id": 1, "will": will})
}

async fn user(guarded: &Guarded, name: &str, seconds: i64) -> Ws {
    connected(guarded.address(), &token(name, seconds, json!({}))).await
}

/// A user that watches the news.
async fn watcher(guarded: &Guarded) -> Ws {
    let mut watcher = user(guarded, "eve", 600).await;
    watcher.subscribe(&["news"]).await;
    watcher
}

/// A client with the key [`KEY`].
async fn operator(guarded: &Guarded) -> Ws {
    let bearer = format!("Bearer {KEY}");
    let fields = [("sec-websocket-protocol", "ringyard.v1"), ("authorization", &*bearer)];
    try_open(guarded.address(), "/ws", &fields).await.expect("an upgrade")
}

#[tokio::test]
async fn taking_a_lease_and_leaving_a_will_need_their_grants() {
    // What tokens grant, they grant besides what the tables do.
    let nothing =
        "[[topic]]\nmatch = 'loco/#'\nexclusive = true\n[[allow]]\nprincipal = 'user'\npublish = ['elsewhere']\n";
    let guarded = Guarded::start("", nothing);
    let server = guarded.address();
    let watch = json!({"type": "subscribe", "id": 2, "topic": "$lease/loco/1"});
    for (topics, expected) in [
        (json!({}), ["forbidden", "forbidden", "forbidden"]),
        (json!({"publish": ["loco/+", "news"]}), ["forbidden", "ok", "forbidden"]),
        (json!({"lease": ["loco/+"]}), ["ok", "forbidden", "forbidden"]),
        (json!({"lease": ["loco/2"], "subscribe": ["loco/1"]}), ["forbidden", "forbidden", "ok"]),
    ] {
        let mut ada = connected(server, &token("ada", 600, json!({"topics": topics}))).await;
        for (command, expected) in [lease(json!({})), will(json!({})), watch.clone()].into_iter().zip(expected) {
            let answer = ada.command(command.clone()).await;
            let said = answer["code"].as_str().unwrap_or("ok");
            assert_eq!(said, expected, "{command} with {topics}: {answer}");
        }
        ok(&mut ada, json!({"type": "disconnect", "id": 3})).await;
    }
    // Others see the user's name. Another tab of the same user has not got the lease.
    let guarded = Guarded::start("", TABLES);
    let mut ada = user(&guarded, "ada", 600).await;
    take(&mut ada, json!({})).await;
    for name in ["ada", "bob"] {
        let refused = user(&guarded, name, 600).await.command(lease(json!({}))).await;
        assert_eq!((&refused["code"], &refused["by"]), (&json!("held"), &json!("ada")), "{refused}");
    }
}

/// What granted a lease is taken away while a client has it, and others wait for it.
#[tokio::test]
async fn a_lease_ends_with_what_granted_it() {
    let guarded = Guarded::start("", TABLES);
    let mut ada = user(&guarded, "ada", 600).await;
    let number = take(&mut ada, json!({})).await;
    let mut bob = user(&guarded, "bob", 600).await;
    bob.send(lease(json!({"wait": 60_000})).to_string()).await;
    guarded.rewrite("", &TABLES.replace("lease = ['loco/+']", "lease = ['loco/2']"));
    let lost = json!({"type": "lease-lost", "topic": "loco/1", "lease": number, "reason": "closed"});
    assert_eq!(ada.json().await, lost);
    let answer = bob.json().await;
    // Whichever of the two heard of it first.
    if answer["type"] == "ok" {
        assert_eq!(bob.json().await["reason"], "closed");
    } else {
        assert_eq!(answer["code"], "held", "{answer}");
    }
    assert_eq!(publish(&mut ada, json!(1), Some(number)).await, "not-holder");
    for client in [&mut ada, &mut bob] {
        assert_eq!(client.command(lease(json!({}))).await["code"], "forbidden");
    }
    take(&mut ada, json!({"topic": "loco/2"})).await;
}

#[tokio::test]
async fn a_will_whose_right_was_taken_away_is_not_published() {
    let guarded = Guarded::with("", &format!("{TABLES}{}", key_table("api = ['connections']")), &[]);
    let mut watcher = watcher(&guarded).await;
    let mut ada = user(&guarded, "ada", 600).await;
    ok(&mut ada, will(json!({}))).await;
    // Who is revoked says nothing any more.
    let head = format!("POST /api/users/ada/revoke HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    assert_eq!(request(guarded.broker.admin, &head, b"").await.status, 200);
    assert_eq!(ada.close_code().await, 4403);
    await_stat(&guarded.broker, "wills_refused", |refused| refused == 1).await;
    // Who may not publish there any more.
    let mut bob = user(&guarded, "bob", 600).await;
    ok(&mut bob, will(json!({}))).await;
    let key = key_table("api = ['connections']");
    guarded.rewrite("", &format!("{}{key}", TABLES.replace("publish = ['loco/+', 'news']", "publish = ['loco/+']")));
    let mut refused = json!(null);
    while refused != "forbidden" {
        refused = bob.command(will(json!({}))).await["code"].clone();
    }
    drop(bob);
    await_stat(&guarded.broker, "wills_refused", |refused| refused == 2).await;
    // Granted again: this is what comes, and nothing before it.
    guarded.rewrite("", &format!("{TABLES}{key}"));
    let mut eve = user(&guarded, "eve", 600).await;
    while eve.command(will(json!({"data": "eve"}))).await["type"] != "ok" {}
    drop(eve);
    assert_eq!(watcher.json().await["data"], "eve");
}

/// A client that is closed because its token has ended is one whose will is wanted.
#[tokio::test]
async fn a_token_that_ends_does_not_void_the_will() {
    let guarded = Guarded::start("grace = '1s'\nleeway = '0s'", TABLES);
    let mut watcher = watcher(&guarded).await;
    let mut ada = user(&guarded, "ada", 2).await;
    ok(&mut ada, will(json!({}))).await;
    let refresh = ada.json().await;
    assert_eq!(refresh["type"], "refresh", "{refresh}");
    assert_eq!(ada.close_code().await, 4401);
    assert_eq!(watcher.json().await["data"], "gone");
}

#[tokio::test]
async fn keys_with_api_override_and_other_keys_do_not() {
    for (api, may) in [("api = ['topics']", true), ("", false)] {
        let key = key_table(&format!("publish = ['loco/+']\nsubscribe = ['loco/+']\n{api}"));
        let guarded = Guarded::start("", &format!("{TABLES}{key}"));
        let mut ada = user(&guarded, "ada", 600).await;
        let number = take(&mut ada, json!({})).await;
        let mut by_socket = operator(&guarded).await;
        let expected = if may { "ok" } else { "not-holder" };
        assert_eq!(publish(&mut by_socket, json!("stop"), None).await, expected, "{api}");
        assert_eq!(publish(&mut by_socket, json!("stop"), Some(number + 1)).await, expected, "{api}");
        let status = if may { 200 } else { 423 };
        for body in ["Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"] {
            let mut http = Http::open(guarded.address()).await;
            let head = format!("POST /pub/loco/1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}");
            assert_eq!(http.send(format!("{head}\r\n{body}")).await.answer().await.status, status, "{api} {body}");
        }
        let items =
            json!({"messages": [{"topic": "loco/1", "data": 1}, {"topics": ["loco/1"], "data": 2}]}).to_string();
        let line = format!("POST /pub HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}");
        let batch = request(guarded.address(), &line, items.as_bytes()).await.json();
        let [first, second] = [&batch["results"][0], &batch["results"][1]["results"][0]];
        for result in [first, second] {
            assert_eq!(result["code"].as_str(), (!may).then_some("not-holder"), "{api}: {batch}");
        }
        // The holder has its lease still.
        assert_eq!(publish(&mut ada, json!("go"), Some(number)).await, "ok");
    }
}
