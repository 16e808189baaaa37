//! `ringyard.v1`: what is published comes out as it went in, and what is damaged is refused; properties that no list of
//! examples covers. And a JSON value alone, the body of a POST, against one in a command.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use protocol::v1::{Command, CommandError, ErrorCode, MessageParts, Parser, PayloadKind, Values, write_message};
use simd_json::OwnedValue;
use simd_json::prelude::*;

const TOPIC_LEN_MAX: usize = 255;

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
    let mut text = include_bytes!("../vectors/v1.json").to_vec();
    let all = simd_json::to_owned_value(&mut text).expect("the vectors are JSON");
    let commands = all.get_array("commands").expect("commands").iter();
    let sends: Vec<Vec<u8>> = commands.map(|vector| vector.get_str("send").expect("text").into()).collect();
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
