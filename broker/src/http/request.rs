//! `POST /request/{topic}`: the body goes to a responder of the topic, and the answer is what it says. The request
//! itself is a shard's (`shard/calls.rs`), each shard's in turn; this waits for what becomes of it.
//!
//! Cost: the body is copied once, and so is the answer; no thread is waited for but the responder's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::head::percent_decode;
use protocol::v1::{PayloadKind, TIMEOUT_DEFAULT_MS, TIMEOUT_MS};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::access::lock;
use crate::access::policy::PublishFacts;
use crate::access::quota::Name;
use crate::config;
use crate::http::app::App;
use crate::http::caller::Caller;
use crate::http::connection::Connection;
use crate::http::error::HttpError;
use crate::http::publish::{check_coding, payload_of, refuse};
use crate::http::send_control;
use crate::http::sequence::decide;
use crate::observe::counters::Refused;
use crate::publishing::problem::{Code, sentence};
use crate::publishing::{QUEUE_PATIENCE, topic_named};
use crate::shard::calls::parcels::{Answer, Failure, Question};
use crate::shard::shared::ControlMessage;

/// What the query says.
#[derive(PartialEq, Eq, Debug)]
struct Options {
    timeout_ms: u32,
    /// Only this member may answer.
    to: Option<Box<str>>,
}

/// Asks a responder of the topic of the path.
pub(crate) async fn ask(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let (head, body) = request.into_parts();
    let limits = app.limits();
    let path = head.uri.path().strip_prefix("/request/").unwrap_or_default();
    let checked = topic_named(path, limits).and_then(|topic| {
        check_coding(&head.headers)?;
        Ok((Box::<str>::from(&*topic), Options::of(head.uri.query())?))
    });
    let (topic, Options { timeout_ms, to }) = match checked {
        Ok(checked) => checked,
        Err(error) => return Err(refuse(&app, &head, body, error).await),
    };
    let payload = payload_of(&app, &head, body, || admit(&app, &head, &topic)).await?;
    let from = Caller::member_name(&head);
    let (answer, answered) = oneshot::channel();
    let question = Question { topic, payload, from, to, timeout_ms, answer };
    let sent = send_control(app.shared(), app.next_shard(), ControlMessage::Ask(question));
    if timeout(QUEUE_PATIENCE, sent).await.is_err() {
        let sentence = "The broker is overloaded; nobody got the request.";
        return Err(HttpError::unavailable(sentence).because(Refused::Overload));
    }
    match answered.await.unwrap_or(Err(Failure::Draining)) {
        Ok(answer) => Ok(respond(&answer)),
        Err(failure) => Err(problem(failure)),
    }
}

impl Options {
    fn of(query: Option<&str>) -> Result<Self, HttpError> {
        let (mut timeout, mut to) = (None, None);
        for member in query.unwrap_or_default().split('&') {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            let place = match name {
                "timeout" => &mut timeout,
                "to" => &mut to,
                _ => continue,
            };
            let value = value.replace('+', " ");
            let value = percent_decode(&value).map(|value| Box::<str>::from(&*value));
            let value = value.ok_or_else(|| HttpError::bad(format_args!("{name} is not percent-encoded UTF-8.")))?;
            if place.replace(value).is_some() {
                return Err(HttpError::bad(format_args!("The query has {name} twice.")));
            }
        }
        let timeout_ms = match timeout {
            None => TIMEOUT_DEFAULT_MS,
            Some(text) => config::duration(&text)
                .ok()
                .and_then(|timeout| u32::try_from(timeout.as_millis()).ok())
                .filter(|ms| TIMEOUT_MS.contains(ms))
                .ok_or_else(|| HttpError::bad("timeout is not a time from 10ms to 60s, such as 500ms or 5s."))?,
        };
        Ok(Self { timeout_ms, to })
    }
}

