//! What the HTTP library reads: a socket, of which every request head was checked before.
//!
//! Each head is judged by `protocol::head::parse`, which also judges a connection's first head on a shard, so all
//! requests of all connections pass the same rules: line ends, sizes, targets, hosts, body lengths. To know where heads
//! begin, this reader counts bodies, and hands on nothing that it does not understand itself; so the HTTP library,
//! which is more lenient, never sees what it could understand otherwise. Behind a WebSocket handshake everything passes.
//!
//! A head that is refused is replaced by a request that means nothing; its answer is the refusal, in its turn behind
//! the answers to earlier requests ([`Verdicts`]). After it the stream ends.
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
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use protocol::head::{self, BodyLength, Chunks, Head, HeadLimits};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::access::lock;
use crate::access::rejection::{Rejection, readable};
use crate::capacity::budget::Charge;
use crate::capacity::buffer::Buffer;
use crate::config::limits::Limits;
use crate::http::connection::Connection;

/// Read at once behind an incomplete head, in bytes.
const PIECE: usize = 2048;
/// Stands for a request whose head was refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// What whoever answers requests has to know of a connection's last request. Numbers begin with 1.
#[derive(Default, Debug)]
pub(crate) struct Verdicts {
    refused: Mutex<Option<(u64, head::Refusal)>>,
    /// 0: none.
    handshake: AtomicU64,
}

impl Verdicts {
    /// The refusal of the request of this number, if it was refused.
    pub(crate) fn take_refusal(&self, number: u64) -> Option<head::Refusal> {
        lock(&self.refused).take_if(|(refused, _)| *refused == number).map(|(_, refusal)| refusal)
    }

    /// Whether the request of this number is a WebSocket handshake: what follows it is no request, whatever its answer.
    pub(crate) fn is_handshake(&self, number: u64) -> bool {
        self.handshake.load(Ordering::Relaxed) == number
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Heads<S> {
    socket: S,
    limits: Arc<Limits>,
    head_limits: HeadLimits,
    connection: Arc<Connection>,
    verdicts: Arc<Verdicts>,
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
    /// Heads that were handed on.
    heads: u64,
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
    /// A WebSocket, or whatever is sent ahead of its 101.
    Upgraded,
    /// Nothing: a head was refused.
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
    Refused(head::Refusal),
    Broken,
}

impl<S> Heads<S> {
    /// `early` arrived before whatever `socket` brings from now on.
    pub(crate) fn new(
        socket: S,
        early: Buffer,
        limits: Arc<Limits>,
        connection: Arc<Connection>,
        verdicts: Arc<Verdicts>,
    ) -> Self {
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
            verdicts,
            held,
            early: Some(early),
            passed: 0,
            more: false,
            seen: 0,
            at: At::Head,
            heads: 0,
            clock: None,
            waits: None,
        };
        heads.check_held();
        heads
    }

    /// The socket, and what was read from it and not handed on.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.socket, self.held.freeze())
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
                At::Upgraded => return (bytes.len(), None),
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
                    Err(refusal) => return (passed, Some(Stop::Refused(refusal))),
                },
            }
        }
    }

    /// The length of the head at the front, 0 while it is incomplete.
    fn check_head(&mut self, bytes: &[u8]) -> Result<usize, head::Refusal> {
        self.connection.busy();
        let new = mem::replace(&mut self.seen, bytes.len());
        if !head::is_worth_parsing(bytes.len(), &bytes[new..], &self.head_limits) {
            return Ok(0);
        }
        let (head_len, next) = match head::parse(bytes, &self.head_limits) {
            Ok(Head::Partial) => return Ok(0),
            Ok(Head::Upgrade(upgrade)) => (upgrade.head_len, At::Upgraded),
            Ok(Head::Http(plain)) => (
                plain.head_len,
                match plain.body {
                    BodyLength::Bytes(0) => At::Head,
                    BodyLength::Bytes(len) => At::Body(len),
                    BodyLength::Chunked => At::Chunks(Chunks::default()),
                },
            ),
            Err(refusal) => return Err(readable(refusal, bytes, &self.limits.origins)),
        };
        self.seen = 0;
        self.heads += 1;
        if matches!(next, At::Upgraded) {
            self.verdicts.handshake.store(self.heads, Ordering::Relaxed);
        }
        self.at = next;
        self.waits = None;
        Ok(head_len)
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
            Some(Stop::Refused(refusal)) => self.refuse(refusal),
            Some(Stop::Broken) => {
                self.held.truncate(self.passed);
                self.at = At::Broken;
            }
        }
    }

    /// Has the request that comes next answered with a refusal.
    fn refuse(&mut self, refusal: head::Refusal) {
        self.held.truncate(self.passed);
        self.held.extend_from_slice(STAND_IN);
        self.passed = self.held.len();
        self.at = At::End;
        *lock(&self.verdicts.refused) = Some((self.heads + 1, refusal));
    }

    /// The socket has nothing: how long may that be?
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.at, At::Head) {
            return Poll::Pending;
        }
        let begun = !self.held.is_empty();
        let waits = if begun || self.heads == 0 { Waits::ForRest } else { Waits::ForNext };
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
            self.refuse(readable(Rejection::HeadTimeout.answer(), &self.held, &self.limits.origins));
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
