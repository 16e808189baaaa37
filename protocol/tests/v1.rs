//! `ringyard.v1`: the test vectors that clients run too, and properties no list of examples covers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use protocol::v1::{
    Command, CommandError, ErrorCode, Expected, GapReason, HistoryQuery, Id, MessageParts, Parser, PayloadKind,
    Position, PublishOptions, ResetReason, Start, Subscribed, Values, write_error, write_gap, write_history,
    write_message, write_ok, write_pong, write_published, write_reset, write_state_end, write_subscribed,
};
use simd_json::OwnedValue;
use simd_json::prelude::*;

const TOPIC_LEN_MAX: usize = 255;

fn vectors(section: &str) -> Vec<OwnedValue> {
    let mut text = include_bytes!("../vectors/v1.json").to_vec();
    let all = simd_json::to_owned_value(&mut text).expect("the vectors are JSON");
    all.get_array(section).expect("a section").clone()
}

fn text<'a>(value: &'a OwnedValue, name: &str) -> &'a str {
    value.get_str(name).unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn id(value: &OwnedValue) -> Option<Id> {
    let id = value.get("id")?;
    id.as_u64().and_then(Id::number).or_else(|| id.as_str().and_then(Id::text))
}

fn topics(value: &OwnedValue) -> Vec<&str> {
    let topics = value.get_array("topics").expect("topics");
    topics.iter().map(|topic| topic.as_str().expect("a string")).collect()
}

fn kind(value: &OwnedValue) -> PayloadKind {
    match text(value, "kind") {
        "text" => PayloadKind::Text,
        "binary" => PayloadKind::Binary,
        "json" => PayloadKind::Json,
        other => panic!("kind {other}"),
    }
}

fn payload(value: &OwnedValue) -> Vec<u8> {
    match value.get_str("payload_base64") {
        Some(encoded) => STANDARD.decode(encoded).expect("base64"),
        None => text(value, "payload").as_bytes().to_vec(),
    }
}

fn number(value: &OwnedValue, name: &str) -> u64 {
    value.get_u64(name).unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn epoch(value: &OwnedValue) -> u64 {
    u64::from_str_radix(text(value, "epoch"), 16).expect("hexadecimal digits")
}

fn flag(value: &OwnedValue, name: &str) -> bool {
    value.get_bool(name).unwrap_or(false)
}

fn position(value: &OwnedValue) -> Position {
    Position { epoch: epoch(value), offset: number(value, "offset") }
}

/// The position that a member is.
fn position_of(value: &OwnedValue, name: &str) -> Option<Position> {
    value.get(name).map(position)
}

/// Whether a subscribe begins where the vector says.
fn starts(start: Start<'_>, expected: &OwnedValue) -> bool {
    match (start, expected.get("since"), expected.get_u64("last")) {
        (Start::Now, None, None) => true,
        (Start::Last(got), None, Some(last)) => u64::from(got) == last,
        (Start::Since(positions), Some(since), None) => {
            topics(expected).iter().all(|topic| positions.of(topic) == position_of(since, topic))
        }
        _ => false,
    }
}

fn options(value: &OwnedValue) -> PublishOptions<'_> {
    PublishOptions {
        key: value.get_str("key"),
        retain: flag(value, "retain"),
        removed: flag(value, "removed"),
        ttl_ms: value.get_u64("ttl_ms"),
        idempotency_key: value.get_str("idempotency_key"),
        if_offset: value.get("if_offset").map(|expected| match expected.as_u64() {
            Some(offset) => Expected::Offset(offset),
            None if *expected == "absent" => Expected::Absent,
            None => panic!("if_offset {expected}"),
        }),
    }
}

fn assert_command(command: &Command<'_>, expected: &OwnedValue, name: &str) {
    let id = id(expected);
    let matches = match (text(expected, "type"), command) {
        ("connect", Command::Connect { id: got }) | ("ping", Command::Ping { id: got }) => *got == id,
        ("subscribe", Command::Subscribe { id: got, topics: got_topics, start, state }) => {
            *got == id
                && got_topics.iter().eq(topics(expected))
                && starts(*start, expected)
                && *state == expected.get_bool("state").unwrap_or(true)
        }
        ("unsubscribe", Command::Unsubscribe { id: got, topics: got_topics }) => {
            *got == id && got_topics.iter().eq(topics(expected))
        }
        ("publish", &Command::Publish { id: got, topic, kind: got_kind, data, ack, options: got_options }) => {
            got == id
                && topic == text(expected, "topic")
                && got_kind == kind(expected)
                && data == payload(expected)
                && Some(ack) == expected.get_bool("ack")
                && got_options == options(expected)
        }
        ("history", &Command::History { id: got, topic, query }) => {
            let expected_query = HistoryQuery {
                since: position_of(expected, "since"),
                before: position_of(expected, "before"),
                limit: number(expected, "limit") as u32,
                reverse: flag(expected, "reverse"),
            };
            got == id && topic == text(expected, "topic") && query == expected_query
        }
        ("snapshot", &Command::Snapshot { id: got, topic, up_to, kind: got_kind, data }) => {
            got == id
                && topic == text(expected, "topic")
                && Some(up_to) == position_of(expected, "up_to")
                && got_kind == kind(expected)
                && data == payload(expected)
        }
        _ => false,
    };
    assert!(matches, "{name}: {command:?} is not {expected}");
}

