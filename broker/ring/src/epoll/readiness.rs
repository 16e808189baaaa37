//! What the sockets are ready for: edges are noted, peers accepted, bytes received, blocked sends taken up again.

use std::os::fd::AsFd;

use super::slots::Flags;
use super::{Accept, Buf, EpollDriver, calls};
use crate::{ACCEPTS_PER_TURN, AcceptEnd, ConnId, Event, ReceiveEnd};

/// Bytes thrown away by one call at most.
const DISCARD_BYTES: usize = 64 << 10;

const TO_RECEIVE: i32 = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI;
const TO_SEND: i32 = libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR;
/// Behind bytes that fill no buffer there may be more, and no further edge tells of it: the end of the stream,
/// an error, bytes behind an urgent mark.
const TO_DRAIN: i32 = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI;

impl EpollDriver {
    /// An edge of a connection.
    pub(super) fn note(&mut self, conn: ConnId, ready: i32, events: &mut Vec<Event<Buf>>) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags.contains(Flags::DIALLING) && (ready & TO_SEND == 0 || !self.end_dial(conn, events)) {
            return;
        }
        let slot = self.slots.at(conn.slot);
        if ready & TO_RECEIVE != 0 {
            slot.flags.insert(Flags::READABLE);
            if ready & TO_DRAIN != 0 {
                slot.flags.insert(Flags::DRAIN);
            }
            if slot.flags.contains(Flags::RECEIVING) && !slot.flags.contains(Flags::LISTED) {
                slot.flags.insert(Flags::LISTED);
                self.readable.push_back(conn);
            }
        }
        if ready & TO_SEND != 0 && slot.flags.contains(Flags::BLOCKED) {
            slot.flags.remove(Flags::BLOCKED);
            self.send_on(conn, events);
        }
    }

    pub(super) fn accept_some(&mut self, events: &mut Vec<Event<Buf>>) {
        let end = match self.accept {
            Accept::Idle => return,
            Accept::Stopping => Some(AcceptEnd::Stopped),
            Accept::Running => self.accept_up_to(ACCEPTS_PER_TURN, events),
        };
        if let Some(end) = end {
            self.accept = Accept::Idle;
            events.push(Event::AcceptEnded { end });
        }
    }

    /// Says why accepting has ended, if it has.
    fn accept_up_to(&mut self, most: u32, events: &mut Vec<Event<Buf>>) -> Option<AcceptEnd> {
        for round in 0..most as usize {
            if self.slots.is_full() {
                return Some(AcceptEnd::TableFull);
            }
            // In turn, so that a crowd at one listener keeps nobody out at the other.
            let which = [round % 2, (round + 1) % 2].into_iter().find(|&which| self.acceptable[which])?;
            let listener = self.listeners[which].as_ref().expect("only a listener has peers waiting");
            self.counters.enters += 1;
            match calls::accept(listener.as_fd()).and_then(|socket| self.open(socket, Flags::empty())) {
                Ok(conn) => events.push(Event::Accepted { conn, is_second: which == 1 }),
                Err(libc::EAGAIN) => self.acceptable[which] = false,
                // A peer that gave up while it waited, and errors of its network (accept(2)): on to the next.
                Err(
                    libc::EINTR
                    | libc::ECONNABORTED
                    | libc::EPROTO
                    | libc::ENETDOWN
                    | libc::ENOPROTOOPT
                    | libc::EHOSTDOWN
                    | libc::ENONET
                    | libc::EHOSTUNREACH
                    | libc::EOPNOTSUPP
                    | libc::ENETUNREACH,
                ) => {}
                // The last one: epoll's own limit (`fs.epoll.max_user_watches`).
                Err(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::ENOSPC) => {
                    return Some(AcceptEnd::TableFull);
                }
                Err(errno) => return Some(AcceptEnd::Failed(errno)),
            }
        }
        self.slots.is_full().then_some(AcceptEnd::TableFull)
    }

    /// Receives from every listed connection, up to its share.
    pub(super) fn receive_some(&mut self, events: &mut Vec<Event<Buf>>) {
        self.readable.extend(self.again.drain(..));
        for _ in 0..self.readable.len() {
            let conn = self.readable.pop_front().expect("counted above");
            let Some(slot) = self.slots.held(conn) else {
                continue;
            };
            slot.flags.remove(Flags::LISTED);
            if slot.flags.contains(Flags::RECEIVING) && !slot.flags.contains(Flags::CLOSING) {
                self.receive_from(conn, events);
            }
        }
    }

    fn receive_from(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) {
        for _ in 0..self.share {
            self.counters.enters += 1;
            let slot = self.slots.at(conn.slot);
            let (received, most, event) = if slot.flags.contains(Flags::DISCARDING) {
                let discarded = calls::discard(slot.socket(), DISCARD_BYTES);
                let bytes = discarded.unwrap_or(0) as u32;
                (discarded, DISCARD_BYTES, Event::Discarded { conn, bytes })
            } else {
                let Some(mut buf) = self.pool.lend() else {
                    self.counters.no_buffers += 1;
                    return self.end_receive(conn, ReceiveEnd::NoBuffers, events);
                };
                let room = buf.room();
                let most = room.len();
                let received = calls::receive(slot.socket(), room);
                buf.fill(received.unwrap_or(0));
                (received, most, Event::Received { conn, buf })
            };
            match received {
                // The next receive is to find the same.
                Ok(0) => return self.end_receive(conn, ReceiveEnd::EndOfStream, events),
                Ok(len) => {
                    events.push(event);
                    // What arrives from now on is an edge of its own.
                    let used_up = len < most && !slot.flags.contains(Flags::DRAIN);
                    if used_up {
                        slot.flags.remove(Flags::READABLE);
                    }
                    if slot.flags.contains(Flags::ONCE) {
                        return self.end_receive(conn, ReceiveEnd::Stopped, events);
                    }
                    if used_up {
                        return;
                    }
                }
                Err(libc::EAGAIN) => return slot.flags.remove(Flags::READABLE | Flags::DRAIN),
                Err(libc::EINTR) => {}
                Err(errno) => return self.end_receive(conn, ReceiveEnd::Failed(errno), events),
            }
        }
        self.slots.at(conn.slot).flags.insert(Flags::LISTED);
        self.again.push(conn);
    }
}
