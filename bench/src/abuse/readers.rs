//! Many subscribers on one thread that read as fast as they can and look at nothing: their kernel discards what came, so
//! that a read costs the client one system call. Over TLS they decrypt it.
//!
//! Invariant: `bytes` counts what all of them received after their handshakes.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use loadgen::client::Client;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::peer::Peer;
use super::stream::Stream;
use super::wire::{PONG, frame};

/// The most bytes that one read discards.
const READ_LEN: usize = 4 << 20;
/// Between two signs of life of each.
const LIFE_INTERVAL: Duration = Duration::from_millis(700);
/// The most bytes that a connection gets as pings while its readers are patient: one of two bytes in a second.
const PINGS_LEN_MAX: u64 = 64;

/// The subscribers.
pub(super) struct Readers {
    poll: Poll,
    events: Events,
    clients: Vec<Option<Client<Stream>>>,
    scratch: Vec<u8>,
    alive_at: Instant,
    /// Bytes that all received.
    pub(super) bytes: u64,
    /// Connections that ended.
    pub(super) ended: usize,
}

impl Readers {
    pub(super) fn new(peers: Vec<Peer>) -> Result<Self> {
        let poll = Poll::new()?;
        let (mut clients, mut bytes) = (Vec::with_capacity(peers.len()), 0);
        for (token, peer) in peers.into_iter().enumerate() {
            bytes += peer.rest().len() as u64;
            let mut client = peer.into_nonblocking()?;
            poll.registry().register(&mut SourceFd(&client.stream().as_raw_fd()), Token(token), Interest::READABLE)?;
            clients.push(Some(client));
        }
        let events = Events::with_capacity(1024);
        Ok(Self { poll, events, clients, scratch: vec![0; READ_LEN], alive_at: Instant::now(), bytes, ended: 0 })
    }

    /// Reads what came, or waits for the first of it, at most `patience`.
    pub(super) fn read(&mut self, patience: Duration) -> Result<()> {
        if self.alive_at.elapsed() > LIFE_INTERVAL {
            self.alive_at = Instant::now();
            let pong = frame(PONG, b"");
            // Fails only when the connection has ended, which the next read shows, or when its buffer is full.
            self.clients.iter_mut().flatten().for_each(|client| drop(client.stream().write(&pong)));
        }
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let place = &mut self.clients[event.token().0];
            while let Some(client) = place {
                if matches!(client.stream(), Stream::Secure(_)) {
                    match client.stream().read(&mut self.scratch) {
                        Ok(len @ 1..) => self.bytes += len as u64,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Ok(_) | Err(_) => {
                            self.ended += 1;
                            *place = None;
                        }
                    }
                    continue;
                }
                // A stream socket that gave less than was asked for is empty (epoll(7)).
                match recv(client.stream().socket(), &mut self.scratch[..], RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
                    Ok((_, len @ 1..READ_LEN)) => {
                        self.bytes += len as u64;
                        break;
                    }
                    Ok((_, len @ READ_LEN..)) => self.bytes += len as u64,
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Ok(_) | Err(_) => {
                        self.ended += 1;
                        *place = None;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads until `bytes` have come in all, every one has ended, or no more than the broker's pings comes for `patience`.
    pub(super) fn read_up_to(&mut self, bytes: u64, patience: Duration) -> Result<()> {
        let (mut last, mut since) = (self.bytes, Instant::now());
        while self.bytes < bytes && self.ended < self.clients.len() && since.elapsed() < patience {
            self.read(Duration::from_millis(50))?;
            if self.bytes > last + PINGS_LEN_MAX * self.clients.len() as u64 {
                (last, since) = (self.bytes, Instant::now());
            }
        }
        Ok(())
    }
}
