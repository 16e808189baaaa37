//! One request of an HTTP connection whose requests the shard answers itself: a single publish, from its head to its
//! answer. There is one at a time, so answers keep the order of their requests.
//!
//! Its life: a [`Publish`] is read and judged; its body comes, at once or in pieces ([`Exchange::Body`]); its message is on
//! the way to its sequencer ([`Exchange::Sequencing`]), for which it may have to wait; then it is answered and gone.
//! Between two requests a connection has none of this.
//!
//! Not responsible for bytes and times (`shard/transport/http.rs`), nor for who may publish (`shard/requests.rs`). Knows no
//! socket, shard or clock: time is an argument.
//!
//! Memory: what is kept of the head while a body comes is charged as part of HTTP connections.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::frame::HEADER_MAX;
use protocol::v1::PayloadKind;
use ring::Nanos;

use crate::access::address::Client;
use crate::access::keys::Bearer;
use crate::access::principal::Principal;
use crate::capacity::budget::{Account, Charge, Held};
use crate::config::limits::Limits;
use crate::message::Payload;
use crate::message::options::PublishOptions;
use crate::publishing::payload::{self, Interpreted};
use crate::publishing::problem::Problem;
use crate::session::raw::tight;
use crate::topics::registry::TopicRef;

/// What a request's head says, once it was judged.
#[derive(Clone, Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: Cow<'a, str>,
    pub(crate) options: Option<Box<PublishOptions>>,
    /// The value of the first `Content-Type`.
    pub(crate) content_type: Option<Cow<'a, [u8]>>,
    /// The origin of the page that sent it, if that may read the answer.
    pub(crate) page: Option<Cow<'a, str>>,
    /// The key that it brings, where there are keys.
    pub(crate) bearer: Option<Bearer>,
    /// Who publishes, where access control is on.
    pub(crate) principal: Option<Arc<Principal>>,
    /// Who publishes, if that is known.
    pub(crate) client: Option<Client>,
}

impl Publish<'_> {
    /// The same, without the head.
    fn keep(self) -> Publish<'static> {
        Publish {
            topic: Cow::Owned(self.topic.into_owned()),
            options: self.options,
            content_type: self.content_type.map(|value| Cow::Owned(value.into_owned())),
            page: self.page.map(|origin| Cow::Owned(origin.into_owned())),
            bearer: self.bearer,
            principal: self.principal,
            client: self.client,
        }
    }

    /// Bytes of its texts.
    fn len(&self) -> usize {
        let bearer = self.bearer.as_ref().map_or(0, |bearer| bearer.as_bytes().len());
        let page = self.page.as_ref().map_or(0, |origin| origin.len());
        let options = self.options.as_ref().map_or(0, |options| options.bytes());
        options + self.topic.len() + self.content_type.as_ref().map_or(0, |value| value.len()) + page + bearer
    }
}

/// Where a request is between its head and its answer.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// Its body is coming; so much of it is still to come.
    Body { publish: Box<Publish<'static>>, left: u64, _charge: Charge },
    /// Its message waits for its sequencer's answer, or for its topic since then.
    Sequencing { topic: TopicRef, page: Option<Box<str>>, since: Nanos },
}

impl Exchange {
    /// A request whose body of so many bytes is to come.
    pub(crate) fn awaiting_body(publish: Publish<'_>, body_len: u64, account: &Arc<Account>) -> Self {
        let bytes = size_of::<Publish<'_>>() + publish.len();
        let charge = Charge::new(account, Held::Http, bytes as u64);
        Self::Body { publish: Box::new(publish.keep()), left: body_len, _charge: charge }
    }

    /// How many of `len` bytes that came belong to its body; they count as come.
    pub(crate) fn take(&mut self, len: usize) -> usize {
        let Self::Body { left, .. } = self else { return 0 };
        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(len);
        *left -= taken as u64;
        taken
    }

    /// How much of its body is still to come; `None`: it is complete.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Body { left, .. } if *left > 0 => Some(*left),
            _ => None,
        }
    }

    /// Whether its body has come, and its message has been sent on, unless that waits for its topic.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(self, Self::Sequencing { .. })
    }

    /// The page that may read its answer.
    pub(crate) fn page(&self) -> Option<&str> {
        match self {
            Self::Body { publish, .. } => publish.page.as_deref(),
            Self::Sequencing { page, .. } => page.as_deref(),
        }
    }
}

/// Where a whole body is.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// In the buffer that it was received in.
    Received(&'a [u8]),
    /// In a buffer of its own, behind room for a frame header ([`HEADER_MAX`]).
    Gathered(BytesMut),
}

