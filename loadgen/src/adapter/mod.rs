//! The wire protocols that the load generator can use: one adapter each, without I/O. Bytes come in, events and bytes come
//! out.
//!
//! | file | what it speaks to |
//! | --- | --- |
//! | `raw` | Ringyard's `/sub`, `/pub`, `/bus`: a WebSocket message is a payload |
//! | `v1` | Ringyard's `/ws`, subprotocol `ringyard.v1`: many topics over one socket |
//! | `nats` | nats-server's WebSocket listener |
//! | `mqtt` | MQTT 3.1.1 over WebSocket (mosquitto and others), QoS 0 |
//! | `nchan` | Nchan's subscriber and publisher locations |
//! | `sse` | Ringyard's `/sub` as server-sent events, with raw publishers |
//! | `plain` | any server that sends every message to all connections of the same URL |
//! | `past` | what a topic's history adds to all of this: positions, envelopes, state |
//! | `unit` | finds the messages in all of these, wherever a read cut them |
//! | `socket` | the WebSocket layer below all of them: frames (RFC 6455, section 5) |
//! | `upgrade` | its opening handshake (RFC 6455, section 4) |
//! | `names`, `url` | the names of topics, and the server's address |
//! | `visit` | what streams contain, one call each |
//! | `abilities` | what each protocol can do |
//!
//! Not responsible for sockets, time, order and counting (`worker`).

mod abilities;
mod mqtt;
mod names;
mod nats;
mod nchan;
mod past;
mod plain;
mod raw;
mod socket;
mod sse;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unit;
mod upgrade;
mod url;
mod v1;
mod visit;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use protocol::frame::Opcode;
use rustls_pki_types::ServerName;

pub use self::abilities::{Abilities, Protocol};
use self::mqtt::Mqtt;
pub use self::names::Names;
use self::nats::Nats;
use self::nchan::Nchan;
pub use self::past::{Begin, Envelope, Position, SlowConsumer, Uses};
use self::plain::Plain;
use self::raw::Raw;
use self::sse::Sse;
use self::upgrade::Carried;
pub use self::upgrade::{Refused, upgrade_request};
use self::url::Url;
pub(crate) use self::url::without_scheme;
use self::v1::V1;
pub use self::visit::Visit;
use crate::stamp::{Payloads, Stamp};
use crate::token::TokenBy;

/// Some topics of a run: `first, first + step, ...`, `count` of them, all modulo the number of topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the type says it")]
pub struct Topics {
    pub first: u32,
    pub step: u32,
    pub count: u32,
}

/// What one connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Duty {
    /// Receives these. Count 0: none.
    pub subscribes: Topics,
    /// Publishes on these. Count 0: none. (A client of a chat room does both, on one topic.)
    pub publishes: Topics,
}

/// A protocol, a server's address and a run's topics and payloads: all that a connection must know to speak. One per
/// run, shared by all workers; cheap to clone. A connection's own state is its [`Inbound`].
///
/// A connection's life: [`request`](Self::request) is sent and [`accepted`](Self::accepted) asked until it accepts,
/// [`greet`](Self::greet) is sent, then [`feed`](Self::feed) walks what comes while [`publish`](Self::publish) and the
/// others append what goes out. Nothing here allocates per message.
#[derive(Clone, Debug)]
pub struct Adapter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    protocol: Protocol,
    payloads: Payloads,
    wire: Wire,
    uses: Uses,
}

#[derive(Debug)]
enum Wire {
    Raw(Raw),
    V1(V1),
    Nats(Nats),
    Mqtt(Mqtt),
    Nchan(Nchan),
    Plain(Plain),
    Sse(Sse),
}

