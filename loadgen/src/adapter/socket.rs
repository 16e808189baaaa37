//! The WebSocket layer below all protocols (RFC 6455, section 5): parses a server's frames wherever reads end, and writes
//! a client's frames.
//!
//! The payload of a data frame goes to a [`Content`] without a copy: in one piece if the message is one frame in one
//! buffer, otherwise in pieces. Control frames are handled here, also between the fragments of a message (section 5.4).
//! Headers and control frames that were cut are kept, at most 133 bytes.
//!
//! Judged here: the order of fragments; headers are judged in `frame`. Not judged: UTF-8, since payloads that are not
//! ours are reported anyway.

use std::sync::atomic::{AtomicU32, Ordering};

use protocol::frame::{CloseCode, HEADER_MAX, Opcode, close_code, put_client_frame, server_header, unmask};

use super::unit::{self, Cut, Messages};
use super::{Inbound, Visit};
pub(super) use crate::frame::Broken;
use crate::frame::Header;
use crate::stamp::{Stamp, random};

/// What a protocol makes of data frames.
pub(super) trait Content {
    /// A message in one piece; nothing of it came before.
    fn whole(&self, state: &mut State, kind: Kind, payload: &[u8], visit: &mut impl Visit) -> Result<(), Broken>;

    /// The next piece of a message; `last` ends the message. May be empty.
    fn piece(
        &self,
        state: &mut State,
        kind: Kind,
        piece: &[u8],
        last: bool,
        visit: &mut impl Visit,
    ) -> Result<(), Broken>;
}

impl<M: Messages> Content for M {
    #[inline]
    fn whole(&self, state: &mut State, kind: Kind, payload: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        M::KIND.map_or(Ok(()), |wanted| expect_kind(kind, wanted))?;
        unit::whole(self, state, payload, visit)
    }

    fn piece(
        &self,
        state: &mut State,
        kind: Kind,
        piece: &[u8],
        last: bool,
        visit: &mut impl Visit,
    ) -> Result<(), Broken> {
        M::KIND.map_or(Ok(()), |wanted| expect_kind(kind, wanted))?;
        unit::piece(self, state, piece, last, visit)
    }
}

/// A text message where a binary one was due, or the reverse.
pub(super) fn expect_kind(kind: Kind, wanted: Kind) -> Result<(), Broken> {
    match (kind == wanted, kind) {
        (true, _) => Ok(()),
        (false, Kind::Text) => Err("a text message where the protocol has binary ones".into()),
        (false, Kind::Binary) => Err("a binary message where the protocol has text".into()),
    }
}

/// What a protocol remembers of a connection.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What was cut, and where in it the stream stands. Nothing at the border of two messages.
    pub(super) cut: Option<Box<Cut>>,
    /// Answers to the greeting that came.
    pub(super) answers: u32,
}

impl State {
    /// The server answered a command. `expected` is the number of answers to the greeting.
    pub(super) fn answered(&mut self, expected: u32, visit: &mut impl Visit) {
        if self.answers < expected {
            self.answers += 1;
            if self.answers < expected {
                return;
            }
        }
        visit.ready();
    }
}

/// Text or binary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Kind {
    #[default]
    Text,
    Binary,
}

/// Where the stream of frames stands.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes to come of the data frame that has begun. 0: between frames.
    left: u64,
    /// That frame ends its message.
    fin: bool,
    /// A message has begun and its last frame has not.
    open: bool,
    kind: Kind,
    /// After a close frame or a broken rule: nothing more is looked at.
    over: bool,
}

impl Frames {
    pub(super) fn is_between_messages(&self) -> bool {
        self.left == 0 && !self.open
    }

    /// Whether nothing more is looked at.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// From now on nothing is.
    pub(super) fn end(&mut self) {
        self.over = true;
    }
}

/// Walks the next bytes of a connection.
pub(super) fn walk(inbound: &mut Inbound, content: &impl Content, bytes: &[u8], visit: &mut impl Visit) {
    if inbound.frames.over {
        return;
    }
    if let Err(why) = frames(inbound, content, bytes, visit) {
        inbound.frames.over = true;
        inbound.state.cut = None;
        visit.broken(&why);
    }
}

fn frames(
    inbound: &mut Inbound,
    content: &impl Content,
    mut bytes: &[u8],
    visit: &mut impl Visit,
) -> Result<(), Broken> {
    let Inbound { frames, state } = inbound;
    while !bytes.is_empty() && !frames.over {
        if frames.left > 0 {
            let (piece, rest) = bytes.split_at(fitting(frames.left, bytes));
            bytes = rest;
            frames.left -= piece.len() as u64;
            frames.open = frames.left > 0 || !frames.fin;
            content.piece(state, frames.kind, piece, !frames.open, visit)?;
            continue;
        }
        let Some(header) = header(frames, state, &mut bytes, visit)? else {
            continue;
        };
        let begins = header.opcode != Opcode::Continuation;
        if begins == frames.open {
            let why = if begins { "a message within a message" } else { "a continuation of nothing" };
            return Err(why.into());
        }
        if begins {
            frames.kind = if header.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
        }
        if begins && header.fin && header.payload <= bytes.len() as u64 {
            let (payload, rest) = bytes.split_at(header.payload as usize);
            bytes = rest;
            content.whole(state, frames.kind, payload, visit)?;
            continue;
        }
        (frames.left, frames.fin, frames.open) = (header.payload, header.fin, true);
        if frames.left == 0 {
            frames.open = !frames.fin;
            content.piece(state, frames.kind, &[], frames.fin, visit)?;
        }
    }
    Ok(())
}

