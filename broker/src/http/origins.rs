//! What a page from another origin may do over HTTP, and what every answer says to browsers.
//!
//! A browser sends a form or a `fetch` of any page anywhere; what protects the broker of a developer's
//! machine is that it says from where. Reading needs no check, because a browser shows the answer only to
//! origins named in it.

use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::access::origin;
use crate::http::app::App;
use crate::http::error::HttpError;
use crate::observe::counters::Refused;

/// What goes with every answer, unless the handler said otherwise.
const ALWAYS: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Lists of names that a preflight asks for, in bytes, at most.
const ASKED_BYTES_MAX: usize = 2048;
/// Fields of a preflight that its answer depends on.
const ASKED_FOR: &str = "Access-Control-Request-Headers, Access-Control-Request-Private-Network";

/// The page that sent a request, and what it may do.
#[derive(Debug)]
pub(crate) struct Page {
    origin: Option<HeaderValue>,
    allowed: bool,
    is_options: bool,
}

impl Page {
    pub(crate) fn of(app: &App, request: &Request) -> Self {
        Self {
            origin: request.headers().get(header::ORIGIN).cloned(),
            allowed: is_allowed(app, request),
            is_options: request.method() == Method::OPTIONS,
        }
    }

    /// The answer to its request, if that gets no further.
    pub(crate) fn answer(&self, request: &Request) -> Option<Response> {
        if self.is_options && self.origin.is_some() {
            Some(preflight(self.allowed, request.headers()))
        } else if self.allowed || request.method().is_safe() {
            None
        } else {
            Some(refused().into_response())
        }
    }

    /// Says in an answer's fields who may read it; in a refusal's too.
    pub(crate) fn name_in(self, headers: &mut HeaderMap) {
        for (name, value) in ALWAYS {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if self.is_options {
            headers.append(header::VARY, HeaderValue::from_static(ASKED_FOR));
        }
        if let Some(origin) = self.origin.filter(|_| self.allowed) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        }
    }
}

/// Applies the broker's one rule ([`origin::allowed`]) to a request. The authority of an absolute target goes before
/// `Host` (RFC 9112 §3.2.2). More than one `Origin` or `Host`, or one that is not text, is nobody's.
fn is_allowed(app: &App, request: &Request) -> bool {
    let one = |name| {
        let mut values = request.headers().get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(drop),
            _ => Err(()),
        }
    };
    let (Ok(from), Ok(field)) = (one(header::ORIGIN), one(header::HOST)) else {
        return false;
    };
    let host = request.uri().authority().map(|authority| authority.as_str()).or(field);
    origin::allowed(from, host.unwrap_or_default(), &app.limits().origins)
}

pub(crate) fn refused() -> HttpError {
    HttpError::new(
        StatusCode::FORBIDDEN,
        "Pages of this origin may not use this broker: start it with --allow-origin and that origin.",
    )
    .because(Refused::Origin)
}

/// A browser asks before it sends what no form could send (Fetch standard, 3.2.2). An allowed page may send any field:
/// none means anything here that a page could misuse.
fn preflight(allowed: bool, asked: &HeaderMap) -> Response {
    if !allowed {
        return refused().into_response();
    }
    let names = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| is_list_of_names(names.as_bytes()));
    let fields = [
        (header::ALLOW, HeaderValue::from_static("GET,HEAD,POST,OPTIONS")),
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            names.cloned().unwrap_or_else(|| HeaderValue::from_static("Content-Type")),
        ),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ];
    let mut response = (StatusCode::NO_CONTENT, fields).into_response();
    // A page of the internet asks a broker in a private network (Private Network Access, 3.1).
    if asked.get("access-control-request-private-network").is_some_and(|value| value == "true") {
        let name = HeaderName::from_static("access-control-allow-private-network");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// Tokens between commas (RFC 9110 §5.6.2), not more than an answer should repeat.
fn is_list_of_names(list: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    list.len() <= ASKED_BYTES_MAX
        && list
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
            .all(|name| !name.is_empty() && name.iter().all(is_token))
}
