//! What operators do with one topic, over real sockets: look at it, page through all, purge it.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::history::rules;
use crate::http::{await_stat, request};
use crate::ws::{open, open_v1};

async fn topic(broker: &Broker, name: &str) -> Value {
    let answer = request(broker.admin, &format!("GET /api/topics/{} HTTP/1.1", name.replace('/', "%2F")), b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn publish(broker: &Broker, target: &str) -> Value {
    let answer = request(broker.address, &format!("POST /pub/{target} HTTP/1.1"), b"x").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_purge_ends_the_epoch_of_live_subscribers_on_every_shard() {
    let broker = Broker::start(&["--shards", "4"]);
    let mut subscribers = Vec::new();
    for filter in ["chat/7", "chat/+", "#"].into_iter().cycle().take(12) {
        let mut client = open_v1(broker.address).await;
        client.subscribe(&[filter]).await;
        subscribers.push(client);
    }
    let mut raw = open(broker.address, "/sub/chat/7").await;
    let old = publish(&broker, "chat/7?retain=true").await;
    publish(&broker, "chat/7").await;
    let purged = request(broker.admin, "DELETE /api/topics/chat%2F7/messages HTTP/1.1", b"").await;
    assert_eq!(purged.status, 200, "{purged:?}");
    let epoch = purged.json()["epoch"].clone();
    assert_eq!(purged.json(), json!({"topic": "chat/7", "epoch": epoch}));
    publish(&broker, "chat/7?retain=true").await;
    for client in &mut subscribers {
        let mut read = Vec::new();
        for _ in 0..4 {
            read.push(client.json().await);
        }
        let places: Vec<_> =
            read.iter().map(|message| (message["type"].as_str(), message["offset"].as_u64())).collect();
        let (message, reset) = (Some("message"), Some("reset"));
        assert_eq!(places, [(message, Some(1)), (message, Some(2)), (reset, Some(0)), (message, Some(1))]);
        assert_eq!(
            read[2],
            json!({"type": "reset", "topic": "chat/7", "epoch": epoch, "offset": 0, "reason": "purged"})
        );
    }
    for _ in 0..3 {
        assert_eq!(raw.text().await, "x");
    }
    // Who comes back with the old epoch does not recover, and is shown what is retained.
    let since = json!({"epoch": old["epoch"], "offset": 1});
    let mut client = open_v1(broker.address).await;
    let answer = client.command(json!({"type": "subscribe", "id": 1, "topic": "chat/7", "since": since})).await;
    assert_eq!(answer["topics"][0]["recovered"], false, "{answer}");
    assert_eq!(answer["topics"][0]["available"], json!({"from": 1, "to": 1}), "{answer}");
    let shown = client.json().await;
    assert_eq!((&shown["state"], &shown["offset"]), (&true.into(), &1.into()), "{shown}");
    await_stat(&broker, "purged", |purged| purged == 1).await;
    let metrics = request(broker.admin, "GET /metrics HTTP/1.1", b"").await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("\nringyard_topics_purged_total 1\n"));
    // Nobody purges by the public port, and nothing can be purged that is not there.
    let public = request(broker.address, "DELETE /api/topics/chat%2F7/messages HTTP/1.1", b"").await;
    assert_eq!(public.status, 404, "{public:?}");
    let unknown = request(broker.admin, "DELETE /api/topics/nobody/messages HTTP/1.1", b"").await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &"not-found".into()));
}

