//! Who listens, as publishers and operators see it: `subscribers` in answers, `/api/topics`, and `$sys/load`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{PATIENCE, await_stat, post, request, stat};
use crate::ws::{open, open_v1};

/// The number in the answers to a POST and to an acknowledged publish, which are the same.
async fn subscribers(broker: &Broker, topic: &str) -> u64 {
    let answer = request(broker.address, &format!("POST /pub/{topic} HTTP/1.1"), b"x").await.json();
    let mut client = open_v1(broker.address).await;
    let acknowledged = client.command(json!({"type": "publish", "id": 1, "topic": topic, "data": "x"})).await;
    assert_eq!(acknowledged["type"], "ok", "{acknowledged}");
    assert_eq!(acknowledged["subscribers"], answer["subscribers"], "{topic}");
    client.close().await;
    answer["subscribers"].as_u64().unwrap_or_else(|| panic!("no number: {answer}"))
}

/// Over four shards, on which the kernel spreads the connections.
#[tokio::test]
async fn a_publisher_learns_how_many_subscriptions_match() {
    let broker = Broker::start(&["--shards", "4"]);
    assert_eq!(subscribers(&broker, "chat/1").await, 0);
    let mut raw = Vec::new();
    for _ in 0..20 {
        raw.push(open(broker.address, "/sub/chat/1").await);
    }
    for path in ["/sub/chat/+", "/sub/chat/%23", "/sub/%23", "/sub/chat/2", "/bus/chat/1"] {
        raw.push(open(broker.address, path).await);
    }
    let mut client = open_v1(broker.address).await;
    client.subscribe(&["chat/1", "+/1", "chat/2"]).await;
    // 20 and the bus, three filters of raw clients, two subscriptions of one client.
    assert_eq!(subscribers(&broker, "chat/1").await, 26);
    assert_eq!(subscribers(&broker, "chat/2").await, 5);
    assert_eq!(subscribers(&broker, "other").await, 1);
    drop(raw);
    await_stat(&broker, "subscriptions", |left| left == 3).await;
    assert_eq!(subscribers(&broker, "chat/1").await, 2);
    for name in ["chat/1", "+/1"] {
        client.send(json!({"type": "unsubscribe", "topic": name}).to_string()).await;
    }
    await_stat(&broker, "subscriptions", |left| left == 1).await;
    assert_eq!((subscribers(&broker, "chat/1").await, subscribers(&broker, "chat/2").await), (0, 1));
}

#[tokio::test]
async fn the_load_is_published_once_a_second_while_somebody_subscribes() {
    let broker = Broker::start(&[]);
    // Wildcards at the front do not see it; nobody has published so far.
    let mut everything = open(broker.address, "/sub/%23").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(stat(&broker, "messages_in").await, 0);

    let mut client = open_v1(broker.address).await;
    client.subscribe(&["$sys/#"]).await;
    let mut raw = open(broker.address, "/sub/$sys/load").await;
    let first = client.json().await;
    assert_eq!((&first["type"], &first["topic"]), (&"message".into(), &"$sys/load".into()), "{first}");
    let begun = std::time::Instant::now();
    let load: Value = serde_json::from_str(&raw.text().await).expect("JSON");
    for name in ["uptime_s", "connections", "subscriptions", "messages_in", "messages_out", "bytes_in", "bytes_out"] {
        assert!(load[name].is_u64(), "{name}: {load}");
    }
    for _ in 0..2 {
        let load: Value = serde_json::from_str(&raw.text().await).expect("JSON");
        assert_eq!((&load["connections"], &load["subscriptions"]), (&3.into(), &3.into()), "{load}");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1500) && took < PATIENCE, "{took:?}");
    // It says what is published by others.
    let mut publisher = open(broker.address, "/pub/t").await;
    let busy = async {
        loop {
            publisher.send("0123456789").await;
            assert_eq!(everything.text().await, "0123456789");
        }
    };
    let seen = async {
        loop {
            let load: Value = serde_json::from_str(&raw.text().await).expect("JSON");
            if load["messages_in"].as_u64() > Some(50) {
                return load;
            }
        }
    };
    let load = tokio::select! {
        () = busy => unreachable!("it goes on"),
        load = tokio::time::timeout(PATIENCE, seen) => load.expect("a load"),
    };
    assert!(load["bytes_in"].as_u64() > Some(500) && load["messages_out"].as_u64() > Some(50), "{load}");
}

