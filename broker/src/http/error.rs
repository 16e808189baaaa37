//! Errors of the HTTP API: a status and one sentence, as JSON; the answer carries its cause, by which
//! `middleware` counts it.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::access::rejection::Rejection;
use crate::observe::counters::Refused;

/// What a client did wrong, or what the broker cannot do now.
#[derive(Debug)]
pub(crate) struct HttpError {
    status: StatusCode,
    sentence: String,
    retry_after_s: Option<u32>,
    /// As what it counts; `None`: it is an answer like any other.
    cause: Option<Refused>,
}

impl HttpError {
    /// Counts as the fault of the request, if the status says that it is one.
    pub(crate) fn new(status: StatusCode, sentence: impl Display) -> Self {
        let retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        let cause = status.is_client_error().then_some(Refused::Request);
        Self { status, sentence: sentence.to_string(), retry_after_s, cause }
    }

    /// The same, counted as this.
    pub(crate) fn because(self, cause: Refused) -> Self {
        Self { cause: Some(cause), ..self }
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The request is wrong.
    pub(crate) fn bad(sentence: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// The broker cannot now; the client may try again in a second.
    pub(crate) fn unavailable(sentence: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    }
}

impl From<Rejection> for HttpError {
    fn from(rejection: Rejection) -> Self {
        let answer = rejection.answer();
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_REQUEST);
        let (sentence, retry_after_s) = (answer.reason.into_owned(), answer.retry_after_s);
        Self { status, sentence, retry_after_s, cause: rejection.cause() }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.sentence }))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2, RFC 6750 §3.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // RFC 9110 §15.5.16: which coding would have been right.
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;
    use crate::access::quota::NamesFull;

    /// A shard's bytes and the API's JSON say the same.
    #[tokio::test]
    async fn both_planes_answer_a_rejection_alike() {
        let parsed = protocol::head::Refusal::new(431, "Too long.");
        let rejections = [
            Rejection::Malformed(parsed),
            Rejection::HeadTimeout,
            Rejection::Memory,
            Rejection::Host("evil.example".to_owned()),
            Rejection::Origin,
            Rejection::NoKey,
            Rejection::WrongKey,
            Rejection::ReadOnly,
            Rejection::NoWebSockets,
            Rejection::PublishRate,
            Rejection::Draining(3),
            Rejection::Topics(NamesFull::Topics),
            Rejection::NewTopics,
            Rejection::Address,
            Rejection::Connections(4),
            Rejection::AcceptRate(5),
            Rejection::HttpConnections,
        ];
        for rejection in rejections {
            let mut bytes = Vec::new();
            rejection.answer().write_to(&mut bytes);
            let text = String::from_utf8(bytes).expect("text");
            let cause = rejection.cause();
            let (head, body) = HttpError::from(rejection).into_response().into_parts();
            assert!(text.starts_with(&format!("HTTP/1.1 {} ", head.status.as_str())), "{text}");
            let wait = head.headers.get(header::RETRY_AFTER).map(|value| value.to_str().expect("a number"));
            let line = wait.map(|seconds| format!("\r\nRetry-After: {seconds}\r\n"));
            assert_eq!(text.contains("Retry-After"), line.is_some(), "{text}");
            assert!(text.contains(&line.unwrap_or_default()), "{text}");
            let scheme = head.headers.get(header::WWW_AUTHENTICATE).map(|value| value.to_str().expect("a scheme"));
            assert_eq!(scheme, (head.status == StatusCode::UNAUTHORIZED).then_some("Bearer"));
            assert_eq!(text.contains("\r\nWWW-Authenticate: Bearer\r\n"), scheme.is_some(), "{text}");
            assert_eq!(head.extensions.get::<Refused>().copied(), cause);
            let json: Value = serde_json::from_slice(&body.collect().await.expect("a body").to_bytes()).expect("JSON");
            let sentence = json["error"].as_str().expect("a sentence");
            assert!(sentence.ends_with('.') && text.ends_with(&format!("\r\n\r\n{sentence}\n")), "{text}");
        }
    }
}
