//! The ring of entries through which buffers are given to the kernel: memory that the driver writes while the
//! kernel reads it on other processors.
//!
//! The ring's tail lies inside entry 0 (`struct io_uring_buf_ring` in the kernel's io_uring.h): the kernel may load
//! it at any moment, also while entry 0 is filled. A reference to an entry claims all of its 16 bytes, so there is
//! none: every field is written through a raw pointer of its own, and the tail is only ever accessed as an atomic.
//! The tests play the kernel in another thread and find violations of that under Miri
//! (`cargo +nightly miri test -p ringyard-ring --lib entries`).
//!
//! Invariant: places from the kernel's head to `tail` belong to the kernel, all others to this side. The owner
//! keeps to it by never giving more buffers than there are places.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// `struct io_uring_buf` of the kernel.
#[repr(C)]
struct Entry {
    addr: u64,
    len: u32,
    id: u16,
    /// In entry 0 the tail of the ring, in every other one reserved.
    tail: u16,
}

const _: () = assert!(size_of::<Entry>() == 16 && std::mem::offset_of!(Entry, tail) == 14);

/// This side's end of the ring. Used by one thread.
pub(super) struct Entries {
    first: NonNull<Entry>,
    count: u16,
}

impl Entries {
    /// Size of one entry in bytes.
    pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

    /// A ring of `count` entries at `first`, a power of two.
    ///
    /// # Safety
    /// The memory holds `count` entries, all zero, is aligned to 8, stays in place as long as the ring is used, and
    /// is accessed by the kernel and this value only.
    pub(super) unsafe fn new(first: NonNull<u8>, count: u16) -> Self {
        assert!(count.is_power_of_two(), "{count} entries are no ring");
        Self { first: first.cast(), count }
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Where the kernel finds the ring. It may write to the reserved bytes, and reads everything else.
    pub(super) fn address(&self) -> u64 {
        self.first.as_ptr() as u64
    }

    /// Gives buffers to the kernel, each with its id, address and length in bytes. It may take them as soon as the
    /// last one is written. At most `count` are ever the kernel's.
    pub(super) fn give(&self, buffers: impl Iterator<Item = (u16, u64, u32)>) {
        let shared = self.tail();
        // Only this side stores to it.
        let mut tail = shared.load(Ordering::Relaxed);
        for (id, addr, len) in buffers {
            let place = usize::from(tail & (self.count - 1));
            // SAFETY: the place is inside the ring, as `new` was promised.
            let entry = unsafe { self.first.add(place) }.as_ptr();
            // SAFETY: the fields are inside the entry and aligned, and no reference to them exists. The place is not
            // the kernel's (see the file's head), so nobody reads these three fields before the tail is stored.
            // The tail's own bytes are left alone.
            unsafe {
                (&raw mut (*entry).addr).write(addr);
                (&raw mut (*entry).len).write(len);
                (&raw mut (*entry).id).write(id);
            }
            tail = tail.wrapping_add(1);
        }
        // What was written above is visible to a kernel that loads this value (it loads with acquire).
        shared.store(tail, Ordering::Release);
    }

    fn tail(&self) -> &AtomicU16 {
        // SAFETY: the two bytes are inside entry 0, aligned to 2 and initialised; they live as long as `self` is
        // used, and are accessed as an atomic only: here, and by the kernel.
        unsafe { AtomicU16::from_ptr(&raw mut (*self.first.as_ptr()).tail) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The kernel's end of a ring, as `io_ring_buffer_select` works: knows nothing but the address.
    pub(in crate::uring) struct Kernel {
        ring: usize,
        count: u16,
        head: u16,
    }

    impl Kernel {
        pub(in crate::uring) fn new(address: u64, count: u16) -> Self {
            Self { ring: address as usize, count, head: 0 }
        }

        /// The next buffer, if one was given: its id, address and length.
        pub(in crate::uring) fn take(&mut self) -> Option<(u16, u64, u32)> {
            let first: *mut Entry = std::ptr::with_exposed_provenance_mut(self.ring);
            // SAFETY: the ring under test lives as long as this end of it, and the tail is an atomic on both sides.
            let tail = unsafe { AtomicU16::from_ptr(&raw mut (*first).tail) };
            if tail.load(Ordering::Acquire) == self.head {
                return None;
            }
            let place = usize::from(self.head & (self.count - 1));
            // SAFETY: the place is inside the ring, and what the tail has passed is the kernel's to read.
            let taken = unsafe {
                let entry = first.add(place);
                ((&raw const (*entry).id).read(), (&raw const (*entry).addr).read(), (&raw const (*entry).len).read())
            };
            self.head = self.head.wrapping_add(1);
            Some(taken)
        }
    }

    /// Memory for a ring, freed after both ends are gone.
    pub(super) fn memory(count: u16) -> Box<[u64]> {
        vec![0u64; usize::from(count) * Entries::ENTRY_BYTES / size_of::<u64>()].into_boxed_slice()
    }

    /// The ends of a ring in two threads: what is taken is what was given, in order, through every place and over
    /// the wrap of the tail.
    fn taken_as_given(count: u16, buffers: u32) {
        let memory = NonNull::from(Box::leak(memory(count)));
        // SAFETY: the memory is leaked until both ends are gone, zeroed, and large enough.
        let entries = unsafe { Entries::new(memory.cast(), count) };
        let mut kernel = Kernel::new(entries.address(), count);
        let taken_so_far = std::sync::atomic::AtomicU32::new(0);
        let of = |n: u32| (n as u16, u64::from(n) << 20 | 7, n.wrapping_mul(3) + 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..buffers {
                    let taken = loop {
                        match kernel.take() {
                            Some(taken) => break taken,
                            None => std::thread::yield_now(),
                        }
                    };
                    assert_eq!(taken, of(n));
                    // The completion that names the buffer: its place is free again.
                    taken_so_far.store(n + 1, Ordering::Release);
                }
                assert_eq!(kernel.take(), None);
            });
            let mut given = 0;
            while given < buffers {
                let vacant = u32::from(count) - (given - taken_so_far.load(Ordering::Acquire));
                let now = vacant.min(buffers - given);
                if now == 0 {
                    std::thread::yield_now();
                }
                entries.give((given..given + now).map(of));
                given += now;
            }
        });
        // SAFETY: it came from a box, and both ends are gone.
        drop(unsafe { Box::from_raw(memory.as_ptr()) });
    }

