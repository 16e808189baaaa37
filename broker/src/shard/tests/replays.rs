//! What a new subscription is given of its topic's history, over simulated connections: in which order, exactly once, and
//! whatever ends meanwhile.

use serde_json::{Value, json};

use super::*;
use crate::topics::registry::Registry;
use crate::topics::rules::{HistoryKind, Rule, SharedRules};

impl Stage {
    /// With one rule for every topic.
    pub(super) fn ruled(kind: HistoryKind, limits: Limits) -> Self {
        let registry = Registry::new(1, 1).ruled_by(SharedRules::only(Rule::of_kind(kind)));
        let shared = SharedState { registry, ..SharedState::new(1, 1, Epoch(1)) };
        Self::of(shared, u64::MAX >> 2, limits)
    }

    pub(super) fn command(&mut self, client: ClientId, command: &Value) {
        self.write(client, &frame(TEXT, command.to_string().as_bytes()));
    }

    /// What a client is sent until nothing more comes.
    pub(super) fn read(&mut self, client: ClientId) -> Vec<Value> {
        let (mut read, mut idle) = (Vec::new(), 0);
        while idle < 4 {
            self.turns(2);
            let part = self.world.client_read(client, 1 << 20);
            idle = if part.is_empty() { idle + 1 } else { 0 };
            read.extend(part);
        }
        parse(&read)
    }

    /// Carries out a command, and returns what comes.
    pub(super) fn ask(&mut self, client: ClientId, command: &Value) -> Vec<Value> {
        self.command(client, command);
        self.read(client)
    }

    pub(super) fn publish(&mut self, client: ClientId, topic: &str, options: &[(&str, Value)]) -> Value {
        let mut command = json!({ "type": "publish", "id": 1, "topic": topic, "data": "x" });
        options.iter().for_each(|(name, value)| command[*name] = value.clone());
        let mut answers = self.ask(client, &command);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }
}

/// Text frames of the broker.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Value> {
    let mut found = Vec::new();
    while let [first, len, rest @ ..] = bytes {
        assert_eq!(*first, TEXT, "no text");
        let (len, rest) = match len {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            len => (usize::from(*len), rest),
        };
        found.push(serde_json::from_slice(&rest[..len]).expect("JSON"));
        bytes = &rest[len..];
    }
    found
}

/// One word per message: its type, with `*` if it is state, and its place.
pub(super) fn words(messages: &[Value]) -> Vec<String> {
    let word = |message: &Value| {
        let place = ["offset", "up_to"].iter().find_map(|name| message[*name].as_u64());
        let range = message["from"].as_u64().map(|from| format!(" {from}-{}", message["to"]));
        let mark = if message["state"] == true { "*" } else { "" };
        let place = place.map(|place| format!(" {place}")).or(range).unwrap_or_default();
        format!("{}{mark}{place}", message["type"].as_str().expect("a type"))
    };
    messages.iter().map(word).collect()
}

fn offsets(messages: &[Value]) -> Vec<u64> {
    let messages = messages.iter().filter(|message| message["type"] == "message");
    messages.map(|message| message["offset"].as_u64().expect("an offset")).collect()
}

#[test]
fn the_answer_comes_first_then_what_was_missed_then_what_is_live() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    let publisher = stage.open("/ws");
    let epoch = stage.publish(publisher, "t", &[])["epoch"].clone();
    (0..4).for_each(|_| drop(stage.publish(publisher, "t", &[])));
    let subscribe = |stage: &mut Stage, begin: (&str, Value)| {
        let client = stage.open("/ws");
        let mut command = json!({ "type": "subscribe", "topic": "t" });
        command[begin.0] = begin.1;
        let read = stage.ask(client, &command);
        (client, read)
    };
    let (client, read) = subscribe(&mut stage, ("since", json!({ "epoch": epoch, "offset": 2 })));
    assert_eq!(words(&read), ["ok", "message 3", "message 4", "message 5"]);
    let topic = &read[0]["topics"][0];
    assert_eq!((&topic["recovered"], &topic["offset"], &topic["history"]), (&json!(true), &json!(3), &json!("window")));
    assert!(topic["available"].is_null());
    stage.publish(publisher, "t", &[]);
    assert_eq!(words(&stage.read(client)), ["message 6"]);
    let lost = [json!({ "epoch": "00000000000000ff", "offset": 2 }), json!({ "epoch": epoch, "offset": 7 })];
    for since in lost.into_iter().chain([json!({ "epoch": epoch, "offset": 9_007_199_254_740_991_u64 })]) {
        let (_, read) = subscribe(&mut stage, ("since", since));
        assert_eq!(words(&read), ["ok"]);
        let topic = &read[0]["topics"][0];
        assert_eq!((&topic["recovered"], &topic["offset"]), (&json!(false), &json!(7)));
        assert_eq!(topic["available"], json!({ "from": 1, "to": 6 }));
    }
    let (_, read) = subscribe(&mut stage, ("since", json!({ "epoch": epoch, "offset": 6 })));
    assert_eq!((words(&read), &read[0]["topics"][0]["recovered"]), (vec!["ok".to_owned()], &json!(true)));
    let (_, read) = subscribe(&mut stage, ("last", json!(2)));
    assert_eq!(words(&read), ["ok", "message 5", "message 6"]);
    assert_eq!(read[0]["topics"][0]["offset"], json!(5));
    stage.publish(publisher, "t", &[("retain", json!(true))]);
    let (_, read) = subscribe(&mut stage, ("state", json!(true)));
    assert_eq!(words(&read), ["ok", "message* 7"]);
    let (_, read) = subscribe(&mut stage, ("state", json!(false)));
    assert_eq!(words(&read), ["ok"]);
}