#[test]
fn commands_of_the_vectors() {
    // One parser for all: what a command leaves behind must not reach the next.
    let mut parser = Parser::new();
    for vector in vectors("commands") {
        let name = text(&vector, "name");
        let mut send = text(&vector, "send").as_bytes().to_vec();
        match (parser.parse(&mut send, TOPIC_LEN_MAX), vector.get("is"), vector.get("error")) {
            (Ok(command), Some(expected), None) => assert_command(&command, expected, name),
            (Err(error), None, Some(expected)) => {
                assert_eq!(error.code.as_str(), text(expected, "code"), "{name}: {error}");
                assert_eq!(error.id, id(expected), "{name}: {error}");
                assert!(error.reason.ends_with('.'), "{name}: {error}");
            }
            (got, _, _) => panic!("{name}: {got:?}"),
        }
    }
}

fn subscribed(topic: &OwnedValue) -> Subscribed<'_> {
    let history = ["window", "keyed"].into_iter().find(|&kind| topic.get_str("history") == Some(kind));
    Subscribed {
        topic: text(topic, "topic"),
        position: topic.contains_key("epoch").then(|| position(topic)),
        recovered: topic.get_bool("recovered"),
        available: topic.get("available").map(|available| (number(available, "from"), number(available, "to"))),
        history,
    }
}

/// `payload` is the message's.
fn parts<'a>(message: &'a OwnedValue, payload: &'a [u8]) -> MessageParts<'a> {
    MessageParts {
        topic: text(message, "topic"),
        offset: message.get_u64("offset").unwrap_or(0),
        kind: kind(message),
        payload,
        key: message.get_str("key"),
        removed: flag(message, "removed"),
        state: flag(message, "state"),
        up_to: message.get_u64("up_to"),
        time_ms: message.get_u64("time_ms"),
        prev: message.get_u64("prev"),
    }
}

#[test]
fn messages_of_the_vectors() {
    for vector in vectors("messages") {
        let say = vector.get("say").expect("say");
        let id = id(say);
        let id = id.as_ref();
        let mut out = Vec::new();
        match text(say, "type") {
            "ok" => write_ok(&mut out, id),
            "pong" => write_pong(&mut out, id),
            "error" => {
                let code = ErrorCode::named(text(say, "code")).expect("a code");
                write_error(&mut out, id, code, text(say, "reason"), say.get_u64("offset"));
            }
            "published" => {
                let subscribers = number(say, "subscribers") as u32;
                write_published(&mut out, id, position(say), subscribers, flag(say, "duplicate"));
            }
            "subscribed" => {
                let topics = say.get_array("topics").expect("topics");
                write_subscribed(&mut out, id, topics.iter().map(subscribed));
            }
            "history" => {
                let messages = say.get_array("messages").expect("messages");
                let payloads: Vec<_> = messages.iter().map(payload).collect();
                let messages = messages.iter().zip(&payloads).map(|(message, payload)| parts(message, payload));
                write_history(&mut out, id, position(say), say.get_bool("recovered"), messages, flag(say, "more"));
            }
            "message" => write_message(&mut out, &parts(say, &payload(say))),
            "state-end" => write_state_end(&mut out, text(say, "topic"), say.get_u64("offset")),
            "gap" => {
                let reason = GapReason::named(text(say, "reason")).expect("a reason");
                write_gap(&mut out, text(say, "topic"), number(say, "from"), number(say, "to"), reason);
            }
            "reset" => {
                let reason = ResetReason::named(text(say, "reason")).expect("a reason");
                write_reset(&mut out, text(say, "topic"), position(say), reason);
            }
            other => panic!("message {other}"),
        }
        assert_eq!(String::from_utf8(out).as_deref(), Ok(text(&vector, "bytes")));
    }
}

