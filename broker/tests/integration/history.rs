//! What topics remember, over real sockets: recovery, state, snapshots, compare-and-set.

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::http::post;
use crate::ws::{Ws, open, open_v1};

/// A configuration file with these tables, in a place of its own.
pub(crate) fn rules(name: &str, tables: &str) -> String {
    let path = std::env::temp_dir().join(format!("ringyard-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, tables).expect("a temporary file");
    path.to_str().expect("a path that is text").to_owned()
}

/// One in which no topic remembers anything, for tests of what is forgotten at once.
pub(crate) fn without_history(name: &str) -> String {
    rules(name, "[[topic]]\nmatch = '#'\nhistory = 'none'\n")
}

async fn publish(client: &mut Ws, topic: &str, data: Value, options: Value) -> Value {
    let mut command = json!({"type": "publish", "id": 1, "topic": topic, "data": data});
    command.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    client.command(command).await
}

fn offsets(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["offset"].as_u64().unwrap_or_else(|| panic!("{message}"))).collect()
}

async fn next(client: &mut Ws, count: usize) -> Vec<Value> {
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(client.json().await);
    }
    messages
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_in_order_once() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut publisher = open_v1(broker.address).await;
    let first = publish(&mut publisher, "chat/7", json!(1), json!({})).await;
    for n in 2..=20 {
        publish(&mut publisher, "chat/7", json!(n), json!({})).await;
    }
    for since in [0_u64, 7, 19, 20] {
        let expected: Vec<u64> = (since + 1..=20).collect();
        let mut client = open_v1(broker.address).await;
        let place = since + 1;
        let since = json!({"epoch": first["epoch"], "offset": since});
        let answer = client.command(json!({"type": "subscribe", "id": 1, "topic": "chat/7", "since": since})).await;
        let topic = &answer["topics"][0];
        assert_eq!((&topic["recovered"], &topic["offset"]), (&true.into(), &place.into()), "{answer}");
        assert_eq!(offsets(&next(&mut client, expected.len()).await), expected);
    }
    let mut client = open_v1(broker.address).await;
    for (epoch, offset) in [("00000000000000ff".into(), 3), (first["epoch"].clone(), 21)] {
        let since = json!({"epoch": epoch, "offset": offset});
        let answer = client.command(json!({"type": "subscribe", "id": 1, "topic": "chat/7", "since": since})).await;
        let topic = &answer["topics"][0];
        assert_eq!(topic["recovered"], false, "{answer}");
        assert_eq!(topic["available"], json!({"from": 1, "to": 20}), "{answer}");
        client.command(json!({"type": "unsubscribe", "id": 2, "topic": "chat/7"})).await;
    }
}

#[tokio::test]
async fn a_newcomer_sees_the_present_of_every_topic_that_matches() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut publisher = open_v1(broker.address).await;
    for n in 0..20 {
        for value in 0..3 {
            publish(&mut publisher, &format!("status/{n}"), json!(value), json!({"retain": true})).await;
        }
    }
    publish(&mut publisher, "status/3", json!(null), json!({"retain": true, "removed": true})).await;
    let mut client = open_v1(broker.address).await;
    let answer = client.command(json!({"type": "subscribe", "id": 1, "topic": "status/+"})).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    let mut state = next(&mut client, 20).await;
    assert_eq!(state.pop().unwrap(), json!({"type": "state-end", "topic": "status/+"}));
    state.sort_by_key(|message| message["topic"].to_string());
    let mut expected: Vec<_> = (0..20).filter(|n| *n != 3).map(|n| format!("status/{n}")).collect();
    expected.sort();
    for (message, topic) in state.iter().zip(&expected) {
        assert_eq!(*message, json!({"type": "message", "topic": topic, "offset": 3, "data": 2, "state": true}));
    }
    publish(&mut publisher, "status/4", json!("new"), json!({})).await;
    assert_eq!(client.json().await, json!({"type": "message", "topic": "status/4", "offset": 4, "data": "new"}));
}

