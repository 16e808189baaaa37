//! The checks that every request passes before it finds its handler, in their order, whichever listener it came by:
//! the host it is addressed to, the page it comes from, whether its connection has a place. Afterwards the answer says
//! which pages may read it, and a refusal is counted by its cause. In one layer, because each costs allocations.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::app::App;
use crate::http::connection::Connection;
use crate::http::{bodies, error, hosts, origins, places, routes};

/// Between the socket and the routes.
pub(crate) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let page = origins::Page::of(&app, &request);
    let mut response = match answer(&app, &request, &page) {
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
    error::count(&app, &response);
    response
}

/// Whether the request's handler reads its body.
fn takes_body(request: &Request) -> bool {
    request.method() == Method::POST && request.uri().path().starts_with("/pub")
}

/// Reads a body that nobody wants. The HTTP library does not get to the next request behind one that was left, if that
/// request was in the same read.
async fn discard(app: &App, headers: &HeaderMap, body: Body) {
    if !body.is_end_stream() {
        bodies::discard(app, headers, body).await;
    }
}

/// The answer, if the request gets no further.
fn answer(app: &App, request: &Request, page: &origins::Page) -> Option<Response> {
    if let Some(refusal) = hosts::refused(request, &app.limits().hosts) {
        return Some(refusal.into_response());
    }
    if let Some(response) = page.answer(request) {
        return Some(response);
    }
    if request.method() == Method::OPTIONS && request.uri().path() == "*" {
        return Some(routes::allowed("GET,HEAD,POST,OPTIONS")); // RFC 9110 §9.3.7: the server as a whole
    }
    let connection = request.extensions().get::<Arc<Connection>>();
    let is_spare = connection.is_some_and(|connection| connection.is_spare);
    is_spare.then(|| places::refused(app, request.uri().path()))?.map(IntoResponse::into_response)
}
