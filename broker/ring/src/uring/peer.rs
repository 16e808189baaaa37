//! The peer's address, asked of a socket that has no descriptor.
//!
//! `SOCKET_URING_OP_GETSOCKOPT` (Linux 6.7) with `SO_PEERNAME` answers within the submission, so nothing has to be
//! cancelled; but a close waits for the answer, as for every operation, because the kernel writes to memory of ours.
//!
//! The kernel refuses a name shorter than the room it is given (`EINVAL`), and cuts one that is longer. So the
//! question says which family is expected, and is put once more where that was wrong.

use std::cell::Cell;
use std::rc::Rc;

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use super::slots::Flags;
use super::tag::{self, Kind};
use super::{Buf, UringDriver};
use crate::socket::{self, Name, V4_BYTES, V6_BYTES};
use crate::{ConnId, Event};

/// A question under way.
pub(super) struct Query {
    conn: ConnId,
    /// Written by the kernel.
    name: Rc<Cell<Name>>,
    /// The room given.
    bytes: libc::socklen_t,
    /// The other family was tried before.
    again: bool,
}

impl UringDriver {
    pub(super) fn ask_peer(&mut self, conn: ConnId) {
        let query = Query { conn, name: Rc::new(Cell::new(socket::no_name())), bytes: self.peer_bytes, again: false };
        let index = self.queries.put(query);
        self.push_query(index);
    }

    fn push_query(&mut self, index: u32) {
        let query = self.queries.at(index);
        let name = query.name.as_ptr();
        let mut entry = opcode::SetSockOpt::new(
            Fixed(query.conn.slot),
            libc::SOL_SOCKET as u32,
            libc::SO_PEERNAME as u32,
            name.cast_const().cast(),
            query.bytes,
        )
        .build()
        .user_data(tag::of_index(Kind::Peer, index));
        make_get(&mut entry);
        self.push(&entry);
    }

    pub(super) fn complete_peer(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let query = self.queries.at(index);
        let conn = query.conn;
        let slot = self.slots.at(conn.slot);
        let cut = result >= 0 && query.bytes == V4_BYTES && i32::from(query.name.get().sin6_family) == libc::AF_INET6;
        if (cut || result == -libc::EINVAL) && !query.again && !slot.flags.contains(Flags::CLOSING) {
            query.again = true;
            query.bytes = if query.bytes == V4_BYTES { V6_BYTES } else { V4_BYTES };
            return self.push_query(index);
        }
        let query = self.queries.take(index);
        slot.flags.remove(Flags::ASKING);
        if slot.flags.contains(Flags::CLOSING) {
            return self.close_if_idle(conn);
        }
        let result = if result < 0 { Err(-result) } else { socket::decode(&query.name.get()) };
        events.push(Event::Peer { conn, result });
    }
}

/// Turns a `setsockopt` into the `getsockopt` of the same level, option and room, for which the crate has no
/// builder.
fn make_get(entry: &mut squeue::Entry) {
    const SOCKET_URING_OP_GETSOCKOPT: u32 = 2;
    // SAFETY: an entry is a `repr(C)` wrapper of the kernel's `io_uring_sqe`, 64 plain bytes aligned to 8, whose
    // bytes 8 to 11 are `cmd_op`; any number is valid there.
    unsafe { (&raw mut *entry).cast::<u32>().add(2).write(SOCKET_URING_OP_GETSOCKOPT) };
}

const _: () = assert!(size_of::<squeue::Entry>() == 64 && align_of::<squeue::Entry>() >= 4);
