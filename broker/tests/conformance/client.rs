//! A WebSocket client that does what it is told, right or wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::tls::Stream;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;
/// Added to an opcode: the last fragment.
pub(crate) const FIN: u8 = 0x80;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// First byte: FIN, reserved bits, opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// A WebSocket to `/bus/{a topic of its own}`.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) fn open(server: SocketAddr) -> Self {
        static TOPICS: AtomicU32 = AtomicU32::new(0);
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = Stream::new(stream, server);
        let topic = TOPICS.fetch_add(1, Ordering::Relaxed);
        write!(
            stream,
            "GET /bus/conformance/{topic} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .unwrap();
        let mut client = Self { stream, read: Vec::new() };
        let end = loop {
            if let Some(at) = client.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(client.fill(), "closed instead of an upgrade");
        };
        let head = String::from_utf8(client.read.drain(..end).collect()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    /// Sends bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        // A server that already failed the connection may have reset it; what it said is still to be read.
        let _ = self.stream.write_all(bytes);
        self
    }

    /// Sends a masked frame. `first` is FIN, reserved bits and opcode.
    pub(crate) fn frame(&mut self, first: u8, payload: &[u8]) -> &mut Self {
        self.bytes(&masked(first, payload))
    }

    /// The next frame; nothing at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = parse(&self.read) {
                self.read.drain(..len);
                return Some(frame);
            }
            if !self.fill() {
                assert!(self.read.is_empty(), "the stream ended within a frame");
                return None;
            }
        }
    }

    /// Expects exactly this frame.
    #[track_caller]
    pub(crate) fn expect(&mut self, first: u8, payload: &[u8]) -> &mut Self {
        let frame = self.next().expect("a frame, not the end");
        assert_eq!(frame.first, first, "{}", shown(&frame));
        assert_eq!(frame.payload.len(), payload.len(), "{}", shown(&frame));
        assert!(frame.payload == payload, "another payload of the same length");
        self
    }

    /// Expects that the server closes with `code`, and then the stream's end, our own close being sent.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) {
        let frame = self.next().expect("a close frame, not the end");
        assert_eq!(frame.first, FIN | CLOSE, "{}", shown(&frame));
        let said = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        assert_eq!(said, Some(code), "{}", shown(&frame));
        assert!(frame.payload.len() <= 125 && std::str::from_utf8(&frame.payload[2..]).is_ok());
        self.frame(FIN | CLOSE, &code.to_be_bytes());
        self.expect_end();
    }

    /// Expects that nothing but the end follows.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let next = self.next();
        assert!(next.is_none(), "after the close: {}", shown(&next.unwrap()));
    }

    /// Proves that the connection still works.
    #[track_caller]
    pub(crate) fn expect_alive(&mut self) {
        self.frame(FIN | TEXT, b"still here").expect(FIN | TEXT, b"still here");
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(len) => {
                self.read.extend_from_slice(&chunk[..len]);
                len > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer within {PATIENCE:?}: {error}"),
        }
    }
}

/// A masked frame (RFC 6455, sections 5.2 and 5.3).
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65536 => {
            frame.push(0xfe);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0xff);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// A whole unmasked frame at the beginning of `bytes`, and its length there.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let second = *bytes.get(1)?;
    assert!(second & 0x80 == 0, "RFC 6455, section 5.1: a server never masks");
    let (header, len) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        len => (2, usize::from(len)),
    };
    assert!(header == 2 || len >= 126, "RFC 6455, section 5.2: the shortest form of a length");
    assert!(header != 10 || len >= 65536, "RFC 6455, section 5.2: the shortest form of a length");
    let payload = bytes.get(header..header + len)?.to_vec();
    Some((Frame { first: bytes[0], payload }, header + len))
}

fn shown(frame: &Frame) -> String {
    let shown = &frame.payload[..frame.payload.len().min(100)];
    format!("first byte {:#04x}, {} bytes: {}", frame.first, frame.payload.len(), shown.escape_ascii())
}
