//! Sessions, members and counts, over simulated connections of two shards.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::topics::{Presence, PresenceInfo};
use crate::topics::registry::Registry;
use crate::topics::rules::{Rule, SharedRules};

mod leases;
mod wills;

const GRACE_S: u64 = 15;

/// Two shards, on whose topics clients can be present: so many are listed.
fn stage(members_max: u32) -> Stage {
    let presence = Some(Presence { members_max, info: PresenceInfo::Client });
    let registry = Registry::new(2, 1).ruled_by(SharedRules::only(Rule { presence, ..Rule::default() }));
    let shared = SharedState { registry, ..SharedState::new(2, 1, Epoch(1)) };
    Stage::of(shared, u64::MAX >> 2, Limits { ping_interval: Duration::from_secs(1000), ..Limits::default() })
}

impl Stage {
    /// Time passes, turn by turn.
    fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.world.advance(100_000_000);
            self.turns(2);
        }
    }

    /// A client of this shard that has connected with a session, perhaps one that it had: its connection, and the answer.
    fn join(&mut self, shard: usize, session: Value) -> (ClientId, Value) {
        let client = self.open_at(shard, "/ws");
        let answer = self.one(client, &json!({ "type": "connect", "id": 1, "session": session }));
        (client, answer)
    }

    /// Carries out a command, whose answer is all that comes.
    fn one(&mut self, client: ClientId, command: &Value) -> Value {
        let mut answers = self.ask(client, command);
        assert_eq!(answers.len(), 1, "{command}: {answers:?}");
        answers.remove(0)
    }

    fn ok(&mut self, client: ClientId, command: &Value) {
        assert_eq!(self.one(client, command)["type"], "ok", "{command}");
    }

    /// What a watcher is sent of `$presence/t`: a word for each message.
    fn seen(&mut self, watcher: ClientId) -> Vec<String> {
        self.pass_ms(300);
        let word = |message: &Value| {
            let member = message["key"].as_str().expect("a member");
            if message["removed"] == true {
                return format!("-{}", &member[..2]);
            }
            let (info, connections) = (&message["data"]["info"], &message["data"]["connections"]);
            format!("{}{info} {connections}", &member[..1])
        };
        let read = self.read(watcher);
        read.iter().filter(|message| message["topic"] == "$presence/t").map(word).collect()
    }

    fn leave_world(&mut self, client: ClientId) {
        self.world.client_reset(client);
        self.turns(8);
    }

    fn close_of(&mut self, client: ClientId) -> Option<u16> {
        self.turns(8);
        self.close_code(client)
    }
}

fn enter(info: &Value) -> Value {
    json!({ "type": "enter", "id": 2, "topic": "t", "info": info })
}

fn watcher(stage: &mut Stage) -> ClientId {
    let watcher = stage.open_at(1, "/ws");
    let read = stage.ask(watcher, &json!({ "type": "subscribe", "id": 1, "topic": "$presence/t" }));
    assert_eq!((&read[0]["type"], &read[0]["topics"][0]["history"]), (&json!("ok"), &json!("keyed")));
    watcher
}

