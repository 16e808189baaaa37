//! The end of a driver: nothing that the kernel may still touch is freed.

use std::mem;
use std::rc::Rc;

use io_uring::types::CancelBuilder;
use io_uring::{opcode, squeue};

use super::slab::Slab;
use super::tag::{self, Kind};
use super::{Accept, UringDriver};
use crate::{Nanos, clock};

impl Drop for UringDriver {
    /// Cancels everything and waits for the final completions: about two seconds at most, in practice one
    /// system call. If the kernel still holds on after that, what it may touch is leaked.
    fn drop(&mut self) {
        const ROUNDS_MAX: u32 = 200;
        const ROUND_NS: Nanos = 10_000_000;
        let mut events = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if self.outstanding == 0 || self.broken.is_some() {
                break;
            }
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(tag::of_index(Kind::CancelAccept, 0));
            self.push_uncounted(&cancel);
            self.accept = Accept::Idle;
            // The bell's read ends here for good, so it counts as posted.
            self.bell_posted = true;
            if self.enter(Some(clock::monotonic() + ROUND_NS)).is_err() {
                break;
            }
            let mut batch = mem::take(&mut self.taken);
            batch.extend(self.ring.completion());
            for entry in &batch {
                self.complete(entry, &mut events);
            }
            events.clear();
        }
        if self.outstanding > 0 {
            mem::forget(mem::replace(&mut self.sends, Slab::new()));
            mem::forget(mem::replace(&mut self.adoptions, Slab::new()));
            mem::forget(mem::replace(&mut self.dials, Slab::new()));
            mem::forget(self.sink.take());
            mem::forget(mem::take(&mut self.bell_count));
            mem::forget(Rc::clone(&self.pool));
        }
        // Closes the connections now, rather than when the kernel gets to the ring's remains.
        let _ = self.ring.submitter().unregister_files();
    }
}
