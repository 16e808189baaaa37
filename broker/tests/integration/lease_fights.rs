//! Two clients fight for one lease, thousands of times, and publish to an exclusive topic whatever they have: what subscribers
//! get is never of two holders at a time. `RINGYARD_LEASE_ROUNDS` says how often, 2,000 times by default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::leases::{Railway, granted, lease};
use crate::ws::{Ws, open_v1};

/// What a fighter knows in the end.
#[derive(Default)]
struct Score {
    /// Its leases.
    numbers: Vec<u64>,
    /// Messages that were published, by the lease they named.
    published: BTreeMap<u64, u64>,
    /// Messages that were refused.
    refused: u64,
}

impl Score {
    fn count(&mut self, answer: &Value) {
        match answer["code"].as_str() {
            None if answer["type"] == "ok" => *self.published.entry(id_of(answer)).or_default() += 1,
            Some("not-holder") => self.refused += 1,
            _ => panic!("{answer}"),
        }
    }
}

/// Publishes carry their lease as their id.
fn id_of(answer: &Value) -> u64 {
    answer["id"].as_u64().expect("a number")
}

async fn send_publish(client: &mut Ws, name: &str, number: u64) {
    let data = json!([name, number]);
    let command =
        json!({"type": "publish", "id": number, "topic": "loco/1", "data": data, "lease": number, "ack": true});
    client.send(command.to_string()).await;
}

/// Takes the lease again and again, publishes three messages and gives it back at once. Whenever it has not got the lease it
/// publishes as if it still had.
async fn fight(server: SocketAddr, name: &'static str, left: Arc<AtomicU64>) -> Score {
    let mut client = open_v1(server).await;
    let mut score = Score::default();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let number = take(&mut client, name, &mut score).await;
        for _ in 0..3 {
            send_publish(&mut client, name, number).await;
        }
        client.send(lease(json!({"lease": number, "end": true})).to_string()).await;
        send_publish(&mut client, name, number).await;
        // Answers of different shards come in any order.
        for _ in 0..5 {
            let answer = client.json().await;
            if answer["id"] == "l" {
                assert_eq!(answer["type"], "ok", "{answer}");
            } else {
                score.count(&answer);
            }
        }
        score.numbers.push(number);
    }
    score
}

async fn take(client: &mut Ws, name: &str, score: &mut Score) -> u64 {
    // Sometimes it does not wait: then it may have to ask again.
    let wait = if score.numbers.len() % 5 == 4 { 0 } else { 60_000 };
    loop {
        client.send(lease(json!({"wait": wait})).to_string()).await;
        let late = score.numbers.last().copied();
        if let Some(number) = late {
            send_publish(client, name, number).await;
        }
        let mut asked = Value::Null;
        for _ in 0..1 + usize::from(late.is_some()) {
            let answer = client.json().await;
            if answer["id"] == "l" {
                asked = answer;
            } else {
                score.count(&answer);
            }
        }
        if asked["code"] != "held" {
            return granted(&asked);
        }
    }
}

/// Every message of the topic, until `end` comes.
async fn watch(mut watcher: Ws) -> Vec<(String, u64)> {
    let mut messages = Vec::new();
    loop {
        let message = watcher.json().await;
        assert_eq!(message["type"], "message", "{message}");
        let number = message["data"][1].as_u64().expect("a number");
        if message["data"][0] == "end" {
            return messages;
        }
        messages.push((message["data"][0].as_str().expect("a name").to_owned(), number));
    }
}

#[tokio::test]
async fn two_clients_fight_for_a_lease_and_their_messages_never_mix() {
    let rounds = std::env::var("RINGYARD_LEASE_ROUNDS").map_or(2000, |rounds| rounds.parse().expect("a number"));
    let railway = Railway::start("", &[]);
    let server = railway.address();
    let mut watcher = open_v1(server).await;
    watcher.subscribe(&["loco/1"]).await;
    let watching = tokio::spawn(watch(watcher));
    let left = Arc::new(AtomicU64::new(rounds));
    let fighters = ["ada", "bob"].map(|name| tokio::spawn(fight(server, name, Arc::clone(&left))));
    let mut scores = BTreeMap::new();
    for (name, fighter) in ["ada", "bob"].into_iter().zip(fighters) {
        scores.insert(name.to_owned(), fighter.await.expect("a score"));
    }
    let mut last = open_v1(server).await;
    let number = granted(&last.command(lease(json!({}))).await);
    send_publish(&mut last, "end", number).await;
    let messages = watching.await.expect("messages");

    let mut numbers: Vec<u64> = scores.values().flat_map(|score| score.numbers.iter().copied()).collect();
    assert_eq!(numbers.len() as u64, rounds);
    assert!(scores.values().all(|score| score.numbers.is_sorted() && score.numbers.len() as u64 > rounds / 10));
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len() as u64, rounds, "no number twice");
    assert!(number > numbers[numbers.len() - 1]);
    assert!(messages.is_sorted_by_key(|(_, number)| *number), "a later holder's messages come later");
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for (name, number) in &messages {
        assert!(scores[name].numbers.binary_search(number).is_ok(), "{name} has had {number}");
        *seen.entry(*number).or_default() += 1;
    }
    let published: BTreeMap<u64, u64> =
        scores.values().flat_map(|score| score.published.iter().map(|(number, count)| (*number, *count))).collect();
    assert_eq!(seen, published, "what was acknowledged was delivered, and nothing else");
    assert!(scores.values().map(|score| score.refused).sum::<u64>() > 0, "some came too late");
}
