//! What a driver under test is driven with: a world that makes the driver and plays its clients, once over
//! loopback TCP and once simulated.

mod real;
mod simulated;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use ring::{ConnId, Driver, Event, Gather, ReceiveEnd};

pub(crate) use real::{Epoll, Uring};
pub(crate) use simulated::{Calm, Rough, with_seeds};

/// What a case wants of its driver.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) capacity: u32,
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: u32,
    pub(crate) submission_entries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { capacity: 64, buffers: 32, buffer_bytes: 2048, submission_entries: 64 }
    }
}

/// How a client's connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Stream,
    Reset,
}

/// A kind of world.
pub(crate) trait Harness {
    type Driver: Driver;
    type Client;
    /// A turn with a deadline waits for it in real time.
    const WAITS: bool;
    /// Operations wait in a queue that can be full.
    const QUEUES: bool;
    /// More than the socket buffers take.
    const HUGE_BYTES: usize;

    fn new(options: Options) -> Self;
    fn driver(&mut self) -> &mut Self::Driver;
    /// The driver's end; its clients live on.
    fn drop_driver(&mut self);
    fn connect(&mut self) -> Self::Client;
    /// Writes all of it, which has to fit the socket buffer.
    fn write(&mut self, client: &mut Self::Client, bytes: &[u8]);
    /// Where the client connected from.
    fn address(&self, client: &Self::Client) -> SocketAddr;
    /// What is there now.
    fn read(&mut self, client: &mut Self::Client) -> Vec<u8> {
        self.read_some(client, usize::MAX)
    }
    /// The same, `max` bytes at most.
    fn read_some(&mut self, client: &mut Self::Client, max: usize) -> Vec<u8>;
    /// How the connection ended, if it did and everything was read.
    fn end(&mut self, client: &mut Self::Client) -> Option<End>;
    fn half_close(&mut self, client: &mut Self::Client);
    fn reset(&mut self, client: &mut Self::Client);
    /// A connection outside the driver: both its ends.
    fn socket(&mut self) -> (Self::Client, OwnedFd);
    fn socket_write(&mut self, socket: &OwnedFd, bytes: &[u8]);
}

pub(crate) type Events<H> = Vec<Event<<<H as Harness>::Driver as Driver>::Buf>>;

/// A case under way: the world, and what the driver reported and nobody asked for yet.
pub(crate) struct Run<H: Harness> {
    pub(crate) world: H,
    pub(crate) events: Events<H>,
}

/// Turns until a case gives up: about ten seconds of the real driver.
const TURNS_MAX: u32 = 1_000;
const TURN_NS: u64 = 10_000_000;

impl<H: Harness> Run<H> {
    pub(crate) fn new(options: Options) -> Self {
        Self { world: H::new(options), events: Vec::new() }
    }

    pub(crate) fn driver(&mut self) -> &mut H::Driver {
        self.world.driver()
    }

    pub(crate) fn turn(&mut self) {
        let driver = self.world.driver();
        let deadline = driver.now() + TURN_NS;
        driver.turn(Some(deadline), &mut self.events).expect("a turn succeeds");
    }

    /// Turns until nothing has happened for a while.
    pub(crate) fn settle(&mut self) {
        for _ in 0..if H::WAITS { 5 } else { 100 } {
            self.turn();
        }
    }

