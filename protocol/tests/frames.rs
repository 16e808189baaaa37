//! The frame decoder against what was encoded, against itself under every split, and against a naive
//! decoder on damaged input (RFC 6455 §5, §7.4, §8.1).

use proptest::collection::vec;
use proptest::prelude::*;
use protocol::frame::{
    ControlPayload, Decoder, FrameLimits, Item, MessageKind, Opcode, Role, put_client_fragment, put_client_frame,
    put_close, put_frame,
};

mod naive;
use naive::{Outcome, Seen};

const LIMITS: FrameLimits = FrameLimits { frame_bytes_max: 600, message_bytes_max: 1000 };

/// Feeds `bytes` in pieces that end at `cuts` and at the end, and joins the pieces of messages.
fn decode(role: Role, bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut decoder = Decoder::new(role);
    let mut outcome = Outcome::default();
    let mut from = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let mut read = bytes[from..cut].to_vec();
        from = cut;
        let mut input = read.as_mut_slice();
        loop {
            match decoder.next(&mut input, &LIMITS) {
                Ok(Some(item)) => outcome.add(item),
                Ok(None) => break,
                Err(violation) => {
                    outcome.violation = Some(violation.code.0);
                    // How much of the message was handed out before depends on the split.
                    outcome.partial = None;
                    return outcome;
                }
            }
        }
        assert!(input.is_empty(), "input left behind");
    }
    outcome.idle = decoder.is_idle();
    outcome
}

impl Outcome {
    fn add(&mut self, item: Item<'_>) {
        let bytes = |control: ControlPayload| control.as_slice().to_vec();
        match item {
            Item::Message { kind, payload } => {
                assert!(self.partial.is_none());
                self.seen.push(Seen::Message(kind, payload.to_vec()));
            }
            Item::Piece { kind, payload, first, last, .. } => {
                assert!(last || !payload.is_empty(), "an empty piece in the middle");
                assert_eq!(first, self.partial.is_none());
                let (whole_kind, whole) = self.partial.get_or_insert((kind, Vec::new()));
                assert_eq!(*whole_kind, kind);
                whole.extend_from_slice(payload);
                if last && let Some((kind, whole)) = self.partial.take() {
                    self.seen.push(Seen::Message(kind, whole));
                }
            }
            Item::Ping(payload) => self.seen.push(Seen::Ping(bytes(payload))),
            Item::Pong(payload) => self.seen.push(Seen::Pong(bytes(payload))),
            Item::Close(code, reason) => {
                self.seen.push(Seen::Close(code.map(|code| code.0), bytes(reason)));
            }
        }
    }
}

/// One frame as a client might send it.
#[derive(Clone, Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    payload: Vec<u8>,
    mask: [u8; 4],
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        put_client_fragment(&mut out, frame.fin, frame.opcode, &frame.payload, frame.mask);
    }
    out
}

fn control() -> impl Strategy<Value = (Opcode, Vec<u8>)> {
    let close = prop_oneof![
        Just(Vec::new()),
        Just(b"\x03\xe8bye".to_vec()),
        "\\PC{0,20}".prop_map(|reason| [b"\x0f\xa0", reason.as_bytes()].concat()),
    ];
    prop_oneof![
        (Just(Opcode::Ping), vec(any::<u8>(), 0..126)),
        (Just(Opcode::Pong), vec(any::<u8>(), 0..126)),
        (Just(Opcode::Close), close),
    ]
}

