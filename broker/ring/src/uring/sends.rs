//! The sends in flight: what the kernel may be reading right now.
//!
//! Entries are reused, so a send allocates nothing once the table has grown to the most sends that were
//! ever in flight at once. The table itself may move; what the kernel reads (payloads, message heads)
//! lies behind the entries' pointers and does not.

use crate::Gather;
use crate::gather::Message;

/// One send in flight.
pub(super) struct InFlight {
    pub(super) gather: Gather,
    pub(super) from: usize,
    /// The ranges of a send that starts inside the gather; read by the kernel only.
    pub(super) _trimmed: Option<Box<Message>>,
}

enum Entry {
    Used(InFlight),
    Free { next: u32 },
}

const NONE: u32 = u32::MAX;

pub(super) struct Sends {
    entries: Vec<Entry>,
    free: u32,
}

impl Sends {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), free: NONE }
    }

    pub(super) fn put(&mut self, send: InFlight) -> u32 {
        let index = self.free;
        if index == NONE {
            self.entries.push(Entry::Used(send));
            return (self.entries.len() - 1) as u32;
        }
        match std::mem::replace(&mut self.entries[index as usize], Entry::Used(send)) {
            Entry::Free { next } => self.free = next,
            Entry::Used(_) => unreachable!("the free list named a send in flight"),
        }
        index
    }

    pub(super) fn take(&mut self, index: u32) -> InFlight {
        match std::mem::replace(&mut self.entries[index as usize], Entry::Free { next: self.free }) {
            Entry::Used(send) => {
                self.free = index;
                send
            }
            Entry::Free { .. } => unreachable!("a send completed twice"),
        }
    }
}
