//! Why a request or a connection is not admitted, and what its client is answered: one table for both planes.
//!
//! Not responsible for the order in which the reasons win: see `policy`. Handshakes are answered
//! with the bytes of [`Rejection::answer`] by the plane that rejects them; the HTTP API puts the same sentence into JSON.

use std::borrow::Cow;

use protocol::head::{Page, Refusal};

use crate::access::principal::Denial;
use crate::access::quota::NamesFull;
use crate::access::{host, origin};
use crate::observe::counters::Refused;

/// When to try again whose address has all its connections, or who found no room for a topic: connections last, and
/// topics are forgotten slowly.
const LONG_S: u32 = 10;
/// When to try again while memory is short: connections that hold much of it are closed within a second.
const MEMORY_S: u32 = 2;

/// See the file's head. Numbers are seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// The head is wrong in itself; the parser's answer.
    Malformed(Refusal),
    /// No complete head in time.
    HeadTimeout,
    /// A head is not complete, and there is no memory to keep it.
    Memory,
    /// Addressed to this host, which is not the broker's.
    Host(String),
    /// From a page of a foreign origin.
    Origin,
    /// It publishes, and needs a key for that.
    NoKey,
    /// It brings a key to publish with that is none.
    WrongKey,
    /// It publishes, and clients may not.
    ReadOnly,
    /// It needs a token or a key, and brings none.
    Unauthorized,
    /// The token or key that it brings is not a good one.
    BadToken,
    /// The token names a key that may be among those that are being fetched. Whoever can wait judges again later.
    KeyAwaited,
    /// Nothing grants this to whom it is from, for this reason: a sentence.
    Forbidden(String),
    /// A handshake on the operators' port, elsewhere than at `/ws`.
    NoWebSockets,
    /// The connection publishes too fast.
    PublishRate,
    /// The broker is on its way out; when to try again.
    Draining(u32),
    /// There is no room for a new topic.
    Topics(NamesFull),
    /// The client began too many topics.
    NewTopics,
    /// The client's address has too many connections.
    Address,
    /// There are too many WebSockets; when to try again.
    Connections(u32),
    /// Too many handshakes come at once; when to try again.
    AcceptRate(u32),
    /// The control plane has too many connections.
    HttpConnections,
    /// A stream of events is not begun, for this reason. Where another try makes sense the answer is a stream that ends at once
    /// and says when: a browser's `EventSource` that is answered 429 or 503 never comes back.
    Stream(Box<Self>),
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        if denial.awaits_key { Self::KeyAwaited } else { Self::BadToken }
    }
}

impl Rejection {
    /// Whether it may be another answer once keys were fetched.
    pub(crate) fn awaits_key(&self) -> bool {
        match self {
            Self::Stream(of_it) => of_it.awaits_key(),
            _ => matches!(self, Self::KeyAwaited),
        }
    }

    /// The same of a request for a stream of events.
    pub(crate) fn of_stream(self) -> Self {
        Self::Stream(Box::new(self))
    }

