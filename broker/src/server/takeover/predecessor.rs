//! The running broker's side: waits for a successor and hands the listeners to it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::access::authority::Authority;
use crate::server::takeover::link::Link;
use crate::server::takeover::{
    ANSWER_MAX, ASKING, ENDING, LISTENERS_MAX, Offer, READY, YOURS, line, name, trusted_peer,
};

/// How long a successor may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// After a connection that could not be accepted, and before the name is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the name is tried: for half a minute.
const ATTEMPTS_MAX: u64 = 300;

/// What a running broker can hand over.
#[derive(Debug)]
pub(crate) struct Estate {
    /// Where the shards listen: `--listen`, with the port that it is.
    address: SocketAddr,
    shards: Vec<Arc<OwnedFd>>,
    tls: Vec<Arc<OwnedFd>>,
    operators: Option<OwnedFd>,
    /// Knows who is revoked.
    authority: Arc<Authority>,
    /// The Unix socket, once [`Estate::listen`] has it.
    listener: Option<UnixListener>,
}

impl Estate {
    /// The listeners of the shards at `address`, those for TLS, and that of the operators; and the users that `authority` refuses.
    ///
    /// # Errors
    /// There is no descriptor left for the latter.
    pub(crate) fn new(
        address: SocketAddr,
        shards: &[Arc<OwnedFd>],
        tls: &[Arc<OwnedFd>],
        operators: Option<BorrowedFd<'_>>,
        authority: Arc<Authority>,
    ) -> io::Result<Self> {
        let operators = operators.map(|operators| operators.try_clone_to_owned()).transpose()?;
        Ok(Self { address, shards: shards.to_vec(), tls: tls.to_vec(), operators, authority, listener: None })
    }

    /// Listens for successors, if the name can be had at once; [`taken`](Self::taken) tries again. Before the broker says where it is:
    /// anyone who has read that may start a successor. To be called in a runtime.
    pub(crate) fn listen(&mut self) {
        self.listener = self.bind().ok();
    }

    /// Waits until a successor has everything and accepts connections. Returns its connection, on which it waits for
    /// [`Taken::leave`]. Calls `accept_anew` when one has failed, which may have accepted connections. To be called in a
    /// runtime.
    pub(crate) async fn taken(mut self, accept_anew: impl AsyncFn()) -> Taken {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => self.listener().await,
        };
        loop {
            match listener.accept().await {
                Ok((mut successor, _)) => match timeout(START_MAX, self.converse(&mut successor)).await {
                    Ok(Ok(Some(asker))) => {
                        let authority = asker.is_asking.then_some(self.authority);
                        return Taken { pid: asker.pid, successor, authority };
                    }
                    Ok(Ok(None)) => continue,
                    Ok(Err(error)) => warn!("a successor did not take over: {error}; this broker goes on"),
                    Err(_) => warn!("a successor did not start within {START_MAX:?}; this broker goes on"),
                },
                Err(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            }
            sleep(ENDING).await;
            accept_anew().await;
        }
    }

    /// The Unix socket, as soon as it can be had.
    async fn listener(&self) -> UnixListener {
        for attempt in 0_u64.. {
            match self.bind() {
                Ok(listener) => return listener,
                // A predecessor that is about to go has the name; later, somebody who is no broker.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS_MAX => sleep(PAUSE).await,
                Err(error) => {
                    warn!("no successor can take over from this broker (--take-over): no Unix socket: {error}");
                    break;
                }
            }
        }
        std::future::pending().await
    }

    fn bind(&self) -> io::Result<UnixListener> {
        let listener = net::UnixListener::bind_addr(&name(self.address)?)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }

    /// Hands everything over and waits until the successor is ready. `None`: it was only asked whether there is anybody.
    async fn converse(&self, successor: &mut UnixStream) -> io::Result<Option<Asker>> {
        let pid = trusted_peer(&*successor)?.pid;
        let mut word = [0; READY.len()];
        if successor.read(&mut word[..1]).await? == 0 {
            return Ok(None);
        }
        info!(pid, "a successor starts: it gets the listening sockets");
        let is_asking = word.starts_with(ASKING);
        self.send(successor, is_asking).await?;
        if is_asking {
            successor.write_all(&line(&self.authority.revoked())?).await?;
        }
        successor.read_exact(&mut word).await?;
        if word == READY {
            Ok(Some(Asker { pid, is_asking }))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is no ringyard"))
        }
    }

    async fn send(&self, successor: &UnixStream, revoked: bool) -> io::Result<()> {
        let (shards, tls) = (self.shards.len(), self.tls.len());
        if shards + tls > LISTENERS_MAX {
            return Err(io::Error::other(format!(
                "{} listeners are more than one message carries: {LISTENERS_MAX}",
                shards + tls
            )));
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let line = line(&Offer { version, pid: std::process::id(), shards, tls, revoked })?;
        let operators = self.operators.iter().map(AsFd::as_fd);
        let sockets: Vec<_> = self.shards.iter().chain(&self.tls).map(AsFd::as_fd).chain(operators).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX + 1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)), "there is space for as many");
        successor.writable().await?;
        // A fresh socket takes a line at once.
        let sent = sendmsg(successor, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// A successor that is ready.
struct Asker {
    /// Its process.
    pid: i32,
    /// Whether it wants to know who is revoked.
    is_asking: bool,
}

/// A successor has taken over.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Its process, as this namespace numbers it.
    pub(crate) pid: i32,
    successor: UnixStream,
    /// Knows who is revoked, if the successor wants to know it too.
    authority: Option<Arc<Authority>>,
}

impl Taken {
    /// Tells the successor that this broker no longer accepts connections: no shard does. Returns how it hears whom the
    /// successor revokes, if that one says it.
    pub(crate) async fn leave(mut self) -> Option<Link> {
        let mut words = YOURS.to_vec();
        if let Some(authority) = &self.authority {
            words.extend(line(&authority.revoked()).unwrap_or_default());
        }
        // It may have ended; then nobody waits for the word.
        let _ = timeout(ANSWER_MAX, self.successor.write_all(&words)).await;
        self.authority.map(|_| Link { socket: self.successor })
    }
}
