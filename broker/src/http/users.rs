//! What operators do about users: see who is there, close their connections, refuse their tokens.
//!
//! Not responsible for who may ask (`caller`), nor for tokens (`access/authority.rs`).

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use protocol::frame::HEADER_MAX;
use protocol::head::percent_decode;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::access::address::Client;
use crate::access::principal::PrincipalKind;
use crate::http::app::App;
use crate::http::bodies;
use crate::http::caller::now_ms;
use crate::http::error::HttpError;
use crate::http::shards::{ask, ask_all, connection_name, within_patience};
use crate::ids::ShardId;
use crate::shard::shared::{ControlMessage, INSPECTED_MAX, SignedIn, SignedInPart};

/// The longest name of a user that a path may have, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// Connections of users and keys, or of an address.
#[derive(Serialize, Debug)]
pub(crate) struct Connections {
    /// How many there are.
    total: u64,
    /// Whether more are than are listed.
    truncated: bool,
    connections: Vec<Row>,
}

/// One of them.
#[derive(Serialize, Debug)]
struct Row {
    /// Its [`connection_name`].
    connection: String,
    /// `None`: it is nobody's in particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// That of its principal.
    kind: &'static str,
    /// When its token was issued and when it ends, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    subscriptions: usize,
}

/// What was done about a user.
#[derive(Serialize, Debug)]
pub(crate) struct Closed {
    user: String,
    /// How many connections were closed.
    closed: u64,
    /// Tokens from before this second since 1970 are refused from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
}

/// The body of a revocation.
#[derive(Default, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Revocation {
    /// Seconds since 1970; by default now.
    before: Option<u64>,
}

/// `GET /api/connections`.
pub(crate) async fn connections(State(app): State<App>, request: Request) -> Result<Json<Connections>, HttpError> {
    let user = match Sought::read(request.uri())? {
        Sought::Address(ip) => return of_address(&app, ip).await.map(Json),
        Sought::User(user) => Some(user),
        Sought::All => None,
    };
    let parts =
        within_patience(ask_all(&app, |answer| ControlMessage::SignedIn { user: user.clone(), answer })).await?;
    let total = parts.iter().map(|(_, part)| part.total).sum();
    let rows = parts.into_iter().flat_map(|(shard, SignedInPart { connections, .. })| {
        connections.into_iter().map(move |signed_in| Row::new(shard, &signed_in))
    });
    let connections: Vec<Row> = rows.take(INSPECTED_MAX).collect();
    Ok(Json(Connections { total, truncated: total > connections.len() as u64, connections }))
}

/// The connections of an address: each shard is asked until it has looked at all of its own.
async fn of_address(app: &App, ip: IpAddr) -> Result<Connections, HttpError> {
    let limits = app.limits();
    if limits.connections_per_address_max.is_none() {
        return Err(HttpError::bad("Addresses are known only with --max-connections-per-address."));
    }
    let sentence = "Connections of this machine are not counted by address.";
    let client = Client::of(ip).ok_or_else(|| HttpError::bad(sentence))?;
    within_patience(async {
        let (mut connections, mut total) = (Vec::new(), 0);
        for shard in ShardId::all(app.shards()) {
            let mut next = Some(0);
            while let Some(from) = next {
                let part = ask(app, shard, |answer| ControlMessage::OfClient { client, from, answer }).await?;
                total += part.connections.len() as u64;
                let room = INSPECTED_MAX - connections.len();
                connections.extend(part.connections.iter().take(room).map(|found| Row::new(shard, found)));
                next = part.next;
            }
        }
        Some(Connections { total, truncated: total > connections.len() as u64, connections })
    })
    .await
}

/// `POST /api/users/{user}/close`.
pub(crate) async fn close(State(app): State<App>, request: Request) -> Result<Json<Closed>, HttpError> {
    let user = user_in(&request, "/close")?;
    let closed = close_all(&app, &user, None).await?;
    info!(event = "user_closed", closed, "an operator closed the connections of a user");
    Ok(Json(Closed { user, closed, before: None }))
}

/// `POST /api/users/{user}/revoke`.
pub(crate) async fn revoke(State(app): State<App>, request: Request) -> Result<Json<Closed>, HttpError> {
    let user = user_in(&request, "/revoke")?;
    let (head, body) = request.into_parts();
    let bound = bodies::Bound {
        bytes_max: 1 << 10,
        too_long: |_| HttpError::new(413_u16, "The body is {\"before\": seconds}, or empty."),
    };
    let body = bodies::collect(&app, &head.headers, body, bound).await?;
    let now_ms = now_ms(&app);
    let before = revoked_before(&body.room[HEADER_MAX..], now_ms / 1000)?;
    // Once before, for the count: shards close them by themselves as soon as they are revoked.
    let first = close_all(&app, &user, Some(before)).await?;
    app.shared().authority.revoke(&user, before, now_ms).map_err(|sentence| HttpError::new(429_u16, sentence))?;
    let closed = first + close_all(&app, &user, Some(before)).await?;
    info!(event = "user_revoked", closed, before, "an operator revoked the tokens of a user");
    Ok(Json(Closed { user, closed, before: Some(before) }))
}