/// A message in fragments cut anywhere, with control frames between them.
fn message() -> impl Strategy<Value = Vec<Frame>> {
    let text = prop_oneof!["\\PC{0,40}", "[aä€😀]{0,60}"].prop_map(|text| (Opcode::Text, text.into_bytes()));
    let binary = vec(any::<u8>(), 0..300).prop_map(|bytes| (Opcode::Binary, bytes));
    let cuts = vec(any::<proptest::sample::Index>(), 0..4);
    let between = vec(proptest::option::weighted(0.3, control()), 5);
    (prop_oneof![text, binary], cuts, between, any::<[u8; 4]>()).prop_map(|((opcode, payload), cuts, between, mask)| {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        ends.push(payload.len());
        ends.sort_unstable();
        let mut frames = Vec::new();
        let mut from = 0;
        for (i, &end) in ends.iter().enumerate() {
            frames.push(Frame {
                fin: i + 1 == ends.len(),
                opcode: if i == 0 { opcode } else { Opcode::Continuation },
                payload: payload[from..end].to_vec(),
                mask,
            });
            from = end;
            if let Some((opcode, payload)) = between[i].clone() {
                frames.push(Frame { fin: true, opcode, payload, mask: [9, 0, 200, mask[0]] });
            }
        }
        frames
    })
}

fn stream() -> impl Strategy<Value = Vec<Frame>> {
    vec(message(), 0..4).prop_map(|messages| messages.concat())
}

/// What a receiver of these frames, which break no rule, sees.
fn expected(frames: &[Frame]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut whole = (MessageKind::Binary, Vec::new());
    for frame in frames {
        let payload = frame.payload.clone();
        match frame.opcode {
            Opcode::Ping => seen.push(Seen::Ping(payload)),
            Opcode::Pong => seen.push(Seen::Pong(payload)),
            Opcode::Close => {
                let code = payload.first_chunk().map(|&code| u16::from_be_bytes(code));
                seen.push(Seen::Close(code, payload.get(2..).unwrap_or_default().to_vec()));
            }
            Opcode::Text => whole = (MessageKind::Text, payload),
            Opcode::Binary => whole = (MessageKind::Binary, payload),
            Opcode::Continuation => whole.1.extend(payload),
        }
        if frame.fin && !frame.opcode.is_control() {
            seen.push(Seen::Message(whole.0, std::mem::take(&mut whole.1)));
        }
    }
    seen
}

/// A stream with some bytes changed, its end perhaps cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<proptest::sample::Index>(), any::<u8>(), any::<bool>()), 0..4);
    (stream(), changes, proptest::option::of(any::<proptest::sample::Index>())).prop_map(|(frames, changes, end)| {
        let mut bytes = encode(&frames);
        if !bytes.is_empty() {
            for (at, with, flip) in changes {
                let at = at.index(bytes.len());
                let byte = &mut bytes[at];
                *byte = if flip { *byte ^ (1 << (with % 8)) } else { with };
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len()));
            }
        }
        bytes
    })
}

fn every_byte(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_was_sent_is_seen(frames in stream()) {
        let outcome = decode(Role::Server, &encode(&frames), &[]);
        prop_assert_eq!(outcome.violation, None);
        prop_assert_eq!(&outcome.seen, &expected(&frames));
        prop_assert!(outcome.idle);
    }

    #[test]
    fn splits_change_nothing(
        bytes in damaged(),
        cuts in vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let whole = decode(Role::Server, &bytes, &[]);
        prop_assert_eq!(&decode(Role::Server, &bytes, &every_byte(&bytes)), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&decode(Role::Server, &bytes, &cuts), &whole);
    }

    /// The naive decoder judges each prefix afresh: the same verdict, at the same byte.
    #[test]
    fn agrees_with_the_naive_decoder(bytes in damaged()) {
        prop_assert_eq!(decode(Role::Server, &bytes, &[]), naive::decode(&bytes, &LIMITS));
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..200), client: bool) {
        let role = if client { Role::Client } else { Role::Server };
        let whole = decode(role, &bytes, &[]);
        prop_assert_eq!(decode(role, &bytes, &every_byte(&bytes)), whole);
    }

    #[test]
    fn a_client_reads_what_a_server_writes(payloads in vec(vec(any::<u8>(), 0..400), 0..5)) {
        let mut out = bytes::BytesMut::new();
        for payload in &payloads {
            put_frame(&mut out, Opcode::Binary, payload);
        }
        put_close(&mut out, 1001, "gone");
        let outcome = decode(Role::Client, &out, &[]);
        let mut expected: Vec<Seen> =
            payloads.into_iter().map(|payload| Seen::Message(MessageKind::Binary, payload)).collect();
        expected.push(Seen::Close(Some(1001), b"gone".to_vec()));
        prop_assert_eq!(outcome.seen, expected);
        prop_assert_eq!(outcome.violation, None);
    }
}

