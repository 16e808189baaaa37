//! What the HTTP library reads: a socket, of which every request head was checked before.
//!
//! Each head is judged by `protocol::head::parse`, which also judges a connection's first head on a shard, so all
//! requests of all connections pass the same rules: line ends, sizes, targets, hosts, body lengths. To know where heads
//! begin, this reader counts bodies, and hands on nothing that it does not understand itself; so the HTTP library,
//! which is more lenient, never sees what it could understand otherwise.
//!
//! A WebSocket handshake, or a head that is refused, ends what the library reads: it answers the requests before that, and
//! is done. Then the reader says what the end was ([`Heads::into_parts`], [`Ended`]), and `upgrade` goes on.
//!
//! Times: a head that has begun has `--handshake-timeout` (408); between two requests a connection may be idle for
//! `--http-idle-timeout`, then the stream ends. Bodies have their own times (`bodies`).
//!
//! Memory: the bytes of one incomplete head, and what came with it. Cost: heads are parsed once when complete, and when
//! a line of an incomplete one has ended; bodies are read straight into the library's buffer.

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use protocol::head::{self, BodyLength, Chunks, Head, HeadLimits, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::access::address;
use crate::access::rejection::{Rejection, readable};
use crate::capacity::budget::Charge;
use crate::capacity::buffer::Buffer;
use crate::config::limits::Limits;
use crate::http::connection::Connection;
use crate::shard::entry::Asked;
use crate::shard::handover::Upgrade;

/// Read at once behind an incomplete head, in bytes.
const PIECE: usize = 2048;
/// What ended the requests of a connection, other than its peer or the time.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A head that is refused; the answer to it.
    Refused(Refusal),
    /// A WebSocket handshake. What was read behind its head belongs to the WebSocket.
    Handshake(Box<Handshake>),
}

/// A WebSocket handshake, or a request for a stream of events: a shard answers both.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) upgrade: Box<Upgrade>,
    pub(crate) host: Option<String>,
    pub(crate) origin: Option<String>,
    /// For whom a trusted proxy sent it; `None`: for itself, or it came from none.
    pub(crate) forwarded: Option<IpAddr>,
    /// The token that it offers as a sub-protocol.
    pub(crate) token: Option<String>,
    /// The query of a request for a stream, which may hold a token.
    pub(crate) query: Option<String>,
    /// All of its head.
    pub(crate) head: Box<[u8]>,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Heads<S> {
    socket: S,
    limits: Arc<Limits>,
    head_limits: HeadLimits,
    connection: Arc<Connection>,
    /// Read from the socket, not yet handed on.
    held: BytesMut,
    /// Charged for `held` until it was empty once.
    early: Option<Charge>,
    /// How much of `held` may be handed on.
    passed: usize,
    /// Behind that may be another whole request.
    more: bool,
    /// Behind that, how much of an incomplete head was looked at.
    seen: usize,
    at: At,
    ended: Option<Ended>,
    /// Whether a head was handed on.
    has_begun: bool,
    clock: Option<Pin<Box<Sleep>>>,
    /// What `clock` was set for.
    waits: Option<Waits>,
}

/// What comes next.
#[derive(Debug)]
enum At {
    Head,
    Body(u64),
    Chunks(Chunks),
    /// Nothing: [`Heads::ended`] says why, or the time is over.
    End,
    /// An error: a body is not what its head says.
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    ForNext,
    ForRest,
}

/// Why bytes do not pass.
enum Stop {
    Ended(Ended),
    Broken,
}

impl Handshake {
    /// What of it is judged.
    pub(crate) fn asked(&self) -> Asked<'_> {
        let (offered, query) = (self.token.as_deref(), self.query.as_deref());
        Asked { head: &self.head, host: self.host.as_deref(), origin: self.origin.as_deref(), offered, query }
    }
}

impl<S> Heads<S> {
    /// `early` arrived before whatever `socket` brings from now on.
    pub(crate) fn new(socket: S, early: Buffer, limits: Arc<Limits>, connection: Arc<Connection>) -> Self {
        let head_limits = HeadLimits {
            head_bytes_max: limits.head_bytes_max,
            headers_max: limits.headers_max,
            topic_len_max: limits.topic_bytes_max,
        };
        let (held, early) = early.into_parts();
        let mut heads = Self {
            socket,
            limits,
            head_limits,
            connection,
            held,
            early: Some(early),
            passed: 0,
            more: false,
            seen: 0,
            at: At::Head,
            ended: None,
            has_begun: false,
            clock: None,
            waits: None,
        };
        heads.check_held();
        heads
    }

    /// The socket, what was read from it and not handed on, and what that is the beginning of.
    pub(crate) fn into_parts(self) -> (S, BytesMut, Option<Ended>) {
        (self.socket, self.held, self.ended)
    }

    /// How much of `bytes`, which begin where the last ones that passed ended, may be handed on: of one request at most,
    /// so that the library asks again for the next one.
    fn check(&mut self, bytes: &[u8]) -> (usize, Option<Stop>) {
        let mut passed = 0;
        self.more = false;
        loop {
            let rest = &bytes[passed..];
            if passed > 0 && matches!(self.at, At::Head) {
                self.more = !rest.is_empty();
                return (passed, None);
            }
            match &mut self.at {
                At::End | At::Broken => return (passed, None),
                _ if rest.is_empty() => return (passed, None),
                At::Body(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= step as u64;
                    passed += step;
                    if *left == 0 {
                        self.at = At::Head;
                    }
                }
                At::Chunks(chunks) => {
                    let Ok(step) = chunks.pass(rest) else { return (passed, Some(Stop::Broken)) };
                    passed += step;
                    if chunks.is_over() {
                        self.at = At::Head;
                    }
                }
                At::Head => match self.check_head(rest) {
                    Ok(0) => return (passed, None),
                    Ok(head_len) => passed += head_len,
                    Err(ended) => return (passed, Some(Stop::Ended(ended))),
                },
            }
        }
    }

