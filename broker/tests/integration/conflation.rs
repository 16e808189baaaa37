//! `slow-consumer = "latest"` and throttles, with real sockets: what is left out, and when what is left comes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::http::{await_stat, stat};
use crate::shutdown::signal;
use crate::ws::{Ws, open, open_v1};

/// A broker with these tables.
fn with_rules(tables: &str, shards: &str) -> (tempfile::TempDir, Broker) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    std::fs::write(&file, tables).unwrap();
    let broker = Broker::start(&["--shards", shards, "--config", file.to_str().unwrap()]);
    (folder, broker)
}

async fn publish(publisher: &mut Ws, topic: &str, key: &str, data: impl Into<Value>) {
    let data: Value = data.into();
    let command = json!({"type": "publish", "topic": topic, "key": key, "data": data, "ack": false});
    publisher.send(command.to_string()).await;
}

/// A subscriber that takes nothing for a long time is not closed and holds nothing but the newest message of each key; then it
/// gets those, and the next ones.
#[tokio::test]
async fn a_subscriber_of_the_latest_that_stops_gets_the_newest_of_each_key() {
    let (_folder, broker) = with_rules("[[topic]]\nmatch = 'game/#'\nslow-consumer = 'latest'\n", "2");
    let mut stopped = open_v1(broker.address).await;
    let answer = stopped.command(json!({"type": "subscribe", "id": 1, "topic": "game/7"})).await;
    assert_eq!(answer["topics"][0]["slow_consumer"], "latest", "{answer}");
    let mut raw = open(broker.address, "/sub/game/7").await;
    let mut publisher = open_v1(broker.address).await;
    let padding = "x".repeat(16 << 10);
    for round in 0..1000 {
        for key in ["a", "b", "c"] {
            publish(&mut publisher, "game/7", key, format!("{round} {padding}")).await;
        }
        if round % 100 == 99 {
            // What the publisher is told says that all before is sequenced.
            publisher.command(json!({"type": "ping", "id": round})).await;
        }
    }
    publish(&mut publisher, "game/7", "", "last").await;
    publisher.command(json!({"type": "ping", "id": "end"})).await;
    let kept = stat(&broker, "log_bytes").await;
    assert!(kept < 1 << 20, "{kept} bytes are kept of 48 MB, of which four messages are the newest of their keys");
    let (mut newest, mut before) = (HashMap::new(), 0);
    loop {
        let message = stopped.json().await;
        let offset = message["offset"].as_u64().unwrap_or_else(|| panic!("{message}"));
        assert!(offset > before, "{offset} after {before}");
        before = offset;
        if message["data"] == "last" {
            break;
        }
        let data = message["data"].as_str().unwrap().split(' ').next().unwrap().to_owned();
        newest.insert(message["key"].as_str().unwrap().to_owned(), data);
    }
    let expected: HashMap<_, _> = ["a", "b", "c"].map(|key| (key.to_owned(), "999".to_owned())).into();
    assert_eq!(newest, expected);
    assert_eq!(before, 3001, "offsets count what was left out");
    while raw.text().await != "last" {}
    publish(&mut publisher, "game/7", "a", "next").await;
    let next = stopped.json().await;
    assert_eq!(next["data"], "next");
    assert_eq!(raw.text().await, "next");
    let up_to = json!({"epoch": answer["topics"][0]["epoch"], "offset": next["offset"]});
    let snapshot = json!({"type": "snapshot", "id": 2, "topic": "game/7", "up_to": up_to, "data": "all"});
    assert_eq!(publisher.command(snapshot).await["code"], "unsupported");
    let since = "/sub/game/7?position=1";
    let refused = crate::ws::try_open(broker.address, since, &[]).await.err().expect("frames cannot be counted");
    assert!(refused.to_string().contains("400"), "{refused}");
    assert_eq!((stat(&broker, "dropped_slow").await, stat(&broker, "skips").await), (0, 0));
    assert!(stat(&broker, "messages_conflated").await > 1000);
    await_stat(&broker, "log_bytes", |bytes| bytes == 0).await;
}

