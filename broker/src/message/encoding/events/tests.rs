//! Events are read by an oracle that was written from the standard's rules (HTML standard, 9.2.6; RFC 9112 §7.1) and knows nothing of
//! how they are made.

use proptest::prelude::*;
use protocol::v1::GapReason;

use super::*;
use crate::capacity::budget::Budget;
use crate::ids::{Epoch, Offset, TopicId};
use crate::message::encoding::notice::Notice;
use crate::message::{Encoding, Payload};

/// An event as `EventSource` dispatches it: its type, its data, and the last event id then.
type Event = (String, String, String);

/// The bytes of all chunks, each of which must be whole; and whether the last one came.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a chunk's size ends in CR LF");
        let digits = std::str::from_utf8(&bytes[..end]).expect("hexadecimal digits");
        assert!(digits == "0" || !digits.starts_with('0'), "as short as can be: {digits}");
        let len = usize::from_str_radix(digits, 16).expect("hexadecimal digits");
        let rest = &bytes[end + 2..];
        body.extend_from_slice(&rest[..len]);
        assert_eq!(&rest[len..len + 2], b"\r\n");
        bytes = &rest[len + 2..];
        if len == 0 {
            assert!(bytes.is_empty(), "nothing follows the last chunk");
            return (body, true);
        }
    }
    (body, false)
}

/// HTML standard, 9.2.6, "interpreting an event stream".
fn interpret(stream: &[u8]) -> Vec<Event> {
    let text = std::str::from_utf8(stream).expect("UTF-8");
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut data, mut name, mut id) = (Vec::new(), String::new(), String::new(), String::new());
    for line in text.split_inclusive('\n') {
        let line = line.strip_suffix('\n').expect("every line is ended");
        if line.is_empty() {
            if !data.is_empty() {
                let kind = if name.is_empty() { "message".to_owned() } else { name.clone() };
                events.push((kind, data.strip_suffix('\n').expect("it ends in LF").to_owned(), id.clone()));
            }
            (data, name) = (String::new(), String::new());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.to_owned(),
            _ => {}
        }
    }
    assert!(data.is_empty() && name.is_empty(), "the last event is ended");
    events
}

fn message(kind: PayloadKind, payload: &[u8], place: (u64, u64), budget: &Budget) -> Message {
    let payload = Payload::copy_of(kind, payload, budget.of_shard(0));
    Message::new((TopicId(1), "t".into()), Offset(place.1), payload, 0).in_epoch(Epoch(place.0))
}

fn forms() -> impl Iterator<Item = EventForm> {
    let pick = |bits: u8| EventForm {
        has_ids: bits & 1 > 0,
        is_chunked: bits & 2 > 0,
        has_envelope: false,
        is_state: bits & 4 > 0,
    };
    (0..8).map(pick)
}

/// What is read of an event in a form.
fn read(bytes: &[u8], form: EventForm) -> Vec<Event> {
    match form.is_chunked {
        true => interpret(&unchunk(bytes).0),
        false => interpret(bytes),
    }
}

#[test]
fn the_bytes_of_a_message() {
    let budget = Budget::new(1, 1 << 20);
    let form = EventForm { has_ids: true, is_chunked: true, has_envelope: false, is_state: false };
    let text = message(PayloadKind::Text, b"a\n\nb", (0xab, 7), &budget);
    let frame = text.frame(Encoding::Events(form), budget.of_shard(0), true);
    let expected = "2f\r\nid: 00000000000000ab:7\ndata: a\ndata: \ndata: b\n\n\r\n";
    assert_eq!(std::str::from_utf8(&frame), Ok(expected));
    let again = text.frame(Encoding::Events(form), budget.of_shard(0), true);
    assert_eq!(frame.as_ptr(), again.as_ptr(), "made once for all");
    let plain = EventForm { has_ids: false, is_chunked: false, ..form };
    drop((frame, again));
    let frame = text.frame(Encoding::Events(plain), budget.of_shard(0), true);
    assert_eq!(&frame[..], b"data: a\ndata: \ndata: b\n\n");
    let state = Encoding::Events(form).of_state();
    let (one, two) = (text.frame(state, budget.of_shard(0), true), text.frame(state, budget.of_shard(0), true));
    assert_ne!(one.as_ptr(), two.as_ptr(), "state is not kept twice");
    drop((frame, one, two, text));
    assert_eq!(budget.held(Held::Messages), 0);
}

