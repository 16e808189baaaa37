//! What follows the requests of a connection: the refusal of a head, or a WebSocket handshake, which goes to a shard.
//!
//! Proxies and browsers reuse connections, so handshakes arrive here as well. The reader of heads has parsed them; the
//! same policy judges them as on a shard. A shard gets the socket and what the head said, and answers. Every answer before
//! that was sent by then, so answers keep the order of their requests.
//!
//! RFC 6455 §4.2; RFC 9110 §7.8. Bytes that follow the head belong to the WebSocket: they go with it, charged to the
//! budget, or, if the handshake is refused, are not looked at (RFC 9931).

use std::sync::Arc;
use std::time::Duration;

use protocol::head::{self, Page};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access::address::AddressLease;
use crate::access::keys::Credential;
use crate::access::policy::{HandshakeFacts, Kind, Publishing, RequestFacts};
use crate::access::principal::Principal;
use crate::access::rejection::{Rejection, readable};
use crate::capacity::budget::Held;
use crate::capacity::buffer::Buffer;
use crate::http::app::App;
use crate::http::caller::{now_ms, once_decided};
use crate::http::connection::Connection;
use crate::http::request_heads::{Ended, Handshake, Heads};
use crate::http::send_control;
use crate::http::write_timeout::Patience;
use crate::observe::counters::Refused;
use crate::shard::entry::{Asked, Credentials, enter, enter_open};
use crate::shard::handover::{Adopt, Entry, Purpose};
use crate::shard::shared::ControlMessage;

/// How long a socket waits for room in a shard's queue before it is closed.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

/// Goes on where the HTTP library ended.
pub(crate) async fn finish(app: &App, connection: &Connection, heads: Heads<Patience<TcpStream>>) {
    let (mut socket, read, ended) = heads.into_parts();
    let (cause, answer) = match ended {
        None => return,
        Some(Ended::Refused(answer)) => (Some(Refused::Request), answer),
        Some(Ended::Handshake(mut handshake)) => match admit(app, connection, &mut handshake).await {
            Ok(lease) => {
                let mut rest = Buffer::new(app.shared().budget.of_plane(), Held::Http);
                rest.extend(&read);
                return hand_over(app, *handshake, lease, socket.into_inner(), rest).await;
            }
            Err(rejection) => {
                let is_stream = matches!(handshake.upgrade.purpose, Purpose::Events(_));
                let rejection = if is_stream { rejection.of_stream() } else { rejection };
                let host = handshake.host.as_deref().unwrap_or_default();
                let page = handshake.origin.as_deref().map(|origin| Page { origin, host });
                (rejection.cause(), readable(rejection.answer(), page, &app.limits().origins))
            }
        },
    };
    app.shared().plane.count_refusal(cause);
    let mut bytes = Vec::with_capacity(512);
    answer.write_to(&mut bytes);
    // A client that breaks off meanwhile is gone.
    if socket.write_all(&bytes).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

/// As what the client counts from now on. The handshake counts as let in.
async fn admit(app: &App, connection: &Connection, handshake: &mut Handshake) -> Result<AddressLease, Rejection> {
    let credential = app.policy().credential(|| head::bearer(&handshake.head));
    handshake.upgrade.has_key = credential == Credential::Valid;
    handshake.upgrade.check_start(app.shared().registry.rules()).map_err(Rejection::Malformed)?;
    handshake.upgrade.entry = once_decided(app, || enter_as(app, connection, handshake)).await?;
    let kind = Kind::Handshake(HandshakeFacts {
        is_public: !connection.is_operators || handshake.upgrade.purpose == Purpose::V1Session,
        topic: app.shared().admit_purpose(&handshake.upgrade.purpose, app.limits().topics_max),
        forwarded: handshake.forwarded,
        has_slot: true,
    });
    let publishing = handshake.upgrade.purpose.publishing(credential);
    let (host, origin) = (handshake.host.as_deref(), handshake.origin.as_deref());
    let counted = app.policy().decide(RequestFacts { host, origin, publishing, kind })?;
    handshake.upgrade.make_readable(origin, &app.shared().authority);
    Ok(counted.unwrap_or_else(|| connection.lease.hand_on()))
}

/// As whom it begins. Nothing is verified for a page that may not use this broker, nor for a request that is not for it.
fn enter_as(app: &App, connection: &Connection, handshake: &Handshake) -> Result<Entry, Rejection> {
    let authority = &app.shared().authority;
    if connection.is_operators {
        return enter_as_operator(app, connection, handshake);
    }
    if !authority.is_on() {
        return enter_open(&handshake.upgrade.purpose);
    }
    let asked = handshake.asked();
    let Asked { host, origin, .. } = asked;
    app.policy().decide(RequestFacts { host, origin, publishing: Publishing::None, kind: Kind::Change })?;
    let credentials = Credentials::of_asked(authority, asked);
    let upgrade = &handshake.upgrade;
    enter(authority, credentials, (&upgrade.purpose, upgrade.start), now_ms(app)).0
}

/// As whom a WebSocket of the operators' own listener begins: whoever may ask there for counters may also subscribe to them.
/// Of pages, only the broker's own may: what `--allow-origin` names is for clients.
fn enter_as_operator(app: &App, connection: &Connection, handshake: &Handshake) -> Result<Entry, Rejection> {
    let (authority, upgrade) = (&app.shared().authority, &handshake.upgrade);
    let asked = handshake.asked();
    let host = asked.host.unwrap_or_default();
    if asked.origin.is_some_and(|origin| !head::origin_is_host(origin, host)) {
        return Err(Rejection::Origin);
    }
    if upgrade.purpose != Purpose::V1Session {
        return Err(Rejection::NoWebSockets);
    }
    if !authority.has_keys() || connection.is_local {
        return Ok(Entry::Known(Arc::new(Principal::operator(connection.is_local))));
    }
    let credentials = Credentials::of_asked(authority, asked);
    enter(authority, credentials, (&upgrade.purpose, upgrade.start), now_ms(app)).0
}

async fn hand_over(app: &App, handshake: Handshake, lease: AddressLease, socket: TcpStream, read: Buffer) {
    let given = async {
        let socket = socket.into_std().ok()?.into();
        let adopt = ControlMessage::Adopt(Adopt { socket, upgrade: handshake.upgrade, read, lease });
        let shard = app.next_shard();
        // A shard that takes no control messages for that long is overloaded: dropping the socket closes it.
        timeout(QUEUE_PATIENCE, send_control(app.shared(), shard, adopt)).await.ok()
    };
    if given.await.is_none() {
        app.shared().admission.leave();
    }
}
