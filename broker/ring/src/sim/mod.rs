//! A simulated network with its own clock, for deterministic tests: drivers on one side, clients that the
//! test plays on the other, and faults drawn from one seed in between.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the world: clock, clients |
//! | `driver` | [`SimDriver`], held to the same contract as the real one: what the caller sees |
//! | `host` | its other side: operations meet the network, events come out |
//! | `conn` | one connection of a driver: its send, its receive, the faults they meet |
//! | `buffers` | receive buffers that run out |
//! | `link` | one connection: two bounded byte queues |
//! | `addresses` | where clients connect from |
//! | `faults` | what goes wrong and how often |
//!
//! Nothing here sleeps, reads a clock or asks the system for anything, but for the stand-ins of sockets
//! (see [`World::socket`]). A turn never waits: it reports what is there, and a test that has nothing left
//! to do ([`World::idle`]) advances the clock. The same seed, faults and calls give the same run.

mod addresses;
mod backlog;
mod buffers;
mod conn;
mod driver;
mod faults;
mod host;
mod link;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::{Nanos, Random};

pub use buffers::Buf;
pub use driver::SimDriver;
pub use faults::{Chance, Faults};
use host::Host;
pub use link::ClientEnd;
use link::Link;

/// The simulated network. Clones are handles to the same one.
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

/// A client's end of one connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(usize);

struct State {
    now: Nanos,
    hosts: Vec<Host>,
    net: Network,
}

/// What lies between the drivers and the clients.
struct Network {
    seed: u64,
    random: Random,
    faults: Faults,
    socket_buffer_bytes: usize,
    links: Vec<Link>,
    /// Which connection a stand-in of a socket means.
    sockets: BTreeMap<RawFd, ClientId>,
}

/// What one direction of a connection holds at most, unless [`World::set_socket_buffer`] says otherwise.
pub const SOCKET_BUFFER_BYTES: usize = 64 * 1024;

