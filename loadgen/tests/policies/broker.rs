//! A small broker for `ringyard.v1` with one topic, a policy for slow subscribers and a throttle, which can be told to break
//! what it answered. It ends with the test's process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use crate::mini::v1;

/// What the broker answers to every subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    /// `disconnect` is left out of the answer.
    pub(super) slow_consumer: &'static str,
    /// 0: no throttle, every message at once.
    pub(super) throttle_ms: u64,
}

/// What it does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Breach {
    /// Nothing.
    None,
    /// Of the key 3, only the first message is sent.
    LosesNewest,
    /// Now and then, an older message of a key comes after a newer one.
    SendsOlder,
    /// Now and then, the newest message of a key comes twice.
    SendsAgain,
    /// Every tenth message is left out.
    Hole,
    /// The same, after a `gap`. That is honest where the policy is `skip`.
    Gaps,
    /// Messages are sent one by one, whatever the throttle.
    Unthrottled,
    /// With message 50, all subscribers are closed with 1013.
    Closes,
}

/// A message: offset, data, key.
type Entry = (u64, Value, Value);

struct Topic {
    terms: Terms,
    breach: Breach,
    name: Value,
    head: u64,
    /// Published, and not sent yet.
    waiting: Vec<Entry>,
    /// What was sent last time.
    sent: Vec<Entry>,
    subscribers: Vec<mpsc::UnboundedSender<Message>>,
}

/// Starts a broker on a thread of its own.
pub(super) fn broker(terms: Terms, breach: Breach) -> SocketAddr {
    let (report, reported) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            report.send(listener.local_addr().unwrap()).unwrap();
            let (head, waiting, sent, subscribers) = (0, Vec::new(), Vec::new(), Vec::new());
            let topic = Topic { terms, breach, name: Value::Null, head, waiting, sent, subscribers };
            let topic = Arc::new(Mutex::new(topic));
            let mut interval = tokio::time::interval(Duration::from_millis(terms.throttle_ms.max(20)));
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        tokio::spawn(serve(accepted.unwrap().0, Arc::clone(&topic)));
                    }
                    _ = interval.tick() => topic.lock().unwrap().deliver(),
                }
            }
        });
    });
    reported.recv().unwrap()
}

async fn serve(stream: TcpStream, topic: Arc<Mutex<Topic>>) {
    let carry_out = |command: &Value, outbox: &mpsc::UnboundedSender<Message>| {
        let mut topic = topic.lock().unwrap();
        match command["type"].as_str() {
            Some("publish") => topic.publish(command),
            Some("subscribe") => topic.subscribe(command, outbox),
            _ => {}
        }
    };
    v1::serve(stream, false, carry_out).await;
}

impl Topic {
    fn subscribe(&mut self, command: &Value, outbox: &mpsc::UnboundedSender<Message>) {
        let mut begun = json!({"topic": command["topics"][0], "epoch": "000000000000000a", "offset": self.head + 1});
        if self.terms.slow_consumer != "disconnect" {
            begun["slow_consumer"] = self.terms.slow_consumer.into();
        }
        if self.terms.throttle_ms > 0 {
            begun["throttle"] = self.terms.throttle_ms.into();
        }
        let _ = outbox.send(Message::text(json!({"type": "ok", "id": command["id"], "topics": [begun]}).to_string()));
        self.subscribers.push(outbox.clone());
    }

    fn publish(&mut self, command: &Value) {
        self.name = command["topic"].clone();
        self.head += 1;
        if self.breach == Breach::Closes && self.head == 50 {
            let frame = CloseFrame { code: CloseCode::Again, reason: "too slow".into() };
            self.send(&Message::Close(Some(frame)));
            self.subscribers.clear();
        }
        self.waiting.push((self.head, command["data"].clone(), command["key"].clone()));
        if self.breach == Breach::Unthrottled || self.terms.throttle_ms == 0 {
            self.deliver();
        }
    }

    /// Sends what waits, or the newest of each key.
    fn deliver(&mut self) {
        let mut sent = std::mem::take(&mut self.waiting);
        if self.terms.slow_consumer == "latest" {
            let all = sent.clone();
            sent.retain(|(offset, _, key)| !all.iter().any(|(later, _, other)| later > offset && other == key));
        }
        if self.breach == Breach::LosesNewest {
            sent.retain(|(offset, _, key)| key != "3" || *offset < 10);
        }
        for (offset, data, key) in &sent {
            let left_out = matches!(self.breach, Breach::Hole | Breach::Gaps) && offset % 10 == 0;
            if left_out && self.breach == Breach::Gaps {
                let gap = json!({"type": "gap", "topic": self.name, "from": offset, "to": offset,
                    "reason": "slow-consumer"});
                self.send(&Message::text(gap.to_string()));
            }
            if !left_out {
                self.message(*offset, data, key);
            }
        }
        let previous = std::mem::replace(&mut self.sent, sent);
        let again = match self.breach {
            Breach::SendsOlder => {
                previous.first().filter(|(_, _, key)| self.sent.iter().any(|(.., other)| other == key))
            }
            Breach::SendsAgain => self.sent.last(),
            _ => None,
        };
        if let Some((offset, data, key)) = again.cloned() {
            self.message(offset, &data, &key);
        }
    }

    fn message(&mut self, offset: u64, data: &Value, key: &Value) {
        let mut message = json!({"type": "message", "topic": self.name, "offset": offset, "data": data});
        if !key.is_null() {
            message["key"] = key.clone();
        }
        self.send(&Message::text(message.to_string()));
    }

    fn send(&mut self, message: &Message) {
        self.subscribers.retain(|subscriber| subscriber.send(message.clone()).is_ok());
    }
}