#[test]
fn a_session_is_there_through_a_reconnect_and_for_its_grace() {
    let mut stage = stage(9);
    let watcher = watcher(&mut stage);
    for second in [0, 1] {
        let (first, answer) = stage.join(0, json!(true));
        let session = answer["session"].clone();
        assert_eq!((&answer["resumed"], session.as_str().map(str::len)), (&json!(false), Some(24)), "{answer}");
        stage.ok(first, &enter(&json!("a")));
        assert_eq!(stage.seen(watcher), ["~\"a\" 1"]);
        stage.leave_world(first);
        stage.pass_ms(GRACE_S * 1000 - 1000);
        assert_eq!(stage.seen(watcher), <[&str; 0]>::default(), "nobody flaps");
        // On the other shard as well.
        let (again, resumed) = stage.join(second, session.clone());
        assert_eq!((&resumed["resumed"], &resumed["session"]), (&json!(true), &session), "{resumed}");
        assert_eq!(resumed["member"], answer["member"]);
        stage.pass_ms(2 * GRACE_S * 1000);
        assert_eq!(stage.seen(watcher), <[&str; 0]>::default());
        stage.ok(again, &json!({ "type": "update", "id": 3, "topic": "t", "info": "b" }));
        assert_eq!(stage.seen(watcher), ["~\"b\" 1"]);
        stage.leave_world(again);
        stage.pass_ms(GRACE_S * 1000 + 500);
        assert_eq!(stage.seen(watcher).len(), 1, "one departure");
        let (_, late) = stage.join(0, session);
        assert_eq!(late["resumed"], false);
        assert_ne!(late["session"], answer["session"]);
    }
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let mut stage = stage(9);
    let watcher = watcher(&mut stage);
    let (first, answer) = stage.join(0, json!(true));
    stage.ok(first, &enter(&json!(1)));
    let (second, resumed) = stage.join(1, answer["session"].clone());
    assert_eq!(resumed["resumed"], true);
    assert_eq!(stage.close_of(first), Some(4409));
    assert_eq!(stage.seen(watcher), ["~1 1"]);
    // The end of the first one does not count.
    stage.leave_world(first);
    stage.pass_ms(2 * GRACE_S * 1000);
    assert_eq!(stage.seen(watcher), <[&str; 0]>::default());
    let again = stage.one(second, &json!({ "type": "connect", "id": 4, "session": true }));
    assert_eq!(again["code"], "bad-command", "{again}");
}

#[test]
fn leave_unsubscribe_and_disconnect_take_effect_at_once() {
    let mut stage = stage(9);
    let watcher = watcher(&mut stage);
    for way in ["leave", "unsubscribe", "disconnect"] {
        let (client, _) = stage.join(0, json!(true));
        stage.ok(client, &json!({ "type": "subscribe", "id": 9, "topic": "t" }));
        stage.ok(client, &enter(&json!(way)));
        assert_eq!(stage.seen(watcher), [format!("~\"{way}\" 1")]);
        let command = match way {
            "disconnect" => json!({ "type": way, "id": 3 }),
            _ => json!({ "type": way, "id": 3, "topic": "t" }),
        };
        if way == "disconnect" {
            stage.command(client, &command);
            assert_eq!(stage.close_of(client), Some(1000));
        } else {
            stage.ok(client, &command);
            let again = stage.one(client, &json!({ "type": "leave", "id": 4, "topic": "t" }));
            assert_eq!(again["code"], "not-found", "{again}");
        }
        assert_eq!(stage.seen(watcher).len(), 1, "{way}");
    }
    // Without a session a client leaves with its connection.
    let client = stage.open_at(0, "/ws");
    stage.ok(client, &enter(&json!(0)));
    assert_eq!(stage.seen(watcher), ["~0 1"]);
    stage.leave_world(client);
    assert_eq!(stage.seen(watcher).len(), 1);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut stage = stage(1);
    let [first, second] = [0, 1].map(|shard| stage.open_at(shard, "/ws"));
    stage.ok(first, &enter(&json!("x")));
    let refused = |stage: &mut Stage, client, command: Value| stage.one(client, &command)["code"].clone();
    assert_eq!(refused(&mut stage, second, enter(&json!("y"))), "limit");
    assert_eq!(refused(&mut stage, second, json!({ "type": "update", "topic": "t", "info": 1 })), "not-found");
    assert_eq!(refused(&mut stage, second, enter(&json!("y".repeat(1023)))), "too-big");
    stage.ok(second, &json!({ "type": "enter", "id": 5, "topic": "t" }));
    let members = stage.one(second, &json!({ "type": "members", "id": 6, "topic": "t", "limit": 5 }));
    assert_eq!((&members["count"], &members["more"]), (&json!(2), &json!(true)), "{members}");
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1));
    assert_eq!((&members["members"][0]["info"], &members["members"][0]["connections"]), (&json!("x"), &json!(1)));
    let off = SharedState::new(1, 1, Epoch(1));
    let mut stage = Stage::of(off, u64::MAX >> 2, Limits::default());
    let client = stage.open("/ws");
    for command in [enter(&json!(1)), json!({ "type": "members", "topic": "t" })] {
        assert_eq!(stage.one(client, &command)["code"], "unsupported", "{command}");
    }
}

