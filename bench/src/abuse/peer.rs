//! One client connection, blocking, with a bound on every wait.
//!
//! Every connection comes from its own address of `127.64.0.0/10`, so that hundreds of thousands of them may
//! linger in TIME_WAIT and ports never run out.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::wire;

/// No answer may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// What a peer's kernel keeps for it when it is to keep hardly anything, and what one segment carries: with small
/// segments, of which each has its overhead in the server's kernel, that keeps little too.
const SMALL_BUFFER: usize = 2048;
const SMALL_SEGMENT: u32 = 536;
/// Bytes one read asks for.
const READ_LEN: usize = 64 << 10;

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// A close frame with this code.
    Close(u16),
    /// End of stream.
    Eof,
    /// A reset.
    Reset,
    /// Nothing came for [`PATIENCE`].
    Late,
    /// Bytes that no server sends.
    Broken(&'static str),
}

/// An answer over HTTP.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body.trim_ascii().escape_ascii())
    }
}

/// A connection.
pub(super) struct Peer {
    stream: TcpStream,
    /// Received; the first `taken` bytes were handed out.
    input: Vec<u8>,
    taken: usize,
}

impl Peer {
    pub(super) fn connect(to: SocketAddr) -> Result<Self> {
        Self::connect_with(to, None, None)
    }

    /// A peer for which neither kernel keeps much: what it does not read stays with the server.
    pub(super) fn connect_small(to: SocketAddr) -> Result<Self> {
        Self::connect_with(to, Some(SMALL_BUFFER), Some(SMALL_SEGMENT))
    }

    /// A peer whose kernel keeps so many bytes for it, and takes segments of so many.
    pub(super) fn connect_with(to: SocketAddr, receive_buffer: Option<usize>, segment: Option<u32>) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((next_source(), 0)).into())?;
        if let Some(len) = receive_buffer {
            socket.set_recv_buffer_size(len)?;
        }
        if let Some(len) = segment {
            socket.set_tcp_mss(len)?;
        }
        socket.connect_timeout(&to.into(), PATIENCE).context("connecting")?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, input: Vec::new(), taken: 0 })
    }

    /// Connects and becomes a WebSocket.
    pub(super) fn open(to: SocketAddr, path: &str) -> Result<Self> {
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

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends what the kernel takes at once; how many bytes that were, 0 when its buffer is full.
    pub(super) fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::net::send(&self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => Ok(0),
            sent => Ok(sent?),
        }
    }

    /// A second owner of the socket, for a thread that only sends.
    pub(super) fn sender(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, input: Vec::new(), taken: 0 })
    }

    /// Says that nothing more will be sent.
    pub(super) fn finish_sending(&mut self) {
        // Fails only when the connection has ended, which the next read tells.
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Ends the connection with a reset.
    pub(super) fn reset(self) {
        // Fails only when the connection has been reset already.
        drop(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)));
    }

    /// The whole answer to a request. The head of a 101 ends it: what follows is frames.
    pub(super) fn answer(&mut self) -> Result<Answer, Ending> {
        let head_len = loop {
            let rest = self.rest();
            if rest.len() >= 8 && !rest.starts_with(b"HTTP/1.") {
                return Err(Ending::Broken("no status line"));
            }
            match rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_more()?,
            }
        };
        let head = String::from_utf8_lossy(&self.rest()[..head_len]).to_ascii_lowercase();
        self.taken += head_len;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or(Ending::Broken("no status"))?;
        let body_len = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let body_len = if status == 101 { 0 } else { body_len.unwrap_or(0) };
        while self.rest().len() < body_len {
            self.read_more()?;
        }
        let body = self.rest()[..body_len].to_vec();
        self.taken += body_len;
        Ok(Answer { status, body })
    }

    /// The next frame: its first byte and its payload.
    pub(super) fn frame(&mut self) -> Result<(u8, &[u8]), Ending> {
        let found = loop {
            match wire::find(self.rest()).map_err(Ending::Broken)? {
                Some(found) => break found,
                None => self.read_more()?,
            }
        };
        let from = self.taken + found.header_len;
        self.taken = from + found.payload_len;
        Ok((found.first, &self.input[from..self.taken]))
    }

    /// Reads frames until the connection ends, and says how.
    pub(super) fn ending(&mut self) -> Ending {
        loop {
            match self.frame() {
                Ok((wire::CLOSE, payload)) => return Ending::Close(wire::close_code(payload)),
                Ok(_) => {}
                Err(ending) => return ending,
            }
        }
    }

    /// Reads what there is, as bytes, until the connection ends.
    pub(super) fn read_to_end(&mut self) -> (Vec<u8>, Ending) {
        loop {
            if let Err(ending) = self.read_more() {
                return (self.input.split_off(self.taken), ending);
            }
        }
    }

    /// Looks whether the connection has ended, without waiting. What comes is dropped.
    pub(super) fn poll_ending(&mut self) -> io::Result<Option<Ending>> {
        self.stream.set_nonblocking(true)?;
        let ending = loop {
            match self.read_more() {
                Ok(()) => {}
                Err(Ending::Late) => break None,
                Err(ending) => break Some(ending),
            }
        };
        self.stream.set_nonblocking(false)?;
        Ok(ending)
    }

    /// Reads at most `len` bytes that have come, and drops them; how many. Does not wait.
    pub(super) fn read_slowly(&mut self, len: usize) -> Result<usize, Ending> {
        let mut scratch = vec![0; len];
        let mut read = 0;
        while read < len {
            match rustix::net::recv(&self.stream, &mut scratch[read..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(Ending::Eof),
                Ok((_, more)) => read += more,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Ending::Reset),
            }
        }
        Ok(read)
    }

    /// All bytes that came and were not handed out.
    pub(super) fn rest(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    /// The bare socket.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn read_more(&mut self) -> Result<(), Ending> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let len = self.input.len();
        self.input.resize(len + READ_LEN, 0);
        let read = loop {
            match self.stream.read(&mut self.input[len..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.input.truncate(len + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Ending::Eof),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Ending::Late),
            Err(_) => Err(Ending::Reset),
        }
    }
}

fn next_source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, b, c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 64 | b & 63, c, d)
}
