//! Errors of the HTTP API: `application/problem+json` (RFC 9457) with our `code` as a member, the same from both planes;
//! with the cause under which it is counted.
//!
//! Not responsible for fields that every answer has ([`fields`](crate::publishing::fields)).

use std::fmt::Display;

use axum::http::StatusCode;
use protocol::v1::{CommandError, ErrorCode};
use serde::Serialize;

use crate::access::rejection::Rejection;
use crate::message::options::{NOT_HOLDER, Refusal};
use crate::observe::counters::Refused;

/// The media type of [`Problem::body`].
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// What kind of error it is, for programs. Where `ringyard.v1` has the same error, it has the same name.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    /// The body is not JSON that may be published.
    BadJson,
    /// The request is wrong.
    BadCommand,
    /// The topic or filter breaks a rule.
    BadTopic,
    /// It needs a key, and brings none.
    Unauthorized,
    /// It brings a key that is none.
    BadToken,
    /// This client may not do this.
    Forbidden,
    /// There is nothing of this name.
    NotFound,
    /// What the request expects of the topic does not hold.
    Conflict,
    /// Another client has the lease.
    Held,
    /// The topic is published to under its lease only, and this is not the current one.
    NotHolder,
    /// The request, or the message, is larger than allowed.
    TooBig,
    /// A limit is reached.
    Limit,
    /// The request took too long.
    Timeout,
    /// The broker does not do this.
    Unsupported,
    /// The broker is overloaded or shuts down; try again.
    Busy,
    /// Nobody serves the topic of a request.
    NoResponder,
    /// Who had the request is gone, and did not answer it.
    ResponderLost,
    /// Who had the request answered with an error.
    ResponderError,
    /// The broker shuts down, and ends a stream of items: nothing behind the last result was published.
    Draining,
}

impl Code {
    /// All there are.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 19] = [
        Self::BadJson,
        Self::BadCommand,
        Self::BadTopic,
        Self::Unauthorized,
        Self::BadToken,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Held,
        Self::NotHolder,
        Self::TooBig,
        Self::Limit,
        Self::Timeout,
        Self::Unsupported,
        Self::Busy,
        Self::NoResponder,
        Self::ResponderLost,
        Self::ResponderError,
        Self::Draining,
    ];

    /// The code of an error of which nothing is known but its status.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 | 421 => Self::Forbidden,
            404 => Self::NotFound,
            405 | 415 | 426 | 501 => Self::Unsupported,
            408 => Self::Timeout,
            409 => Self::Conflict,
            413 | 414 | 431 => Self::TooBig,
            429 => Self::Limit,
            500.. => Self::Busy,
            _ => Self::BadCommand,
        }
    }
}

/// What a client did wrong, or what the broker cannot do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    status: u16,
    code: Code,
    sentence: String,
    /// Of a [`Code::Conflict`]: the offset that `if_offset` was compared with; 0: there is none.
    offset: Option<u64>,
    /// Of a [`Code::ResponderError`]: code and reason.
    error: Option<Box<(Box<str>, Box<str>)>>,
    retry_after_s: Option<u32>,
    /// As what it counts; `None`: it is an answer like any other.
    cause: Option<Refused>,
    /// The field that the status demands.
    demanded: Option<(&'static str, &'static str)>,
    /// The connection ends with it.
    ends_connection: bool,
}

impl Problem {
    /// Counts as the fault of the request, if the status says that it is one.
    pub(crate) fn new(status: impl Into<u16>, sentence: impl Display) -> Self {
        let status = status.into();
        let retry_after_s = (status == 503).then_some(1);
        let cause = (400..500).contains(&status).then_some(Refused::Request);
        let code = Code::of_status(status);
        let demanded = match status {
            // RFC 9110 §15.5.2, RFC 6750 §3.
            401 => Some(("www-authenticate", "Bearer")),
            // RFC 9110 §15.5.16: which coding would have been right.
            415 => Some(("accept-encoding", "identity")),
            _ => None,
        };
        Self {
            status,
            code,
            sentence: sentence.to_string(),
            offset: None,
            error: None,
            retry_after_s,
            cause,
            demanded,
            ends_connection: false,
        }
    }

    /// The same, counted as this.
    pub(crate) fn because(self, cause: Refused) -> Self {
        Self { cause: Some(cause), ..self }
    }

    /// The same, as an answer like any other.
    pub(crate) fn uncounted(self) -> Self {
        Self { cause: None, ..self }
    }

    /// The same with the error that a responder gave as its answer.
    pub(crate) fn of_responder(self, code: Box<str>, reason: Box<str>) -> Self {
        Self { error: Some(Box::new((code, reason))), ..self }
    }

    /// The same with another code than its status usually has.
    pub(crate) fn coded(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The same with another field than its status usually has.
    pub(crate) fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { demanded: Some((name, value)), ..self }
    }

    /// The same of one item of a batch, the first having the number 0.
    pub(crate) fn of_item(self, at: usize) -> Self {
        Self { sentence: format!("messages[{at}]: {}", self.sentence), ..self }
    }

    /// What kind of error it is.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The same on a connection that ends with it, because more of the request may come.
    pub(crate) fn ending(self) -> Self {
        Self { ends_connection: true, ..self }
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

    /// Whether its connection ends with it.
    pub(crate) fn ends_connection(&self) -> bool {
        self.ends_connection
    }

    /// As what it counts.
    pub(crate) fn cause(&self) -> Option<Refused> {
        self.cause
    }

    /// Fields that this answer has beside those of every answer: lower-case names, and values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let retry_after = self.retry_after_s.map(|seconds| ("retry-after", seconds.to_string()));
        let demanded = self.demanded.map(|(name, value)| (name, value.to_owned()));
        retry_after.into_iter().chain(demanded)
    }

