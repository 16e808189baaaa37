//! A small broker for `ringyard.v1` with one topic that remembers everything, which can be told to break what a history
//! promises. It ends with the test's process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::mini::v1;

/// What the broker does with clients that come back having missed something, or with newcomers' state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Breach {
    /// Nothing wrong.
    None,
    /// `recovered: true`, but the first of what was missed is left out.
    Hole,
    /// The first of what was missed comes twice.
    Double,
    /// `recovered: true`, from the newest message on.
    Elsewhere,
    /// `recovered: true`, and nothing of what was missed.
    Nothing,
    /// `recovered: false`, and everything that was missed.
    Denied,
    /// `recovered: true`, in another epoch.
    Epoch,
    /// `recovered: false`, from the newest message on. That is honest.
    Announced,
    /// Every tenth message is replaced by a gap. Honest too.
    Gaps,
    /// Every tenth message begins another epoch. Honest too.
    Reset,
    /// State with an older message of one key.
    Stale,
    /// State without one key.
    Lacking,
    /// State without an end.
    Endless,
    /// Only the first connection is accepted.
    Full,
}

#[derive(Default)]
struct Topic {
    epoch: u64,
    /// Data and key.
    messages: Vec<(Value, Option<Value>)>,
    /// Offset of the first of them, less 1.
    before: u64,
    subscribers: Vec<mpsc::UnboundedSender<Message>>,
}

/// Starts a broker on a thread of its own.
pub(super) fn broker(breach: Breach) -> SocketAddr {
    let (report, reported) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            report.send(listener.local_addr().unwrap()).unwrap();
            let topic = Arc::new(Mutex::new(Topic::default()));
            let mut accepted = 0;
            while let Ok((stream, _)) = listener.accept().await {
                accepted += 1;
                // The first connection only sees whether somebody listens.
                tokio::spawn(serve(stream, breach, accepted > 2, Arc::clone(&topic)));
            }
        });
    });
    reported.recv().unwrap()
}

async fn serve(stream: TcpStream, breach: Breach, is_later: bool, topic: Arc<Mutex<Topic>>) {
    let carry_out = |command: &Value, outbox: &mpsc::UnboundedSender<Message>| {
        let mut topic = topic.lock().unwrap();
        match command["type"].as_str() {
            Some("publish") => topic.publish(breach, command),
            Some("subscribe") => topic.subscribe(breach, command, outbox),
            _ => {}
        }
    };
    v1::serve(stream, breach == Breach::Full && is_later, carry_out).await;
}

fn text(value: &Value) -> Message {
    Message::text(value.to_string())
}

impl Topic {
    fn head(&self) -> u64 {
        self.before + self.messages.len() as u64
    }

    fn message(&self, name: &Value, offset: u64, state: bool) -> Message {
        let (data, key) = &self.messages[(offset - self.before - 1) as usize];
        let mut message = json!({"type": "message", "topic": name, "offset": offset, "data": data});
        if let Some(key) = key {
            message["key"] = key.clone();
        }
        if state {
            message["state"] = true.into();
        }
        text(&message)
    }

    fn publish(&mut self, breach: Breach, command: &Value) {
        let name = &command["topic"];
        let tenth = self.head() % 10 == 9;
        if breach == Breach::Reset && tenth {
            self.epoch += 1;
            self.before = self.head() + 100;
            self.messages.clear();
            let reset = json!({"type": "reset", "topic": name, "epoch": format!("{:016x}", self.epoch),
                "offset": self.before, "reason": "purged"});
            self.send(&text(&reset));
        }
        self.messages.push((command["data"].clone(), command.get("key").cloned()));
        let offset = self.head();
        let message = match breach {
            Breach::Gaps if tenth => {
                text(&json!({"type": "gap", "topic": name, "from": offset, "to": offset, "reason": "evicted"}))
            }
            _ => self.message(name, offset, false),
        };
        self.send(&message);
    }

    fn send(&mut self, message: &Message) {
        self.subscribers.retain(|subscriber| subscriber.send(message.clone()).is_ok());
    }

    fn subscribe(&mut self, breach: Breach, command: &Value, outbox: &mpsc::UnboundedSender<Message>) {
        let name = &command["topics"][0];
        let since = &command["since"]["positions"][name.as_str().unwrap()];
        let head = self.head();
        let (mut epoch, mut from, mut recovered, mut replay) = (self.epoch, head, None, Vec::new());
        if let Some(offset) = since["offset"].as_u64() {
            let whole = since["epoch"] == format!("{epoch:016x}") && (self.before..=head).contains(&offset);
            let missed: Vec<u64> = (offset + 1..=head).filter(|_| whole).collect();
            (from, recovered, replay) = (if whole { offset } else { head }, Some(whole), missed.clone());
            match breach {
                _ if missed.is_empty() => {}
                Breach::Hole => drop(replay.remove(0)),
                Breach::Double => replay.insert(0, missed[0]),
                Breach::Elsewhere => (from, replay) = (head, Vec::new()),
                Breach::Nothing => replay = Vec::new(),
                Breach::Denied => recovered = Some(false),
                Breach::Epoch => epoch += 1,
                Breach::Announced => (from, recovered, replay) = (head, Some(false), Vec::new()),
                _ => {}
            }
        }
        let mut begun =
            json!({"topic": name, "epoch": format!("{epoch:016x}"), "offset": from + 1, "history": "keyed"});
        if let Some(recovered) = recovered {
            begun["recovered"] = recovered.into();
        }
        let say = |message: Message| drop(outbox.send(message));
        say(text(&json!({"type": "ok", "id": command["id"], "topics": [begun]})));
        let state = self.state(breach);
        let keyed = !state.is_empty();
        state.into_iter().for_each(|offset| say(self.message(name, offset, true)));
        if keyed && breach != Breach::Endless {
            say(text(&json!({"type": "state-end", "topic": name, "offset": head})));
        }
        replay.into_iter().for_each(|offset| say(self.message(name, offset, false)));
        self.subscribers.push(outbox.clone());
    }

    /// The newest offset of each key; nothing if messages have none.
    fn state(&self, breach: Breach) -> Vec<u64> {
        let newest = |(at, (_, key)): (usize, &(Value, Option<Value>))| {
            let last = key.is_some() && !self.messages[at + 1..].iter().any(|(_, later)| later == key);
            last.then_some(self.before + at as u64 + 1)
        };
        let mut state: Vec<_> = self.messages.iter().enumerate().filter_map(newest).collect();
        match breach {
            Breach::Lacking if !state.is_empty() => drop(state.pop()),
            // Keys come in turn.
            Breach::Stale if !state.is_empty() => {
                let keys = state.len() as u64;
                *state.last_mut().unwrap() -= keys;
                state.sort_unstable();
            }
            _ => {}
        }
        state
    }
}