/// Whether the sender of this request may ask now. A request begins no topic, so there is always room for its name.
fn admit(app: &App, head: &Parts, topic: &str) -> Result<(), HttpError> {
    Caller::check_request(app, head, topic)?;
    let shared = app.shared();
    if app.is_stopping() {
        return Err(shared.admission.draining().into());
    }
    let connection = head.extensions.get::<Arc<Connection>>().expect("every request comes with its connection");
    let facts = PublishFacts {
        rate_limiter: &mut lock(&connection.rate_limiter),
        topic: Ok(Name::Known),
        name_bytes: 0,
        names_left: shared.names_left(app.limits().topics_max),
        client: None,
        shares: app.name_shares(),
    };
    decide(app, &head.headers, facts)
}

fn respond(answer: &Answer) -> Response {
    let content_type = match answer.payload.kind() {
        PayloadKind::Text => "text/plain; charset=utf-8",
        PayloadKind::Json => "application/json",
        PayloadKind::Binary => "application/octet-stream",
    };
    ([(header::CONTENT_TYPE, content_type)], answer.payload.bytes().to_vec()).into_response()
}

fn problem(failure: Failure) -> HttpError {
    let (status, code) = match &failure {
        Failure::NoResponder => (StatusCode::NOT_FOUND, Code::NoResponder),
        Failure::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Busy),
        Failure::Lost => (StatusCode::BAD_GATEWAY, Code::ResponderLost),
        Failure::Timeout => (StatusCode::GATEWAY_TIMEOUT, Code::Timeout),
        Failure::Responder { .. } => (StatusCode::INTERNAL_SERVER_ERROR, Code::ResponderError),
        Failure::Draining => (StatusCode::SERVICE_UNAVAILABLE, Code::Busy),
    };
    let problem = match &failure {
        Failure::Responder { .. } => HttpError::new(status, "The responder answered with an error."),
        other => HttpError::new(status, sentence(other.reason())),
    };
    let problem = problem.coded(code).uncounted();
    match failure {
        Failure::Responder { code, reason } => problem.of_responder(code, reason),
        Failure::Draining => problem.because(Refused::Draining),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_query() {
        let of = |query| Options::of(query).map_err(|error| error.status());
        let ok = |timeout_ms, to: Option<&str>| Ok(Options { timeout_ms, to: to.map(Into::into) });
        assert_eq!(of(None), ok(5000, None));
        assert_eq!(of(Some("timeout=5s&x=1")), ok(5000, None));
        assert_eq!(of(Some("to=ad%61+b&timeout=10ms")), ok(10, Some("ada b")));
        assert_eq!(of(Some("timeout=1m")), ok(60_000, None));
        for query in
            ["timeout=9ms", "timeout=61s", "timeout=5", "timeout=", "timeout=1s&timeout=1s", "to=%ff", "to=a&to=b"]
        {
            assert_eq!(of(Some(query)), Err(400), "{query}");
        }
    }

    #[test]
    fn every_failure_has_its_status() {
        let of = |failure: Failure| {
            let problem = problem(failure);
            let body: serde_json::Value = serde_json::from_slice(&problem.body()).expect("JSON");
            let retry = problem.fields().any(|(name, _)| name == "retry-after");
            (problem.status(), body["code"].as_str().expect("a code").to_owned(), body["error"].to_string(), retry)
        };
        let expect = |status, code: &str, retry| (status, code.to_owned(), "null".to_owned(), retry);
        assert_eq!(of(Failure::NoResponder), expect(404, "no-responder", false));
        assert_eq!(of(Failure::Busy("too much")), expect(503, "busy", true));
        assert_eq!(of(Failure::Draining), expect(503, "busy", true));
        assert_eq!(of(Failure::Lost), expect(502, "responder-lost", false));
        assert_eq!(of(Failure::Timeout), expect(504, "timeout", false));
        let error = of(Failure::Responder { code: "stuck".into(), reason: "no power".into() });
        let inner = r#"{"code":"stuck","reason":"no power"}"#.to_owned();
        assert_eq!(error, (500, "responder-error".to_owned(), inner, false));
    }
}
