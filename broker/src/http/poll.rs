//! `GET /sub/{topic}` without a stream: a long poll. It is answered at once, or, if its client has everything, as soon as there is more
//! or its time is over.
//!
//! No thread waits: the topic's sequencer has the other end of a channel (`shard/polls.rs`). Those that wait have places of their own,
//! half as many as there are HTTP connections, so that others always find one that answers them; beyond, 503. A poll ends with its
//! connection, and with the broker: then it is answered without a message.
//!
//! Cost: two messages to a shard at most.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use protocol::head::{self, Endpoint, RawStart, endpoint};
use protocol::topic::is_wildcard;
use protocol::v1::{Position, write_polled};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, timeout};

use crate::access::quota::Name;
use crate::access::rejection::Rejection;
use crate::config;
use crate::http::app::App;
use crate::http::caller::Caller;
use crate::http::connection::Connection;
use crate::http::error::HttpError;
use crate::http::{send_control, sequence};
use crate::observe::counters::Refused;
use crate::publishing::QUEUE_PATIENCE;
use crate::publishing::problem::Code;
use crate::sequencer::history::recall::Place;
use crate::shard::polls::{PollRequest, Polled};
use crate::shard::shared::ControlMessage;

/// How long a poll waits that does not say.
const WAIT: Duration = Duration::from_secs(25);
/// The longest it may.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Messages of an answer, unless the request says so.
const LIMIT: u32 = 100;
/// The most of them.
const LIMIT_MAX: u32 = 1000;

/// What the query says.
#[derive(PartialEq, Eq, Debug)]
struct Asked {
    since: Option<Position>,
    last: u32,
    limit: u32,
    wait: Duration,
}

/// Answers a poll.
pub(crate) async fn poll(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let (head, _) = request.into_parts();
    let topic = topic_of(&app, &head)?;
    if head.method == Method::HEAD && accepts_events(&head) {
        // What GET is answered with, which a shard does.
        Caller::check_poll(&app, &head, &topic, false).await?;
        return Ok(([(header::CONTENT_TYPE, "text/event-stream")], ()).into_response());
    }
    let asked = Asked::of(head.uri.query(), &topic)?;
    Caller::check_poll(&app, &head, &topic, asked.since.is_some() || asked.last > 0).await?;
    admit(&app, &head, &topic)?;
    let found = ask(&app, &topic, &asked, None).await?;
    let Some(since) = asked.since.filter(|_| found.is_nothing_new() && !asked.wait.is_zero()) else {
        return Ok(answer(found));
    };
    if head.method == Method::HEAD || app.is_closing() {
        return Ok(answer(found));
    }
    let Ok(place) = Arc::clone(app.polls()).try_acquire_owned() else {
        let sentence = "As many polls wait as may: ask again, or use a stream or a WebSocket.";
        return Err(HttpError::unavailable(sentence).because(Refused::Overload));
    };
    let found = tokio::select! {
        found = ask(&app, &topic, &asked, Some(place)) => found.ok(),
        () = sleep(asked.wait) => None,
        () = app.closing() => None,
    };
    // It had everything when it began to wait.
    let place = Place::from(since);
    let nothing = || Polled { epoch: place.epoch, offset: place.offset, recovered: Some(true), messages: Vec::new() };
    Ok(answer(found.unwrap_or_else(nothing)))
}

/// The topic of the path: a single one.
fn topic_of(app: &App, head: &Parts) -> Result<String, HttpError> {
    let wrong = |sentence: &str| HttpError::bad(sentence).coded(Code::BadTopic);
    match endpoint(head.uri.path(), app.limits().topic_bytes_max) {
        Ok(Endpoint::Subscribe(topic)) if !is_wildcard(&topic) => Ok(topic.into_owned()),
        Ok(Endpoint::Subscribe(_)) => Err(wrong(
            "A poll needs a topic without wildcards. For a stream of several send 'Accept: text/event-stream'.",
        )),
        Ok(_) => Err(wrong("There is no topic in this path.")),
        Err(_) if head.uri.path() == "/sub" => Err(wrong(
            "A poll needs a topic in its path, /sub/{topic}. For a stream of several send 'Accept: text/event-stream'.",
        )),
        Err(refusal) => Err(wrong(&refusal.reason)),
    }
}

