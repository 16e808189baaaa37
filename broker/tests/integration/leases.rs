//! Leases over real sockets: who has one, who gets it next, when it ends, and that an exclusive topic takes messages under its
//! lease only, on every way in. Wills are in `wills.rs`, rights in `lease_rights.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::http::{Answer, request, stat};
use crate::many::Lines;
use crate::presence::{join, ok};
use crate::ws::{Ws, open, open_v1};

/// A broker where every `loco/...` is exclusive, with further tables and arguments.
pub(crate) struct Railway {
    pub(crate) broker: Broker,
    pub(crate) _folder: tempfile::TempDir,
}

impl Railway {
    pub(crate) fn start(tables: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("ringyard.toml");
        std::fs::write(&config, format!("[[topic]]\nmatch = 'loco/#'\nexclusive = true\n{tables}\n")).unwrap();
        let broker = Broker::start(&[&["--config", config.to_str().unwrap()], arguments].concat());
        Self { broker, _folder: folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.address
    }
}

/// A `lease` of `loco/1`, with more members.
pub(crate) fn lease(more: Value) -> Value {
    let mut command = json!({"type": "lease", "id": "l", "topic": "loco/1"});
    command.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    command
}

/// The number of the lease that an answer grants.
pub(crate) fn granted(answer: &Value) -> u64 {
    assert_eq!(answer["type"], "ok", "{answer}");
    answer["lease"].as_u64().unwrap_or_else(|| panic!("no number: {answer}"))
}

/// Takes the lease of `loco/1`, which is free.
pub(crate) async fn take(client: &mut Ws, more: Value) -> u64 {
    granted(&client.command(lease(more)).await)
}

/// Waits for the lease of `loco/1`, which another client has: its place in the queue is certain.
pub(crate) async fn queue(client: &mut Ws, wait_ms: u64) {
    for id in ["first", "second"] {
        client.send(lease(json!({"wait": wait_ms, "id": id})).to_string()).await;
    }
    let replaced = client.json().await;
    assert_eq!((&replaced["id"], &replaced["code"]), (&json!("first"), &json!("held")), "{replaced}");
}

async fn give_back(client: &mut Ws, number: u64) {
    assert_eq!(client.command(lease(json!({"lease": number, "end": true}))).await, json!({"type": "ok", "id": "l"}));
}

/// The code of the answer to a publish to `loco/1`; `ok`.
pub(crate) async fn publish(client: &mut Ws, data: Value, number: Option<u64>) -> String {
    let mut command = json!({"type": "publish", "id": "p", "topic": "loco/1", "data": data, "ack": true});
    number.into_iter().for_each(|number| command["lease"] = json!(number));
    let answer = client.command(command).await;
    let said = if answer["type"] == "ok" { &answer["type"] } else { &answer["code"] };
    said.as_str().expect("a code").to_owned()
}

/// What is said next of who has the lease: the name and the number, or `free`.
async fn seen(watcher: &mut Ws) -> Value {
    let message = watcher.json().await;
    match message["type"].as_str() {
        Some("state-end") => Box::pin(seen(watcher)).await,
        _ if message["removed"] == true => json!("free"),
        _ => json!([message["data"]["by"], message["data"]["lease"]]),
    }
}

fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

#[tokio::test]
async fn one_client_at_a_time_has_it_and_everybody_sees_who() {
    let railway = Railway::start("", &[]);
    let server = railway.address();
    let mut watcher = open_v1(server).await;
    ok(&mut watcher, json!({"type": "subscribe", "id": 1, "topic": "$lease/loco/1"})).await;
    let (mut ada, connected) = join(server, &json!(true)).await;
    let by = &connected["member"];
    let before = now_ms();
    let answer = ada.command(lease(json!({}))).await;
    let number = granted(&answer);
    assert_eq!(answer["ttl"], 10_000, "by default");
    // Numbers begin at the time of the start.
    assert!(number > before - 60_000 && number < before + 60_000, "{number}");
    let held = watcher.json().await;
    assert_eq!((&held["data"]["by"], &held["data"]["lease"]), (by, &json!(number)), "{held}");
    let until = held["data"]["until"].as_u64().unwrap();
    assert!((before + 10_000..now_ms() + 10_001).contains(&until), "{until}");
    let mut bob = open_v1(server).await;
    let refused = bob.command(lease(json!({}))).await;
    assert_eq!((&refused["code"], &refused["by"]), (&json!("held"), by), "{refused}");
    assert!((5_000..=10_000).contains(&refused["ttl"].as_u64().unwrap()), "{refused}");
    // Who knows the number has not got the lease.
    for command in [lease(json!({"lease": number})), lease(json!({"lease": number, "end": true}))] {
        assert_eq!(bob.command(command).await["code"], "not-found");
    }
    let renewed = ada.command(lease(json!({"lease": number, "ttl": 20_000}))).await;
    assert_eq!((&renewed["lease"], &renewed["ttl"]), (&json!(number), &json!(20_000)));
    let held = watcher.json().await;
    assert!(held["data"]["until"].as_u64().unwrap() >= until + 5_000, "{held}");
    assert_eq!(take(&mut ada, json!({})).await, number, "who asks again has it again");
    assert_eq!(seen(&mut watcher).await, json!([by, number]));
    let page = request(railway.broker.admin, "GET /api/topics/loco%2F1 HTTP/1.1", b"").await.json();
    assert_eq!((&page["lease"]["by"], &page["lease"]["lease"]), (by, &json!(number)), "{page}");
    assert_eq!((&page["rule"]["exclusive"], stat(&railway.broker, "leases").await), (&json!(true), 1));
    give_back(&mut ada, number).await;
    assert_eq!(seen(&mut watcher).await, "free");
    assert_eq!(ada.command(lease(json!({"lease": number}))).await["code"], "not-found");
    assert!(take(&mut bob, json!({})).await > number);
    // A newcomer learns at once who has it.
    let mut late = open_v1(server).await;
    ok(&mut late, json!({"type": "subscribe", "id": 1, "topic": "$lease/#"})).await;
    let now = seen(&mut late).await;
    assert_ne!(now, "free");
    assert_eq!(now, seen(&mut watcher).await);
}

#[tokio::test]
async fn those_who_wait_get_it_in_the_order_in_which_they_came() {
    let railway = Railway::start("", &[]);
    let server = railway.address();
    let mut ada = open_v1(server).await;
    let first = take(&mut ada, json!({})).await;
    let mut waiting = Vec::new();
    for _ in 0..9 {
        let mut client = open_v1(server).await;
        queue(&mut client, 60_000).await;
        waiting.push(client);
    }
    // One leaves with a word, one without, and one has waited long enough.
    let mut gone = waiting.remove(1);
    ok(&mut gone, json!({"type": "disconnect", "id": 1})).await;
    let lost = waiting.remove(3);
    lost.stream.get_ref().set_zero_linger().unwrap();
    drop(lost);
    let mut hurried = open_v1(server).await;
    let began = Instant::now();
    let refused = hurried.command(lease(json!({"wait": 300}))).await;
    assert_eq!(refused["code"], "held");
    assert!((300..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    let mut number = first;
    give_back(&mut ada, number).await;
    for mut client in waiting {
        let next = client.json().await;
        assert_eq!(next["id"], "second");
        assert!(granted(&next) > number, "{next} after {number}");
        number = granted(&next);
        give_back(&mut client, number).await;
    }
    assert!(take(&mut hurried, json!({})).await > number, "nobody waits any more");
}

#[tokio::test]
async fn it_ends_by_the_brokers_clock() {
    let railway = Railway::start("", &[]);
    let server = railway.address();
    let (mut ada, _) = join(server, &json!(true)).await;
    let mut bob = open_v1(server).await;
    let began = Instant::now();
    let number = take(&mut ada, json!({"ttl": 1000})).await;
    queue(&mut bob, 20_000).await;
    assert_eq!(publish(&mut ada, json!(1), Some(number)).await, "ok");
    let lost = ada.json().await;
    assert_eq!(lost, json!({"type": "lease-lost", "topic": "loco/1", "lease": number, "reason": "expired"}));
    assert!((1000..6000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    let next = granted(&bob.json().await);
    assert!(next > number);
    // What is late is not taken, and nothing brings the lease back.
    assert_eq!(publish(&mut ada, json!("late"), Some(number)).await, "not-holder");
    assert_eq!(publish(&mut bob, json!(2), Some(next)).await, "ok");
    for command in [lease(json!({"lease": number})), lease(json!({"lease": number, "end": true}))] {
        assert_eq!(ada.command(command).await["code"], "not-found");
    }
    assert_eq!(stat(&railway.broker, "leases_lost").await, 1);
}

/// A page that is loaded again and again, each time for longer than its lease lasts.
#[tokio::test]
async fn a_reload_with_its_session_keeps_the_lease() {
    let railway = Railway::start("", &["--session-grace", "20s"]);
    let server = railway.address();
    let (mut page, first) = join(server, &json!(true)).await;
    let number = take(&mut page, json!({"ttl": 1000})).await;
    let mut bob = open_v1(server).await;
    for reload in 0..6 {
        if reload % 2 == 0 {
            page.stream.get_ref().set_zero_linger().unwrap();
        }
        drop(page);
        if reload < 2 {
            sleep(Duration::from_millis(1300)).await;
            let refused = bob.command(lease(json!({}))).await;
            assert_eq!((&refused["code"], &refused["by"]), (&json!("held"), &first["member"]), "{refused}");
        }
        let (again, answer) = join(server, &first["session"]).await;
        assert_eq!(answer["resumed"], true);
        page = again;
        assert_eq!(publish(&mut page, json!(reload), Some(number)).await, "ok");
    }
    assert_eq!(page.command(lease(json!({"lease": number}))).await["lease"], number);
    // Its time runs again.
    assert_eq!(page.json().await["reason"], "expired");
    take(&mut bob, json!({})).await;
}

#[tokio::test]
async fn a_session_that_is_taken_over_takes_its_lease_along() {
    let railway = Railway::start("", &[]);
    let server = railway.address();
    let (mut page, first) = join(server, &json!(true)).await;
    let number = take(&mut page, json!({})).await;
    let lost = json!({"type": "lease-lost", "topic": "loco/1", "lease": number, "reason": "taken"});
    for _ in 0..6 {
        let (mut next, _) = join(server, &first["session"]).await;
        assert_eq!(page.json().await, lost);
        assert_eq!(page.close_code().await, 4409);
        assert_eq!(publish(&mut next, json!("next"), Some(number)).await, "ok");
        page = next;
    }
    ok(&mut page, json!({"type": "disconnect", "id": 1})).await;
    let mut bob = open_v1(server).await;
    assert!(granted(&bob.command(lease(json!({"wait": 5000}))).await) > number, "free at once");
}

/// `POST /pub/loco/1`, or to `/pub` with items.
async fn post(server: SocketAddr, target: &str, kind: &str, body: &str) -> Answer {
    request(server, &format!("POST {target} HTTP/1.1\r\nContent-Type: {kind}"), body.as_bytes()).await
}

const JSON: &str = "application/json";

#[tokio::test]
async fn an_exclusive_topic_refuses_who_has_not_the_lease_on_every_way_in() {
    let railway = Railway::start("", &[]);
    let server = railway.address();
    let mut subscriber = open(server, "/sub/loco/1").await;
    let mut ada = open_v1(server).await;
    let old = take(&mut ada, json!({})).await;
    give_back(&mut ada, old).await;
    // Nobody has the lease, then another client has it.
    for is_held in [false, true] {
        let current = if is_held { Some(take(&mut ada, json!({})).await) } else { None };
        for wrong in [None, Some(old), Some(old + 100)] {
            refused_everywhere(server, wrong).await;
        }
        for path in ["/pub/loco/1", "/bus/loco/1", "/pub/loco/1?lease=1"] {
            let mut raw = open(server, path).await;
            raw.send("x").await;
            let (code, why) = raw.close_frame().await;
            assert!(code == 1008 && why.starts_with("not-holder"), "{path}: {code} {why}");
        }
        for query in ["lease=0", "lease=x", "lease=1&lease=2"] {
            assert_eq!(post(server, &format!("/pub/loco/1?{query}"), "text/plain", "x").await.status, 400);
        }
        if let Some(number) = current {
            under(server, &mut ada, number).await;
        }
    }
    for expected in ["1", "2", "3", "4"] {
        assert_eq!(subscriber.text().await, expected, "and nothing else was published");
    }
}

/// Publishes by each way that can name a lease, without the current one.
async fn refused_everywhere(server: SocketAddr, wrong: Option<u64>) {
    let named = |mut object: Value| {
        wrong.into_iter().for_each(|number| object["lease"] = json!(number));
        object
    };
    let mut bob = open_v1(server).await;
    assert_eq!(publish(&mut bob, json!("x"), wrong).await, "not-holder", "{wrong:?}");
    let silent = named(json!({"type": "publish", "topic": "loco/1", "data": "x", "ack": false}));
    bob.send(silent.to_string()).await;
    assert_eq!(bob.json().await["code"], "not-holder", "refused is never silent");
    let up_to = json!({"epoch": "0000000000000001", "offset": 1});
    let snapshot = json!({"type": "snapshot", "id": 1, "topic": "loco/1", "up_to": up_to, "data": 1});
    assert_eq!(bob.command(named(snapshot)).await["code"], "not-holder");
    let query = wrong.map(|number| format!("?lease={number}")).unwrap_or_default();
    let refused = post(server, &format!("/pub/loco/1{query}"), "text/plain", "x").await;
    assert_eq!((refused.status, &refused.json()["code"]), (423, &json!("not-holder")), "{refused:?}");
    let item = named(json!({"topic": "loco/1", "data": "x"}));
    let free = json!({"topic": "free", "data": "y"});
    let batch = post(server, "/pub", JSON, &json!({"messages": [item, free]}).to_string()).await.json();
    let results = (&batch["results"][0]["code"], &batch["results"][1]["topic"]);
    assert_eq!(results, (&json!("not-holder"), &json!("free")), "{batch}");
    let mut lines = Lines::open(server).await;
    for (line, member, expected) in [(&item, "code", "not-holder"), (&free, "topic", "free")] {
        lines.send(&line.to_string()).await;
        assert_eq!(lines.result().await.expect("a result")[member], expected);
    }
}

/// Publishes by each way that can name a lease.
async fn under(server: SocketAddr, ada: &mut Ws, number: u64) {
    assert_eq!(publish(ada, json!(1), Some(number)).await, "ok");
    assert_eq!(post(server, &format!("/pub/loco/1?lease={number}"), "text/plain", "2").await.status, 200);
    let item = |data: u32| json!({"topic": "loco/1", "data": data, "lease": number});
    let batch = post(server, "/pub", JSON, &json!({"messages": [item(3)]}).to_string()).await;
    assert_eq!(batch.json()["results"][0]["offset"], 3, "{batch:?}");
    let mut lines = Lines::open(server).await;
    lines.send(&item(4).to_string()).await;
    assert_eq!(lines.result().await.expect("a result")["offset"], 4);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_code() {
    let railway = Railway::start("", &["--max-subscriptions", "3"]);
    let mut client = open_v1(railway.address()).await;
    let will = |more: Value| {
        let mut will = json!({"topic": "loco/1", "data": 1});
        will.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        json!({"type": "will", "id": 1, "will": will})
    };
    for (command, code) in [
        (lease(json!({"ttl": 999})), "bad-command"),
        (lease(json!({"ttl": 600_001})), "bad-command"),
        (lease(json!({"wait": 60_001})), "bad-command"),
        (lease(json!({"lease": 0})), "bad-command"),
        (lease(json!({"lease": 1, "wait": 1})), "bad-command"),
        (lease(json!({"end": true})), "bad-command"),
        (lease(json!({"lease": 1})), "not-found"),
        (lease(json!({"lease": 1, "end": true})), "not-found"),
        (lease(json!({"topic": "loco/+"})), "bad-topic"),
        (lease(json!({"topic": "$sys/load"})), "forbidden"),
        (lease(json!({"topic": "$lease/loco/1"})), "forbidden"),
        (will(json!({"delay": 60_001})), "bad-command"),
        (will(json!({"delay": -1})), "bad-command"),
        (will(json!({"lease": 1})), "bad-command"),
        (will(json!({"topic": "loco/#"})), "bad-topic"),
        (will(json!({"topic": "$sys/load"})), "forbidden"),
        (json!({"type": "will", "id": 1}), "bad-command"),
        (json!({"type": "publish", "id": 1, "topic": "loco/1", "data": 1, "lease": 0}), "bad-command"),
        (json!({"type": "publish", "id": 1, "topic": "$lease/loco/1", "data": 1}), "forbidden"),
    ] {
        assert_eq!(client.command(command.clone()).await["code"], code, "{command}");
    }
    for topic in ["loco/1", "loco/2", "signal/3"] {
        granted(&client.command(lease(json!({"topic": topic, "ttl": 600_000}))).await);
    }
    assert_eq!(client.command(lease(json!({"topic": "loco/4"}))).await["code"], "limit", "as many as subscriptions");
    ok(&mut client, will(json!({"delay": 60_000}))).await;
    ok(&mut client, json!({"type": "will", "id": 1, "end": true})).await;
    // Elsewhere nothing looks at the number.
    ok(&mut client, json!({"type": "publish", "id": 1, "topic": "signal/3", "data": 1, "lease": 1})).await;
}

/// Numbers go on above those of a broker that was killed, whatever clients still have of that.
#[tokio::test]
async fn a_broker_that_is_started_again_goes_on_above() {
    let mut last = 0;
    for _ in 0..2 {
        let railway = Railway::start("", &[]);
        let mut ada = open_v1(railway.address()).await;
        if last > 0 {
            assert_eq!(ada.command(lease(json!({"lease": last}))).await["code"], "not-found");
            assert_eq!(publish(&mut ada, json!(1), Some(last)).await, "not-holder");
        }
        for _ in 0..10 {
            let number = take(&mut ada, json!({})).await;
            assert!(number > last, "{number} after {last}");
            last = number;
            give_back(&mut ada, number).await;
        }
    }
}
