//! The protocol crate against what one would use instead, on the same bytes: tungstenite, fastwebsockets, serde_json,
//! or a few lines of one's own. `bench micro` makes a table of the last run.
//!
//! Where several messages are one iteration, figures are per message. All start from bytes as a socket delivers them:
//! ours get them copied into a receive buffer first, for the others' reading copies as well; what is asked for is
//! the whole message, unmasked and validated.

use std::borrow::Cow;
use std::hint::black_box;
use std::io::{Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput};
use fastwebsockets::{FragmentCollector, Frame as FastFrame, Payload};
use protocol::frame::{Decoder, FrameLimits, Item, Opcode, Role, put_client_fragment, put_client_frame, put_frame};
use protocol::head::{Head, HeadLimits, write_switching_protocols};
use protocol::topic;
use protocol::v1::{Command, Parser};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

const OURS: &str = "ringyard";
const TUNGSTENITE: &str = "tungstenite";
const FASTWEBSOCKETS: &str = "fastwebsockets";
const STD: &str = "std";
const SERDE_JSON: &str = "serde_json";
const BY_SIMD_JSON: &str = "ringyard by simd-json";
const NAIVE: &str = "naive";

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMITS: FrameLimits = FrameLimits { frame_bytes_max: 1 << 24, message_bytes_max: 1 << 24 };

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    unmask(&mut criterion);
    utf8(&mut criterion);
    decode(&mut criterion);
    encode(&mut criterion);
    head(&mut criterion);
    command(&mut criterion);
    topics(&mut criterion);
    criterion.final_summary();
}

// ---- what is sent

fn ascii(len: usize) -> String {
    "The quick brown fox jumps over the lazy dog. ".chars().cycle().take(len).collect()
}

/// Text of a chat: umlauts, other scripts, signs.
fn mixed(len: usize) -> String {
    let mut text = String::new();
    for c in "Grüße aus Zürich! Привет, мир. 今日は 🎉 see you at the café tomorrow; ".chars().cycle()
    {
        if text.len() + c.len_utf8() > len {
            break;
        }
        text.push(c);
    }
    text + &" ".repeat(len % 4)
}

/// `count` frames from a client, one message each.
fn wire(opcode: Opcode, payload: &[u8], count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        put_client_frame(&mut out, opcode, payload, MASK);
    }
    out
}

/// A message in `parts` frames.
fn fragmented(opcode: Opcode, payload: &[u8], parts: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let part_len = payload.len().div_ceil(parts);
    for (at, part) in payload.chunks(part_len).enumerate() {
        let opcode = if at == 0 { opcode } else { Opcode::Continuation };
        put_client_fragment(&mut out, at + 1 == parts, opcode, part, MASK);
    }
    out
}

/// A socket on which the same bytes come over and over.
struct Loop {
    wire: Vec<u8>,
    at: usize,
}

impl Loop {
    fn more(&mut self, room: usize) -> &[u8] {
        let from = self.at;
        let to = self.wire.len().min(from + room);
        self.at = if to == self.wire.len() { 0 } else { to };
        &self.wire[from..to]
    }
}

impl Read for Loop {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let taken = self.more(buf.len());
        buf[..taken.len()].copy_from_slice(taken);
        Ok(taken.len())
    }
}

impl Write for Loop {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Loop {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        buf.put_slice(self.more(buf.remaining()));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Loop {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a future on a [`Loop`] comes to: it never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the bytes are there"),
    }
}

// ---- frames

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for len in [16, 128, 1_024, 65_536] {
        let case = format!("{len} bytes");
        let mut payload = vec![7; len];
        group.bench_function(BenchmarkId::new(OURS, &case), |b| {
            b.iter(|| protocol::frame::unmask(black_box(&mut payload), MASK, 0));
        });
        group.bench_function(BenchmarkId::new(FASTWEBSOCKETS, &case), |b| {
            b.iter(|| fastwebsockets::unmask(black_box(&mut payload), MASK));
        });
        group.bench_function(BenchmarkId::new(NAIVE, &case), |b| {
            b.iter(|| {
                black_box(&mut payload).iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            });
        });
    }
}