#[test]
fn binary_messages_resets_and_notices() {
    let budget = Budget::new(1, 1 << 20);
    let account = budget.of_shard(0);
    for form in forms() {
        let id = |offset| if form.has_ids { format!("000000000000000c:{offset}") } else { String::new() };
        let binary = message(PayloadKind::Binary, b"\xff\0\n", (0xc, 1), &budget);
        let frame = binary.frame(Encoding::Events(form), account, true);
        assert_eq!(read(&frame, form), [("binary".to_owned(), "/wAK".to_owned(), id(1))]);
        let marker = Message::reset((TopicId(1), "t".into()), Epoch(0xc), 0, account);
        let frame = marker.frame(Encoding::Events(form), account, true);
        let [(kind, data, place)] = &read(&frame, form)[..] else { panic!("one event") };
        assert_eq!((&kind[..], place), ("reset", &id(0)));
        assert!(data.contains(r#""epoch":"000000000000000c""#) && data.contains(r#""reason":"purged""#), "{data}");
        let mut out = BytesMut::new();
        let gap = Notice::Gap { topic: "t", from: 2, to: 5, reason: GapReason::SlowConsumer };
        Encoding::Events(form).put_notice(&gap, &mut out);
        let end = Notice::StateEnd { topic: "t", place: Some(Position { epoch: 0xc, offset: 9 }) };
        Encoding::Events(form).put_notice(&end, &mut out);
        let [(gap, of_gap, no_id), (end, of_end, at_end)] = &read(&out, form)[..] else { panic!("two events") };
        assert_eq!((&gap[..], &no_id[..], &end[..], at_end), ("gap", "", "state-end", &id(9)));
        assert!(of_gap.contains(r#""from":2,"to":5,"reason":"slow-consumer""#), "{of_gap}");
        assert!(of_end.contains(r#""offset":9"#), "{of_end}");
    }
}

/// With an envelope a message is what `ringyard.v1` says, whatever its kind; line ends of JSON are spaces between its parts.
#[test]
fn messages_in_an_envelope() {
    let budget = Budget::new(1, 1 << 20);
    for form in forms().map(|form| EventForm { has_envelope: true, ..form }) {
        let id = if form.has_ids { "000000000000000c:7" } else { "" };
        let state = if form.is_state { ",\"state\":true" } else { "" };
        for (kind, payload, data) in [
            (PayloadKind::Text, "a\n\"b\"", r#""a\n\"b\"""#),
            (PayloadKind::Json, "{\"a\":\r\n1}", "{\"a\":\n1}"),
            (PayloadKind::Binary, "\0", r#""AA==","encoding":"base64""#),
        ] {
            let message = message(kind, payload.as_bytes(), (0xc, 7), &budget);
            let frame = message.frame(Encoding::Events(form), budget.of_shard(0), true);
            let [(name, text, place)] = &read(&frame, form)[..] else { panic!("one event") };
            assert_eq!((&name[..], &place[..]), ("message", id));
            assert!(text.starts_with(r#"{"type":"message","topic":"t","offset":7"#), "{text}");
            assert!(text.contains(&format!("\"data\":{data}")) && text.contains(state), "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(text).expect("JSON")["offset"], 7);
        }
    }
}

#[test]
fn the_stream_ends_with_the_last_chunk() {
    for form in forms() {
        let mut out = BytesMut::new();
        form.put_event(&mut out, Some("expired"), None, b"x");
        form.put_last(&mut out);
        if form.is_chunked {
            assert_eq!(unchunk(&out), (b"event: expired\ndata: x\n\n".to_vec(), true));
        } else {
            assert_eq!(&out[..], b"event: expired\ndata: x\n\n");
        }
    }
}

/// What somebody may publish: any text, with many line ends.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r".to_owned()),
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just(" ".to_owned()),
        Just("data: x".to_owned()),
        Just("\0\u{feff}".to_owned()),
        ".{0,30}",
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Any text comes as it is, but for line ends, each of which becomes LF; and so do several, behind each other.
    #[test]
    fn any_text_is_read_as_it_was_published(texts in prop::collection::vec(text(), 1..5), epoch in 0u64..1 << 56, offset in 1u64..1 << 53) {
        let budget = Budget::new(1, 1 << 20);
        for form in forms() {
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for (text, offset) in texts.iter().zip(offset..) {
                let message = message(PayloadKind::Text, text.as_bytes(), (epoch, offset), &budget);
                stream.extend_from_slice(&message.frame(Encoding::Events(form), budget.of_shard(0), true));
                let id = if form.has_ids { format!("{epoch:016x}:{offset}") } else { String::new() };
                expected.push(("message".to_owned(), text.replace("\r\n", "\n").replace('\r', "\n"), id));
            }
            prop_assert_eq!(read(&stream, form), expected);
        }
    }
}