/// Takes a data frame's header from the front; nothing when it is cut, or when it was a control frame's, which is
/// dealt with.
#[inline]
fn header(
    frames: &mut Frames,
    state: &mut State,
    bytes: &mut &[u8],
    visit: &mut impl Visit,
) -> Result<Option<Header>, Broken> {
    if state.cut.as_ref().is_some_and(|cut| !cut.frame.is_empty()) {
        return resume_header(frames, state, bytes, visit);
    }
    let header = Header::read(bytes)?;
    let taken = header.map_or(usize::MAX, |header| header.len + header.control_len());
    let Some((front, rest)) = bytes.split_at_checked(taken) else {
        state.cut.get_or_insert_default().frame.extend_from_slice(bytes);
        *bytes = &[];
        return Ok(None);
    };
    *bytes = rest;
    header.map_or(Ok(None), |header| data_or_control(header, &front[header.len..], frames, visit))
}

/// Goes on with a frame whose header, or, if it is a control frame, payload was cut.
#[cold]
fn resume_header(
    frames: &mut Frames,
    state: &mut State,
    bytes: &mut &[u8],
    visit: &mut impl Visit,
) -> Result<Option<Header>, Broken> {
    let Some(cut) = &mut state.cut else {
        return Ok(None);
    };
    let header = loop {
        let header = Header::read(&cut.frame)?;
        match header {
            Some(header) if cut.frame.len() >= header.len + header.control_len() => break header,
            _ => {}
        }
        let Some((byte, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        cut.frame.push(*byte);
        *bytes = rest;
    };
    let frame = std::mem::take(&mut cut.frame);
    if cut.is_border() {
        state.cut = None;
    }
    data_or_control(header, &frame[header.len..], frames, visit)
}

#[inline]
fn data_or_control(
    header: Header,
    payload: &[u8],
    frames: &mut Frames,
    visit: &mut impl Visit,
) -> Result<Option<Header>, Broken> {
    if !header.opcode.is_control() {
        return Ok(Some(header));
    }
    control(header.opcode, payload, frames, visit)?;
    Ok(None)
}

/// RFC 6455, section 5.5.
fn control(opcode: Opcode, payload: &[u8], frames: &mut Frames, visit: &mut impl Visit) -> Result<(), Broken> {
    match opcode {
        Opcode::Ping => {
            visit.ping();
            reply(Opcode::Pong, payload, visit);
        }
        Opcode::Close => {
            let code = match payload {
                [] => 1005,
                [high, low, ..] => u16::from_be_bytes([*high, *low]),
                [_] => return Err("a close frame with half a code".into()),
            };
            // Some servers close with codes that may not be sent, such as HTTP's.
            let answer = if CloseCode(code).is_valid_on_wire() { code } else { close_code::PROTOCOL_ERROR.0 };
            let answer = answer.to_be_bytes();
            reply(Opcode::Close, &answer[..payload.len().min(2)], visit);
            visit.close(code);
            frames.over = true;
        }
        _ => {}
    }
    Ok(())
}

/// Sends a frame back.
pub(super) fn reply(opcode: Opcode, payload: &[u8], visit: &mut impl Visit) {
    let mut frame = Vec::with_capacity(HEADER_MAX + 4 + payload.len());
    put_control(&mut frame, opcode, payload);
    visit.reply(&frame);
}

/// Appends a frame that is no message.
pub(super) fn put_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    put_client_frame(out, opcode, payload, fresh_mask());
}

/// How many of `bytes` belong to what has `left` bytes to come.
pub(super) fn fitting(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

/// Bytes of a server's frame with this payload.
pub(super) fn frame_len(payload: u64) -> u64 {
    let header = match payload {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    header + payload
}

/// Appends a frame whose payload is `len` bytes, which `put` appends.
///
/// # Panics
/// If `put` appends another number of bytes.
pub(super) fn put(out: &mut Vec<u8>, opcode: Opcode, len: usize, mask: [u8; 4], put: impl FnOnce(&mut Vec<u8>)) {
    let mut header = [0; HEADER_MAX];
    let header_len = server_header(opcode, len as u64, &mut header);
    header[1] |= 0x80;
    out.reserve(header_len + mask.len() + len);
    out.extend_from_slice(&header[..header_len]);
    out.extend_from_slice(&mask);
    let from = out.len();
    put(out);
    assert_eq!(out.len() - from, len, "a frame's payload is as long as announced");
    unmask(&mut out[from..], mask, 0);
}

/// A message's mask. Section 5.3 wants masks that a page's scripts cannot foresee, since they could write requests into
/// proxies with them. A load generator runs no such scripts, so it is enough that masks differ.
pub(super) fn mask(stamp: Stamp) -> [u8; 4] {
    // Never zero, which would mask nothing.
    (random(stamp.stream, stamp.seq ^ stamp.sent_ns).u32(..) | 1).to_be_bytes()
}

/// A mask for what is no message.
pub(super) fn fresh_mask() -> [u8; 4] {
    (fastrand::u32(..) | 1).to_be_bytes()
}

/// A number that this process did not give before, until it has given all.
pub(super) fn serial() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
