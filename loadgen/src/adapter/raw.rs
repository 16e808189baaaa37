//! Ringyard's raw endpoints: a WebSocket message is a payload, the path names the topic.
//!
//! `/sub/{topic}` receives, `/pub/{topic}` publishes, `/bus/{topic}` does both (protocol/RINGYARD-V1.md, the paragraph
//! before section 1). Payloads are sent as text. The broker accepts an upgrade when the subscription is in force.
//!
//! [`Bare`] is also for Nchan and plain servers, whose subscribers receive bare payloads.

use anyhow::{Context, Result};
use protocol::frame::Opcode;
use protocol::topic::{TOPIC_LEN_MAX_DEFAULT, check_name};

use super::names::{Called, percent_encoded};
use super::past::{self, Position};
use super::socket::{self, Broken, Content, Kind, State};
use super::unit::{Front, Messages};
use super::url::{TOPIC, Url, Urls};
use super::{Duty, Envelope, Names, Visit};
use crate::stamp::{Payloads, STAMP_LEN, Stamp};

/// What a page offers that sends a token as another subprotocol: browsers close if the server chooses none.
pub(super) const SUBPROTOCOL: &str = "ringyard.raw";

/// Ringyard's raw endpoints.
#[derive(Debug)]
pub(super) struct Raw {
    names: Called,
    pub(super) urls: Urls,
}

impl Raw {
    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        let called = Called::new(names, '/');
        check_name(&called.name(names.count - 1), TOPIC_LEN_MAX_DEFAULT)
            .with_context(|| format!("the topic {:?} cannot be used", names.prefix))?;
        let usual = ["/sub", "/pub", "/bus"].map(|path| format!("{path}/{TOPIC}"));
        Ok(Self { names: called, urls: Urls::new(url, publish, names.count, &usual)? })
    }

    pub(super) fn path(&self, duty: &Duty) -> String {
        let topics = if duty.subscribes.count > 0 { duty.subscribes } else { duty.publishes };
        let topic = topics.first % self.names.count();
        self.urls.of(duty).path.replace(TOPIC, &percent_encoded(&self.names.name(topic)))
    }

    /// The same of a connection that wants to know its position, and goes on after `since` if it has one.
    pub(super) fn path_since(&self, duty: &Duty, since: Option<Position>) -> String {
        let path = self.path(duty);
        let begin = if path.contains('?') { '&' } else { '?' };
        match since {
            Some(Position { epoch, offset }) => format!("{path}{begin}since={epoch:016x}:{offset}"),
            None => format!("{path}{begin}position=1"),
        }
    }

    pub(super) fn content<'a>(&self, duty: &'a Duty, payloads: &'a Payloads) -> Bare<'a> {
        Bare { payloads, duty, topics: self.names.count() }
    }
}

/// Appends a payload as a text message.
pub(super) fn publish(payloads: &Payloads, stamp: Stamp, out: &mut Vec<u8>) {
    let len = payloads.sizes().of(stamp.stream, stamp.seq) as usize;
    socket::put(out, Opcode::Text, len, socket::mask(stamp), |out| payloads.write(stamp, out));
}

/// Bytes of a message that is a payload, as it arrives.
pub(super) fn wire_len(payloads: &Payloads, stamp: Stamp) -> u64 {
    socket::frame_len(u64::from(payloads.sizes().of(stamp.stream, stamp.seq)))
}

/// Messages that are payloads.
pub(super) struct Bare<'a> {
    pub(super) payloads: &'a Payloads,
    pub(super) duty: &'a Duty,
    /// Of the run.
    pub(super) topics: u32,
}

impl Messages for Bare<'_> {
    const KIND: Option<Kind> = None;
    const TAIL_MAX: usize = 0;
    const OTHER_MAX: usize = 0;

    fn payloads(&self) -> &Payloads {
        self.payloads
    }

    #[inline]
    fn front(&self, bytes: &[u8]) -> Front {
        if bytes.len() < STAMP_LEN {
            return Front::Cut;
        }
        match Stamp::read(bytes) {
            Some(stamp) => {
                let intact = self.duty.subscribes.contains(stamp.stream % self.topics, self.topics);
                Front::Stamped { len: STAMP_LEN, stamp, offset: 0, intact }
            }
            None => Front::Other,
        }
    }

    fn tail(&self, bytes: &[u8]) -> Option<Envelope> {
        bytes.is_empty().then(Envelope::default)
    }

    fn other(&self, _: &mut State, _: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        visit.foreign();
        Ok(())
    }
}

/// Messages that are payloads, but for the first, which is the position that they follow.
pub(super) struct Positioned<'a>(pub(super) Bare<'a>);

