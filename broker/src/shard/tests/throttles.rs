//! When subscribers are delivered to whose topic has a throttle.

use serde_json::{Value, json};

use super::replays::parse;
use super::*;
use crate::topics::rules::HistoryKind;

/// In milliseconds.
const THROTTLE: u64 = 5000;

/// A subscriber that has had its turn has another one in the same round if one that has not had its turn leaves: it is sent nothing
/// then that came since the round was opened.
#[test]
fn a_second_turn_in_one_round_is_no_second_delivery() {
    let mut stage = Stage::ruled(HistoryKind::Window, Limits::default());
    let publisher = stage.open("/ws");
    let mut readers: Vec<_> = (0..40).map(|_| (stage.open("/ws"), Vec::new())).collect();
    for (reader, _) in &readers {
        stage.ask(*reader, &json!({"type": "subscribe", "topics": ["t", "u"], "throttle": THROTTLE}));
    }
    let publish = |topic: &str| {
        let command = json!({"type": "publish", "topic": topic, "data": 1});
        frame(TEXT, command.to_string().as_bytes())
    };
    // Two topics, so that turns are short from now on and a round takes several.
    stage.write(publisher, &[publish("t"), publish("u")].concat());
    while readers.iter().all(|(_, got)| got.is_empty()) {
        stage.turns(1);
        stage.collect("t", &mut readers);
    }
    let leaves = readers.iter().rposition(|(_, got)| got.is_empty()).expect("the round is not over");
    stage.world.client_reset(readers.remove(leaves).0);
    let early: Vec<_> = readers.iter().map(|(_, got)| got.len()).collect();
    assert!(early.contains(&0), "the round is not over");
    stage.write(publisher, &publish("t"));
    stage.turns(20);
    stage.collect("t", &mut readers);
    for ((_, got), early) in readers.iter().zip(early) {
        assert!(got.len() <= 2 - early && got.first() == Some(&1), "{got:?}, of that {early} early");
    }
    stage.world.advance(THROTTLE * 1_000_000);
    stage.turns(20);
    stage.collect("t", &mut readers);
    assert!(readers.iter().all(|(_, got)| *got == [1, 2]), "{readers:?}");
}

impl Stage {
    /// Notes the offsets of what has come of a topic.
    fn collect(&self, topic: &str, readers: &mut [(ClientId, Vec<u64>)]) {
        for (reader, got) in readers {
            let messages = parse(&self.world.client_read(*reader, 1 << 20));
            let of_topic = messages.iter().filter(|message| message["topic"] == topic);
            got.extend(of_topic.filter_map(|message: &Value| message["offset"].as_u64()));
        }
    }
}
