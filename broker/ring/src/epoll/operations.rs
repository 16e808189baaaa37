//! What was called for since the last turn is carried out here, in order. Each operation is over at once, but
//! for a send that finds its socket full: that goes on in `readiness`.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use super::dials::Attempt;
use super::poll::Registered;
use super::slots::Flags;
use super::{Buf, EpollDriver, calls};
use crate::uring::WAIT_ALL_BYTES_MAX;
use crate::{AcceptEnd, ConnId, Event, Gather, ReceiveEnd};

/// Something to be done in the next turn. Connections lived when it was called for.
pub(super) enum Operation {
    TellAcceptEnd(AcceptEnd),
    Adopt {
        socket: OwnedFd,
        token: u64,
    },
    /// Boxed: addresses are long, and dials are not many.
    Dial(Box<Attempt>),
    ReceiveStop(ConnId),
    Send(ConnId),
    SendProgress(ConnId),
    Unsent(ConnId),
    Shutdown(ConnId),
    Install {
        conn: ConnId,
        /// A receive or a send was under way.
        busy: bool,
    },
    Peer(ConnId),
    Close(ConnId),
}

/// A send that is not over.
pub(super) struct InFlight {
    pub(super) gather: Gather,
    pub(super) from: usize,
    /// Bytes that the kernel took so far.
    pub(super) done: usize,
}

impl EpollDriver {
    pub(super) fn carry_out(&mut self, events: &mut Vec<Event<Buf>>) {
        let mut operations = std::mem::take(&mut self.operations);
        for operation in operations.drain(..) {
            match operation {
                Operation::TellAcceptEnd(end) => events.push(Event::AcceptEnded { end }),
                Operation::Adopt { socket, token } => {
                    let result = self.take_over(socket);
                    events.push(Event::Adopted { token, result });
                }
                Operation::Dial(attempt) => self.carry_out_dial(&attempt, events),
                Operation::ReceiveStop(conn) => self.stop_receive(conn, events),
                // Even when a close is queued behind it: the kernel takes what there is room for.
                Operation::Send(conn) => self.send_on(conn, events),
                Operation::SendProgress(conn) => self.carry_out_progress(conn, events),
                Operation::Unsent(conn) => self.carry_out_unsent(conn, events),
                Operation::Shutdown(conn) => calls::shut_down(self.slots.at(conn.slot).socket()),
                Operation::Install { conn, busy } => self.carry_out_install(conn, busy, events),
                Operation::Peer(conn) => self.carry_out_peer(conn, events),
                Operation::Close(conn) => self.carry_out_close(conn, events),
            }
        }
        self.operations = operations;
    }

