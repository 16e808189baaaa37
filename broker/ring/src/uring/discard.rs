//! The buffers of a discard: a group of provided buffers that are all the same never-touched memory.
//!
//! With `MSG_TRUNC` TCP takes bytes off a socket without copying them anywhere (tcp(7)); the kernel wants a
//! buffer all the same, for its length is the most that one receive takes. So every buffer of the group is the
//! same megabyte of address space. Should something else than TCP write there after all, nobody reads it.
//!
//! Taking one message off each of 15,000 sockets costs, in nanoseconds of processor time per socket (Linux 6.18,
//! loopback):
//!
//! | bytes per message | 128 | 4,096 | 16,384 | 65,536 |
//! | --- | --- | --- | --- | --- |
//! | thrown away | 1,400 | 1,500 | 1,500 | 2,200 |
//! | received | 1,900 | 2,400 | 4,400 | 11,800 |
//!
//! Costs nothing until the first [`Dial::discard`](crate::Dial::discard), then 16 KiB of locked memory per ring:
//! within 8 MiB of it there is room for 68 rings with 512 submission entries each, or 113 with 256.

use std::io;

use io_uring::IoUring;

use super::group::Group;

/// Receives between two turns, before one finds no buffer and ends.
const BUFFERS: u16 = 1024;
/// The most that one receive takes.
const BUFFER_BYTES: u32 = 1 << 20;

pub(super) struct DiscardPool {
    group: Group,
    /// Used by the kernel, and not yet given back.
    spent: Vec<u16>,
}

impl DiscardPool {
    pub(super) fn new(ring: &IoUring, id: u16) -> io::Result<Self> {
        let group = Group::new(BUFFERS, BUFFER_BYTES as usize, false)?;
        group.register(ring, id)?;
        let mut pool = Self { group, spent: (0..BUFFERS).collect() };
        pool.give_back();
        Ok(pool)
    }

    /// The kernel is done with a buffer.
    pub(super) fn spend(&mut self, id: u16) {
        assert!(id < self.group.count(), "the kernel named a buffer that is not ours");
        self.spent.push(id);
    }

    pub(super) fn give_back(&mut self) {
        if !self.spent.is_empty() {
            self.group.give(self.spent.drain(..), |_| (0, BUFFER_BYTES));
        }
    }
}
