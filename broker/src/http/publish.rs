//! `POST /pub/{topic}`: the body becomes a message, the answer says where the topic's sequencer put it.
//!
//! Invariant: a topic's reference is taken and given away without waiting in between, so a request that is
//! given up half-way holds no name in the registry. Limits per client are those of a WebSocket: messages a second of
//! a connection, new topics of an address ([`policy`](crate::access::policy)). Cost: the body is copied once, into the frame that every raw
//! subscriber shares; no thread is waited for but the sequencer's.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use protocol::frame::HEADER_MAX;
use protocol::head::bearer_in;
use protocol::v1::PayloadKind;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::access::address::{self, Client};
use crate::access::lock;
use crate::access::policy::{Kind, PublishFacts, Publishing, RequestFacts};
use crate::access::rejection::Rejection;
use crate::capacity::budget::allocated;
use crate::config::limits::Limits;
use crate::http::QUEUE_PAUSE;
use crate::http::app::App;
use crate::http::bodies::{self, Collected};
use crate::http::connection::Connection;
use crate::http::error::HttpError;
use crate::message::Payload;
use crate::observe::counters::Refused;
use crate::publishing::payload::{self, Interpreted};
use crate::publishing::{Answer, CONTENT_TYPE, QUEUE_PATIENCE, overloaded, topic_of};
use crate::shard::shared::{ControlMessage, Published};

/// The handler.
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let (head, body) = request.into_parts();
    let limits = app.limits();
    let checked = topic_of(head.uri.path(), limits).and_then(|topic| {
        payload::check_coding(head.headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.as_bytes()))?;
        Ok(topic)
    });
    let topic = match checked {
        Ok(topic) => topic,
        Err(error) => {
            bodies::discard(&app, &head.headers, body).await;
            return Err(error);
        }
    };
    let collected = bodies::collect(&app, &head.headers, body).await?;
    let (kind, Collected { room, charge }) = interpret(&head.headers, collected, limits)?;
    admit(&app, &head, &topic)?;
    let capacity = room.capacity();
    let payload = Payload::in_place(kind, room, capacity, app.shared().budget.of_plane());
    // From here on it counts as a message.
    drop(charge);
    let published = sequence(&app, &topic, payload).await?;
    let Published { epoch, offset, subscribers, duplicate: _ } = published;
    let answer = Answer::new(&topic, epoch, offset, subscribers).to_json();
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], answer).into_response())
}

/// What is published of a body.
fn interpret(headers: &HeaderMap, mut body: Collected, limits: &Limits) -> Result<(PayloadKind, Collected), HttpError> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    match payload::interpret(content_type, &mut body.room[HEADER_MAX..], limits)? {
        Interpreted::AsItIs(kind) => Ok((kind, body)),
        Interpreted::Written(kind, room) => {
            body.charge.resize(allocated(room.capacity()));
            Ok((kind, Collected { room, ..body }))
        }
    }
}

/// Whether the sender of this request may publish a message to the topic now.
fn admit(app: &App, head: &Parts, topic: &str) -> Result<(), HttpError> {
    let (shared, limits) = (app.shared(), app.limits());
    let connection = head.extensions.get::<Arc<Connection>>().expect("every request comes with its connection");
    let kind = Kind::Publish(PublishFacts {
        rate_limiter: &mut lock(&connection.rate_limiter),
        topic: shared.admit_name(topic, limits.topics_max),
        name_bytes: shared.name_bytes(topic),
        names_left: shared.names_left(limits.topics_max),
        client: match connection.lease.is_trusted() {
            true => forwarded(&head.headers, limits).and_then(Client::of),
            false => connection.client,
        },
        shares: app.name_shares(),
    });
    // Host and origin were judged with the head. The key may have been replaced since.
    let facts = RequestFacts { host: None, origin: None, publishing: publishing(app, &head.headers), kind };
    let decision = app.policy().decide(facts);
    if matches!(decision, Err(Rejection::PublishRate)) {
        shared.plane.commands_limited.add(1);
    }
    decision.map(drop).map_err(HttpError::from)
}

/// The right with which a request publishes.
pub(crate) fn publishing(app: &App, headers: &HeaderMap) -> Publishing {
    let values = headers.get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes());
    Publishing::Only(app.policy().credential(|| bearer_in(values)))
}

/// For whom a trusted proxy sends this request; `None`: for itself.
fn forwarded(headers: &HeaderMap, limits: &Limits) -> Option<IpAddr> {
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let members = lines.iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let members = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    address::client(members, &limits.trusted_proxies)
}

/// Has the topic's sequencer give the message its place. Waits while the sequencer's queue is full, or the topic's subscribers
/// are so far behind that its publishers have to wait.
async fn sequence(app: &App, topic: &str, mut payload: Payload) -> Result<Published, HttpError> {
    let shared = app.shared();
    let deadline = Instant::now() + QUEUE_PATIENCE;
    let published = loop {
        if app.is_stopping() {
            return Err(shared.admission.draining().into());
        }
        let topic = shared.registry.resolve(topic);
        if !topic.is_congested() {
            let (answer, published) = oneshot::channel();
            let sequencer = topic.sequencer;
            let order = ControlMessage::Publish { topic, payload, options: None, answer };
            match shared.send_control(sequencer, order) {
                Ok(()) => break published,
                Err(ControlMessage::Publish { payload: back, .. }) => payload = back,
                Err(other) => unreachable!("a refused order comes back: {other:?}"),
            }
        }
        if Instant::now() >= deadline {
            return Err(overloaded());
        }
        sleep(QUEUE_PAUSE).await;
    };
    let published = published.await.map_err(|_| {
        let sentence = "The broker shut down meanwhile; the message may or may not have been published.";
        HttpError::unavailable(sentence).because(Refused::Draining)
    })?;
    published.map_err(HttpError::from)
}
