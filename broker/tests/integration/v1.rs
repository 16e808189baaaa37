//! `/ws` with `ringyard.v1`.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::history::without_history;
use crate::http::{await_stat, post, request};
use crate::ws::{open, open_v1};

#[tokio::test]
async fn many_topics_over_one_socket() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    client.subscribe(&["a", "b/+"]).await;
    let offset = post(broker.address, "a", b"one").await;
    assert_eq!(client.json().await, json!({"type": "message", "topic": "a", "offset": offset, "data": "one"}));
    let offset = post(broker.address, "b/x", b"two").await;
    assert_eq!(client.json().await, json!({"type": "message", "topic": "b/x", "offset": offset, "data": "two"}));
    post(broker.address, "b", b"not for us").await;
    post(broker.address, "b/x/y", b"not for us").await;
    let offset = post(broker.address, "b/x", b"three").await;
    assert_eq!(client.json().await["offset"], offset);
}

#[tokio::test]
async fn overlapping_subscriptions_deliver_once() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    client.subscribe(&["a/b", "a/+", "a/#", "#", "+/b"]).await;
    for round in 1..=100u64 {
        let offset = post(broker.address, "a/b", format!("{round}").as_bytes()).await;
        let message = client.json().await;
        assert_eq!((&message["offset"], &message["data"]), (&offset.into(), &round.to_string().into()));
    }
}

#[tokio::test]
async fn unsubscribing_one_of_overlapping_subscriptions_loses_nothing() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    client.subscribe(&["a/b", "a/+"]).await;
    post(broker.address, "a/b", b"1").await;
    assert_eq!(client.json().await["data"], "1");
    let answer = client.command(json!({"type": "unsubscribe", "id": 2, "topics": ["a/b"]})).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    post(broker.address, "a/b", b"2").await;
    assert_eq!(client.json().await["data"], "2");
    let answer = client.command(json!({"type": "unsubscribe", "id": 3, "topics": ["a/+"]})).await;
    assert_eq!(answer["type"], "ok", "{answer}");
    post(broker.address, "a/b", b"3").await;
    client.subscribe(&["a/b"]).await;
    post(broker.address, "a/b", b"4").await;
    assert_eq!(client.json().await["data"], "4");
}

#[tokio::test]
async fn publishing_with_and_without_acknowledgement() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let mut subscriber = open(broker.address, "/sub/t").await;
    let first = client.command(json!({"type": "publish", "topic": "t", "data": "x", "id": 2})).await;
    assert_eq!((&first["type"], &first["offset"]), (&"ok".into(), &1.into()), "{first}");
    assert_eq!(first["epoch"].as_str().map(str::len), Some(16), "{first}");
    client.send(json!({"type": "publish", "topic": "t", "data": "y"}).to_string()).await;
    let third = client.command(json!({"type": "publish", "topic": "t", "data": "z", "id": "three"})).await;
    assert_eq!((&third["offset"], &third["epoch"]), (&3.into(), &first["epoch"]));
    for data in ["x", "y", "z"] {
        assert_eq!(subscriber.text().await, data);
    }
}

#[tokio::test]
async fn binary_reaches_json_clients_as_base64() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let mut raw = open(broker.address, "/bus/bytes").await;
    client.subscribe(&["bytes"]).await;
    raw.send(Message::binary(&b"\xff\x00binary"[..])).await;
    let message = client.json().await;
    assert_eq!((&message["data"], &message["encoding"]), (&"/wBiaW5hcnk=".into(), &"base64".into()), "{message}");
    raw.next().await;
    let command = json!({"type": "publish", "topic": "bytes", "data": "AP9hYmM=", "encoding": "base64"});
    client.send(command.to_string()).await;
    assert_eq!(raw.next().await, Message::binary(&b"\0\xffabc"[..]));
}

#[tokio::test]
async fn text_of_all_kinds_survives_the_envelope() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let mut raw = open(broker.address, "/bus/text").await;
    client.subscribe(&["text"]).await;
    for text in ["", "\"quoted\" \\ back", "\u{0}\u{1f}\n\t", "👩‍👩‍👧", "{\"json\": [1, 2]}", "</script>"] {
        raw.send(text).await;
        assert_eq!(client.json().await["data"], text);
        assert_eq!(raw.text().await, text);
    }
}

#[tokio::test]
async fn pings_are_answered() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let answer = client.command(json!({"type": "ping", "id": 9})).await;
    assert_eq!(answer["type"], "pong");
}

