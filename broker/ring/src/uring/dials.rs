//! Outgoing connections: a socket of the process, then a place in the table, then the handshake.
//!
//! The socket is made and bound with system calls and is an ordinary descriptor until the next turn has moved it
//! into the table. A socket that never is one (`IORING_OP_SOCKET`, then options, `IORING_OP_BIND` and
//! `IORING_OP_CONNECT` linked) costs more: dialling 60,000 connections from eight addresses took 12.2 to 18.8 us of
//! processor time each this way and 14.7 to 26.9 us that way, alternating on the same loaded machine (Linux
//! 6.18), for each step of a chain is a task of its own to the kernel. Most of either is the handshake.
//!
//! What does make dialling slow is a source address that runs out of ports: the kernel looks for a free one by
//! trying. 12,500 connections from one address to one listener cost 14 us each, 20,000 cost 370 us.
//!
//! A place taken for a dial is open and `DIALLING`: it counts as taken, but no `ConnId` names it yet. After a
//! failure it goes through the same close as any connection, and the failure is reported when that is over.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::opcode;
use io_uring::types::Fixed;

use super::slots::Flags;
use super::tag::{self, Kind};
use super::{Buf, UringDriver};
use crate::socket::{self, Address};
use crate::{ConnId, Event};

/// One dial.
pub(super) struct Dial {
    token: u64,
    named: Rc<Named>,
    /// The socket as an ordinary descriptor, until it is in the table.
    socket: Option<OwnedFd>,
    /// Why it failed, once it did.
    errno: i32,
}

/// What the operations of a dial name.
struct Named {
    /// Read by the kernel.
    to: Address,
    /// Descriptor in, slot out; read and written by the kernel.
    place: Cell<i32>,
}

impl UringDriver {
    pub(super) fn start_dial(&mut self, to: SocketAddr, source: Option<SocketAddr>, token: u64) {
        let socket = match socket::dialling(to, source) {
            Ok(socket) => socket,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                return self.ready.push_back(Event::Dialled { token, result: Err(errno) });
            }
        };
        let named = Rc::new(Named { to: to.into(), place: Cell::new(socket.as_raw_fd()) });
        let place = named.place.as_ptr();
        let index = self.dials.put(Dial { token, named, socket: Some(socket), errno: 0 });
        let entry = opcode::FilesUpdate::new(place, 1)
            .offset(-1) // IORING_FILE_INDEX_ALLOC
            .build()
            .user_data(tag::of_index(Kind::DialSocket, index));
        self.push(&entry);
    }

    /// The socket is in the table, or there was no room.
    pub(super) fn complete_dial_socket(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let dial = self.dials.at(index);
        dial.socket = None;
        if result != 1 {
            let errno = if result == 0 { libc::ENFILE } else { -result };
            let dial = self.dials.take(index);
            return events.push(Event::Dialled { token: dial.token, result: Err(errno) });
        }
        let slot = dial.named.place.get() as u32;
        let conn = self.open(slot, events);
        let place = self.slots.at(slot);
        place.flags.insert(Flags::DIALLING);
        place.operation = index;
        let to = &self.dials.at(index).named.to;
        let entry = opcode::Connect::new(Fixed(slot), to.as_ptr(), to.len())
            .build()
            .user_data(tag::of_conn(Kind::Connect, conn));
        self.push(&entry);
    }

    /// The handshake is over.
    pub(super) fn complete_connect(&mut self, slot: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let place = self.slots.at(slot);
        let (index, conn) = (place.operation, ConnId { slot, generation: place.generation });
        if result == 0 {
            place.flags.remove(Flags::DIALLING);
            let dial = self.dials.take(index);
            return events.push(Event::Dialled { token: dial.token, result: Ok(conn) });
        }
        place.flags.insert(Flags::CLOSING);
        self.dials.at(index).errno = -result;
        self.close_if_idle(conn);
    }

    /// A place is given up: a connection is closed, or a dial has failed.
    pub(super) fn vacate(&mut self, slot: u32, events: &mut Vec<Event<Buf>>) {
        let place = *self.slots.at(slot);
        let conn = self.slots.vacate(slot);
        events.push(if place.flags.contains(Flags::DIALLING) {
            let dial = self.dials.take(place.operation);
            Event::Dialled { token: dial.token, result: Err(dial.errno) }
        } else {
            Event::Closed { conn }
        });
    }
}