/// Ours within a frame, for that is where it happens; a client's decoder, which has nothing to unmask.
fn utf8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("text is UTF-8");
    for (name, text) in [
        ("128 bytes, ASCII", ascii(128)),
        ("128 bytes, mixed", mixed(128)),
        ("64 KiB, ASCII", ascii(65_536)),
        ("64 KiB, mixed", mixed(65_536)),
    ] {
        let mut wire = BytesMut::new();
        put_frame(&mut wire, Opcode::Text, text.as_bytes());
        let mut decoder = Decoder::new(Role::Client);
        group.bench_function(BenchmarkId::new(OURS, name), |b| {
            b.iter(|| {
                let item = decoder.next(&mut black_box(&mut wire[..]), &LIMITS).unwrap();
                assert!(matches!(item, Some(Item::Message { .. })));
            });
        });
        let frame = FastFrame::text(Payload::Borrowed(text.as_bytes()));
        group.bench_function(BenchmarkId::new(FASTWEBSOCKETS, name), |b| b.iter(|| black_box(&frame).is_utf8()));
        // As tungstenite does.
        group.bench_function(BenchmarkId::new(STD, name), |b| {
            b.iter(|| std::str::from_utf8(black_box(text.as_bytes())).is_ok());
        });
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode a message");
    let cases = [
        ("16 bytes, binary", wire(Opcode::Binary, &[7; 16], 64), 64),
        ("128 bytes, binary", wire(Opcode::Binary, &[7; 128], 64), 64),
        ("128 bytes, text", wire(Opcode::Text, ascii(128).as_bytes(), 64), 64),
        ("128 bytes, mixed text", wire(Opcode::Text, mixed(128).as_bytes(), 64), 64),
        ("4 KiB, text", wire(Opcode::Text, ascii(4_096).as_bytes(), 8), 8),
        ("64 KiB, binary", wire(Opcode::Binary, &[7; 65_536], 1), 1),
        ("64 KiB, text", wire(Opcode::Text, ascii(65_536).as_bytes(), 1), 1),
        ("64 KiB, mixed text", wire(Opcode::Text, mixed(65_536).as_bytes(), 1), 1),
        ("1 KiB, text in 4 frames", fragmented(Opcode::Text, ascii(1_024).as_bytes(), 4), 1),
        ("64 KiB, mixed text in 16 frames", fragmented(Opcode::Text, mixed(65_536).as_bytes(), 16), 1),
    ];
    for (name, wire, messages) in cases {
        group.throughput(Throughput::Elements(messages));
        group.bench_function(BenchmarkId::new(OURS, name), |b| {
            let mut decoder = Decoder::new(Role::Server);
            let (mut received, mut whole) = (vec![0; wire.len() + PAGE_BYTES], Vec::new());
            let received = at_a_page(&mut received, wire.len());
            b.iter(|| {
                received.copy_from_slice(black_box(&wire));
                assert_eq!(read_ours(&mut decoder, received, &mut whole), messages);
            });
        });
        group.bench_function(BenchmarkId::new(TUNGSTENITE, name), |b| {
            let socket = Loop { wire: wire.clone(), at: 0 };
            let role = tungstenite::protocol::Role::Server;
            let mut socket = tungstenite::WebSocket::from_raw_socket(socket, role, None);
            b.iter(|| {
                for _ in 0..messages {
                    black_box(socket.read().unwrap());
                }
            });
        });
        group.bench_function(BenchmarkId::new(FASTWEBSOCKETS, name), |b| {
            let socket = Loop { wire: wire.clone(), at: 0 };
            let socket = fastwebsockets::WebSocket::after_handshake(socket, fastwebsockets::Role::Server);
            let mut socket = FragmentCollector::new(socket);
            b.iter(|| {
                for _ in 0..messages {
                    black_box(at_once(socket.read_frame()).unwrap());
                }
            });
        });
    }
}