#[test]
fn a_snapshot_is_followed_by_the_window_and_a_gap_is_named() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits { recovery_bytes_max: 2_500, ..Limits::default() });
    let publisher = stage.open("/ws");
    let epoch = stage.publish(publisher, "t", &[("data", json!("y".repeat(800)))])["epoch"].clone();
    (0..5).for_each(|_| drop(stage.publish(publisher, "t", &[("data", json!("y".repeat(800)))])));
    let snapshot = json!({ "type": "snapshot", "topic": "t", "up_to": { "epoch": epoch, "offset": 2 }, "data": "all" });
    assert_eq!(words(&stage.ask(publisher, &snapshot)), ["ok"]);
    let newcomer = stage.open("/ws");
    let read = stage.ask(newcomer, &json!({ "type": "subscribe", "topic": "t" }));
    assert_eq!(words(&read), ["ok", "message* 2", "gap 3-4", "message 5", "message 6"]);
    let since =
        |offset: u64| json!({ "type": "subscribe", "topic": "t", "since": { "epoch": epoch, "offset": offset } });
    let read = stage.ask(publisher, &since(4));
    assert_eq!(words(&read), ["ok", "message 5", "message 6"]);
    assert_eq!(read[0]["topics"][0]["recovered"], json!(true));
    let behind = stage.open("/ws");
    let read = stage.ask(behind, &since(1));
    assert_eq!(words(&read), ["ok", "message* 2", "gap 3-4", "message 5", "message 6"]);
    assert_eq!(read[0]["topics"][0]["recovered"], json!(false));
    let mut declines = since(1);
    declines["state"] = json!(false);
    let behind = stage.open("/ws");
    let read = stage.ask(behind, &declines);
    assert_eq!((words(&read), &read[0]["topics"][0]["recovered"]), (vec!["ok".to_owned()], &json!(false)));
}

/// Several topics that together are more than one subscribe may replay: each is either whole, or begins as for a newcomer.
#[test]
fn topics_beyond_max_recovery_begin_with_their_state() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits { recovery_bytes_max: 3_500, ..Limits::default() });
    let publisher = stage.open("/ws");
    let mut epochs = Vec::new();
    for topic in ["a", "b", "c"] {
        stage.publish(publisher, topic, &[("retain", json!(true))]);
        for _ in 0..3 {
            let answer = stage.publish(publisher, topic, &[("data", json!("y".repeat(600)))]);
            epochs.push(answer["epoch"].clone());
        }
    }
    // What `c` has is a snapshot.
    let up_to = json!({ "epoch": epochs[6], "offset": 2 });
    stage.ask(publisher, &json!({ "type": "snapshot", "topic": "c", "up_to": up_to, "data": "all" }));
    let position = |epoch: &Value, offset: u64| json!({ "epoch": epoch, "offset": offset });
    let positions = json!({ "a": position(&epochs[0], 1), "b": position(&epochs[3], 1), "c": position(&epochs[6], 1) });
    let client = stage.open("/ws");
    let command = json!({ "type": "subscribe", "topics": ["a", "b", "c"], "since": { "positions": positions } });
    let read = stage.ask(client, &command);
    let of = |topic: &str| words(&read.iter().filter(|message| message["topic"] == topic).cloned().collect::<Vec<_>>());
    let recovered: Vec<_> = (0..3).map(|at| read[0]["topics"][at]["recovered"].clone()).collect();
    assert_eq!(recovered, [json!(true), json!(false), json!(false)]);
    assert_eq!(of("a"), ["message 2", "message 3", "message 4"]);
    assert_eq!(of("b"), ["message* 1"]);
    assert_eq!(read[0]["topics"][1]["available"], json!({ "from": 1, "to": 4 }));
    assert_eq!(of("c"), ["message* 2", "gap 3-3", "message 4"]);
}

