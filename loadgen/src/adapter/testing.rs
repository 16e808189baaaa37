//! For the tests of this folder: what a stream contained as a list, a server's frames, and streams that are built
//! together with what must be seen in them.

use protocol::frame::{Decoder, FrameLimits, HEADER_MAX, Item, Opcode, Role, server_header};

use super::{Adapter, Begin, Duty, Envelope, Inbound, Names, Position, Protocol, Topics, Visit};
use crate::stamp::{Payloads, Sizes, Stamp};

/// A call of a visitor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Ready,
    Message(Stamp, bool),
    State(Stamp, Envelope),
    Begun(u32, Begin),
    Gap(u32, u64, u64),
    Reset(u32, Position),
    StateEnd(Option<u32>),
    Foreign,
    Ping,
    Reply(Opcode, Vec<u8>),
    Close(u16),
    Broken(String),
}

#[derive(Default, Debug)]
pub(super) struct Seen(pub(super) Vec<Event>);

impl Visit for Seen {
    fn ready(&mut self) {
        self.0.push(Event::Ready);
    }
    fn message(&mut self, stamp: Stamp, intact: bool) {
        self.0.push(Event::Message(stamp, intact));
    }
    fn enveloped(&mut self, stamp: Stamp, intact: bool, envelope: Envelope) {
        self.0.push(if envelope.state { Event::State(stamp, envelope) } else { Event::Message(stamp, intact) });
    }
    fn begun(&mut self, topic: u32, begin: Begin) {
        self.0.push(Event::Begun(topic, begin));
    }
    fn gap(&mut self, topic: u32, from: u64, to: u64) {
        self.0.push(Event::Gap(topic, from, to));
    }
    fn reset(&mut self, topic: u32, position: Position) {
        self.0.push(Event::Reset(topic, position));
    }
    fn state_end(&mut self, topic: Option<u32>) {
        self.0.push(Event::StateEnd(topic));
    }
    fn foreign(&mut self) {
        self.0.push(Event::Foreign);
    }
    fn ping(&mut self) {
        self.0.push(Event::Ping);
    }
    fn reply(&mut self, bytes: &[u8]) {
        let frames = client_frames(bytes);
        self.0.extend(frames.into_iter().map(|(opcode, payload)| Event::Reply(opcode, payload)));
    }
    fn close(&mut self, code: u16) {
        self.0.push(Event::Close(code));
    }
    fn broken(&mut self, why: &str) {
        self.0.push(Event::Broken(why.to_owned()));
    }
}

/// The frames a client sent, as a server takes them: masked, or this panics.
pub(super) fn client_frames(bytes: &[u8]) -> Vec<(Opcode, Vec<u8>)> {
    const LIMITS: FrameLimits = FrameLimits { frame_bytes_max: 1 << 30, message_bytes_max: 1 << 30 };
    let (mut bytes, mut decoder, mut frames) = (bytes.to_vec(), Decoder::new(Role::Server), Vec::new());
    let mut input = &mut bytes[..];
    while let Some(item) = decoder.next(&mut input, &LIMITS).unwrap() {
        frames.push(match item {
            Item::Message { kind: protocol::frame::MessageKind::Text, payload } => (Opcode::Text, payload.to_vec()),
            Item::Message { payload, .. } => (Opcode::Binary, payload.to_vec()),
            Item::Ping(payload) => (Opcode::Ping, payload.as_slice().to_vec()),
            Item::Pong(payload) => (Opcode::Pong, payload.as_slice().to_vec()),
            Item::Close(code, _) => (Opcode::Close, code.map_or(Vec::new(), |code| code.0.to_be_bytes().to_vec())),
            Item::Piece { .. } => panic!("a client's frame that is not whole"),
        });
    }
    assert!(decoder.is_idle(), "a client's last frame is cut");
    frames
}

/// Appends a server's frame.
pub(super) fn put_frame(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload: &[u8]) {
    let mut header = [0; HEADER_MAX];
    let len = server_header(opcode, payload.len() as u64, &mut header);
    header[0] = header[0] & 0x7f | u8::from(fin) << 7;
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(payload);
}

pub(super) fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, true, opcode, payload);
    out
}

pub(super) const TOPICS: u32 = 12;
pub(super) const PREFIX: &str = "load/gen";

/// An adapter to nobody; plain and raw ones have one topic.
pub(super) fn adapter(protocol: Protocol, sizes: Sizes) -> Adapter {
    let count = if matches!(protocol, Protocol::Plain) { 1 } else { TOPICS };
    let names = Names { prefix: PREFIX.to_owned(), count };
    Adapter::new(protocol, "ws://127.0.0.1:9", None, &names, Payloads::new(sizes)).unwrap()
}

/// Receives all topics.
pub(super) const ALL: Duty =
    Duty { subscribes: Topics { first: 0, step: 1, count: TOPICS }, publishes: Topics { first: 0, step: 0, count: 0 } };

/// What is seen in a stream that is read in pieces which end at `cuts`.
pub(super) fn seen(adapter: &Adapter, duty: &Duty, stream: &[u8], cuts: &[usize]) -> Vec<Event> {
    let (mut inbound, mut seen, mut from) = (Inbound::default(), Seen::default(), 0);
    for &cut in cuts.iter().chain([&stream.len()]) {
        adapter.feed(&mut inbound, duty, &stream[from..cut], &mut seen);
        from = cut;
    }
    seen.0
}

