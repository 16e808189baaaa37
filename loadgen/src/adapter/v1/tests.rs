//! `ringyard.v1` as clients write it and as brokers may.

use protocol::v1::{Command, MessageParts, Parser, PayloadKind};

use super::*;
use crate::adapter::testing::{ALL, Event, TOPICS, adapter, client_frames, frame, seen_everyhow};
use crate::adapter::{Adapter, Begin, Protocol, Topics, Wire};
use crate::stamp::Sizes;

/// What a client said, as the broker reads it.
fn commands(bytes: &[u8]) -> Vec<String> {
    let mut said = Vec::new();
    for (opcode, mut text) in client_frames(bytes) {
        assert_eq!(opcode, Opcode::Text);
        let mut parser = Parser::new();
        let names = |topics: protocol::v1::Topics<'_>| topics.iter().collect::<Vec<_>>().join(" ");
        said.push(match parser.parse(&mut text, 255).unwrap() {
            Command::Subscribe { topics, .. } => format!("subscribe {}", names(topics)),
            Command::Unsubscribe { topics, .. } => format!("unsubscribe {}", names(topics)),
            Command::Publish { topic, kind, data, ack: false, .. } => {
                format!("publish {topic} {kind:?} {}", String::from_utf8_lossy(data))
            }
            other => panic!("{other:?}"),
        });
    }
    said
}

fn odd(count: u32) -> Adapter {
    let names = Names { prefix: "a\"b\\c/ä".to_owned(), count };
    Adapter::new(Protocol::V1, "ws://127.0.0.1:9", None, &names, Payloads::new(Sizes::Fixed(30))).unwrap()
}

#[test]
fn the_broker_understands() {
    let adapter = odd(200);
    let duty = Duty { subscribes: Topics { first: 150, step: 1, count: 130 }, publishes: Topics::default() };
    let mut out = Vec::new();
    adapter.greet(&duty, &mut out);
    let greeting = commands(&out);
    assert_eq!(greeting.len(), 3);
    let topics: Vec<&str> = greeting.iter().flat_map(|said| said.split(' ').skip(1)).collect();
    let expected: Vec<String> = (150..280).map(|topic| format!("a\"b\\c/ä/{}", topic % 200)).collect();
    assert_eq!(topics, expected);

    let stamp = Stamp { stream: 7, seq: 1, sent_ns: 2 };
    let (mut out, mut payload) = (Vec::new(), Vec::new());
    adapter.subscribe(3, &mut out);
    adapter.unsubscribe(3, &mut out);
    adapter.publish(7, stamp, &mut out);
    Payloads::new(Sizes::Fixed(30)).write(stamp, &mut payload);
    let payload = String::from_utf8(payload).unwrap();
    let said = ["subscribe a\"b\\c/ä/3", "unsubscribe a\"b\\c/ä/3", &format!("publish a\"b\\c/ä/7 Text {payload}")];
    assert_eq!(commands(&out), said);
}

/// Names that JSON must quote take the fast path too.
#[test]
fn messages_of_odd_topics() {
    let stamp = Stamp { stream: 201, seq: 1, sent_ns: 2 };
    let mut payload = Vec::new();
    Payloads::new(Sizes::Fixed(30)).write(stamp, &mut payload);
    for (count, name) in [(1, "a\"b\\c/ä"), (200, "a\"b\\c/ä/1")] {
        let adapter = odd(count);
        let mut text = Vec::new();
        let parts = MessageParts::plain(name, u64::MAX, PayloadKind::Text, &payload);
        protocol::v1::write_message(&mut text, &parts);
        let Wire::V1(v1) = &adapter.inner.wire else { panic!("another protocol") };
        let payloads = Payloads::new(Sizes::Fixed(30));
        assert!(matches!(
            v1.content(&ALL, &payloads, Uses::default()).front(&text),
            Front::Stamped { intact: true, .. }
        ));
        let events = seen_everyhow(&adapter, &ALL, &frame(Opcode::Text, &text));
        assert_eq!(events, [Event::Message(stamp, true)]);
    }
}

fn using(uses: Uses) -> Adapter {
    odd(200).using(uses)
}

