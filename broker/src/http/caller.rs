//! Who sends a request that the control plane answers, and whether that one may.
//!
//! | request | without access control | with it |
//! | --- | --- | --- |
//! | `POST /pub`, `POST /pub/{topic}` | see `access/policy.rs` | a token or key that grants each topic |
//! | `POST /request/{topic}` | as a publish | a token or key that grants to subscribe to the topic, with the right `request` |
//! | `/api/...`, `/metrics` from this machine | everybody | everybody; what changes something needs a key, once there is one |
//! | the same from elsewhere | everybody | a key with the scope of [`scope_of`], once there is one; without any, nothing is changed |
//! | payloads and traces of `/api/...` | everybody | a key with the scope `inspect`, wherever it comes from |
//! | pages, scripts, probes, `/api/openapi.json` | everybody | everybody |
//!
//! Not responsible for tokens (`access/authority.rs`), nor for WebSocket handshakes (`upgrade`).
//!
//! Cost: without access control a test of a flag; with it a look-up among the tokens that were seen before.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use protocol::head::{bearer_in, cookie_in};

use crate::access::permissions::{Operation, Right, Scope};
use crate::access::principal::{Cause, Principal};
use crate::access::rejection::Rejection;
use crate::http::app::App;
use crate::http::connection::Connection;
use crate::shard::entry::Credentials;

/// How often a request looks whether the keys that its token needs were fetched.
const KEYS_POLL: Duration = Duration::from_millis(5);

/// Who sends a request; `None`: there is no access control. An extension of each request that publishes.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Option<Arc<Principal>>);

impl Caller {
    /// Who sends this. `query`: where a token may stand besides, if the configuration says so.
    ///
    /// # Errors
    /// 401: no valid credential, where one is needed.
    fn of(app: &App, query: Option<&str>, headers: &HeaderMap) -> Result<Self, Rejection> {
        let authority = &app.shared().authority;
        if !authority.is_on() {
            return Ok(Self(None));
        }
        let values = |name| headers.get_all(name).iter().map(|value| value.as_bytes());
        let bearer = bearer_in(values(header::AUTHORIZATION));
        let credentials =
            Credentials::of_request(authority, bearer, query, |name| cookie_in(values(header::COOKIE), name));
        let (identified, _) = credentials.identify(authority, now_ms(app));
        let principal = identified?.ok_or_else(|| {
            authority.count(Cause::Missing);
            Rejection::Unauthorized
        })?;
        Ok(Self(Some(principal)))
    }

    /// Who sends a request that publishes or asks, once the keys that the token may need were fetched.
    ///
    /// # Errors
    /// 401: no valid credential, where one is needed.
    pub(crate) async fn once_known(app: &App, headers: &HeaderMap) -> Result<Self, Rejection> {
        once_decided(app, || Self::of(app, None, headers)).await
    }

    /// Whether it is somebody in particular.
    pub(crate) fn is_known(head: &Parts) -> bool {
        let principal = head.extensions.get::<Self>().and_then(|caller| caller.0.as_ref());
        principal.is_some_and(|principal| !principal.is_anonymous())
    }

    /// Whether it publishes to exclusive topics without their leases.
    pub(crate) fn needs_no_lease(head: &Parts) -> bool {
        let principal = head.extensions.get::<Self>().and_then(|caller| caller.0.as_ref());
        principal.is_some_and(|principal| principal.permissions.needs_no_lease())
    }

    /// Whether the sender of a request may publish to a topic now.
    ///
    /// # Errors
    /// 403; 401 if its token holds no more.
    pub(crate) fn check_publish(app: &App, head: &Parts, topic: &str) -> Result<(), Rejection> {
        let Some(principal) = Self::renewed(app, head)? else { return Ok(()) };
        principal.check(Operation::Publish, topic, app.shared().authority.settings().explain)
    }

    /// Whether the sender of a request may ask who serves a topic now.
    ///
    /// # Errors
    /// As of [`Caller::check_publish`].
    pub(crate) fn check_request(app: &App, head: &Parts, topic: &str) -> Result<(), Rejection> {
        let Some(principal) = Self::renewed(app, head)? else { return Ok(()) };
        principal.check(Operation::Subscribe, topic, app.shared().authority.settings().explain)?;
        match principal.has(Right::Request, topic) {
            true => Ok(()),
            false => Err(Rejection::Forbidden(principal.explain_right(Right::Request, topic))),
        }
    }

    /// Whether the sender of a request may poll a topic; `reads_history`: and read what it remembers. Its token may stand in the
    /// query.
    ///
    /// # Errors
    /// 401 or 403.
    pub(crate) async fn check_poll(app: &App, head: &Parts, topic: &str, reads_history: bool) -> Result<(), Rejection> {
        let caller = once_decided(app, || Self::of(app, head.uri.query(), &head.headers)).await?;
        let Some(principal) = caller.0 else { return Ok(()) };
        principal.check(Operation::Subscribe, topic, app.shared().authority.settings().explain)?;
        match !reads_history || principal.has(Right::History, topic) {
            true => Ok(()),
            false => Err(Rejection::Forbidden(principal.explain_right(Right::History, topic))),
        }
    }