/// Reads a stream whole, cut once at every byte, and byte by byte: always the same is seen.
pub(super) fn seen_everyhow(adapter: &Adapter, duty: &Duty, stream: &[u8]) -> Vec<Event> {
    let whole = seen(adapter, duty, stream, &[]);
    let step = (stream.len() / 2000).max(1);
    for cut in (0..stream.len()).step_by(step) {
        assert_eq!(seen(adapter, duty, stream, &[cut]), whole, "cut at {cut} of {}", stream.len());
    }
    let all: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(seen(adapter, duty, stream, &all), whole, "byte by byte");
    whole
}

/// What a server does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// A message as it should be.
    Message(Stamp),
    /// One with a byte of its payload damaged; beyond its end: with a byte too many.
    Damaged(Stamp, usize),
    /// One whose last byte is missing.
    Short(Stamp),
    /// One under the name of the next topic.
    Misnamed(Stamp),
    /// A message of another program.
    Foreign(Vec<u8>),
    /// A control frame in the midst of whatever is being sent.
    Ping(Vec<u8>),
    /// Likewise; nothing comes of it.
    Pong,
}

/// How a protocol's server puts a payload; the topic is by number.
pub(super) type Enveloped = fn(u32, &[u8]) -> Vec<u8>;

/// A stream and what must be seen in it.
pub(super) struct Script {
    pub(super) stream: Vec<u8>,
    pub(super) events: Vec<Event>,
    /// What is framed next.
    pending: Vec<u8>,
    /// What is seen once that many bytes of `pending` were.
    due: Vec<(usize, Event)>,
    /// A message has begun.
    open: bool,
    /// Frames are not messages.
    streaming: bool,
}

impl Script {
    /// `borders` says where frames end, each as a number that is taken modulo what there is.
    pub(super) fn new(
        acts: &[Act],
        borders: &[usize],
        (kind, streaming, enveloped): (Opcode, bool, Enveloped),
        payloads: &Payloads,
    ) -> Self {
        let mut script = Self { stream: vec![], events: vec![], pending: vec![], due: vec![], open: false, streaming };
        let mut borders = borders.iter().copied().cycle();
        for act in acts {
            let border = borders.next().unwrap_or(0);
            match act {
                Act::Ping(payload) => {
                    script.flush(kind, border % (script.pending.len() + 1), false);
                    put_frame(&mut script.stream, true, Opcode::Ping, payload);
                    script.events.extend([Event::Ping, Event::Reply(Opcode::Pong, payload.clone())]);
                }
                Act::Pong => {
                    script.flush(kind, border % (script.pending.len() + 1), false);
                    put_frame(&mut script.stream, true, Opcode::Pong, b"?");
                }
                _ => {
                    if !streaming {
                        script.flush(kind, usize::MAX, true);
                    }
                    let (unit, event) = envelope(act, enveloped, payloads);
                    script.pending.extend(unit);
                    script.due.push((script.pending.len(), event));
                    if streaming {
                        script.flush(kind, border % (script.pending.len() + 1), border % 2 == 0);
                    } else if border % 3 > 0 {
                        script.flush(kind, border % (script.pending.len() + 1), false);
                    }
                }
            }
        }
        script.flush(kind, usize::MAX, true);
        script
    }

    /// Frames the first `len` bytes of what is pending; `last` ends the message.
    fn flush(&mut self, kind: Opcode, len: usize, last: bool) {
        if self.pending.is_empty() && !(last && (self.open || !self.due.is_empty())) {
            return;
        }
        let rest = self.pending.split_off(len.min(self.pending.len()));
        let len = self.pending.len();
        let opcode = if self.open { Opcode::Continuation } else { kind };
        put_frame(&mut self.stream, last, opcode, &self.pending);
        self.open = !last;
        self.pending = rest;
        for (at, event) in std::mem::take(&mut self.due) {
            if at <= len && (last || self.streaming) {
                self.events.push(event);
            } else {
                self.due.push((at.saturating_sub(len), event));
            }
        }
    }
}

fn envelope(act: &Act, enveloped: Enveloped, payloads: &Payloads) -> (Vec<u8>, Event) {
    let written = |stamp: Stamp| {
        let mut payload = Vec::new();
        payloads.write(stamp, &mut payload);
        payload
    };
    match act {
        Act::Message(stamp) => (enveloped(stamp.stream % TOPICS, &written(*stamp)), Event::Message(*stamp, true)),
        Act::Misnamed(stamp) => {
            (enveloped((stamp.stream + 1) % TOPICS, &written(*stamp)), Event::Message(*stamp, false))
        }
        Act::Damaged(stamp, at) => {
            let mut payload = written(*stamp);
            match payload.get_mut(*at) {
                Some(byte) => *byte ^= 1,
                None => payload.push(b'x'),
            }
            let event = if *at < crate::stamp::STAMP_LEN { Event::Foreign } else { Event::Message(*stamp, false) };
            (enveloped(stamp.stream % TOPICS, &payload), event)
        }
        Act::Short(stamp) => {
            let mut payload = written(*stamp);
            payload.pop();
            let cut_stamp = payload.len() < crate::stamp::STAMP_LEN;
            let event = if cut_stamp { Event::Foreign } else { Event::Message(*stamp, false) };
            (enveloped(stamp.stream % TOPICS, &payload), event)
        }
        Act::Foreign(payload) => (enveloped(0, payload), Event::Foreign),
        Act::Ping(_) | Act::Pong => unreachable!("framed apart"),
    }
}