fn accepts_events(request: &Parts) -> bool {
    let values = request.headers.get_all(header::ACCEPT).iter();
    head::accepts_events(values.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')))
}

/// Whether the sender of this request may begin the topic, if it is new.
fn admit(app: &App, head: &Parts, topic: &str) -> Result<(), HttpError> {
    let (shared, limits) = (app.shared(), app.limits());
    if app.is_stopping() {
        return Err(shared.admission.draining().into());
    }
    if shared.admit_name(topic, limits.topics_max).map_err(Rejection::Topics)? == Name::Known {
        return Ok(());
    }
    let connection = head.extensions.get::<Arc<Connection>>().expect("every request comes with its connection");
    let client = sequence::client(connection, &head.headers, limits);
    let (bytes, left) = (shared.name_bytes(topic), shared.names_left(limits.topics_max));
    match app.name_shares().take(client, ring::monotonic(), limits, bytes, left) {
        true => Ok(()),
        false => Err(Rejection::NewTopics.into()),
    }
}

/// Asks the topic's sequencer; with a `place`, what it says may take any time.
async fn ask(app: &App, topic: &str, asked: &Asked, place: Option<OwnedSemaphorePermit>) -> Result<Polled, HttpError> {
    let overloaded = || HttpError::unavailable("The broker is overloaded: try again.").because(Refused::Overload);
    let topic = app.shared().registry.resolve(topic);
    let sequencer = topic.sequencer;
    let (answer, answered) = oneshot::channel();
    let (since, waits) = (asked.since.map(Place::from), place.is_some());
    let poll = PollRequest { topic, since, last: asked.last, limit: asked.limit, place, answer };
    let sent = send_control(app.shared(), sequencer, ControlMessage::Poll(poll));
    timeout(QUEUE_PATIENCE, sent).await.map_err(|_| overloaded())?;
    let patience = if waits { Duration::MAX } else { QUEUE_PATIENCE };
    let found = timeout(patience, answered).await.map_err(|_| overloaded())?;
    found.map_err(|_| app.shared().admission.draining().into())
}

fn answer(found: Polled) -> Response {
    let position = Position { epoch: found.epoch.0, offset: found.offset.0 };
    let bytes: usize = found.messages.iter().map(|message| message.payload().bytes().len() + 128).sum();
    let mut body = Vec::with_capacity(bytes + 96);
    write_polled(&mut body, position, found.recovered, found.messages.iter().map(|message| message.parts(false)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Asked {
    fn of(query: Option<&str>, topic: &str) -> Result<Self, HttpError> {
        let query = query.unwrap_or_default();
        let start =
            RawStart::read(query, topic).map_err(|refusal| HttpError::bad(format_args!("{}", refusal.reason)))?;
        if start.last.is_some_and(|last| last > LIMIT_MAX) {
            return Err(HttpError::bad("last is a number of messages, from 1 to 1000."));
        }
        let (mut limit, mut wait) = (None, None);
        for (name, value) in query.split('&').map(|member| member.split_once('=').unwrap_or((member, ""))) {
            let place = match name {
                "limit" => &mut limit,
                "wait" => &mut wait,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(HttpError::bad(format_args!("The query has {name} twice.")));
            }
        }
        let limit = limit.map_or(Ok(LIMIT), |text| {
            let number = text.parse::<u32>().ok().filter(|number| (1..=LIMIT_MAX).contains(number));
            number.ok_or_else(|| HttpError::bad("limit is a number of messages, from 1 to 1000."))
        })?;
        let wait = wait.map_or(Ok(WAIT), |text| {
            let time = config::duration(text).ok().filter(|time| *time <= WAIT_MAX);
            time.ok_or_else(|| HttpError::bad("wait is a time from 0s to 60s, such as 500ms or 25s."))
        })?;
        Ok(Self { since: start.since, last: start.last.unwrap_or(0), limit, wait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let of = |query: &str| Asked::of(Some(query), "t").map_err(|error| error.status());
        let asked = |since: Option<u64>, last, limit, seconds| {
            let since = since.map(|offset| Position { epoch: 0xab, offset });
            Ok(Asked { since, last, limit, wait: Duration::from_secs(seconds) })
        };
        assert_eq!(of(""), asked(None, 0, 100, 25));
        assert_eq!(of("last=20&x=1"), asked(None, 20, 100, 25));
        assert_eq!(of("since=00000000000000ab:7&wait=0s&limit=1000"), asked(Some(7), 0, 1000, 0));
        assert_eq!(of("since=00000000000000ab%3A7&wait=1m&limit=1"), asked(Some(7), 0, 1, 60));
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=",
            "limit=x",
            "limit=1&limit=1",
            "wait=61s",
            "wait=5",
            "wait=-1s",
            "wait=1s&wait=1s",
            "last=0",
            "last=1001",
            "since=7",
            "since=00000000000000ab:7&last=1",
        ] {
            assert_eq!(of(bad), Err(400), "{bad}");
        }
    }
}
