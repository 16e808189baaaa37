//! Sockets between shards and the control plane: requests that a shard hands over, handshakes that it gets back.
//!
//! A socket travels with what was read of it, charged to the budget, and with the place of its client among the connections
//! of its address. Not responsible for the queue towards a shard: see [`shared`](crate::shard::shared).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use protocol::frame::CloseCode;
use protocol::head::{self, Endpoint, RawStart, Refusal};
use protocol::topic::is_wildcard;
use tokio::sync::Notify;

use crate::access::address::AddressLease;
use crate::access::authority::Authority;
use crate::access::keys::Credential;
use crate::access::policy::Publishing;
use crate::access::principal::Principal;
use crate::capacity::buffer::Buffer;
use crate::message::encoding::events::EventForm;
use crate::topics::rules::{HistoryKind, SharedRules, SlowConsumer};

/// What a WebSocket, or a stream of events, is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// `/sub/{filter}`.
    Subscribe(String),
    /// `/pub/{topic}`.
    Publish(String),
    /// `/bus/{topic}`.
    Bus(String),
    /// `/ws`.
    V1Session,
    /// `/sub` over HTTP.
    Events(Box<Stream>),
}

/// A stream of events, as its request asks for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Its topics and filters, each once.
    pub filters: Vec<String>,
    /// Whether its client understands the chunked coding.
    pub is_chunked: bool,
    /// Whether it wants messages as `ringyard.v1` has them.
    pub has_envelope: bool,
    /// Whether it begins where its client was before, without having been asked to by the page.
    pub is_resumed: bool,
    /// Whether its client named a place that there is not.
    pub lost_place: bool,
    /// The page's origin, if it may read the stream, and whether also with cookies.
    pub readable_for: Option<(String, bool)>,
}

/// As whom a WebSocket begins.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum Entry {
    /// As nobody in particular: there is no access control, or anonymous clients are admitted.
    #[default]
    Anyone,
    /// As this principal.
    Known(Arc<Principal>),
    /// Its `connect` has to say.
    Unknown,
    /// It is closed with this code right behind its 101.
    Refused(CloseCode, &'static str),
}

/// A handshake that was admitted, or a request for a stream, as far as its answer and its session need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// What it asked for.
    pub purpose: Purpose,
    /// The value of `Sec-WebSocket-Accept`; of a stream nothing.
    pub accept: [u8; 28],
    /// What was chosen of the sub-protocols on offer.
    pub subprotocol: Option<&'static str>,
    /// Whether it brought a valid key to publish with.
    pub has_key: bool,
    /// As whom it begins.
    pub entry: Entry,
    /// Where a raw subscription begins.
    pub start: RawStart,
}

impl Upgrade {
    /// Whether its subscription can begin as it asks to, by the rule of its topic.
    ///
    /// # Errors
    /// 400, with the reason.
    pub fn check_start(&self, rules: &SharedRules) -> Result<(), Refusal> {
        let (Purpose::Subscribe(topic) | Purpose::Bus(topic)) = &self.purpose else { return Ok(()) };
        if self.start.position && rules.history_of(topic) == HistoryKind::Keyed {
            let reason = "since and position need a topic whose frames can be counted; this one is keyed.";
            return Err(Refusal::new(400, reason));
        }
        if self.start.position && rules.current().policy_of(topic).slow_consumer != SlowConsumer::Disconnect {
            let reason = "since and position need a topic whose subscribers are sent every message.";
            return Err(Refusal::new(400, reason));
        }
        Ok(())
    }

    /// The 101, or for a stream the 200.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        let mut response = Vec::with_capacity(192);
        if let Purpose::Events(stream) = &self.purpose {
            stream.write_response(&mut response);
            return response;
        }
        head::write_switching_protocols(&mut response, &self.accept, self.subprotocol);
        response
    }
}

impl From<&head::Upgrade<'_>> for Upgrade {
    fn from(parsed: &head::Upgrade<'_>) -> Self {
        let (accept, subprotocol) = (parsed.accept, parsed.subprotocol);
        let purpose = Purpose::from(&parsed.endpoint);
        Self { purpose, accept, subprotocol, has_key: false, entry: Entry::Anyone, start: parsed.start }
    }
}

impl Upgrade {
    /// Has a page of `origin`, which passed the policy, read the stream; with cookies, if tokens may come in one.
    pub(crate) fn make_readable(&mut self, origin: Option<&str>, authority: &Authority) {
        if let (Purpose::Events(stream), Some(origin)) = (&mut self.purpose, origin) {
            stream.readable_for = Some((origin.to_owned(), authority.settings().cookie.is_some()));
        }
    }
}

