//! Connections on their way out: a socket in the table, then its options and address, then the handshake.
//!
//! With Linux 6.11 the socket never is an ordinary descriptor. `IORING_OP_SOCKET` makes it in a place of the
//! kernel's choice; a chain of linked operations follows, of which exactly one completes visibly: the one that
//! failed, or the connect at the end. An older kernel cannot bind that way, and what does not fit the
//! submission queue is no chain: there the socket is made with system calls and moved into the table.
//!
//! A place taken for a dial is open and `DIALLING`: it counts as taken, but no `ConnId` names it yet. After a
//! failure it goes through the same close as any connection, and the failure is told when that is over.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::{DestinationSlot, Fixed};
use io_uring::{opcode, squeue};

use super::slots::{CLOSING, DIALLING};
use super::tag::{self, Kind};
use super::{Buf, UringDriver};
use crate::socket::{self, Address, ON};
use crate::{ConnId, Event};

/// The most operations of a chain: two options, the source, the connect.
const CHAIN_MAX: usize = 4;

/// One dial. Boxed: the kernel reads the addresses and, at `place`, writes.
pub(super) struct Dial {
    token: u64,
    to: Address,
    source: Option<SocketAddr>,
    /// What `source` is for the kernel.
    bind_to: Address,
    /// The socket as an ordinary descriptor, until it is in the table.
    socket: Option<OwnedFd>,
    /// Descriptor in, slot out; read and written by the kernel.
    place: i32,
    /// Why it failed, once it did.
    errno: i32,
}

impl UringDriver {
    pub(super) fn start_dial(&mut self, to: SocketAddr, source: Option<SocketAddr>, token: u64) {
        let chained = self.features.bind && self.ring.submission().capacity() >= CHAIN_MAX;
        let socket = if chained { Ok(None) } else { ordinary_socket(to, source).map(Some) };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                return self.ready.push_back(Event::Dialled { token, result: Err(errno) });
            }
        };
        let place = socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let bind_to = Address::from(source.unwrap_or(to));
        let dial = Dial { token, to: to.into(), source, bind_to, socket, place, errno: 0 };
        let index = self.dials.put(Box::new(dial));
        let dial = self.dials.at(index);
        let entry = if chained {
            let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
            opcode::Socket::new(socket::family(to), kind, 0).file_index(Some(DestinationSlot::auto_target())).build()
        } else {
            opcode::FilesUpdate::new(&raw mut dial.place, 1).offset(-1).build() // IORING_FILE_INDEX_ALLOC
        };
        self.push(&entry.user_data(tag::of_index(Kind::DialSocket, index)));
    }

    /// The socket is in the table, or there was no room.
    pub(super) fn complete_dial_socket(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let dial = self.dials.at(index);
        let moved = dial.socket.take().is_some();
        let place = match (moved, result) {
            (true, 1) => Ok(dial.place as u32),
            (true, 0) => Err(libc::ENFILE),
            (false, 0..) => Ok(result as u32),
            _ => Err(-result),
        };
        match place {
            Ok(slot) => {
                let conn = self.open(slot, events);
                let place = self.slots.at(slot);
                place.set(DIALLING);
                place.operation = index;
                self.connect(conn, index, !moved);
            }
            Err(errno) => {
                let dial = self.dials.take(index);
                events.push(Event::Dialled { token: dial.token, result: Err(errno) });
            }
        }
    }

    /// Queues what is left of a dial once it has a place, as one chain.
    fn connect(&mut self, conn: ConnId, index: u32, is_bare: bool) {
        let (to, conn_fd) = (tag::of_conn(Kind::Connect, conn), Fixed(conn.slot));
        let link =
            |entry: squeue::Entry| entry.flags(squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS).user_data(to);
        let switch_on = |level: i32, option: i32| {
            let (at, len) = ((&raw const ON).cast(), size_of_val(&ON) as u32);
            link(opcode::SetSockOpt::new(conn_fd, level as u32, option as u32, at, len).build())
        };
        let dial = self.dials.at(index);
        let connect = opcode::Connect::new(conn_fd, dial.to.as_ptr(), dial.to.len()).build().user_data(to);
        let bind = link(opcode::Bind::new(conn_fd, dial.bind_to.as_ptr(), dial.bind_to.len()).build());
        let source = dial.source;
        if is_bare {
            self.make_room(CHAIN_MAX);
            self.push_uncounted(&switch_on(libc::IPPROTO_TCP, libc::TCP_NODELAY));
            if let Some(source) = source {
                if source.port() == 0 {
                    self.push_uncounted(&switch_on(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT));
                }
                self.push_uncounted(&bind);
            }
        }
        self.push(&connect);
    }

    /// The chain is over.
    pub(super) fn complete_connect(&mut self, slot: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let place = self.slots.at(slot);
        let (index, conn) = (place.operation, ConnId { slot, generation: place.generation });
        if result == 0 {
            place.clear(DIALLING);
            let dial = self.dials.take(index);
            return events.push(Event::Dialled { token: dial.token, result: Ok(conn) });
        }
        place.set(CLOSING);
        self.dials.at(index).errno = -result;
        self.close_if_idle(conn);
    }

    /// A place is given up: a connection is closed, or a dial has failed.
    pub(super) fn vacate(&mut self, slot: u32, events: &mut Vec<Event<Buf>>) {
        let place = *self.slots.at(slot);
        let conn = self.slots.vacate(slot);
        events.push(if place.has(DIALLING) {
            let dial = self.dials.take(place.operation);
            Event::Dialled { token: dial.token, result: Err(dial.errno) }
        } else {
            Event::Closed { conn }
        });
    }
}

/// With its options and its source, not yet connected.
pub(crate) fn ordinary_socket(to: SocketAddr, source: Option<SocketAddr>) -> std::io::Result<OwnedFd> {
    let socket = socket::tcp(to)?;
    socket::switch_on(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    if let Some(source) = source {
        if source.port() == 0 {
            socket::switch_on(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
        }
        socket::bind(&socket, &source.into())?;
    }
    Ok(socket)
}