#[test]
fn topics_have_the_configured_length() {
    let mut text = *br#"{"type":"subscribe","id":1,"topic":"abcdef"}"#;
    let error = Parser::new().parse(&mut text, 5).map(|_| ());
    let reason = "The topic is longer than 5 bytes.".into();
    assert_eq!(error, Err(CommandError { id: Id::number(1), code: ErrorCode::BadTopic, reason }));
}

/// Brackets without end, and a command too long for the parser to keep its buffers: both leave it usable.
#[test]
fn large_commands() {
    let mut parser = Parser::new();
    let mut brackets = vec![b'['; 1 << 20];
    assert!(parser.parse(&mut brackets, TOPIC_LEN_MAX).is_err());
    let data = "x\\n".repeat(100_000);
    let command = format!(r#"{{"type":"publish","topic":"t","data":["{data}"]}}"#);
    for _ in 0..2 {
        let mut text = command.clone().into_bytes();
        let parsed = parser.parse(&mut text, TOPIC_LEN_MAX);
        let Ok(Command::Publish { data: got, .. }) = parsed else { panic!("{parsed:?}") };
        assert_eq!(got, format!("[\"{data}\"]").as_bytes());
    }
    let mut ping = *br#"{"type":"ping"}"#;
    assert_eq!(parser.parse(&mut ping, TOPIC_LEN_MAX), Ok(Command::Ping { id: None }));
}

/// A body of a POST gets the verdict of `data` in a command, and becomes the same payload.
fn as_command_and_alone(json: &str) -> [Option<(PayloadKind, Vec<u8>)>; 2] {
    let mut command = format!(r#"{{"type":"publish","topic":"t","data":{json}}}"#).into_bytes();
    let mut parser = Parser::new();
    let in_command = match parser.parse(&mut command, TOPIC_LEN_MAX) {
        Ok(Command::Publish { kind, data, .. }) => Some((kind, data.to_vec())),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    let mut out = Vec::new();
    let alone = Values::new().payload(&mut json.as_bytes().to_vec(), &mut out).ok();
    [in_command, alone.map(|kind| (kind, out))]
}

#[test]
fn a_value_alone_is_the_value_of_a_command() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let cases = [
        ("\"text\"", Some("text")),
        ("\"\\u0041\\n\"", Some("A\n")),
        (" { \"a\" : 1.50 , \"a\" : [ ] } ", Some("{\"a\":1.5,\"a\":[]}")),
        ("-0", Some("0")),
        ("18446744073709551616", Some("1.8446744073709552e19")),
        ("1e-400", Some("0.0")),
        (&nested(64), Some(&*nested(64))),
        (&nested(65), None),
        (&nested(100_000), None),
        ("1e400", None),
        ("\"\\ud83d\"", None),
        ("\u{feff}1", None),
        ("", None),
        ("1 2", None),
        ("NaN", None),
        ("\"\t\"", None),
    ];
    for (json, expected) in cases {
        let [in_command, alone] = as_command_and_alone(json);
        let shown = &json[..json.len().min(40)];
        assert_eq!(in_command, alone, "{shown}");
        assert_eq!(alone.map(|(_, data)| String::from_utf8(data).expect("text")).as_deref(), expected, "{shown}");
    }
}

/// A vector's command with some bytes changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let sends: Vec<Vec<u8>> =
        vectors("commands").iter().map(|vector| text(vector, "send").as_bytes().to_vec()).collect();
    let bytes = prop_oneof![any::<u8>(), proptest::sample::select(br#"{}[]":,\0"#.to_vec())];
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), bytes), 0..4);
    (proptest::sample::select(sends), changes).prop_map(|(mut text, changes)| {
        for (at, byte) in changes {
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = byte;
            }
        }
        text
    })
}

/// A value that is put together from tokens, more often well than not.
fn json_value() -> impl Strategy<Value = String> {
    const TOKENS: [&str; 29] = [
        "0",
        "-0",
        "1e5",
        "1.50",
        "-12",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "1e400",
        "0.1e-400",
        "01",
        "1.",
        ".5",
        "-",
        "true",
        "nul",
        "null",
        "\"\"",
        "\"\\u00e4\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83dx\"",
        "\"\\udc00\"",
        "\"\\uzzzz\"",
        "\"\\/\\b\\f\"",
        "1\0",
        "true\0",
        "1234567890123456789x",
        "123456789012345678-5",
        "0.12345678901234567890123",
    ];
    let token = proptest::sample::select(TOKENS.to_vec()).prop_map(str::to_owned);
    token.prop_recursive(3, 12, 4, |inner| {
        let list = proptest::collection::vec(inner, 0..4);
        (list, any::<bool>()).prop_map(|(list, object)| {
            if object {
                let member = |(i, value): (usize, String)| format!(" \"{i}\" :{value}");
                format!("{{{}}}", list.into_iter().enumerate().map(member).collect::<Vec<_>>().join(","))
            } else {
                format!("[{}]", list.join(", "))
            }
        })
    })
}

