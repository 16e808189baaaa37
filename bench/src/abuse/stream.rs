//! The stream of an attack's connection: TCP, or TLS on it.
//!
//! Blocking or not, as the socket is. What TLS has encrypted and the kernel did not take waits in `unsent`, at most a record
//! where [`Stream::send_some`] sends; it goes out before anything else. A second owner of the connection only sends: no two
//! threads read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loadgen::tls::{ServerName, Session, Tls};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Plain bytes that one record takes (RFC 8446 §5.1).
const RECORD_LEN: usize = 16 << 10;
/// Bytes that one read of the socket asks for.
const READ_LEN: usize = 64 << 10;

/// See the module's head.
pub(super) enum Stream {
    Plain(TcpStream),
    Secure(Box<Secure>),
}

/// TLS on a socket.
pub(super) struct Secure {
    socket: TcpStream,
    session: Arc<Mutex<Session>>,
    /// Encrypted and not taken by the kernel. Whoever sends holds it, so that records go out in their order; whoever reads
    /// does not wait for that.
    unsent: Arc<Mutex<Vec<u8>>>,
    /// Decrypted; the first `taken` were returned.
    plain: Vec<u8>,
    taken: usize,
}

impl Stream {
    /// TLS on `socket`, which blocks; after the handshake.
    pub(super) fn secure(socket: TcpStream, tls: &Tls) -> io::Result<Self> {
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let session = Arc::new(Mutex::new(tls.session(&name).map_err(io::Error::other)?));
        let mut secure = Secure { socket, session, unsent: Arc::default(), plain: Vec::new(), taken: 0 };
        secure.flush()?;
        while lock(&secure.session).handshake().is_none() {
            if !secure.receive()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            secure.flush()?;
        }
        Ok(Self::Secure(Box::new(secure)))
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(secure) => &secure.socket,
        }
    }

    /// A second owner, for a thread that only sends.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Plain(socket) => Self::Plain(socket.try_clone()?),
            Self::Secure(secure) => Self::Secure(Box::new(Secure {
                socket: secure.socket.try_clone()?,
                session: Arc::clone(&secure.session),
                unsent: Arc::clone(&secure.unsent),
                plain: Vec::new(),
                taken: 0,
            })),
        })
    }

    /// Sends what is taken at once; returns how many bytes that were, 0 when the kernel's buffer is full.
    pub(super) fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => send_now(socket, bytes),
            Self::Secure(secure) => {
                let mut unsent = lock(&secure.unsent);
                send_all_now(&secure.socket, &mut unsent)?;
                if !unsent.is_empty() {
                    return Ok(0);
                }
                let taken = &bytes[..bytes.len().min(RECORD_LEN)];
                seal(&secure.session, taken, &mut unsent);
                send_all_now(&secure.socket, &mut unsent)?;
                Ok(taken.len())
            }
        }
    }

    /// Reads at most `len` bytes of the socket that have come, and drops them; returns how many, 0 when none are there and
    /// nothing at the end. Does not wait.
    pub(super) fn discard(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.socket(), &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Ok(None),
            Ok((_, len)) => {
                if let Self::Secure(secure) = self {
                    secure.decrypt(&scratch[..len])?;
                    secure.plain.clear();
                    secure.taken = 0;
                }
                Ok(Some(len))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Some(0)),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the sending direction.
    pub(super) fn finish_sending(&mut self) {
        // Each fails only when the connection has ended, which the next read shows.
        if let Self::Secure(secure) = self {
            lock(&secure.session).close();
            drop(secure.flush());
        }
        drop(self.socket().shutdown(Shutdown::Write));
    }
}

impl Secure {
    /// Waits for bytes and decrypts them; false at the end.
    fn receive(&mut self) -> io::Result<bool> {
        let mut bytes = [0; READ_LEN];
        let len = self.socket.read(&mut bytes)?;
        Ok(len > 0 && self.decrypt(&bytes[..len])?)
    }

    fn decrypt(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.plain.drain(..self.taken);
        self.taken = 0;
        lock(&self.session).receive(bytes, &mut self.plain).map_err(io::Error::other)
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let secure = match self {
            Self::Plain(socket) => return socket.read(out),
            Self::Secure(secure) => secure,
        };
        loop {
            let ready = &secure.plain[secure.taken..];
            if !ready.is_empty() {
                let len = ready.len().min(out.len());
                out[..len].copy_from_slice(&ready[..len]);
                secure.taken += len;
                return Ok(len);
            }
            if !secure.receive()? && secure.taken == secure.plain.len() {
                return Ok(0);
            }
        }
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What waits goes first: a socket that does not block has room again or not.
        self.flush()?;
        seal(&self.session, bytes, &mut lock(&self.unsent));
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut unsent = lock(&self.unsent);
        lock(&self.session).output(&mut unsent);
        while !unsent.is_empty() {
            let len = self.socket.write(&unsent)?;
            unsent.drain(..len);
        }
        Ok(())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(secure) => secure.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secure(secure) => secure.flush(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

fn seal(session: &Mutex<Session>, plain: &[u8], out: &mut Vec<u8>) {
    let mut session = lock(session);
    session.seal(plain);
    session.output(out);
}

/// Sends what the kernel takes at once, 0 when its buffer is full.
fn send_now(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => Ok(0),
        sent => Ok(sent?),
    }
}

fn send_all_now(socket: &TcpStream, unsent: &mut Vec<u8>) -> io::Result<()> {
    while !unsent.is_empty() {
        let len = send_now(socket, unsent)?;
        if len == 0 {
            break;
        }
        unsent.drain(..len);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