/// From before which second tokens are refused.
fn revoked_before(body: &[u8], now_s: u64) -> Result<u64, HttpError> {
    let revocation: Revocation = match body.trim_ascii() {
        b"" => Revocation::default(),
        text => serde_json::from_slice(text)
            .map_err(|_| HttpError::bad("The body is {\"before\": seconds since 1970}, or empty."))?,
    };
    // A token from this very second may be the one that is meant.
    let before = revocation.before.unwrap_or(now_s + 1);
    if before > now_s + 1 {
        return Err(HttpError::bad("before is in the future: tokens that are signed from now on would be refused."));
    }
    Ok(before)
}

async fn close_all(app: &App, user: &str, issued_before_s: Option<u64>) -> Result<u64, HttpError> {
    let user: Arc<str> = user.into();
    let order = |answer| ControlMessage::CloseUser { user: Arc::clone(&user), issued_before_s, answer };
    Ok(within_patience(ask_all(app, order)).await?.into_iter().map(|(_, closed)| closed).sum())
}

/// The user that the path names, in front of this end.
fn user_in(request: &Request, end: &str) -> Result<String, HttpError> {
    let path = request.uri().path();
    let encoded = path.strip_prefix("/api/users/").and_then(|rest| rest.strip_suffix(end)).unwrap_or_default();
    name(encoded)
}

/// Whose connections are listed.
#[derive(PartialEq, Eq, Debug)]
enum Sought {
    /// Those of every user and key.
    All,
    User(Arc<str>),
    Address(IpAddr),
}

impl Sought {
    /// What the query names.
    fn read(uri: &Uri) -> Result<Self, HttpError> {
        let mut sought = Self::All;
        for member in uri.query().unwrap_or_default().split('&').filter(|member| !member.is_empty()) {
            let named = match member.split_once('=') {
                Some(("user", user)) => Self::User(name(user)?.into()),
                Some(("address", text)) => Self::Address(address(text)?),
                _ => return Err(HttpError::bad("The query has user= or address= and nothing else.")),
            };
            if std::mem::replace(&mut sought, named) != Self::All {
                return Err(HttpError::bad("The query names more than one user or address."));
            }
        }
        Ok(sought)
    }
}

fn address(encoded: &str) -> Result<IpAddr, HttpError> {
    let text = percent_decode(encoded);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| HttpError::bad("address is an IP address without a port."))
}

fn name(encoded: &str) -> Result<String, HttpError> {
    let name = percent_decode(encoded).ok_or_else(|| HttpError::bad("The user is not percent-encoded UTF-8."))?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(HttpError::bad("The user's name has from 1 to 1,024 bytes."));
    }
    Ok(name.into_owned())
}

impl Row {
    fn new(shard: ShardId, SignedIn { conn, principal, subscriptions }: &SignedIn) -> Self {
        let principal = principal.as_deref();
        Self {
            connection: connection_name(shard, *conn),
            user: principal.map(|principal| principal.name.to_string()),
            kind: principal.map_or(PrincipalKind::Anonymous, |principal| principal.kind).as_str(),
            issued: principal.and_then(|principal| Some(principal.issued_at_s?.saturating_mul(1000))),
            expires: principal.and_then(|principal| principal.expires_ms),
            subscriptions: *subscriptions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_of_now_or_before() {
        let before = |body: &str| revoked_before(body.as_bytes(), 1000).map_err(|error| error.status());
        assert_eq!((before(""), before(" \n"), before("{}")), (Ok(1001), Ok(1001), Ok(1001)));
        assert_eq!((before(r#"{"before":7}"#), before(r#"{"before":1001}"#)), (Ok(7), Ok(1001)));
        for bad in [r#"{"before":1002}"#, r#"{"before":-1}"#, r#"{"before":"1"}"#, r#"{"after":1}"#, "1", "{"] {
            assert_eq!(before(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn users_are_named_in_paths_and_queries() {
        let in_query = |query: &str| {
            let uri: Uri = format!("/api/connections{query}").parse().expect("a URI");
            Sought::read(&uri).map_err(|error| error.status())
        };
        assert_eq!((in_query(""), in_query("?user=a%2Fb")), (Ok(Sought::All), Ok(Sought::User("a/b".into()))));
        let address = |text: &str| Ok(Sought::Address(text.parse().expect("an address")));
        assert_eq!(in_query("?address=203.0.113.7"), address("203.0.113.7"));
        assert_eq!(in_query("?address=2001%3Adb8%3A%3A1"), address("2001:db8::1"));
        let bad = ["?user=", "?user=%ff", "?name=a", "?address=a", "?address=203.0.113.7:80"];
        let several = ["?user=a&user=a", "?user=a&address=203.0.113.7"];
        for bad in bad.into_iter().chain(several) {
            assert_eq!(in_query(bad), Err(400), "{bad}");
        }
        let request =
            Request::post("/api/users/auth0%7C1%2F2/close").body(axum::body::Body::empty()).expect("a request");
        assert_eq!(user_in(&request, "/close").map_err(|error| error.status()), Ok("auth0|1/2".to_owned()));
    }
}
