//! Bytes to messages: the receiving half of a WebSocket connection (RFC 6455 §5, §6.2, §8.1).
//!
//! The decoder is handed what was received, wherever the reads happened to end, and takes items from its
//! front: whole messages where they lie, pieces of those that span frames or reads, control frames. Payloads
//! are unmasked in place and borrowed from the input; the caller owns it and may reuse it once the items are
//! gone. Between calls the decoder keeps at most one header, one control payload and three bytes of text.
//! Not here: gathering pieces, answering pings and closes, stopping after a close.

use std::mem;

use super::header::{Context, FrameHeader, RECEIVED_HEADER_MAX};
use super::utf8::Utf8Carry;
use super::{CloseCode, ControlPayload, FrameLimits, MessageKind, Opcode, Role, Violation, unmask};

/// What a peer sent.
#[derive(PartialEq, Eq, Debug)]
pub enum Item<'b> {
    /// A message whose whole payload lies in the input in one piece.
    Message {
        /// Text has been validated.
        kind: MessageKind,
        /// Unmasked.
        payload: &'b mut [u8],
    },
    /// A part of a message that spans frames or reads. Parts of one message follow each other, with
    /// nothing but control frames between them.
    Piece {
        /// The kind of the whole message. Text has been validated this far; it may end within a code point
        /// unless `last`.
        kind: MessageKind,
        /// Unmasked; empty only if `last`.
        payload: &'b mut [u8],
        /// Begins the message.
        first: bool,
        /// Completes the message.
        last: bool,
        /// Payload bytes of this frame still to come: room worth reserving. Further frames may follow.
        frame_left: u64,
    },
    /// To be answered with a pong that carries the same payload (§5.5.2).
    Ping(ControlPayload),
    /// An answer to a ping, or an unasked heartbeat (§5.5.3).
    Pong(ControlPayload),
    /// The peer's close with its code, if it gave one, and its reason, which is UTF-8 (§5.5.1). What comes
    /// behind it is not to be decoded.
    Close(Option<CloseCode>, ControlPayload),
}

/// A frame whose header has been read.
#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Payload bytes taken so far.
    taken: u64,
    /// Payload bytes to come.
    left: u64,
}

/// A data message that has begun and not ended.
#[derive(Clone, Copy, Debug)]
struct OpenMessage {
    kind: MessageKind,
    /// Payload bytes announced by its frames so far.
    len: u64,
    /// Some of it has been handed out.
    begun: bool,
    utf8: Utf8Carry,
}

/// Decodes one direction of one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    role: Role,
    /// Front of a header that was cut off by the end of a read.
    header: [u8; RECEIVED_HEADER_MAX],
    header_len: u8,
    frame: Option<OpenFrame>,
    message: Option<OpenMessage>,
    control: ControlPayload,
}

