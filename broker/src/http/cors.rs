//! What answers say to browsers: which page may read them, and what it may send (CORS, Fetch standard, 3.2). And what
//! OPTIONS is answered.
//!
//! Not responsible for whether a foreign page is answered at all: see [`policy`](crate::access::policy).

use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::access::origin;
use crate::access::policy::RequestFacts;
use crate::http::app::App;
use crate::publishing::fields::{ALWAYS, EXPOSED, VARY};

/// Lists of names that a preflight asks for, in bytes, at most.
const ASKED_BYTES_MAX: usize = 2048;
/// Fields of a preflight that its answer depends on.
const ASKED_FOR: &str = "Access-Control-Request-Headers, Access-Control-Request-Private-Network";

/// The page that sent a request, and whether it may read the answer.
#[derive(Debug)]
pub(crate) struct Page {
    origin: Option<HeaderValue>,
    allowed: bool,
    is_options: bool,
}

impl Page {
    pub(crate) fn of(app: &App, request: &Request, facts: &RequestFacts<'_>) -> Self {
        Self {
            origin: request.headers().get(header::ORIGIN).cloned(),
            allowed: origin::allowed(facts.origin, facts.host.unwrap_or_default(), &app.limits().origins),
            is_options: request.method() == Method::OPTIONS,
        }
    }

    /// Says in an answer's fields who may read it; in an error's too.
    pub(crate) fn name_in(self, headers: &mut HeaderMap) {
        for (name, value) in ALWAYS {
            headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
        }
        headers.append(header::VARY, HeaderValue::from_static(VARY));
        if self.is_options {
            headers.append(header::VARY, HeaderValue::from_static(ASKED_FOR));
        }
        if let Some(origin) = self.origin.filter(|_| self.allowed) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

/// A page's browser asks before it sends what no form could send (Fetch standard, 3.2.2).
pub(crate) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ORIGIN)
}

/// The answer to the preflight of an allowed page. It may send any field: the only one that gives it a right is
/// `Authorization`, and that holds a key which the page has to know.
pub(crate) fn preflight(asked: &HeaderMap) -> Response {
    let names = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| is_list_of_names(names.as_bytes()));
    let fields = [
        (header::ALLOW, HeaderValue::from_static("GET,HEAD,POST,OPTIONS")),
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            names.cloned().unwrap_or_else(|| HeaderValue::from_static("Content-Type, Authorization")),
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

/// The answer to OPTIONS of a resource (RFC 9110 §9.3.7).
pub(crate) fn allowed(methods: &'static str) -> Response {
    (StatusCode::NO_CONTENT, [(header::ALLOW, methods)]).into_response()
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
