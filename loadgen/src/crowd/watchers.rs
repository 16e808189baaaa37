//! Connections that learn who is there: reads them all, on one thread, and keeps who of them knows of whom.
//!
//! They are polled (epoll), because a watcher that is not read would have its messages merged, and look cheaper than it is.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll;

use crate::calls::wire::{PING, Peer, TEXT, Wire, between};
use crate::client::{Client, Ending};

/// Connections that one call of the kernel names.
const EVENTS: usize = 256;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Watchers {
    clients: Vec<Client<TcpStream>>,
    poll: std::os::fd::OwnedFd,
    /// Per watcher and member: whether it knows.
    known: Vec<Vec<bool>>,
    /// How many pairs of them are left.
    left: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// How late they knew, in nanoseconds.
    pub(super) known_ns: Histogram<u64>,
}

impl Watchers {
    /// So many that watch a topic, and will learn of so many members.
    pub(super) fn connect(
        address: SocketAddr,
        topic: &str,
        watchers: u64,
        members: u64,
        patience: Duration,
    ) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut clients = Vec::new();
        for number in 0..watchers {
            let mut peer = Peer::connect(Wire::V1, address, patience)?;
            peer.say(&format!(r#"{{"type":"subscribe","id":0,"topic":"$presence/{topic}"}}"#))?;
            let answer = peer.text()?;
            ensure!(answer.contains(r#""type":"ok""#), "subscribe was answered with {answer}");
            while !peer.text()?.contains(r#""type":"state-end""#) {}
            let mut client = peer.into_client();
            let stream = client.stream();
            stream.set_nonblocking(true)?;
            epoll::add(&poll, &*stream, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
            clients.push(client);
        }
        let known = clients.iter().map(|_| vec![false; members as usize]).collect();
        let known_ns = Histogram::new(3)?;
        Ok(Self { clients, poll, known, left: watchers * members, messages: 0, bytes: 0, known_ns })
    }

    /// Reads until everybody knows everything, or the deadline. `entered`: when each member entered, in nanoseconds after `begun`.
    pub(super) fn read(&mut self, begun: Instant, deadline: Instant, entered: &[AtomicU64]) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while self.left > 0 && Instant::now() < deadline {
            let patience = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            events.clear();
            epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&patience))?;
            for event in &events {
                self.read_one(event.data.u64() as usize, begun, entered)?;
            }
        }
        Ok(())
    }

    fn read_one(&mut self, watcher: usize, begun: Instant, entered: &[AtomicU64]) -> Result<()> {
        loop {
            let payload = match self.clients[watcher].frame() {
                Ok((TEXT, payload)) => payload,
                // The run is shorter than the time for an answer.
                Ok((PING, _)) => continue,
                Ok((other, _)) => return Err(anyhow!("a watcher was sent a frame that begins with {other:#x}")),
                Err(Ending::Late) => return Ok(()),
                Err(ending) => return Err(anyhow!("a watcher's connection ended: {ending:?}")),
            };
            let now_ns = begun.elapsed().as_nanos() as u64;
            self.messages += 1;
            self.bytes += payload.len() as u64 + header_len(payload.len());
            let member = member(std::str::from_utf8(payload)?)?;
            let known = self.known[watcher].get_mut(member).ok_or_else(|| anyhow!("there is no member {member}"))?;
            if !std::mem::replace(known, true) {
                self.left -= 1;
                self.known_ns.record(now_ns.saturating_sub(entered[member].load(Ordering::Acquire)))?;
            }
        }
    }

    /// Members of which watchers do not know, summed over watchers.
    pub(super) fn missing(&self) -> u64 {
        self.left
    }
}

/// The header of a server's frame (RFC 6455 §5.2).
fn header_len(payload: usize) -> u64 {
    match payload {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    }
}

/// The number that a member says of itself.
fn member(message: &str) -> Result<usize> {
    let number = between(message, r#""info":"#, ",").ok_or_else(|| anyhow!("not about a member: {message}"))?;
    Ok(number.parse()?)
}