    /// The table: status, reason in the metrics, seconds until another try makes sense, sentence.
    #[rustfmt::skip]
    fn row(&self) -> (u16, Option<Refused>, Option<u32>, Cow<'static, str>) {
        let row = |status, cause, retry_s, sentence: &'static str| (status, Some(cause), retry_s, sentence.into());
        match self {
            Self::Malformed(parsed) => (parsed.status, Some(Refused::Request), parsed.retry_after_s, parsed.reason.clone()),
            Self::HeadTimeout => row(408, Refused::Request, None,
                "The request head was not complete in time; see --handshake-timeout."),
            Self::Memory => row(503, Refused::Memory, Some(MEMORY_S),
                "The broker is short of memory; see --max-memory."),
            Self::Host(host) => (421, Some(Refused::Host), None, host::sentence(host).into()),
            Self::Origin => row(403, Refused::Origin, None,
                "Pages of this origin may not use this broker: start it with --allow-origin and that origin."),
            Self::NoKey => row(401, Refused::Publish, None,
                "Publishing needs a key: send 'Authorization: Bearer' with one of the file that --publish-key names."),
            Self::WrongKey => row(401, Refused::Publish, None,
                "The key in 'Authorization: Bearer' is none of those in the file that --publish-key names."),
            Self::ReadOnly => row(403, Refused::Publish, None,
                "Clients of this broker only subscribe, at /sub or /ws, for it runs with --client-publish off: to publish, \
                 send 'Authorization: Bearer' with a key of --publish-key."),
            Self::Unauthorized => row(401, Refused::Access, None,
                "This broker needs a token: send 'Authorization: Bearer' with one, or with a key."),
            Self::BadToken => row(401, Refused::Access, None, "The token is not a good one."),
            Self::KeyAwaited => row(503, Refused::Access, Some(1),
                "The key that the token names is being fetched; try again."),
            Self::Forbidden(what) => (403, Some(Refused::Access), None, sentence(what).into()),
            Self::NoWebSockets => row(404, Refused::Request, None,
                "On the operators' port, the only WebSocket is at /ws."),
            // Counted as a command that was limited.
            Self::PublishRate => (429, None, Some(1),
                "Publishing faster than --max-publish-rate allows; the message was not published.".into()),
            Self::Draining(retry_s) => row(503, Refused::Draining, Some(*retry_s),
                "The broker is shutting down."),
            Self::Topics(full) => (503, Some(Refused::Topics), Some(LONG_S),
                format!("There is no room for the topic: {}.", full.as_str()).into()),
            Self::NewTopics => row(429, Refused::Topics, Some(LONG_S),
                "This client began as many topics as --max-topics-per-connection allows for now."),
            Self::Address => row(429, Refused::Address, Some(LONG_S),
                "This address has as many connections as --max-connections-per-address allows."),
            Self::Connections(retry_s) => row(503, Refused::Connections, Some(*retry_s),
                "The broker has as many connections as it takes; see --max-connections."),
            Self::AcceptRate(retry_s) => row(503, Refused::AcceptRate, Some(*retry_s),
                "More clients come at once than --accept-rate allows."),
            Self::HttpConnections => row(503, Refused::Overload, Some(1),
                "The broker has as many HTTP connections as it can."),
            Self::Stream(of_it) => of_it.row(),
        }
    }

    /// As what it counts; `None`: it is counted elsewhere.
    #[must_use]
    pub fn cause(&self) -> Option<Refused> {
        self.row().1
    }

    /// The answer to a client that waits for no JSON.
    #[must_use]
    pub fn answer(&self) -> Refusal {
        let (status, _, retry_after_s, sentence) = self.row();
        if let (Self::Stream(_), Some(retry_s)) = (self, retry_after_s) {
            return Refusal::end_of_stream(&sentence, retry_s);
        }
        Refusal { retry_after_s, challenge: self.challenge(), ..Refusal::new(status, sentence) }
    }

    /// The value of `WWW-Authenticate`, beyond what the status says (RFC 6750 §3.1).
    #[must_use]
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::BadToken => Some("Bearer error=\"invalid_token\""),
            Self::Forbidden(_) => Some("Bearer error=\"insufficient_scope\""),
            Self::Stream(of_it) => of_it.challenge(),
            _ => None,
        }
    }
}

/// A reason, as `ringyard.v1` gives it, as a sentence.
fn sentence(reason: &str) -> String {
    let mut rest = reason.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", rest.as_str())
}

/// The answer for the page that sent the request to read, if it is of one of these `origins`: a browser shows a page
/// nothing else of an answer from elsewhere, neither status nor `Retry-After`.
#[must_use]
pub fn readable(answer: Refusal, page: Option<Page<'_>>, origins: &[String]) -> Refusal {
    match page.filter(|page| origin::allowed(Some(page.origin), page.host, origins)) {
        Some(page) => answer.readable_for(page.origin),
        None => answer,
    }
}
