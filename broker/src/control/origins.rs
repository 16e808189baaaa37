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

/// Between the socket and the routes.
pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let from = request.headers().get(header::ORIGIN).cloned();
    let allowed = is_allowed(&app, request.headers());
    let mut response = if request.method() == Method::OPTIONS && from.is_some() {
        preflight(allowed)
    } else if allowed || request.method().is_safe() {
        next.run(request).await
    } else {
        refused().into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(from) = from.filter(|_| allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, from);
    }
    response
}

/// Applies the broker's one rule ([`origin::allowed`]) to a request's fields. More than one `Origin` or
/// `Host`, or one that is not text, is nobody's.
pub(super) fn is_allowed(app: &App, headers: &HeaderMap) -> bool {
    let one = |name| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(drop),
            _ => Err(()),
        }
    };
    let (Ok(from), Ok(host)) = (one(header::ORIGIN), one(header::HOST)) else {
        return false;
    };
    origin::allowed(from, host.unwrap_or_default(), &app.limits().origins)
}

pub(super) fn refused() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "Pages of this origin may not use this broker: start it with --allow-origin and that origin.",
    )
    .because(Refused::Origin)
}

/// A browser asks before it sends what no form could send.
fn preflight(allowed: bool) -> Response {
    if !allowed {
        return refused().into_response();
    }
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