#[tokio::test]
async fn a_keyed_topic_gives_the_newest_of_each_key_and_what_was_removed() {
    let file = rules("keyed", "[[topic]]\nmatch = 'game/#'\nhistory = 'keyed'\n");
    let broker = Broker::start(&["--config", &file]);
    let mut publisher = open_v1(broker.address).await;
    let first = publish(&mut publisher, "game/1", json!(1), json!({"key": "ada"})).await;
    publish(&mut publisher, "game/1", json!(2), json!({"key": "bob"})).await;
    publish(&mut publisher, "game/1", json!(3), json!({"key": "ada"})).await;
    publish(&mut publisher, "game/1", json!(null), json!({"key": "bob", "removed": true})).await;
    let mut client = open_v1(broker.address).await;
    let answer = client.command(json!({"type": "subscribe", "id": 1, "topic": "game/1"})).await;
    assert_eq!(answer["topics"][0]["history"], "keyed", "{answer}");
    let state = next(&mut client, 2).await;
    assert_eq!((&state[0]["key"], &state[0]["data"], &state[0]["state"]), (&"ada".into(), &3.into(), &true.into()));
    assert_eq!(state[1], json!({"type": "state-end", "topic": "game/1", "offset": 4}));
    let mut back = open_v1(broker.address).await;
    let since = json!({"epoch": first["epoch"], "offset": 2});
    let answer = back.command(json!({"type": "subscribe", "id": 1, "topic": "game/1", "since": since})).await;
    assert_eq!(answer["topics"][0]["recovered"], true, "{answer}");
    let changed = next(&mut back, 3).await;
    assert_eq!((&changed[0]["key"], &changed[1]["key"]), (&"ada".into(), &"bob".into()), "{changed:?}");
    assert_eq!((&changed[1]["removed"], &changed[2]["type"]), (&true.into(), &"state-end".into()), "{changed:?}");
    for (expected, given) in [(json!("absent"), "conflict"), (json!(2), "conflict"), (json!(3), "ok")] {
        let options = json!({"key": "ada", "if_offset": expected});
        let answer = publish(&mut publisher, "game/1", json!(9), options).await;
        assert!(answer["code"] == given || answer["type"] == given, "{answer}");
    }
}

#[tokio::test]
async fn a_repeated_publish_is_stored_once_whichever_way_it_comes() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let first = publish(&mut client, "t", json!("x"), json!({"idempotency_key": "k"})).await;
    let mut other = open_v1(broker.address).await;
    let again = publish(&mut other, "t", json!("x"), json!({"idempotency_key": "k"})).await;
    assert_eq!((&again["offset"], &again["duplicate"]), (&first["offset"], &true.into()), "{again}");
    assert_eq!(post(broker.address, "t", b"another").await, 2);
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_the_messages_before_it() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let first = publish(&mut client, "doc/1", json!(1), json!({})).await;
    for n in 2..=9 {
        publish(&mut client, "doc/1", json!(n), json!({})).await;
    }
    let up_to = |offset: u64| json!({"epoch": first["epoch"], "offset": offset});
    let snapshot = |offset| json!({"type": "snapshot", "id": 1, "topic": "doc/1", "up_to": up_to(offset), "data": "s"});
    assert_eq!(client.command(snapshot(6)).await["type"], "ok");
    for (too_far_or_old, compared_with) in [(10, 9), (5, 6)] {
        let answer = client.command(snapshot(too_far_or_old)).await;
        assert_eq!((&answer["code"], &answer["offset"]), (&"conflict".into(), &compared_with.into()), "{answer}");
    }
    for since in [None, Some(up_to(3))] {
        let mut reader = open_v1(broker.address).await;
        let mut command = json!({"type": "subscribe", "id": 1, "topic": "doc/1"});
        if let Some(since) = since {
            command["since"] = since;
        }
        reader.command(command).await;
        let given = next(&mut reader, 4).await;
        assert_eq!((&given[0]["up_to"], &given[0]["state"]), (&6.into(), &true.into()), "{given:?}");
        assert_eq!(offsets(&given[1..]), [7, 8, 9]);
    }
    let page = client.command(json!({"type": "history", "id": 1, "topic": "doc/1", "limit": 2, "reverse": true})).await;
    assert_eq!((offsets(page["messages"].as_array().unwrap()), &page["more"]), (vec![9, 8], &true.into()), "{page}");
}

#[tokio::test]
async fn a_raw_subscription_begins_where_its_query_says() {
    let broker = Broker::start(&[]);
    for n in 1..=5 {
        post(broker.address, "a", format!("m{n}").as_bytes()).await;
    }
    let mut last = open(broker.address, "/sub/a?last=2&position=1").await;
    let begins: Value = serde_json::from_str(&last.text().await).unwrap();
    assert_eq!(begins["offset"], 3);
    assert_eq!([last.text().await, last.text().await], ["m4", "m5"]);
    let epoch = begins["epoch"].as_str().unwrap();
    let mut since = open(broker.address, &format!("/bus/a?since={epoch}:4")).await;
    assert_eq!(since.text().await, format!("{{\"epoch\":\"{epoch}\",\"offset\":4}}"));
    assert_eq!(since.text().await, "m5");
    post(broker.address, "a", b"live").await;
    assert_eq!([last.text().await, since.text().await], ["live", "live"]);
}
