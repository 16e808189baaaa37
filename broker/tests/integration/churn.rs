//! Coming and going: afterwards everything is as it was.

use std::time::Duration;

use crate::broker::Broker;
use crate::history::without_history;
use crate::http::{await_stat, post, stats};
use crate::ws::{open, open_v1};

const GAUGES: [&str; 5] = ["connections", "subscriptions", "logs", "log_bytes", "topics"];

/// Thousands of clients of all kinds, some leaving politely, some not; gauges and memory return.
#[tokio::test]
async fn gauges_return_to_where_they_began() {
    let broker = Broker::start(&["--topic-idle-timeout", "1s", "--config", &without_history("churn")]);
    let server = broker.address;
    let mut memory = 0;
    for round in 0..6 {
        for _ in 0..10 {
            let mut clients = Vec::new();
            for at in 0..50 {
                let path = ["/sub/churn", "/bus/churn", "/pub/churn", "/sub/%23"][at % 4];
                clients.push(open(server, path).await);
            }
            let mut v1 = open_v1(server).await;
            v1.subscribe(&["churn", "churn/+", "other"]).await;
            post(server, "churn", &[b'x'; 1000]).await;
            assert_eq!(v1.json().await["type"], "message");
            for (at, client) in clients.into_iter().enumerate() {
                if at % 2 == 0 {
                    client.close().await;
                } else {
                    client.stream.get_ref().set_zero_linger().unwrap();
                }
            }
        }
        for gauge in GAUGES {
            await_stat(&broker, gauge, |value| value == 0).await;
        }
        let now = resident(broker.child.id());
        // The first rounds fill pools and caches.
        if round == 2 {
            memory = now;
        }
        assert!(round < 3 || now < memory + (4 << 20), "{memory} bytes grew to {now} in round {round}");
    }
    let stats = stats(&broker).await;
    let number = |name: &str| stats[name].as_u64().expect("a counter");
    assert_eq!(number("accepted"), number("closed") + number("connections"), "{stats}");
}

/// Connections per second without any further purpose.
#[tokio::test]
async fn connects_and_disconnects() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    for _ in 0..3000 {
        drop(tokio::net::TcpStream::connect(server).await.unwrap());
    }
    await_stat(&broker, "accepted", |accepted| accepted == 3000).await;
    await_stat(&broker, "connections", |open| open == 0).await;
    tokio::time::timeout(Duration::from_secs(10), open(server, "/sub/a")).await.expect("still serving");
}

fn resident(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
