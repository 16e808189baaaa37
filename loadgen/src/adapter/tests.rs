//! Streams of all protocols, built together with what must be seen in them and then cut anywhere: into frames, into
//! fragments with control frames between, into reads. And bytes that no server should send.

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::frame::Opcode;
use protocol::v1::MessageParts;

use super::testing::{ALL, Act, Enveloped, Event, Script, TOPICS, adapter, frame, put_frame, seen, seen_everyhow};
use super::{Protocol, Visit};
use crate::stamp::{Payloads, Sizes, Stamp};

const PROTOCOLS: [Protocol; 5] = [Protocol::Raw, Protocol::V1, Protocol::Nats, Protocol::Mqtt, Protocol::Nchan];

fn sizes() -> Sizes {
    Sizes::Mixed(vec![24, 25, 40, 128, 300, 5_000])
}

/// How each protocol's server puts a payload.
fn server(protocol: Protocol) -> (Opcode, bool, Enveloped) {
    match protocol {
        Protocol::Raw | Protocol::Nchan | Protocol::Plain | Protocol::Sse => {
            (Opcode::Text, false, |_, payload| payload.to_vec())
        }
        Protocol::V1 => (Opcode::Text, false, |topic, payload| {
            let mut out = Vec::new();
            let kind = protocol::v1::PayloadKind::Text;
            let name = format!("load/gen/{topic}");
            let offset = 1 + payload.len() as u64;
            protocol::v1::write_message(&mut out, &MessageParts::plain(&name, offset, kind, payload));
            out
        }),
        Protocol::Nats => (Opcode::Binary, true, |topic, payload| {
            let reply = if topic % 3 == 0 { "inbox.7 " } else { "" };
            let line = format!("MSG load.gen.{topic} {} {reply}{}\r\n", topic + 1, payload.len());
            [line.as_bytes(), payload, b"\r\n"].concat()
        }),
        Protocol::Mqtt => (Opcode::Binary, true, |topic, payload| {
            let name = format!("load/gen/{topic}");
            let mut packet = vec![0x30];
            let mut left = 2 + name.len() + payload.len();
            while left > 127 {
                packet.push(left as u8 | 0x80);
                left >>= 7;
            }
            packet.push(left as u8);
            packet.extend((name.len() as u16).to_be_bytes());
            [&packet, name.as_bytes(), payload].concat()
        }),
    }
}

/// Names are what tells topics apart.
fn names_topics(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::Raw | Protocol::Nchan | Protocol::Plain | Protocol::Sse)
}

fn act() -> impl Strategy<Value = Act> {
    let stamp = || {
        (0..3 * TOPICS, 0..1_u64 << 48, any::<u32>()).prop_map(|(stream, seq, sent)| Stamp {
            stream,
            seq,
            sent_ns: u64::from(sent) << 20,
        })
    };
    prop_oneof![
        6 => stamp().prop_map(Act::Message),
        1 => (stamp(), 0..6_000_usize).prop_map(|(stamp, at)| Act::Damaged(stamp, at)),
        1 => stamp().prop_map(Act::Short),
        1 => stamp().prop_map(Act::Misnamed),
        1 => vec(b' '..b'!', 0..200).prop_map(Act::Foreign),
        1 => vec(any::<u8>(), 0..126).prop_map(Act::Ping),
        1 => Just(Act::Pong),
    ]
}

