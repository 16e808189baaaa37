//! The successor's side: asks the running broker for its listeners, and tells it when to leave.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::server::takeover::{ENDING, LISTENERS_MAX, Offer, READY, YOURS, name, trusted_peer};

/// How long the predecessor may take to answer. It serves its clients meanwhile, but answering is no work.
const ANSWER_MAX: Duration = Duration::from_secs(10);
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
}

/// The way to tell the predecessor that this broker accepts connections.
#[derive(Debug)]
pub(crate) struct Claim(net::UnixStream);

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
    socket.write_all(b"\n")?;
    let (offer, mut sockets) = receive(&mut socket).map_err(|error| match error.kind() {
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
    info!(pid = offer.pid, version = offer.version, "taking over from a running broker");
    Ok(Inheritance { claim: Claim(socket), shards: sockets, tls, operators })
}

/// One line, and the sockets that came with it.
fn receive(socket: &mut net::UnixStream) -> io::Result<(Offer, Vec<OwnedFd>)> {
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
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > OFFER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no ringyard"));
        }
    }
    Ok((serde_json::from_slice(&line)?, sockets))
}

impl Claim {
    /// Tells the predecessor that this broker accepts connections, and waits until the predecessor no longer does: from
    /// then on this broker has to accept anew. To be called in a runtime.
    pub(crate) async fn complete(self) {
        match timeout(ANSWER_MAX, self.exchange()).await {
            Ok(Ok(())) => info!("taken over: the broker that ran before accepts no connections any more"),
            Ok(Err(error)) => {
                warn!("the broker that ran before has ended, or does not leave: {error}");
                sleep(ENDING).await;
            }
            Err(_) => warn!("the broker that ran before did not leave within {ANSWER_MAX:?}: it may still accept"),
        }
    }

    async fn exchange(self) -> io::Result<()> {
        self.0.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(self.0)?;
        socket.write_all(READY).await?;
        let mut word = [0; YOURS.len()];
        socket.read_exact(&mut word).await?;
        if word == YOURS { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it said something else")) }
    }
}
