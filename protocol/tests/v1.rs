//! `ringyard.v1`: the test vectors that clients run too, and commands that are too long for them. Properties are in
//! `tests/v1_values.rs` and `tests/v1_history.rs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::v1::{
    Command, CommandError, Connected, ErrorCode, Expected, GapReason, HistoryQuery, Id, LeaseAsked, LeaseLostReason,
    MemberParts, MessageParts, Parser, PayloadKind, Position, PublishOptions, Reply, RequestParts, ResetReason,
    SessionAsked, Start, Subscribed, Will, write_answered, write_connected, write_ended, write_error, write_gap,
    write_goaway, write_held, write_history, write_lease_lost, write_leased, write_members, write_message, write_ok,
    write_ping, write_pong, write_published, write_refresh, write_request, write_reset, write_responder_error,
    write_state_end, write_subscribed,
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
        lease: value.get_u64("lease"),
    }
}

fn session_of(value: &OwnedValue) -> Option<SessionAsked<'_>> {
    let resumed = value.get_str("session").map(SessionAsked::Resumed);
    resumed.or_else(|| flag(value, "session").then_some(SessionAsked::New))
}

/// The will that a vector says, and its payload.
fn will(value: &OwnedValue) -> Option<(Will<'_>, Vec<u8>)> {
    let will = value.get("will")?;
    let (topic, delay_ms) = (text(will, "topic"), number(will, "delay") as u32);
    Some((Will { topic, kind: kind(will), data: &[], options: options(will), delay_ms }, payload(will)))
}

fn has_will(command: Option<Will<'_>>, expected: &OwnedValue) -> bool {
    match (command, will(expected)) {
        (None, None) => true,
        (Some(got), Some((expected, payload))) => got == Will { data: &payload, ..expected },
        _ => false,
    }
}

fn lease(value: &OwnedValue) -> LeaseAsked {
    let ttl_ms = value.get_u64("ttl").map(|ms| ms as u32);
    match value.get_u64("lease") {
        None => LeaseAsked::Take { ttl_ms: ttl_ms.expect("ttl"), wait_ms: number(value, "wait") as u32 },
        Some(lease) if flag(value, "end") => LeaseAsked::Release { lease },
        Some(lease) => LeaseAsked::Renew { lease, ttl_ms },
    }
}

fn connected(say: &OwnedValue) -> Connected<'_> {
    Connected {
        session: say.get_str("session"),
        resumed: flag(say, "resumed"),
        member: text(say, "member"),
        expires_ms: say.get_u64("expires"),
        ping_ms: say.get_u64("ping"),
        server: text(say, "server"),
    }
}

fn member(value: &OwnedValue) -> MemberParts<'_> {
    MemberParts {
        member: text(value, "member"),
        info: value.get_str("info").map(str::as_bytes),
        connections: number(value, "connections") as u32,
    }
}

