//! The wire protocols of what can be loaded: one adapter each, without I/O. Bytes come in, events and bytes come out.
//!
//! | file | what it speaks to |
//! | --- | --- |
//! | `raw` | Ringyard's `/sub`, `/pub`, `/bus`: a WebSocket message is a payload |
//! | `v1` | Ringyard's `/ws`, subprotocol `ringyard.v1`: many topics over one socket |
//! | `nats` | nats-server's WebSocket listener |
//! | `mqtt` | MQTT 3.1.1 over WebSocket (mosquitto and others), QoS 0 |
//! | `nchan` | Nchan's subscriber and publisher locations |
//! | `plain` | any server that sends every message to everybody on the same URL |
//! | `socket` | the WebSocket layer below all of them: upgrade, frames (RFC 6455) |
//!
//! What this does not know: sockets, time, order, counting (`worker`).

use std::net::SocketAddr;

use anyhow::Result;

use crate::stamp::{Payloads, Stamp};

/// A wire protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Ringyard's raw endpoints.
    Raw,
    /// `ringyard.v1`.
    V1,
    /// NATS over WebSocket.
    Nats,
    /// MQTT 3.1.1 over WebSocket.
    Mqtt,
    /// Nchan in nginx.
    Nchan,
    /// Whatever one client sends, all receive.
    Plain,
}

/// The topics of a run: how many, and what they are called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// One topic is called this; several are this, the protocol's separator, and a number.
    pub prefix: String,
    /// At least 1.
    pub count: u32,
}

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

/// What an adapter can do; what it cannot is refused before a run, with a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Topics one connection may subscribe to.
    pub subscriptions_max: u32,
    /// Topics one connection may publish on.
    pub publications_max: u32,
    /// One connection can do both.
    pub both: bool,
    /// [`Adapter::subscribe`] and [`Adapter::unsubscribe`] exist.
    pub churn: bool,
    /// [`Adapter::wire_len`] is exact, so that clients may count bytes without looking at them.
    pub discard: bool,
    /// A client receives what it publishes itself.
    pub echoes: bool,
}

/// What a stream contained, in its order.
pub trait Visit {
    /// The client is subscribed to all it asked for: from here on nothing may be missing. Once for the greeting, and
    /// once for each later [`Adapter::subscribe`] or [`Adapter::unsubscribe`] that the server acknowledged.
    fn ready(&mut self);
    /// A message; `intact` unless length or filler is wrong, or it came under another topic's name.
    fn message(&mut self, stamp: Stamp, intact: bool);
    /// A message that is none of this run's, or whose stamp is damaged.
    fn foreign(&mut self);
    /// The server asked for a sign of life, which [`Visit::reply`] carries.
    fn ping(&mut self);
    /// Send this, as it stands: framed and masked.
    fn reply(&mut self, bytes: &[u8]);
    /// A close frame; 1005 when it carries no code. Its answer went to `reply` already.
    fn close(&mut self, code: u16);
    /// The server refused something in words, or its bytes are not what the protocol allows. Nothing behind them is
    /// looked at.
    fn broken(&mut self, why: &str);
}

/// A server's answer to an upgrade that is no acceptance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// HTTP status; 0 when the bytes are no HTTP answer.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// The head's first line, and of the body what came with it.
    pub text: String,
}

// The rest of this file is the adapters' common face:
//
// pub struct Adapter { .. }          // one per run, shared by all workers (Send + Sync + Clone)
//
// impl Adapter {
//     /// `url`: ws://host:port[/path]. A path of `/` is the protocol's usual one. `publish_url` where it differs.
//     pub fn new(protocol, url: &str, publish_url: Option<&str>, names: Names, payloads: Payloads) -> Result<Self>
//     pub fn address(&self) -> SocketAddr;             // resolved
//     pub fn publish_address(&self) -> SocketAddr;
//     pub fn abilities(&self) -> Abilities;
//     /// Appends the upgrade request of a connection with this duty (RFC 6455, section 4.1).
//     pub fn request(&self, duty: &Duty, out: &mut Vec<u8>);
//     /// `bytes` is what came so far: not yet a whole head (None), accepted (length of the head; what follows is for
//     /// `feed`), or refused.
//     pub fn accepted(&self, bytes: &[u8]) -> Result<Option<usize>, Refused>;
//     /// Appends what goes out right behind the acceptance: connect, subscribe to all of the duty. May be nothing.
//     pub fn greet(&self, duty: &Duty, out: &mut Vec<u8>);
//     /// Whether `Visit::ready` comes from an answer to the greeting (true) or the upgrade itself is the
//     /// confirmation (false: `feed` never calls `ready` for the greeting).
//     pub fn answers_greeting(&self, duty: &Duty) -> bool;
//     /// Appends one message, framed and masked (mask of zeros is allowed by RFC 6455 5.3 only by the letter:
//     /// use a real mask that differs per message, cheaply).
//     pub fn publish(&self, topic: u32, stamp: Stamp, out: &mut Vec<u8>);
//     pub fn subscribe(&self, topic: u32, out: &mut Vec<u8>);     // churn
//     pub fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>);
//     /// Appends a sign of life that the server did not ask for: an unmasked-by-nobody pong (RFC 6455 5.5.3), for NATS
//     /// and MQTT what their protocol has as well (`PING`/`PONG`, PINGREQ).
//     pub fn heartbeat(&self, out: &mut Vec<u8>);
//     /// Appends a close frame with code 1000.
//     pub fn goodbye(&self, out: &mut Vec<u8>);
//     /// Walks the next bytes of a connection's stream.
//     pub fn feed(&self, inbound: &mut Inbound, duty: &Duty, bytes: &[u8], visit: &mut impl Visit);
//     /// Bytes that a subscriber's socket receives for this message, where that is exact.
//     pub fn wire_len(&self, topic: u32, stamp: Stamp) -> Option<u64>;
// }
//
// /// Where one connection's stream stands: at most 48 bytes, the rest on the heap only while a frame is cut.
// #[derive(Default)] pub struct Inbound { .. }
