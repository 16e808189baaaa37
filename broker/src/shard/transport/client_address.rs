//! Whose a connection is, before a byte of it is read: its address, what a trusted proxy says of it, and how many
//! others there are of the same address.
//!
//! The way of a connection: accepted, its address is asked for (`State::Arriving`); one from a trusted proxy begins
//! with a PROXY header, where `--proxy-protocol` says so (`State::Proxied`); then its client is counted, or refused
//! with 429, and it is an ordinary handshake. A trusted proxy without that header says with each request for whom it
//! speaks (X-Forwarded-For), so there an upgrade counts, when it is granted, and other requests do not.
//!
//! An HTTP connection counts while the shard has it and while the control plane has it: it goes from one to the
//! other, and back as a WebSocket, without being counted twice or being forgotten ([`AddressLease`]). See `address.rs`.
//!
//! Where nobody can be counted, on a loopback listener without proxies, no address is asked for and nothing here
//! costs anything. Otherwise: one operation and a short lock per connection, and four bytes per slot.

use std::net::{IpAddr, SocketAddr};

use protocol::{head, proxy};
use ring::{ConnId, Driver};

use crate::access::address::{self, AddressLease, AddressSlot, Addresses, Client};
use crate::config::is_loopback;
use crate::config::limits::Limits;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::transport::connection::State;

/// The slot of each connection whose address was asked for.
#[derive(Debug)]
pub(in crate::shard) struct ClientAddresses {
    /// Whether any is.
    asks: bool,
    /// By the driver's slots, as far as used.
    slots: Vec<AddressSlot>,
}

impl ClientAddresses {
    pub(in crate::shard) fn new(limits: &Limits) -> Self {
        let asks = limits.connections_per_address_max.is_some() || !limits.trusted_proxies.is_empty();
        Self { asks, slots: Vec::new() }
    }

    fn put(&mut self, id: ConnId, slot: AddressSlot) {
        let at = id.slot as usize;
        if self.slots.len() <= at {
            if slot == AddressSlot::UNCOUNTED {
                return;
            }
            self.slots.resize_with(at + 1, AddressSlot::default);
        }
        let before = std::mem::replace(&mut self.slots[at], slot);
        assert!(before == AddressSlot::UNCOUNTED || before == AddressSlot::TRUSTED, "a connection is counted once");
    }

    fn take(&mut self, id: ConnId) -> AddressSlot {
        self.slots.get_mut(id.slot as usize).map(std::mem::take).unwrap_or_default()
    }

    /// What the client of this connection has in common with its others; `None`: it is not counted.
    pub(in crate::shard) fn client_of(&self, id: ConnId) -> Option<(usize, u32)> {
        self.slots.get(id.slot as usize)?.entry()
    }

    /// The same as a client of the broker.
    pub(in crate::shard) fn client(&self, id: ConnId, addresses: &Addresses) -> Option<Client> {
        addresses.client(self.slots.get(id.slot as usize)?)
    }

    /// The client of this connection; where it is not counted, the connection is a client of its own.
    pub(in crate::shard) fn client_or_connection(&self, id: ConnId) -> Result<(usize, u32), ConnId> {
        self.client_of(id).ok_or(id)
    }

    pub(in crate::shard) fn is_trusted(&self, id: ConnId) -> bool {
        self.slots.get(id.slot as usize) == Some(&AddressSlot::TRUSTED)
    }
}

impl<D: Driver> Shard<D> {
    /// A connection was accepted.
    pub(in crate::shard) fn ask_address(&mut self, id: ConnId) {
        if self.acceptor.addresses.asks
            && let Some(conn) = self.conns.get(id)
        {
            conn.state = State::Arriving;
            self.driver.peer(id);
        }
    }