    /// As which member the sender of a request appears to others.
    pub(crate) fn member_name(head: &Parts) -> Option<Arc<str>> {
        let principal = head.extensions.get::<Self>()?.0.as_ref()?;
        principal.member_name()
    }

    /// Who sends a request, as of now; `None`: there is no access control.
    fn renewed(app: &App, head: &Parts) -> Result<Option<Arc<Principal>>, Rejection> {
        let authority = &app.shared().authority;
        if !authority.is_on() {
            return Ok(None);
        }
        let caller = head.extensions.get::<Self>().and_then(|caller| caller.0.as_ref());
        // Access control may have come with a change of the configuration.
        let principal = caller.ok_or(Rejection::Unauthorized)?;
        authority.renew(principal, Some(now_ms(app))).map(Some).map_err(|_| Rejection::BadToken)
    }
}

/// Whether the sender of an operators' request may do what it asks for.
///
/// # Errors
/// 401 or 403.
pub(crate) fn check_operator(app: &App, request: &Request) -> Result<(), Rejection> {
    let authority = &app.shared().authority;
    let Some(scope) = scope_of(request.method(), request.uri().path()) else { return Ok(()) };
    let connection = request.extensions().get::<Arc<Connection>>().expect("every request comes with its connection");
    let is_free = match authority.has_keys() {
        true => request.method().is_safe() && connection.is_local,
        false => request.method().is_safe() || connection.is_local || !authority.is_on(),
    };
    if is_free {
        return Ok(());
    }
    key_holder(app, request, scope).map(drop)
}

/// Whether the sender of an operators' request may know the names of members. On the public port, which clients reach, that takes
/// a key with the scope [`Scope::Inspect`] wherever there is access control, also from this machine: a proxy may be there.
pub(crate) fn may_know_members(app: &App, request: &Request) -> bool {
    if !app.operators().on_public_port || !app.shared().authority.is_on() {
        return true;
    }
    let caller = Caller::of(app, None, request.headers());
    caller.is_ok_and(|Caller(caller)| caller.is_some_and(|caller| caller.check_scope(Scope::Inspect).is_ok()))
}

/// Who asks for payloads or traces, by the name under which it is logged. Where there is access control that takes a key with the
/// scope [`Scope::Inspect`], also on this machine.
///
/// # Errors
/// 401 or 403.
pub(crate) fn inspector(app: &App, request: &Request) -> Result<String, Rejection> {
    if !app.shared().authority.is_on() {
        return Ok("anybody".to_owned());
    }
    key_holder(app, request, Scope::Inspect).map(|principal| principal.name.to_string())
}

/// Who sends a request that takes a key with this scope.
///
/// # Errors
/// 401 or 403.
fn key_holder(app: &App, request: &Request, scope: Scope) -> Result<Arc<Principal>, Rejection> {
    let Caller(caller) = Caller::of(app, None, request.headers())?;
    let principal = caller.filter(|principal| !principal.is_anonymous()).ok_or(Rejection::Unauthorized)?;
    principal.check_scope(scope)?;
    Ok(principal)
}

/// What a request to this path needs of a key; `None`: nothing.
pub(crate) fn scope_of(method: &Method, path: &str) -> Option<Scope> {
    match path {
        "/metrics" | "/api/stats" => Some(Scope::Metrics),
        "/api/openapi.json" => None,
        "/api/topics" => Some(Scope::Topics),
        // To purge it.
        _ if !method.is_safe() && path.starts_with("/api/topics/") && path.ends_with("/messages") => {
            Some(Scope::Topics)
        }
        // It names clients' addresses, or shows payloads.
        _ if path.starts_with("/api/topics/") => Some(Scope::Inspect),
        _ if path.starts_with("/api/connections/") && path.ends_with("/trace") => Some(Scope::Inspect),
        _ if path.starts_with("/api/") => Some(Scope::Connections),
        _ => None,
    }
}

/// What `judge` says, once keys were fetched that a token may need ([`Rejection::KeyAwaited`]).
///
/// # Errors
/// Those of `judge`.
pub(crate) async fn once_decided<T>(app: &App, judge: impl Fn() -> Result<T, Rejection>) -> Result<T, Rejection> {
    let judged = judge();
    if !matches!(judged, Err(Rejection::KeyAwaited)) {
        return judged;
    }
    while app.shared().authority.key_fetch().is_awaited(now_ms(app)) {
        tokio::time::sleep(KEYS_POLL).await;
    }
    judge()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms(app: &App) -> u64 {
    app.shared().wall_clock.millis(ring::monotonic())
}

/// Whether a request is one that its handler reads a [`Caller`] of.
pub(crate) fn publishes(method: &Method, path: &str) -> bool {
    method == Method::POST && (path == "/pub" || path.starts_with("/pub/") || path.starts_with("/request/"))
}