impl Adapter {
    /// `url` is `ws://host:port[/path]`, or `wss://`; without a path, or with `/`, the protocol's usual one. `publish_url` is where
    /// clients go that only publish, if that is elsewhere. The host is resolved here, once.
    ///
    /// # Errors
    /// A URL or a topic the protocol cannot take, with a sentence.
    pub fn new(
        protocol: Protocol,
        url: &str,
        publish_url: Option<&str>,
        names: &Names,
        payloads: Payloads,
    ) -> Result<Self> {
        ensure!(names.count > 0, "a run has at least one topic");
        let url = Url::parse(url)?;
        let publish = publish_url.map(Url::parse).transpose()?;
        let wire = match protocol {
            Protocol::Raw => Wire::Raw(Raw::new(&url, publish.as_ref(), names)?),
            Protocol::V1 => Wire::V1(V1::new(&url, publish.as_ref(), names)?),
            Protocol::Nats => Wire::Nats(Nats::new(&url, publish.as_ref(), names)?),
            Protocol::Mqtt => Wire::Mqtt(Mqtt::new(&url, publish.as_ref(), names, &payloads)?),
            Protocol::Nchan => Wire::Nchan(Nchan::new(&url, publish.as_ref(), names)?),
            Protocol::Plain => Wire::Plain(Plain::new(&url, publish.as_ref(), names)?),
            Protocol::Sse => Wire::Sse(Sse::new(&url, publish.as_ref(), names)?),
        };
        Ok(Self { inner: Arc::new(Inner { protocol, payloads, wire, uses: Uses::default() }) })
    }

    /// The same with what the run makes use of beside plain messages. Nothing for protocols without
    /// [`Abilities::history`].
    #[must_use]
    pub fn using(self, uses: Uses) -> Self {
        match Arc::try_unwrap(self.inner) {
            Ok(inner) => Self { inner: Arc::new(Inner { uses, ..inner }) },
            Err(inner) => Self { inner },
        }
    }

    // ---- what it is