    fn take_over(&mut self, socket: OwnedFd) -> Result<ConnId, i32> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EINVAL);
        let socket = TcpStream::from(socket);
        socket.set_nonblocking(true).map_err(errno)?;
        self.open(socket.into(), Flags::SHARED)
    }

    /// Gives a socket its place. On failure it is closed.
    pub(super) fn open(&mut self, socket: OwnedFd, flags: Flags) -> Result<ConnId, i32> {
        if self.slots.is_full() {
            return Err(libc::ENFILE);
        }
        let conn = self.slots.open(socket);
        let slot = self.slots.at(conn.slot);
        slot.flags.insert(flags);
        self.counters.enters += 1;
        if let Err(errno) = self.poll.add(slot.socket(), Registered::Conn(conn)) {
            self.slots.vacate(conn);
            return Err(errno);
        }
        Ok(conn)
    }

    fn stop_receive(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        if slot.flags.contains(Flags::RECEIVING) && !slot.flags.contains(Flags::CLOSING) {
            self.end_receive(conn, ReceiveEnd::Stopped, events);
        }
    }

    pub(super) fn end_receive(&mut self, conn: ConnId, end: ReceiveEnd, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        slot.flags.remove(Flags::RECEIVING | Flags::RECEIVE_STOPPING | Flags::ONCE | Flags::DISCARDING);
        events.push(Event::ReceiveEnded { conn, end });
    }

    /// Sends until the gather is over or the socket full. `conn` has a send in flight.
    pub(super) fn send_on(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        let send = self.sends.at(slot.link);
        let result = loop {
            self.counters.enters += 1;
            let rest = send.from + send.done;
            match calls::send(slot.socket(), &send.gather.tail(rest)) {
                Ok(sent) => {
                    send.done += sent;
                    let whole = send.gather.len() - send.from;
                    if send.done == whole || whole > WAIT_ALL_BYTES_MAX {
                        break Ok(send.done);
                    }
                }
                Err(libc::EINTR) => {}
                Err(libc::EAGAIN) => return slot.flags.insert(Flags::BLOCKED),
                Err(_) if send.done > 0 => break Ok(send.done),
                Err(errno) => break Err(errno),
            }
        };
        self.end_send(conn, result, events);
    }

    /// The send in flight is over, with `result`.
    fn end_send(&mut self, conn: ConnId, result: Result<usize, i32>, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        slot.flags.remove(Flags::SENDING | Flags::BLOCKED);
        let InFlight { gather, from, .. } = self.sends.take(slot.link);
        if slot.flags.contains(Flags::SHUTDOWN_WANTED) {
            slot.flags.remove(Flags::SHUTDOWN_WANTED);
            calls::shut_down(slot.socket());
        }
        if !slot.flags.contains(Flags::CLOSING) {
            events.push(Event::Sent { conn, gather, from, result });
        }
    }

    /// Ends the send in flight where it has got to, unless it is over. It is tried once more before that: since it
    /// was blocked, there may be room that epoll has not reported.
    fn carry_out_progress(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        if !slot.flags.contains(Flags::SENDING) || slot.flags.contains(Flags::CLOSING) {
            return;
        }
        self.send_on(conn, events);
        let slot = self.slots.at(conn.slot);
        if slot.flags.contains(Flags::SENDING) {
            let done = self.sends.at(slot.link).done;
            self.end_send(conn, Ok(done), events);
        }
    }

    fn carry_out_unsent(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        slot.flags.remove(Flags::UNSENT_ASKED);
        if slot.flags.contains(Flags::CLOSING) {
            return;
        }
        self.counters.enters += 1;
        let result = calls::unsent(slot.socket());
        events.push(Event::Unsent { conn, result });
    }

    fn carry_out_install(&mut self, conn: ConnId, busy: bool, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        if slot.flags.contains(Flags::CLOSING) {
            return;
        }
        let result = if busy {
            Err(io::Error::from_raw_os_error(libc::EBUSY))
        } else {
            slot.flags.insert(Flags::SHARED);
            self.counters.enters += 1;
            slot.socket().try_clone_to_owned()
        };
        events.push(Event::Installed { conn, result });
    }

    fn carry_out_peer(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        slot.flags.remove(Flags::ASKING);
        if slot.flags.contains(Flags::CLOSING) {
            return;
        }
        self.counters.enters += 1;
        let result = calls::peer(slot.socket());
        events.push(Event::Peer { conn, result });
    }

    /// Nothing is in flight in the kernel, so the join is complete at once.
    fn carry_out_close(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(conn.slot);
        if slot.flags.contains(Flags::SENDING) {
            slot.flags.remove(Flags::SENDING);
            drop(self.sends.take(slot.link));
        }
        if slot.flags.contains(Flags::SHARED) {
            // The registration is the socket's, not the descriptor's, and would live on with it.
            self.counters.enters += 1;
            let removed = self.poll.remove(slot.socket());
            debug_assert_eq!(removed, Ok(()), "it was registered");
        }
        self.counters.enters += 1;
        self.slots.vacate(conn);
        events.push(Event::Closed { conn });
    }
}

const _: () = assert!(size_of::<Operation>() <= 16, "operations are queued by the thousand");
