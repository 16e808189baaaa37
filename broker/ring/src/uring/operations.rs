//! What the caller asks for: each call checks what it may and queues operations, which reach the kernel in the next
//! turn. What they come to is in `complete`.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

use super::discard::DiscardPool;
use super::slots::Flags;
use super::tag::{self, Kind};
use super::{Accept, Adoption, BUFFER_GROUP, Buf, DISCARD_GROUP, InFlight, UringDriver, WAIT_ALL_BYTES_MAX};
use crate::gather::Tail;
use crate::socket::set_nonblocking;
use crate::waker::Kind as WakerKind;
use crate::{AcceptEnd, ConnId, Counters, Dial, Driver, Event, Gather, Nanos, ReceiveEnd, Waker};

impl UringDriver {
    /// One receive at a time; `how` is what it is besides [`Flags::RECEIVING`].
    fn start_receive(&mut self, conn: ConnId, how: Flags, entry: squeue::Entry) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags.contains(Flags::RECEIVING) {
            return;
        }
        slot.flags.insert(Flags::RECEIVING | how);
        self.push(&entry.user_data(tag::of_conn(Kind::Receive, conn)));
    }

    pub(super) fn stale(&mut self) {
        self.counters.stale += 1;
    }
}

impl Driver for UringDriver {
    type Buf = Buf;

    fn accept(&mut self) {
        if self.listeners[0].is_none() {
            return self.ready.push_back(Event::AcceptEnded { end: AcceptEnd::Failed(libc::EBADF) });
        }
        if self.accept == Accept::Idle {
            self.accept = Accept::Running;
            self.accepts_wanted = [0; 2];
        }
    }

    fn accept_stop(&mut self) {
        self.end_accept(AcceptEnd::Stopped);
    }

    fn adopt(&mut self, socket: OwnedFd, token: u64) {
        if let Err(error) = set_nonblocking(&socket) {
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            return self.ready.push_back(Event::Adopted { token, result: Err(errno) });
        }
        let place = Rc::new(Cell::new(socket.as_raw_fd()));
        // The kernel writes the chosen slot back to where it read the descriptor from.
        let named = place.as_ptr();
        let index = self.adoptions.put(Adoption { token, _socket: socket, place });
        let entry = opcode::FilesUpdate::new(named, 1)
            .offset(-1) // IORING_FILE_INDEX_ALLOC
            .build()
            .user_data(tag::of_index(Kind::Adopt, index));
        self.push(&entry);
    }

    fn receive(&mut self, conn: ConnId) {
        let entry = opcode::RecvMulti::new(Fixed(conn.slot), BUFFER_GROUP).build();
        self.start_receive(conn, Flags::empty(), entry);
    }

    fn receive_stop(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags & (Flags::RECEIVING | Flags::RECEIVE_STOPPING) == Flags::RECEIVING {
            slot.flags.insert(Flags::RECEIVE_STOPPING);
            self.cancel_receive(conn);
        }
    }

