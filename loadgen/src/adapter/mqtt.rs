//! MQTT 3.1.1 over WebSocket (OASIS standard of 29 October 2014; section 6 for WebSocket), QoS 0.
//!
//! Control packets are a stream of bytes in binary messages. `CONNECT` with a clean session and the subscriptions are sent
//! at once, which section 3.1.4 allows; the client is ready when all are acknowledged. Keep alive is off, so that a silent
//! client costs nothing; `PINGREQ` still serves as a sign of life.

use anyhow::{Context, Result, ensure};
use protocol::frame::{Opcode, put_client_frame};
use protocol::topic::check_name;

use super::names::Called;
use super::socket::{self, Broken, Content, Kind, State, expect_kind};
use super::unit::{self, Unit, Units, stamp_len};
use super::url::Url;
use super::{Duty, Names, Visit};
use crate::stamp::{Payloads, Stamp};

/// Topics of one `SUBSCRIBE`: a few KiB.
const TOPICS_PER_PACKET: u32 = 64;
/// What a packet's remaining length can say (section 2.2.3).
const REMAINING_MAX: u32 = 268_435_455;
/// The longest answer that is accepted, in bytes.
const ANSWER_MAX: usize = 64 << 10;

const CONNACK: u8 = 0x20;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const UNSUBSCRIBE: u8 = 0xa2;
const UNSUBACK: u8 = 0xb0;
const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: u8 = 0xd0;
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// An MQTT server's WebSocket listener.
#[derive(Debug)]
pub(super) struct Mqtt {
    subscribe: Url,
    publish: Url,
    names: Called,
    /// The beginning of all client identifiers of this run: a server closes one of two clients with the same identifier.
    run: String,
}

impl Mqtt {
    /// Section 6.
    pub(super) const SUBPROTOCOL: &str = "mqtt";

    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names, payloads: &Payloads) -> Result<Self> {
        let called = Called::new(names, '/');
        check_name(&called.name(names.count - 1), usize::from(u16::MAX))
            .with_context(|| format!("the topic {:?} cannot be used", names.prefix))?;
        let rest_max = 2 + called.len_max() as u64;
        ensure!(
            u64::from(payloads.sizes().max()) + rest_max <= u64::from(REMAINING_MAX),
            "an MQTT packet has room for {REMAINING_MAX} bytes, not for a payload of {}",
            payloads.sizes().max()
        );
        let usual = |url: &Url| if url.is_bare() { url.with_path("/mqtt") } else { url.clone() };
        Ok(Self {
            subscribe: usual(url),
            publish: usual(publish.unwrap_or(url)),
            names: called,
            run: format!("r{:012x}", fastrand::u64(..) >> 16),
        })
    }

    pub(super) fn url(&self, duty: &Duty) -> &Url {
        if duty.subscribes.count == 0 { &self.publish } else { &self.subscribe }
    }

    /// Answers to the greeting: `CONNACK` and a `SUBACK` per `SUBSCRIBE`.
    pub(super) fn answers(duty: &Duty) -> u32 {
        1 + duty.subscribes.count.div_ceil(TOPICS_PER_PACKET)
    }

    pub(super) fn greet(&self, duty: &Duty, out: &mut Vec<u8>) {
        // Section 3.1: protocol level 4, clean session, no keep alive. 21 letters and digits are what every server
        // takes as a client identifier [MQTT-3.1.3-5].
        let mut connect = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        put_text(format!("{}{:08x}", self.run, socket::serial()).as_bytes(), &mut connect);
        send(0x10, &connect, out);
        let mut topics = duty.subscribes.iter(self.names.count());
        for packet in 1..Self::answers(duty) {
            self.subscriptions(packet, topics.by_ref().take(TOPICS_PER_PACKET as usize), out);
        }
    }

    pub(super) fn subscribe(&self, topic: u32, out: &mut Vec<u8>) {
        self.subscriptions(topic, [topic], out);
    }

    pub(super) fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        let mut packet = identifier(topic).to_vec();
        put_text(self.names.name(topic).as_bytes(), &mut packet);
        send(UNSUBSCRIBE, &packet, out);
    }

    /// Section 3.8.
    fn subscriptions(&self, number: u32, topics: impl IntoIterator<Item = u32>, out: &mut Vec<u8>) {
        let mut packet = identifier(number).to_vec();
        for topic in topics {
            put_text(self.names.name(topic).as_bytes(), &mut packet);
            packet.push(0);
        }
        send(SUBSCRIBE, &packet, out);
    }

    /// Section 3.3.
    pub(super) fn publish(&self, topic: u32, stamp: Stamp, payloads: &Payloads, out: &mut Vec<u8>) {
        let name = self.names.len(topic);
        let payload = payloads.sizes().of(stamp.stream, stamp.seq) as usize;
        let (remaining, digits) = remaining(2 + name + payload);
        let len = 1 + digits + 2 + name + payload;
        socket::put(out, Opcode::Binary, len, socket::mask(stamp), |out| {
            out.push(0x30);
            out.extend_from_slice(&remaining[..digits]);
            out.extend_from_slice(&(name as u16).to_be_bytes());
            self.names.put(topic, out);
            payloads.write(stamp, out);
        });
    }

    pub(super) fn heartbeat(out: &mut Vec<u8>) {
        put_client_frame(out, Opcode::Binary, &PINGREQ, socket::fresh_mask());
    }

    /// Section 3.14.
    pub(super) fn goodbye(out: &mut Vec<u8>) {
        put_client_frame(out, Opcode::Binary, &DISCONNECT, socket::fresh_mask());
    }

    pub(super) fn content<'a>(&'a self, duty: &'a Duty, payloads: &'a Payloads) -> Packets<'a> {
        Packets { mqtt: self, duty, payloads }
    }
}