/// Replayed messages that a client is slow to read do not count as a lag, and live ones come behind them.
#[test]
fn a_slow_reader_gets_a_large_backlog_and_what_follows_in_order() {
    let limits = Limits { lag_bytes_max: 64 << 10, ..Limits::default() };
    let mut stage = Stage::ruled(HistoryKind::Window, limits);
    stage.world.set_socket_buffer(8 << 10);
    let publisher = stage.open("/ws");
    let data = ("data", json!("y".repeat(700)));
    (0..200).for_each(|_| drop(stage.publish(publisher, "t", std::slice::from_ref(&data))));
    let client = stage.open("/ws");
    stage.command(client, &json!({ "type": "subscribe", "topic": "t", "last": 200 }));
    stage.turns(8);
    (0..20).for_each(|_| drop(stage.publish(publisher, "t", std::slice::from_ref(&data))));
    let read = stage.read(client);
    assert_eq!(read[0]["topics"][0]["offset"], json!(1));
    assert_eq!(offsets(&read), (1..=220).collect::<Vec<_>>());
}

#[test]
fn an_unsubscribe_waits_for_the_backlog_and_nothing_comes_after_it() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    stage.world.set_socket_buffer(8 << 10);
    let publisher = stage.open("/ws");
    let data = ("data", json!("y".repeat(700)));
    (0..100).for_each(|_| drop(stage.publish(publisher, "t", std::slice::from_ref(&data))));
    let client = stage.open("/ws");
    stage.command(client, &json!({ "type": "subscribe", "topic": "t", "last": 100 }));
    stage.turns(8);
    stage.command(client, &json!({ "type": "unsubscribe", "id": "end", "topic": "t" }));
    (0..5).for_each(|_| drop(stage.publish(publisher, "t", std::slice::from_ref(&data))));
    let read = stage.read(client);
    let end = read.iter().position(|message| message["id"] == "end").expect("an answer");
    assert_eq!(end, read.len() - 1, "{:?}", words(&read[end..]));
    let replayed = offsets(&read);
    assert!(replayed.len() >= 100 && replayed.iter().zip(1..).all(|(offset, at)| *offset == at), "{replayed:?}");
    assert!(stage.shard.recalls.is_empty());
    assert_eq!(words(&stage.ask(client, &json!({ "type": "ping" }))), ["pong"]);
}

/// What waits for its time is sent before a subscription ends, also if no other one would send it.
#[test]
fn an_unsubscribe_does_not_forget_what_waits_for_a_throttle() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    let publisher = stage.open("/ws");
    for (round, throttle) in (0..).zip([0, 5000, 0]) {
        let client = stage.open("/ws");
        stage.ask(client, &json!({ "type": "subscribe", "topic": "t", "throttle": throttle }));
        (0..4).for_each(|_| drop(stage.publish(publisher, "t", &[])));
        let first = round * 4 + 1;
        let waits = if throttle > 0 { 3 } else { 0 };
        assert_eq!(offsets(&stage.read(client)), (first..first + 4 - waits).collect::<Vec<_>>());
        let read = stage.ask(client, &json!({ "type": "unsubscribe", "id": "end", "topic": "t" }));
        assert_eq!(offsets(&read), (first + 4 - waits..first + 4).collect::<Vec<_>>());
        assert_eq!(
            (read.len() as u64, &read[read.len() - 1]["id"]),
            (waits + 1, &json!("end")),
            "the answer comes last"
        );
    }
}

/// A subscription that ends while another is sent its state does not leave what it shares with a third to be sent twice.
#[test]
fn an_unsubscribe_behind_a_backlog_sends_what_other_subscriptions_hold() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    stage.world.set_socket_buffer(8 << 10);
    let publisher = stage.open("/ws");
    let data = ("data", json!("y".repeat(700)));
    (0..100).for_each(|_| drop(stage.publish(publisher, "u", std::slice::from_ref(&data))));
    let client = stage.open("/ws");
    stage.ask(client, &json!({ "type": "subscribe", "topics": ["t", "+"], "throttle": 5000 }));
    (0..3).for_each(|_| drop(stage.publish(publisher, "t", &[])));
    assert_eq!(offsets(&stage.read(client)), [1]);
    stage.command(client, &json!({ "type": "subscribe", "topic": "u", "last": 100 }));
    stage.turns(8);
    let read = stage.ask(client, &json!({ "type": "unsubscribe", "id": "end", "topic": "t" }));
    let end = read.iter().position(|message| message["id"] == "end").expect("an answer");
    let of_t = |messages: &[Value]| messages.iter().filter(|message| message["topic"] == "t").count();
    assert_eq!((of_t(&read[..end]), of_t(&read[end..])), (2, 0), "{:?}", words(&read));
    assert_eq!(offsets(&stage.read(client)), [0_u64; 0]);
}