fn sorted(mut cuts: Vec<usize>, len: usize) -> Vec<usize> {
    cuts.iter_mut().for_each(|cut| *cut %= len + 1);
    cuts.sort_unstable();
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_a_server_says_is_seen_however_it_is_cut(
        which in 0..PROTOCOLS.len(),
        acts in vec(act(), 0..14),
        borders in vec(any::<usize>(), 1..14),
        reads in vec(any::<usize>(), 0..30),
    ) {
        let protocol = PROTOCOLS[which];
        let acts: Vec<_> =
            acts.into_iter().filter(|act| names_topics(protocol) || !matches!(act, Act::Misnamed(_))).collect();
        let script = Script::new(&acts, &borders, server(protocol), &Payloads::new(sizes()));
        let adapter = adapter(protocol, sizes());
        let reads = sorted(reads, script.stream.len());
        prop_assert_eq!(&seen(&adapter, &ALL, &script.stream, &[]), &script.events, "whole, {:?}", protocol);
        prop_assert_eq!(&seen(&adapter, &ALL, &script.stream, &reads), &script.events, "cut, {:?}", protocol);
    }

    /// Whatever is damaged: no panic, and the same is seen wherever reads end.
    #[test]
    fn damaged_streams_read_the_same_however_they_are_cut(
        which in 0..PROTOCOLS.len(),
        acts in vec(act(), 1..8),
        borders in vec(any::<usize>(), 1..8),
        damage in vec((any::<usize>(), any::<u8>()), 1..4),
        reads in vec(any::<usize>(), 0..30),
    ) {
        let protocol = PROTOCOLS[which];
        let script = Script::new(&acts, &borders, server(protocol), &Payloads::new(sizes()));
        let mut stream = script.stream;
        for (at, byte) in damage {
            let len = stream.len().max(1);
            // Near the front, where headers are.
            if let Some(damaged) = stream.get_mut(at % len.min(200)) {
                *damaged = byte;
            }
        }
        let adapter = adapter(protocol, sizes());
        let reads = sorted(reads, stream.len());
        prop_assert_eq!(seen(&adapter, &ALL, &stream, &[]), seen(&adapter, &ALL, &stream, &reads), "{:?}", protocol);
    }

    #[test]
    fn noise_reads_the_same_however_it_is_cut(
        which in 0..PROTOCOLS.len(), noise in vec(any::<u8>(), 0..600), reads in vec(any::<usize>(), 0..30),
    ) {
        let adapter = adapter(PROTOCOLS[which], sizes());
        let (kind, ..) = server(PROTOCOLS[which]);
        for stream in [noise.clone(), frame(kind, &noise)] {
            let reads = sorted(reads.clone(), stream.len());
            prop_assert_eq!(seen(&adapter, &ALL, &stream, &[]), seen(&adapter, &ALL, &stream, &reads));
        }
    }
}

/// Some messages of every protocol, with everything a server may do between them, cut at every byte.
#[test]
fn cut_at_every_byte() {
    let payloads = Payloads::new(sizes());
    let stamp = |seq: u64| Stamp { stream: (seq % 5) as u32, seq, sent_ns: seq << 30 };
    let mut acts = vec![Act::Ping(b"are you there?".to_vec()), Act::Foreign(b"hello".to_vec()), Act::Pong];
    acts.extend((0..12).map(|seq| Act::Message(stamp(seq))));
    acts.extend([Act::Damaged(stamp(13), 30), Act::Ping(vec![b'x'; 125]), Act::Short(stamp(14))]);
    for protocol in PROTOCOLS {
        for borders in [vec![0], vec![1, 7, 40, 100, 333], vec![5, 2, 11, 6_001]] {
            let mut script = Script::new(&acts, &borders, server(protocol), &payloads);
            put_frame(&mut script.stream, true, Opcode::Close, &1001_u16.to_be_bytes());
            script.stream.extend(b"nothing behind a close is looked at");
            script.events.extend([Event::Reply(Opcode::Close, 1001_u16.to_be_bytes().to_vec()), Event::Close(1001)]);
            let events = seen_everyhow(&adapter(protocol, sizes()), &ALL, &script.stream);
            assert_eq!(events, script.events, "{protocol:?} {borders:?}");
        }
    }
}

/// A payload of megabytes is checked without being kept: nothing on the heap grows with it.
#[test]
fn long_payloads_are_not_kept() {
    let sizes = Sizes::Fixed(3 << 20);
    let stamp = Stamp { stream: 4, seq: 9, sent_ns: 1 };
    for protocol in PROTOCOLS {
        let adapter = adapter(protocol, sizes.clone());
        let script = Script::new(&[Act::Message(stamp)], &[0], server(protocol), &Payloads::new(sizes.clone()));
        let cuts: Vec<usize> = (0..script.stream.len()).step_by(4099).collect();
        assert_eq!(seen(&adapter, &ALL, &script.stream, &cuts), [Event::Message(stamp, true)], "{protocol:?}");

        let mut stream = script.stream;
        let late = stream.len() - 100;
        stream[late] ^= 1;
        assert_eq!(seen(&adapter, &ALL, &stream, &cuts), [Event::Message(stamp, false)], "{protocol:?}");
    }
}

