//! Completions turned into events. What belongs to a connection that is being closed is swallowed here, until
//! its last operation is over and the close itself can be queued.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::slots::Flags;
use super::tag::{self, Kind};
use super::{Accept, Buf, UringDriver};
use crate::{AcceptEnd, ConnId, Event, ReceiveEnd};

impl UringDriver {
    pub(super) fn complete(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event<Buf>>) {
        let user_data = entry.user_data();
        let kind = tag::kind(user_data);
        let index = tag::index(user_data);
        let more = cqueue::more(entry.flags());
        match kind {
            Kind::CancelAccept | Kind::CancelReceive | Kind::CancelSend => {
                return self.complete_cancel(kind, user_data);
            }
            _ if !more => self.outstanding -= 1,
            _ => {}
        }
        match kind {
            Kind::Accept => self.complete_accept(index as usize, entry.result(), events),
            Kind::Adopt => self.complete_adopt(index, entry.result(), events),
            Kind::DialSocket => self.complete_dial_socket(index, entry.result(), events),
            Kind::Connect => self.complete_connect(index, entry.result(), events),
            Kind::EventFdRead => self.eventfd_read_posted = false,
            Kind::Receive => self.complete_receive(entry, events),
            Kind::Send => self.complete_send(index, entry.result(), events),
            Kind::Shutdown => {
                let slot = self.slots.at(index);
                slot.flags.remove(Flags::SHUTTING);
                let conn = ConnId { slot: index, generation: slot.generation };
                self.close_if_idle(conn);
            }
            Kind::Install => self.complete_install(index, entry.result(), events),
            Kind::Peer => self.complete_peer(index, entry.result(), events),
            Kind::Unsent => self.complete_unsent(index, entry.result(), events),
            Kind::Close => {
                // A kernel may give the place to a new connection before it reports that the old one is
                // gone; `open` has vacated it then.
                let slot = self.slots.at(index);
                if slot.flags.contains(Flags::CLOSE_QUEUED) && tag::is_of_generation(user_data, slot.generation) {
                    self.vacate(index, events);
                }
            }
            Kind::Ignored | Kind::CancelAccept | Kind::CancelReceive | Kind::CancelSend => {}
        }
    }

    /// A cancellation that found nothing or came too early: what it was meant for is over, or is running
    /// right now and has to be asked again.
    pub(super) fn complete_cancel(&mut self, kind: Kind, user_data: u64) {
        if kind == Kind::CancelAccept {
            if matches!(self.accept, Accept::Ending(_)) {
                self.cancel_accept_of(tag::index(user_data) as usize);
            }
            return;
        }
        let slot = self.slots.at(tag::index(user_data));
        if !tag::is_of_generation(user_data, slot.generation) {
            return;
        }
        let conn = ConnId { slot: tag::index(user_data), generation: slot.generation };
        if kind == Kind::CancelReceive
            && slot.flags.contains(Flags::RECEIVING)
            && slot.flags.intersects(Flags::RECEIVE_STOPPING | Flags::CLOSING)
        {
            self.cancel_receive(conn);
        } else if kind == Kind::CancelSend
            && slot.flags.contains(Flags::SENDING)
            && slot.flags.intersects(Flags::CLOSING | Flags::PROGRESS_ASKED)
        {
            self.cancel_send(conn);
        }
    }

    fn complete_accept(&mut self, which: usize, result: i32, events: &mut Vec<Event<Buf>>) {
        self.accepting[which] -= 1;
        if result >= 0 {
            let conn = self.open(result as u32, events);
            events.push(Event::Accepted { conn, is_second: which == 1 });
            if self.slots.is_full() {
                self.end_accept(AcceptEnd::TableFull);
            }
            return;
        }
        match -result {
            // A peer that gave up while it waited, or an accept that was interrupted: the next turn queues another one.
            libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO => {}
            libc::ENFILE | libc::EMFILE | libc::ENOMEM | libc::ENOBUFS => self.end_accept(AcceptEnd::TableFull),
            errno => self.end_accept(AcceptEnd::Failed(errno)),
        }
    }

    /// Ends accepting from all listeners, if it is under way.
    pub(super) fn end_accept(&mut self, end: AcceptEnd) {
        if self.accept == Accept::Running {
            self.accept = Accept::Ending(end);
            for which in 0..self.accepting.len() {
                self.cancel_accept_of(which);
            }
        }
    }

