//! Streams without a shard: what they say first and last, and which subscriptions they release.

use protocol::frame::close_code::{FORBIDDEN, TOKEN_EXPIRED, TRY_AGAIN_LATER};

use super::*;
use crate::ids::Offset;
use crate::topics::registry::Registry;

const PLAIN: EventForm = EventForm { has_ids: true, is_chunked: false, has_envelope: false, is_state: false };

fn written(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8(out.to_vec()).expect("text")
}

/// The first bytes of a stream of one topic.
fn first(form: EventForm, lost_place: bool, begun: Begun) -> String {
    let mut session = EventSession::new(form, 1, lost_place, 1234);
    let key = session.add(LogSlot::new(3), "t".into(), Registry::new(1, 1).keys());
    session.go_live(key, 5, Seq(70));
    written(|out| assert_eq!(session.begin(key, begun, out), Released::One(key)))
}

#[test]
fn the_first_event_says_where_the_stream_begins() {
    let begun = Begun { position: Some(Position { epoch: 0xab, offset: 8 }), ..Begun::default() };
    let head = "retry: 1234\nevent: position\n";
    let at_7 = "id: 00000000000000ab:7\ndata: {\"epoch\":\"00000000000000ab\",\"offset\":7";
    assert_eq!(first(PLAIN, false, begun), format!("{head}{at_7},\"ids\":true}}\n\n"));
    let recovered = Begun { recovered: Some(true), ..begun };
    assert_eq!(first(PLAIN, false, recovered), format!("{head}{at_7},\"recovered\":true,\"ids\":true}}\n\n"));
    assert_eq!(first(PLAIN, true, recovered), format!("{head}{at_7},\"recovered\":false,\"ids\":true}}\n\n"));
    let not = Begun { recovered: Some(false), available: Some((Offset(3), Offset(7))), ..begun };
    let available = "\"recovered\":false,\"available\":{\"from\":3,\"to\":7}";
    assert_eq!(first(PLAIN, false, not), format!("{head}{at_7},{available},\"ids\":true}}\n\n"));
    let conflated = Begun { slow_consumer: SlowConsumer::Latest, ..begun };
    assert!(first(PLAIN, false, conflated).contains("\"slow_consumer\":\"latest\""));
    let filter = EventForm { has_ids: false, ..PLAIN };
    let none = Begun { position: None, ..begun };
    assert_eq!(first(filter, false, none), format!("{head}data: {{\"ids\":false}}\n\n"));
    assert_eq!(first(filter, true, none), format!("{head}data: {{\"recovered\":false,\"ids\":false}}\n\n"));
    let enveloped = |form| EventForm { has_envelope: true, ..form };
    let keyed = Begun { history: Some(HistoryKind::Keyed), ..begun };
    let says = "\"envelope\":true,\"history\":\"keyed\",\"ids\":true}";
    assert_eq!(first(enveloped(PLAIN), false, keyed), format!("{head}{at_7},{says}\n\n"));
    assert_eq!(
        first(enveloped(filter), false, Begun { position: None, ..keyed }),
        format!("{head}data: {{\"envelope\":true,\"ids\":false}}\n\n")
    );
    let chunked = first(EventForm { is_chunked: true, ..PLAIN }, false, begun);
    assert!(chunked.starts_with("6d\r\nretry: 1234\nevent: position\n") && chunked.ends_with("}\n\n\r\n"), "{chunked}");
}

/// Who is cut off before the end of the state would not get the rest of it, if it said that it had everything.
#[test]
fn state_that_is_cut_off_comes_again() {
    let begun = Begun {
        position: Some(Position { epoch: 1, offset: 8 }),
        shows_state: true,
        recovered: None,
        ..Begun::default()
    };
    for recovered in [None, Some(false)] {
        let text = first(PLAIN, false, Begun { recovered, ..begun });
        assert!(text.contains("id: 0000000000000001:0\n") && text.contains("\"offset\":7"), "{text}");
    }
    let text = first(PLAIN, false, Begun { recovered: Some(true), ..begun });
    assert!(text.contains("id: 0000000000000001:7\n"), "keys beyond its place only: {text}");
}

#[test]
fn several_topics_begin_together() {
    let registry = Registry::new(1, 1);
    let mut session = EventSession::new(EventForm { has_ids: false, ..PLAIN }, 2, false, 2000);
    let keys: Vec<u32> =
        ["a", "b/#"].iter().map(|filter| session.add(LogSlot::new(3), (*filter).into(), registry.keys())).collect();
    for (&key, released) in keys.iter().zip([Released::None, Released::Many(keys.clone())]) {
        session.go_live(key, 5, Seq(70));
        let text = written(|out| assert_eq!(session.begin(key, Begun::default(), out), released));
        assert_eq!(text.is_empty(), released == Released::None, "one position for all");
    }
    assert!(session.shares_sends());
    session.set_pending(keys[1]);
    assert!(
        matches!(session.take_pending(), Pending::Many { keys: pending, overlapping: false } if pending == [keys[1]])
    );
    assert_eq!(session.sender_of("b/c"), Some(keys[1]));
    for &key in &keys {
        assert!(session.remove(key).is_some());
    }
    assert!(session.keys().is_empty());
}

#[test]
fn the_last_words_of_a_stream() {
    let session = EventSession::new(EventForm { is_chunked: true, ..PLAIN }, 1, false, 1000);
    let end = |code: CloseCode, why: &str| written(|out| session.put_end(code.into(), why, out));
    for code in [TOKEN_EXPIRED, FORBIDDEN] {
        let text = end(code, "no \"more\"");
        assert!(text.contains("event: expired\ndata: {") && text.contains(r#""reason":"no \"more\"""#), "{text}");
        assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
    }
    assert_eq!(end(close_code::GOING_AWAY, "bye"), "0\r\n\r\n");
    assert_eq!(end(TRY_AGAIN_LATER, "too\r\nslow"), "d\r\n: too  slow\n\n\r\n0\r\n\r\n");
    assert_eq!(&session.ping()[..], b"3\r\n:\n\n\r\n");
}