#[tokio::test]
async fn operators_see_what_a_topic_remembers_and_by_which_rule() {
    let tables = "[[topic]]\nmatch = 'doc/+'\nhistory = 'keyed'\n";
    let broker = Broker::start(&["--config", &rules("operators-topic", tables)]);
    for n in 1..=3 {
        publish(&broker, "chat/7").await;
        publish(&broker, &format!("doc/1?key={}", n % 2)).await;
    }
    publish(&broker, "line/1").await;
    publish(&broker, "line/1?retain=1").await;
    let chat = topic(&broker, "chat/7").await;
    assert_eq!((&chat["topic"], &chat["offset"], &chat["subscribers"]), (&"chat/7".into(), &3.into(), &0.into()));
    assert_eq!((&chat["rule"]["match"], &chat["rule"]["history_messages"]), (&Value::Null, &256.into()), "{chat}");
    let window = &chat["window"];
    assert_eq!((&window["from"], &window["to"], &window["messages"]), (&1.into(), &3.into(), &3.into()), "{chat}");
    assert!(window["bytes"].as_u64() > Some(3), "{chat}");
    assert_eq!((&chat["keys"], &chat["retained"], &chat["snapshot"]), (&0.into(), &Value::Null, &Value::Null));
    assert_eq!((&chat["waiting_bytes"], &chat["slowest"]), (&0.into(), &json!([])), "{chat}");
    let doc = topic(&broker, "doc/1").await;
    assert_eq!((&doc["history"], &doc["rule"]["match"]), (&"keyed".into(), &"doc/+".into()), "{doc}");
    assert_eq!((&doc["keys"], &doc["retained"], &doc["window"]), (&2.into(), &Value::Null, &Value::Null));
    assert_eq!(doc["state"]["entries"], 2, "{doc}");
    let line = topic(&broker, "line/1").await;
    assert_eq!((&line["retained"]["offset"], &line["state"]["entries"]), (&2.into(), &1.into()), "{line}");
    let mut client = open_v1(broker.address).await;
    let up_to = json!({"epoch": chat["epoch"], "offset": 2});
    client.command(json!({"type": "snapshot", "id": 1, "topic": "chat/7", "up_to": up_to, "data": "all"})).await;
    let chat = topic(&broker, "chat/7").await;
    assert_eq!((&chat["snapshot"]["up_to"], &chat["window"]["from"]), (&2.into(), &3.into()), "{chat}");

    // The list says the same, and goes from page to page by name.
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let head = format!("GET /api/topics?after={}&limit=1 HTTP/1.1", after.replace('/', "%2F"));
        let page = request(broker.admin, &head, b"").await.json();
        let [row] = &page["topics"].as_array().expect("a list")[..] else { break };
        let (window, state) = (&row["window"], &row["state"]["entries"]);
        assert_eq!(page["truncated"], names.len() < 2, "{page}");
        after = row["topic"].as_str().expect("a name").to_owned();
        match &after[..] {
            "chat/7" => assert_eq!((&row["rule"], &window["messages"], state), (&Value::Null, &1.into(), &1.into())),
            "line/1" => assert_eq!((&window["messages"], state), (&2.into(), &1.into())),
            _ => assert_eq!((&row["rule"], &row["history"], window), (&"doc/+".into(), &"keyed".into(), &Value::Null)),
        }
        names.push(after.clone());
    }
    assert_eq!(names, ["chat/7", "doc/1", "line/1"]);
}

/// Subscribers that do not read: the slowest are listed, whatever shard they are on.
#[tokio::test]
async fn operators_see_the_slowest_subscriptions_of_a_topic() {
    let broker = Broker::start(&["--max-lag", "100m", "--shards", "2"]);
    let mut slow = Vec::new();
    for _ in 0..12 {
        slow.push(open(broker.address, "/sub/big").await);
    }
    let mut publisher = open(broker.address, "/pub/big").await;
    for _ in 0..30 {
        publisher.send(Message::binary(vec![b'x'; 1 << 20])).await;
    }
    await_stat(&broker, "sequenced", |messages| messages == 30).await;
    await_stat(&broker, "log_bytes", |bytes| bytes > 1 << 20).await;
    let big = topic(&broker, "big").await;
    let listed = big["slowest"].as_array().expect("a list");
    assert_eq!((listed.len(), &big["subscribers"]), (10, &12.into()), "{big}");
    let bytes: Vec<_> = listed.iter().map(|slow| slow["bytes"].as_u64().expect("a number")).collect();
    assert!(bytes.is_sorted_by(|a, b| a >= b) && bytes[9] > 1 << 20, "{big}");
    let names: std::collections::HashSet<_> = listed.iter().map(|slow| slow["connection"].to_string()).collect();
    assert_eq!(names.len(), 10, "{big}");
    assert!(listed.iter().all(|slow| slow["behind_ms"].is_u64()), "{big}");
    // An operator finds them by the other end of their sockets.
    let ends = slow.iter().map(|client| client.stream.get_ref().local_addr().expect("a socket").to_string());
    let ends: std::collections::HashSet<_> = ends.collect();
    let found: std::collections::HashSet<_> =
        listed.iter().map(|slow| slow["address"].as_str().expect("an address").to_owned()).collect();
    assert!(found.len() == 10 && found.is_subset(&ends), "{big}");
    drop(slow);
}
