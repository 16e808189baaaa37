//! A topic is purged under live subscriptions: who learns of it, in which order, and what newcomers find.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::replays::words;
use super::*;
use crate::shard::shared::ControlMessage;
use crate::topics::registry::Registry;
use crate::topics::rules::{HistoryKind, Rule, SharedRules};

impl Stage {
    fn order_purge(&self, topic: &str) -> oneshot::Receiver<Option<Epoch>> {
        let topic = self.shared.registry.find(topic).expect("a topic");
        let (answer, answered) = oneshot::channel();
        let sequencer = topic.sequencer;
        self.shared.send_control(sequencer, ControlMessage::Purge { topic, answer }).expect("room");
        answered
    }

    /// The epoch that begins, as clients write it.
    fn purge(&mut self, topic: &str) -> Value {
        let mut answered = self.order_purge(topic);
        self.turns(4);
        let epoch = answered.try_recv().expect("an answer").expect("a topic that is kept");
        json!(format!("{:016x}", epoch.0))
    }
}

fn since(epoch: &Value, offset: u64) -> Value {
    json!({ "type": "subscribe", "topic": "t", "since": { "epoch": epoch, "offset": offset } })
}

#[test]
fn every_live_subscription_learns_of_it_between_the_epochs() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    let publisher = stage.open("/ws");
    let clients: Vec<_> = ["t", "+", "both"]
        .into_iter()
        .map(|filter| {
            let client = stage.open("/ws");
            let topics = if filter == "both" { json!(["#", "t"]) } else { json!([filter]) };
            stage.ask(client, &json!({ "type": "subscribe", "topics": topics }));
            client
        })
        .collect();
    let raw = stage.open("/sub/t");
    let old = stage.publish(publisher, "t", &[])["epoch"].clone();
    stage.publish(publisher, "t", &[("retain", json!(true)), ("idempotency_key", json!("once"))]);
    let epoch = stage.purge("t");
    assert_ne!(epoch, old);
    let answer = stage.publish(publisher, "t", &[("idempotency_key", json!("once"))]);
    assert_eq!((&answer["epoch"], &answer["offset"], &answer["duplicate"]), (&epoch, &json!(1), &Value::Null));
    stage.publish(publisher, "t", &[]);
    for client in clients {
        let read = stage.read(client);
        let expected = ["message 1", "message 2", "reset 0", "message 1", "message 2"];
        let own: Vec<_> = read.iter().filter(|message| message["type"] != "state-end").cloned().collect();
        assert_eq!(words(&own), expected);
        let reset = json!({ "type": "reset", "topic": "t", "epoch": epoch, "offset": 0, "reason": "purged" });
        assert_eq!(own[2], reset);
    }
    stage.turns(8);
    assert_eq!(stage.world.client_read(raw, 64), b"\x81\x01x".repeat(4), "frames of messages, and nothing else");
    assert_eq!(stage.shared.stats[0].snapshot().purged, 1);
    assert_eq!(stage.shared.stats[0].snapshot().sequenced, 4);
}

#[test]
fn nothing_of_the_old_epoch_is_left() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    let publisher = stage.open("/ws");
    let old = stage.publish(publisher, "t", &[("retain", json!(true))])["epoch"].clone();
    stage.publish(publisher, "t", &[]);
    assert!(stage.shared.registry.find("t").expect("a topic").is_stateful());
    let epoch = stage.purge("t");
    assert!(!stage.shared.registry.find("t").expect("a topic").is_stateful());
    assert_eq!(stage.shared.history_usage.state_entries() + stage.shared.history_usage.window_bytes(), 0);
    let newcomer = stage.open("/ws");
    let read = stage.ask(newcomer, &json!({ "type": "subscribe", "topics": ["t", "+"] }));
    assert_eq!(words(&read), ["ok", "state-end"]);
    assert_eq!((&read[0]["topics"][0]["epoch"], &read[0]["topics"][0]["offset"]), (&epoch, &json!(1)));
    let history = stage.ask(publisher, &json!({ "type": "history", "topic": "t" }));
    assert_eq!((&history[0]["epoch"], &history[0]["messages"]), (&epoch, &json!([])));
    // What comes then is the new epoch's.
    stage.publish(publisher, "t", &[("retain", json!(true))]);
    stage.publish(publisher, "t", &[]);
    for (position, recovered, expected) in [
        (since(&old, 1), false, &["ok", "message* 1"][..]),
        (since(&old, 2), false, &["ok", "message* 1"]),
        (since(&epoch, 1), true, &["ok", "message 2"]),
        (since(&epoch, 0), true, &["ok", "message 1", "message 2"]),
    ] {
        let client = stage.open("/ws");
        let read = stage.ask(client, &position);
        assert_eq!(
            (words(&read), &read[0]["topics"][0]["recovered"]),
            (expected.iter().map(|word| (*word).to_owned()).collect(), &json!(recovered))
        );
    }
}

