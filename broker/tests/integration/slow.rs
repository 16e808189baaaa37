//! Subscribers that do not read.

use std::time::Instant;

use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{await_stat, stat};
use crate::ws::open;

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
    assert_eq!(slow.close_code().await, 1013);
    publisher.send("after").await;
    assert_eq!(good.text().await, "after");
    await_stat(&broker, "log_bytes", |bytes| bytes == 0).await;
    assert_eq!(stat(&broker, "dropped_slow").await, 1);
}