#[test]
fn counts_are_there_at_once_and_follow_within_a_second() {
    let mut stage = stage(9);
    let [reader, member] = [0, 1].map(|shard| stage.open_at(shard, "/ws"));
    stage.ok(member, &enter(&json!(1)));
    let read = stage.ask(reader, &json!({ "type": "subscribe", "id": 1, "topic": "$count/t" }));
    assert_eq!((read.len(), &read[1]["data"]), (2, &json!({ "subscribers": 0, "members": 1 })), "{read:?}");
    stage.ok(member, &json!({ "type": "subscribe", "id": 3, "topic": "t" }));
    stage.pass_ms(1100);
    let read = stage.read(reader);
    assert_eq!((read.len(), &read[0]["data"]), (1, &json!({ "subscribers": 1, "members": 1 })), "{read:?}");
    stage.pass_ms(5000);
    assert_eq!(stage.read(reader), <[Value; 0]>::default(), "nothing changed");
    stage.leave_world(member);
    stage.pass_ms(1100);
    assert_eq!(stage.read(reader)[0]["data"], json!({ "subscribers": 0, "members": 0 }));
    stage.ok(reader, &json!({ "type": "unsubscribe", "id": 4, "topic": "$count/t" }));
    stage.pass_ms(3000);
    assert!(stage.shard.counts.next_due().is_none() && stage.others[0].counts.next_due().is_none());
}

#[test]
fn counts_of_a_topic_that_nobody_has_named_have_the_subscriptions_to_filters() {
    let mut stage = stage(9);
    let [reader, watcher] = [0, 1].map(|shard| stage.open_at(shard, "/ws"));
    stage.ok(watcher, &json!({ "type": "subscribe", "id": 1, "topic": "a/+", "state": false }));
    let read = stage.ask(reader, &json!({ "type": "subscribe", "id": 1, "topic": "$count/a/b" }));
    assert_eq!(read[1]["data"], json!({ "subscribers": 1, "members": 0 }), "{read:?}");
    stage.ok(watcher, &json!({ "type": "subscribe", "id": 2, "topic": "#", "state": false }));
    stage.pass_ms(1100);
    assert_eq!(stage.read(reader)[0]["data"], json!({ "subscribers": 2, "members": 0 }));
    assert!(!stage.shared.registry.contains("a/b"), "a count does not name its topic");
    stage.leave_world(watcher);
    stage.pass_ms(1100);
    assert_eq!(stage.read(reader)[0]["data"], json!({ "subscribers": 0, "members": 0 }));
}

#[test]
fn a_client_is_asked_to_come_back_when_the_broker_goes() {
    let mut stage = stage(9);
    let client = stage.open("/ws");
    let shutdown = || ControlMessage::Shutdown { window: Duration::ZERO, is_succeeded: false };
    stage.shared.send_control(ShardId(0), shutdown()).expect("room");
    stage.shared.send_control(ShardId(1), shutdown()).expect("room");
    for _ in 0..40 {
        let _ = stage.shard.step().unwrap();
        let _ = stage.others[0].step().unwrap();
    }
    let read = stage.world.client_read(client, 4096);
    let text = String::from_utf8_lossy(&read);
    let retry = text.split("{\"type\":\"goaway\",\"retry\":").nth(1).and_then(|rest| rest.split('}').next());
    assert!(retry.and_then(|ms| ms.parse::<u64>().ok()).is_some_and(|ms| ms <= 5000), "{text}");
    assert!(read[read.len() - 32..].contains(&0x88), "{text}");
}
