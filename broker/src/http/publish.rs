//! `POST /pub/{topic}`: the body becomes a message, the answer says where the topic's sequencer put it. `POST /pub`
//! publishes many, in a batch (`batch`) or line by line (`lines`).
//!
//! Cost: the body is copied once, into the frame that every raw subscriber shares; no thread is waited for but the
//! sequencer's.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use protocol::frame::HEADER_MAX;
use protocol::v1::PayloadKind;
use tokio::time::{Instant, sleep};

use crate::capacity::budget::allocated;
use crate::config::limits::Limits;
use crate::http::app::App;
use crate::http::bodies::{self, Collected};
use crate::http::error::HttpError;
use crate::http::sequence::{self, Content, Sent, admit, exempted, scoped};
use crate::http::{QUEUE_PAUSE, batch, lines};
use crate::message::Payload;
use crate::publishing::payload::{self, Interpreted};
use crate::publishing::{Answer, CONTENT_TYPE, QUEUE_PATIENCE, options, overloaded, topic_of};
use crate::shard::shared::Published;

/// The field that tells a repeated publish.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Publishes one message, to the topic of the path.
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let (head, body) = request.into_parts();
    let limits = app.limits();
    let checked = topic_of(head.uri.path(), limits).and_then(|topic| {
        check_coding(&head.headers)?;
        let keys = head.headers.get_all(IDEMPOTENCY_KEY).iter().map(|value| value.as_bytes());
        Ok((topic, options::of_request(head.uri.query(), keys)?))
    });
    let (topic, options) = match checked {
        Ok(checked) => checked,
        Err(error) => return Err(refuse(&app, &head, body, error).await),
    };
    let payload = payload_of(&app, &head, body, || admit(&app, &head, &topic)).await?;
    let options = exempted(&app, &head, &topic, scoped(&app, &head, options));
    let published = sequence(&app, &topic, Content { payload, options }).await?;
    let Published { epoch, offset, subscribers, duplicate } = published;
    let answer = Answer::new(&topic, epoch, offset, subscribers, duplicate).to_json();
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], answer).into_response())
}

/// Reads a body as the payload of a message. `admit` says, once it is there, whether it may be one.
pub(crate) async fn payload_of(
    app: &App,
    head: &Parts,
    body: Body,
    admit: impl FnOnce() -> Result<(), HttpError>,
) -> Result<Payload, HttpError> {
    let limits = app.limits();
    let collected = bodies::collect(app, &head.headers, body, bodies::Bound::message(limits)).await?;
    let (kind, Collected { room, charge }) = interpret(&head.headers, collected, limits)?;
    admit()?;
    let capacity = room.capacity();
    let payload = Payload::in_place(kind, room, capacity, app.shared().budget.of_plane());
    // From here on it counts as a message.
    drop(charge);
    Ok(payload)
}

/// Publishes what the body lists, to the topics that it names.
pub(crate) async fn publish_many(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let (head, body) = request.into_parts();
    let checked = check_coding(&head.headers).and_then(|()| {
        if head.headers.contains_key(IDEMPOTENCY_KEY) {
            let sentence = "Idempotency-Key is for POST /pub/{topic}: items have an idempotency_key each.";
            return Err(HttpError::bad(sentence));
        }
        let content_type =
            head.headers.get(header::CONTENT_TYPE).map(|value| payload::media(value.as_bytes()).to_ascii_lowercase());
        Ok(content_type)
    });
    let media = match checked {
        Ok(media) => media,
        Err(error) => return Err(refuse(&app, &head, body, error).await),
    };
    // RFC 9110 §8.3.1: in any case.
    match media.as_deref() {
        Some(batch::CONTENT_TYPE) => batch::publish(app, head, body).await,
        Some(lines::CONTENT_TYPE) => Ok(lines::publish(app, head, body)),
        _ => {
            let sentence = "POST /pub takes application/json or application/x-ndjson; to publish a body as it is, POST it \
                            to /pub/{topic}.";
            let error = HttpError::new(415_u16, sentence).with("accept", "application/json, application/x-ndjson");
            Err(refuse(&app, &head, body, error).await)
        }
    }
}

/// Reads on behind a request that is refused, so that its client reads why.
pub(crate) async fn refuse(app: &App, head: &Parts, body: Body, error: HttpError) -> HttpError {
    bodies::discard(app, &head.headers, body).await;
    error
}

/// Whether the body is not in a content coding.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), HttpError> {
    payload::check_coding(headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.as_bytes()))
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

/// Has the topic's sequencer give the message its place. Waits while there is no room.
async fn sequence(app: &App, topic: &str, mut content: Content) -> Result<Published, HttpError> {
    let deadline = Instant::now() + QUEUE_PATIENCE;
    loop {
        match sequence::send(app, topic, content)? {
            Sent::Sent(_, answered) => return sequence::outcome(answered.await.ok()),
            Sent::MustWait(back) => content = back,
        }
        if Instant::now() >= deadline {
            return Err(overloaded());
        }
        sleep(QUEUE_PAUSE).await;
    }
}