    /// Where clients that subscribe connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let subscribes = Topics { count: 1, ..Topics::default() };
        self.url(&Duty { subscribes, publishes: Topics::default() }).address
    }

    /// Where clients that only publish connect to.
    #[must_use]
    pub fn publish_address(&self) -> SocketAddr {
        self.url(&Duty::default()).address
    }

    /// Whom the certificate of the server must name to which a connection with this duty goes; nothing without TLS.
    #[must_use]
    pub fn server_name(&self, duty: &Duty) -> Option<&ServerName<'static>> {
        self.url(duty).server_name.as_ref()
    }

    /// What the protocol can do.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.inner.protocol.abilities()
    }

    /// Whether [`Visit::ready`] comes from an answer to the greeting. If not, the acceptance of the upgrade is the
    /// confirmation, and [`Adapter::feed`] never calls it for the greeting.
    #[must_use]
    pub fn answers_greeting(&self, duty: &Duty) -> bool {
        match &self.inner.wire {
            Wire::Raw(_) => self.inner.uses.positions && duty.subscribes.count > 0,
            Wire::Nchan(_) | Wire::Plain(_) | Wire::Sse(_) => false,
            Wire::V1(_) => V1::answers(duty, self.inner.uses) > 0,
            Wire::Nats(_) | Wire::Mqtt(_) => true,
        }
    }

    /// Bytes that a subscriber's socket receives for this message, where that is exact ([`Abilities::discard`]).
    #[must_use]
    pub fn wire_len(&self, _topic: u32, stamp: Stamp) -> Option<u64> {
        match &self.inner.wire {
            Wire::Raw(_) | Wire::Nchan(_) | Wire::Plain(_) => Some(raw::wire_len(&self.inner.payloads, stamp)),
            Wire::V1(_) | Wire::Nats(_) | Wire::Mqtt(_) | Wire::Sse(_) => None,
        }
    }

    fn url(&self, duty: &Duty) -> &Url {
        match &self.inner.wire {
            Wire::Raw(raw) => raw.urls.of(duty),
            Wire::V1(v1) => v1.url(duty),
            Wire::Nats(nats) => nats.url(duty),
            Wire::Mqtt(mqtt) => mqtt.url(duty),
            Wire::Nchan(nchan) => nchan.urls.of(duty),
            Wire::Plain(plain) => plain.url(duty),
            Wire::Sse(sse) => sse.0.urls.of(duty),
        }
    }

    fn subprotocol(&self) -> Option<&'static str> {
        match &self.inner.wire {
            Wire::V1(_) => Some(protocol::v1::SUBPROTOCOL),
            Wire::Mqtt(_) => Some(Mqtt::SUBPROTOCOL),
            Wire::Raw(_) if self.inner.uses.token_by == Some(TokenBy::Subprotocol) => Some(raw::SUBPROTOCOL),
            Wire::Raw(_) | Wire::Nats(_) | Wire::Nchan(_) | Wire::Plain(_) | Wire::Sse(_) => None,
        }
    }

    // ---- the upgrade

    /// Appends the upgrade request of a connection with this duty (RFC 6455, section 4.1).
    pub fn request(&self, duty: &Duty, out: &mut Vec<u8>) {
        self.request_with(duty, &[], None, out);
    }

    /// The same of a connection that goes on after these positions, if the request is where the protocol says that:
    /// those of its topics, in their order; and with a token, if that is where it stands ([`Uses::token_by`]).
    pub fn request_with(&self, duty: &Duty, since: &[Option<Position>], token: Option<&str>, out: &mut Vec<u8>) {
        let url = self.url(duty);
        let path = match &self.inner.wire {
            Wire::Raw(raw) if self.inner.uses.positions && duty.subscribes.count > 0 => {
                raw.path_since(duty, since.first().copied().flatten())
            }
            Wire::Raw(raw) | Wire::Sse(Sse(raw)) => raw.path(duty),
            Wire::Nchan(nchan) => nchan.path(duty),
            _ => url.path.clone(),
        };
        let by = |wanted| token.filter(|_| self.inner.uses.token_by == Some(wanted));
        if let Wire::Sse(sse) = &self.inner.wire
            && duty.subscribes.count > 0
        {
            return sse.put_request(duty, by(TokenBy::Header), out);
        }
        let carried = Carried {
            subprotocol: self.subprotocol(),
            offered_token: by(TokenBy::Subprotocol),
            bearer: by(TokenBy::Header),
        };
        upgrade::put_request(&url.host, &path, carried, out);
    }

    /// What a server answered so far: not yet a whole head (nothing), or an acceptance, with the length of its head.
    /// Bytes behind it are for [`Adapter::feed`].
    ///
    /// # Errors
    /// The answer is no acceptance.
    pub fn accepted(&self, bytes: &[u8]) -> Result<Option<usize>, Refused> {
        upgrade::accepted(bytes, self.subprotocol())
    }

    /// The same of a connection with this duty: a subscriber need not be a WebSocket.
    ///
    /// # Errors
    /// As of [`Adapter::accepted`].
    pub fn accepted_by(&self, duty: &Duty, bytes: &[u8]) -> Result<Option<usize>, Refused> {
        match &self.inner.wire {
            Wire::Sse(_) if duty.subscribes.count > 0 => upgrade::accepted_stream(bytes),
            _ => self.accepted(bytes),
        }
    }

    // ---- what goes out

    /// Appends what goes out right behind the acceptance: connect, subscribe to all of the duty, whose topics must
    /// differ from each other. May be nothing.
    pub fn greet(&self, duty: &Duty, out: &mut Vec<u8>) {
        self.greet_with(duty, &[], None, out);
    }

    /// The same of a connection that goes on after these positions, and logs in with a token, if the greeting is where the
    /// protocol says that.
    pub fn greet_with(&self, duty: &Duty, since: &[Option<Position>], token: Option<&str>, out: &mut Vec<u8>) {
        match &self.inner.wire {
            Wire::V1(v1) => {
                if let Some(token) = token.filter(|_| self.inner.uses.token_by == Some(TokenBy::Connect)) {
                    V1::log_in(token, out);
                }
                v1.greet(duty, self.inner.uses, since, out);
            }
            Wire::Nats(nats) => nats.greet(duty, out),
            Wire::Mqtt(mqtt) => mqtt.greet(duty, out),
            Wire::Raw(_) | Wire::Nchan(_) | Wire::Plain(_) | Wire::Sse(_) => {}
        }
    }

    /// Appends one message, framed and masked.
    pub fn publish(&self, topic: u32, stamp: Stamp, out: &mut Vec<u8>) {
        let payloads = &self.inner.payloads;
        match &self.inner.wire {
            Wire::Raw(_) | Wire::Nchan(_) | Wire::Plain(_) | Wire::Sse(_) => raw::publish(payloads, stamp, out),
            Wire::V1(v1) => v1.publish(topic, stamp, payloads, self.inner.uses, out),
            Wire::Nats(nats) => nats.publish(topic, stamp, payloads, out),
            Wire::Mqtt(mqtt) => mqtt.publish(topic, stamp, payloads, out),
        }
    }

    /// Appends a further subscription, to a topic the connection does not have. Nothing where
    /// [`Abilities::churn`] is missing.
    pub fn subscribe(&self, topic: u32, out: &mut Vec<u8>) {
        match &self.inner.wire {
            Wire::V1(v1) => v1.subscribe(topic, self.inner.uses, out),
            Wire::Nats(nats) => nats.subscribe(topic, out),
            Wire::Mqtt(mqtt) => mqtt.subscribe(topic, out),
            Wire::Raw(_) | Wire::Nchan(_) | Wire::Plain(_) | Wire::Sse(_) => {}
        }
    }

    /// Appends the end of a subscription. Nothing where [`Abilities::churn`] is missing.
    pub fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        match &self.inner.wire {
            Wire::V1(v1) => v1.unsubscribe(topic, out),
            Wire::Nats(nats) => nats.unsubscribe(topic, out),
            Wire::Mqtt(mqtt) => mqtt.unsubscribe(topic, out),
            Wire::Raw(_) | Wire::Nchan(_) | Wire::Plain(_) | Wire::Sse(_) => {}
        }
    }

    /// Appends a heartbeat that the server did not ask for: a pong (RFC 6455, section 5.5.3), or what the protocol
    /// has for it.
    pub fn heartbeat(&self, out: &mut Vec<u8>) {
        match &self.inner.wire {
            Wire::Nats(_) => Nats::heartbeat(out),
            Wire::Mqtt(_) => Mqtt::heartbeat(out),
            // Its subscribers send nothing, and its publishers are alive while they publish.
            Wire::Sse(_) => {}
            _ => socket::put_control(out, Opcode::Pong, &[]),
        }
    }

    /// Appends what ends the connection well: a close frame with code 1000, behind what the protocol has for it.
    pub fn goodbye(&self, out: &mut Vec<u8>) {
        if let Wire::Mqtt(_) = &self.inner.wire {
            Mqtt::goodbye(out);
        }
        socket::put_control(out, Opcode::Close, &1000_u16.to_be_bytes());
    }

    // ---- what comes in

    /// Walks the next bytes of a connection's stream, wherever they were cut. `duty` is the greeting's.
    pub fn feed(&self, inbound: &mut Inbound, duty: &Duty, bytes: &[u8], visit: &mut impl Visit) {
        let payloads = &self.inner.payloads;
        let mute = duty.subscribes.count == 0;
        match &self.inner.wire {
            Wire::Raw(raw) if self.inner.uses.positions && !mute => {
                socket::walk(inbound, &raw::Positioned(raw.content(duty, payloads)), bytes, visit);
            }
            Wire::Raw(raw) => socket::walk(inbound, &raw.content(duty, payloads), bytes, visit),
            Wire::V1(v1) => socket::walk(inbound, &v1.content(duty, payloads, self.inner.uses), bytes, visit),
            Wire::Nats(nats) => socket::walk(inbound, &nats.content(payloads), bytes, visit),
            Wire::Mqtt(mqtt) => socket::walk(inbound, &mqtt.content(duty, payloads), bytes, visit),
            Wire::Nchan(_) | Wire::Plain(_) | Wire::Sse(_) if mute => {
                socket::walk(inbound, &raw::Ignored, bytes, visit)
            }
            Wire::Nchan(nchan) => socket::walk(inbound, &nchan.content(duty, payloads), bytes, visit),
            Wire::Plain(plain) => socket::walk(inbound, &plain.content(duty, payloads), bytes, visit),
            Wire::Sse(sse) => sse::walk(inbound, &sse.0.content(duty, payloads), bytes, visit),
        }
    }
}

/// Where one connection's stream stands. On the heap only while something is cut.
#[derive(Debug, Default)]
pub struct Inbound {
    frames: socket::Frames,
    state: socket::State,
}

impl Inbound {
    /// Whether the stream is between two frames and between two messages, so that bytes may be counted instead of read.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.frames.is_between_messages() && self.state.cut.is_none()
    }
}

const _: () = assert!(size_of::<Inbound>() <= 48, "a million clients have one each");
