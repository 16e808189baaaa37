//! Errors of the HTTP API: a status and one sentence, as JSON; with the cause by which whoever answers counts it.
//!
//! Not responsible for fields that every answer has ([`fields`](crate::publishing::fields)).

use std::fmt::Display;

use serde_json::json;

use crate::access::rejection::Rejection;
use crate::observe::counters::Refused;

/// The media type of [`Problem::body`].
pub(crate) const CONTENT_TYPE: &str = "application/json";

/// What a client did wrong, or what the broker cannot do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    status: u16,
    sentence: String,
    retry_after_s: Option<u32>,
    /// As what it counts; `None`: it is an answer like any other.
    cause: Option<Refused>,
}

impl Problem {
    /// Counts as the fault of the request, if the status says that it is one.
    pub(crate) fn new(status: impl Into<u16>, sentence: impl Display) -> Self {
        let status = status.into();
        let retry_after_s = (status == 503).then_some(1);
        let cause = (400..500).contains(&status).then_some(Refused::Request);
        Self { status, sentence: sentence.to_string(), retry_after_s, cause }
    }

    /// The same, counted as this.
    pub(crate) fn because(self, cause: Refused) -> Self {
        Self { cause: Some(cause), ..self }
    }

    /// The request is wrong.
    pub(crate) fn bad(sentence: impl Display) -> Self {
        Self::new(400_u16, sentence)
    }

    /// The broker cannot now; the client may try again in a second.
    pub(crate) fn unavailable(sentence: &str) -> Self {
        Self::new(503_u16, sentence)
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// As what it counts.
    pub(crate) fn cause(&self) -> Option<Refused> {
        self.cause
    }

    /// Fields that this answer has beside those of every answer: lower-case names, and values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let retry_after = self.retry_after_s.map(|seconds| ("retry-after", seconds.to_string()));
        let demanded = match self.status {
            // RFC 9110 §15.5.2, RFC 6750 §3.
            401 => Some(("www-authenticate", "Bearer".to_owned())),
            // RFC 9110 §15.5.16: which coding would have been right.
            415 => Some(("accept-encoding", "identity".to_owned())),
            _ => None,
        };
        retry_after.into_iter().chain(demanded)
    }

    /// The body, of type [`CONTENT_TYPE`].
    pub(crate) fn body(&self) -> Vec<u8> {
        json!({ "error": self.sentence }).to_string().into_bytes()
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let answer = rejection.answer();
        let (sentence, retry_after_s) = (answer.reason.into_owned(), answer.retry_after_s);
        Self { status: answer.status, sentence, retry_after_s, cause: rejection.cause() }
    }
}
