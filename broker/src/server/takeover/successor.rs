//! The successor's side: asks the running broker for its listeners, and tells it when to leave.

use std::io::{self, BufRead, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::access::revocations::Revoked;
use crate::server::takeover::link::Link;
use crate::server::takeover::{
    ANSWER_MAX, ASKING, ENDING, LISTENERS_MAX, Offer, READY, REVOKED_BYTES_MAX, YOURS, name, trusted_peer,
};

/// The longest [`Offer`], in bytes.
const OFFER_BYTES_MAX: usize = 1024;

/// What a predecessor gave.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) claim: Claim,
    /// The listeners of its shards.
    pub(crate) shards: Vec<OwnedFd>,
    /// Those for TLS.
    pub(crate) tls: Vec<OwnedFd>,
    /// Its listener for operators, if it has one.
    pub(crate) operators: Option<OwnedFd>,
    /// The users that it refuses.
    pub(crate) revoked: Revoked,
}

/// The way to tell the predecessor that this broker accepts connections.
#[derive(Debug)]
pub(crate) struct Claim {
    socket: net::UnixStream,
    /// Whether it tells which users are revoked.
    tells_revoked: bool,
}

/// Whether a broker that can be taken over from listens at `address`.
pub(crate) fn has_predecessor(address: SocketAddr) -> bool {
    name(address).and_then(|name| net::UnixStream::connect_addr(&name)).is_ok()
}

/// Asks the broker that listens at `address` for its listeners; `None`: there is none.
///
/// # Errors
/// A sentence: there is one, and it does not give them.
pub(crate) fn claim(address: SocketAddr) -> Result<Option<Inheritance>, String> {
    let socket = match name(address).and_then(|name| net::UnixStream::connect_addr(&name)) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(format!("cannot ask whether a broker listens at {address} (--take-over): {error}")),
    };
    let inherited = inherit(socket);
    inherited.map(Some).map_err(|error| format!("the broker at {address} cannot be taken over (--take-over): {error}"))
}

fn inherit(mut socket: net::UnixStream) -> io::Result<Inheritance> {
    trusted_peer(&socket)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.write_all(ASKING)?;
    let (offer, rest, mut sockets) = receive(&mut socket).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it did not answer within {ANSWER_MAX:?}; perhaps another successor is starting"),
        ),
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it refused; its log says why"),
        _ => error,
    })?;
    if sockets.len() < offer.shards + offer.tls {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it gave fewer listening sockets than it has shards"));
    }
    let operators = sockets.split_off(offer.shards + offer.tls).pop();
    let tls = sockets.split_off(offer.shards);
    let revoked = match offer.revoked {
        true => {
            let mut line = Vec::new();
            io::BufReader::new(Read::chain(rest, &socket)).take(REVOKED_BYTES_MAX).read_until(b'\n', &mut line)?;
            serde_json::from_slice(&line)?
        }
        false => Revoked::default(),
    };
    info!(pid = offer.pid, version = offer.version, revoked = revoked.len(), "taking over from a running broker");
    let claim = Claim { socket, tells_revoked: offer.revoked };
    Ok(Inheritance { claim, shards: sockets, tls, operators, revoked })
}

/// One line, what was read behind it, and the sockets that came with it.
fn receive(socket: &mut net::UnixStream) -> io::Result<(Offer, io::Cursor<Vec<u8>>, Vec<OwnedFd>)> {
    let mut line = vec![0; OFFER_BYTES_MAX];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&*socket, &mut [IoSliceMut::new(&mut line)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more);
        }
    }
    line.truncate(received);
    // The sockets come with the first byte; the rest of the line may come later.
    let end = loop {
        if let Some(at) = line.iter().position(|&byte| byte == b'\n') {
            break at + 1;
        }
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > OFFER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no ringyard"));
        }
    };
    let rest = io::Cursor::new(line.split_off(end));
    Ok((serde_json::from_slice(&line)?, rest, sockets))
}

impl Claim {
    /// Tells the predecessor that this broker accepts connections, and waits until the predecessor no longer does: from
    /// then on this broker has to accept anew. Returns the users that the predecessor refuses, and how to tell it whom this one
    /// revokes. To be called in a runtime.
    pub(crate) async fn complete(self) -> (Revoked, Option<Link>) {
        match timeout(ANSWER_MAX, self.exchange()).await {
            Ok(Ok(done)) => {
                info!("taken over: the broker that ran before accepts no connections any more");
                return done;
            }
            Ok(Err(error)) => {
                warn!("the broker that ran before has ended, or does not leave: {error}");
                sleep(ENDING).await;
            }
            Err(_) => warn!("the broker that ran before did not leave within {ANSWER_MAX:?}: it may still accept"),
        }
        (Revoked::default(), None)
    }

    async fn exchange(self) -> io::Result<(Revoked, Option<Link>)> {
        self.socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(self.socket)?;
        socket.write_all(READY).await?;
        let mut word = [0; YOURS.len()];
        socket.read_exact(&mut word).await?;
        if word != YOURS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it said something else"));
        }
        if !self.tells_revoked {
            return Ok((Revoked::default(), None));
        }
        let mut line = Vec::new();
        BufReader::new(&mut socket).take(REVOKED_BYTES_MAX).read_until(b'\n', &mut line).await?;
        Ok((serde_json::from_slice(&line)?, Some(Link { socket })))
    }
}