#[tokio::test]
async fn what_is_wrong_is_said_and_the_connection_lives_on() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    for command in [
        json!({"type": "subscribe", "id": 1, "topics": ["a/#/b"]}),
        json!({"type": "subscribe", "id": 2, "topics": ["a/#/b"]}),
        json!({"type": "publish", "id": 3, "topic": "a/+", "data": "x"}),
        json!({"type": "publish", "id": 4, "topic": "$sys/x", "data": "x"}),
        json!({"type": "publish", "id": 5, "topic": "a", "data": "not base64!", "encoding": "base64"}),
        json!({"type": "dance", "id": 6}),
    ] {
        let answer = client.command(command.clone()).await;
        assert_eq!(answer["type"], "error", "{command}: {answer}");
        assert!(answer["code"].is_string() && answer["reason"].is_string(), "{answer}");
    }
    client.subscribe(&["a"]).await;
    post(broker.address, "a", b"fine").await;
    assert_eq!(client.json().await["data"], "fine");
}

#[tokio::test]
async fn too_many_subscriptions() {
    let broker = Broker::start(&["--max-subscriptions", "3"]);
    let mut client = open_v1(broker.address).await;
    client.subscribe(&["a", "b", "c"]).await;
    let answer = client.command(json!({"type": "subscribe", "id": 4, "topics": ["d"]})).await;
    assert_eq!(answer["type"], "error", "{answer}");
    client.command(json!({"type": "unsubscribe", "id": 5, "topics": ["a"]})).await;
    client.subscribe(&["d"]).await;
}

#[tokio::test]
async fn subscribed_and_dropped_again_and_again() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    for _ in 0..5000 {
        client.subscribe(&["again"]).await;
        let answer = client.command(json!({"type": "unsubscribe", "id": 2, "topics": ["again"]})).await;
        assert_eq!(answer["type"], "ok", "{answer}");
    }
    client.subscribe(&["again"]).await;
    post(broker.address, "again", b"here").await;
    assert_eq!(client.json().await["data"], "here");
}

#[tokio::test]
async fn subscriptions_that_are_or_are_not_there_already() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    client.subscribe(&["a"]).await;
    let answer = client.command(json!({"type": "subscribe", "id": 2, "topics": ["b", "a"]})).await;
    assert_eq!(answer["code"], "already-subscribed", "{answer}");
    let answer = client.command(json!({"type": "unsubscribe", "id": 3, "topics": ["b"]})).await;
    assert_eq!(answer["code"], "not-subscribed", "all of a command or none: {answer}");
    post(broker.address, "b", b"not for us").await;
    post(broker.address, "a", b"for us").await;
    assert_eq!(client.json().await["data"], "for us");
}

#[tokio::test]
async fn json_is_a_value_for_json_clients_and_text_for_others() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let mut raw = open(broker.address, "/sub/values").await;
    client.subscribe(&["values"]).await;
    for value in [json!({"x": [1, 2.5, null, "\u{1f600}"]}), json!([]), json!(7), json!(true)] {
        client.send(json!({"type": "publish", "topic": "values", "data": value}).to_string()).await;
        assert_eq!(client.json().await["data"], value);
        let text = raw.text().await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value, "{text}");
    }
}

#[tokio::test]
async fn binary_commands_are_refused() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    client.send(Message::binary(&b"{}"[..])).await;
    assert_eq!(client.close_code().await, 1003);
}

