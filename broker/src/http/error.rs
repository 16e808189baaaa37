//! Errors of the HTTP API: a status and one sentence, as JSON; each is counted by its cause, in one place.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::head;
use serde_json::json;

use crate::http::app::App;
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

    /// The same, to be tried again after so many seconds.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// The same, without a cause: it is counted elsewhere.
    pub(crate) fn uncounted(self) -> Self {
        Self { cause: None, ..self }
    }

    /// The same, to be tried again after as many seconds as `other` says.
    pub(crate) fn retry_as(self, other: &head::Refusal) -> Self {
        Self { retry_after_s: other.retry_after_s.or(self.retry_after_s), ..self }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.sentence }))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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

/// Counts what was refused, by the cause that the response carries.
pub(crate) fn count(app: &App, response: &Response) {
    if let Some(cause) = response.extensions().get() {
        app.shared().plane.count_refusal(*cause);
    }
}