    pub(in crate::shard) fn on_peer(&mut self, id: ConnId, result: Result<SocketAddr, i32>) {
        self.peer_questions.on_peer(id, result.ok());
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Arriving) else { return };
        let Ok(address) = result else {
            // Reset before anybody looked.
            self.abort(id, Reason::Reset);
            return;
        };
        let mut read = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        let ended = conn.extra.as_mut().is_some_and(|extra| std::mem::take(&mut extra.ended));
        conn.settle();
        if self.limits.proxy_protocol && address::is_trusted(address.ip(), &self.limits.trusted_proxies) {
            conn.state = State::Proxied;
            self.on_proxied_bytes(id, &mut read);
        } else {
            self.admit_client(id, Some(address.ip()), &mut read);
        }
        if ended {
            self.on_early_end(id);
        }
    }

    /// Bytes of a connection whose PROXY header is not complete.
    pub(in crate::shard) fn on_proxied_bytes(&mut self, id: ConnId, bytes: &mut [u8]) {
        self.keep_input(id, bytes);
        let Some(conn) = self.conns.get(id) else { return };
        let mut read = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        match proxy::parse(&read) {
            Ok(None) => self.keep_input(id, &read),
            Ok(Some(header)) => {
                conn.settle();
                // A client on the proxy's own machine is the proxy itself, and not on this machine.
                let client = header.client.map(|client| client.ip()).filter(|ip| !is_loopback(*ip));
                self.admit_client(id, client, &mut read[header.header_len..]);
            }
            Err(_) => self.abort(id, Reason::ProxyHeader),
        }
    }

    /// The client is known; `None`: a trusted proxy speaks for itself. `read` are its first bytes.
    fn admit_client(&mut self, id: ConnId, client: Option<IpAddr>, read: &mut [u8]) {
        let slot = self.policy().admit_connection(client);
        let Some(conn) = self.conns.get(id) else { return };
        conn.state = State::Handshake;
        match slot {
            Ok(slot) => {
                self.acceptor.addresses.put(id, slot);
                if !read.is_empty() {
                    self.on_received(id, read);
                }
            }
            Err(rejection) => {
                self.keep_input(id, read);
                self.refuse(id, &rejection);
            }
        }
    }

    /// The end of the stream came before the address did; what came before that was looked at now.
    fn on_early_end(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        match conn.state {
            State::Open if conn.flags.has(crate::shard::transport::connection::Flags::PAUSED) => {
                conn.extra(&self.account).ended = true
            }
            State::Arriving | State::Proxied | State::Handshake | State::Open => self.on_end_of_stream(id),
            State::Http if conn.flags.has(crate::shard::transport::connection::Flags::PAUSED) => {
                conn.extra(&self.account).ended = true
            }
            State::Http | State::Bridged => self.on_end_of_stream(id),
            // The control plane sees it again, and so does whoever waits for it after the last bytes.
            State::HandingOver | State::Closing | State::Gone => {}
        }
    }

    /// For whom a trusted proxy sends the request whose whole head this is; `None`: for itself, or none sends it.
    pub(in crate::shard) fn forwarded(&self, id: ConnId, head: &[u8]) -> Option<IpAddr> {
        let is_trusted = self.acceptor.addresses.is_trusted(id);
        is_trusted.then(|| address::client(head::forwarded_for(head), &self.limits.trusted_proxies))?
    }

    /// The connection leaves the shard, and what is known of its client goes with it.
    pub(in crate::shard) fn lease(&mut self, id: ConnId) -> AddressLease {
        AddressLease::new(&self.shared.addresses, self.acceptor.addresses.take(id))
    }

    /// A connection counts as `lease` says from now on.
    pub(in crate::shard) fn attach_lease(&mut self, id: ConnId, lease: &AddressLease) {
        self.acceptor.addresses.put(id, lease.take());
    }

    /// The connection is gone.
    pub(in crate::shard) fn forget_address(&mut self, id: ConnId) {
        let slot = self.acceptor.addresses.take(id);
        self.shared.addresses.release(slot);
    }
}
