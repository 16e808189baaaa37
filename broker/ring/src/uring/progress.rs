//! How far a connection's output has got: what the kernel took of the send in flight, and what the peer has not
//! acknowledged of what the kernel took. Neither names memory.
//!
//! The first is asked by cancelling the send. Wherever the kernel finds it (waiting for room, or on a worker
//! thread), a send that took bytes before completes with their number, and one that took none with `ECANCELED` or
//! `EINTR`; so the count is exact (`io_sendrecv_fail` in io_uring/net.c, Linux 6.1). A cancellation names the
//! connection, not the send, but cannot hit a later one: the kernel starts operations in the order in which they
//! were queued, and a later send is queued behind it.
//!
//! The second is a command to the socket (`SOCKET_URING_OP_SIOCOUTQ`, Linux 6.6), over within its submission.

use io_uring::opcode;
use io_uring::types::Fixed;

use super::slots::Flags;
use super::tag::{self, Kind};
use super::{Buf, UringDriver};
use crate::{ConnId, Event};

const SOCKET_URING_OP_SIOCOUTQ: u32 = 1;

impl UringDriver {
    pub(super) fn ask_progress(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        // A send that a shutdown waits for is the last, so nobody could send its rest.
        let last_or_asked = Flags::PROGRESS_ASKED | Flags::SHUTDOWN_WANTED;
        if slot.flags.contains(Flags::SENDING) && !slot.flags.intersects(last_or_asked) {
            slot.flags.insert(Flags::PROGRESS_ASKED);
            self.cancel_send(conn);
        }
    }

    pub(super) fn ask_unsent(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if !slot.flags.contains(Flags::UNSENT_ASKED) {
            slot.flags.insert(Flags::UNSENT_ASKED);
            let entry = opcode::UringCmd16::new(Fixed(conn.slot), SOCKET_URING_OP_SIOCOUTQ)
                .build()
                .user_data(tag::of_conn(Kind::Unsent, conn));
            self.push(&entry);
        }
    }

    pub(super) fn complete_unsent(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(index);
        slot.flags.remove(Flags::UNSENT_ASKED);
        let conn = ConnId { slot: index, generation: slot.generation };
        if slot.flags.contains(Flags::CLOSING) {
            return self.close_if_idle(conn);
        }
        let result = if result < 0 { Err(-result) } else { Ok(result as usize) };
        events.push(Event::Unsent { conn, result });
    }
}
