//! A client connection of an attack: [`Client`] with its own source address, small buffers, resets, and sends and reads
//! that do not wait.
//!
//! Every connection comes from its own address of `127.64.0.0/10`, so that hundreds of thousands of them may
//! linger in TIME_WAIT and ports never run out.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use loadgen::client::Client;
pub(super) use loadgen::client::{Answer, Ending};
use loadgen::tls::Tls;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::stream::Stream;
use super::wire;

/// No answer may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// A small receive buffer, and small segments, of which each has its overhead in the server's kernel: neither kernel keeps
/// much for such a peer.
const SMALL_BUFFER: usize = 2048;
const SMALL_SEGMENT: u32 = 536;

/// Where the broker is.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) socket: SocketAddr,
    /// How to speak TLS there, if that is spoken.
    pub(super) tls: Option<Tls>,
}

impl Address {
    /// A port without TLS.
    pub(super) const fn plain(socket: SocketAddr) -> Self {
        Self { socket, tls: None }
    }
}

/// A connection.
pub(super) struct Peer(Client<Stream>);

impl Deref for Peer {
    type Target = Client<Stream>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Peer {
    pub(super) fn connect(to: &Address) -> Result<Self> {
        Self::connect_with(to, None, None)
    }

    /// A peer for which neither kernel keeps much: what it does not read stays with the server.
    pub(super) fn connect_small(to: &Address) -> Result<Self> {
        Self::connect_with(to, Some(SMALL_BUFFER), Some(SMALL_SEGMENT))
    }

    /// A peer with this receive buffer and these segments, in bytes.
    pub(super) fn connect_with(to: &Address, receive_buffer: Option<usize>, segment: Option<u32>) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(to.socket), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((next_source(), 0)).into())?;
        if let Some(len) = receive_buffer {
            socket.set_recv_buffer_size(len)?;
        }
        if let Some(len) = segment {
            socket.set_tcp_mss(len)?;
        }
        socket.connect_timeout(&to.socket.into(), PATIENCE).context("connecting")?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let stream = match &to.tls {
            Some(tls) => Stream::secure(stream, tls).context("the handshake of TLS")?,
            None => Stream::Plain(stream),
        };
        Ok(Self(Client::new(stream)))
    }

    /// Connects and becomes a WebSocket.
    pub(super) fn open(to: &Address, path: &str) -> Result<Self> {
        Self::connect(to)?.upgraded(path)
    }

    /// Becomes a WebSocket.
    pub(super) fn upgraded(mut self, path: &str) -> Result<Self> {
        self.send(&wire::upgrade(path)).with_context(|| format!("asking for {path}"))?;
        match self.answer() {
            Ok(Answer { status: 101, .. }) => Ok(self),
            other => bail!("no upgrade to {path}: {other:?}"),
        }
    }

    /// Sends what the kernel takes at once; returns how many bytes that were, 0 when its buffer is full.
    pub(super) fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream().send_some(bytes)
    }

    /// A second owner of the socket, for a thread that only sends.
    pub(super) fn sender(&mut self) -> io::Result<Self> {
        Ok(Self(Client::new(self.stream().try_clone()?)))
    }

    /// Ends the sending direction.
    pub(super) fn finish_sending(&mut self) {
        self.stream().finish_sending();
    }

    /// Reads the next frame that is not a ping: its first byte and its payload. Answers pings.
    pub(super) fn message(&mut self) -> Result<(u8, Vec<u8>), Ending> {
        loop {
            let pong = match self.frame()? {
                (wire::PING, payload) => wire::frame(wire::PONG, payload),
                (first, payload) => return Ok((first, payload.to_vec())),
            };
            // Fails only when the connection has ended, which the next read shows.
            drop(self.send(&pong));
        }
    }

    /// Closes the WebSocket, which the broker must answer with the same code: it has read everything before then.
    pub(super) fn close(&mut self) -> Result<()> {
        self.send(&wire::frame(wire::CLOSE, &1000_u16.to_be_bytes()))?;
        let ending = self.ending();
        ensure!(ending == Ending::Close(1000), "a close with 1000 was answered by {ending:?}");
        Ok(())
    }

    /// Ends the connection with a reset.
    pub(super) fn reset(mut self) {
        // Fails only when the connection has been reset already.
        drop(SockRef::from(self.stream().socket()).set_linger(Some(Duration::ZERO)));
    }

    /// Looks whether the connection has ended, without waiting.
    pub(super) fn poll_ending(&mut self) -> io::Result<Option<Ending>> {
        self.stream().socket().set_nonblocking(true)?;
        let ending = loop {
            match self.read_more() {
                Ok(()) => {}
                Err(Ending::Late) => break None,
                Err(ending) => break Some(ending),
            }
        };
        self.stream().socket().set_nonblocking(false)?;
        Ok(ending)
    }

    /// Reads at most `len` bytes that have come, and drops them; returns how many. Does not wait.
    pub(super) fn read_slowly(&mut self, len: usize) -> Result<usize, Ending> {
        let mut scratch = vec![0; len];
        let mut read = 0;
        while read < len {
            match self.stream().discard(&mut scratch[read..]) {
                Ok(None) => return Err(Ending::Eof),
                Ok(Some(0)) => break,
                Ok(Some(more)) => read += more,
                Err(_) => return Err(Ending::Reset),
            }
        }
        Ok(read)
    }

    /// The connection for an event loop: its stream no longer blocks.
    pub(super) fn into_nonblocking(mut self) -> io::Result<Client<Stream>> {
        self.stream().socket().set_nonblocking(true)?;
        Ok(self.0)
    }
}

fn next_source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, b, c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 64 | b & 63, c, d)
}