/// The confirmation is longer than answers to a client that does not read may be.
#[tokio::test]
async fn a_command_with_the_most_and_longest_topics_is_confirmed() {
    let broker = Broker::start(&[]);
    let mut client = open_v1(broker.address).await;
    let topics: Vec<String> = (0..1024).map(|at| format!("{at:0>255}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    client.subscribe(&topics).await;
    let offset = post(broker.address, topics[1023], b"one").await;
    assert_eq!(client.json().await["offset"], offset);
}

/// The name of the topic that was published to last is the connection's to give back, even when its sequencer has
/// forgotten the topic before.
#[tokio::test]
async fn a_publisher_that_moves_on_leaves_no_name_behind() {
    let broker = Broker::start(&["--topic-idle-timeout", "100ms", "--config", &without_history("names")]);
    let mut client = open_v1(broker.address).await;
    for topic in ["first", "second", "third"] {
        let answer = client.command(json!({"type": "publish", "id": 1, "topic": topic, "data": 1})).await;
        assert_eq!(answer["type"], "ok", "{answer}");
        await_stat(&broker, "topics", |topics| topics == 0).await;
    }
    client.close().await;
    await_stat(&broker, "connections", |connections| connections == 0).await;
    let stats = request(broker.admin, "GET /api/stats HTTP/1.1", b"").await.json();
    assert_eq!(stats["topics_registered"], 0, "{stats}");
}

/// JSON is written anew: `1e15` comes with four characters and would be delivered with eighteen.
#[tokio::test]
async fn a_payload_that_grows_beyond_the_limit_is_refused_and_one_that_shrinks_is_not() {
    let broker = Broker::start(&["--max-message", "1k"]);
    let mut client = open_v1(broker.address).await;
    let mut raw = open(broker.address, "/sub/t").await;
    let numbers = vec!["1e15"; 150].join(",");
    client.send(format!(r#"{{"type":"publish","id":1,"topic":"t","data":[{numbers}]}}"#)).await;
    let answer = client.json().await;
    assert_eq!((&answer["code"], &answer["id"]), (&"too-big".into(), &1.into()), "{answer}");
    // White space goes, and base64 becomes bytes: what is delivered counts.
    client.send(format!(r#"{{"type":"publish","id":2,"topic":"t","data":[1,{}2]}}"#, " ".repeat(900))).await;
    assert_eq!(client.json().await["offset"], 1);
    assert_eq!(raw.text().await, "[1,2]");
    let base64 = "AAAA".repeat(230);
    client
        .send(json!({"type": "publish", "id": 3, "topic": "t", "data": base64, "encoding": "base64"}).to_string())
        .await;
    assert_eq!(client.json().await["offset"], 2);
    assert_eq!(raw.next().await, Message::binary(vec![0; 690]));
}

#[tokio::test]
async fn a_topic_that_only_a_wildcard_subscription_watches_keeps_its_offsets() {
    let broker =
        Broker::start(&["--topic-idle-timeout", "100ms", "--shards", "2", "--config", &without_history("watched")]);
    let mut client = open_v1(broker.address).await;
    let mut publisher = open_v1(broker.address).await;
    client.subscribe(&["chat/+"]).await;
    let mut epochs = Vec::new();
    for offset in 1..=3 {
        let answer = publisher.command(json!({"type": "publish", "id": 1, "topic": "chat/7", "data": 1})).await;
        assert_eq!(answer["offset"], offset, "{answer}");
        epochs.push(answer["epoch"].clone());
        assert_eq!(client.json().await["offset"], offset);
        // Topics that nobody watches go meanwhile: the timeout has passed for all.
        post(broker.address, "unwatched", b"x").await;
        await_stat(&broker, "topics", |topics| topics == 1).await;
    }
    assert_eq!(epochs[0], epochs[2]);
    client.close().await;
    await_stat(&broker, "topics", |topics| topics == 0).await;
}

#[tokio::test]
async fn one_connection_cannot_begin_all_topics() {
    let broker = Broker::start(&["--max-topics", "100", "--max-topics-per-connection", "10"]);
    let mut greedy = open_v1(broker.address).await;
    for n in 0..10 {
        let answer = greedy.command(json!({"type": "publish", "id": 1, "topic": format!("t{n}"), "data": 1})).await;
        assert_eq!(answer["type"], "ok", "{answer}");
    }
    for command in [
        json!({"type": "publish", "id": 1, "topic": "one more", "data": 1}),
        json!({"type": "subscribe", "id": 1, "topic": "one more/+"}),
    ] {
        let answer = greedy.command(command).await;
        assert_eq!(answer["code"], "limit", "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains("--max-topics-per-connection"), "{answer}");
    }
    // What exists already costs nothing, and another connection has a share of its own.
    let answer = greedy.command(json!({"type": "publish", "id": 1, "topic": "t3", "data": 1})).await;
    assert_eq!(answer["offset"], 2, "{answer}");
    let mut other = open_v1(broker.address).await;
    let answer = other.command(json!({"type": "publish", "id": 1, "topic": "one more", "data": 1})).await;
    assert_eq!(answer["offset"], 1, "{answer}");
}

/// With many subscriptions there is an index; each message still comes once, and in order.
#[tokio::test]
async fn hundreds_of_overlapping_subscriptions_deliver_once_and_end_together() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut client = open_v1(broker.address).await;
    let filters: Vec<String> = (0..1 << 8_u32)
        .map(|mask| {
            let level = |at: u32| if mask >> at & 1 == 1 { "+".to_owned() } else { format!("q{at}") };
            (0..8).map(level).collect::<Vec<_>>().join("/")
        })
        .collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let topic = (0..8).map(|at| format!("q{at}")).collect::<Vec<_>>().join("/");
    for round in 0..3 {
        client.subscribe(&filters).await;
        for offset in 1..=20 {
            post(broker.address, &topic, b"x").await;
            let message = client.json().await;
            assert_eq!(message["offset"], round * 21 + offset, "{message}");
        }
        let answer = client.command(json!({"type": "unsubscribe", "id": 1, "topics": filters})).await;
        assert_eq!(answer["type"], "ok", "{answer}");
        post(broker.address, &topic, b"for nobody").await;
    }
}