    /// The first event that `pick` likes; turns until there is one.
    pub(crate) fn next<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&mut Event<<H::Driver as Driver>::Buf>) -> Option<T>,
    ) -> T {
        for _ in 0..TURNS_MAX {
            for at in 0..self.events.len() {
                if let Some(picked) = pick(&mut self.events[at]) {
                    self.events.remove(at);
                    return picked;
                }
            }
            self.turn();
        }
        panic!("no {what} came; there is {:?}", self.events.len());
    }

    /// Turns until `done` says so.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("{what} did not happen");
    }

    // ---- shorthands

    /// A connection and its client. Accepting goes on afterwards, or not, as before.
    pub(crate) fn pair(&mut self) -> (ConnId, H::Client) {
        let client = self.world.connect();
        (self.accepted(), client)
    }

    pub(crate) fn accepted(&mut self) -> ConnId {
        loop {
            self.driver().accept();
            let accepted = self.next("Accepted", |event| match event {
                Event::Accepted { conn, .. } => Some(Some(*conn)),
                Event::AcceptEnded { .. } => Some(None),
                _ => None,
            });
            if let Some(conn) = accepted {
                return conn;
            }
        }
    }

    /// Sends all of it, however many sends that takes.
    pub(crate) fn send_all(&mut self, conn: ConnId, gather: Gather, from: usize) {
        let mut from = from;
        while from < gather.len() {
            self.driver().send(conn, gather.clone(), from);
            from += self.sent(conn).expect("the send succeeds");
        }
    }

    pub(crate) fn sent(&mut self, of: ConnId) -> Result<usize, i32> {
        self.next("Sent", |event| match event {
            Event::Sent { conn, result, .. } if *conn == of => Some(*result),
            _ => None,
        })
    }

    /// Receives until `len` bytes are there; starts again whenever the receive ended but may go on.
    pub(crate) fn receive_exactly(&mut self, of: ConnId, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.driver().receive(of);
        while bytes.len() < len {
            let got = self.next("Received", |event| match event {
                Event::Received { conn, buf } if *conn == of => Some(Ok(buf.to_vec())),
                Event::ReceiveEnded { conn, end } if *conn == of => Some(Err(*end)),
                _ => None,
            });
            match got {
                Ok(more) => {
                    assert!(!more.is_empty(), "a Received has at least one byte");
                    bytes.extend(more);
                }
                Err(ReceiveEnd::Stopped | ReceiveEnd::NoBuffers) => self.driver().receive(of),
                Err(end) => panic!("{end:?} after {} of {len} bytes", bytes.len()),
            }
        }
        assert_eq!(bytes.len(), len);
        bytes
    }

    /// How the receive of `of` ends for good; what arrives before is dropped.
    pub(crate) fn receive_end(&mut self, of: ConnId) -> ReceiveEnd {
        self.driver().receive(of);
        loop {
            let end = self.next("ReceiveEnded", |event| match event {
                Event::ReceiveEnded { conn, end } if *conn == of => Some(*end),
                _ => None,
            });
            match end {
                ReceiveEnd::Stopped | ReceiveEnd::NoBuffers => {
                    self.events.retain(|event| !matches!(event, Event::Received { .. }));
                    self.driver().receive(of);
                }
                end => return end,
            }
        }
    }

    pub(crate) fn client_reads(&mut self, client: &mut H::Client, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.until("the client's reading", |run| {
            bytes.extend(run.world.read(client));
            bytes.len() >= len
        });
        assert_eq!(bytes.len(), len);
        bytes
    }

    pub(crate) fn client_end(&mut self, client: &mut H::Client) -> End {
        let mut end = None;
        self.until("the client's end", |run| {
            drop(run.world.read(client));
            end = run.world.end(client);
            end.is_some()
        });
        end.expect("just seen")
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.driver().close(conn);
        self.closed(conn);
    }

    pub(crate) fn closed(&mut self, of: ConnId) {
        self.next("Closed", |event| match event {
            Event::Closed { conn } if *conn == of => Some(()),
            _ => None,
        });
    }

    /// Everything reported about a connection so far, but for what was picked.
    pub(crate) fn events_of(&self, of: ConnId) -> usize {
        let is_of = |event: &&Event<<H::Driver as Driver>::Buf>| match event {
            Event::Accepted { conn, .. }
            | Event::Received { conn, .. }
            | Event::ReceiveEnded { conn, .. }
            | Event::Sent { conn, .. }
            | Event::Installed { conn, .. }
            | Event::Peer { conn, .. }
            | Event::Unsent { conn, .. }
            | Event::Discarded { conn, .. }
            | Event::Closed { conn } => *conn == of,
            Event::Dialled { result, .. } => *result == Ok(of),
            Event::AcceptEnded { .. } | Event::Adopted { .. } | Event::Woken => false,
        };
        self.events.iter().filter(is_of).count()
    }
}

/// `len` bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8)) as u8).collect()
}

/// `bytes` in `parts` ranges.
pub(crate) fn in_parts(bytes: &[u8], parts: usize) -> Gather {
    let size = bytes.len().div_ceil(parts);
    Gather::many(bytes.chunks(size).map(Bytes::copy_from_slice).collect())
}
