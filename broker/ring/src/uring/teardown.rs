//! Dropping a driver: nothing that the kernel may still touch is freed.

use std::mem;
use std::rc::Rc;

use io_uring::types::CancelBuilder;
use io_uring::{opcode, squeue};

use super::slab::Slab;
use super::tag::{self, Kind};
use super::{Accept, UringDriver};
use crate::{ConnId, Driver, Event, Nanos, clock};

impl Drop for UringDriver {
    /// Closes every connection, then cancels what else there is, and waits for the final completions as long as
    /// any come: two hundred rounds without one, about two seconds, are the end. If the kernel still holds on after
    /// that, what it may touch is leaked.
    fn drop(&mut self) {
        const IDLE_ROUNDS_MAX: u32 = 200;
        /// Connections that are not closed by then are cancelled with all the rest.
        const PATIENT_ROUNDS: u32 = 20;
        const ROUND_NS: Nanos = 10_000_000;
        self.accept_stop();
        // One by one: to cancel whatever there is, the kernel walks all that is armed for each one that it finds.
        for slot in 0..self.slots.capacity() {
            let conn = ConnId { slot, generation: self.slots.at(slot).generation };
            if self.slots.live(conn).is_some() {
                self.close(conn);
            }
        }
        let mut events = Vec::new();
        let mut idle_rounds = 0;
        while self.outstanding > 0 && self.broken.is_none() && idle_rounds < IDLE_ROUNDS_MAX {
            // The read of the eventfd ends here for good, so it counts as posted.
            self.eventfd_read_posted = true;
            if self.slots.used() == 0 || idle_rounds >= PATIENT_ROUNDS {
                let cancel = opcode::AsyncCancel2::new(CancelBuilder::any())
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data(tag::of_index(Kind::CancelAccept, 0));
                self.push_uncounted(&cancel);
                self.accept = Accept::Idle;
            }
            if self.enter(Some(clock::monotonic() + ROUND_NS)).is_err() {
                break;
            }
            let mut batch = mem::take(&mut self.taken);
            batch.extend(self.ring.completion());
            let before = (self.outstanding, self.slots.used());
            for entry in &batch {
                self.complete(entry, &mut events);
            }
            for event in events.drain(..) {
                if let Event::Accepted { conn, .. }
                | Event::Adopted { result: Ok(conn), .. }
                | Event::Dialled { result: Ok(conn), .. } = event
                {
                    self.close(conn);
                }
            }
            idle_rounds = if (self.outstanding, self.slots.used()) == before { idle_rounds + 1 } else { 0 };
        }
        if self.outstanding > 0 {
            mem::forget(mem::replace(&mut self.sends, Slab::new()));
            mem::forget(mem::replace(&mut self.adoptions, Slab::new()));
            mem::forget(mem::replace(&mut self.dials, Slab::new()));
            mem::forget(mem::replace(&mut self.queries, Slab::new()));
            mem::forget(self.discard_pool.take());
            mem::forget(Rc::clone(&self.eventfd_count));
            mem::forget(Rc::clone(&self.pool));
        }
        // Closes the connections now, rather than when the kernel gets to the ring's remains.
        let _ = self.ring.submitter().unregister_files();
    }
}