    /// The report that accepting has ended, once nothing of it is in flight.
    pub(super) fn accept_ended(&mut self) -> Option<Event<Buf>> {
        let Accept::Ending(end) = self.accept else { return None };
        if self.accepting != [0; 2] {
            return None;
        }
        self.accept = Accept::Idle;
        Some(Event::AcceptEnded { end })
    }

    /// A new connection in a place of the kernel's choice.
    pub(super) fn open(&mut self, slot: u32, events: &mut Vec<Event<Buf>>) -> ConnId {
        if self.slots.at(slot).flags.contains(Flags::CLOSE_QUEUED) {
            self.vacate(slot, events);
        }
        self.slots.open(slot)
    }

    pub(super) fn complete_adopt(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let adoption = self.adoptions.take(index);
        let result = match result {
            1 => Ok(self.open(adoption.place.get() as u32, events)),
            0 => Err(libc::ENFILE),
            errno => Err(-errno),
        };
        events.push(Event::Adopted { token: adoption.token, result });
    }

    pub(super) fn complete_receive(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event<Buf>>) {
        let index = tag::index(entry.user_data());
        let result = entry.result();
        let more = cqueue::more(entry.flags());
        let slot = self.slots.at(index);
        let conn = ConnId { slot: index, generation: slot.generation };
        let closing = slot.flags.contains(Flags::CLOSING);
        let expected = slot.flags.intersects(Flags::RECEIVE_STOPPING | Flags::RECEIVING_ONCE);
        let bytes = result.max(0) as u32;
        if let Some(id) = cqueue::buffer_select(entry.flags()) {
            if slot.flags.contains(Flags::DISCARDING) {
                self.discard_pool.as_mut().expect("made before the first discard").spend(id);
                if bytes > 0 && !closing {
                    events.push(Event::Discarded { conn, bytes });
                }
            } else {
                let buf = self.pool.lend(id, bytes);
                if bytes > 0 && !closing {
                    events.push(Event::Received { conn, buf });
                }
            }
        }
        if more {
            return;
        }
        slot.flags.remove(Flags::RECEIVING | Flags::RECEIVE_STOPPING | Flags::RECEIVING_ONCE | Flags::DISCARDING);
        if closing {
            return self.close_if_idle(conn);
        }
        let end = match -result {
            0 => ReceiveEnd::EndOfStream,
            libc::ENOBUFS => {
                self.counters.no_buffers += 1;
                ReceiveEnd::NoBuffers
            }
            errno if errno < 0 || matches!(errno, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                self.counters.multishots_ended += u64::from(!expected);
                ReceiveEnd::Stopped
            }
            errno => ReceiveEnd::Failed(errno),
        };
        events.push(Event::ReceiveEnded { conn, end });
    }

    pub(super) fn complete_send(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(index);
        let asked = slot.flags.contains(Flags::PROGRESS_ASKED);
        slot.flags.remove(Flags::SENDING | Flags::PROGRESS_ASKED);
        let conn = ConnId { slot: index, generation: slot.generation };
        let (closing, shutdown) = (slot.flags.contains(Flags::CLOSING), slot.flags.contains(Flags::SHUTDOWN_WANTED));
        let send = self.sends.take(slot.operation);
        if closing {
            return self.close_if_idle(conn);
        }
        if shutdown {
            self.queue_shutdown(conn);
        }
        let result = match result {
            1.. => Ok(result as usize),
            // Cancelled, or interrupted by the cancellation, before the kernel took a byte: one that was cancelled
            // after that completes with the number of bytes.
            _ if asked && matches!(-result, libc::ECANCELED | libc::EINTR) => Ok(0),
            _ => Err(-result),
        };
        events.push(Event::Sent { conn, gather: send.gather, from: send.from, result });
    }

    pub(super) fn complete_install(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let result = if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            Ok(unsafe { OwnedFd::from_raw_fd(result) })
        } else {
            Err(io::Error::from_raw_os_error(-result))
        };
        let slot = self.slots.at(index);
        slot.flags.remove(Flags::INSTALLING);
        if result.is_ok() {
            slot.flags.insert(Flags::INSTALLED);
        }
        let conn = ConnId { slot: index, generation: slot.generation };
        if slot.flags.contains(Flags::CLOSING) {
            return self.close_if_idle(conn);
        }
        events.push(Event::Installed { conn, result });
    }
}
