//! Opens WebSockets, a bounded number at a time, and leaves each registered for edge-triggered reading.
//!
//! The token of a connection is its index among those already open.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::target::Target;

/// An upgrade that takes longer than this ends the run.
const PATIENCE: Duration = Duration::from_secs(20);
const HEAD_MAX: usize = 16 << 10;

/// A WebSocket whose upgrade was accepted.
pub(crate) struct Opened {
    pub(crate) stream: TcpStream,
    /// Bytes that came behind the answer's head.
    pub(crate) early: Vec<u8>,
}

/// What [`open`] is asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) target: &'a Target,
    pub(crate) count: usize,
    /// Connections being opened at the same time.
    pub(crate) concurrency: usize,
    /// Which process this is: each has its own source addresses.
    pub(crate) process: usize,
    /// Token of the first connection.
    pub(crate) first_token: usize,
}

/// Opens all, or fails with the first that was refused.
pub(crate) fn open(poll: &mut Poll, wanted: &Wanted<'_>) -> Result<Vec<Opened>> {
    let request = wanted.target.request();
    let mut opening: Vec<Option<Opening>> = Vec::new();
    let mut opened: Vec<Option<Opened>> = (0..wanted.count).map(|_| None).collect();
    let (mut begun, mut done) = (0, 0);
    let mut events = Events::with_capacity(wanted.concurrency.max(8));
    while done < wanted.count {
        while begun < wanted.count && begun - done < wanted.concurrency {
            let source = wanted.target.source(wanted.process, begun);
            let mut stream = connect(wanted.target.address, source)
                .with_context(|| format!("connecting to {} failed at connection {begun}", wanted.target.address))?;
            let token = Token(wanted.first_token + begun);
            poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            opening.push(Some(Opening { stream, asked: false, head: Vec::new() }));
            begun += 1;
        }
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        ensure!(
            !events.is_empty(),
            "{} answered no upgrade for {PATIENCE:?}: {done} of {} are open",
            wanted.target.address,
            wanted.count
        );
        for event in &events {
            let Some(index) = event.token().0.checked_sub(wanted.first_token) else {
                continue;
            };
            let Some(slot) = opening.get_mut(index) else {
                continue;
            };
            let Some(connection) = slot else { continue };
            let early =
                connection.advance(&request).with_context(|| format!("connection {index} of {}", wanted.count))?;
            if let Some(early) = early {
                let mut stream = slot.take().expect("just looked at").stream;
                poll.registry().reregister(&mut stream, event.token(), Interest::READABLE)?;
                opened[index] = Some(Opened { stream, early });
                done += 1;
            }
        }
    }
    Ok(opened.into_iter().map(|slot| slot.expect("all are open")).collect())
}

struct Opening {
    stream: TcpStream,
    asked: bool,
    head: Vec<u8>,
}

impl Opening {
    /// Takes the next step; at the end, returns what came behind the head.
    fn advance(&mut self, request: &[u8]) -> Result<Option<Vec<u8>>> {
        if !self.asked {
            if let Some(error) = self.stream.take_error()? {
                return Err(error).context("connecting failed");
            }
            match self.stream.write(request) {
                Ok(sent) => ensure!(sent == request.len(), "a new socket took only part of a request"),
                Err(error) if not_yet(&error) => return Ok(None),
                Err(error) => return Err(error).context("sending the request failed"),
            }
            self.asked = true;
        }
        let mut chunk = [0; 2048];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("closed before the upgrade: {}", String::from_utf8_lossy(&self.head)),
                Ok(len) => self.head.extend_from_slice(&chunk[..len]),
                Err(error) if not_yet(&error) => break,
                Err(error) => return Err(error).context("reading the answer failed"),
            }
        }
        let Some(end) = self.head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            ensure!(self.head.len() < HEAD_MAX, "an answer without end");
            return Ok(None);
        };
        let early = self.head.split_off(end + 4);
        ensure!(Target::accepted(&self.head), "no upgrade: {}", String::from_utf8_lossy(&self.head));
        Ok(Some(early))
    }
}

fn not_yet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

fn connect(to: SocketAddr, from: Option<SocketAddr>) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        // EINPROGRESS has no kind of its own.
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            return Err(error);
        }
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}
