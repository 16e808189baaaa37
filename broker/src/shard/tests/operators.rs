//! What operators ask of a shard without access control, on simulated connections: topics that clients do not read, the busiest
//! topics, the trace of a connection.

use protocol::v1::PayloadKind;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::access::principal::Principal;
use crate::message::Payload;
use crate::shard::shared::BusyTopic;
use crate::shard::trace::{LINES_MAX, TraceBegun, TraceLine, Traced};

/// A client of `/ws` of the operators' listener.
fn operator(stage: &mut Stage) -> ClientId {
    let client = stage.adopt(Purpose::V1Session, Entry::Known(Arc::new(Principal::operator(true))));
    stage.turns(8);
    assert!(stage.world.client_read(client, 4096).starts_with(b"HTTP/1.1 101"));
    client
}

fn subscribe(topic: &str) -> Value {
    json!({ "type": "subscribe", "id": 1, "topics": [topic] })
}

/// The control plane publishes to one of the broker's topics.
fn publish(stage: &mut Stage, topic: &str) {
    let topic = stage.shared.registry.resolve(topic);
    let payload = Payload::copy_of(PayloadKind::Json, b"1", stage.shared.budget.of_plane());
    let (answer, _) = oneshot::channel();
    let order = ControlMessage::Publish { topic, payload, options: None, answer };
    assert!(stage.shared.send_control(ShardId(0), order).is_ok());
}

#[test]
fn clients_do_not_read_what_is_for_operators() {
    let mut stage = Stage::new();
    let (client, operator) = (stage.open("/ws"), operator(&mut stage));
    for topic in ["$sys/topics", "$sys/closed"] {
        let history = json!({ "type": "subscribe", "id": 1, "topic": topic, "last": 1 });
        for command in [subscribe(topic), history] {
            let answers = stage.ask(client, &command);
            assert_eq!(answers[0]["code"], "forbidden", "{answers:?}");
        }
        let answers = stage.ask(operator, &subscribe(topic));
        assert_eq!(answers[0]["type"], "ok", "{answers:?}");
    }
    let answers = stage.ask(client, &subscribe("$sys/#"));
    assert_eq!(answers[0]["type"], "ok", "{answers:?}");
    for (topic, readers) in [("$sys/topics", (1, 0)), ("$sys/load", (0, 1))] {
        publish(&mut stage, topic);
        assert_eq!((stage.read(operator).len(), stage.read(client).len()), readers, "{topic}");
    }
    // It reads what the broker says of itself, and does nothing else.
    assert_eq!(stage.publish(operator, "a", &[])["code"], "forbidden");
    assert_eq!(stage.ask(operator, &subscribe("a"))[0]["code"], "forbidden");
    assert_eq!(stage.publish(client, "a", &[])["type"], "ok");
}

#[test]
fn the_busiest_topics_are_counted_from_the_first_question_on() {
    let mut stage = Stage::new();
    let client = stage.open("/ws");
    let ask = |stage: &mut Stage, goes_on| {
        let (answer, mut answered) = oneshot::channel();
        assert!(stage.shared.send_control(ShardId(0), ControlMessage::Busiest { goes_on, answer }).is_ok());
        stage.turns(2);
        answered.try_recv().expect("an answer")
    };
    stage.publish(client, "a", &[]);
    assert!(ask(&mut stage, true).is_empty());
    for topic in ["a", "b", "a"] {
        stage.publish(client, topic, &[]);
    }
    let busy = |name: &str, messages| BusyTopic { name: name.into(), messages, bytes: messages };
    assert_eq!(ask(&mut stage, false), [busy("a", 2), busy("b", 1)]);
    stage.publish(client, "a", &[]);
    assert!(ask(&mut stage, false).is_empty());
}

/// Has the shard trace a connection.
fn trace(stage: &mut Stage, conn: ConnId) -> (TraceBegun, mpsc::Receiver<TraceLine>) {
    let (lines, read) = mpsc::channel(LINES_MAX);
    let (answer, mut answered) = oneshot::channel();
    assert!(stage.shared.send_control(ShardId(0), ControlMessage::Trace { conn, lines, answer }).is_ok());
    stage.turns(2);
    (answered.try_recv().expect("an answer"), read)
}

#[test]
fn a_trace_has_what_happens_to_its_connection() {
    let mut stage = Stage::new();
    let client = stage.open("/ws");
    let conn = stage.shard.conns.ids()[0];
    let other = stage.open("/ws");
    let gone = ConnId { generation: conn.generation + 1, ..conn };
    assert_eq!(trace(&mut stage, gone).0, TraceBegun::Gone);
    let (begun, mut lines) = trace(&mut stage, conn);
    assert_eq!(begun, TraceBegun::Yes);
    stage.ask(client, &json!({ "type": "ping", "id": 7 }));
    stage.ask(other, &json!({ "type": "ping", "id": 8 }));
    stage.write(client, &frame(0x88, &1000_u16.to_be_bytes()));
    stage.turns(4);
    let mut found = Vec::new();
    while let Ok(line) = lines.try_recv() {
        found.push(line.what);
    }
    let [
        Traced::Received { text: Some(command), .. },
        Traced::Answered { text: Some(answer), .. },
        Traced::Sent { bytes },
        Traced::Ended(Reason::ByClient),
    ] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert!(command.contains("\"id\":7") && answer.contains("\"id\":7") && *bytes > 2, "{found:?}");
}
