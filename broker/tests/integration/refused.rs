//! Publishes that a topic has no room for, by publishers that ask for no answer: nobody's message vanishes in silence.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::history::rules;
use crate::http::{await_stat, request, stat};
use crate::ws::{Ws, open, open_v1};

/// Topics of one rule: they are sequenced on both shards, and published to from both.
const TOPICS: usize = 8;
/// One key is all there is room for.
const ONE_KEY: &str = "[[topic]]\nmatch = 'game/#'\nhistory = 'keyed'\nhistory-messages = 1\n";

fn broker(name: &str, tables: &str, more: &[&str]) -> Broker {
    let file = rules(name, tables);
    Broker::start(&[&["--shards", "2", "--config", &file], more].concat())
}

async fn take_the_key(publisher: &mut Ws, topic: &str) {
    let command = json!({"type": "publish", "id": 1, "topic": topic, "data": "first", "key": "k"});
    let answer = publisher.command(command).await;
    assert_eq!(answer["type"], "ok", "{answer}");
}

/// The code and the reason with which the server closes; messages before that are an error.
async fn closed_for(client: &mut Ws) -> (u16, String) {
    match client.next().await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_raw_publisher_hears_in_the_close_that_its_message_was_refused() {
    let broker = broker("refused-raw", ONE_KEY, &[]);
    let mut other = open_v1(broker.address).await;
    for number in 0..TOPICS {
        let topic = format!("game/{number}");
        take_the_key(&mut other, &topic).await;
        for path in ["pub", "bus"] {
            let mut publisher = open(broker.address, &format!("/{path}/{topic}")).await;
            publisher.send(Message::text("a key too many")).await;
            let expected = "limit: the topic has as many keys as its rule allows (history-messages)";
            assert_eq!(closed_for(&mut publisher).await, (1008, expected.to_owned()), "/{path}/{topic}");
        }
        // What there is room for is published as ever, and nothing is said.
        let removal = json!({"type": "publish", "id": 2, "topic": topic, "key": "k", "removed": true});
        assert_eq!(other.command(removal).await["type"], "ok");
        let mut publisher = open(broker.address, &format!("/bus/{topic}")).await;
        publisher.send(Message::text("the only key")).await;
        assert_eq!(publisher.text().await, "the only key");
        publisher.send(Message::text("its next value")).await;
        assert_eq!(publisher.text().await, "its next value");
    }
    await_stat(&broker, "dropped_limit", |closed| closed == 2 * TOPICS as u64).await;
    assert_eq!(stat(&broker, "dropped_violation").await, 0);
}

#[tokio::test]
async fn a_retained_message_that_has_no_room_is_refused_likewise() {
    let broker = broker("refused-retain", "[[topic]]\nmatch = 'status/#'\nretain = 'always'\n", &["--max-keys", "1"]);
    let expected =
        "limit: the broker keeps as many keys and retained messages as it may; see --max-keys and --max-history";
    let mut refused = None;
    // What one sequencer keeps another knows a turn later: some may get in meanwhile.
    for number in 0..100 {
        let mut publisher = open(broker.address, &format!("/bus/status/{number}")).await;
        publisher.send(Message::text("retained")).await;
        match publisher.next().await {
            Message::Text(_) => {}
            Message::Close(Some(frame)) => {
                assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, expected));
                refused = Some(number);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let refused = refused.expect("there is room for one");
    assert!(refused > 0, "there is room for one");
    // A topic whose rule asks for no state is none of those.
    let mut plain = open(broker.address, "/bus/plain").await;
    plain.send(Message::text("published")).await;
    assert_eq!(plain.text().await, "published");
    let topic = request(broker.admin, &format!("GET /api/topics/status%2F{refused} HTTP/1.1"), b"").await;
    assert!(topic.status == 404 || topic.json()["retained"] == Value::Null, "{topic:?}");
}

#[tokio::test]
async fn without_an_acknowledgement_errors_come_all_the_same() {
    let broker = broker("refused-v1", ONE_KEY, &[]);
    let mut client = open_v1(broker.address).await;
    for number in 0..TOPICS {
        let topic = format!("game/{number}");
        take_the_key(&mut client, &topic).await;
        let silent = json!({"type": "publish", "topic": topic, "data": "a key too many"});
        client.send(silent.to_string()).await;
        let error = client.json().await;
        assert_eq!((&error["type"], &error["code"], &error["id"]), (&"error".into(), &"limit".into(), &Value::Null));
        let named = json!({"type": "publish", "topic": topic, "data": "a key too many", "ack": false, "id": "mine"});
        let error = client.command(named).await;
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"limit".into()), "{error}");
        let update = json!({"type": "publish", "topic": topic, "data": "", "ack": false, "id": 3, "key": "k"});
        client.send(update.to_string()).await;
        let answer = client.command(json!({"type": "history", "id": 4, "topic": topic})).await;
        assert!(answer["messages"].is_array(), "the update is not answered: {answer}");
    }
}