fn assert_command(command: &Command<'_>, expected: &OwnedValue, name: &str) {
    let id = id(expected);
    let matches = match (text(expected, "type"), command) {
        ("connect", Command::Connect { id: got, token, pings, session, will }) => {
            *got == id
                && *token == expected.get_str("token")
                && *pings == (expected.get_str("ping") == Some("message"))
                && *session == session_of(expected)
                && has_will(*will, expected)
        }
        ("will", &Command::Will { id: got, will }) => got == id && has_will(will, expected),
        ("lease", &Command::Lease { id: got, topic, asked }) => {
            got == id && topic == text(expected, "topic") && asked == lease(expected)
        }
        ("disconnect", Command::Disconnect { id: got }) => *got == id,
        ("enter" | "update", &Command::Enter { id: got, topic, info, is_update }) => {
            got == id
                && topic == text(expected, "topic")
                && info == expected.get_str("info").map(str::as_bytes)
                && is_update == (text(expected, "type") == "update")
        }
        ("leave", &Command::Leave { id: got, topic }) => got == id && topic == text(expected, "topic"),
        ("members", &Command::Members { id: got, topic, limit }) => {
            got == id && topic == text(expected, "topic") && u64::from(limit) == number(expected, "limit")
        }
        ("ping", Command::Ping { id: got }) => *got == id,
        ("pong", Command::Pong) => id.is_none(),
        ("subscribe", Command::Subscribe { id: got, topics: got_topics, start, state, throttle_ms }) => {
            *got == id
                && got_topics.iter().eq(topics(expected))
                && starts(*start, expected)
                && *state == expected.get_bool("state").unwrap_or(true)
                && u64::from(*throttle_ms) == expected.get_u64("throttle").unwrap_or(0)
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
        ("snapshot", &Command::Snapshot { id: got, topic, up_to, kind: got_kind, data, lease }) => {
            got == id
                && topic == text(expected, "topic")
                && Some(up_to) == position_of(expected, "up_to")
                && lease == expected.get_u64("lease")
                && got_kind == kind(expected)
                && data == payload(expected)
        }
        ("request", &Command::Request { id: got, topic, kind: got_kind, data, timeout_ms, to }) => {
            got == id
                && topic == text(expected, "topic")
                && got_kind == kind(expected)
                && data == payload(expected)
                && u64::from(timeout_ms) == expected.get_u64("timeout").unwrap_or(5000)
                && to == expected.get_str("to")
        }
        ("respond", &Command::Respond { id: got, filter, end }) => {
            got == id && filter == text(expected, "topic") && end == flag(expected, "end")
        }
        ("reply", &Command::Reply { id: got, reply, answer }) => {
            let is_expected = match answer {
                Reply::Data { kind: got_kind, data } => got_kind == kind(expected) && data == payload(expected),
                Reply::Error { code, reason } => expected
                    .get("error")
                    .is_some_and(|error| code == text(error, "code") && reason == text(error, "reason")),
            };
            got == id && reply == number(expected, "reply") && is_expected
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
    let slow_consumer = ["skip", "latest"].into_iter().find(|&policy| topic.get_str("slow_consumer") == Some(policy));
    Subscribed {
        topic: text(topic, "topic"),
        position: topic.contains_key("epoch").then(|| position(topic)),
        recovered: topic.get_bool("recovered"),
        available: topic.get("available").map(|available| (number(available, "from"), number(available, "to"))),
        history,
        slow_consumer,
        throttle_ms: topic.get_u64("throttle").unwrap_or(0) as u32,
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
            "connected" => write_connected(&mut out, id, &connected(say)),
            "members" => {
                let members = say.get_array("members").expect("members");
                write_members(&mut out, id, number(say, "count"), members.iter().map(member), flag(say, "more"));
            }
            "leased" => write_leased(&mut out, id, number(say, "lease"), number(say, "ttl")),
            "held" => write_held(&mut out, id, text(say, "by"), number(say, "ttl")),
            "lease-lost" => {
                let reason = LeaseLostReason::named(text(say, "reason")).expect("a reason");
                write_lease_lost(&mut out, text(say, "topic"), number(say, "lease"), reason);
            }
            "goaway" => write_goaway(&mut out, number(say, "retry")),
            "ping" => write_ping(&mut out),
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
            "request" => write_request(
                &mut out,
                &RequestParts {
                    topic: text(say, "topic"),
                    kind: kind(say),
                    payload: &payload(say),
                    reply: number(say, "reply"),
                    from: say.get_str("from"),
                    timeout_ms: number(say, "timeout"),
                },
            ),
            "answered" => write_answered(&mut out, id, kind(say), &payload(say), say.get_str("from")),
            "responder-error" => {
                let error = say.get("error").expect("an error");
                write_responder_error(&mut out, id, text(error, "code"), text(error, "reason"));
            }
            "state-end" => write_state_end(&mut out, text(say, "topic"), say.get_u64("offset")),
            "gap" => {
                let reason = GapReason::named(text(say, "reason")).expect("a reason");
                write_gap(&mut out, text(say, "topic"), number(say, "from"), number(say, "to"), reason);
            }
            "reset" => {
                let reason = ResetReason::named(text(say, "reason")).expect("a reason");
                write_reset(&mut out, text(say, "topic"), position(say), reason);
            }
            "refresh" => write_refresh(&mut out, number(say, "in")),
            "ended" => {
                let code = ErrorCode::named(text(say, "code")).expect("a code");
                write_ended(&mut out, text(say, "topic"), code, flag(say, "respond"));
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