/// The first message comes at once, the others together, once an interval.
#[tokio::test]
async fn a_throttled_subscriber_is_sent_the_first_message_at_once_and_the_others_together() {
    let (_folder, broker) = with_rules("[[topic]]\nmatch = 'a'\nthrottle = '400ms'\n", "1");
    let mut subscriber = open_v1(broker.address).await;
    let answer = subscriber.command(json!({"type": "subscribe", "id": 1, "topic": "a"})).await;
    assert_eq!(answer["topics"][0]["throttle"], 500, "rounded up: {answer}");
    let mut raw = open(broker.address, "/sub/a").await;
    let mut publisher = open_v1(broker.address).await;
    for silence in 0..2 {
        let begun = Instant::now();
        publish(&mut publisher, "a", "", json!([silence, 0])).await;
        assert_eq!(subscriber.json().await["data"], json!([silence, 0]));
        assert_eq!(raw.text().await, json!([silence, 0]).to_string());
        let first = begun.elapsed();
        assert!(first < Duration::from_millis(300), "after silence it comes at once: {first:?}");
        for number in 1..10 {
            publish(&mut publisher, "a", "", json!([silence, number])).await;
        }
        let mut times = Vec::new();
        for number in 1..10 {
            assert_eq!(subscriber.json().await["data"], json!([silence, number]));
            times.push(begun.elapsed());
            assert_eq!(raw.text().await, json!([silence, number]).to_string());
        }
        assert!(times[0] > Duration::from_millis(450), "the next ones wait: {times:?}");
        assert!(times[8] - times[0] < Duration::from_millis(300), "they come together: {times:?}");
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    assert!(stat(&broker, "sends_saved").await >= 4 * 8);
}

/// A subscription may ask for a longer throttle than its topic's rule, and not for a shorter one. Those with another throttle
/// do not wait for it.
#[tokio::test]
async fn a_subscription_has_the_longer_throttle_of_its_own_and_its_rules() {
    let (_folder, broker) = with_rules("[[topic]]\nmatch = 'slow/#'\nthrottle = '1s'\n", "2");
    let mut slow = open_v1(broker.address).await;
    let answer = slow.command(json!({"type": "subscribe", "id": 1, "topics": ["slow/a", "b"], "throttle": 300})).await;
    assert_eq!((&answer["topics"][0]["throttle"], &answer["topics"][1]["throttle"]), (&json!(1000), &json!(500)));
    let mut fast = open_v1(broker.address).await;
    let answer = fast.command(json!({"type": "subscribe", "id": 1, "topic": "b"})).await;
    assert_eq!(answer["topics"][0].get("throttle"), None, "{answer}");
    let mut publisher = open_v1(broker.address).await;
    let begun = Instant::now();
    publish(&mut publisher, "b", "", 0).await;
    assert_eq!(slow.json().await["data"], 0);
    for number in 1..4 {
        publish(&mut publisher, "b", "", number).await;
    }
    for number in 0..4 {
        assert_eq!(fast.json().await["data"], number);
    }
    let fast_done = begun.elapsed();
    assert!(fast_done < Duration::from_millis(400), "{fast_done:?}");
    for number in 1..4 {
        assert_eq!(slow.json().await["data"], number);
    }
    let slow_done = begun.elapsed();
    assert!(slow_done > Duration::from_millis(450), "{slow_done:?}");
    for (throttle, reason) in [(json!(5001), "5000"), (json!(-1), "5000"), (json!("50ms"), "throttle")] {
        let answer = fast.command(json!({"type": "subscribe", "id": 2, "topic": "c", "throttle": throttle})).await;
        assert_eq!(answer["code"], "bad-command", "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains(reason), "{answer}");
    }
}

/// Who leaves, and who is closed because the broker ends, is first sent what a throttle holds back.
#[tokio::test]
async fn what_a_throttle_holds_back_is_sent_before_the_end() {
    // One shard: with more, a publish may be answered before it has come to the subscriber's.
    let (_folder, broker) = with_rules("[[topic]]\nmatch = '#'\nthrottle = '5s'\n", "1");
    let mut subscriber = open_v1(broker.address).await;
    subscriber.subscribe(&["a", "+"]).await;
    let mut raw = open(broker.address, "/sub/a").await;
    let mut publisher = open_v1(broker.address).await;
    for number in 0..3 {
        let command = json!({"type": "publish", "id": number, "topic": "a", "data": number});
        assert_eq!(publisher.command(command).await["type"], "ok");
    }
    // `+` goes on where `a` ends.
    subscriber.send(json!({"type": "unsubscribe", "id": 2, "topic": "a"}).to_string()).await;
    for number in 0..3 {
        assert_eq!(subscriber.json().await["data"], number);
    }
    assert_eq!(subscriber.json().await["id"], 2);
    let command = json!({"type": "publish", "id": 3, "topic": "a", "data": 3});
    assert_eq!(publisher.command(command).await["type"], "ok");
    signal(&broker, "TERM");
    for number in 0..4 {
        assert_eq!(raw.text().await, number.to_string());
    }
    assert_eq!(subscriber.json().await["data"], 3);
    assert_eq!(subscriber.close_code().await, 1001);
    assert_eq!(raw.close_code().await, 1001);
}