/// What a body becomes, not yet charged as a message.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Copy(PayloadKind, &'a [u8]),
    Gathered(PayloadKind, BytesMut),
    Written(PayloadKind, Vec<u8>),
}

impl<'a> Body<'a> {
    /// What is published of it.
    pub(crate) fn interpret(self, content_type: Option<&[u8]>, limits: &Limits) -> Result<Content<'a>, Problem> {
        match self {
            Self::Received(bytes) if payload::is_json(content_type) => {
                // Reading JSON overwrites it.
                let mut text = bytes.to_vec();
                match payload::interpret(content_type, &mut text, limits)? {
                    Interpreted::AsItIs(kind) => Ok(Content::Copy(kind, bytes)),
                    Interpreted::Written(kind, room) => Ok(Content::Written(kind, room)),
                }
            }
            Self::Received(bytes) => Ok(Content::Copy(payload::kind_of(content_type, bytes), bytes)),
            Self::Gathered(mut room) => match payload::interpret(content_type, &mut room[HEADER_MAX..], limits)? {
                Interpreted::AsItIs(kind) => Ok(Content::Gathered(kind, room)),
                Interpreted::Written(kind, room) => Ok(Content::Written(kind, room)),
            },
        }
    }
}

impl Content<'_> {
    /// The payload, charged to `account`.
    pub(crate) fn into_payload(self, account: &Arc<Account>) -> Payload {
        match self {
            Self::Copy(kind, bytes) => Payload::copy_of(kind, bytes, account),
            Self::Gathered(kind, room) => {
                let room = tight(room);
                let capacity = room.capacity();
                Payload::in_place(kind, room, capacity, account)
            }
            Self::Written(kind, room) => {
                let capacity = room.capacity();
                Payload::in_place(kind, room, capacity, account)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capacity::budget::Budget;
    use PayloadKind::{Binary, Json, Text};

    fn published(body: Body<'_>, content_type: &str) -> Result<(PayloadKind, Vec<u8>), u16> {
        let budget = Budget::new(1, 1 << 20);
        let limits = Limits { message_bytes_max: 100, ..Limits::default() };
        let content_type = Some(content_type.as_bytes()).filter(|value| !value.is_empty());
        let content = body.interpret(content_type, &limits).map_err(|problem| problem.status())?;
        let payload = content.into_payload(budget.of_shard(0));
        Ok((payload.kind(), payload.bytes().to_vec()))
    }

    fn gathered(bytes: &[u8]) -> Body<'static> {
        Body::Gathered(BytesMut::from(&[&[0; HEADER_MAX], bytes].concat()[..]))
    }

    #[test]
    fn a_body_becomes_the_same_at_once_and_in_pieces() {
        type Published<'a> = Result<(PayloadKind, &'a [u8]), u16>;
        let cases: [(&str, &[u8], Published<'_>); 6] = [
            ("", b"text", Ok((Text, b"text"))),
            ("image/png", b"text", Ok((Binary, b"text"))),
            ("text/plain", b"\xff", Ok((Binary, b"\xff"))),
            ("application/json", b" [1 ] ", Ok((Json, b"[1]"))),
            ("application/json", b"\"a\"", Ok((Text, b"a"))),
            ("application/json", b"[", Err(400)),
        ];
        for (content_type, body, expected) in cases {
            let expected = expected.map(|(kind, bytes)| (kind, bytes.to_vec()));
            assert_eq!(published(Body::Received(body), content_type), expected, "{content_type}");
            assert_eq!(published(gathered(body), content_type), expected, "{content_type}, in pieces");
        }
    }

    proptest! {
        /// However a body is cut, it takes what belongs to it and nothing behind it; what is kept of the head is charged.
        #[test]
        fn a_body_takes_its_own_bytes(pieces in prop::collection::vec(0usize..50, 1..20), body_len in 0u64..500) {
            let budget = Budget::new(1, 1 << 20);
            let account = budget.of_shard(0);
            let topic = Cow::Borrowed("a/b");
            let publish =
                Publish { topic, options: None, content_type: None, page: Some("http://a".into()), bearer: None, principal: None, client: None };
            let mut exchange = Exchange::awaiting_body(publish, body_len, account);
            prop_assert!(account.held(Held::Http) >= 11);
            let mut come = 0;
            for piece in pieces {
                let taken = exchange.take(piece);
                prop_assert_eq!(taken as u64, (piece as u64).min(body_len - come));
                come += taken as u64;
                prop_assert_eq!(exchange.left(), Some(body_len - come).filter(|left| *left > 0));
            }
            prop_assert_eq!(exchange.page(), Some("http://a"));
            drop(exchange);
            prop_assert_eq!(account.held(Held::Http), 0);
        }
    }
}
