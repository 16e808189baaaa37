//! Requests and their answers: which members the commands `request`, `respond` and `reply` have, and what the broker says
//! of them. Nothing allocates but errors.

use std::ops::RangeInclusive;

use bytes::BufMut;
use simd_json::Node;

use super::command::{Command, Scratch};
use super::interpret::both;
use super::json::{self, put_string};
use super::members::{Fault, Members, missing, wrong_type};
use super::message::{begin, begin_of_topic, put_data, put_number};
use super::names::Member;
use super::{ErrorCode, Id, MessageType, PayloadKind};
use crate::topic::{TopicError, check_filter, check_name, is_reserved};

/// How long a client may wait for an answer, in milliseconds.
pub const TIMEOUT_MS: RangeInclusive<u32> = 10..=60_000;
/// How long it waits if it does not say, in milliseconds.
pub const TIMEOUT_DEFAULT_MS: u32 = 5_000;
/// The longest code of a responder's error, in bytes.
const CODE_LEN_MAX: usize = 64;
/// The longest reason of one, in bytes.
const REASON_LEN_MAX: usize = 1024;

/// What a request is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply<'a> {
    /// What was asked for.
    Data {
        /// What it is.
        kind: PayloadKind,
        /// The answer.
        data: &'a [u8],
    },
    /// The responder's own error.
    Error {
        /// For programs.
        code: &'a str,
        /// For people.
        reason: &'a str,
    },
}

/// A request, as its responder gets it. `payload` is what `kind` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestParts<'a> {
    /// The topic that it is for.
    pub topic: &'a str,
    /// What the payload is.
    pub kind: PayloadKind,
    /// The question.
    pub payload: &'a [u8],
    /// The number that the answer has to name.
    pub reply: u64,
    /// The member that asks, if that is known.
    pub from: Option<&'a str>,
    /// How long an answer is waited for from now on, in milliseconds.
    pub timeout_ms: u64,
}

impl<'a> Members<'_, 'a> {
    pub(super) fn request(
        &self,
        id: Option<Id>,
        topic_len_max: usize,
        scratch: &'a mut Scratch,
    ) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Data, Member::Encoding, Member::Timeout, Member::To])?;
        let topic = self.string(Member::Topic)?.ok_or_else(|| missing(Member::Topic))?;
        check_name(topic, topic_len_max)?;
        let timeout_ms = match self.get(Member::Timeout) {
            None => TIMEOUT_DEFAULT_MS,
            Some(value) => json::whole(value)
                .and_then(|ms| u32::try_from(ms).ok())
                .filter(|ms| TIMEOUT_MS.contains(ms))
                .ok_or_else(|| wrong_type(Member::Timeout, "an integer from 10 to 60000"))?,
        };
        let to = self.string(Member::To)?;
        let (kind, data) = self.payload(&mut scratch.data)?;
        Ok(Command::Request { id, topic, kind, data, timeout_ms, to })
    }

    pub(super) fn respond(&self, id: Option<Id>, topic_len_max: usize) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::End])?;
        let filter = self.string(Member::Topic)?.ok_or_else(|| missing(Member::Topic))?;
        check_filter(filter, topic_len_max)?;
        if is_reserved(filter) {
            return Err(TopicError::Reserved.into());
        }
        Ok(Command::Respond { id, filter, end: self.flag(Member::End)?.unwrap_or(false) })
    }

    pub(super) fn reply(&self, id: Option<Id>, scratch: &'a mut Scratch) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Reply, Member::Data, Member::Encoding, Member::Error])?;
        let reply = self.get(Member::Reply).ok_or_else(|| missing(Member::Reply))?;
        let reply = json::whole(reply).ok_or_else(|| wrong_type(Member::Reply, "an integer from 0 to 2^53-1"))?;
        let answer = match self.get(Member::Error) {
            Some(_) if self.get(Member::Data).is_some() => return Err(both(Member::Error, Member::Data)),
            Some(_) if self.get(Member::Encoding).is_some() => return Err(both(Member::Error, Member::Encoding)),
            Some(error) => responder_error(error).ok_or_else(|| wrong_type(Member::Error, AN_ERROR))?,
            None => {
                let (kind, data) = self.payload(&mut scratch.data)?;
                Reply::Data { kind, data }
            }
        };
        Ok(Command::Reply { id, reply, answer })
    }
}

const AN_ERROR: &str = "an object of \"code\", a string of 1 to 64 bytes, and \"reason\", a string of up to 1024 bytes";

fn responder_error<'a>(value: &[Node<'a>]) -> Option<Reply<'a>> {
    let (mut code, mut reason) = (None, None);
    for (name, value) in json::members(value)? {
        let place = match name {
            "code" => &mut code,
            "reason" => &mut reason,
            _ => return None,
        };
        let [Node::String(text)] = value else { return None };
        if place.replace(*text).is_some() {
            return None;
        }
    }
    let (code, reason) = (code?, reason?);
    let fits = (1..=CODE_LEN_MAX).contains(&code.len()) && reason.len() <= REASON_LEN_MAX;
    fits.then_some(Reply::Error { code, reason })
}

/// A request for a topic that the client serves.
pub fn write_request(out: &mut impl BufMut, request: &RequestParts<'_>) {
    begin_of_topic(out, MessageType::Request, request.topic);
    put_data(out, request.kind, request.payload);
    put_number(out, b",\"reply\":", request.reply);
    put_member(out, request.from);
    put_number(out, b",\"timeout\":", request.timeout_ms);
    out.put_u8(b'}');
}

/// The answer to a request, from the member that gave it, if that is known. `payload` is what `kind` says.
pub fn write_answered(out: &mut impl BufMut, id: Option<&Id>, kind: PayloadKind, payload: &[u8], from: Option<&str>) {
    begin(out, MessageType::Ok, id);
    put_data(out, kind, payload);
    put_member(out, from);
    out.put_u8(b'}');
}

/// The error that a responder gave as its answer.
pub fn write_responder_error(out: &mut impl BufMut, id: Option<&Id>, code: &str, reason: &str) {
    begin(out, MessageType::Error, id);
    out.put_slice(b",\"code\":");
    put_string(out, ErrorCode::ResponderError.as_str().as_bytes());
    out.put_slice(b",\"reason\":\"the responder answered with an error\",\"error\":{\"code\":");
    put_string(out, code.as_bytes());
    out.put_slice(b",\"reason\":");
    put_string(out, reason.as_bytes());
    out.put_slice(b"}}");
}

fn put_member(out: &mut impl BufMut, from: Option<&str>) {
    if let Some(from) = from {
        out.put_slice(b",\"from\":");
        put_string(out, from.as_bytes());
    }
}