/// RFC 6455, section 5: frames that no server may send.
#[test]
fn broken_frames() {
    let cases: [(&str, &[u8]); 15] = [
        ("masked", &[0x81, 0x80, 0, 0, 0, 0]),
        ("RSV1", &[0xc1, 0]),
        ("RSV2", &[0xa2, 0]),
        ("RSV3", &[0x99, 0]),
        ("opcode 3", &[0x83, 0]),
        ("opcode 11", &[0x8b, 0]),
        ("a fragmented ping", &[0x09, 0]),
        ("a long ping", &[0x89, 126, 0, 126]),
        ("a continuation of nothing", &[0x80, 0]),
        ("a message within a message", &[0x01, 0, 0x81, 0]),
        ("half a code", &[0x88, 1, 3]),
        ("125 in 16 bits", &[0x82, 126, 0, 125]),
        ("65535 in 64 bits", &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        ("the highest bit of a length", &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("all bits of a length", &[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]),
    ];
    for protocol in PROTOCOLS {
        let adapter = adapter(protocol, sizes());
        for (name, bytes) in cases {
            let stream = [bytes, b"\x89\x00"].concat();
            let events = seen_everyhow(&adapter, &ALL, &stream);
            assert!(matches!(events.last(), Some(Event::Broken(_))), "{protocol:?} {name}: {events:?}");
            assert!(!events.contains(&Event::Ping), "nothing behind it is looked at");
        }
    }
}

/// A length beyond all measure costs nothing until its bytes come, and is no message when they end.
#[test]
fn absurd_lengths() {
    for protocol in PROTOCOLS {
        let adapter = adapter(protocol, sizes());
        let (kind, ..) = server(protocol);
        let mut stream = vec![0x80 | kind as u8, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255];
        stream.extend(b" ".repeat(300_000));
        let events = seen(&adapter, &ALL, &stream, &[5, 11, 12, 100_000]);
        assert!(!events.iter().any(|event| matches!(event, Event::Message(..))), "{protocol:?}: {events:?}");
    }
}

/// A close frame without a code counts as 1005 (RFC 6455, section 7.1.5).
#[test]
fn closes() {
    let adapter = adapter(Protocol::Raw, sizes());
    assert_eq!(
        seen_everyhow(&adapter, &ALL, &frame(Opcode::Close, b"")),
        [Event::Reply(Opcode::Close, vec![]), Event::Close(1005)]
    );
    assert_eq!(
        seen_everyhow(&adapter, &ALL, &frame(Opcode::Close, b"\x03\xf5too slow")),
        [Event::Reply(Opcode::Close, vec![3, 0xf5]), Event::Close(1013)]
    );
    // Section 7.4.1 forbids the code, and so the answer is another.
    assert_eq!(
        seen_everyhow(&adapter, &ALL, &frame(Opcode::Close, &410_u16.to_be_bytes())),
        [Event::Reply(Opcode::Close, vec![3, 0xea]), Event::Close(410)]
    );
}

/// Counts, as an engine does.
#[derive(Default)]
struct Count {
    intact: u64,
    other: u64,
}

impl Visit for Count {
    fn ready(&mut self) {
        self.other += 1;
    }
    fn message(&mut self, _: Stamp, intact: bool) {
        self.intact += u64::from(intact);
        self.other += u64::from(!intact);
    }
    fn foreign(&mut self) {
        self.other += 1;
    }
    fn ping(&mut self) {
        self.other += 1;
    }
    fn reply(&mut self, _: &[u8]) {}
    fn close(&mut self, _: u16) {
        self.other += 1;
    }
    fn broken(&mut self, why: &str) {
        panic!("{why}");
    }
}

/// `cargo test --release -p ringyard-loadgen -- --ignored speed --nocapture`: messages a second that one core walks.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for protocol in PROTOCOLS {
        let sizes = Sizes::Fixed(128);
        let (payloads, adapter) = (Payloads::new(sizes.clone()), adapter(protocol, sizes));
        let (kind, _, enveloped) = server(protocol);
        let mut stream = Vec::new();
        const MESSAGES: u64 = 400;
        for seq in 0..MESSAGES {
            let mut payload = Vec::new();
            payloads.write(Stamp { stream: 7, seq, sent_ns: 1 << 60 | seq }, &mut payload);
            put_frame(&mut stream, true, kind, &enveloped(7, &payload));
        }
        for read in [stream.len(), 16 << 10, 1460] {
            let mut best = f64::MAX;
            for _ in 0..20 {
                let (mut inbound, mut count) = (super::Inbound::default(), Count::default());
                let begun = std::time::Instant::now();
                for _ in 0..100 {
                    stream.chunks(read).for_each(|bytes| adapter.feed(&mut inbound, &ALL, bytes, &mut count));
                }
                best = best.min(begun.elapsed().as_nanos() as f64 / (100 * MESSAGES) as f64);
                assert_eq!((count.intact, count.other), (100 * MESSAGES, 0));
            }
            println!("{protocol:?}, reads of {read}: {best:.1} ns, {:.1} million a second", 1e3 / best);
        }
    }
}
