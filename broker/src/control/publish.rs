//! `POST /pub/{topic}`: the body becomes a message, the answer says where the topic's home put it.
//!
//! Invariant: a topic's reference is taken and given away without waiting in between, so a request that is
//! given up half-way holds no name in the registry. Cost: the body is copied once, into the frame that
//! every raw subscriber shares; two short allocations, no thread is waited for but the home's.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use protocol::frame::HEADER_MAX;
use protocol::topic::{TopicError, check_name};
use protocol::v1::PayloadKind;
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::QUEUE_PAUSE;
use super::refusal::Refusal;
use super::routes::App;
use crate::limits::Limits;
use crate::shard::link::{Order, Published};
use crate::shard::stats::Refused;
use crate::topics::message::Payload;

/// How long a publish waits for room in its home's queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the rest of a body that is too long is read, so that the client reads why.
const DISCARD_PATIENCE: Duration = Duration::from_secs(2);
/// Room set aside before a body's first byte; more only as bytes come.
const BODY_ROOM: usize = 16 << 10;

/// Where the message was put.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    topic: String,
    /// Sixteen hexadecimal digits: JavaScript's numbers could not hold it.
    epoch: String,
    offset: u64,
}

/// The handler.
pub(super) async fn publish(
    State(app): State<App>,
    topic: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Answer>, Refusal> {
    let topic = checked(topic, request.uri().path(), app.limits())?;
    let (head, body) = request.into_parts();
    let room = collect(&head.headers, body, app.limits()).await?;
    let kind = kind_of(&head.headers, &room[HEADER_MAX..])?;
    let published = sequence(&app, &topic, Payload::in_place(kind, room[..].into(), app.links().budget.of_plane())).await?;
    Ok(Json(Answer { topic, epoch: format!("{:016x}", published.epoch), offset: published.offset }))
}

/// The topic that the path names, under the rules for WebSockets (`protocol::head`).
fn checked(topic: Result<Path<String>, PathRejection>, path: &str, limits: &Limits) -> Result<String, Refusal> {
    let encoded = path.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    let topic = match topic {
        Ok(Path(topic)) if encoded => topic,
        Err(_) if path.trim_end_matches('/') == "/pub" => String::new(),
        _ => return Err(bad("The topic is not percent-encoded UTF-8.")),
    };
    match check_name(&topic, limits.topic_bytes_max) {
        Ok(()) => Ok(topic),
        Err(error @ TopicError::Reserved) => Err(Refusal::new(StatusCode::FORBIDDEN, error)),
        Err(error) => Err(bad(error)),
    }
}

/// The body, behind room for a frame's header.
async fn collect(headers: &HeaderMap, mut body: Body, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let max = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|len| len > limits.message_bytes_max) {
        // Who waits for `100 Continue` sends nothing and needs no reader.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_long(limits));
    }
    let mut room = Vec::with_capacity(HEADER_MAX + announced.map_or(0, |len| BODY_ROOM.min(len as usize)));
    room.resize(HEADER_MAX, 0);
    while let Some(frame) = timeout(limits.handshake_timeout, body.frame()).await.map_err(|_| too_slow(limits))? {
        let frame = frame.map_err(|_| bad("The request body ended early or is malformed."))?;
        let Ok(data) = frame.into_data() else {
            continue;
        }; // trailers
        if data.len() > max - (room.len() - HEADER_MAX) {
            discard(body).await;
            return Err(too_long(limits));
        }
        room.extend_from_slice(&data);
    }
    Ok(room)
}

/// Reads on for a while: a connection closed with unread bytes is reset, and the answer lost with it.
async fn discard(mut body: Body) {
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(DISCARD_PATIENCE, all).await;
}

/// What subscribers are to take the body for. `curl -d` says urlencoded and means text.
fn kind_of(headers: &HeaderMap, body: &[u8]) -> Result<PayloadKind, Refusal> {
    let field = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let media = field.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let is_text = || std::str::from_utf8(body).is_ok();
    let text_or_binary = || {
        if is_text() { PayloadKind::Text } else { PayloadKind::Binary }
    };
    match media.as_deref() {
        None => Ok(text_or_binary()),
        Some(media) if media == "application/json" || media.ends_with("+json") => {
            if !is_text() {
                return Err(bad("The body is not JSON: it is not UTF-8."));
            }
            match serde_json::from_slice::<IgnoredAny>(body) {
                Ok(_) => Ok(PayloadKind::Json),
                Err(error) => Err(bad(format_args!("The body is not JSON: {error}."))),
            }
        }
        Some("application/x-www-form-urlencoded") => Ok(text_or_binary()),
        Some(media) if media.starts_with("text/") => Ok(text_or_binary()),
        Some(_) => Ok(PayloadKind::Binary),
    }
}