/// Where the driver's buffers begin.
const PAGE_BYTES: usize = 4096;

fn at_a_page(bytes: &mut [u8], len: usize) -> &mut [u8] {
    let from = bytes.as_ptr().align_offset(PAGE_BYTES);
    &mut bytes[from..from + len]
}

/// All messages in `received`; those in pieces are gathered in `whole`.
fn read_ours(decoder: &mut Decoder, received: &mut [u8], whole: &mut Vec<u8>) -> u64 {
    let mut input = received;
    let mut messages = 0;
    while let Some(item) = decoder.next(&mut input, &LIMITS).unwrap() {
        match item {
            Item::Message { payload, .. } => {
                black_box(payload);
                messages += 1;
            }
            Item::Piece { payload, last, .. } => {
                whole.extend_from_slice(payload);
                if last {
                    black_box(&mut *whole).clear();
                    messages += 1;
                }
            }
            _ => unreachable!("nothing else was sent"),
        }
    }
    messages
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode a server's frame");
    for len in [16, 128, 1_024, 65_536] {
        let case = format!("{len} bytes");
        let payload = Bytes::from(vec![7; len]);
        group.bench_function(BenchmarkId::new(OURS, &case), |b| {
            let mut out = BytesMut::new();
            b.iter(|| {
                out.clear();
                put_frame(&mut out, Opcode::Binary, black_box(&payload));
            });
        });
        group.bench_function(BenchmarkId::new(TUNGSTENITE, &case), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                let payload = black_box(&payload).clone();
                Frame::message(payload, OpCode::Data(Data::Binary), true).format(&mut out).unwrap();
            });
        });
        group.bench_function(BenchmarkId::new(FASTWEBSOCKETS, &case), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                black_box(FastFrame::binary(Payload::Borrowed(black_box(&payload))).write(&mut out));
            });
        });
    }
}

// ---- heads

const BARE_HEAD: &str = "GET /sub/chat/42 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const BROWSERS_HEAD: &str = "GET /sub/chat/42 HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
    Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: https://example.com\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: de-CH,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n\
    Cookie: session=4f9d2c61b8a74e0f9b1c3d5e7f806142; theme=dark\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// From the request's bytes to the answer's.
fn head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answer an upgrade");
    for (name, head) in [("a bare head", BARE_HEAD), ("a browser's head", BROWSERS_HEAD)] {
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new(OURS, name), |b| {
            b.iter(|| {
                out.clear();
                match protocol::head::parse(black_box(head.as_bytes()), &HeadLimits::default()) {
                    Ok(Head::Upgrade(upgrade)) => write_switching_protocols(&mut out, &upgrade.accept, None),
                    other => panic!("{other:?}"),
                }
            });
        });
        group.bench_function(BenchmarkId::new(TUNGSTENITE, name), |b| {
            b.iter(|| {
                out.clear();
                let (_, request) = Request::try_parse(black_box(head.as_bytes())).unwrap().unwrap();
                write_response(&mut out, &create_response(&request).unwrap()).unwrap();
            });
        });
    }
}

// ---- ringyard.v1

/// The same commands, as one would have serde parse them.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
struct Loose<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<serde_json::Value>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    data: Option<serde_json::Value>,
    #[serde(borrow)]
    encoding: Option<Cow<'a, str>>,
    ack: Option<bool>,
}

