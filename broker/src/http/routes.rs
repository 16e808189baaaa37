//! Which request goes to which handler.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, post};
use axum::{Json, Router};
use serde_json::json;

use crate::http::app::{App, VERSION};
use crate::http::cors::allowed;
use crate::http::error::HttpError;
use crate::http::openapi::{self, Listener};
use crate::http::readable::readable;
use crate::http::{messages, metrics, middleware, page, poll, publish, request, stats, topic, topics, trace, users};

/// What the public port answers.
pub(crate) fn router(app: App) -> Router {
    let socket = || readable(websocket_only);
    let (listener, counters) = match app.operators().on_public_port {
        true => (Listener::PublicAndOperators, counters().merge(page::dashboard())),
        false => (Listener::Public, Router::new()),
    };
    let router = Router::new()
        .route("/pub", publishes(post(publish::publish_many)))
        .route("/pub/", publishes(post(publish::publish)))
        .route("/pub/{*topic}", publishes(post(publish::publish)))
        .route("/request/{*topic}", post(request::ask).options(|| async { allowed("POST,OPTIONS") }))
        .route("/sub", readable(poll::poll))
        .route("/sub/", readable(poll::poll))
        .route("/sub/{*filter}", readable(poll::poll))
        .route("/bus/{*topic}", socket())
        .route("/ws", socket())
        .route(openapi::PATH, openapi::route(listener))
        .merge(probes())
        .merge(counters)
        .merge(page::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method);
    checked(router, app)
}

/// What the operators' own listener answers.
pub(crate) fn admin_router(app: App) -> Router {
    let messages = delete(topic::purge).get(messages::show).options(|| async { allowed("DELETE,GET,HEAD,OPTIONS") });
    let about_user = |handler: MethodRouter<App>| handler.options(|| async { allowed("POST,OPTIONS") });
    let router = probes()
        .merge(counters())
        .merge(page::dashboard())
        .merge(page::shared())
        .route("/ws", readable(websocket_only))
        .route("/pub/{*topic}", publishes(post(publish::publish)))
        .route("/api/topics/{topic}/messages", messages)
        .route("/api/connections", readable(users::connections))
        .route("/api/connections/{connection}/trace", readable(trace::show))
        .route("/api/users/{user}/close", about_user(post(users::close)))
        .route("/api/users/{user}/revoke", about_user(post(users::revoke)))
        .route(openapi::PATH, openapi::route(Listener::Operators));
    let router = router.fallback(nothing_for_operators).method_not_allowed_fallback(wrong_method);
    checked(router, app)
}

/// Where is published, over HTTP or a WebSocket.
fn publishes(handler: MethodRouter<App>) -> MethodRouter<App> {
    handler.get(websocket_only).options(|| async { allowed("GET,HEAD,POST,OPTIONS") })
}

/// For whoever starts, restarts and directs traffic to brokers.
fn probes() -> Router<App> {
    Router::new().route("/healthz", readable(health)).route("/readyz", readable(readiness))
}

/// For whoever watches them.
fn counters() -> Router<App> {
    Router::new()
        .route("/api/stats", readable(stats::show))
        .route("/api/topics", readable(topics::show))
        .route("/api/topics/{topic}", readable(topic::show))
        .route("/metrics", readable(metrics::show))
}

/// Behind the checks that every request passes.
fn checked(router: Router<App>, app: App) -> Router {
    router.layer(from_fn_with_state(app.clone(), middleware::check)).with_state(app)
}

/// Whether the process is alive: as long as it answers, it is.
async fn health(State(app): State<App>) -> Response {
    let mut body = json!({
        "status": match (app.is_stopping(), app.is_ready()) {
            (true, _) => "stopping",
            (_, false) => "draining",
            _ => "ok",
        },
        "version": VERSION,
        "driver": app.room().io.name(),
        "shards": app.shards(),
        // The page asks for them only where they are.
        "counters": app.operators().on_public_port,
    });
    if let Some(cause) = &app.operators().fallback {
        body["fallback"] = cause.to_string().into();
    }
    Json(body).into_response()
}

/// Whether the broker wants new connections, for load balancers.
async fn readiness(State(app): State<App>) -> Response {
    if !app.is_ready() {
        return HttpError::unavailable("The broker is shutting down: connect elsewhere.").into_response();
    }
    Json(json!({ "status": "ready" })).into_response()
}

/// RFC 9110 §15.5.22: says which protocol would be right.
async fn websocket_only() -> Response {
    let error = HttpError::new(
        StatusCode::UPGRADE_REQUIRED,
        "A WebSocket lives here: connect with new WebSocket(...); publish over HTTP with POST /pub/{topic}.",
    );
    ([(header::UPGRADE, "websocket"), (header::CONNECTION, "Upgrade")], error).into_response()
}

async fn nothing_here(request: Request) -> HttpError {
    HttpError::new(StatusCode::NOT_FOUND, format!("There is nothing at {}.", request.uri().path()))
}

async fn nothing_for_operators(request: Request) -> HttpError {
    let path = request.uri().path();
    let sentence = format!(
        "There is nothing at {path}; there is /dashboard, /metrics, /api/stats, /api/topics, /api/connections, \
                 /api/users/{{user}}/close and /revoke, /api/openapi.json, /healthz and /readyz."
    );
    HttpError::new(StatusCode::NOT_FOUND, sentence)
}

async fn wrong_method(request: Request) -> HttpError {
    let sentence = format!("{} does not answer {}.", request.uri().path(), request.method());
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}