    /// The length of the head at the front, 0 while it is incomplete.
    fn check_head(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        self.connection.busy();
        let new = mem::replace(&mut self.seen, bytes.len());
        if !head::is_worth_parsing(bytes.len(), &bytes[new..], &self.head_limits) {
            return Ok(0);
        }
        match head::parse(bytes, &self.head_limits) {
            Ok(Head::Partial) => Ok(0),
            Ok(Head::Http(plain)) => {
                self.at = match plain.body {
                    BodyLength::Bytes(0) => At::Head,
                    BodyLength::Bytes(len) => At::Body(len),
                    BodyLength::Chunked => At::Chunks(Chunks::default()),
                };
                (self.seen, self.has_begun, self.waits) = (0, true, None);
                Ok(plain.head_len)
            }
            Ok(Head::Upgrade(parsed)) => {
                let asked = Asked::by_handshake(&parsed, bytes);
                Err(Ended::Handshake(self.handshake(Upgrade::from(&parsed), asked).into()))
            }
            Ok(Head::Events(parsed)) => {
                let asked = Asked::for_events(&parsed, bytes);
                Err(Ended::Handshake(self.handshake(Upgrade::from(&parsed), asked).into()))
            }
            Err(refusal) => Err(Ended::Refused(readable(refusal, head::page(bytes), &self.limits.origins))),
        }
    }

    fn handshake(&self, upgrade: Upgrade, asked: Asked<'_>) -> Handshake {
        let is_trusted = self.connection.lease.is_trusted();
        let Asked { head, host, origin, offered, query } = asked;
        Handshake {
            upgrade: Box::new(upgrade),
            host: host.map(str::to_owned),
            origin: origin.map(str::to_owned),
            forwarded: is_trusted
                .then(|| address::client(head::forwarded_for(head), &self.limits.trusted_proxies))
                .flatten(),
            token: offered.map(str::to_owned),
            query: query.map(str::to_owned),
            head: head.into(),
        }
    }

    /// The same of what is held.
    fn check_held(&mut self) {
        let held = mem::take(&mut self.held);
        let (passed, stop) = self.check(&held);
        self.held = held;
        self.passed = passed;
        self.stop(stop);
    }

    fn stop(&mut self, stop: Option<Stop>) {
        match stop {
            None => {}
            Some(Stop::Ended(ended)) => {
                // Nothing before the head was left to hand on.
                if let Ended::Handshake(handshake) = &ended {
                    self.held.advance(handshake.head.len());
                }
                self.end(ended);
            }
            Some(Stop::Broken) => {
                self.held.truncate(self.passed);
                self.at = At::Broken;
            }
        }
    }

    fn end(&mut self, ended: Ended) {
        self.at = At::End;
        self.ended = Some(ended);
    }

    /// The socket has nothing: how long may that be?
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.at, At::Head) {
            return Poll::Pending;
        }
        let begun = !self.held.is_empty();
        let waits = if begun || !self.has_begun { Waits::ForRest } else { Waits::ForNext };
        if self.waits != Some(waits) {
            let time = match waits {
                Waits::ForRest => self.limits.handshake_timeout,
                Waits::ForNext => self.limits.http_idle_timeout,
            };
            let at = Instant::now() + time;
            match &mut self.clock {
                Some(clock) => clock.as_mut().reset(at),
                None => self.clock = Some(Box::pin(sleep_until(at))),
            }
            self.waits = Some(waits);
            if waits == Waits::ForNext {
                self.connection.idle();
            }
        }
        let clock = self.clock.as_mut().expect("it was set");
        ready!(clock.as_mut().poll(cx));
        if waits == Waits::ForRest {
            let page = head::page(&self.held);
            self.end(Ended::Refused(readable(Rejection::HeadTimeout.answer(), page, &self.limits.origins)));
        } else {
            self.at = At::End;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passed > 0 {
                let len = this.passed.min(buf.remaining());
                buf.put_slice(&this.held[..len]);
                this.held.advance(len);
                this.passed -= len;
                if this.held.is_empty() {
                    this.held = BytesMut::new(); // gives the memory back
                    this.early = None;
                }
                return Poll::Ready(Ok(()));
            }
            if mem::take(&mut this.more) {
                this.check_held();
                continue;
            }
            match this.at {
                At::End => return Poll::Ready(Ok(())),
                At::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                _ => {}
            }
            if this.held.is_empty() {
                let before = buf.filled().len();
                match Pin::new(&mut this.socket).poll_read(cx, buf) {
                    Poll::Pending => ready!(this.wait(cx)),
                    Poll::Ready(result) => {
                        result?;
                        let read = &buf.filled()[before..];
                        if read.is_empty() {
                            return Poll::Ready(Ok(()));
                        }
                        let (passed, stop) = this.check(read);
                        this.held.extend_from_slice(&read[passed..]);
                        buf.set_filled(before + passed);
                        this.stop(stop);
                        if passed > 0 {
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            } else {
                let mut piece = [0; PIECE];
                let mut piece = ReadBuf::new(&mut piece);
                match Pin::new(&mut this.socket).poll_read(cx, &mut piece) {
                    Poll::Pending => ready!(this.wait(cx)),
                    Poll::Ready(result) => {
                        result?;
                        if piece.filled().is_empty() {
                            return Poll::Ready(Ok(()));
                        }
                        this.held.extend_from_slice(piece.filled());
                        this.check_held();
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// The library has sent its last answer. Somebody goes on with the socket if the requests ended before that did.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended.is_some() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.socket).poll_shutdown(cx) }
    }
}