/// The broker's own topic stays its own.
#[tokio::test]
async fn nobody_else_publishes_the_load() {
    let broker = Broker::start(&[]);
    assert_eq!(request(broker.address, "POST /pub/$sys/load HTTP/1.1", b"x").await.status, 403);
    let mut client = open_v1(broker.address).await;
    let answer = client.command(json!({"type": "publish", "id": 1, "topic": "$sys/load", "data": 1})).await;
    assert_eq!(answer["code"], "forbidden", "{answer}");
}

async fn topics(broker: &Broker, query: &str) -> Value {
    let answer = request(broker.admin, &format!("GET /api/topics?{query} HTTP/1.1"), b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn operators_see_what_goes_on_in_topics() {
    let broker = Broker::start(&["--max-lag", "64m"]);
    for _ in 0..3 {
        post(broker.address, "quiet/1", b"x").await;
    }
    let _quiet = [open(broker.address, "/sub/quiet/1").await, open(broker.address, "/sub/quiet/+").await];
    let mut busy = open(broker.address, "/pub/busy/1").await;
    let publishing = async {
        loop {
            busy.send("x").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let listing = tokio::select! {
        () = publishing => unreachable!("it goes on"),
        listing = topics(&broker, "") => listing,
    };
    assert_eq!((&listing["matched"], &listing["truncated"]), (&2.into(), &false.into()), "{listing}");
    assert!(listing["measured_ms"].as_u64() >= Some(1000), "{listing}");
    let [first, second] = &listing["topics"].as_array().expect("a list")[..] else { panic!("{listing}") };
    assert_eq!((&first["topic"], &first["subscribers"]), (&"busy/1".into(), &0.into()), "{listing}");
    let rate = first["messages_per_second"].as_f64().expect("a rate");
    assert!(rate > 5.0 && rate <= 101.0, "{listing}");
    assert!(first["offset"].as_u64() > Some(5), "{listing}");
    assert_eq!(
        (&second["topic"], &second["subscribers"], &second["offset"]),
        (&"quiet/1".into(), &2.into(), &3.into())
    );
    assert_eq!((&second["messages_per_second"], &second["waiting_bytes"]), (&0.0.into(), &0.into()), "{listing}");
    assert_eq!(second["epoch"].as_str().map(str::len), Some(16));

    // Filters and limits; only topics are listed.
    let names = |listing: &Value| -> Vec<String> {
        let rows = listing["topics"].as_array().expect("a list").iter();
        rows.map(|row| row["topic"].as_str().expect("a name").to_owned()).collect()
    };
    let matching = topics(&broker, "match=+/1&limit=1").await;
    assert_eq!((names(&matching).len(), &matching["matched"], &matching["truncated"]), (1, &2.into(), &true.into()));
    assert_eq!(names(&topics(&broker, "match=quiet/%23").await), ["quiet/1"]);
    assert!(names(&topics(&broker, "match=nobody").await).is_empty());
    for (query, part) in
        [("match=a+b", "filter"), ("match=a/%23/b", "filter"), ("limit=0", "limit"), ("max=1", "match")]
    {
        let answer = request(broker.admin, &format!("GET /api/topics?{query} HTTP/1.1"), b"").await;
        let sentence = answer.json()["detail"].as_str().expect("a sentence").to_owned();
        assert!(answer.status == 400 && sentence.contains(part), "{query}: {sentence}");
    }
    // The public port has no such thing.
    assert_eq!(request(broker.address, "GET /api/topics HTTP/1.1", b"").await.status, 404);
}

/// A subscriber that does not read: what the kernel does not take for it waits in the broker.
#[tokio::test]
async fn operators_see_what_waits_for_subscribers() {
    let broker = Broker::start(&["--max-lag", "100m", "--shards", "1"]);
    let slow = open(broker.address, "/sub/big").await;
    let mut publisher = open(broker.address, "/pub/big").await;
    for _ in 0..30 {
        publisher.send(Message::binary(vec![b'x'; 1 << 20])).await;
    }
    await_stat(&broker, "log_bytes", |bytes| bytes > 1 << 20).await;
    await_stat(&broker, "messages_in", |messages| messages == 30).await;
    let listing = topics(&broker, "match=big").await;
    let waiting = listing["topics"][0]["waiting_bytes"].as_u64().expect("a number");
    assert!(waiting > 1 << 20, "{listing}");
    assert_eq!(listing["topics"][0]["offset"], 30);
    drop(slow);
}
