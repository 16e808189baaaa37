//! Presence of users with tokens: one member however many tabs, what a token says of it, and which rights it takes.

use serde_json::{Value, json};

use crate::access::{Guarded, KEY, connected, key_table, token};
use crate::http::request;
use crate::presence::ok;
use crate::ws::{Ws, open_v1};

/// Users may enter rooms and watch them.
const TABLES: &str = "[[topic]]\nmatch = 'room/#'\npresence = true\n[[allow]]\nprincipal = 'user'\nsubscribe = ['room/+']\nrights = ['presence', 'enter']\n";

fn enter() -> Value {
    json!({"type": "enter", "id": 2, "topic": "room/1"})
}

/// What is said of `ada` next.
async fn seen(watcher: &mut Ws) -> Value {
    let message = watcher.json().await;
    assert_eq!(message["key"], "ada", "{message}");
    if message["removed"] == true {
        json!("gone")
    } else {
        json!([message["data"]["info"], message["data"]["connections"]])
    }
}

#[tokio::test]
async fn two_tabs_of_a_user_are_one_member() {
    let guarded = Guarded::with("", TABLES, &["--session-grace", "1s"]);
    let server = guarded.address();
    let info = json!({"info": {"name": "Ada L.", "id": 12345678901234567890_u64}});
    let mut watcher = connected(server, &token("eve", 600, json!({}))).await;
    ok(&mut watcher, json!({"type": "subscribe", "id": 1, "topic": "$presence/room/1"})).await;
    assert_eq!(watcher.json().await["type"], "state-end");
    let mut tabs = Vec::new();
    for count in 1..=2 {
        let mut tab = connected(server, &token("ada", 600, info.clone())).await;
        ok(&mut tab, enter()).await;
        assert_eq!(seen(&mut watcher).await, json!([info["info"], count]));
        tabs.push(tab);
    }
    let own = json!({"type": "update", "id": 3, "topic": "room/1", "info": "the boss"});
    assert_eq!(tabs[0].command(own).await["code"], "forbidden", "her token says who she is");
    for left in [json!([info["info"], 1]), json!("gone")] {
        drop(tabs.pop());
        assert_eq!(seen(&mut watcher).await, left);
    }
}

#[tokio::test]
async fn watching_and_entering_are_rights_of_their_own() {
    let tables = TABLES.replace("rights = ['presence', 'enter']", "");
    let guarded = Guarded::start("", &tables);
    let server = guarded.address();
    let with = |rights: Value| json!({"topics": {"subscribe": ["room/+"], "rights": rights}});
    let commands = [
        enter(),
        json!({"type": "members", "id": 3, "topic": "room/1"}),
        json!({"type": "subscribe", "id": 4, "topic": "$presence/room/1"}),
    ];
    for (rights, expected) in [
        (json!([]), [false, false, false]),
        (json!(["enter"]), [true, false, false]),
        (json!(["presence"]), [false, true, true]),
        (json!(["presence", "enter"]), [true, true, true]),
    ] {
        let mut user = connected(server, &token("ada", 600, with(rights.clone()))).await;
        for (command, may) in commands.iter().zip(expected) {
            user.send(command.to_string()).await;
            let answer = loop {
                let message = user.json().await;
                if message["id"] == command["id"] {
                    break message;
                }
            };
            let code = answer["code"].as_str();
            assert_eq!(code, (!may).then_some("forbidden"), "{command} with {rights}: {answer}");
        }
    }
    let mut nobody = open_v1(server).await;
    assert_eq!(nobody.command(enter()).await["code"], "unauthorized");
}

/// Rights that end while a user is there: it is there no more, and stays connected.
#[tokio::test]
async fn who_may_not_enter_any_more_is_gone() {
    let guarded = Guarded::start("", TABLES);
    let server = guarded.address();
    let own = json!({"topics": {"subscribe": ["room/+"], "rights": ["presence"]}});
    let mut watcher = connected(server, &token("eve", 600, own)).await;
    ok(&mut watcher, json!({"type": "subscribe", "id": 1, "topic": "$presence/room/1"})).await;
    assert_eq!(watcher.json().await["type"], "state-end");
    let mut ada = connected(server, &token("ada", 600, json!({}))).await;
    ok(&mut ada, enter()).await;
    assert_eq!(seen(&mut watcher).await, json!([null, 1]));
    guarded.rewrite("", &TABLES.replace(", 'enter'", ""));
    assert_eq!(seen(&mut watcher).await, json!("gone"));
    assert_eq!(ada.command(enter()).await["code"], "forbidden");
}

#[tokio::test]
async fn operators_see_names_and_connections_and_clients_do_not() {
    for on_public_port in [false, true] {
        let admin = if on_public_port { "public" } else { "127.0.0.1:0" };
        let tables = format!("{TABLES}{}", key_table("api = ['inspect']"));
        let guarded = Guarded::with("", &tables, &["--admin-listen", admin]);
        let mut ada = connected(guarded.address(), &token("ada", 600, json!({"info": "secret"}))).await;
        ok(&mut ada, enter()).await;
        let known = json!({"count": 1, "members": [{"member": "ada", "connections": 1}], "more": false});
        let counted = json!({"count": 1, "members": [], "more": true});
        let of_user = token("eve", 600, json!({}));
        for (credential, is_key) in [(Some(KEY), true), (None, false), (Some(&of_user), false)] {
            let bearer = credential.map(|credential| format!("\r\nAuthorization: Bearer {credential}"));
            let head = format!("GET /api/topics/room%2F1 HTTP/1.1{}", bearer.unwrap_or_default());
            let page = request(guarded.broker.admin, &head, b"").await;
            let expected = if is_key || !on_public_port { &known } else { &counted };
            assert_eq!((page.status, &page.json()["presence"]), (200, expected), "{admin}: {page:?}");
            assert!(!String::from_utf8_lossy(&page.body).contains("secret"));
        }
    }
}