fn command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse a command");
    let position = r#"{"player":"b3f1","x":12.25,"y":-3.5,"z":0.125,"heading":271,"alive":true,"items":[1,2,3]}"#;
    let many = format!("[{}]", [position; 40].join(","));
    let cases = [
        ("ping", r#"{"type":"ping","id":7}"#.to_owned()),
        ("subscribe", r#"{"type":"subscribe","id":1,"topic":"games/42/+/position"}"#.to_owned()),
        (
            "publish, 100 bytes of text",
            format!(r#"{{"type":"publish","id":2,"topic":"chat/42","data":"{}"}}"#, ascii(100)),
        ),
        (
            "publish, 4 KiB of text",
            format!(r#"{{"type":"publish","id":2,"topic":"chat/42","data":"{}"}}"#, ascii(4_096)),
        ),
        (
            "publish, 100 bytes of text with escapes",
            format!(r#"{{"type":"publish","id":2,"topic":"chat/42","data":"\"Hi\"\n{}"}}"#, ascii(92)),
        ),
        (
            "publish, 3 KiB in base64",
            format!(
                r#"{{"type":"publish","id":2,"topic":"chat/42","encoding":"base64","data":"{}"}}"#,
                STANDARD.encode(ascii(3_072))
            ),
        ),
        ("publish, an object of 90 bytes", format!(r#"{{"type":"publish","topic":"games/42","data":{position}}}"#)),
        ("publish, JSON of 3.6 KB", format!(r#"{{"type":"publish","topic":"games/42","data":{many}}}"#)),
    ];
    for (name, text) in cases {
        // With an escape in its first name a command is not flat, so all of it goes through simd-json.
        let escaped = text.replacen("\"type\"", "\"typ\\u0065\"", 1);
        for (way, text) in [(OURS, &text), (BY_SIMD_JSON, &escaped)] {
            let mut parser = Parser::new();
            let mut received = vec![0; text.len()];
            group.bench_function(BenchmarkId::new(way, name), |b| {
                b.iter(|| {
                    received.copy_from_slice(black_box(text.as_bytes()));
                    match parser.parse(&mut received, 255).unwrap() {
                        Command::Publish { topic, data, .. } => black_box((topic.len(), data.len())),
                        other => black_box((matches!(other, Command::Ping { .. }).into(), 0)),
                    }
                });
            });
        }
        let mut received = vec![0; text.len()];
        let mut payload = Vec::new();
        group.bench_function(BenchmarkId::new(SERDE_JSON, name), |b| {
            b.iter(|| {
                received.copy_from_slice(black_box(text.as_bytes()));
                let command: Loose<'_> = serde_json::from_slice(&received).unwrap();
                // The payload's bytes, as the broker has to hand them on.
                payload.clear();
                match &command.data {
                    Some(serde_json::Value::String(text)) if command.encoding.is_some() => {
                        STANDARD.decode_vec(text, &mut payload).unwrap();
                    }
                    Some(serde_json::Value::String(text)) => payload.extend_from_slice(text.as_bytes()),
                    Some(value) => serde_json::to_writer(&mut payload, value).unwrap(),
                    None => {}
                }
                black_box((
                    command.kind.len(),
                    command.id.is_some(),
                    command.topic.is_some(),
                    command.ack,
                    payload.len(),
                ));
            });
        });
    }
}

// ---- topics

fn topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match a filter and a topic");
    let name = "games/europe/42/players/b3f1/position";
    let cases = [
        ("the same", "games/europe/42/players/b3f1/position"),
        ("other at the end", "games/europe/42/players/b3f1/speed"),
        ("other at the start", "chat/europe/42/players/b3f1/position"),
        ("two +", "games/+/42/players/+/position"),
        ("#", "games/europe/#"),
    ];
    for (case, filter) in cases {
        group.bench_function(BenchmarkId::new(OURS, case), |b| {
            b.iter(|| topic::matches(black_box(filter), black_box(name)));
        });
        assert_eq!(topic::matches(filter, name), naive_matches(filter, name));
        group.bench_function(BenchmarkId::new(NAIVE, case), |b| {
            b.iter(|| naive_matches(black_box(filter), black_box(name)));
        });
    }
}

/// What one writes first.
fn naive_matches(filter: &str, name: &str) -> bool {
    let (filter, name): (Vec<_>, Vec<_>) = (filter.split('/').collect(), name.split('/').collect());
    for (at, pattern) in filter.iter().enumerate() {
        match (*pattern, name.get(at)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (pattern, Some(level)) if pattern == *level => {}
            _ => return false,
        }
    }
    filter.len() == name.len()
}
