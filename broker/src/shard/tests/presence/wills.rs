//! Last wills, over simulated connections of two shards.

use super::leases::{exclusive, lease, topic_of};
use super::*;

fn will(topic: &str, delay: u64) -> Value {
    json!({ "topic": topic, "data": "stop", "delay": delay })
}

impl Stage {
    /// A client with a session and a will.
    fn with_will(&mut self, shard: usize, session: &Value, will: &Value) -> (ClientId, Value) {
        let client = self.open_at(shard, "/ws");
        let command = json!({ "type": "connect", "id": 1, "session": session, "will": will });
        let answer = self.one(client, &command);
        assert_eq!(answer["type"], "ok", "{answer}");
        (client, answer["session"].clone())
    }

    fn reader(&mut self, topic: &str) -> ClientId {
        let reader = self.open_at(1, "/ws");
        self.ok(reader, &json!({ "type": "subscribe", "id": 1, "topic": topic }));
        reader
    }

    /// How many messages a reader is sent, all of which are wills.
    fn wills(&mut self, reader: ClientId) -> usize {
        let read = self.read(reader);
        assert!(read.iter().all(|message| message["data"] == "stop"), "{read:?}");
        read.len()
    }
}

#[test]
fn a_will_is_published_when_the_connection_ends_without_disconnect() {
    let mut stage = stage(9);
    let reader = stage.reader("t");
    for session in [Value::Null, json!(true)] {
        let open = |stage: &mut Stage| {
            let client = stage.open_at(0, "/ws");
            let mut command = json!({ "type": "connect", "id": 1, "will": will("t", 0) });
            if session == true {
                command["session"] = json!(true);
            }
            stage.ok(client, &command);
            client
        };
        let client = open(&mut stage);
        stage.leave_world(client);
        assert_eq!(stage.wills(reader), 1, "reset");
        // A tab that is closed.
        let client = open(&mut stage);
        stage.write(client, &frame(0x88, &1001_u16.to_be_bytes()));
        assert_eq!(stage.wills(reader), 1, "1001");
        let client = open(&mut stage);
        stage.command(client, &json!({ "type": "disconnect", "id": 2 }));
        assert_eq!(stage.close_of(client), Some(1000));
        stage.leave_world(client);
        assert_eq!(stage.wills(reader), 0, "disconnect");
        // Set by a command, replaced, and taken back.
        let client = stage.open_at(1, "/ws");
        stage.ok(client, &json!({ "type": "will", "id": 2, "will": will("other", 0) }));
        stage.ok(client, &json!({ "type": "will", "id": 3, "will": will("t", 0) }));
        stage.leave_world(client);
        assert_eq!(stage.wills(reader), 1, "the last one");
        let client = open(&mut stage);
        stage.ok(client, &json!({ "type": "will", "id": 2, "end": true }));
        stage.leave_world(client);
        stage.pass_ms(GRACE_S * 1000 + 500);
        assert_eq!(stage.wills(reader), 0, "none any more");
    }
    let counted = stage.shared.stats.iter().map(|stats| stats.snapshot().wills_published).sum::<u64>();
    assert_eq!(counted, 6);
    assert_eq!(stage.shard.sessions.wills() + stage.others[0].sessions.wills(), 0);
}

#[test]
fn a_will_waits_for_its_client() {
    let mut stage = stage(9);
    let reader = stage.reader("t");
    let (client, session) = stage.with_will(0, &json!(true), &will("t", 5000));
    stage.leave_world(client);
    stage.pass_ms(4000);
    let (client, resumed) = stage.with_will(1, &session, &will("t", 5000));
    assert_eq!(resumed, session);
    stage.pass_ms(30_000);
    assert_eq!(stage.wills(reader), 0, "the client came back");
    stage.leave_world(client);
    stage.pass_ms(4500);
    assert_eq!(stage.wills(reader), 0);
    stage.pass_ms(1000);
    assert_eq!(stage.wills(reader), 1, "after its delay");
    stage.pass_ms(GRACE_S * 1000);
    assert_eq!(stage.wills(reader), 0, "once");
    // Nobody comes back after the session's end, so that is the latest time.
    let (client, _) = stage.with_will(0, &json!(true), &will("t", 60_000));
    stage.leave_world(client);
    stage.pass_ms(GRACE_S * 1000 - 500);
    assert_eq!(stage.wills(reader), 0);
    stage.pass_ms(1000);
    assert_eq!(stage.wills(reader), 1, "with the session");
    let client = stage.open("/ws");
    stage.ok(client, &json!({ "type": "will", "id": 1, "will": will("t", 60_000) }));
    stage.leave_world(client);
    assert_eq!(stage.wills(reader), 1, "without a session nobody can come back");
}

