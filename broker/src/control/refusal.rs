//! Refusals of the HTTP API: a status and one sentence, as JSON.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::head;
use serde_json::json;

/// What a client did wrong, or what the broker cannot do now.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    sentence: String,
    retry_after_s: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, sentence: impl Display) -> Self {
        let retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { status, sentence: sentence.to_string(), retry_after_s }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The broker cannot now; the client may try again in a second.
    pub(super) fn unavailable(sentence: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    }

    /// The same, to be tried again after as many seconds as `other` says.
    pub(super) fn retry_as(self, other: &head::Refusal) -> Self {
        Self { retry_after_s: other.retry_after_s.or(self.retry_after_s), ..self }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.sentence }))).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
