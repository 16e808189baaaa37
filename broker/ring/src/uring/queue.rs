//! Queueing operations: each becomes one entry of the submission queue, and a full queue is handled here and
//! nowhere else.

use std::os::fd::AsRawFd;
use std::ptr;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use io_uring::{opcode, squeue};

use super::slots::Flags;
use super::tag::{self, Kind};
use super::{Accept, UringDriver};
use crate::{ACCEPTS_PER_TURN, AcceptEnd, ConnId};

impl UringDriver {
    /// Queues an operation of which exactly one final completion will come.
    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        self.outstanding += 1;
        self.push_uncounted(entry);
    }

    /// The one place where a full submission queue is handled.
    pub(super) fn push_uncounted(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every entry of this driver names only memory that stays in place until its final
            // completion (see the module's invariants).
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.counters.submission_full += 1;
            if !self.flush() {
                return;
            }
        }
    }

    /// Hands the queued operations over in the middle of a turn, and takes completions out of the kernel's
    /// way before they overflow. False if the ring is beyond use; the operation is lost then, and the next
    /// turn says so.
    pub(super) fn flush(&mut self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let queued = self.ring.submission().len() as u32;
        self.counters.enters += 1;
        let result = self.name.submit(queued);
        let completions = self.ring.completion();
        if result.is_err() || completions.len() > completions.capacity() / 2 {
            self.taken.extend(completions);
        }
        match result {
            Ok(_) => true,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => true,
                Some(libc::EAGAIN | libc::EBUSY) => {
                    self.counters.enters += 1;
                    self.name.submit_and_reap(0).is_ok()
                }
                code => {
                    self.broken = code;
                    false
                }
            },
        }
    }

    pub(super) fn cancel(&mut self, user_data: u64, tag: u64) {
        self.cancel_by(CancelBuilder::user_data(user_data), tag);
    }

    fn cancel_by(&mut self, which: CancelBuilder, tag: u64) {
        let entry = opcode::AsyncCancel2::new(which).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(tag);
        self.push_uncounted(&entry);
    }

    pub(super) fn cancel_receive(&mut self, conn: ConnId) {
        self.cancel(tag::of_conn(Kind::Receive, conn), tag::of_conn(Kind::CancelReceive, conn));
    }

    pub(super) fn cancel_send(&mut self, conn: ConnId) {
        self.cancel(tag::of_conn(Kind::Send, conn), tag::of_conn(Kind::CancelSend, conn));
    }

    /// While accepting is under way, has accepts in flight: at least one of each listener, and at most [`ACCEPTS_PER_TURN`]. (A
    /// multishot accept would take everybody who waits, up to [`BACKLOG`](crate::listen::BACKLOG), in one turn.)
    ///
    /// An accept that finds nobody costs more, because it has to be woken. So there are twice as many as before when all have
    /// found somebody, and few where some wait.
    pub(super) fn queue_accepts(&mut self) {
        if self.accept != Accept::Running {
            return;
        }
        if self.slots.is_full() {
            return self.end_accept(AcceptEnd::TableFull);
        }
        // One that finds no place would lose its peer.
        let room = ACCEPTS_PER_TURN.min(self.slots.capacity() - self.slots.used());
        let most = (room / self.listeners.iter().flatten().count() as u32).max(1);
        for which in 0..self.listeners.len() {
            let Some(listener) = &self.listeners[which] else { continue };
            let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), ptr::null_mut(), ptr::null_mut())
                .file_index(Some(DestinationSlot::auto_target()))
                .flags(libc::SOCK_NONBLOCK)
                .build()
                .user_data(tag::of_index(Kind::Accept, which as u32));
            let before = self.accepts_wanted[which];
            let wanted = if self.accepting[which] == 0 { before * 2 } else { before / 4 }.clamp(1, most);
            self.accepts_wanted[which] = wanted;
            while self.accepting[which] < wanted {
                self.accepting[which] += 1;
                self.push(&entry);
            }
        }
    }

    /// Cancels what is in flight of accepting from one listener.
    pub(super) fn cancel_accept_of(&mut self, which: usize) {
        if self.accepting[which] > 0 {
            let index = which as u32;
            let tag = tag::of_index(Kind::CancelAccept, index);
            self.cancel_by(CancelBuilder::user_data(tag::of_index(Kind::Accept, index)).all(), tag);
        }
    }

    pub(super) fn queue_shutdown(&mut self, conn: ConnId) {
        let slot = self.slots.at(conn.slot);
        slot.flags.remove(Flags::SHUTDOWN_WANTED);
        slot.flags.insert(Flags::SHUTTING);
        let entry = opcode::Shutdown::new(Fixed(conn.slot), libc::SHUT_WR)
            .build()
            .user_data(tag::of_conn(Kind::Shutdown, conn));
        self.push(&entry);
    }

    /// The last step of a close: once nothing of `conn` is in flight, its place is given up.
    pub(super) fn close_if_idle(&mut self, conn: ConnId) {
        let slot = self.slots.at(conn.slot);
        if !slot.flags.contains(Flags::CLOSING) || slot.flags.intersects(Flags::IN_FLIGHT | Flags::CLOSE_QUEUED) {
            return;
        }
        slot.flags.insert(Flags::CLOSE_QUEUED);
        let installed = slot.flags.contains(Flags::INSTALLED);
        if !self.features.prompt_close && !installed {
            // See `OptionalFeatures::prompt_close`. The close runs whatever becomes of the shutdown.
            let shutdown = opcode::Shutdown::new(Fixed(conn.slot), libc::SHUT_RDWR)
                .build()
                .flags(squeue::Flags::IO_HARDLINK)
                .user_data(tag::of_index(Kind::Ignored, 0));
            self.push(&shutdown);
        }
        let close = opcode::Close::new(Fixed(conn.slot)).build().user_data(tag::of_conn(Kind::Close, conn));
        self.push(&close);
    }

    pub(super) fn post_eventfd_read(&mut self) {
        if self.eventfd_read_posted {
            return;
        }
        self.eventfd_read_posted = true;
        let counter = self.eventfd_count.as_ptr();
        let entry = opcode::Read::new(Fd(self.eventfd.fd().as_raw_fd()), counter.cast(), 8)
            .build()
            .user_data(tag::of_index(Kind::EventFdRead, 0));
        self.push(&entry);
    }
}