impl Stream {
    /// The head of the answer. The connection ends with the stream: what a browser asked for meanwhile it asked for on others.
    fn write_response(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
              X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
              Vary: Origin\r\nConnection: close\r\n",
        );
        if let Some((origin, with_cookies)) = &self.readable_for {
            out.extend_from_slice(format!("Access-Control-Allow-Origin: {origin}\r\n").as_bytes());
            out.extend_from_slice(if *with_cookies { b"Access-Control-Allow-Credentials: true\r\n" } else { b"" });
        }
        out.extend_from_slice(if self.is_chunked { b"Transfer-Encoding: chunked\r\n\r\n" } else { b"\r\n" });
    }

    /// What its bytes look like.
    pub(crate) fn form(&self) -> EventForm {
        let has_ids = matches!(&self.filters[..], [topic] if !is_wildcard(topic));
        EventForm { has_ids, is_chunked: self.is_chunked, has_envelope: self.has_envelope, is_state: false }
    }
}

impl From<&head::Events<'_>> for Upgrade {
    fn from(parsed: &head::Events<'_>) -> Self {
        let stream = Stream {
            filters: parsed.filters.iter().map(|filter| filter.to_string()).collect(),
            is_chunked: parsed.is_chunked,
            has_envelope: parsed.has_envelope,
            is_resumed: parsed.is_resumed,
            lost_place: parsed.lost_place,
            readable_for: None,
        };
        let purpose = Purpose::Events(Box::new(stream));
        let (accept, subprotocol, entry) = ([0; 28], None, Entry::Anyone);
        Self { purpose, accept, subprotocol, has_key: false, entry, start: parsed.start }
    }
}

impl Purpose {
    /// Whether its messages are published, and with what right.
    pub(crate) fn publishing(&self, credential: Credential) -> Publishing {
        match self {
            Self::Subscribe(_) | Self::Events(_) => Publishing::None,
            Self::Publish(_) => Publishing::Only(credential),
            Self::Bus(_) => Publishing::Both(credential),
            Self::V1Session => Publishing::ByCommand(credential),
        }
    }
}

impl From<&Endpoint<'_>> for Purpose {
    fn from(endpoint: &Endpoint<'_>) -> Self {
        match endpoint {
            Endpoint::Subscribe(filter) => Self::Subscribe(filter.to_string()),
            Endpoint::Publish(topic) => Self::Publish(topic.to_string()),
            Endpoint::Bus(topic) => Self::Bus(topic.to_string()),
            Endpoint::V1Session => Self::V1Session,
        }
    }
}

/// A socket whose handshake the control plane admitted, and the shard answers.
#[derive(Debug)]
pub struct Adopt {
    /// A connected stream socket.
    pub socket: OwnedFd,
    /// What its client waits for.
    pub upgrade: Box<Upgrade>,
    /// Bytes that arrived behind the request head.
    pub read: Buffer,
    /// As what its client counts.
    pub lease: AddressLease,
}

/// A connection that sent an HTTP request, not a WebSocket handshake.
#[derive(Debug)]
pub struct Handover {
    /// A connected, non-blocking stream socket.
    pub socket: OwnedFd,
    /// Bytes already read from it, from the request's first byte on.
    pub read: Buffer,
    /// As what its client counts.
    pub lease: AddressLease,
    /// Whether the socket is one end of a bridge, so that its own address says nothing about the client. Then `lease` says it
    /// all: where clients of other machines can connect, it counts each of them.
    pub is_bridged: bool,
}

/// Sockets on their way from shards to the control plane.
#[derive(Debug)]
pub struct Handovers {
    queue: ArrayQueue<Handover>,
    arrived: Notify,
}

impl Handovers {
    pub(crate) fn new(sockets_max: usize) -> Self {
        Self { queue: ArrayQueue::new(sockets_max), arrived: Notify::new() }
    }

    /// A shard's side.
    ///
    /// # Errors
    /// The socket itself, when too many wait: the shard closes it and counts that.
    pub(crate) fn push(&self, handover: Handover) -> Result<(), Handover> {
        self.queue.push(handover)?;
        self.arrived.notify_one();
        Ok(())
    }

    /// The control plane's side: the next socket. Cancel safe.
    pub async fn next(&self) -> Handover {
        loop {
            if let Some(handover) = self.queue.pop() {
                return handover;
            }
            self.arrived.notified().await;
        }
    }

    /// How many wait now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.len()
    }

    /// The next socket if one waits.
    #[must_use]
    pub fn try_next(&self) -> Option<Handover> {
        self.queue.pop()
    }
}
