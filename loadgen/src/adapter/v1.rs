//! `ringyard.v1`: many topics over one WebSocket, JSON in text messages (protocol/RINGYARD-V1.md).
//!
//! Nearly everything received is a `message` (section 4) as this broker writes it: members in one order, no white space.
//! It is recognised byte by byte, wherever it was cut. Anything else, such as other orders of members, is gathered and
//! parsed with serde_json. Payloads are JSON strings without escapes. An `error` ends the stream, because no command of
//! loadgen should fail.

use anyhow::{Context, Result};
use protocol::frame::Opcode;
use protocol::topic::{TOPIC_LEN_MAX_DEFAULT, check_name};

use super::names::{Called, decimals, number, put_number};
use super::past::{self, Position, Said};
use super::socket::{self, Broken, Kind, State};
use super::unit::{Front, Messages};
use super::url::Url;
use super::{Duty, Envelope, Names, Uses, Visit};
use crate::stamp::{Payloads, STAMP_LEN, Stamp};
use crate::token::TokenBy;

/// Topics of one `subscribe`: a few KiB.
const TOPICS_PER_COMMAND: u32 = 64;

const MESSAGE: &str = r#"{"type":"message","topic":""#;
const OFFSET: &[u8] = br#"","offset":"#;
const DATA: &[u8] = br#","data":""#;
const END: &[u8] = br#""}"#;
/// Of what was published with `retain`.
const RETAINED_END: &[u8] = br#"","retain":true}"#;
/// Of what was published with a key, up to its number.
const KEY: &[u8] = br#"","key":""#;
const PUBLISH: &str = r#"{"type":"publish","topic":""#;
const PUBLISHED_DATA: &[u8] = br#"","data":""#;

/// Ringyard's `/ws`.
#[derive(Debug)]
pub(super) struct V1 {
    subscribe: Url,
    publish: Url,
    names: Called,
    /// The names as they stand in JSON.
    quoted: Called,
    /// How messages begin, up to the topic's number.
    message: Box<[u8]>,
    /// How publications begin, up to the topic's number.
    publication: Box<[u8]>,
}

