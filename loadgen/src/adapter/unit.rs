//! Finds the messages in a stream that may be cut anywhere: where each begins, and which of its bytes are filler.
//!
//! Protocols use WebSocket in two ways: each of their messages is a WebSocket message ([`Messages`]: raw, `ringyard.v1`),
//! or the payloads of all frames form one stream of bytes ([`Units`]: NATS, MQTT). In both, a message is a *front* that
//! ends with the stamp, the *filler*, and a *tail*. A front that is cut is kept (a few hundred bytes at most). Filler is
//! never kept: it is compared as it comes with the window that the stamp determines. A message that lies whole in one
//! buffer is neither copied nor allocated.

use super::socket::{Broken, Kind, State, fitting};
use super::{Envelope, Visit};
use crate::stamp::{Payloads, STAMP_LEN, Stamp};

/// The longest front, command or line that is gathered, in bytes.
const FRONT_MAX: usize = 256 << 10;

/// The state of a stream that was cut within a frame or a message.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The beginning of a frame, up to its header's or, of a control frame, its payload's end.
    pub(super) frame: Vec<u8>,
    /// The beginning of a unit, or its tail.
    kept: Vec<u8>,
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    /// In the front.
    #[default]
    Front,
    /// In a message that has no stamp.
    Other,
    /// In the filler of a WebSocket message, or in its tail.
    Body(Body),
    /// In the payload of a unit of a stream, or in its tail.
    Payload(Payload),
}

impl Cut {
    /// Whether the stream is between two messages.
    pub(super) fn is_border(&self) -> bool {
        self.frame.is_empty() && self.kept.is_empty() && matches!(self.phase, Phase::Front)
    }
}

/// A message whose stamp has been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    stamp: Stamp,
    /// The offset that the message came with; 0: none.
    offset: u64,
    /// Bytes of filler that came.
    at: usize,
    /// Bytes of filler that belong to the stamp.
    filler: usize,
    intact: bool,
}

impl Body {
    pub(super) fn new(stamp: Stamp, intact: bool, payloads: &Payloads) -> Self {
        let len = payloads.sizes().of(stamp.stream, stamp.seq) as usize;
        Self { stamp, offset: 0, at: 0, filler: len - STAMP_LEN, intact }
    }

    /// Reports the message, whose tail is all there.
    fn report<M: Messages>(&self, messages: &M, tail: &[u8], visit: &mut impl Visit) {
        let envelope = if tail.len() <= M::TAIL_MAX { messages.tail(tail) } else { None };
        let intact = self.is_whole() && envelope.is_some();
        visit.enveloped(self.stamp, intact, Envelope { offset: self.offset, ..envelope.unwrap_or_default() });
    }

    /// Takes the filler from the front of `bytes`, and leaves the rest.
    fn take<'b>(&mut self, bytes: &'b [u8], payloads: &Payloads) -> &'b [u8] {
        let (part, rest) = bytes.split_at(bytes.len().min(self.filler - self.at));
        self.intact = self.intact && payloads.filler(self.stamp, self.at, part.len()) == Some(part);
        self.at += part.len();
        rest
    }

    fn is_whole(&self) -> bool {
        self.intact && self.at == self.filler
    }
}

/// What the beginning of a WebSocket message is.
pub(super) enum Front {
    /// The front is longer than these bytes.
    Cut,
    /// The stamp ends at `len`. An `offset` of 0 is none. Not `intact` if it came under another topic's name.
    Stamped { len: usize, stamp: Stamp, offset: u64, intact: bool },
    /// Nothing with a stamp where it should be.
    Other,
}

/// A protocol of which a WebSocket message is a message.
pub(super) trait Messages {
    /// Whether they are text or binary, if the protocol says so.
    const KIND: Option<Kind>;

    /// The longest tail that can be right, in bytes.
    const TAIL_MAX: usize;

    fn payloads(&self) -> &Payloads;

    /// Reads the front of a message. With more bytes the result is the same, unless it is [`Front::Cut`].
    fn front(&self, bytes: &[u8]) -> Front;

    /// What stands behind the filler, without the offset; nothing if it may not stand there.
    fn tail(&self, bytes: &[u8]) -> Option<Envelope>;

    /// The most bytes of a message without stamp that [`Messages::other`] looks at. 0: it does not.
    const OTHER_MAX: usize;

    /// A message without a stamp in its place. With an [`Messages::OTHER_MAX`] of 0, `message` may be a part of it.
    fn other(&self, state: &mut State, message: &[u8], visit: &mut impl Visit) -> Result<(), Broken>;
}

