//! MQTT as clients write it and as brokers may.

use super::*;
use crate::adapter::testing::{ALL, Event, adapter, client_frames, frame, seen_everyhow};
use crate::adapter::{Adapter, Protocol, Topics};
use crate::stamp::Sizes;

fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let frames = client_frames(bytes).into_iter();
    frames
        .map(|(opcode, packet)| {
            assert_eq!(opcode, Opcode::Binary);
            let (header, remaining) = fixed_header(&packet).unwrap().unwrap();
            assert_eq!(packet.len(), header + remaining);
            packet
        })
        .collect()
}

#[test]
fn what_goes_out() {
    let sizes = Sizes::Fixed(200);
    let adapter = adapter(Protocol::Mqtt, sizes.clone());
    let duty = Duty { subscribes: Topics { first: 11, step: 1, count: 2 }, publishes: Topics::default() };
    let (mut out, mut again) = (Vec::new(), Vec::new());
    adapter.greet(&duty, &mut out);
    adapter.greet(&duty, &mut again);
    let greeting = packets(&out);
    assert_eq!(greeting[0][..14], *b"\x10\x21\x00\x04MQTT\x04\x02\x00\x00\x00\x15");
    assert!(greeting[0][14..].iter().all(u8::is_ascii_alphanumeric));
    assert_ne!(greeting[0], packets(&again)[0], "identifiers differ");
    assert_eq!(greeting[1], b"\x82\x1d\x00\x02\x00\x0bload/gen/11\x00\x00\x0aload/gen/0\x00");
    assert_eq!(greeting.len(), 2);

    let (mut out, mut payload) = (Vec::new(), Vec::new());
    let stamp = Stamp { stream: 11, seq: 1, sent_ns: 2 };
    Payloads::new(sizes).write(stamp, &mut payload);
    adapter.publish(11, stamp, &mut out);
    adapter.subscribe(3, &mut out);
    adapter.unsubscribe(3, &mut out);
    adapter.heartbeat(&mut out);
    let expected: [&[u8]; 4] = [
        &[b"\x30\xd5\x01\x00\x0bload/gen/11", &payload[..]].concat(),
        b"\x82\x0f\x00\x04\x00\x0aload/gen/3\x00",
        b"\xa2\x0e\x00\x04\x00\x0aload/gen/3",
        b"\xc0\x00",
    ];
    assert_eq!(packets(&out), expected);
    let mut out = Vec::new();
    adapter.goodbye(&mut out);
    assert_eq!(client_frames(&out), [(Opcode::Binary, vec![0xe0, 0]), (Opcode::Close, vec![3, 0xe8])]);
}

/// Section 2.2.3, the table's borders.
#[test]
fn remaining_lengths() {
    for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, REMAINING_MAX as usize] {
        let (digits, count) = remaining(len);
        let bytes = [&[0x30], &digits[..count]].concat();
        assert_eq!(fixed_header(&bytes), Ok(Some((1 + count, len))));
        assert_eq!(fixed_header(&bytes[..count]), Ok(None), "cut");
    }
    assert!(fixed_header(&[0x30, 0x80, 0x80, 0x80, 0x80]).is_err());
}

fn said(packets: &[u8]) -> Vec<Event> {
    seen_everyhow(&adapter(Protocol::Mqtt, Sizes::Fixed(30)), &ALL, &frame(Opcode::Binary, packets))
}

#[test]
fn what_comes_in() {
    let (connack, suback, unsuback, pingresp) =
        (b"\x20\x02\x00\x00", b"\x90\x05\x00\x02\x00\x00\x00", b"\xb0\x02\x00\x03", b"\xd0\x00");
    let stream = [&connack[..], pingresp, suback, pingresp, unsuback, suback].concat();
    assert_eq!(said(&stream), [Event::Ready, Event::Ready, Event::Ready]);
    let adapter = adapter(Protocol::Mqtt, Sizes::Fixed(30));
    let publishes = Duty::default();
    assert!(adapter.answers_greeting(&publishes));
    assert_eq!(seen_everyhow(&adapter, &publishes, &frame(Opcode::Binary, connack)), [Event::Ready]);

    assert_eq!(said(b"\x30\x08\x00\x01ahello\x30\x02\x00\x00"), [Event::Foreign, Event::Foreign]);
    assert_eq!(said(b"\x20\x02\x00\x05"), [Event::Broken("the server refused to connect: not authorized".to_owned())]);
    let broken: [&[u8]; 12] = [
        b"\x90\x03\x00\x01\x80",
        b"\x90\x02\x00\x01",
        b"\x20\x03\x00\x00\x00",
        b"\x32\x05\x00\x01a\x00\x01",
        b"\x30\x00",
        b"\x30\x01\x00",
        b"\x30\x03\x00\x05a",
        b"\x10\x00",
        b"\x00\x00",
        b"\xf0\x00",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x90\xff\xff\xff\x7f",
    ];
    for packet in broken {
        assert!(matches!(&said(packet)[..], [Event::Broken(_)]), "{packet:x?}");
    }
    let text = seen_everyhow(&adapter, &ALL, &frame(Opcode::Text, connack));
    assert!(matches!(&text[..], [Event::Broken(_)]), "[MQTT-6.0.0-1]");
}

#[test]
fn topics_that_are_refused_before_the_run() {
    for (prefix, good) in [("a", true), ("a/+", false), (&"a".repeat(70_000)[..], false)] {
        let names = Names { prefix: prefix.to_owned(), count: 2 };
        let payloads = Payloads::new(Sizes::Fixed(1000));
        let new = Adapter::new(Protocol::Mqtt, "ws://127.0.0.1:9", None, &names, payloads);
        assert_eq!(new.is_ok(), good);
    }
}
