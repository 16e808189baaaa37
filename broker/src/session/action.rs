//! What a session wants done, and by what of its client's message.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::frame::CloseCode;
use protocol::v1::{HistoryQuery, Id, LeaseAsked, PayloadKind, Position, SessionAsked, Start, Topics, Will};

use crate::capacity::budget::Account;
use crate::message::Payload;
use crate::message::options::PublishOptions;
use crate::observe::counters::Reason;
use crate::session::calls::CallAction;
use crate::topics::registry::TopicRef;
use crate::topics::rules::Throttle;

/// What a session wants done.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    /// Nothing, but to send the answer, if one was written.
    Answer,
    /// Find out who the client is, by its token or key if it brings one, give it the session that it asks for, and keep its will.
    Connect { id: Option<Id>, token: Option<&'a str>, session: Option<SessionAsked<'a>>, will: Option<Will<'a>> },
    /// End the client's session, and the connection.
    Disconnect { id: Option<Id> },
    /// Make the client a member of a topic, or let it say something else of itself there. `info` is the text of a JSON value.
    Enter { id: Option<Id>, topic: &'a str, info: Option<&'a [u8]>, is_update: bool },
    /// Take that back.
    Leave { id: Option<Id>, topic: &'a str },
    /// Say who is present at a topic: so many at most.
    Members { id: Option<Id>, topic: &'a str, limit: u32 },
    /// Publish. `id` names the command in an error; `ack`: and in an acknowledgement.
    Publish {
        to: Target<'a>,
        kind: PayloadKind,
        data: PublishData<'a>,
        options: Option<Box<PublishOptions>>,
        id: Option<Id>,
        ack: bool,
    },
    /// Subscribe to all of these, or to none. The topics' rules may make the throttle longer.
    Subscribe { id: Option<Id>, filters: Topics<'a>, start: Start<'a>, state: bool, throttle: Throttle },
    /// Read what a topic remembers.
    History { id: Option<Id>, topic: &'a str, query: HistoryQuery },
    /// Replace a topic's snapshot.
    Snapshot { id: Option<Id>, topic: &'a str, up_to: Position, kind: PayloadKind, data: &'a [u8], lease: Option<u64> },
    /// Something about requests.
    Call(CallAction<'a>),
    /// Take, renew or give back the lease of a topic.
    Lease { id: Option<Id>, topic: &'a str, asked: LeaseAsked },
    /// Keep a will, or none any more.
    Will { id: Option<Id>, will: Option<Will<'a>> },
    /// Unsubscribe: see [`finish_unsubscribe`](crate::session::SessionKind::finish_unsubscribe). `flush`: once all that its subscriptions hold is sent.
    Unsubscribe { flush: bool },
    /// Close the connection with a code (RFC 6455 7.4).
    Close { code: CloseCode, why: Cow<'static, str>, reason: Reason },
}

impl Action<'_> {
    /// Closes because of what the client sent.
    pub(crate) fn violation(code: CloseCode, why: &'static str) -> Self {
        Self::Close { code, why: why.into(), reason: Reason::Violation }
    }
}

/// Which topic is published to.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// One that the session has a handle of.
    Known(TopicRef),
    /// One that the registry knows, or has to learn.
    Named(&'a str),
}

/// The bytes of a publish.
#[derive(Debug)]
pub(crate) enum PublishData<'a> {
    /// To be copied.
    Copy(&'a [u8]),
    /// Behind room for a frame header.
    InPlace(BytesMut),
}

impl PublishData<'_> {
    /// A payload of these bytes, charged to `account`.
    pub(crate) fn into_payload(self, kind: PayloadKind, account: &Arc<Account>) -> Payload {
        match self {
            Self::Copy(bytes) => Payload::copy_of(kind, bytes, account),
            Self::InPlace(room) => {
                let capacity = room.capacity();
                Payload::in_place(kind, room, capacity, account)
            }
        }
    }
}