/// A connection ends at every moment of a subscribe: nothing is left behind, and others are served.
#[test]
fn a_connection_may_end_while_answers_are_under_way() {
    for kind in [HistoryKind::Window, HistoryKind::Keyed] {
        let mut stage = Stage::ruled(kind, Limits::default());
        let publisher = stage.open("/ws");
        for n in 0..50 {
            stage.publish(publisher, "t/1", &[("key", json!(format!("k{n}"))), ("retain", json!(true))]);
        }
        for turns in 0..8 {
            for reset in [false, true] {
                let client = stage.open("/ws");
                let command = json!({ "type": "subscribe", "topics": ["t/1", "t/+", "other"] }).to_string();
                let bytes = frame(TEXT, command.as_bytes());
                assert_eq!(stage.world.client_write(client, &bytes), bytes.len());
                stage.turns(turns);
                match reset {
                    true => stage.world.client_reset(client),
                    false => stage.world.client_close(client),
                }
                stage.turns(8);
                assert!(stage.shard.recalls.is_empty());
            }
        }
        let client = stage.open("/ws");
        let read = stage.ask(client, &json!({ "type": "subscribe", "topic": "t/1" }));
        assert_eq!(read[0]["type"], "ok");
        assert_eq!(offsets(&read).last(), Some(&50));
    }
}

/// Newcomers share the frames of a large state, and each gets all of it before `state-end`, and then what is live.
#[test]
fn newcomers_of_a_keyed_topic_get_its_keys_and_then_the_end_of_state() {
    let mut stage = Stage::ruled(HistoryKind::Keyed, Limits::default());
    let publisher = stage.open("/ws");
    let key = |n: usize| ("key", json!(format!("k{n}")));
    let epoch = stage.publish(publisher, "t", &[key(0)])["epoch"].clone();
    (1..100).for_each(|n| drop(stage.publish(publisher, "t", &[key(n)])));
    for _ in 0..3 {
        let client = stage.open("/ws");
        let read = stage.ask(client, &json!({ "type": "subscribe", "topic": "t" }));
        assert_eq!(read[0]["topics"][0]["history"], "keyed");
        assert_eq!(offsets(&read), (1..=100).collect::<Vec<_>>());
        assert!(read[1..101].iter().all(|message| message["state"] == true));
        assert_eq!(words(&read[101..]), ["state-end 100"]);
    }
    stage.publish(publisher, "t", &[key(3), ("removed", json!(true))]);
    stage.publish(publisher, "t", &[key(5)]);
    let client = stage.open("/ws");
    let since = json!({ "epoch": epoch, "offset": 99 });
    let read = stage.ask(client, &json!({ "type": "subscribe", "topic": "t", "since": since }));
    assert_eq!(words(&read), ["ok", "message* 100", "message* 101", "message* 102", "state-end 102"]);
    assert_eq!((&read[2]["removed"], &read[2]["key"]), (&json!(true), &json!("k3")));
    let empty = stage.open("/ws");
    let read = stage.ask(empty, &json!({ "type": "subscribe", "topic": "other" }));
    assert_eq!(words(&read), ["ok", "state-end 0"]);
}

/// A filter's state comes in parts, to a reader that is slow: each topic once, then the end, and live messages besides.
#[test]
fn a_filter_gets_the_state_of_all_its_topics_part_by_part() {
    let mut stage = Stage::ruled(HistoryKind::None, Limits::default());
    stage.world.set_socket_buffer(8 << 10);
    let publisher = stage.open("/ws");
    for n in 0..2_500 {
        let command =
            json!({ "type": "publish", "topic": format!("t/{n:04}"), "data": "y".repeat(50), "retain": true });
        stage.command(publisher, &command);
    }
    stage.turns(8);
    let client = stage.open("/ws");
    stage.command(client, &json!({ "type": "subscribe", "topics": ["t/+", "t/0001", "t/0002"] }));
    stage.turns(20);
    stage.publish(publisher, "t/2400", &[("retain", json!(true)), ("data", json!("new"))]);
    let read = stage.read(client);
    let states: Vec<_> = read.iter().filter(|message| message["state"] == true).collect();
    let mut topics: Vec<_> = states.iter().map(|message| message["topic"].as_str().unwrap()).collect();
    topics.sort_unstable();
    let all = topics.len();
    topics.dedup();
    assert!(topics.len() >= 2_499, "{}", topics.len());
    assert_eq!(all - topics.len(), 2, "the two that have a subscription of their own come for that as well");
    let ends: Vec<_> = read.iter().filter(|message| message["type"] == "state-end").collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["topic"], "t/+");
    let last_state = read.iter().rposition(|message| message["state"] == true).unwrap();
    assert!(read.iter().position(|message| message["type"] == "state-end").unwrap() > last_state);
    assert_eq!(read.iter().filter(|message| message["data"] == "new").count(), 1);
    assert!(stage.shard.recalls.is_empty());
}
