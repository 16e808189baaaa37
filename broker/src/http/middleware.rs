//! What surrounds every handler, whichever listener the request came by: the access policy before it; afterwards the
//! answer says which pages may read it, and an error is counted by its cause. In one layer, because each costs
//! allocations.

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::policy::{Kind, Publishing, RequestFacts};
use crate::access::rejection::Rejection;
use crate::http::app::App;
use crate::http::bodies;
use crate::http::caller::{Caller, check_operator, publishes};
use crate::http::cors::{self, Page};
use crate::http::error::HttpError;
use crate::http::sequence;
use crate::observe::counters::Refused;

/// Between the socket and the routes.
pub(crate) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let facts = facts(&app, &request);
    let page = Page::of(&app, &request, &facts);
    let refused = match answer(&app, &request, facts) {
        Some(answer) => Some(answer),
        None => identify(&app, &mut request).await.err().map(refuse),
    };
    let mut response = match refused {
        Some(response) => {
            let (head, body) = request.into_parts();
            discard(&app, &head.headers, body).await;
            response
        }
        None if takes_body(&request) => next.run(request).await,
        None => {
            let (head, body) = request.into_parts();
            let headers = head.headers.clone();
            let response = next.run(Request::from_parts(head, Body::empty())).await;
            discard(&app, &headers, body).await;
            response
        }
    };
    page.name_in(response.headers_mut());
    app.shared().plane.count_refusal(response.extensions().get::<Refused>().copied());
    response
}

/// Finds out who sends a request that needs somebody in particular, and whether that one may ask for it at all.
async fn identify(app: &App, request: &mut Request) -> Result<(), Rejection> {
    if cors::is_preflight(request) {
        return Ok(());
    }
    if publishes(request.method(), request.uri().path()) {
        let caller = Caller::once_known(app, request.headers()).await?;
        request.extensions_mut().insert(caller);
        return Ok(());
    }
    check_operator(app, request)
}

fn refuse(rejection: Rejection) -> Response {
    HttpError::from(rejection).into_response()
}

/// Whether the request's handler reads its body.
fn takes_body(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::POST && (publishes(request.method(), path) || path.starts_with("/api/users/"))
}

/// Reads a body that nobody wants. The HTTP library does not get to the next request behind one that was left, if that
/// request was in the same read.
async fn discard(app: &App, headers: &HeaderMap, body: Body) {
    if !body.is_end_stream() {
        bodies::discard(app, headers, body).await;
    }
}

/// The authority of an absolute target goes before `Host` (RFC 9112 §3.2.2). `request_heads` let neither field pass twice.
fn facts<'a>(app: &App, request: &'a Request) -> RequestFacts<'a> {
    let field = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let host = request.uri().authority().map(|authority| authority.as_str()).or(field(header::HOST));
    let kind = if request.method().is_safe() && !cors::is_preflight(request) { Kind::Read } else { Kind::Change };
    let publishing = if publishes(request.method(), request.uri().path()) {
        sequence::publishing(app, request.headers())
    } else {
        Publishing::None
    };
    RequestFacts { host, origin: field(header::ORIGIN), publishing, kind }
}

/// The answer, if the request gets no further.
fn answer(app: &App, request: &Request, facts: RequestFacts<'_>) -> Option<Response> {
    if let Err(rejection) = app.policy().decide(facts) {
        return Some(refuse(rejection));
    }
    if cors::is_preflight(request) {
        return Some(cors::preflight(request.headers()));
    }
    // RFC 9110 §9.3.7: the server as a whole.
    let asks_server = request.method() == Method::OPTIONS && request.uri().path() == "*";
    asks_server.then(|| cors::allowed("GET,HEAD,POST,OPTIONS"))
}