/// Positions, keys, retained messages and filters, as the broker reads them.
#[test]
fn the_broker_understands_what_asks_for_history() {
    let starts = |bytes: &[u8]| {
        let mut parser = Parser::new();
        let mut said = Vec::new();
        for (_, mut text) in client_frames(bytes) {
            let Command::Subscribe { topics, start, .. } = parser.parse(&mut text, 255).unwrap() else { panic!() };
            let names: Vec<_> = topics.iter().map(str::to_owned).collect();
            said.extend(names.into_iter().map(|name| {
                let position = match start {
                    protocol::v1::Start::Since(positions) => positions.of(&name),
                    _ => None,
                };
                (name, position)
            }));
        }
        said
    };
    let duty = Duty { subscribes: Topics { first: 150, step: 1, count: 70 }, publishes: Topics::default() };
    let since: Vec<_> =
        (0..70_u32).map(|n| (n % 3 > 0).then_some(Position { epoch: u64::from(n) << 50, offset: n.into() })).collect();
    let mut out = Vec::new();
    using(Uses { positions: true, ..Uses::default() }).greet_with(&duty, &since, None, &mut out);
    let expected: Vec<_> = (0..70_u32).map(|n| (format!("a\"b\\c/ä/{}", (150 + n) % 200), since[n as usize])).collect();
    assert_eq!(starts(&out), expected);

    let filter = using(Uses { filter: true, retain: true, ..Uses::default() });
    let mut out = Vec::new();
    filter.greet(&Duty { subscribes: Topics { first: 0, step: 1, count: 200 }, ..duty }, &mut out);
    assert_eq!(starts(&out), [("a\"b\\c/ä/+".to_owned(), None)]);

    let throttled = using(Uses { throttle_ms: Some(250), filter: true, ..Uses::default() });
    for (filter, adapter) in [(true, throttled), (false, using(Uses { throttle_ms: Some(250), ..Uses::default() }))] {
        let mut out = Vec::new();
        adapter.greet(&Duty { subscribes: Topics { first: 0, step: 1, count: 70 }, ..duty }, &mut out);
        adapter.subscribe(3, &mut out);
        let throttles = client_frames(&out).into_iter().map(|(_, mut text)| {
            let mut parser = Parser::new();
            let Command::Subscribe { throttle_ms, .. } = parser.parse(&mut text, 255).unwrap() else { panic!() };
            throttle_ms
        });
        assert_eq!(throttles.collect::<Vec<_>>(), vec![250; if filter { 2 } else { 3 }]);
    }

    for (uses, expected) in [
        (Uses { keys: 5, ..Uses::default() }, (Some("2"), false)),
        (Uses { retain: true, ..Uses::default() }, (None, true)),
    ] {
        let mut out = Vec::new();
        using(uses).publish(7, Stamp { stream: 7, seq: 12, sent_ns: 2 }, &mut out);
        let (_, mut text) = client_frames(&out).remove(0);
        let mut parser = Parser::new();
        let Command::Publish { options, .. } = parser.parse(&mut text, 255).unwrap() else { panic!() };
        assert_eq!((options.key, options.retain), expected);
    }
}

