//! A decoder as plain as the standard's text: it has all bytes before it, copies everything, and keeps no
//! state between calls. Slow, and obvious enough to be believed.

use protocol::frame::{CloseCode, FrameLimits, MessageKind};

/// What a receiver sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
}

/// Everything seen, and how it ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) seen: Vec<Seen>,
    /// What has come of a message that is not complete, if anything has; not known after a violation.
    pub(crate) partial: Option<(MessageKind, Vec<u8>)>,
    pub(crate) violation: Option<u16>,
    /// The end is one of a frame and of a message; not known after a violation.
    pub(crate) idle: bool,
}

/// The end of the bytes, or a rule broken.
enum Stop {
    End,
    Violation(u16),
}

/// Decodes what a client sent.
pub(crate) fn decode(bytes: &[u8], limits: &FrameLimits) -> Outcome {
    let mut outcome = Outcome::default();
    // The open message's kind, bytes, and bytes announced.
    let mut open: Option<(MessageKind, Vec<u8>, u64)> = None;
    let mut rest = bytes;
    while !rest.is_empty() {
        match frame(&mut rest, &mut open, limits, &mut outcome.seen) {
            Ok(()) => {}
            Err(Stop::End) => {
                outcome.partial = open.filter(|o| !o.1.is_empty()).map(|(kind, bytes, _)| (kind, bytes));
                return outcome;
            }
            Err(Stop::Violation(code)) => {
                outcome.violation = Some(code);
                return outcome;
            }
        }
    }
    outcome.idle = open.is_none();
    outcome.partial = open.filter(|o| !o.1.is_empty()).map(|(kind, bytes, _)| (kind, bytes));
    outcome
}

fn ensure(ok: bool, code: u16) -> Result<(), Stop> {
    if ok { Ok(()) } else { Err(Stop::Violation(code)) }
}

fn take(rest: &mut &[u8], count: usize) -> Result<u64, Stop> {
    let (bytes, after) = rest.split_at_checked(count).ok_or(Stop::End)?;
    *rest = after;
    Ok(bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn frame(
    rest: &mut &[u8],
    open: &mut Option<(MessageKind, Vec<u8>, u64)>,
    limits: &FrameLimits,
    seen: &mut Vec<Seen>,
) -> Result<(), Stop> {
    let first = take(rest, 1)?;
    let (fin, reserved, opcode) = (first >> 7 == 1, first >> 4 & 7, first & 15);
    let control = opcode >= 8;
    ensure(reserved == 0, 1002)?;
    ensure([0, 1, 2, 8, 9, 10].contains(&opcode), 1002)?;
    ensure(fin || !control, 1002)?;
    ensure(control || (opcode == 0) == open.is_some(), 1002)?;

    let second = take(rest, 1)?;
    ensure(second >> 7 == 1, 1002)?;
    ensure(!control || second & 127 <= 125, 1002)?;
    let len = match second & 127 {
        126 => {
            let len = take(rest, 2)?;
            ensure(len > 125, 1002)?;
            len
        }
        127 => {
            let len = take(rest, 8)?;
            ensure(len > 65_535 && len >> 63 == 0, 1002)?;
            len
        }
        short => short,
    };
    if !control {
        ensure(len <= limits.frame_bytes_max, 1009)?;
        let before = open.as_ref().map_or(0, |open| open.2);
        ensure(before + len <= limits.message_bytes_max, 1009)?;
    }
    let mask = (take(rest, 4)? as u32).to_be_bytes();
    let there = rest.len().min(len as usize);
    let complete = there as u64 == len;
    let mut payload = rest[..there].to_vec();
    *rest = &rest[there..];
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);

    if control {
        if !complete {
            return Err(Stop::End);
        }
        seen.push(match opcode {
            9 => Seen::Ping(payload),
            10 => Seen::Pong(payload),
            _ => close(&payload)?,
        });
        return Ok(());
    }
    let kind = if opcode == 1 { MessageKind::Text } else { MessageKind::Binary };
    let message = open.get_or_insert((kind, Vec::new(), 0));
    message.1.extend(payload);
    message.2 += len;
    if message.0 == MessageKind::Text
        && let Err(error) = std::str::from_utf8(&message.1)
    {
        ensure(error.error_len().is_none() && !(fin && complete), 1007)?;
    }
    if !complete {
        return Err(Stop::End);
    }
    if fin && let Some((kind, bytes, _)) = open.take() {
        seen.push(Seen::Message(kind, bytes));
    }
    Ok(())
}

fn close(payload: &[u8]) -> Result<Seen, Stop> {
    ensure(payload.len() != 1, 1002)?;
    let Some(&code) = payload.first_chunk() else {
        return Ok(Seen::Close(None, Vec::new()));
    };
    let code = u16::from_be_bytes(code);
    ensure(CloseCode(code).is_valid_on_wire(), 1002)?;
    ensure(std::str::from_utf8(&payload[2..]).is_ok(), 1007)?;
    Ok(Seen::Close(Some(code), payload[2..].to_vec()))
}