/// A command with such data.
fn json_text() -> impl Strategy<Value = Vec<u8>> {
    json_value().prop_map(|value| format!(r#"{{"type":"publish","topic":"t","data":{value}}}"#).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Damaged commands are commands or errors, never a panic, and leave nothing in the parser.
    #[test]
    fn damage_never_panics(texts in proptest::collection::vec(damaged(), 1..4)) {
        let mut used = Parser::new();
        for text in texts {
            let (mut a, mut b) = (text.clone(), text);
            let mut fresh = Parser::new();
            prop_assert_eq!(used.parse(&mut a, TOPIC_LEN_MAX), fresh.parse(&mut b, TOPIC_LEN_MAX));
        }
    }

    /// What is published comes out of the envelope as it went in.
    #[test]
    fn text_and_bytes_come_back(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
        let mut out = Vec::new();
        write_message(&mut out, &MessageParts::plain("t", 1, PayloadKind::Text, text.as_bytes()));
        let message = simd_json::to_owned_value(&mut out).expect("JSON");
        prop_assert_eq!(message.get_str("data"), Some(text.as_str()));

        let mut out = Vec::new();
        write_message(&mut out, &MessageParts::plain("t", 1, PayloadKind::Binary, &bytes));
        let message = simd_json::to_owned_value(&mut out).expect("JSON");
        prop_assert_eq!(message.get_str("encoding"), Some("base64"));
        prop_assert_eq!(STANDARD.decode(message.get_str("data").unwrap_or_default()), Ok(bytes));
    }

    /// Published JSON keeps its meaning on the way through command and envelope.
    #[test]
    fn json_comes_back(numbers in proptest::collection::vec(any::<i64>(), 0..5), doubles in proptest::collection::vec(-1e300..1e300, 0..5), text in any::<String>()) {
        let lists = [OwnedValue::from(numbers), OwnedValue::from(doubles), OwnedValue::from(text)];
        let data = OwnedValue::from(lists.to_vec());
        let mut command = format!(r#"{{"type":"publish","topic":"t","data":{}}}"#, data.encode()).into_bytes();
        let mut parser = Parser::new();
        let parsed = parser.parse(&mut command, TOPIC_LEN_MAX);
        let Ok(Command::Publish { kind: PayloadKind::Json, data: payload, .. }) = parsed else {
            panic!("{parsed:?}");
        };
        let mut out = Vec::new();
        write_message(&mut out, &MessageParts::plain("t", 1, PayloadKind::Json, payload));
        let message = simd_json::to_owned_value(&mut out).expect("JSON");
        prop_assert_eq!(message.get("data"), Some(&data));
    }

    /// One verdict and one payload, whichever way the value comes.
    #[test]
    fn values_alone_and_in_commands_agree(json in json_value()) {
        let [in_command, alone] = as_command_and_alone(&json);
        prop_assert_eq!(in_command, alone);
    }

    /// Another parser, slow and well-proven, takes the same texts for JSON and reads the same values.
    #[test]
    fn agrees_with_serde_json(text in prop_oneof![damaged(), json_text()]) {
        let expected = serde_json::from_slice::<serde_json::Value>(&text);
        let mut parser = Parser::new();
        let mut read = text.clone();
        match parser.parse(&mut read, TOPIC_LEN_MAX) {
            Err(CommandError { code: ErrorCode::BadJson, .. }) => prop_assert!(expected.is_err(), "{}", text.escape_ascii()),
            Ok(Command::Publish { kind: PayloadKind::Json, data, .. }) => {
                let data = serde_json::from_slice::<serde_json::Value>(data).expect("JSON");
                // simd-json reads -0 as the integer 0.
                let plain = |value: &serde_json::Value| value.to_string().replace("-0.0", "0");
                prop_assert_eq!(plain(&data), plain(&expected.expect("JSON")["data"]));
            }
            Ok(Command::Publish { kind: PayloadKind::Text, data, .. }) => {
                let data = std::str::from_utf8(data).expect("text");
                prop_assert_eq!(data, &expected.expect("JSON")["data"]);
            }
            _ => prop_assert!(expected.is_ok(), "{}: {expected:?}", text.escape_ascii()),
        }
    }
}