impl World {
    /// An empty network at time 0.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self(Rc::new(RefCell::new(State {
            now: 0,
            hosts: Vec::new(),
            net: Network {
                seed,
                random: Random::new(seed),
                faults,
                socket_buffer_bytes: SOCKET_BUFFER_BYTES,
                links: Vec::new(),
                sockets: BTreeMap::new(),
            },
        })))
    }

    /// A driver for one shard, with a listener of its own. Drivers are numbered from 0 in this order.
    /// `buffers` receive buffers of `buffer_bytes` each are lent out at most.
    #[must_use]
    pub fn driver(&self, capacity: u32, buffers: u32, buffer_bytes: usize) -> SimDriver {
        let mut state = self.0.borrow_mut();
        state.hosts.push(Host::new(capacity, buffers, buffer_bytes));
        SimDriver::new(self.clone(), state.hosts.len() - 1, state.now)
    }

    /// What the world was made from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.borrow().net.seed
    }

    /// Replaces the faults from here on, as for a quiet end after a rough run.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().net.faults = faults;
    }

    /// What one direction of connections made from here on holds, at least 1 byte.
    pub fn set_socket_buffer(&self, bytes: usize) {
        self.0.borrow_mut().net.socket_buffer_bytes = bytes.max(1);
    }

    // ---- the clock

    /// Lets time pass; any leap is fine. Drivers see it in their next turn.
    pub fn advance(&self, nanos: Nanos) {
        let mut state = self.0.borrow_mut();
        state.now = state.now.saturating_add(nanos);
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.0.borrow().now
    }

    /// Whether no turn of any driver would report anything: only clients, calls or time can change that.
    #[must_use]
    pub fn idle(&self) -> bool {
        let state = self.0.borrow();
        state.hosts.iter().all(|host| host.is_idle(&state.net))
    }

    // ---- clients

    /// A client connects to the listener of a driver. It may write at once, accepted or not.
    ///
    /// # Panics
    /// If there is no such driver.
    #[must_use]
    pub fn connect(&self, driver: usize) -> ClientId {
        self.connect_and_notify(driver, true)
    }

    /// The same, of which the driver is not notified while its accept goes on: the kernel woke another process, which
    /// accepts from the same listener and stops instead. See [`Driver::accept_stop`](crate::Driver::accept_stop).
    ///
    /// # Panics
    /// If there is no such driver.
    #[must_use]
    pub fn connect_unnoticed(&self, driver: usize) -> ClientId {
        self.connect_and_notify(driver, false)
    }

    /// The same as [`World::connect`], by the second listener.
    ///
    /// # Panics
    /// If there is no such driver.
    #[must_use]
    pub fn connect_second(&self, driver: usize) -> ClientId {
        let client = self.connect(driver);
        self.0.borrow_mut().net.link(client).is_second = true;
        client
    }

    fn connect_and_notify(&self, driver: usize, notifies: bool) -> ClientId {
        let mut state = self.0.borrow_mut();
        let State { hosts, net, .. } = &mut *state;
        let client = net.new_link();
        hosts[driver].connect(client, notifies, net);
        client
    }

    /// Where the client connected from, as a driver tells it. Several clients share an address, some are on
    /// loopback; which, is the seed's choice.
    #[must_use]
    pub fn client_address(&self, client: ClientId) -> SocketAddr {
        self.0.borrow_mut().net.link(client).address
    }

    /// Writes; says how many bytes were taken. Fewer than given if the socket buffer is full, none if the
    /// connection is over.
    pub fn client_write(&self, client: ClientId, bytes: &[u8]) -> usize {
        let mut state = self.0.borrow_mut();
        let link = state.net.link(client);
        if link.reset || link.client_fin {
            return 0;
        }
        let taken = bytes.len().min(link.to_server.room());
        link.to_server.put(&bytes[..taken]);
        taken
    }

    /// Reads what has arrived, `max` bytes at most.
    #[must_use]
    pub fn client_read(&self, client: ClientId, max: usize) -> Vec<u8> {
        self.0.borrow_mut().net.link(client).to_client.take(max)
    }

    /// How many bytes wait to be read by the client.
    #[must_use]
    pub fn client_unread(&self, client: ClientId) -> usize {
        self.0.borrow_mut().net.link(client).to_client.len()
    }

    /// Ends the client's direction; it still reads.
    pub fn client_half_close(&self, client: ClientId) {
        self.0.borrow_mut().net.link(client).client_fin = true;
    }

    /// Closes the client's end in order. What is sent to it afterwards breaks the connection.
    pub fn client_close(&self, client: ClientId) {
        let mut state = self.0.borrow_mut();
        let link = state.net.link(client);
        link.client_fin = true;
        link.client_gone = true;
        // Unread bytes turn the orderly end into a reset.
        link.reset |= !link.to_client.is_empty();
        let unread = link.to_client.len();
        drop(link.to_client.take(unread));
    }

    /// Breaks the connection. What the server has not received yet may or may not reach it.
    pub fn client_reset(&self, client: ClientId) {
        let mut state = self.0.borrow_mut();
        let Network { links, random, .. } = &mut state.net;
        links[client.0].break_now(random);
    }

    /// How the connection ended, once every byte that arrived was read.
    #[must_use]
    pub fn client_end(&self, client: ClientId) -> Option<ClientEnd> {
        self.0.borrow_mut().net.link(client).client_end()
    }

    /// Whether the client has read the orderly end of what the server sent.
    #[must_use]
    pub fn client_eof(&self, client: ClientId) -> bool {
        self.client_end(client) == Some(ClientEnd::EndOfStream)
    }

    /// Whether nothing more will arrive at the client, for whatever reason.
    #[must_use]
    pub fn client_is_closed(&self, client: ClientId) -> bool {
        self.client_end(client).is_some()
    }

    // ---- sockets outside the drivers

    /// A connection that no driver holds yet, and a stand-in of the server's socket for `Driver::adopt`: a
    /// descriptor of `/dev/null` that only this world understands.
    ///
    /// # Panics
    /// If `/dev/null` cannot be opened.
    #[must_use]
    pub fn socket(&self) -> (ClientId, OwnedFd) {
        let mut state = self.0.borrow_mut();
        let client = state.net.new_link();
        let socket = state.net.stand_in(client);
        (client, socket)
    }

    /// Whose connection a stand-in from [`World::socket`] or `Event::Installed` means.
    #[must_use]
    pub fn client_of(&self, socket: &OwnedFd) -> Option<ClientId> {
        self.0.borrow().net.sockets.get(&socket.as_raw_fd()).copied()
    }

    /// Writes through a stand-in; says how many bytes were taken.
    pub fn socket_write(&self, socket: &OwnedFd, bytes: &[u8]) -> usize {
        let Some(client) = self.client_of(socket) else {
            return 0;
        };
        let mut state = self.0.borrow_mut();
        let link = state.net.link(client);
        if link.reset || link.server_fin {
            return 0;
        }
        let taken = bytes.len().min(link.to_client.room());
        link.to_client.put(&bytes[..taken]);
        taken
    }

    /// Reads through a stand-in.
    #[must_use]
    pub fn socket_read(&self, socket: &OwnedFd, max: usize) -> Vec<u8> {
        let Some(client) = self.client_of(socket) else {
            return Vec::new();
        };
        self.0.borrow_mut().net.link(client).to_server.take(max)
    }

    /// Closes a stand-in, and with it the server's end, unless a driver still holds that.
    pub fn socket_close(&self, socket: OwnedFd) {
        let mut state = self.0.borrow_mut();
        let Some(client) = state.net.sockets.remove(&socket.as_raw_fd()) else {
            return;
        };
        state.net.link(client).installed = false;
        if !state.hosts.iter().any(|host| host.holds(client)) {
            state.net.link(client).server_close();
        }
    }
}

impl Network {
    fn new_link(&mut self) -> ClientId {
        let address = addresses::of(self.seed, self.links.len());
        self.links.push(Link::new(self.socket_buffer_bytes, address));
        ClientId(self.links.len() - 1)
    }

    fn link(&mut self, client: ClientId) -> &mut Link {
        &mut self.links[client.0]
    }

    fn stand_in(&mut self, client: ClientId) -> OwnedFd {
        let socket = OwnedFd::from(File::open("/dev/null").expect("/dev/null opens"));
        self.sockets.insert(socket.as_raw_fd(), client);
        self.links[client.0].installed = true;
        socket
    }
}