/// A message in one piece.
#[inline]
pub(super) fn whole<M: Messages>(
    messages: &M,
    state: &mut State,
    bytes: &[u8],
    visit: &mut impl Visit,
) -> Result<(), Broken> {
    let Front::Stamped { len, stamp, offset, intact } = messages.front(bytes) else {
        return other(messages, state, bytes, visit);
    };
    let mut body = Body { offset, ..Body::new(stamp, intact, messages.payloads()) };
    let tail = body.take(&bytes[len..], messages.payloads());
    body.report(messages, tail, visit);
    Ok(())
}

/// A message in pieces.
pub(super) fn piece<M: Messages>(
    messages: &M,
    state: &mut State,
    bytes: &[u8],
    last: bool,
    visit: &mut impl Visit,
) -> Result<(), Broken> {
    let mut cut = match state.cut.take() {
        None if last => return whole(messages, state, bytes, visit),
        None if bytes.is_empty() => return Ok(()),
        None => Box::default(),
        Some(cut) => cut,
    };
    let mut rest = bytes;
    if matches!(cut.phase, Phase::Front) {
        rest = front(messages, &mut cut, bytes)?;
    }
    match &mut cut.phase {
        Phase::Body(body) => {
            let tail = body.take(rest, messages.payloads());
            if cut.kept.len() + tail.len() <= M::TAIL_MAX {
                cut.kept.extend_from_slice(tail);
            } else {
                body.intact = false;
            }
        }
        Phase::Other if M::OTHER_MAX > 0 => {
            cut.kept.extend_from_slice(rest);
            limit::<M>(&cut.kept)?;
        }
        _ => {}
    }
    if !last {
        state.cut = Some(cut);
        return Ok(());
    }
    match cut.phase {
        Phase::Body(body) => body.report(messages, &cut.kept, visit),
        _ => other(messages, state, &cut.kept, visit)?,
    }
    Ok(())
}

fn other<M: Messages>(messages: &M, state: &mut State, message: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
    if M::OTHER_MAX > 0 {
        limit::<M>(message)?;
    }
    messages.other(state, message, visit)
}

fn limit<M: Messages>(message: &[u8]) -> Result<(), Broken> {
    if message.len() > M::OTHER_MAX {
        return Err(format!("an answer of more than {} bytes", M::OTHER_MAX).into());
    }
    Ok(())
}

/// Continues a front that was cut, and leaves the bytes behind it.
fn front<'b, M: Messages>(messages: &M, cut: &mut Cut, bytes: &'b [u8]) -> Result<&'b [u8], Broken> {
    let mut taken = 0;
    loop {
        let known = if cut.kept.is_empty() { bytes } else { &cut.kept[..] };
        let before = cut.kept.len();
        match messages.front(known) {
            Front::Stamped { len, stamp, offset, intact } => {
                cut.phase = Phase::Body(Body { offset, ..Body::new(stamp, intact, messages.payloads()) });
                // Of what is kept, all but the last bytes came in earlier pieces.
                let earlier = before - taken;
                cut.kept.clear();
                return Ok(&bytes[len.saturating_sub(earlier)..]);
            }
            Front::Other => {
                cut.phase = Phase::Other;
                return Ok(&bytes[taken..]);
            }
            Front::Cut => {
                if taken == bytes.len() {
                    return Ok(&[]);
                }
                taken = keep(&mut cut.kept, bytes, taken)?;
            }
        }
    }
}

/// Keeps some more of `bytes`, of which `taken` are kept already: enough to get far, not so much that a long buffer is
/// copied for the sake of a short front.
fn keep(kept: &mut Vec<u8>, bytes: &[u8], taken: usize) -> Result<usize, Broken> {
    let until = bytes.len().min(taken + kept.len().max(64));
    kept.extend_from_slice(&bytes[taken..until]);
    if kept.len() > FRONT_MAX {
        return Err(format!("more than {FRONT_MAX} bytes before a message begins or an answer ends").into());
    }
    Ok(until)
}

/// A payload of a unit, whose length is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    /// Nothing when there is no stamp.
    body: Option<Body>,
    /// Bytes of the payload to come.
    left: u64,
    /// Bytes of the tail to come.
    tail: usize,
}

/// What the bytes of a stream begin with.
pub(super) enum Unit {
    /// The unit, or its front, is longer than these bytes.
    Cut,
    /// A unit of this many bytes, which has been handled.
    Done(usize),
    /// A message whose payload begins at `front` and has `len` bytes, of which [`STAMP_LEN`], or all if fewer, are
    /// there.
    Message { front: usize, len: u64, topic: Option<u32> },
}

/// A protocol whose units lie in a stream of bytes.
pub(super) trait Units {
    /// What follows every payload.
    const TAIL: &'static [u8];

    fn payloads(&self) -> &Payloads;

    /// The topic that messages of a stream belong to.
    fn topic(&self, stream: u32) -> u32;