impl Messages for Positioned<'_> {
    const KIND: Option<Kind> = None;
    const TAIL_MAX: usize = 0;
    const OTHER_MAX: usize = 128 << 10;

    fn payloads(&self) -> &Payloads {
        self.0.payloads
    }

    #[inline]
    fn front(&self, bytes: &[u8]) -> Front {
        self.0.front(bytes)
    }

    fn tail(&self, bytes: &[u8]) -> Option<Envelope> {
        self.0.tail(bytes)
    }

    fn other(&self, state: &mut State, message: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        match past::read_position(message).filter(|_| state.answers == 0) {
            Some(after) => {
                let topic = self.0.duty.subscribes.first % self.0.topics;
                visit.begun(topic, past::Begin::at(after));
                state.answered(1, visit);
            }
            None => visit.foreign(),
        }
        Ok(())
    }
}

/// Ignores all messages: those that a server sends to publishers.
pub(super) struct Ignored;

impl Content for Ignored {
    fn whole(&self, _: &mut State, _: Kind, _: &[u8], _: &mut impl Visit) -> Result<(), Broken> {
        Ok(())
    }

    fn piece(&self, _: &mut State, _: Kind, _: &[u8], _: bool, _: &mut impl Visit) -> Result<(), Broken> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::testing::{Event, adapter, client_frames, frame, seen_everyhow};
    use crate::adapter::{Adapter, Protocol, Topics, Uses};
    use crate::stamp::Sizes;
    use crate::token::TokenBy;

    fn one(first: u32) -> Topics {
        Topics { first, step: 0, count: 1 }
    }

    fn duty(subscribes: bool, publishes: bool) -> Duty {
        let topics = |wanted| if wanted { one(7) } else { Topics::default() };
        Duty { subscribes: topics(subscribes), publishes: topics(publishes) }
    }

    fn paths(url: &str, publish: Option<&str>, prefix: &str, count: u32) -> Result<[String; 3]> {
        let names = Names { prefix: prefix.to_owned(), count };
        let adapter = Adapter::new(Protocol::Raw, url, publish, &names, Payloads::new(Sizes::Fixed(24)))?;
        Ok([(true, false), (false, true), (true, true)].map(|(subscribes, publishes)| {
            let mut request = Vec::new();
            adapter.request(&duty(subscribes, publishes), &mut request);
            let request = String::from_utf8(request).unwrap();
            request.strip_prefix("GET ").unwrap().split_once(" HTTP/1.1\r\n").unwrap().0.to_owned()
        }))
    }

    #[test]
    fn paths_of_all_duties() {
        let bare = paths("ws://127.0.0.1:9", None, "a/räum", 12).unwrap();
        assert_eq!(bare, ["/sub/a/r%C3%A4um/7", "/pub/a/r%C3%A4um/7", "/bus/a/r%C3%A4um/7"]);
        assert_eq!(paths("ws://127.0.0.1:9/", None, "a", 1).unwrap(), ["/sub/a", "/pub/a", "/bus/a"]);
        assert_eq!(paths("ws://127.0.0.1:9/sub/x", None, "a", 1).unwrap(), ["/sub/x", "/pub/x", "/bus/x"]);
        let apart = paths("ws://127.0.0.1:9/sub/x", Some("ws://127.0.0.1:9/y"), "a", 1).unwrap();
        assert_eq!(apart, ["/sub/x", "/y", "/bus/x"]);
        let named = paths("ws://127.0.0.1:9/v/sub/{topic}?k=1", None, "a", 12).unwrap();
        assert_eq!(named, ["/v/sub/a/7?k=1", "/v/pub/a/7?k=1", "/v/bus/a/7?k=1"]);
        assert!(paths("ws://127.0.0.1:9/sub/x", None, "a", 12).unwrap_err().to_string().contains("{topic}"));
        for prefix in ["", "a+", "$sys", "#"] {
            assert!(paths("ws://127.0.0.1:9", None, prefix, 1).is_err(), "{prefix:?}");
        }
    }

