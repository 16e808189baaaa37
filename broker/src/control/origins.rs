//! What a page from another origin may do over HTTP, and what every answer says to browsers.
//!
//! A browser sends a form or a `fetch` of any page anywhere; what protects the broker of a developer's
//! machine is that it says from where. Reading needs no check, because a browser shows the answer only to
//! origins named in it.

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::refusal::Refusal;
use super::routes::App;
use crate::origin;
use crate::shard::stats::Refused;

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

/// Outside of all checks: every answer says who may read it, refusals too.
pub(super) async fn name(State(app): State<App>, request: Request, next: Next) -> Response {
    let from = request.headers().get(header::ORIGIN).filter(|_| is_allowed(&app, &request)).cloned();
    let is_options = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if is_options {
        headers.append(header::VARY, HeaderValue::from_static(ASKED_FOR));
    }
    if let Some(from) = from {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, from);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
    response
}

/// Between the socket and the routes.
pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let allowed = is_allowed(&app, &request);
    if request.method() == Method::OPTIONS && request.headers().contains_key(header::ORIGIN) {
        preflight(allowed, request.headers())
    } else if allowed || request.method().is_safe() {
        next.run(request).await
    } else {
        refused().into_response()
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

pub(super) fn refused() -> Refusal {
    Refusal::new(
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
