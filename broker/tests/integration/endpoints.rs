//! `/sub`, `/pub` and `/bus`: payloads and nothing else.

use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{await_stat, post};
use crate::ws::{Ws, open};

#[tokio::test]
async fn what_is_published_reaches_every_subscriber_and_nobody_else() {
    let broker = Broker::start(&[]);
    let mut subscribers = Vec::new();
    for _ in 0..20 {
        subscribers.push(open(broker.address, "/sub/news/today").await);
    }
    let mut other = open(broker.address, "/sub/news").await;
    let mut publisher = open(broker.address, "/pub/news/today").await;
    for round in 0..50 {
        publisher.send(format!("message {round}")).await;
    }
    for subscriber in &mut subscribers {
        for round in 0..50 {
            assert_eq!(subscriber.text().await, format!("message {round}"));
        }
    }
    post(broker.address, "news", b"the only one").await;
    assert_eq!(other.text().await, "the only one");
}

#[tokio::test]
async fn text_stays_text_and_binary_stays_binary() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/kinds").await;
    let mut bus = open(broker.address, "/bus/kinds").await;
    let mut publisher = open(broker.address, "/pub/kinds").await;
    let binary = vec![0u8, 0xff, 0x80, 7];
    let messages = [Message::text("grüße"), Message::binary(binary), Message::text(""), Message::binary(Vec::new())];
    for message in &messages {
        publisher.send(message.clone()).await;
        assert_eq!(&subscriber.next().await, message);
        assert_eq!(&bus.next().await, message);
    }
}

#[tokio::test]
async fn a_bus_gives_everybody_everything_in_one_order() {
    let broker = Broker::start(&[]);
    let mut members: Vec<Ws> = Vec::new();
    for _ in 0..6 {
        members.push(open(broker.address, "/bus/room").await);
    }
    for round in 0..20 {
        for (at, member) in members.iter_mut().enumerate() {
            member.send(format!("{at}: {round}")).await;
        }
    }
    let mut seen = Vec::new();
    for member in &mut members {
        let mut heard = Vec::new();
        for _ in 0..120 {
            heard.push(member.text().await);
        }
        seen.push(heard);
    }
    assert!(seen.iter().all(|heard| heard == &seen[0]), "one order for all, one's own messages included");
}

#[tokio::test]
async fn a_subscription_may_be_a_filter() {
    let broker = Broker::start(&[]);
    let mut one_level = open(broker.address, "/sub/rooms/+/chat").await;
    let mut all = open(broker.address, "/sub/rooms/%23").await;
    for (topic, body) in [("rooms/1/chat", "a"), ("rooms/1/mood", "b"), ("rooms", "c"), ("rooms/2/chat", "d")] {
        post(broker.address, topic, body.as_bytes()).await;
    }
    for body in ["a", "d"] {
        assert_eq!(one_level.text().await, body);
    }
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(all.text().await);
    }
    // Topics may have different sequencers, so only the order within one is promised.
    heard.sort();
    assert_eq!(heard, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_subscriber_that_publishes_is_told_where_to() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/one-way").await;
    subscriber.send("hello").await;
    assert_eq!(subscriber.close_code().await, 1008);
}

#[tokio::test]
async fn a_publisher_hears_nothing() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/quiet").await;
    let mut publisher = open(broker.address, "/pub/quiet").await;
    publisher.send("hello").await;
    assert_eq!(subscriber.text().await, "hello");
    // The answer to the close is the first thing that comes.
    publisher.stream.close(None).await.unwrap();
    assert!(matches!(publisher.next().await, Message::Close(_)));
}

#[tokio::test]
async fn a_hundred_thousand_topics() {
    let broker = Broker::start(&[]);
    let mut all = open(broker.address, "/sub/many/%23").await;
    let mut publisher = crate::ws::open_v1(broker.address).await;
    let count = 100_000u32;
    let publishing = async {
        for topic in 0..count {
            let command = format!(r#"{{"type":"publish","topic":"many/{topic}","data":"{topic}"}}"#);
            publisher.send(command).await;
        }
    };
    let receiving = async {
        let mut seen = vec![false; count as usize];
        for _ in 0..count {
            let topic: usize = all.text().await.parse().unwrap();
            assert!(!std::mem::replace(&mut seen[topic], true), "{topic} came twice");
        }
    };
    tokio::join!(publishing, receiving);
    await_stat(&broker, "messages_out", |out| out >= u64::from(count)).await;
}
