//! Reads subscribers' sockets, checks what arrived, and counts.
//!
//! Per message: a share of one `read` into a buffer that all connections use, one comparison of the
//! filler, a few additions. Every subscriber must see messages 0, 1, 2, ... of the one publisher.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

use hdrhistogram::Histogram;
use mio::net::TcpStream;

use crate::clock::now_ns;
use crate::connect::Opened;
use crate::payload::{Filler, Stamp};
use crate::report::Errors;
use crate::walk::{Visit, Walker};

/// Bytes one read takes at most.
const READ_MAX: usize = 256 << 10;
/// Latencies above this count as this: nanoseconds.
const LATENCY_MAX_NS: u64 = 120_000_000_000;

/// An empty histogram; all have the same bounds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("valid bounds")
}

/// What all connections of this process received.
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) reads: u64,
    pub(crate) pings: u64,
    pub(crate) errors: Errors,
    /// Nanoseconds; only while `measuring`.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) measuring: bool,
    pub(crate) progress: Progress,
}

/// How far all subscribers together are.
pub(crate) struct Progress {
    subscribers: u32,
    /// Receipts of messages `completed..`.
    receipts: VecDeque<u32>,
    /// Messages that all subscribers received.
    pub(crate) completed: u64,
}

impl Progress {
    fn received(&mut self, seq: u64) {
        let Some(index) = seq.checked_sub(self.completed) else {
            return;
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        // A number far beyond what was published is damage, and counted as such.
        if index >= self.receipts.len() {
            if index > self.receipts.len() + (1 << 24) {
                return;
            }
            self.receipts.resize(index + 1, 0);
        }
        self.receipts[index] += 1;
        while self.receipts.front() == Some(&self.subscribers) {
            self.receipts.pop_front();
            self.completed += 1;
        }
    }
}

/// One subscriber, or the publisher's way back.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    walker: Walker,
    /// The message that must come next.
    pub(crate) next: u64,
    pub(crate) open: bool,
    /// Answers the socket did not take yet.
    unsent: Vec<u8>,
}

/// Reads and counts.
pub(crate) struct Receiver {
    pub(crate) tally: Tally,
    filler: Filler,
    buffer: Box<[u8]>,
}

impl Receiver {
    pub(crate) fn new(payload_len: usize, subscribers: usize) -> Self {
        let progress = Progress { subscribers: subscribers as u32, receipts: VecDeque::new(), completed: 0 };
        let tally = Tally {
            delivered: 0,
            reads: 0,
            pings: 0,
            errors: Errors::default(),
            latencies: latencies(),
            measuring: false,
            progress,
        };
        Self { tally, filler: Filler::new(payload_len), buffer: vec![0; READ_MAX].into() }
    }

    /// Takes over an open WebSocket.
    pub(crate) fn adopt(&mut self, opened: Opened) -> Connection {
        let mut connection =
            Connection { stream: opened.stream, walker: Walker::default(), next: 0, open: true, unsent: Vec::new() };
        walk(&mut connection, &opened.early, &self.filler, &mut self.tally);
        connection
    }

    /// Reads whatever `connection` has.
    pub(crate) fn read(&mut self, connection: &mut Connection) {
        if !connection.open {
            return;
        }
        loop {
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => {
                    self.tally.errors.closed(1006);
                    connection.open = false;
                    return;
                }
                Ok(len) => {
                    self.tally.reads += 1;
                    walk(connection, &self.buffer[..len], &self.filler, &mut self.tally);
                    // A read that leaves room emptied the socket; what comes later is a new edge.
                    if len < self.buffer.len() || !connection.open {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.tally.errors.closed(1006);
                    connection.open = false;
                    return;
                }
            }
        }
    }

    /// Counts what subscribers have not got of `published` messages.
    pub(crate) fn count_missing(&mut self, connections: &[Connection], published: u64) {
        let missing: u64 = connections.iter().map(|connection| published.saturating_sub(connection.next)).sum();
        self.tally.errors.lost += missing;
    }
}

fn walk(connection: &mut Connection, bytes: &[u8], filler: &Filler, tally: &mut Tally) {
    let mut replies = std::mem::take(&mut connection.unsent);
    let mut visitor = Visitor {
        tally,
        next: &mut connection.next,
        open: &mut connection.open,
        replies: &mut replies,
        now_ns: now_ns(),
    };
    connection.walker.feed(bytes, filler, &mut visitor);
    if !replies.is_empty() {
        let sent = connection.stream.write(&replies).unwrap_or(0);
        replies.drain(..sent);
        connection.unsent = replies;
    }
}

struct Visitor<'a> {
    tally: &'a mut Tally,
    next: &'a mut u64,
    open: &'a mut bool,
    replies: &'a mut Vec<u8>,
    now_ns: u64,
}

impl Visit for Visitor<'_> {
    fn message(&mut self, stamp: Stamp, intact: bool) {
        let Stamp { seq, sent_ns } = stamp;
        if !intact {
            self.tally.errors.corrupt += 1;
        } else if seq < *self.next {
            self.tally.errors.doubled_or_reordered += 1;
        } else {
            self.tally.errors.lost += seq - *self.next;
            *self.next = seq + 1;
            self.tally.delivered += 1;
            self.tally.progress.received(seq);
            if self.tally.measuring {
                self.tally.latencies.saturating_record(self.now_ns.saturating_sub(sent_ns).max(1));
            }
        }
    }

    fn ping(&mut self, payload: &[u8]) {
        self.tally.pings += 1;
        // A pong, masked with zeros (RFC 6455, section 5.5.3).
        self.replies.extend_from_slice(&[0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
        self.replies.extend_from_slice(payload);
    }

    fn close(&mut self, code: u16) {
        self.tally.errors.closed(code);
        *self.open = false;
    }

    fn broken(&mut self, why: &'static str) {
        self.tally.errors.broken.insert(why.to_owned());
        *self.open = false;
    }
}