    fn send(&mut self, conn: ConnId, gather: Gather, from: usize) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        assert!(!slot.flags.contains(Flags::SENDING), "a second send of {conn:?}");
        slot.flags.insert(Flags::SENDING);
        // A send that takes a slow peer long is reported piece by piece; any other completes once, when it is done.
        let wait_all = if gather.len().saturating_sub(from) > WAIT_ALL_BYTES_MAX { 0 } else { libc::MSG_WAITALL };
        let flags = libc::MSG_NOSIGNAL | wait_all;
        let mut trimmed = None;
        let entry = match gather.tail(from) {
            Tail::Contiguous(bytes) => {
                let len = bytes.len().min(i32::MAX as usize) as u32;
                opcode::Send::new(Fixed(conn.slot), bytes.as_ptr(), len).flags(flags).build()
            }
            Tail::Whole(message) => {
                opcode::SendMsg::new(Fixed(conn.slot), message.as_ptr()).flags(flags as u32).build()
            }
            Tail::Trimmed(message) => {
                let message = trimmed.insert(message);
                opcode::SendMsg::new(Fixed(conn.slot), message.as_ptr()).flags(flags as u32).build()
            }
        };
        slot.operation = self.sends.put(InFlight { gather, from, _trimmed: trimmed });
        self.push(&entry.user_data(tag::of_conn(Kind::Send, conn)));
    }

    fn send_progress(&mut self, conn: ConnId) {
        self.ask_progress(conn);
    }

    fn unsent(&mut self, conn: ConnId) {
        self.ask_unsent(conn);
    }

    fn shutdown(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags.contains(Flags::SENDING) {
            slot.flags.insert(Flags::SHUTDOWN_WANTED);
        } else if !slot.flags.contains(Flags::SHUTTING) {
            self.queue_shutdown(conn);
        }
    }

    fn install(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        let refusal = if slot.flags.intersects(Flags::IN_FLIGHT & !(Flags::ASKING | Flags::UNSENT_ASKED)) {
            Some(libc::EBUSY)
        } else if !self.features.install {
            Some(libc::EOPNOTSUPP)
        } else {
            None
        };
        if let Some(errno) = refusal {
            let result = Err(io::Error::from_raw_os_error(errno));
            return self.ready.push_back(Event::Installed { conn, result });
        }
        slot.flags.insert(Flags::INSTALLING);
        let entry =
            opcode::FixedFdInstall::new(Fixed(conn.slot), 0).build().user_data(tag::of_conn(Kind::Install, conn));
        self.push(&entry);
    }

    fn peer(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if !slot.flags.contains(Flags::ASKING) {
            slot.flags.insert(Flags::ASKING);
            self.ask_peer(conn);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        slot.flags.insert(Flags::CLOSING);
        slot.flags.remove(Flags::SHUTDOWN_WANTED);
        let (receiving, sending) = (slot.flags.contains(Flags::RECEIVING), slot.flags.contains(Flags::SENDING));
        // Refusals of `install` and `discard` that were not reported yet.
        self.ready.retain(|event| {
            !matches!(event, Event::Installed { conn: of, .. } | Event::ReceiveEnded { conn: of, .. } if *of == conn)
        });
        if receiving {
            self.cancel_receive(conn);
        }
        if sending {
            self.cancel_send(conn);
        }
        self.close_if_idle(conn);
    }

    fn turn(&mut self, deadline: Option<Nanos>, events: &mut Vec<Event<Buf>>) -> io::Result<()> {
        self.run(deadline, events)
    }

    fn now(&self) -> Nanos {
        self.now
    }

    fn busy(&self) -> Nanos {
        self.busy
    }

    fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    fn waker(&self) -> Waker {
        Waker { kind: WakerKind::EventFd(Arc::clone(&self.eventfd)) }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Dial for UringDriver {
    fn dial(&mut self, to: SocketAddr, source: Option<SocketAddr>, token: u64) {
        self.start_dial(to, source, token);
    }

    fn receive_once(&mut self, conn: ConnId) {
        let entry = opcode::Recv::new(Fixed(conn.slot), ptr::null_mut(), self.pool.buffer_bytes())
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.start_receive(conn, Flags::RECEIVING_ONCE, entry);
    }

    fn discard(&mut self, conn: ConnId) {
        if self.discard_pool.is_none() {
            match DiscardPool::new(&self.ring, DISCARD_GROUP) {
                Ok(pool) => self.discard_pool = Some(pool),
                Err(error) => {
                    let Some(_) = self.slots.live(conn) else {
                        return self.stale();
                    };
                    let end = ReceiveEnd::Failed(error.raw_os_error().unwrap_or(libc::ENOMEM));
                    return self.ready.push_back(Event::ReceiveEnded { conn, end });
                }
            }
        }
        let entry = opcode::RecvMulti::new(Fixed(conn.slot), DISCARD_GROUP).flags(libc::MSG_TRUNC).build();
        self.start_receive(conn, Flags::DISCARDING, entry);
    }
}
