//! A successor takes over from a running broker, and no newcomer is refused meanwhile.
//!
//! The running broker, the predecessor, hands its listening sockets to the successor. Connections that wait in their
//! queues are accepted by whichever broker comes first, so there is no moment in which nobody listens.
//!
//! | step | predecessor | successor |
//! | --- | --- | --- |
//! | 1 | waits on a Unix socket whose name follows from `--listen` ([`name`]) | connects to it |
//! | 2 | checks the successor's user; sends an [`Offer`] with its listeners (`SCM_RIGHTS`, unix(7)), and the users that are revoked | checks the predecessor's user; starts everything, and accepts |
//! | 3 | stops accepting | sends `ready` |
//! | 4 | sends `yours` once all its shards have stopped, and again the users that are revoked; drains its clients over a window | accepts anew, waits on a Unix socket of its own for a successor |
//! | 5 | closes its connections of users of whom it hears; ends when the window is over | says whom it revokes, until then ([`link`]) |
//!
//! A successor that fails before step 3 changes nothing: the predecessor goes on as if nobody had asked.
//!
//! While both accept, the kernel notifies one of them of a connection (io_uring waits exclusively). If that one stops, or
//! ends, before it has looked, the connection would wait until the next one comes. So the broker that goes on accepts anew when the
//! other has stopped: that finds everybody who waits.
//!
//! Revoked users are named twice: before the successor accepts, so that nobody of them gets in, and when the predecessor has stopped,
//! because operators could revoke more meanwhile. A broker of a version that does not know of them goes without: each says
//! whether it does ([`ASKING`], [`Offer`]). One that does not listen later has closed the socket behind `yours`.
//!
//! The Unix socket is an abstract one: it needs no directory, ends with its process, and is found in the whole network
//! namespace, as the address is. Both sides check that the other is of the same user, or root.
//!
//! Not responsible for clients: what they see is a drain (`shard/drain.rs`).

pub(crate) mod link;
pub(crate) mod predecessor;
pub(crate) mod successor;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::peer::Peer;
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::access::authority::Authority;
use crate::access::revocations::Revoked;

/// Most listeners that one message carries: the kernel's limit (`SCM_MAX_FD`) is 253.
const LISTENERS_MAX: usize = 252;
/// The user who may do anything.
const ROOT: u32 = 0;
/// How long either may take to say something. Both serve their clients meanwhile, but saying it is no work.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// For how long the kernel may still notify a process that has just ended: its rings are taken apart behind it.
const ENDING: Duration = Duration::from_millis(100);
/// What a successor begins with that wants to know which users are revoked.
const ASKING: &[u8] = b"r";
/// The longest line that says so, in bytes.
const REVOKED_BYTES_MAX: u64 = 64 << 20;
/// What a successor sends when it accepts connections.
const READY: &[u8] = b"ready\n";
/// What the predecessor answers when it no longer does.
const YOURS: &[u8] = b"yours\n";

/// What the predecessor says with its listeners: one line of JSON.
#[derive(Serialize, Deserialize, Debug)]
struct Offer {
    version: String,
    pid: u32,
    /// How many of the sockets are listeners of shards: the first ones. The last one, behind those and `tls`, is the operators'.
    shards: usize,
    /// How many behind them are listeners of shards for TLS.
    #[serde(default)]
    tls: usize,
    /// Whether a line with revoked users follows, and another one behind `yours`.
    #[serde(default)]
    revoked: bool,
}

/// The name of the Unix socket of a broker that listens at `address`.
fn name(address: SocketAddr) -> io::Result<net::SocketAddr> {
    net::SocketAddr::from_abstract_name(format!("ringyard/take-over/{address}"))
}

/// The process at the other end, which is of this process's user, or root's.
///
/// # Errors
/// It is another user's.
fn trusted_peer(socket: impl AsFd) -> io::Result<Peer> {
    let peer = ring::peer::peer(socket)?;
    if peer.user == ring::peer::user() || peer.user == ROOT {
        return Ok(peer);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's"))
}

/// A line of JSON.
fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Refuses the users that another broker refuses.
pub(crate) fn refuse(authority: &Authority, revoked: &Revoked) {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    if let Err(sentence) = authority.revoke_all(revoked, now_ms) {
        error!("not everybody is revoked whom the other broker has revoked: {sentence}");
    }
}