#[test]
fn what_a_history_says() {
    let stamp = Stamp { stream: 5, seq: 6, sent_ns: 7 };
    let mut payload = Vec::new();
    Payloads::new(Sizes::Fixed(30)).write(stamp, &mut payload);
    let data = String::from_utf8(payload).unwrap();
    let position = Position { epoch: 10, offset: 3 };
    let begin = Begin { recovered: Some(true), ..Begin::at(position) };
    for (text, expected) in [
        (
            format!(r#"{{"type":"message","topic":"load/gen/5","offset":9,"data":"{data}","key":"6","state":true}}"#),
            Event::State(stamp, Envelope { offset: 9, prev: None, key: Some(6), state: true }),
        ),
        (r#"{"type":"gap","topic":"load/gen/5","from":3,"to":9,"reason":"evicted"}"#.into(), Event::Gap(5, 3, 9)),
        (
            r#"{"type":"reset","topic":"load/gen/5","epoch":"000000000000000a","offset":3,"reason":"purged"}"#.into(),
            Event::Reset(5, position),
        ),
        (r#"{"type":"state-end","topic":"load/gen/5","offset":3}"#.into(), Event::StateEnd(Some(5))),
        (r#"{"type":"state-end","topic":"load/gen/+"}"#.into(), Event::StateEnd(None)),
    ] {
        assert_eq!(said(&text), [expected], "{text}");
    }
    let ok = r#"{"type":"ok","id":0,"topics":[{"topic":"load/gen/5","epoch":"000000000000000a","offset":4,"recovered":true}]}"#;
    assert_eq!(said(ok), [Event::Begun(5, begin), Event::Ready]);
}

fn said(text: &str) -> Vec<Event> {
    seen_everyhow(&adapter(Protocol::V1, Sizes::Fixed(30)), &ALL, &frame(Opcode::Text, text.as_bytes()))
}

#[test]
fn messages_as_other_brokers_might_write_them() {
    let stamp = Stamp { stream: 5, seq: 6, sent_ns: 7 };
    let mut payload = Vec::new();
    Payloads::new(Sizes::Fixed(30)).write(stamp, &mut payload);
    let data = String::from_utf8(payload).unwrap();
    let good = [
        format!(r#"{{ "type": "message", "topic": "load/gen/5", "offset": 1, "data": "{data}" }}"#),
        format!(r#"{{"data":"{data}","offset":1,"topic":"load\/gen\/5","type":"message"}}"#),
        format!(r#"{{"type":"message","topic":"load/gen/5","offset":1,"data":"{data}","new":{{"x":[1]}}}}"#),
        format!(r#"{{"type":"message","topic":"load/gen/5","offset":1,"data":"{data}" }}"#),
    ];
    for text in good {
        assert_eq!(said(&text), [Event::Message(stamp, true)], "{text}");
    }
    let bad = [
        format!(r#"{{"type":"message","topic":"load/gen/05","offset":1,"data":"{data}"}}"#),
        format!(r#"{{"type":"message","topic":"load/gen/6","offset":1,"data":"{data}"}}"#),
        format!(r#"{{"type":"message","offset":1,"data":"{data}"}}"#),
        format!(r#"{{"type":"message","topic":"load/gen/5","offset":1,"data":"{data}""#),
        format!(r#"{{"type":"message","topic":"load/gen/5","offset":1,"data":"{data}"}}x"#),
        format!(r#"{{"type":"message","topic":"load/gen/5","offset":1,"data":"{data}","encoding":"base64"}}"#),
    ];
    for text in bad {
        assert_eq!(said(&text), [Event::Message(stamp, false)], "{text}");
    }
    for text in [r#"{"type":"message","topic":"load/gen/5","offset":1,"data":{"x":1}}"#, r#"{"type":"message"}"#] {
        assert_eq!(said(text), [Event::Foreign], "{text}");
    }
}

#[test]
fn answers() {
    let adapter = adapter(Protocol::V1, Sizes::Fixed(30));
    let ok = frame(Opcode::Text, br#"{"type":"ok","id":0,"topics":[{"topic":"a","epoch":"0","offset":1}]}"#);
    let pong = frame(Opcode::Text, br#"{"type":"pong"}"#);
    let later = frame(Opcode::Text, br#"{"type":"weather","wind":[1,2]}"#);
    let stream = [&ok[..], &pong, &ok, &later, &ok].concat();
    assert_eq!(seen_everyhow(&adapter, &ALL, &stream), [Event::Ready, Event::Ready, Event::Ready]);
    let many = Duty { subscribes: Topics { first: 0, step: 1, count: 129 }, publishes: Topics::default() };
    assert_eq!(seen_everyhow(&adapter, &many, &stream), [Event::Ready]);
    assert!(adapter.answers_greeting(&ALL) && !adapter.answers_greeting(&Duty::default()));
    const { assert!(TOPICS <= TOPICS_PER_COMMAND) };
}

#[test]
fn what_breaks_a_stream() {
    let broken = |why: &str| vec![Event::Broken(why.to_owned())];
    assert_eq!(
        said(r#"{"type":"error","id":3,"code":"limit","reason":"Too \"many\"."}"#),
        broken("limit: Too \"many\".")
    );
    assert_eq!(said(r#"{"type":"error"}"#), broken("error: no reason given"));
    for text in ["", "{", "[]", "hello", r#"{"type":1}"#, r#"{"type":"ok"}{"type":"ok"}"#] {
        assert!(matches!(&said(text)[..], [Event::Broken(_)]), "{text}");
    }
    let binary = frame(Opcode::Binary, br#"{"type":"ok"}"#);
    let events = seen_everyhow(&adapter(Protocol::V1, Sizes::Fixed(30)), &ALL, &binary);
    assert!(matches!(&events[..], [Event::Broken(_)]));
}

/// `connect` comes first, and its answer is waited for, also by who only publishes.
#[test]
fn tokens_in_connect() {
    let by = |token_by| adapter(Protocol::V1, Sizes::Fixed(24)).using(Uses { token_by, ..Uses::default() });
    let connect = by(Some(TokenBy::Connect));
    let texts = |out: &[u8]| -> Vec<_> {
        client_frames(out).into_iter().map(|(_, text)| String::from_utf8(text).unwrap()).collect()
    };
    let mut out = Vec::new();
    connect.greet_with(&Duty::default(), &[], Some("a.b.c"), &mut out);
    assert_eq!(texts(&out), [r#"{"type":"connect","id":0,"token":"a.b.c"}"#]);
    let ok = frame(Opcode::Text, br#"{"type":"ok","id":0}"#);
    assert!(connect.answers_greeting(&Duty::default()));
    assert_eq!(seen_everyhow(&connect, &Duty::default(), &ok), [Event::Ready]);

    let duty = Duty { subscribes: Topics { first: 0, step: 1, count: 1 }, publishes: Topics::default() };
    out.clear();
    connect.greet_with(&duty, &[], Some("a.b.c"), &mut out);
    let sent = texts(&out);
    assert!(sent.len() == 2 && sent[0].contains("connect") && sent[1].contains("subscribe"), "{sent:?}");
    assert_eq!(seen_everyhow(&connect, &duty, &ok), []);
    assert_eq!(seen_everyhow(&connect, &duty, &[&ok[..], &ok].concat()), [Event::Ready]);
    let bad = frame(Opcode::Text, br#"{"type":"error","id":0,"code":"bad-token","reason":"no"}"#);
    assert_eq!(seen_everyhow(&connect, &duty, &bad), [Event::Broken("bad-token: no".into())]);

    out.clear();
    let header = by(Some(TokenBy::Header));
    header.greet_with(&duty, &[], Some("a.b.c"), &mut out);
    assert_eq!(texts(&out).len(), 1);
    out.clear();
    by(Some(TokenBy::Subprotocol)).request_with(&duty, &[], Some("a.b.c"), &mut out);
    let request = String::from_utf8(out).unwrap();
    assert!(request.contains("Protocol: ringyard.v1, ringyard.token.a.b.c\r\n"), "{request}");
}