fn violation(frames: &[(bool, Opcode, &[u8])]) -> Option<u16> {
    let mut bytes = Vec::new();
    for &(fin, opcode, payload) in frames {
        put_client_fragment(&mut bytes, fin, opcode, payload, [1, 2, 3, 4]);
    }
    let whole = decode(Role::Server, &bytes, &[]);
    assert_eq!(decode(Role::Server, &bytes, &every_byte(&bytes)), whole);
    whole.violation
}

/// RFC 6455 §5.5.1, §7.4.
#[test]
fn close_payloads() {
    assert_eq!(violation(&[(true, Opcode::Close, b"")]), None);
    assert_eq!(violation(&[(true, Opcode::Close, b"\x03")]), Some(1002));
    assert_eq!(violation(&[(true, Opcode::Close, b"\x03\xed")]), Some(1002));
    assert_eq!(violation(&[(true, Opcode::Close, b"\x03\xe8\xff")]), Some(1007));
    assert_eq!(violation(&[(true, Opcode::Close, b"\x03\xe8ok")]), None);
}

/// RFC 6455 §8.1: also across fragments, and at the end of the message.
#[test]
fn bad_text() {
    let euro = "€".as_bytes();
    assert_eq!(violation(&[(true, Opcode::Text, b"\xff")]), Some(1007));
    assert_eq!(violation(&[(true, Opcode::Text, &euro[..2])]), Some(1007));
    assert_eq!(violation(&[(false, Opcode::Text, &euro[..1]), (true, Opcode::Continuation, &euro[1..])]), None);
    assert_eq!(violation(&[(false, Opcode::Text, &euro[..1]), (true, Opcode::Continuation, b"")]), Some(1007));
    assert_eq!(violation(&[(false, Opcode::Text, &euro[..1]), (false, Opcode::Continuation, b"a")]), Some(1007));
}

/// RFC 6455 §10.4: refused at the header, before the payload comes.
#[test]
fn too_big() {
    let mut bytes = Vec::new();
    put_client_frame(&mut bytes, Opcode::Binary, &[0; 601], [0; 4]);
    assert_eq!(decode(Role::Server, &bytes[..4], &[]).violation, Some(1009));
    let half = [0; 500];
    assert_eq!(violation(&[(false, Opcode::Binary, &half), (true, Opcode::Continuation, &half)]), None);
    assert_eq!(violation(&[(false, Opcode::Binary, &half), (true, Opcode::Continuation, &[0; 501])]), Some(1009));
}

/// The receiver gets to know how much of the frame is still to come.
#[test]
fn pieces_announce_what_is_left() {
    let mut bytes = Vec::new();
    put_client_frame(&mut bytes, Opcode::Binary, b"abcdefgh", [5, 6, 7, 8]);
    let (front, back) = bytes.split_at_mut(9);
    let mut decoder = Decoder::new(Role::Server);
    assert!(decoder.is_idle());
    let (mut front, mut back) = (front, back);
    let piece = decoder.next(&mut front, &LIMITS).expect("no violation");
    let kind = MessageKind::Binary;
    let payload = &mut b"abc".to_owned()[..];
    assert_eq!(piece, Some(Item::Piece { kind, payload, first: true, last: false, frame_left: 5 }));
    assert!(!decoder.is_idle());
    let piece = decoder.next(&mut back, &LIMITS).expect("no violation");
    let payload = &mut b"defgh".to_owned()[..];
    assert_eq!(piece, Some(Item::Piece { kind, payload, first: false, last: true, frame_left: 0 }));
    assert!(decoder.is_idle());
}
