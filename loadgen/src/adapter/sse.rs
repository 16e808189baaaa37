//! Ringyard's streams of server-sent events: `GET /sub/{topic}` with `Accept: text/event-stream` (broker/HTTP.md). Subscribers are
//! streams, publishers are WebSockets at `/pub/{topic}`. The answer's head comes once the subscription is in force.
//!
//! A stream is chunks (RFC 9112, section 7.1) of whole events (HTML standard, 9.2.6), wherever reads cut it. What is cut is kept until its
//! chunk is whole; a message that lies whole in one buffer is neither copied nor allocated.

use anyhow::Result;

use super::raw::{Bare, Raw};
use super::socket::{Broken, Content, Kind, State};
use super::url::Url;
use super::{Duty, Inbound, Names, Visit};

/// The most digits of a chunk's size.
const DIGITS_MAX: usize = 8;

/// The longest chunk, in bytes.
const CHUNK_MAX: usize = 64 << 20;

/// What a stream that ends well is counted as.
const GOING_AWAY: u16 = 1001;

/// Streams of events, and the WebSockets of their publishers.
#[derive(Debug)]
pub(super) struct Sse(pub(super) Raw);

impl Sse {
    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        Raw::new(url, publish, names).map(Self)
    }

    /// Appends the request of a subscriber.
    pub(super) fn put_request(&self, duty: &Duty, bearer: Option<&str>, out: &mut Vec<u8>) {
        let (path, host) = (self.0.path(duty), &self.0.urls.of(duty).host);
        for part in ["GET ", &path, " HTTP/1.1\r\nHost: ", host, "\r\nAccept: text/event-stream\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        if let Some(token) = bearer {
            out.extend_from_slice(format!("Authorization: Bearer {token}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Walks the next bytes of a stream.
pub(super) fn walk(inbound: &mut Inbound, content: &Bare<'_>, bytes: &[u8], visit: &mut impl Visit) {
    if inbound.frames.is_over() {
        return;
    }
    match chunks(&mut inbound.state, content, bytes, visit) {
        Ok(true) => {}
        Ok(false) => inbound.frames.end(),
        Err(why) => {
            inbound.frames.end();
            inbound.state.cut = None;
            visit.broken(&why);
        }
    }
}

/// Takes chunks from the front of what was cut and `bytes`. Returns whether the stream goes on.
fn chunks(state: &mut State, content: &Bare<'_>, mut bytes: &[u8], visit: &mut impl Visit) -> Result<bool, Broken> {
    while let Some(cut) = &mut state.cut {
        match chunk_len(&cut.frame)? {
            Some(len) if len <= cut.frame.len() => {
                let chunk = std::mem::take(&mut cut.frame);
                state.cut = None;
                if !whole_chunk(state, content, &chunk, visit)? {
                    return Ok(false);
                }
            }
            known => {
                let missing = known.map_or(1, |len| len - cut.frame.len());
                let Some((part, rest)) = bytes.split_at_checked(missing.min(bytes.len())).filter(|_| !bytes.is_empty())
                else {
                    return Ok(true);
                };
                cut.frame.extend_from_slice(part);
                bytes = rest;
            }
        }
    }
    while !bytes.is_empty() {
        let Some((chunk, rest)) = chunk_len(bytes)?.and_then(|len| bytes.split_at_checked(len)) else {
            state.cut.get_or_insert_default().frame.extend_from_slice(bytes);
            return Ok(true);
        };
        bytes = rest;
        if !whole_chunk(state, content, chunk, visit)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The length of the chunk at the front, its size and the line end behind it included. `None`: its size is cut.
fn chunk_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let window = &bytes[..bytes.len().min(DIGITS_MAX + 2)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < DIGITS_MAX + 2 { Ok(None) } else { Err("no size of a chunk".into()) };
    };
    let digits = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let size = usize::from_str_radix(digits, 16).ok().filter(|size| *size <= CHUNK_MAX);
    size.map(|size| Some(end + 2 + size + 2)).ok_or_else(|| "a chunk's size that is none".into())
}

/// What a chunk says. Returns whether it is not the last one.
fn whole_chunk(state: &mut State, content: &Bare<'_>, chunk: &[u8], visit: &mut impl Visit) -> Result<bool, Broken> {
    let begin = chunk.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let Some(mut text) = chunk[begin..].strip_suffix(b"\r\n") else {
        return Err("a chunk longer than its size".into());
    };
    if text.is_empty() {
        visit.close(GOING_AWAY);
        return Ok(false);
    }
    while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
        event(state, content, &text[..=end], visit)?;
        text = &text[end + 2..];
    }
    if text.is_empty() { Ok(true) } else { Err("a chunk that ends within an event".into()) }
}

/// One event, whose lines all end in LF.
fn event(state: &mut State, content: &Bare<'_>, text: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
    let (mut name, mut data, mut joined): (&[u8], Option<&[u8]>, Vec<u8>) = (b"message", None, Vec::new());
    for line in text.split(|&byte| byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"data: ") {
            if let Some(before) = data {
                if joined.is_empty() {
                    joined.extend_from_slice(before);
                }
                joined.push(b'\n');
                joined.extend_from_slice(value);
            }
            data = Some(value);
        } else if let Some(value) = line.strip_prefix(b"event: ") {
            name = value;
        } else if line == b":" {
            visit.ping();
        }
    }
    let Some(data) = data else { return Ok(()) };
    match name {
        b"message" if joined.is_empty() => content.whole(state, Kind::Text, data, visit),
        b"message" => content.whole(state, Kind::Text, &joined, visit),
        // The head has said that the subscription is in force.
        b"position" | b"state-end" => Ok(()),
        b"expired" => Err("the token has ended".into()),
        _ => {
            visit.foreign();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::testing::{Event, adapter, seen_everyhow};
    use crate::adapter::{Protocol, Topics, Uses};
    use crate::stamp::{Payloads, Sizes, Stamp};
    use crate::token::TokenBy;

    fn duty(subscribes: bool) -> Duty {
        let one = Topics { first: 7, step: 0, count: 1 };
        let none = Topics::default();
        if subscribes { Duty { subscribes: one, publishes: none } } else { Duty { subscribes: none, publishes: one } }
    }

    fn chunk(text: &str) -> String {
        format!("{:x}\r\n{text}\r\n", text.len())
    }

    fn message(stamp: Stamp) -> String {
        let mut payload = Vec::new();
        Payloads::new(Sizes::Fixed(40)).write(stamp, &mut payload);
        chunk(&format!("id: 000000000000000a:{}\ndata: {}\n\n", stamp.seq, String::from_utf8(payload).unwrap()))
    }

    #[test]
    fn messages_wherever_reads_cut_them() {
        let adapter = adapter(Protocol::Sse, Sizes::Fixed(40));
        let stamps = [1, 2, 3].map(|seq| Stamp { stream: 7, seq, sent_ns: 2 });
        let position = chunk("retry: 2000\n\n") + &chunk("event: position\nid: 000000000000000a:0\ndata: {}\n\n");
        let stream = [
            position,
            message(stamps[0]),
            chunk(":\n\n"),
            message(stamps[1]),
            chunk("data: a\ndata: b\n\nevent: binary\ndata: AA==\n\n"),
            message(stamps[2]),
            "0\r\n\r\n".to_owned(),
        ];
        let [one, two, three] = stamps.map(|stamp| Event::Message(stamp, true));
        let expected = [one, Event::Ping, two, Event::Foreign, Event::Foreign, three, Event::Close(1001)];
        assert_eq!(seen_everyhow(&adapter, &duty(true), stream.concat().as_bytes()), expected);
    }

    #[test]
    fn what_is_no_stream_is_broken() {
        let adapter = adapter(Protocol::Sse, Sizes::Fixed(40));
        for bad in ["xyz\r\n", "123456789\r\n", "5\r\nabcdefgh", "2\r\nab\r\n", "ffffffff\r\n"] {
            let events = seen_everyhow(&adapter, &duty(true), bad.as_bytes());
            assert!(matches!(events[..], [Event::Broken(_)]), "{bad:?}: {events:?}");
        }
    }

    #[test]
    fn requests_and_answers() {
        let uses = Uses { token_by: Some(TokenBy::Header), ..Uses::default() };
        let adapter = adapter(Protocol::Sse, Sizes::Fixed(40)).using(uses);
        let request = |subscribes| {
            let mut request = Vec::new();
            adapter.request_with(&duty(subscribes), &[], Some("a.b.c"), &mut request);
            String::from_utf8(request).unwrap()
        };
        let expected = "GET /sub/load/gen/7 HTTP/1.1\r\nHost: 127.0.0.1:9\r\nAccept: text/event-stream\r\n\
                        Authorization: Bearer a.b.c\r\n\r\n";
        assert_eq!(request(true), expected);
        assert!(request(false).starts_with("GET /pub/load/gen/7 ") && request(false).contains("Upgrade: websocket"));
        let accepted = |head: &str| adapter.accepted_by(&duty(true), head.as_bytes()).map_err(|refused| refused.status);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(accepted(&format!("{head}3\r\n")), Ok(Some(head.len())));
        assert_eq!(accepted(&head[..20]), Ok(None));
        assert_eq!(accepted("HTTP/1.1 403 Forbidden\r\n\r\n"), Err(403));
        let busy = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n";
        let refused = adapter.accepted_by(&duty(true), busy.as_bytes()).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_s), (503, Some(3)), "a stream that ends at once");
    }
}
