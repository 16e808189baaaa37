//! A WebSocket handshake on a connection that the control plane already has: proxies and browsers reuse
//! connections. Same rules, refusals and origins as a handshake that a shard reads, because the same
//! parser judges it; then the socket goes to a shard for good.
//!
//! RFC 6455 §4.2; RFC 9110 §7.8. Bytes that follow the head belong to the WebSocket and go with it.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use protocol::head::{self, Head, HeadLimits, Upgrade};
use tokio::time::timeout;

use crate::access::address::{self, AddressLease};
use crate::access::policy::{Handshake, Kind, RequestFacts};
use crate::access::rejection::Rejection;
use crate::config::limits::Limits;
use crate::http::app::App;
use crate::http::connection::Connection;
use crate::http::send_control;
use crate::http::serve::Stream;
use crate::observe::counters::Refused;
use crate::shard::handover::{Adopt, Purpose};
use crate::shard::shared::ControlMessage;

/// How long an upgraded socket waits for room in a shard's queue before it is closed.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

/// Answers handshakes; lets everything else through to the routes.
pub(crate) async fn answer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if !request.headers().contains_key(header::UPGRADE) {
        return next.run(request).await;
    }
    let raw = raw_head(&request);
    match head::parse(&raw, &head_limits(app.limits(), raw.len())) {
        Ok(Head::Upgrade(upgrade)) => {
            let purpose = Purpose::from(&upgrade.endpoint);
            let lease = match admit(&app, &request, &upgrade, &purpose) {
                Ok(lease) => lease,
                Err(rejection) => return refuse(&rejection.answer(), rejection.cause()),
            };
            let on_upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(hand_to_shard(app, purpose, lease, on_upgrade));
            switch(&upgrade)
        }
        Ok(Head::Http(_)) => next.run(request).await,
        Ok(Head::Partial) => refuse(&head::Refusal::new(400, "The request head is malformed."), Refused::Request),
        Err(refusal) => refuse(&refusal, Refused::Request),
    }
}

/// For whom a trusted proxy sends this request; `None`: for itself.
pub(crate) fn forwarded(headers: &HeaderMap, limits: &Limits) -> Option<IpAddr> {
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let members = lines.iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let members = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    address::client(members, &limits.trusted_proxies)
}

/// Whether the broker takes one more WebSocket, and as what its client counts. If so, it counts as let in.
fn admit(app: &App, request: &Request, upgrade: &Upgrade<'_>, purpose: &Purpose) -> Result<AddressLease, Rejection> {
    let connection = request.extensions().get::<Arc<Connection>>();
    let is_trusted = connection.is_some_and(|connection| connection.lease.is_trusted());
    let handshake = Handshake {
        is_public: true,
        topic: app.shared().admit_purpose(purpose, app.limits().topics_max),
        forwarded: is_trusted.then(|| forwarded(request.headers(), app.limits())).flatten(),
        has_slot: true,
    };
    let kind = Kind::Handshake(handshake);
    let counted = app.policy().decide(RequestFacts { host: Some(upgrade.host), origin: upgrade.origin, kind })?;
    Ok(counted.or_else(|| connection.map(|connection| connection.lease.hand_on())).unwrap_or_default())
}

/// The head as the client sent it, up to white space and the case of names.
fn raw_head(request: &Request) -> Vec<u8> {
    let mut raw = Vec::with_capacity(1024);
    raw.extend_from_slice(format!("{} {} {:?}\r\n", request.method(), request.uri(), request.version()).as_bytes());
    for (name, value) in request.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            raw.extend_from_slice(part);
        }
    }
    raw.extend_from_slice(b"\r\n");
    raw
}

/// The size was checked when the head was read; as written here it may differ by a few bytes.
fn head_limits(limits: &Limits, raw_len: usize) -> HeadLimits {
    HeadLimits {
        head_bytes_max: limits.head_bytes_max.max(raw_len),
        headers_max: limits.headers_max,
        topic_len_max: limits.topic_bytes_max,
    }
}

fn switch(upgrade: &Upgrade<'_>) -> Response {
    let accept = HeaderValue::from_bytes(&upgrade.accept).expect("base64 is a field's value");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = upgrade.subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}

/// Like `protocol::head::Refusal::write_to`, in hyper's terms.
pub(crate) fn refuse(refusal: &head::Refusal, cause: impl Into<Option<Refused>>) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = (status, format!("{}\n", refusal.reason)).into_response();
    if let Some(cause) = cause.into() {
        response.extensions_mut().insert(cause);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(seconds) = refusal.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(origin) = refusal.allow_origin.as_ref().and_then(|origin| HeaderValue::from_str(origin).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
    match status {
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade, close"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        _ => {}
    }
    response
}

/// Waits until the 101 is sent, then gives the socket away. A client that breaks off meanwhile is gone.
async fn hand_to_shard(app: App, purpose: Purpose, lease: AddressLease, on_upgrade: OnUpgrade) {
    let given = async {
        let (socket, read) = parts(on_upgrade.await.ok()?).ok()?;
        let adopt = ControlMessage::Adopt(Adopt { socket, purpose, read, lease });
        let shard = app.next_shard();
        // A shard that takes no control messages for that long is overloaded: dropping the socket closes it.
        timeout(QUEUE_PATIENCE, send_control(app.shared(), shard, adopt)).await.ok()
    };
    if given.await.is_none() {
        app.shared().admission.leave();
    }
}

/// The socket, and what was read of it beyond the head.
fn parts(upgraded: Upgraded) -> io::Result<(OwnedFd, Vec<u8>)> {
    let parts = upgraded.downcast::<Stream>().map_err(|_| io::ErrorKind::Unsupported)?;
    let (patience, early) = parts.io.into_inner().into_parts();
    let mut read = Vec::from(parts.read_buf);
    read.extend_from_slice(&early);
    Ok((patience.into_inner().into_std()?.into(), read))
}