    /// Reads the unit at the front of `bytes`, which are not empty. Says the same of more bytes, and has no effect,
    /// unless it says something else than [`Unit::Cut`].
    fn unit(&self, state: &mut State, bytes: &[u8], visit: &mut impl Visit) -> Result<Unit, Broken>;
}

/// The next bytes of a stream.
pub(super) fn stream<U: Units>(
    units: &U,
    state: &mut State,
    mut bytes: &[u8],
    visit: &mut impl Visit,
) -> Result<(), Broken> {
    if let Some(mut cut) = state.cut.take() {
        bytes = resume(units, state, &mut cut, bytes, visit)?;
        if !cut.is_border() {
            state.cut = Some(cut);
            return Ok(());
        }
    }
    while !bytes.is_empty() {
        match units.unit(state, bytes, visit)? {
            Unit::Done(len) => bytes = &bytes[len..],
            Unit::Message { front, len, topic } => {
                let mut payload = begin(units, &bytes[front..], len, topic);
                bytes = payload.take(units, &bytes[front + stamp_len(len)..])?;
                if payload.left > 0 || payload.tail > 0 {
                    let phase = Phase::Payload(payload);
                    state.cut = Some(Box::new(Cut { phase, ..Cut::default() }));
                    return Ok(());
                }
                payload.report(visit);
            }
            Unit::Cut => {
                if bytes.len() > FRONT_MAX {
                    return Err(format!("more than {FRONT_MAX} bytes before a message begins").into());
                }
                state.cut = Some(Box::new(Cut { kept: bytes.to_vec(), ..Cut::default() }));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Continues a unit that was cut, and leaves the bytes behind it.
fn resume<'b, U: Units>(
    units: &U,
    state: &mut State,
    cut: &mut Cut,
    bytes: &'b [u8],
    visit: &mut impl Visit,
) -> Result<&'b [u8], Broken> {
    let mut rest = bytes;
    if !cut.kept.is_empty() {
        let earlier = cut.kept.len();
        let mut taken = 0;
        loop {
            if taken == bytes.len() {
                return Ok(&[]);
            }
            taken = keep(&mut cut.kept, bytes, taken)?;
            match units.unit(state, &cut.kept, visit)? {
                Unit::Cut => {}
                Unit::Done(len) => {
                    cut.kept.clear();
                    return Ok(&bytes[len - earlier..]);
                }
                Unit::Message { front, len, topic } => {
                    let payload = begin(units, &cut.kept[front..], len, topic);
                    let behind = front + stamp_len(len);
                    cut.kept.clear();
                    cut.phase = Phase::Payload(payload);
                    rest = &bytes[behind.saturating_sub(earlier)..];
                    break;
                }
            }
        }
    }
    if let Phase::Payload(payload) = &mut cut.phase {
        rest = payload.take(units, rest)?;
        if payload.left == 0 && payload.tail == 0 {
            payload.report(visit);
            cut.phase = Phase::Front;
        }
    }
    Ok(rest)
}

/// Begins a payload whose stamp, if it has one, stands at the front of `bytes`.
fn begin<U: Units>(units: &U, bytes: &[u8], len: u64, topic: Option<u32>) -> Payload {
    let stamp = if len >= STAMP_LEN as u64 { Stamp::read(bytes) } else { None };
    let body = stamp.map(|stamp| {
        let mut body = Body::new(stamp, topic == Some(units.topic(stamp.stream)), units.payloads());
        body.intact &= body.filler as u64 == len - STAMP_LEN as u64;
        body
    });
    Payload { body, left: len - stamp_len(len) as u64, tail: U::TAIL.len() }
}

/// Bytes of a payload of `len` that are looked at before it begins.
pub(super) fn stamp_len(len: u64) -> usize {
    len.min(STAMP_LEN as u64) as usize
}

impl Payload {
    /// Takes the rest of payload and tail from the front of `bytes`, and leaves what is behind.
    fn take<'b, U: Units>(&mut self, units: &U, bytes: &'b [u8]) -> Result<&'b [u8], Broken> {
        let (part, rest) = bytes.split_at(fitting(self.left, bytes));
        self.left -= part.len() as u64;
        if let Some(body) = &mut self.body {
            body.take(part, units.payloads());
        }
        if self.left > 0 {
            return Ok(rest);
        }
        let expected = &U::TAIL[U::TAIL.len() - self.tail..];
        let (tail, rest) = rest.split_at(rest.len().min(expected.len()));
        if !expected.starts_with(tail) {
            return Err("a payload that does not end where it should".into());
        }
        self.tail -= tail.len();
        Ok(rest)
    }

    fn report(&self, visit: &mut impl Visit) {
        match self.body {
            Some(body) => visit.message(body.stamp, body.is_whole()),
            None => visit.foreign(),
        }
    }
}
