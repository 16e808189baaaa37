//! Sessions and presence over real sockets: who is there, through reconnects, takeovers, closed tabs and dead connections, and
//! who may know. What watchers are sent is compared in full: that nothing came is shown by what comes next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::http::{await_stat, request};
use crate::shutdown::{exit, signal};
use crate::ws::{Ws, open_v1};

/// A broker where clients may be present in every `room/...`, with further keys of that rule and further arguments.
struct Rooms {
    broker: Broker,
    _folder: tempfile::TempDir,
}

impl Rooms {
    fn start(keys: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("ringyard.toml");
        std::fs::write(&config, format!("[[topic]]\nmatch = 'room/#'\npresence = true\n{keys}\n")).unwrap();
        let broker = Broker::start(&[&["--config", config.to_str().unwrap()], arguments].concat());
        Self { broker, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.broker.address
    }
}

/// A client with a session, perhaps one that it had; the answer to its `connect`.
pub(crate) async fn join(server: SocketAddr, session: &Value) -> (Ws, Value) {
    let mut client = open_v1(server).await;
    let answer = client.command(json!({"type": "connect", "id": "c", "session": session})).await;
    assert_eq!((&answer["type"], answer["session"].is_string()), (&json!("ok"), true), "{answer}");
    (client, answer)
}

pub(crate) async fn ok(client: &mut Ws, command: Value) {
    let answer = client.command(command).await;
    assert_eq!(answer["type"], "ok", "{answer}");
}

async fn enter(client: &mut Ws, info: Value) {
    ok(client, json!({"type": "enter", "id": "e", "topic": "room/1", "info": info})).await;
}

/// A client that watches who is in `room/1`, of whom it is sent everything that it knows at first.
async fn watcher(server: SocketAddr) -> Ws {
    let mut watcher = open_v1(server).await;
    let answer = watcher.command(json!({"type": "subscribe", "id": 1, "topic": "$presence/room/1"})).await;
    assert_eq!(answer["topics"][0]["history"], "keyed", "{answer}");
    watcher
}

/// What is said next of a member: its info and its connections; `gone`.
async fn seen(watcher: &mut Ws) -> (String, Value) {
    let message = watcher.json().await;
    if message["type"] == "state-end" {
        return Box::pin(seen(watcher)).await;
    }
    let member = message["key"].as_str().unwrap_or_else(|| panic!("no member: {message}")).to_owned();
    let data = &message["data"];
    let what = if message["removed"] == true { json!("gone") } else { json!([data["info"], data["connections"]]) };
    (member, what)
}

/// Somebody else comes and goes. Whatever was said before is seen first.
async fn nothing_but_a_visitor(server: SocketAddr, watcher: &mut Ws) {
    let mut visitor = open_v1(server).await;
    enter(&mut visitor, json!("visitor")).await;
    let (member, what) = seen(watcher).await;
    assert_eq!(what, json!(["visitor", 1]));
    visitor.close().await;
    assert_eq!(seen(watcher).await, (member, json!("gone")));
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn members_enter_say_something_else_and_leave() {
    let rooms = Rooms::start("", &[]);
    let mut watcher = watcher(rooms.address()).await;
    let mut ada = open_v1(rooms.address()).await;
    enter(&mut ada, json!({"name": "Ada"})).await;
    let (member, what) = seen(&mut watcher).await;
    assert_eq!(what, json!([{"name": "Ada"}, 1]));
    ok(&mut ada, json!({"type": "update", "id": 2, "topic": "room/1", "info": {"name": "Ada", "typing": true}})).await;
    assert_eq!(seen(&mut watcher).await, (member.clone(), json!([{"name": "Ada", "typing": true}, 1])));
    let mut bob = open_v1(rooms.address()).await;
    let listed = bob.command(json!({"type": "members", "id": 3, "topic": "room/1"})).await;
    let expected = json!({"type": "ok", "id": 3, "count": 1, "more": false,
        "members": [{"member": member, "info": {"name": "Ada", "typing": true}, "connections": 1}]});
    assert_eq!(listed, expected);
    // Operators see who is there, not what they say.
    let page = request(rooms.broker.admin, "GET /api/topics/room%2F1 HTTP/1.1", b"").await.json();
    let present = json!({"count": 1, "members": [{"member": member, "connections": 1}], "more": false});
    assert_eq!((&page["presence"], &page["epoch"], &page["offset"]), (&present, &Value::Null, &json!(0)), "{page}");
    assert_eq!((&page["rule"]["presence_members"], &page["rule"]["presence_info"]), (&json!(1000), &json!("token")));
    ok(&mut ada, json!({"type": "leave", "id": 4, "topic": "room/1"})).await;
    assert_eq!(seen(&mut watcher).await, (member, json!("gone")));
    let nobody = bob.command(json!({"type": "members", "id": 5, "topic": "room/1"})).await;
    assert_eq!((&nobody["count"], &nobody["members"]), (&json!(0), &json!([])));
}

/// A page that is loaded again, or a phone that changes networks: its connections are spread over both shards.
#[tokio::test]
async fn a_client_that_comes_back_within_the_grace_was_never_away() {
    let rooms = Rooms::start("", &["--session-grace", "20s"]);
    let server = rooms.address();
    let mut watcher = watcher(server).await;
    let (mut page, first) = join(server, &json!(true)).await;
    enter(&mut page, json!("here")).await;
    assert_eq!(seen(&mut watcher).await, (text(&first["member"]), json!(["here", 1])));
    for reload in 0..10 {
        if reload % 2 == 0 {
            page.stream.get_ref().set_zero_linger().unwrap();
        }
        drop(page);
        let (again, answer) = join(server, &first["session"]).await;
        assert_eq!((&answer["resumed"], &answer["member"]), (&json!(true), &first["member"]), "{answer}");
        page = again;
    }
    nothing_but_a_visitor(server, &mut watcher).await;
    ok(&mut page, json!({"type": "update", "id": 2, "topic": "room/1", "info": "still here"})).await;
    assert_eq!(seen(&mut watcher).await, (text(&first["member"]), json!(["still here", 1])));
}

#[tokio::test]
async fn a_client_that_stays_away_is_gone_once_and_after_its_grace() {
    let rooms = Rooms::start("", &["--session-grace", "2s"]);
    let server = rooms.address();
    let mut watcher = watcher(server).await;
    let (mut page, answer) = join(server, &json!(true)).await;
    enter(&mut page, json!(1)).await;
    assert_eq!(seen(&mut watcher).await.1, json!([1, 1]));
    let began = Instant::now();
    drop(page);
    assert_eq!(seen(&mut watcher).await, (text(&answer["member"]), json!("gone")));
    assert!((1900..9000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    nothing_but_a_visitor(server, &mut watcher).await;
    let (_late, other) = join(server, &answer["session"]).await;
    assert_eq!(other["resumed"], false);
    assert_ne!((&other["session"], &other["member"]), (&answer["session"], &answer["member"]));
}

#[tokio::test]
async fn who_says_goodbye_is_gone_at_once() {
    let rooms = Rooms::start("", &["--session-grace", "5m"]);
    let server = rooms.address();
    let mut watcher = watcher(server).await;
    for way in ["disconnect", "unsubscribe"] {
        let (mut page, answer) = join(server, &json!(true)).await;
        ok(&mut page, json!({"type": "subscribe", "id": 1, "topic": "room/1"})).await;
        enter(&mut page, json!(way)).await;
        assert_eq!(seen(&mut watcher).await.1, json!([way, 1]));
        let command = match way {
            "disconnect" => json!({"type": way, "id": 2}),
            _ => json!({"type": way, "id": 2, "topic": "room/1"}),
        };
        ok(&mut page, command).await;
        assert_eq!(seen(&mut watcher).await, (text(&answer["member"]), json!("gone")));
    }
}

/// A tab is duplicated, and its copy has the session of the first.
#[tokio::test]
async fn a_takeover_closes_the_first_connection_and_nobody_else_notices() {
    let rooms = Rooms::start("", &[]);
    let server = rooms.address();
    let mut watcher = watcher(server).await;
    let (mut page, first) = join(server, &json!(true)).await;
    enter(&mut page, json!(0)).await;
    assert_eq!(seen(&mut watcher).await.1, json!([0, 1]));
    for _ in 0..6 {
        let (next, answer) = join(server, &first["session"]).await;
        assert_eq!((&answer["resumed"], &answer["session"]), (&json!(true), &first["session"]), "{answer}");
        assert_eq!(page.close_code().await, 4409);
        page = next;
    }
    nothing_but_a_visitor(server, &mut watcher).await;
}

/// No FIN and no answer: the cable was pulled, or the laptop sleeps. Pings find out, and then the grace begins.
#[tokio::test]
async fn a_connection_that_died_in_silence_ends_with_its_pings_and_the_grace() {
    let rooms = Rooms::start("", &["--session-grace", "1s", "--ping-interval", "1s", "--ping-timeout", "1s"]);
    let server = rooms.address();
    let (mut page, answer) = join(server, &json!(true)).await;
    enter(&mut page, json!(0)).await;
    let began = Instant::now();
    // It reads nothing from here on, so it answers no ping.
    let mut watcher = watcher(server).await;
    assert_eq!(seen(&mut watcher).await, (text(&answer["member"]), json!([0, 1])));
    assert_eq!(seen(&mut watcher).await, (text(&answer["member"]), json!("gone")));
    assert!(began.elapsed() > Duration::from_millis(1900), "{:?}", began.elapsed());
    await_stat(&rooms.broker, "dropped_ping_timeout", |dropped| dropped == 1).await;
    drop(page);
}

#[tokio::test]
async fn pings_are_messages_for_who_wants_them() {
    let rooms = Rooms::start("", &["--ping-interval", "1s", "--ping-timeout", "1s"]);
    let server = rooms.address();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = open_v1(server).await;
        let connect = json!({"type": "connect", "id": 1, "ping": "message"});
        assert_eq!(client.command(connect).await["ping"], 1000);
        clients.push(client);
    }
    let mut silent = clients.pop().expect("two");
    let mut good = clients.pop().expect("two");
    for _ in 0..4 {
        assert_eq!(good.json().await, json!({"type": "ping"}));
        good.send(json!({"type": "pong"}).to_string()).await;
    }
    assert_eq!(silent.json().await, json!({"type": "ping"}));
    // What a WebSocket library answers by itself does not count: there was no such ping.
    let end = silent.close_code().await;
    assert!(end == 1006 || end == 1001 || end == 1011, "{end}");
    assert_eq!(good.json().await["type"], "ping");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_code() {
    let rooms = Rooms::start("presence-members = 2", &["--max-subscriptions", "3"]);
    let server = rooms.address();
    let mut client = open_v1(server).await;
    let enter = |topic: &str, info: Value| json!({"type": "enter", "id": 1, "topic": topic, "info": info});
    for (command, code) in [
        (json!({"type": "update", "id": 1, "topic": "room/1", "info": 1}), "not-found"),
        (json!({"type": "leave", "id": 1, "topic": "room/1"}), "not-found"),
        (enter("room/1", json!("x".repeat(1023))), "too-big"),
        (enter("hall", json!(1)), "unsupported"),
        (json!({"type": "members", "id": 1, "topic": "hall"}), "unsupported"),
        (enter("room/#", json!(1)), "bad-topic"),
        (enter("$presence/room/1", json!(1)), "forbidden"),
        (json!({"type": "update", "id": 1, "topic": "room/1"}), "bad-command"),
        (json!({"type": "members", "id": 1, "topic": "room/1", "limit": 0}), "bad-command"),
        (json!({"type": "members", "id": 1, "topic": "room/1", "limit": 1001}), "bad-command"),
        (json!({"type": "connect", "id": 1, "session": false}), "bad-command"),
        (json!({"type": "connect", "id": 1, "ping": "frame"}), "bad-command"),
    ] {
        assert_eq!(client.command(command.clone()).await["code"], code, "{command}");
    }
    ok(&mut client, enter("room/1", json!("x".repeat(1022)))).await;
    for room in ["room/2", "room/3"] {
        ok(&mut client, enter(room, json!(1))).await;
    }
    assert_eq!(client.command(enter("room/4", json!(1))).await["code"], "limit", "as many as subscriptions");
    // The third is only counted.
    let (mut second, mut third) = (open_v1(server).await, open_v1(server).await);
    ok(&mut second, enter("room/1", json!(2))).await;
    assert_eq!(third.command(enter("room/1", json!(3))).await["code"], "limit");
    ok(&mut third, json!({"type": "enter", "id": 2, "topic": "room/1"})).await;
    let listed = third.command(json!({"type": "members", "id": 3, "topic": "room/1"})).await;
    let names = listed["members"].as_array().map(Vec::len);
    assert_eq!((&listed["count"], names, &listed["more"]), (&json!(3), Some(2), &json!(true)));
}

/// Clients learn when to come back before they are sent away, and a broker that goes says of nobody that he left.
#[tokio::test]
async fn a_drain_says_when_to_come_back_and_of_nobody_that_he_is_gone() {
    let rooms = Rooms::start("", &["--drain-window", "1s"]);
    let Rooms { mut broker, _folder } = rooms;
    let mut watcher = watcher(broker.address).await;
    let mut pages = Vec::new();
    for _ in 0..20 {
        let (mut page, _) = join(broker.address, &json!(true)).await;
        enter(&mut page, json!(0)).await;
        pages.push(page);
    }
    for _ in 0..20 {
        assert_eq!(seen(&mut watcher).await.1, json!([0, 1]));
    }
    signal(&broker, "TERM");
    let mut retries = Vec::new();
    for page in pages.iter_mut().chain([&mut watcher]) {
        let goaway = page.json().await;
        assert_eq!(goaway["type"], "goaway", "nothing before it: {goaway}");
        retries.push(goaway["retry"].as_u64().expect("milliseconds"));
        assert_eq!(page.close_code().await, 1001);
    }
    assert!(retries.iter().all(|&retry| retry <= 5000), "{retries:?}");
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 10, "drawn for each: {retries:?}");
    drop((pages, watcher));
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

/// A thousand members come; someone who asks is given as many as wanted, in the order of their names.
#[tokio::test]
async fn a_thousand_members_are_listed_as_far_as_wanted() {
    let rooms = Rooms::start("", &[]);
    let server = rooms.address();
    let mut members = Vec::new();
    for number in 0..1000 {
        let mut member = open_v1(server).await;
        member.send(json!({"type": "enter", "topic": "room/1", "info": number}).to_string()).await;
        members.push(member);
    }
    for member in &mut members {
        assert_eq!(member.json().await["type"], "ok");
    }
    let mut client = open_v1(server).await;
    let mut all = Value::Null;
    for limit in [1, 100, 999, 1000] {
        let page = client.command(json!({"type": "members", "id": 1, "topic": "room/1", "limit": limit})).await;
        let listed = page["members"].as_array().expect("members").clone();
        assert_eq!((listed.len(), &page["count"], &page["more"]), (limit, &json!(1000), &json!(limit < 1000)));
        assert!(listed.is_sorted_by_key(|member| text(&member["member"])));
        all = page;
    }
    let mut infos: Vec<_> = all["members"].as_array().unwrap().iter().map(|m| m["info"].as_u64().unwrap()).collect();
    infos.sort_unstable();
    assert!(infos.into_iter().eq(0..1000), "each once");
    let page = client.command(json!({"type": "members", "id": 1, "topic": "room/1"})).await;
    assert_eq!(page["members"].as_array().map(Vec::len), Some(100), "by default");
}

/// Members say something new again and again to somebody who does not read: it is given less, and nobody waits for it.
#[tokio::test]
async fn a_watcher_that_does_not_read_holds_nobody_up_and_knows_the_newest_in_the_end() {
    let rooms = Rooms::start("[[topic]]\nmatch = '$presence/#'\nthrottle = '1ms'", &["--shards", "1"]);
    let server = rooms.address();
    let mut watcher = watcher(server).await;
    let mut members = Vec::new();
    for _ in 0..50 {
        let mut member = open_v1(server).await;
        enter(&mut member, json!(0)).await;
        members.push(member);
    }
    let filler = "x".repeat(1000);
    for round in 1..=200 {
        let last = if round == 200 { "last" } else { &filler };
        for member in &mut members {
            ok(member, json!({"type": "update", "id": round, "topic": "room/1", "info": last})).await;
        }
    }
    // Time for what waits to be found.
    sleep(Duration::from_millis(50)).await;
    let (mut newest, mut messages) = (std::collections::BTreeMap::new(), 0);
    while newest.len() < 50 || newest.values().any(|info| info != "last") {
        let (member, what) = seen(&mut watcher).await;
        newest.insert(member, what[0].clone());
        messages += 1;
    }
    assert!(messages <= 50 * 201, "{messages}");
}
