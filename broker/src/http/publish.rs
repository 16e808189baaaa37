//! `POST /pub/{topic}`: the body becomes a message, the answer says where the topic's sequencer put it.
//!
//! Invariant: a topic's reference is taken and given away without waiting in between, so a request that is
//! given up half-way holds no name in the registry. Limits per client are those of a WebSocket: messages a second of
//! a connection, new topics of an address (`names`). Cost: the body is copied once, into the frame that every raw
//! subscriber shares; no thread is waited for but the sequencer's.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use protocol::head::{Endpoint, endpoint};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::access::address::{AddressLease, Client};
use crate::access::quota::Name;
use crate::config::limits::Limits;
use crate::http::app::App;
use crate::http::bodies::{self, Collected};
use crate::http::connection::{Connection, lock};
use crate::http::error::HttpError;
use crate::http::{QUEUE_PAUSE, payload, upgrade};
use crate::message::Payload;
use crate::observe::counters::Refused;
use crate::shard::shared::{ControlMessage, Published};

/// How long a publish waits for room in its sequencer's queue, and for its topic's slow subscribers.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// When somebody may publish again who did so too fast.
const RATE_RETRY_S: u32 = 1;
/// When somebody may begin a topic again who began too many, or found no room: topics are forgotten slowly.
const TOPICS_RETRY_S: u32 = 10;

/// Where the message was put.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    topic: String,
    /// Sixteen hexadecimal digits: JavaScript's numbers could not hold it.
    epoch: String,
    offset: u64,
}

/// The handler.
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Result<Json<Answer>, HttpError> {
    let (head, body) = request.into_parts();
    let limits = app.limits();
    let checked = topic_of(head.uri.path(), limits).and_then(|topic| {
        payload::check_coding(&head.headers)?;
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
    let (kind, Collected { room, charge }) = payload::interpret(&head.headers, collected, limits)?;
    let publisher = Publisher::new(head.extensions.get::<Arc<Connection>>(), &head.headers, limits);
    publisher.take_turn(&app)?;
    let capacity = room.capacity();
    let payload = Payload::in_place(kind, room, capacity, app.shared().budget.of_plane());
    // From here on it counts as a message.
    drop(charge);
    let published = sequence(&app, &topic, &publisher, payload).await?;
    Ok(Json(Answer { topic, epoch: format!("{:016x}", published.epoch), offset: published.offset }))
}

/// The topic that the path names, under the rules for WebSockets.
fn topic_of(path: &str, limits: &Limits) -> Result<String, HttpError> {
    // Without a topic it is the same request with an empty one.
    let path = if path == "/pub" { "/pub/" } else { path };
    match endpoint(path, limits.topic_bytes_max) {
        Ok(Endpoint::Publish(topic)) => Ok(topic.into_owned()),
        Ok(_) => Err(HttpError::bad("There is no topic in this path.")),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
            Err(HttpError::new(status, refusal.reason))
        }
    }
}

/// Who publishes, for the limits that hold per client.
struct Publisher {
    connection: Arc<Connection>,
    client: Option<Client>,
}

impl Publisher {
    fn new(connection: Option<&Arc<Connection>>, headers: &HeaderMap, limits: &Limits) -> Self {
        let connection = connection.cloned();
        let connection =
            connection.unwrap_or_else(|| Arc::new(Connection::new(AddressLease::default(), || None, limits)));
        let client = if connection.lease.is_trusted() {
            upgrade::forwarded(headers, limits).and_then(Client::of)
        } else {
            connection.client
        };
        Self { connection, client }
    }

    /// Whether it may publish one more message now (`--max-publish-rate`).
    fn take_turn(&self, app: &App) -> Result<(), HttpError> {
        let Some(rate_max) = app.limits().publish_rate_max else { return Ok(()) };
        if lock(&self.connection.rate_limiter).take(ring::monotonic(), rate_max) {
            return Ok(());
        }
        app.shared().plane.commands_limited.add(1);
        let sentence = "Publishing faster than --max-publish-rate allows; the message was not published.";
        Err(HttpError::new(StatusCode::TOO_MANY_REQUESTS, sentence).uncounted().retry_after(RATE_RETRY_S))
    }

    /// Whether there is room for the topic, and this client may begin it if it is new.
    fn admit(&self, app: &App, topic: &str) -> Result<(), HttpError> {
        let limits = app.limits();
        match app.shared().admit_name(topic, limits.topics_max) {
            Ok(Name::Known) => return Ok(()),
            Ok(Name::New) => {}
            Err(full) => {
                let error = HttpError::unavailable(&format!("There is no room for the topic: {}.", full.as_str()));
                return Err(error.because(Refused::Topics).retry_after(TOPICS_RETRY_S));
            }
        }
        let (bytes, left) = (app.shared().name_bytes(topic), app.shared().names_left(limits.topics_max));
        if !app.names().take(self.client, ring::monotonic(), limits, bytes, left) {
            let sentence = "This client began as many topics as --max-topics-per-connection allows for now.";
            let error = HttpError::new(StatusCode::TOO_MANY_REQUESTS, sentence);
            return Err(error.because(Refused::Topics).retry_after(TOPICS_RETRY_S));
        }
        Ok(())
    }
}

/// Has the topic's sequencer give the message its place. Waits while the sequencer's queue is full, or the topic's subscribers
/// are so far behind that its publishers have to wait.
async fn sequence(app: &App, topic: &str, publisher: &Publisher, mut payload: Payload) -> Result<Published, HttpError> {
    let shared = app.shared();
    let deadline = Instant::now() + QUEUE_PATIENCE;
    let mut admitted = false;
    let published = loop {
        if app.is_leaving() {
            let error = HttpError::unavailable("The broker is shutting down; the message was not published.");
            return Err(error.because(Refused::Draining).retry_as(&shared.admission.draining()));
        }
        if !admitted {
            publisher.admit(app, topic)?;
            admitted = true;
        }
        let topic = shared.registry.resolve(topic);
        if !topic.is_congested() {
            let (answer, published) = oneshot::channel();
            match shared.send_control(topic.sequencer, ControlMessage::Publish { topic, payload, answer }) {
                Ok(()) => break published,
                Err(ControlMessage::Publish { payload: back, .. }) => payload = back,
                Err(other) => unreachable!("a refused order comes back: {other:?}"),
            }
        }
        if Instant::now() >= deadline {
            let error = HttpError::unavailable("The broker is overloaded; the message was not published.");
            return Err(error.because(Refused::Overload));
        }
        sleep(QUEUE_PAUSE).await;
    };
    published.await.map_err(|_| {
        let sentence = "The broker shut down meanwhile; the message may or may not have been published.";
        HttpError::unavailable(sentence).because(Refused::Draining)
    })
}