/// Has the topic's home give the message its place.
async fn sequence(app: &App, topic: &str, mut payload: Payload) -> Result<Published, Refusal> {
    let links = app.links();
    let deadline = Instant::now() + QUEUE_PATIENCE;
    let published = loop {
        if app.is_leaving() {
            let refusal = Refusal::unavailable("The broker is shutting down; the message was not published.");
            return Err(refusal.because(Refused::Draining).retry_as(&links.admission.draining()));
        }
        if !links.registry.admits(topic, app.limits().topics_max) {
            let refusal = Refusal::unavailable("The broker has as many topics as --max-topics allows.");
            return Err(refusal.because(Refused::Topics));
        }
        let topic = links.registry.resolve(topic);
        let (answer, published) = oneshot::channel();
        match links.order(topic.home, Order::Publish { topic, payload, answer }) {
            Ok(()) => break published,
            Err(Order::Publish { topic, payload: back, .. }) => {
                links.registry.release(topic);
                payload = back;
            }
            Err(other) => unreachable!("a refused order comes back: {other:?}"),
        }
        if Instant::now() >= deadline {
            let refusal = Refusal::unavailable("The broker is overloaded; the message was not published.");
            return Err(refusal.because(Refused::Overload));
        }
        sleep(QUEUE_PAUSE).await;
    };
    published.await.map_err(|_| {
        let sentence = "The broker shut down meanwhile; the message may or may not have been published.";
        Refusal::unavailable(sentence).because(Refused::Draining)
    })
}

fn bad(sentence: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, sentence)
}

fn too_long(limits: &Limits) -> Refusal {
    let sentence = format!("The message is longer than {} bytes (--max-message).", limits.message_bytes_max);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}

fn too_slow(limits: &Limits) -> Refusal {
    let sentence = format!("No byte of the body came for {:?} (--handshake-timeout).", limits.handshake_timeout);
    Refusal::new(StatusCode::REQUEST_TIMEOUT, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PayloadKind::{Binary, Json, Text};

    fn kind(content_type: Option<&str>, body: &[u8]) -> Result<PayloadKind, StatusCode> {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        kind_of(&headers, body).map_err(|refusal| refusal.status())
    }

    #[test]
    fn content_types() {
        const FORM: &str = "application/x-www-form-urlencoded";
        type Case<'a> = (Option<&'a str>, &'a [u8], Result<PayloadKind, StatusCode>);
        let cases: [Case<'_>; 17] = [
            (None, b"hello", Ok(Text)),
            (None, b"", Ok(Text)),
            (None, b"\xff", Ok(Binary)),
            (Some(FORM), b"hello", Ok(Text)),
            (Some(FORM), b"\xff", Ok(Binary)),
            (Some("text/plain; charset=utf-8"), "grün".as_bytes(), Ok(Text)),
            (Some("TEXT/HTML"), b"\xff", Ok(Binary)),
            (Some("application/octet-stream"), b"hello", Ok(Binary)),
            (Some("image/png"), b"x", Ok(Binary)),
            (Some(""), b"x", Ok(Binary)),
            (Some("application/json"), b" {\"a\": [1, null]} ", Ok(Json)),
            (Some("Application/JSON ; charset=utf-8"), b"1e3", Ok(Json)),
            (Some("application/ld+json"), b"[]", Ok(Json)),
            (Some("application/json"), b"", Err(StatusCode::BAD_REQUEST)),
            (Some("application/json"), b"{\"a\": }", Err(StatusCode::BAD_REQUEST)),
            (Some("application/json"), b"1 2", Err(StatusCode::BAD_REQUEST)),
            (Some("application/json"), b"\"\xff\"", Err(StatusCode::BAD_REQUEST)),
        ];
        for (content_type, body, expected) in cases {
            assert_eq!(kind(content_type, body), expected, "{content_type:?} {body:?}");
        }
    }
}
