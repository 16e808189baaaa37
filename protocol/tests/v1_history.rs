//! `ringyard.v1`: where a subscription begins and what a publish asks for, whatever is said in them. Examples are in the
//! vectors, which `tests/v1.rs` runs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::v1::{Command, ErrorCode, Expected, Parser, Position, PublishOptions, Start};
use serde_json::json;

const TOPIC_LEN_MAX: usize = 255;

/// A subscribe, allowed or not, before it is text.
#[derive(Debug)]
struct Subscribe {
    /// One goes as `topic` if `single`.
    topics: Vec<String>,
    single: bool,
    /// By topic: epoch and offset. Of a single one as a position if it is the topic's alone.
    since: Option<BTreeMap<String, (u64, u64)>>,
    last: Option<u64>,
    state: Option<bool>,
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    let topic = || "[ab]|[ab]/[ab+]";
    let position = (any::<u64>(), 0..=1_u64 << 53);
    let since = proptest::option::of(proptest::collection::btree_map(topic(), position, 0..4));
    let last = proptest::option::weighted(0.3, 0..100_u64);
    (proptest::collection::vec(topic(), 1..6), any::<bool>(), since, last, any::<Option<bool>>()).prop_map(
        |(topics, single, since, last, state)| Subscribe {
            single: single && topics.len() == 1,
            topics,
            since,
            last,
            state,
        },
    )
}

impl Subscribe {
    fn text(&self) -> String {
        let position = |&(epoch, offset): &(u64, u64)| json!({"epoch": format!("{epoch:016x}"), "offset": offset});
        let mut command = json!({"type": "subscribe"});
        match (self.single, &self.topics[..]) {
            (true, [topic]) => command["topic"] = json!(topic),
            (_, topics) => command["topics"] = json!(topics),
        }
        if let Some(since) = &self.since {
            let alone = since.get(&self.topics[0]).filter(|_| self.single && since.len() == 1);
            let by_topic = || json!({"positions": since.iter().map(|(topic, at)| (topic.clone(), position(at))).collect::<serde_json::Map<_, _>>()});
            command["since"] = alone.map_or_else(by_topic, position);
        }
        if let Some(last) = self.last {
            command["last"] = last.into();
        }
        if let Some(state) = self.state {
            command["state"] = state.into();
        }
        command.to_string()
    }

    fn is_allowed(&self) -> bool {
        let positions =
            self.since.iter().flatten().all(|(topic, &(_, offset))| self.topics.contains(topic) && offset < 1 << 53);
        let last = self.last.is_none_or(|last| last > 0 && self.topics.iter().all(|topic| !topic.contains('+')));
        positions && last && (self.since.is_none() || self.last.is_none())
    }
}

/// The limit holds whatever the topics are called, and a name in `positions` has no limit of its own.
#[test]
fn positions_of_128_topics_and_no_more() {
    let mut parser = Parser::new();
    for (count, allowed) in [(128, true), (129, false)] {
        let topics: Vec<_> = (0..count).map(|i| format!("t/{i}")).collect();
        let position =
            |(i, topic): (usize, &String)| (topic.clone(), json!({"epoch": "00000000000000ff", "offset": i}));
        let positions: serde_json::Map<_, _> = topics.iter().enumerate().map(position).collect();
        let command = json!({"type": "subscribe", "topics": topics, "since": {"positions": positions}});
        let mut text = command.to_string().into_bytes();
        match parser.parse(&mut text, TOPIC_LEN_MAX) {
            Ok(Command::Subscribe { start: Start::Since(positions), .. }) => {
                assert!(allowed);
                let expected = |offset: usize| Some(Position { epoch: 255, offset: offset as u64 });
                assert!(topics.iter().enumerate().all(|(i, topic)| positions.of(topic) == expected(i)));
            }
            Err(error) => assert_eq!((error.code, allowed), (ErrorCode::BadCommand, false), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever a subscribe may say comes out of the parser as it went in, and what it may not is refused.
    #[test]
    fn starts_come_back(subscribe in subscribe()) {
        let mut parser = Parser::new();
        let mut text = subscribe.text().into_bytes();
        match parser.parse(&mut text, TOPIC_LEN_MAX) {
            Ok(Command::Subscribe { topics, start, state, .. }) => {
                prop_assert!(subscribe.is_allowed(), "{}", subscribe.text());
                prop_assert!(topics.iter().eq(subscribe.topics.iter().map(String::as_str)));
                prop_assert_eq!(state, subscribe.state.unwrap_or(true));
                match start {
                    Start::Now => prop_assert!(subscribe.since.is_none() && subscribe.last.is_none()),
                    Start::Last(last) => prop_assert_eq!(Some(u64::from(last)), subscribe.last),
                    Start::Since(positions) => for topic in topics.iter() {
                        let since = subscribe.since.as_ref().expect("positions");
                        let position = since.get(topic).map(|&(epoch, offset)| Position { epoch, offset });
                        prop_assert_eq!(positions.of(topic), position);
                    }
                }
            }
            Err(error) => {
                prop_assert!(!subscribe.is_allowed(), "{}: {error}", subscribe.text());
                prop_assert_eq!(error.code, ErrorCode::BadCommand);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The options of a publish come out of the parser as they went in, whether data is flat or not.
    #[test]
    fn options_come_back(
        (key, idempotency_key) in (proptest::option::of(".{1,20}"), proptest::option::of("[ -~]{1,64}")),
        (retain, removed) in (any::<bool>(), any::<bool>()),
        ttl_ms in proptest::option::of(1..1_u64 << 53),
        if_offset in proptest::option::of(prop_oneof![Just(Expected::Absent), (1..1_u64 << 53).prop_map(Expected::Offset)]),
        flat in any::<bool>(),
    ) {
        let (key, idempotency_key) = (key.as_deref(), idempotency_key.as_deref());
        let options = PublishOptions { key, retain, removed, ttl_ms, idempotency_key, if_offset, lease: None };
        let mut command = json!({"type": "publish", "topic": "t", "retain": retain, "removed": removed});
        command["data"] = if flat { "x".into() } else { json!({"x": [1]}) };
        let named: [(&str, Option<serde_json::Value>); 3] = [("key", key.map(Into::into)), ("ttl", ttl_ms.map(Into::into)), ("idempotency_key", idempotency_key.map(Into::into))];
        for (name, value) in named {
            if let Some(value) = value {
                command[name] = value;
            }
        }
        match if_offset {
            None => {}
            Some(Expected::Absent) => command["if_offset"] = "absent".into(),
            Some(Expected::Offset(offset)) => command["if_offset"] = offset.into(),
        }
        let (mut parser, mut text) = (Parser::new(), command.to_string().into_bytes());
        let parsed = parser.parse(&mut text, TOPIC_LEN_MAX);
        let Ok(Command::Publish { options: got, .. }) = parsed else { panic!("{parsed:?}") };
        prop_assert_eq!(got, options);
    }
}
