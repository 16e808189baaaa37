//! One order per topic, the same for everybody on every shard, nothing lost and nothing doubled.

use serde_json::json;

use crate::broker::Broker;
use crate::http::Http;
use crate::ws::{open, open_v1};

const SUBSCRIBERS: usize = 40;
const PUBLISHERS: usize = 4;
const MESSAGES: usize = 500;

/// Publishers by WebSocket, by `ringyard.v1` and by HTTP at once; raw and JSON subscribers, spread by the
/// kernel over both shards.
#[tokio::test]
async fn one_order_for_everybody() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    let mut raw = Vec::new();
    let mut enveloped = Vec::new();
    for _ in 0..SUBSCRIBERS {
        raw.push(open(server, "/sub/order").await);
        let mut client = open_v1(server).await;
        client.subscribe(&["order", "#"]).await;
        enveloped.push(client);
    }

    let mut publishing = Vec::new();
    for publisher in 0..PUBLISHERS {
        publishing.push(tokio::spawn(async move {
            match publisher % 3 {
                0 => {
                    let mut client = open(server, "/pub/order").await;
                    for at in 0..MESSAGES {
                        client.send(format!("{publisher} {at}")).await;
                    }
                    client.close().await;
                }
                1 => {
                    let mut client = open_v1(server).await;
                    for at in 0..MESSAGES {
                        let data = format!("{publisher} {at}");
                        client.send(json!({"type": "publish", "topic": "order", "data": data}).to_string()).await;
                    }
                    client.close().await;
                }
                _ => {
                    let mut http = Http::open(server).await;
                    for at in 0..MESSAGES {
                        let body = format!("{publisher} {at}");
                        let head = format!(
                            "POST /pub/order HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                            body.len()
                        );
                        http.send(head + &body).await;
                        assert_eq!(http.answer().await.status, 200);
                    }
                }
            }
        }));
    }

    let mut reference: Vec<String> = Vec::new();
    for (at, subscriber) in raw.iter_mut().enumerate() {
        let mut seen = Vec::new();
        for _ in 0..PUBLISHERS * MESSAGES {
            seen.push(subscriber.text().await);
        }
        if at == 0 {
            reference = seen;
        } else {
            assert!(seen == reference, "subscriber {at} saw another order");
        }
    }
    for subscriber in &mut enveloped {
        for (at, data) in reference.iter().enumerate() {
            let message = subscriber.json().await;
            assert_eq!((&message["data"], &message["offset"]), (&data[..].into(), &(at + 1).into()));
        }
    }
    for publisher in 0..PUBLISHERS {
        let own: Vec<_> = reference.iter().filter(|text| text.starts_with(&format!("{publisher} "))).collect();
        assert_eq!(own.len(), MESSAGES);
        assert!(
            own.iter().enumerate().all(|(at, text)| **text == format!("{publisher} {at}")),
            "its own order is kept"
        );
    }
    for publisher in publishing {
        publisher.await.unwrap();
    }
}

/// Whoever subscribes in the middle gets everything from some message on.
#[tokio::test]
async fn a_late_subscriber_gets_an_unbroken_tail() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    let publishing = tokio::spawn(async move {
        let mut publisher = open(server, "/pub/tail").await;
        for at in 0..5000 {
            publisher.send(at.to_string()).await;
            if at % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        publisher.send("end").await;
        publisher.close().await;
    });
    let mut late = Vec::new();
    for _ in 0..20 {
        late.push(open(server, "/sub/tail").await);
    }
    publishing.await.unwrap();
    crate::http::post(server, "tail", b"the very end").await;
    for subscriber in &mut late {
        let mut expected: Option<u32> = None;
        loop {
            let text = subscriber.text().await;
            if text == "the very end" {
                break;
            }
            if text == "end" {
                assert!(expected.is_none_or(|next| next == 5000));
                continue;
            }
            let number: u32 = text.parse().unwrap();
            assert!(expected.is_none_or(|next| next == number), "{expected:?}, not {number}");
            expected = Some(number + 1);
        }
    }
}
