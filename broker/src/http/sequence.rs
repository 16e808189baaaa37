//! One message of an HTTP request on its way to its topic's sequencer and back.
//!
//! Not responsible for what the message is (`publishing`), nor for the order of several (`items`). Limits per client are
//! those of a WebSocket: messages a second of a connection, new topics of an address
//! ([`policy`](crate::access::policy)). Invariant: a topic's reference is taken and given away without waiting in between.
//! Cost: two look-ups in the registry, one allocation for the answer's channel.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use protocol::head::bearer_in;
use tokio::sync::oneshot;

use crate::access::address::{self, Client};
use crate::access::keys::Credential;
use crate::access::lock;
use crate::access::policy::{Kind, PublishFacts, Publishing, RequestFacts};
use crate::access::rejection::Rejection;
use crate::config::limits::Limits;
use crate::http::app::App;
use crate::http::caller::Caller;
use crate::http::connection::Connection;
use crate::http::error::HttpError;
use crate::message::Payload;
use crate::message::options::{PublishOptions, Refusal};
use crate::observe::counters::Refused;
use crate::shard::shared::{ControlMessage, Published};

/// What is published besides its topic.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) payload: Payload,
    pub(crate) options: Option<Box<PublishOptions>>,
}

/// The way of a sequencer's answer.
pub(crate) type Answered = oneshot::Receiver<Result<Published, Refusal>>;

/// What became of a message that was to be sent to its sequencer.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It is on its way; the topic's name, and where the answer comes.
    Sent(Arc<str>, Answered),
    /// The sequencer's queue is full, or the topic's subscribers are so far behind that its publishers have to wait.
    MustWait(Content),
}

/// Whether the sender of this request may publish a message to the topic now.
pub(crate) fn admit(app: &App, head: &Parts, topic: &str) -> Result<(), HttpError> {
    Caller::check_publish(app, head, topic)?;
    let (shared, limits) = (app.shared(), app.limits());
    let connection = head.extensions.get::<Arc<Connection>>().expect("every request comes with its connection");
    let facts = PublishFacts {
        rate_limiter: &mut lock(&connection.rate_limiter),
        topic: shared.admit_name(topic, limits.topics_max),
        name_bytes: shared.name_bytes(topic),
        names_left: shared.names_left(limits.topics_max),
        client: client(connection, &head.headers, limits),
        shares: app.name_shares(),
    };
    decide(app, &head.headers, facts)
}

/// What the policy says of a request with these facts, when its body is there.
pub(crate) fn decide(app: &App, headers: &HeaderMap, facts: PublishFacts<'_>) -> Result<(), HttpError> {
    let kind = Kind::Publish(facts);
    // Host and origin were judged with the head. The key may have been replaced since.
    let facts = RequestFacts { host: None, origin: None, publishing: publishing(app, headers), kind };
    let decision = app.policy().decide(facts);
    if matches!(decision, Err(Rejection::PublishRate)) {
        app.shared().plane.commands_limited.add(1);
    }
    decision.map(drop).map_err(HttpError::from)
}

/// Options of a message to this topic, with whether its sender needs no lease.
pub(crate) fn exempted(
    app: &App,
    head: &Parts,
    topic: &str,
    options: Option<Box<PublishOptions>>,
) -> Option<Box<PublishOptions>> {
    let is_exclusive = || app.shared().rules.kept_of(topic).is_exclusive;
    if Caller::needs_no_lease(head) && is_exclusive() { PublishOptions::exempt(options) } else { options }
}

/// Options of a request, with whether its sender holds a key.
pub(crate) fn scoped(app: &App, head: &Parts, options: Option<Box<PublishOptions>>) -> Option<Box<PublishOptions>> {
    let options = options?;
    let has_key = options.idempotency_key.is_some()
        && (Caller::is_known(head) || matches!(publishing(app, &head.headers), Publishing::Only(Credential::Valid)));
    Some(Box::new(PublishOptions { is_key_holder: has_key, ..*options }))
}

/// The right with which a request publishes.
pub(crate) fn publishing(app: &App, headers: &HeaderMap) -> Publishing {
    let values = headers.get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes());
    Publishing::Only(app.policy().credential(|| bearer_in(values)))
}

/// Whose a request is, for what clients are counted by.
pub(crate) fn client(connection: &Connection, headers: &HeaderMap, limits: &Limits) -> Option<Client> {
    match connection.lease.is_trusted() {
        true => forwarded(headers, limits).and_then(Client::of),
        false => connection.client,
    }
}

/// For whom a trusted proxy sends this request; `None`: for itself.
fn forwarded(headers: &HeaderMap, limits: &Limits) -> Option<IpAddr> {
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let members = lines.iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let members = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    address::client(members, &limits.trusted_proxies)
}

/// Sends a message to its topic's sequencer, if there is room.
pub(crate) fn send(app: &App, topic: &str, content: Content) -> Result<Sent, HttpError> {
    let shared = app.shared();
    if app.is_stopping() {
        return Err(shared.admission.draining().into());
    }
    let topic = shared.registry.resolve(topic);
    if topic.is_congested() {
        return Ok(Sent::MustWait(content));
    }
    let Content { payload, options } = content;
    let (answer, answered) = oneshot::channel();
    let (sequencer, name) = (topic.sequencer, Arc::clone(&topic.name));
    match shared.send_control(sequencer, ControlMessage::Publish { topic, payload, options, answer }) {
        Ok(()) => Ok(Sent::Sent(name, answered)),
        Err(ControlMessage::Publish { payload, options, .. }) => Ok(Sent::MustWait(Content { payload, options })),
        Err(other) => unreachable!("a refused order comes back: {other:?}"),
    }
}

/// What a sequencer's answer says; `None`: it ended without one.
pub(crate) fn outcome(answer: Option<Result<Published, Refusal>>) -> Result<Published, HttpError> {
    let published = answer.ok_or_else(|| {
        // Its shard answers in the moment in which it publishes.
        let sentence = "The broker shut down meanwhile; the message was not published.";
        HttpError::unavailable(sentence).because(Refused::Draining)
    })?;
    published.map_err(HttpError::from)
}
