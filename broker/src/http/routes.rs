//! Which request goes to which handler, and what the handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router, middleware};
use serde_json::json;
use tokio::sync::watch;

use crate::capacity::connections::Capacity;
use crate::config::limits::Limits;
use crate::http::Operators;
use crate::http::bodies::Bodies;
use crate::http::page;
use crate::http::places::Places;
use crate::http::policy;
use crate::http::publish;
use crate::http::quota::Names;
use crate::http::refusal::Refusal;
use crate::http::upgrade;
use crate::ids::ShardId;
use crate::observe::metrics;
use crate::observe::stats;
use crate::shard::shared::SharedState;

/// The broker's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shared: Arc<SharedState>,
    limits: Arc<Limits>,
    started: Instant,
    /// Seconds since 1970.
    started_s: f64,
    life: watch::Sender<Life>,
    room: Capacity,
    operators: Operators,
    places: Places,
    bodies: Bodies,
    names: Names,
    /// The shard that gets the next adopted WebSocket.
    next_shard: AtomicU16,
}

/// How far the broker is on its way out. It only ever moves down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Life {
    /// Not at all.
    Serving,
    /// Load balancers are told to look elsewhere.
    Draining,
    /// WebSockets are closed, and newcomers refused.
    Leaving,
    /// HTTP connections end.
    Stopping,
}

impl App {
    pub(crate) fn new(shared: Arc<SharedState>, limits: Arc<Limits>, room: Capacity, operators: Operators) -> Self {
        let bodies = Bodies::new(&shared.budget, limits.message_bytes_max);
        Self(Arc::new(Shared {
            shared,
            limits,
            started: Instant::now(),
            started_s: SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs_f64(),
            life: watch::Sender::new(Life::Serving),
            room,
            operators,
            places: Places::new(room.http_connections_max as usize),
            bodies,
            names: Names::default(),
            next_shard: AtomicU16::new(0),
        }))
    }

    /// From now on readiness says no; everything else goes on.
    pub(crate) fn drain(&self) {
        self.enter(Life::Draining);
    }

    /// From now on nothing new is published over HTTP, and nobody becomes a WebSocket.
    pub(crate) fn leave(&self) {
        self.enter(Life::Leaving);
    }

    /// From now on connections end after the request under way.
    pub(crate) fn stop(&self) {
        self.enter(Life::Stopping);
    }

    /// Waits for [`App::stop`].
    pub(crate) async fn stopping(&self) {
        // The sender lives in here, so the channel stays open.
        let _ = self.0.life.subscribe().wait_for(|life| *life == Life::Stopping).await;
    }

    /// Whether newcomers are attach.
    pub(crate) fn is_ready(&self) -> bool {
        *self.0.life.borrow() == Life::Serving
    }

    pub(crate) fn is_leaving(&self) -> bool {
        *self.0.life.borrow() >= Life::Leaving
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.life.borrow() == Life::Stopping
    }

    fn enter(&self, life: Life) {
        self.0.life.send_modify(|now| *now = life.max(*now));
    }

    pub(crate) fn shared(&self) -> &SharedState {
        &self.0.shared
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The same, for who keeps them.
    pub(crate) fn shared_limits(&self) -> Arc<Limits> {
        Arc::clone(&self.0.limits)
    }

    pub(crate) fn room(&self) -> &Capacity {
        &self.0.room
    }

    pub(crate) fn operators(&self) -> &Operators {
        &self.0.operators
    }

    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(crate) fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    pub(crate) fn names(&self) -> &Names {
        &self.0.names
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// Seconds since 1970.
    pub(crate) fn started_s(&self) -> f64 {
        self.0.started_s
    }

    /// How many HTTP connections there are.
    pub(crate) fn http_connections(&self) -> usize {
        self.0.places.taken()
    }

    pub(crate) fn shards(&self) -> ShardId {
        ShardId::try_from(self.0.shared.inboxes.len()).expect("shared were made for that many")
    }

    /// Each shard in turn.
    pub(crate) fn next_shard(&self) -> ShardId {
        self.0.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards()
    }
}

/// What the public port answers.
pub(crate) fn router(app: App) -> Router {
    let socket = || readable(websocket_only);
    let topic = || post(publish::publish).get(websocket_only).options(|| async { allowed("GET,HEAD,POST,OPTIONS") });
    let counters = if app.operators().on_public_port { counters() } else { Router::new() };
    let router = Router::new()
        .route("/pub", topic())
        .route("/pub/", topic())
        .route("/pub/{*topic}", topic())
        .route("/sub/{*filter}", socket())
        .route("/bus/{*topic}", socket())
        .route("/ws", socket())
        .merge(probes())
        .merge(counters)
        .merge(page::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), upgrade::answer));
    checked(router, app)
}

/// What the operators' own listener answers.
pub(crate) fn admin_router(app: App) -> Router {
    let router = probes().merge(counters()).fallback(nothing_for_operators).method_not_allowed_fallback(wrong_method);
    checked(router, app)
}

/// For whoever starts, restarts and directs traffic to brokers.
fn probes() -> Router<App> {
    Router::new().route("/healthz", readable(health)).route("/readyz", readable(readiness))
}

/// For whoever watches them.
fn counters() -> Router<App> {
    Router::new().route("/api/stats", readable(stats::show)).route("/metrics", readable(metrics::show))
}

/// Behind the checks that every request passes.
fn checked(router: Router<App>, app: App) -> Router {
    router.layer(middleware::from_fn_with_state(app.clone(), policy::check)).with_state(app)
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
        return Refusal::unavailable("The broker is shutting down: connect elsewhere.").into_response();
    }
    Json(json!({ "status": "ready" })).into_response()
}

/// A resource that can be read, and says so when asked with OPTIONS.
pub(crate) fn readable<H, T>(handler: H) -> MethodRouter<App>
where
    H: Handler<T, App>,
    T: 'static,
{
    get(handler).options(|| async { allowed("GET,HEAD,OPTIONS") })
}

/// The answer to OPTIONS.
pub(crate) fn allowed(methods: &'static str) -> Response {
    (StatusCode::NO_CONTENT, [(header::ALLOW, methods)]).into_response()
}

/// RFC 9110 §15.5.22: says which protocol would be right.
async fn websocket_only() -> Response {
    let refusal = Refusal::new(
        StatusCode::UPGRADE_REQUIRED,
        "A WebSocket lives here: connect with new WebSocket(...); publish over HTTP with POST /pub/{topic}.",
    );
    ([(header::UPGRADE, "websocket"), (header::CONNECTION, "Upgrade")], refusal).into_response()
}

async fn nothing_here(request: Request) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("There is nothing at {}.", request.uri().path()))
}

async fn nothing_for_operators(request: Request) -> Refusal {
    let path = request.uri().path();
    let sentence = format!("There is nothing at {path}; there is /metrics, /api/stats, /healthz and /readyz.");
    Refusal::new(StatusCode::NOT_FOUND, sentence)
}

async fn wrong_method(request: Request) -> Refusal {
    let sentence = format!("{} does not answer {}.", request.uri().path(), request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}