    /// A raw connection with a position: its path, and the first message, wherever reads cut it.
    #[test]
    fn positions_in_paths_and_first_messages() {
        let adapter = adapter(Protocol::Raw, Sizes::Fixed(40)).using(Uses { positions: true, ..Uses::default() });
        let position = Position { epoch: 0xa, offset: 12 };
        let path = |since: &[Option<Position>]| {
            let mut request = Vec::new();
            adapter.request_with(&duty(true, false), since, None, &mut request);
            String::from_utf8(request).unwrap().split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!(path(&[]), "/sub/load/gen/7?position=1");
        assert_eq!(path(&[Some(position)]), "/sub/load/gen/7?since=000000000000000a:12");
        assert!(adapter.answers_greeting(&duty(true, false)) && !adapter.answers_greeting(&duty(false, true)));

        let stamp = Stamp { stream: 7, seq: 1, sent_ns: 2 };
        let mut payload = Vec::new();
        Payloads::new(Sizes::Fixed(40)).write(stamp, &mut payload);
        let first = frame(Opcode::Text, br#"{"epoch":"000000000000000a","offset":12}"#);
        let stream = [&first[..], &frame(Opcode::Text, &payload), &first].concat();
        let begin = past::Begin::at(position);
        assert_eq!(
            seen_everyhow(&adapter, &duty(true, false), &stream),
            [Event::Begun(7, begin), Event::Ready, Event::Message(stamp, true), Event::Foreign]
        );
    }

    /// A page cannot set headers: there the token is a subprotocol beside one that the server can choose.
    #[test]
    fn tokens_in_requests() {
        let request = |token_by, token| {
            let uses = Uses { token_by, ..Uses::default() };
            let (adapter, mut out) = (adapter(Protocol::Raw, Sizes::Fixed(24)).using(uses), Vec::new());
            adapter.request_with(&duty(true, false), &[], token, &mut out);
            (adapter, String::from_utf8(out).unwrap())
        };
        let answer = |subprotocol: &str| {
            format!(
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{subprotocol}\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            )
        };
        let (adapter, text) = request(Some(TokenBy::Subprotocol), Some("a.b.c"));
        assert!(text.contains("\r\nSec-WebSocket-Protocol: ringyard.raw, ringyard.token.a.b.c\r\n"), "{text}");
        assert!(adapter.accepted(answer("Sec-WebSocket-Protocol: ringyard.raw\r\n").as_bytes()).unwrap().is_some());
        assert!(adapter.accepted(answer("").as_bytes()).is_err(), "a browser would close");
        let echo = answer("Sec-WebSocket-Protocol: ringyard.token.a.b.c\r\n");
        assert!(adapter.accepted(echo.as_bytes()).is_err(), "a token is not told to logs");
        let (adapter, text) = request(Some(TokenBy::Header), Some("a.b.c"));
        assert!(text.contains("\r\nAuthorization: Bearer a.b.c\r\n") && !text.contains("Protocol"), "{text}");
        assert!(adapter.accepted(answer("").as_bytes()).unwrap().is_some());
        let (_, text) = request(None, Some("a.b.c"));
        assert!(!text.contains("a.b.c"), "{text}");
    }

    #[test]
    fn payloads_go_out_as_text_under_masks_that_differ() {
        let adapter = adapter(Protocol::Raw, Sizes::Mixed(vec![24, 125, 126, 70_000]));
        let payloads = Payloads::new(Sizes::Mixed(vec![24, 125, 126, 70_000]));
        let mut masks = std::collections::BTreeSet::new();
        for seq in 0..40 {
            let stamp = Stamp { stream: 3, seq, sent_ns: 77 };
            let (mut out, mut payload) = (Vec::new(), Vec::new());
            adapter.publish(3, stamp, &mut out);
            payloads.write(stamp, &mut payload);
            assert_eq!(adapter.wire_len(3, stamp), Some(out.len() as u64 - 4), "a server's frame has no mask");
            masks.insert(out[out.len() - payload.len() - 4..][..4].to_vec());
            assert_eq!(client_frames(&out), [(Opcode::Text, payload)]);
        }
        assert_eq!(masks.len(), 40);
    }

    /// A connection has the topic that its path names, and no other.
    #[test]
    fn other_topics_are_noticed() {
        let adapter = adapter(Protocol::Raw, Sizes::Fixed(40));
        for stream in [7, 19, 8] {
            let stamp = Stamp { stream, seq: 1, sent_ns: 2 };
            let mut payload = Vec::new();
            Payloads::new(Sizes::Fixed(40)).write(stamp, &mut payload);
            let events = seen_everyhow(&adapter, &duty(true, false), &frame(Opcode::Binary, &payload));
            assert_eq!(events, [Event::Message(stamp, stream != 8)]);
        }
    }

    #[test]
    fn nothing_is_said_but_payloads() {
        let adapter = adapter(Protocol::Raw, Sizes::Fixed(40));
        let mut out = Vec::new();
        adapter.greet(&duty(true, true), &mut out);
        adapter.subscribe(1, &mut out);
        adapter.unsubscribe(1, &mut out);
        assert!(out.is_empty() && !adapter.answers_greeting(&duty(true, true)));
        adapter.heartbeat(&mut out);
        adapter.goodbye(&mut out);
        assert_eq!(client_frames(&out), [(Opcode::Pong, vec![]), (Opcode::Close, vec![3, 0xe8])]);
    }
}