    /// The body, of type [`CONTENT_TYPE`].
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192 + self.sentence.len());
        self.write_body(&mut out);
        out
    }

    /// Appends the body: the members in the order of RFC 9457 §3.1, then our own.
    pub(crate) fn write_body(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            code: Code,
            #[serde(skip_serializing_if = "Option::is_none")]
            offset: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<ResponderError<'a>>,
        }
        #[derive(Serialize)]
        struct ResponderError<'a> {
            code: &'a str,
            reason: &'a str,
        }
        let Self { status, code, sentence: detail, offset, error, .. } = self;
        let error = error.as_deref().map(|(code, reason)| ResponderError { code, reason });
        // RFC 9457 §4.2.1: of this type an error says no more than its status, whose phrase is its title.
        let title = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
        let body = Body { r#type: "about:blank", title, status: *status, detail, code: *code, offset: *offset, error };
        serde_json::to_writer(out, &body).expect("text and numbers are JSON");
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let answer = rejection.answer();
        let (sentence, retry_after_s) = (answer.reason.into_owned(), answer.retry_after_s);
        let problem = Self { retry_after_s, cause: rejection.cause(), ..Self::new(answer.status, sentence) };
        let problem = match rejection.challenge() {
            Some(challenge) => problem.with("www-authenticate", challenge),
            None => problem,
        };
        match rejection {
            Rejection::WrongKey | Rejection::BadToken => problem.coded(Code::BadToken),
            _ => problem,
        }
    }
}

/// What is wrong with an item, as with a command.
impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let (status, code) = match error.code {
            ErrorCode::BadJson => (400_u16, Code::BadJson),
            ErrorCode::BadTopic => (400, Code::BadTopic),
            ErrorCode::Unauthorized => (401, Code::Unauthorized),
            ErrorCode::BadToken => (401, Code::BadToken),
            ErrorCode::Forbidden => (403, Code::Forbidden),
            ErrorCode::NotFound => (404, Code::NotFound),
            ErrorCode::Conflict => (409, Code::Conflict),
            ErrorCode::Held => (423, Code::Held),
            ErrorCode::NotHolder => (423, Code::NotHolder),
            ErrorCode::TooBig => (413, Code::TooBig),
            ErrorCode::Limit => (429, Code::Limit),
            ErrorCode::Unsupported => (501, Code::Unsupported),
            ErrorCode::Busy => (503, Code::Busy),
            // No item is about a subscription or a request.
            ErrorCode::BadCommand
            | ErrorCode::NotSubscribed
            | ErrorCode::AlreadySubscribed
            | ErrorCode::NoResponder
            | ErrorCode::ResponderLost
            | ErrorCode::Timeout
            | ErrorCode::ResponderError => (400, Code::BadCommand),
        };
        Self::new(status, sentence(&error.reason)).coded(code)
    }
}

/// The answer for a message that its sequencer did not take.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflict { offset } => {
                let sentence = match offset {
                    0 => "if_offset does not hold: there is no such message.".to_owned(),
                    _ => format!("if_offset does not hold: the newest message has offset {offset}."),
                };
                Self { offset: Some(offset), ..Self::new(409_u16, sentence) }
            }
            Refusal::Unsupported(reason) => Self::new(501_u16, sentence(reason)),
            Refusal::Limit(reason) => Self::new(429_u16, sentence(reason)),
            Refusal::Forbidden(reason) => Self::new(403_u16, sentence(reason)),
            Refusal::NotFound(reason) => Self::new(404_u16, sentence(reason)),
            Refusal::NotHolder => Self::new(423_u16, sentence(NOT_HOLDER)).coded(Code::NotHolder),
        }
    }
}

/// A reason, as `ringyard.v1` gives it, as a sentence.
pub(crate) fn sentence(reason: &str) -> String {
    let mut rest = reason.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if reason.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", rest.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_members_of_a_problem() {
        let text = String::from_utf8(Problem::unavailable("No \"room\".").body()).expect("text");
        let expected = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"No \"room\".","code":"busy"}"#;
        assert_eq!(text, expected);
        let other = Problem::bad("No.").coded(Code::BadTopic).body();
        assert_eq!(serde_json::from_slice::<Value>(&other).expect("JSON")["code"], "bad-topic");
    }

    #[test]
    fn refusals_of_sequencers_are_problems() {
        for (refusal, expected) in [
            (
                Refusal::Conflict { offset: 7 },
                json!({ "title": "Conflict", "status": 409, "code": "conflict", "offset": 7,
                        "detail": "if_offset does not hold: the newest message has offset 7." }),
            ),
            (
                Refusal::Conflict { offset: 0 },
                json!({ "title": "Conflict", "status": 409, "code": "conflict", "offset": 0,
                        "detail": "if_offset does not hold: there is no such message." }),
            ),
            (
                Refusal::Unsupported("this topic has no history"),
                json!({ "title": "Not Implemented", "status": 501, "code": "unsupported",
                        "detail": "This topic has no history." }),
            ),
            (
                Refusal::Limit("Too many keys."),
                json!({ "title": "Too Many Requests", "status": 429, "code": "limit", "detail": "Too many keys." }),
            ),
        ] {
            let mut expected = expected;
            expected["type"] = "about:blank".into();
            assert_eq!(serde_json::from_slice::<Value>(&Problem::from(refusal).body()).expect("JSON"), expected);
        }
    }
}