impl V1 {
    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        let called = Called::new(names, '/');
        check_name(&called.name(names.count - 1), TOPIC_LEN_MAX_DEFAULT)
            .with_context(|| format!("the topic {:?} cannot be used", names.prefix))?;
        let usual = |url: &Url| if url.is_bare() { url.with_path("/ws") } else { url.clone() };
        let quoted = called.quoted(|front| {
            let json = serde_json::Value::from(front).to_string();
            json[1..json.len() - 1].to_owned()
        });
        let begin = |front: &str| [front.as_bytes(), quoted.front().as_bytes()].concat().into();
        Ok(Self {
            subscribe: usual(url),
            publish: usual(publish.unwrap_or(url)),
            message: begin(MESSAGE),
            publication: begin(PUBLISH),
            names: called,
            quoted,
        })
    }

    pub(super) fn url(&self, duty: &Duty) -> &Url {
        if duty.subscribes.count == 0 { &self.publish } else { &self.subscribe }
    }

    /// Answers to the greeting.
    pub(super) fn answers(duty: &Duty, uses: Uses) -> u32 {
        let login = u32::from(uses.token_by == Some(TokenBy::Connect));
        login + Self::subscribes(duty, uses)
    }

    /// Commands that subscribe.
    fn subscribes(duty: &Duty, uses: Uses) -> u32 {
        if uses.filter { duty.subscribes.count.min(1) } else { duty.subscribes.count.div_ceil(TOPICS_PER_COMMAND) }
    }

    /// Section 3, `connect`.
    pub(super) fn log_in(token: &str, out: &mut Vec<u8>) {
        let token = serde_json::Value::from(token);
        put_command(format!(r#"{{"type":"connect","id":0,"token":{token}"#).into_bytes(), None, out);
    }

    pub(super) fn greet(&self, duty: &Duty, uses: Uses, since: &[Option<Position>], out: &mut Vec<u8>) {
        if uses.filter && duty.subscribes.count > 0 {
            let filter = format!(r#"{{"type":"subscribe","id":0,"topic":"{}+""#, self.quoted.front());
            put_command(filter.into_bytes(), uses.throttle_ms, out);
            return;
        }
        let topics = duty.subscribes.iter(self.names.count());
        let mut since = since.chunks(TOPICS_PER_COMMAND as usize);
        for id in 0..Self::subscribes(duty, uses) {
            let topics = topics.clone().skip((id * TOPICS_PER_COMMAND) as usize).take(TOPICS_PER_COMMAND as usize);
            put_command(self.command("subscribe", id, topics, since.next().unwrap_or(&[])), uses.throttle_ms, out);
        }
    }

    pub(super) fn subscribe(&self, topic: u32, uses: Uses, out: &mut Vec<u8>) {
        put_command(self.command("subscribe", topic, [topic], &[]), uses.throttle_ms, out);
    }

    pub(super) fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        put_command(self.command("unsubscribe", topic, [topic], &[]), None, out);
    }

    /// A command without its closing brace.
    fn command(
        &self,
        what: &str,
        id: u32,
        topics: impl IntoIterator<Item = u32, IntoIter: Clone>,
        since: &[Option<Position>],
    ) -> Vec<u8> {
        let topics = topics.into_iter();
        let known = topics.clone().zip(since).filter_map(|(topic, position)| Some((topic, (*position)?)));
        let mut text = format!(r#"{{"type":"{what}","id":{id},"topics":["#).into_bytes();
        for (i, topic) in topics.enumerate() {
            text.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
            self.quoted.put(topic, &mut text);
            text.push(b'"');
        }
        text.push(b']');
        for (i, (topic, Position { epoch, offset })) in known.enumerate() {
            text.extend_from_slice(if i == 0 { br#","since":{"positions":{""# } else { b",\"" });
            self.quoted.put(topic, &mut text);
            text.extend_from_slice(format!(r#"":{{"epoch":"{epoch:016x}","offset":{offset}}}"#).as_bytes());
        }
        if since.iter().any(Option::is_some) {
            text.extend_from_slice(b"}}");
        }
        text
    }

    pub(super) fn publish(&self, topic: u32, stamp: Stamp, payloads: &Payloads, uses: Uses, out: &mut Vec<u8>) {
        let key = uses.key(stamp.seq);
        let end = match key {
            Some(key) => KEY.len() + decimals(u64::from(key)) + END.len(),
            None if uses.retain => RETAINED_END.len(),
            None => END.len(),
        };
        let numbered = self.names.numbered();
        let payload = payloads.sizes().of(stamp.stream, stamp.seq) as usize;
        let number = if numbered { decimals(u64::from(topic)) } else { 0 };
        let len = self.publication.len() + number + PUBLISHED_DATA.len() + payload + end;
        socket::put(out, Opcode::Text, len, socket::mask(stamp), |out| {
            out.extend_from_slice(&self.publication);
            if numbered {
                put_number(u64::from(topic), out);
            }
            out.extend_from_slice(PUBLISHED_DATA);
            payloads.write(stamp, out);
            if let Some(key) = key {
                out.extend_from_slice(KEY);
                put_number(u64::from(key), out);
            }
            out.extend_from_slice(if uses.retain { RETAINED_END } else { END });
        });
    }

    pub(super) fn content<'a>(&'a self, duty: &'a Duty, payloads: &'a Payloads, uses: Uses) -> Envelopes<'a> {
        Envelopes { v1: self, duty, payloads, uses }
    }
}

/// The broker's side of one connection.
pub(super) struct Envelopes<'a> {
    v1: &'a V1,
    duty: &'a Duty,
    payloads: &'a Payloads,
    uses: Uses,
}

impl Messages for Envelopes<'_> {
    const KIND: Option<Kind> = Some(Kind::Text);
    const TAIL_MAX: usize = 4096;
    const OTHER_MAX: usize = 4 << 20;

    fn payloads(&self) -> &Payloads {
        self.payloads
    }

    #[inline]
    fn front(&self, bytes: &[u8]) -> Front {
        match self.read_front(bytes) {
            Ok(front) => front,
            Err(Miss::Cut) => Front::Cut,
            Err(Miss::Other) => Front::Other,
        }
    }

    #[inline]
    fn tail(&self, bytes: &[u8]) -> Option<Envelope> {
        if bytes == END { Some(Envelope::default()) } else { past::read_tail(bytes) }
    }

    /// Section 4.
    fn other(&self, state: &mut State, message: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        let said: Said<'_> = serde_json::from_slice(message).map_err(|error| {
            let shown = &message[..message.len().min(80)];
            format!("no ringyard.v1 ({error}): \"{}\"", shown.escape_ascii())
        })?;
        match &said.kind[..] {
            "ok" => {
                for begun in said.topics.iter().flatten() {
                    if let (Some(begin), Some(topic)) = (begun.begin()?, self.v1.names.topic(begun.topic.as_bytes())) {
                        visit.begun(topic, begin);
                    }
                }
                state.answered(V1::answers(self.duty, self.uses), visit);
            }
            "error" => {
                let code = said.code.as_deref().unwrap_or("error");
                return Err(format!("{code}: {}", said.reason.as_deref().unwrap_or("no reason given")).into());
            }
            "message" => self.unusual_message(&said, visit),
            kind => {
                let topic = said.topic.as_ref().and_then(|topic| self.v1.names.topic(topic.as_bytes()));
                match (kind, topic) {
                    ("gap", Some(topic)) => visit.gap(topic, said.from.unwrap_or(0), said.to.unwrap_or(0)),
                    ("reset", Some(topic)) => said.position().into_iter().for_each(|at| visit.reset(topic, at)),
                    ("state-end", topic) => visit.state_end(topic),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Ends a command and writes its frame.
fn put_command(mut text: Vec<u8>, throttle_ms: Option<u32>, out: &mut Vec<u8>) {
    if let Some(throttle_ms) = throttle_ms {
        text.extend_from_slice(br#","throttle":"#);
        put_number(u64::from(throttle_ms), &mut text);
    }
    text.push(b'}');
    protocol::frame::put_client_frame(out, Opcode::Text, &text, socket::fresh_mask());
}

/// Why a front could not be read.
enum Miss {
    Cut,
    Other,
}

impl Envelopes<'_> {
    /// `{"type":"message","topic":"loadgen/17","offset":5,"data":"` and a stamp.
    #[inline]
    fn read_front(&self, bytes: &[u8]) -> Result<Front, Miss> {
        let names = &self.v1.names;
        let mut rest = after(&self.v1.message, bytes)?;
        let mut topic = 0;
        if names.numbered() {
            let digits = digits(&mut rest)?;
            topic = names.numbered_topic(digits).ok_or(Miss::Other)?;
        }
        rest = after(OFFSET, rest)?;
        let offset = number(digits(&mut rest)?).ok_or(Miss::Other)?;
        rest = after(DATA, rest)?;
        if rest.len() < STAMP_LEN {
            return Err(Miss::Cut);
        }
        let stamp = Stamp::read(rest).ok_or(Miss::Other)?;
        let len = bytes.len() - rest.len() + STAMP_LEN;
        Ok(Front::Stamped { len, stamp, offset, intact: topic == names.of_stream(stamp.stream) })
    }

    /// A `message` that is not written as this broker does, or none of this run's.
    fn unusual_message(&self, said: &Said<'_>, visit: &mut impl Visit) {
        let data = said.data.as_ref().and_then(|data| data.as_str()).filter(|_| said.encoding.is_none());
        match data.and_then(|data| self.payloads.check(data.as_bytes())) {
            Some((stamp, intact)) => {
                let names = &self.v1.names;
                let topic = said.topic.as_ref().and_then(|topic| names.topic(topic.as_bytes()));
                visit.enveloped(stamp, intact && topic == Some(names.of_stream(stamp.stream)), said.envelope());
            }
            None => visit.foreign(),
        }
    }
}

/// What is behind a text that must come next.
#[inline]
fn after<'b>(text: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], Miss> {
    match bytes.strip_prefix(text) {
        Some(rest) => Ok(rest),
        None if text.starts_with(bytes) => Err(Miss::Cut),
        None => Err(Miss::Other),
    }
}

/// Takes the digits that must come next.
#[inline]
fn digits<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], Miss> {
    let len = bytes.iter().position(|byte| !byte.is_ascii_digit());
    let len = len.ok_or(if bytes.len() > 20 { Miss::Other } else { Miss::Cut })?;
    if !(1..=20).contains(&len) {
        return Err(Miss::Other);
    }
    let (digits, rest) = bytes.split_at(len);
    *bytes = rest;
    Ok(digits)
}

#[cfg(test)]
mod tests;