#[test]
fn the_keys_of_a_keyed_topic_go() {
    let mut stage = Stage::ruled(HistoryKind::Keyed, Limits::default());
    let publisher = stage.open("/ws");
    let old = stage.publish(publisher, "t", &[("key", json!("a"))])["epoch"].clone();
    let live = stage.open("/ws");
    assert_eq!(
        words(&stage.ask(live, &json!({ "type": "subscribe", "topic": "t" }))),
        ["ok", "message* 1", "state-end 1"]
    );
    stage.purge("t");
    stage.publish(publisher, "t", &[("key", json!("b")), ("if_offset", json!(0))]);
    assert_eq!(words(&stage.read(live)), ["reset 0", "message 1"]);
    let client = stage.open("/ws");
    let read = stage.ask(client, &since(&old, 1));
    assert_eq!(words(&read), ["ok", "message* 1", "state-end 1"]);
    assert_eq!((&read[0]["topics"][0]["recovered"], &read[1]["key"]), (&json!(false), &json!("b")));
}

#[test]
fn a_topic_that_is_not_kept_is_not_purged() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    let topic = stage.shared.registry.resolve("t");
    let mut answered = stage.order_purge("t");
    stage.turns(2);
    assert_eq!(answered.try_recv().expect("an answer"), None);
    drop(topic);
}

/// The topic is purged after a subscription entered its log and before the sequencer, on another shard, answers: what the
/// answer has of the new epoch comes live, behind the reset, and not twice.
#[test]
fn a_subscription_that_is_held_begins_in_the_epoch_before() {
    for kind in [HistoryKind::Window, HistoryKind::Keyed] {
        for filter in ["t", "+"] {
            for (offset, recovered) in [(None, None), (Some(1), Some(false)), (Some(2), Some(filter == "t"))] {
                for state in [true, false] {
                    let (shared, name) = two_shards(kind);
                    let mut stage = Stage::of(shared, u64::MAX >> 2, Limits::default());
                    let filter = if filter == "t" { &name } else { filter };
                    let mut asked = json!({ "type": "subscribe", "topic": filter, "state": state });
                    let (read, reset, old) = held(&mut stage, &name, &mut asked, offset);
                    let begun = &read[0]["topics"][0];
                    assert_eq!(begun["recovered"], recovered.map_or(Value::Null, Value::from), "{read:?}");
                    if *filter == name {
                        assert_eq!((&begun["epoch"], &begun["offset"]), (&old, &json!(3)), "{read:?}");
                        // The keys of a recovery end with it, even if state is declined.
                        let ends = kind == HistoryKind::Keyed && (state || recovered == Some(true));
                        let end: &[&str] = if ends { &["state-end 2"] } else { &[] };
                        assert_eq!(words(&read[1..reset]), end, "{kind:?}, {asked}");
                    }
                }
            }
        }
    }
}

/// State of two shards, and a topic that the second one sequences.
fn two_shards(kind: HistoryKind) -> (SharedState, String) {
    let registry = Registry::new(2, 1).ruled_by(SharedRules::only(Rule::of_kind(kind)));
    let name = (0..).map(|n| format!("t{n}")).find(|name| registry.resolve(name).sequencer == ShardId(1));
    (SharedState { registry, ..SharedState::new(2, 1, Epoch(1)) }, name.expect("one of many"))
}

/// Purges `topic` under a subscription that is asked for, at this offset. Returns what it is sent, where the reset is, and
/// the epoch before.
fn held(stage: &mut Stage, topic: &str, asked: &mut Value, offset: Option<u64>) -> (Vec<Value>, usize, Value) {
    let (publisher, other) = (stage.open("/ws"), stage.open("/ws"));
    stage.ask(other, &json!({ "type": "subscribe", "topics": [topic, "+"] }));
    let old = stage.publish(publisher, topic, &[("key", json!("a")), ("retain", json!(true))])["epoch"].clone();
    stage.publish(publisher, topic, &[("key", json!("b"))]);
    let client = stage.open("/ws");
    if let Some(offset) = offset {
        asked["since"] = json!({ "epoch": old, "offset": offset });
    }
    let bytes = frame(TEXT, asked.to_string().as_bytes());
    assert_eq!(stage.world.client_write(client, &bytes), bytes.len());
    // The question is on its way; the sequencer purges before it looks at it, and takes another message.
    assert!(stage.shard.step().unwrap() && stage.shard.step().unwrap());
    let purged = stage.order_purge(topic);
    let again = frame(
        TEXT,
        json!({ "type": "publish", "topic": topic, "data": "new", "key": "c", "retain": true }).to_string().as_bytes(),
    );
    assert_eq!(stage.world.client_write(publisher, &again), again.len());
    let read = stage.read(client);
    let epoch = json!(format!("{:016x}", purged.blocking_recv().expect("an answer").expect("a topic").0));
    let reset = read.iter().position(|message| message["type"] == "reset").expect("a reset");
    assert_eq!(read[reset]["epoch"], epoch);
    let new: Vec<_> = read.iter().enumerate().filter(|(_, message)| message["data"] == "new").collect();
    assert_eq!(new.len(), 1, "{read:?}");
    assert!(new[0].0 > reset && new[0].1["offset"] == 1 && new[0].1["state"].is_null(), "{read:?}");
    (read, reset, old)
}
