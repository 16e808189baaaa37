//! One simulated TCP connection: two bounded byte queues and how each direction ends.
//!
//! A queue stands for the sender's and the receiver's socket buffer together. As on Linux, bytes that
//! reached an end before a reset can still be read there; those under way are lost.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::Random;

/// How a connection ended for the client, once it has read every byte that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEnd {
    /// The server ended its direction in order.
    EndOfStream,
    /// The connection broke.
    Reset,
}

pub(super) struct Link {
    /// The client's.
    pub(super) address: SocketAddr,
    pub(super) to_server: Queue,
    pub(super) to_client: Queue,
    /// The client will write no more.
    pub(super) client_fin: bool,
    /// The client will read no more either: bytes sent to it break the connection.
    pub(super) client_gone: bool,
    /// The server will write no more.
    pub(super) server_fin: bool,
    pub(super) reset: bool,
    /// An ordinary descriptor holds the server's end, so a driver's close does not end it.
    pub(super) installed: bool,
    /// The client came by the second listener.
    pub(super) is_second: bool,
}

/// Bytes on their way in one direction.
pub(super) struct Queue {
    bytes: VecDeque<u8>,
    bytes_max: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn room(&self) -> usize {
        self.bytes_max - self.bytes.len()
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a queue holds at most {} bytes", self.bytes_max);
        self.bytes.extend(bytes);
    }

    pub(super) fn take(&mut self, max: usize) -> Vec<u8> {
        self.bytes.drain(..max.min(self.bytes.len())).collect()
    }

    fn lose_some(&mut self, random: &mut Random) {
        self.bytes.truncate(random.below(self.bytes.len() + 1));
    }
}

impl Link {
    pub(super) fn new(queue_bytes_max: usize, address: SocketAddr) -> Self {
        let queue = || Queue { bytes: VecDeque::new(), bytes_max: queue_bytes_max };
        Self {
            address,
            to_server: queue(),
            to_client: queue(),
            client_fin: false,
            client_gone: false,
            server_fin: false,
            reset: false,
            installed: false,
            is_second: false,
        }
    }

    /// Breaks the connection for both ends.
    pub(super) fn break_now(&mut self, random: &mut Random) {
        if !self.reset {
            self.reset = true;
            self.to_server.lose_some(random);
            self.to_client.lose_some(random);
        }
    }

    /// The server's last descriptor goes. Unread bytes turn the orderly end into a reset (RFC 1122, 4.2.2.13).
    pub(super) fn server_close(&mut self) {
        if self.installed {
            return;
        }
        self.server_fin = true;
        self.reset |= !self.to_server.is_empty();
    }

    pub(super) fn client_end(&self) -> Option<ClientEnd> {
        if !self.to_client.is_empty() {
            None
        } else if self.reset {
            Some(ClientEnd::Reset)
        } else if self.server_fin {
            Some(ClientEnd::EndOfStream)
        } else {
            None
        }
    }

    /// Whether a receive on the server's end would report something.
    pub(super) fn is_readable(&self) -> bool {
        !self.to_server.is_empty() || self.client_fin || self.reset
    }

    /// Whether a send on the server's end would get on.
    pub(super) fn is_writable(&self) -> bool {
        self.to_client.room() > 0 || self.reset || self.client_gone
    }
}