#[test]
fn a_takeover_publishes_a_will_without_a_delay_and_cancels_one_with() {
    let mut stage = stage(9);
    let reader = stage.reader("t");
    for (delay, published) in [(0, 1), (1, 0)] {
        let (first, session) = stage.with_will(0, &json!(true), &will("t", delay));
        let (second, _) = stage.join(1, session);
        assert_eq!(stage.close_of(first), Some(4409));
        stage.leave_world(first);
        assert_eq!(stage.wills(reader), published, "delay {delay}");
        // The new connection has not said what its will is.
        stage.leave_world(second);
        stage.pass_ms(GRACE_S * 1000 + 500);
        assert_eq!(stage.wills(reader), 0, "delay {delay}");
    }
}

#[test]
fn the_shutdown_of_the_broker_publishes_no_wills() {
    for window in [Duration::ZERO, Duration::from_secs(2)] {
        let mut stage = stage(9);
        let reader = stage.reader("t");
        let (first, _) = stage.with_will(0, &json!(true), &will("t", 0));
        let (second, _) = stage.with_will(1, &json!(true), &will("t", 100));
        let anonymous = stage.open("/ws");
        stage.ok(anonymous, &json!({ "type": "will", "id": 1, "will": will("t", 0) }));
        for shard in [0, 1] {
            let order = ControlMessage::Shutdown { window, is_succeeded: true };
            stage.shared.send_control(ShardId(shard), order).expect("room");
        }
        let mut read = Vec::new();
        for _ in 0..600 {
            stage.world.advance(5_000_000);
            let _ = stage.shard.step().unwrap();
            let _ = stage.others[0].step().unwrap();
            read.extend(stage.world.client_read(reader, 1 << 16));
            for client in [first, second, anonymous] {
                let closed = String::from_utf8_lossy(&stage.world.client_read(client, 1 << 16)).contains("goaway");
                if closed {
                    stage.world.client_reset(client);
                }
            }
        }
        let read = String::from_utf8_lossy(&read).into_owned();
        assert!(read.contains("goaway") && !read.contains("stop"), "{window:?}: {read}");
        let counted = stage.shared.stats.iter().map(|stats| stats.snapshot().wills_published).sum::<u64>();
        assert_eq!(counted, 0, "{window:?}");
    }
}

/// The train stops before anybody else can drive it.
#[test]
fn a_will_comes_before_the_end_of_the_lease() {
    for (delay, session) in [(0, json!(true)), (0, Value::Null), (60_000, json!(true)), (60_000, Value::Null)] {
        let mut stage = exclusive();
        let topic = topic_of(&stage, 1);
        let client = stage.open("/ws");
        if session == true {
            stage.ok(client, &json!({ "type": "connect", "id": 1, "session": true, "will": will(&topic, delay) }));
        } else {
            stage.ok(client, &json!({ "type": "will", "id": 1, "will": will(&topic, delay) }));
        }
        let number = stage.take(client, &topic);
        let reader = stage.open_at(1, "/ws");
        let topics = [topic.clone(), format!("$lease/{topic}")];
        stage.command(reader, &json!({ "type": "subscribe", "id": 1, "topics": topics }));
        stage.read(reader);
        let other = stage.open_at(1, "/ws");
        stage.command(other, &lease(&topic, &json!({ "wait": 60_000 })));
        stage.read(other);
        stage.leave_world(client);
        stage.pass_ms(GRACE_S * 1000 + 500);
        let read = stage.read(reader);
        let will = read.iter().position(|message| message["data"] == "stop");
        let end = read.iter().position(|message| message["data"]["lease"] == number + 1);
        assert!(will.is_some() && end.is_some(), "{read:?}");
        // The two are messages of two topics of one sequencer, and come in its order.
        assert!(will < end, "{delay} {session}: {read:?}");
        assert_eq!(stage.read(other)[0]["lease"], number + 1);
    }
    // Without the lease it is not published.
    let mut stage = exclusive();
    let topic = topic_of(&stage, 0);
    let reader = stage.reader(&topic);
    let (client, _) = stage.with_will(1, &json!(true), &will(&topic, 0));
    stage.leave_world(client);
    assert_eq!(stage.wills(reader), 0);
    let counted = stage.shared.stats.iter().map(|stats| stats.snapshot().wills_refused).sum::<u64>();
    assert_eq!(counted, 1);
}

#[test]
fn wills_are_bounded_and_charged() {
    let mut stage = stage(9);
    let client = stage.open("/ws");
    let long = json!({ "type": "will", "id": 1, "will": { "topic": "t", "data": "x".repeat(60_000) } });
    let before = stage.shared.budget.held(Held::Subscriptions);
    stage.ok(client, &long);
    assert!(stage.shared.budget.held(Held::Subscriptions) >= before + 60_000);
    stage.ok(client, &json!({ "type": "will", "id": 2, "end": true }));
    assert!(stage.shared.budget.held(Held::Subscriptions) < before + 10_000);
    let reserved = json!({ "type": "will", "id": 3, "will": will("$sys/x", 0) });
    assert_eq!(stage.one(client, &reserved)["code"], "forbidden");
}
