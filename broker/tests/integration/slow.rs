//! Subscribers that do not read.

use std::time::Instant;

use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{await_stat, stat};
use crate::ws::{open, open_v1};

/// It is closed with 1013; nobody else loses or waits for anything, and its messages' memory comes back.
#[tokio::test]
async fn a_subscriber_that_never_reads_is_closed_and_harms_nobody() {
    let broker = Broker::start(&["--max-lag", "1m", "--shards", "1"]);
    let mut slow = open(broker.address, "/sub/flood").await;
    let mut good = open(broker.address, "/sub/flood").await;
    let mut publisher = open(broker.address, "/pub/flood").await;
    let payload = vec![b'x'; 64 << 10];
    let mut published = 0u32;
    let begun = Instant::now();
    // Until the kernel's buffers towards the slow one are full, and the limit is passed.
    while stat(&broker, "dropped_slow").await == 0 {
        for _ in 0..20 {
            let mut message = payload.clone();
            message[..4].copy_from_slice(&published.to_be_bytes());
            publisher.send(Message::binary(message)).await;
            let Message::Binary(got) = good.next().await else { panic!("binary") };
            assert_eq!(got[..4], published.to_be_bytes());
            assert_eq!(got.len(), payload.len());
            published += 1;
        }
        assert!(begun.elapsed().as_secs() < 60, "{published} messages and nobody was dropped");
    }
    let (code, reason) = slow.close_frame().await;
    assert_eq!(code, 1013);
    assert!(reason.ends_with("topic flood") && reason.contains(" bytes "), "{reason}");
    publisher.send("after").await;
    assert_eq!(good.text().await, "after");
    await_stat(&broker, "log_bytes", |bytes| bytes == 0).await;
    assert_eq!(stat(&broker, "dropped_slow").await, 1);
}

/// A broker with one rule for every topic.
fn with_rule(keys: &str) -> (tempfile::TempDir, Broker) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    std::fs::write(&file, format!("[[topic]]\nmatch = '#'\nhistory = 'none'\n{keys}\n")).unwrap();
    let broker = Broker::start(&["--shards", "1", "--config", file.to_str().unwrap()]);
    (folder, broker)
}

/// With `slow-consumer = "skip"` one that does not read is not closed: it goes on with newer messages, and is told which it was
/// not sent. Publishers do not wait for it.
#[tokio::test]
async fn a_subscriber_that_skips_is_told_what_it_was_not_sent() {
    let (_folder, broker) = with_rule("slow-consumer = 'skip'\nmax-lag = '256k'");
    let mut slow = open_v1(broker.address).await;
    let answer = slow.command(serde_json::json!({"type": "subscribe", "id": 1, "topic": "flood"})).await;
    assert_eq!(answer["topics"][0]["slow_consumer"], "skip", "{answer}");
    let mut raw = open(broker.address, "/sub/flood").await;
    let mut publisher = open(broker.address, "/pub/flood").await;
    let payload = "x".repeat(64 << 10);
    let (begun, mut published) = (Instant::now(), 0u64);
    while stat(&broker, "skips").await < 20 {
        for _ in 0..20 {
            publisher.send(payload.as_str()).await;
            published += 1;
        }
        assert!(begun.elapsed().as_secs() < 60, "{published} messages and nobody skipped");
    }
    assert!(stat(&broker, "log_bytes").await < 4 << 20, "what nobody is sent is freed");
    publisher.send("last").await;
    let (mut next, mut gaps) = (1, 0);
    loop {
        let message = slow.json().await;
        if message["type"] == "gap" {
            assert_eq!((&message["from"], &message["reason"]), (&next.into(), &"slow-consumer".into()), "{message}");
            assert!(message["to"].as_u64() >= Some(next), "{message}");
            (next, gaps) = (message["to"].as_u64().unwrap() + 1, gaps + 1);
            continue;
        }
        assert_eq!(message["offset"], next, "a gap that nobody was told of");
        next += 1;
        if message["data"] == "last" {
            break;
        }
    }
    assert!(gaps > 0 && next == published + 2, "{gaps} gaps, {next} of {published}");
    while raw.text().await != "last" {}
    assert_eq!((stat(&broker, "dropped_slow").await, stat(&broker, "given_up").await), (0, 0));
    await_stat(&broker, "log_bytes", |bytes| bytes == 0).await;
    let since = "/sub/flood?since=0123456789abcdef:1";
    let refused = crate::ws::try_open(broker.address, since, &[]).await.err().expect("frames cannot be counted");
    assert!(refused.to_string().contains("400"), "{refused}");
}