    #[test]
    fn what_is_given_is_taken_in_order() {
        // Natively beyond the wrap of the tail at 65,536.
        let buffers = if cfg!(miri) { 60 } else { 150_000 };
        for count in [1, 2, 8] {
            taken_as_given(count, buffers);
        }
    }

    /// Entry 0 is filled while the tail, which lies in it, is being loaded.
    #[test]
    fn a_tail_that_wraps_goes_on_at_the_first_place() {
        let memory = NonNull::from(Box::leak(memory(2)));
        // SAFETY: as above.
        let entries = unsafe { Entries::new(memory.cast(), 2) };
        let mut kernel = Kernel::new(entries.address(), 2);
        entries.tail().store(u16::MAX, Ordering::Release);
        kernel.head = u16::MAX;
        entries.give([(1, 10, 100), (0, 20, 200)].into_iter());
        assert_eq!(kernel.take(), Some((1, 10, 100)));
        assert_eq!(kernel.take(), Some((0, 20, 200)));
        assert_eq!((kernel.take(), kernel.head), (None, 1));
        // SAFETY: it came from a box, and both ends are gone.
        drop(unsafe { Box::from_raw(memory.as_ptr()) });
    }

    #[test]
    fn entries_are_laid_out_as_the_kernels() {
        assert_eq!(Entries::ENTRY_BYTES, size_of::<io_uring::types::BufRingEntry>());
        assert_eq!(align_of::<Entry>(), align_of::<io_uring::types::BufRingEntry>());
    }
}