/// A packet identifier, which is never 0 (section 2.3.1).
fn identifier(number: u32) -> [u8; 2] {
    ((number % u32::from(u16::MAX)) as u16 + 1).to_be_bytes()
}

/// Text with its length (section 1.5.3).
fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

/// A packet in a message of its own.
fn send(kind: u8, rest: &[u8], out: &mut Vec<u8>) {
    let (remaining, digits) = remaining(rest.len());
    let packet = [&[kind], &remaining[..digits], rest].concat();
    put_client_frame(out, Opcode::Binary, &packet, socket::fresh_mask());
}

/// A remaining length's digits of 7 bits, and how many (section 2.2.3).
fn remaining(mut len: usize) -> ([u8; 4], usize) {
    let mut digits = [0; 4];
    for (i, digit) in digits.iter_mut().enumerate() {
        *digit = (len & 0x7f) as u8;
        len >>= 7;
        if len == 0 {
            return (digits, i + 1);
        }
        *digit |= 0x80;
    }
    unreachable!("sizes were checked when the run was set up")
}

/// The server's side of one connection.
pub(super) struct Packets<'a> {
    mqtt: &'a Mqtt,
    duty: &'a Duty,
    payloads: &'a Payloads,
}

impl Content for Packets<'_> {
    /// Binary only [MQTT-6.0.0-1].
    #[inline]
    fn whole(&self, state: &mut State, kind: Kind, payload: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        expect_kind(kind, Kind::Binary)?;
        unit::stream(self, state, payload, visit)
    }

    fn piece(
        &self,
        state: &mut State,
        kind: Kind,
        piece: &[u8],
        _: bool,
        visit: &mut impl Visit,
    ) -> Result<(), Broken> {
        expect_kind(kind, Kind::Binary)?;
        unit::stream(self, state, piece, visit)
    }
}

impl Units for Packets<'_> {
    const TAIL: &'static [u8] = &[];

    fn payloads(&self) -> &Payloads {
        self.payloads
    }

    fn topic(&self, stream: u32) -> u32 {
        self.mqtt.names.of_stream(stream)
    }

    #[inline]
    fn unit(&self, state: &mut State, bytes: &[u8], visit: &mut impl Visit) -> Result<Unit, Broken> {
        let Some((header, remaining)) = fixed_header(bytes)? else {
            return Ok(Unit::Cut);
        };
        if bytes[0] >> 4 == 3 {
            return self.message(bytes, header, remaining);
        }
        if remaining > ANSWER_MAX {
            return Err(format!("a packet of type {:#04x} and {remaining} bytes", bytes[0]).into());
        }
        let Some(packet) = bytes[header..].get(..remaining) else {
            return Ok(Unit::Cut);
        };
        self.answer(bytes[0], packet, state, visit)?;
        Ok(Unit::Done(header + remaining))
    }
}

impl Packets<'_> {
    /// A `PUBLISH` (section 3.3).
    #[inline]
    fn message(&self, bytes: &[u8], header: usize, remaining: usize) -> Result<Unit, Broken> {
        if bytes[0] & 0x06 != 0 {
            return Err("a message of a QoS that was not asked for".into());
        }
        if remaining < 2 {
            return Err("a message without a topic".into());
        }
        let Some(len) = bytes[header..].first_chunk() else {
            return Ok(Unit::Cut);
        };
        let name = usize::from(u16::from_be_bytes(*len));
        let Some(payload) = (remaining - 2).checked_sub(name) else {
            return Err("a message shorter than its topic".into());
        };
        let front = header + 2 + name;
        if bytes.len() < front + stamp_len(payload as u64) {
            return Ok(Unit::Cut);
        }
        let topic = self.mqtt.names.topic(&bytes[header + 2..front]);
        Ok(Unit::Message { front, len: payload as u64, topic })
    }

    /// Sections 3.2, 3.9, 3.11 and 3.13.
    fn answer(&self, kind: u8, packet: &[u8], state: &mut State, visit: &mut impl Visit) -> Result<(), Broken> {
        match (kind, packet) {
            (CONNACK, [_, 0]) | (UNSUBACK, [_, _]) => state.answered(Mqtt::answers(self.duty), visit),
            (CONNACK, [_, code]) => return Err(refusal(*code)),
            (SUBACK, [_, _, codes @ ..]) if !codes.is_empty() => {
                if codes.iter().any(|code| *code > 2) {
                    return Err("a subscription was refused".into());
                }
                state.answered(Mqtt::answers(self.duty), visit);
            }
            (PINGRESP, []) => {}
            _ => return Err(format!("a packet that is none of a server's: {kind:#04x}, {} bytes", packet.len()).into()),
        }
        Ok(())
    }
}

/// A packet's remaining length and where it begins; nothing while that is cut.
#[inline]
fn fixed_header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Broken> {
    let mut remaining = 0;
    for (i, digit) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(digit & 0x7f) << (7 * i);
        if digit & 0x80 == 0 {
            return Ok(Some((2 + i, remaining)));
        }
    }
    if bytes.len() < 5 { Ok(None) } else { Err("a packet whose length does not end".into()) }
}

/// Section 3.2.2.3.
fn refusal(code: u8) -> Broken {
    let why = match code {
        1 => "this version of the protocol",
        2 => "the client identifier",
        3 => "for now: server unavailable",
        4 => "user name or password",
        5 => "not authorized",
        _ => return format!("the server refused to connect with code {code}").into(),
    };
    format!("the server refused to connect: {why}").into()
}

#[cfg(test)]
mod tests;