impl Decoder {
    /// A decoder at the beginning of a connection, for the given end of it.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            header: [0; RECEIVED_HEADER_MAX],
            header_len: 0,
            frame: None,
            message: None,
            control: ControlPayload::EMPTY,
        }
    }

    /// Between two messages and two frames: a new decoder would do as well, so this one may be dropped.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.frame.is_none() && self.message.is_none() && self.header_len == 0
    }

    /// Takes the next item from the front of `input`, which it shortens. `None`: all of it is consumed and
    /// more is needed.
    ///
    /// # Errors
    /// The peer broke a rule. The connection cannot go on, and the decoder is not to be used again.
    pub fn next<'b>(&mut self, input: &mut &'b mut [u8], limits: &FrameLimits) -> Result<Option<Item<'b>>, Violation> {
        loop {
            let (frame, message) = match self.frame {
                Some(frame) => (frame, self.message),
                None => match self.begin_frame(input, limits)? {
                    Some(begun) => begun,
                    None => return Ok(None),
                },
            };
            let item = if frame.opcode.is_control() {
                self.take_control(frame, input)
            } else if let Some(message) = message {
                self.take_data(frame, message, input)
            } else {
                unreachable!("a data frame belongs to a message")
            };
            // An empty fragment ends without an item; the next frame may be there already.
            if !matches!(item, Ok(None)) || input.is_empty() {
                return item;
            }
        }
    }

    /// Reads the next frame's header; `None` when it is not all there. With it comes the message that it begins or
    /// continues, which is handed on rather than kept: it would be read back at once, and in another width than it
    /// was written, which makes a processor wait.
    fn begin_frame(
        &mut self,
        input: &mut &mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<(OpenFrame, Option<OpenMessage>)>, Violation> {
        let message = self.message.map(|message| (message.kind, message.len));
        let context = Context { role: self.role, limits, message };
        let Some(header) = self.read_header(input, context)? else {
            return Ok(None);
        };
        let FrameHeader { fin, opcode, mask, len, .. } = header;
        let frame = OpenFrame { fin, opcode, mask, taken: 0, left: len };
        if opcode.is_control() {
            self.control = ControlPayload::EMPTY;
            return Ok(Some((frame, None)));
        }
        let kind = if opcode == Opcode::Text { MessageKind::Text } else { MessageKind::Binary };
        let new = OpenMessage { kind, len: 0, begun: false, utf8: Utf8Carry::default() };
        let mut message = self.message.unwrap_or(new);
        message.len += len;
        Ok(Some((frame, Some(message))))
    }

    fn read_header(&mut self, input: &mut &mut [u8], context: Context<'_>) -> Result<Option<FrameHeader>, Violation> {
        if self.header_len == 0
            && let Some(header) = FrameHeader::parse(input, context)?
        {
            take(input, header.header_len);
            return Ok(Some(header));
        }
        // Its end has not come, or its front came earlier: gather it, and judge it byte by byte.
        while !input.is_empty() {
            self.header[usize::from(self.header_len)] = take(input, 1)[0];
            self.header_len += 1;
            let gathered = &self.header[..usize::from(self.header_len)];
            if let Some(header) = FrameHeader::parse(gathered, context)? {
                self.header_len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn take_data<'b>(
        &mut self,
        frame: OpenFrame,
        mut message: OpenMessage,
        input: &mut &'b mut [u8],
    ) -> Result<Option<Item<'b>>, Violation> {
        let payload = take_payload(frame, input);
        let left = frame.left - payload.len() as u64;
        let last = frame.fin && left == 0;

        if message.kind == MessageKind::Text {
            let valid = message.utf8.feed(payload).is_ok();
            if !valid || last && !message.utf8.is_at_boundary() {
                return Err(Violation::BAD_TEXT);
            }
        }
        self.frame = (left > 0).then(|| frame.after(payload.len()));
        let (kind, first) = (message.kind, !message.begun);
        message.begun |= !payload.is_empty();
        self.message = (!last).then_some(message);

        Ok(if first && last {
            Some(Item::Message { kind, payload })
        } else if last || !payload.is_empty() {
            Some(Item::Piece { kind, payload, first, last, frame_left: left })
        } else {
            None
        })
    }

    fn take_control<'b>(&mut self, frame: OpenFrame, input: &mut &'b mut [u8]) -> Result<Option<Item<'b>>, Violation> {
        let payload = take_payload(frame, input);
        self.control.fill(payload);
        if payload.len() as u64 != frame.left {
            self.frame = Some(frame.after(payload.len()));
            return Ok(None);
        }
        self.frame = None;
        Ok(Some(match frame.opcode {
            Opcode::Ping => Item::Ping(self.control),
            Opcode::Pong => Item::Pong(self.control),
            _ => close(self.control)?,
        }))
    }
}

impl OpenFrame {
    /// The frame once `count` more bytes have been taken.
    fn after(self, count: usize) -> Self {
        let count = count as u64;
        Self { taken: self.taken + count, left: self.left - count, ..self }
    }
}

/// Takes and unmasks what `input` has of the frame's payload.
fn take_payload<'b>(frame: OpenFrame, input: &mut &'b mut [u8]) -> &'b mut [u8] {
    let len = usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
    let payload = take(input, len);
    if frame.mask != [0; 4] {
        unmask(payload, frame.mask, (frame.taken % 4) as usize);
    }
    payload
}

fn take<'b>(input: &mut &'b mut [u8], len: usize) -> &'b mut [u8] {
    let (taken, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    taken
}

/// A close frame's payload: nothing, or a code and a reason (RFC 6455 §5.5.1, §7.4).
fn close<'b>(payload: ControlPayload) -> Result<Item<'b>, Violation> {
    let code = match *payload.as_slice() {
        [] => return Ok(Item::Close(None, payload)),
        [_] => return Err(Violation::protocol("a close payload of one byte")),
        [high, low, ..] => CloseCode(u16::from_be_bytes([high, low])),
    };
    if !code.is_valid_on_wire() {
        return Err(Violation::protocol("a close code that may not be sent"));
    }
    let reason = payload.without_first(2);
    if std::str::from_utf8(reason.as_slice()).is_err() {
        return Err(Violation::BAD_REASON);
    }
    Ok(Item::Close(Some(code), reason))
}
