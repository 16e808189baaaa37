//! The receive buffers: one pinned region that the kernel takes from when bytes arrive (a provided-buffer
//! ring, `IORING_REGISTER_PBUF_RING`), so that an idle connection holds none.
//!
//! A buffer is at any time in exactly one of three hands: the kernel's (its id lies between the ring's
//! head and tail), a [`Buf`]'s (which alone may touch the bytes), or the free list's (dropped, and given
//! back to the kernel at the next turn). Receiving allocates nothing and copies nothing.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Received bytes, borrowed from the driver's pool until dropped. Keeps the pool's memory alive, so it may
/// outlive the driver.
pub struct Buf {
    pool: Rc<Pool>,
    id: u16,
    len: u32,
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: this `Buf` is the only hand that holds buffer `id` (see the file's head), its first `len`
        // bytes were written by the kernel, and `len` is at most the buffer's size (checked in `lend`).
        unsafe { std::slice::from_raw_parts(self.pool.buffer(self.id).as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.pool.buffer(self.id).as_ptr(), self.len as usize) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.pool.free.borrow_mut().push(self.id);
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

/// The region and the list of buffers that nobody holds.
///
/// Layout: `count` ring entries of 16 bytes, rounded up to a page, then `count` buffers.
pub(super) struct Pool {
    region: NonNull<u8>,
    region_bytes: usize,
    buffers_at: usize,
    count: u16,
    buffer_bytes: u32,
    free: RefCell<Vec<u16>>,
}

const PAGE_BYTES: usize = 4096;

impl Pool {
    /// `count` is a power of two up to 32,768. Every page is touched here, none later.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> io::Result<Rc<Self>> {
        let buffers_at = (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE_BYTES);
        let region_bytes = buffers_at + usize::from(count) * buffer_bytes as usize;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no other memory.
        let region = unsafe {
            libc::mmap(
                ptr::null_mut(),
                region_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if region == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let region = NonNull::new(region.cast()).expect("a mapping is never at address 0");
        let free = RefCell::new((0..count).collect());
        Ok(Rc::new(Self { region, region_bytes, buffers_at, count, buffer_bytes, free }))
    }

    /// Where the kernel finds the ring of entries. Page-aligned.
    pub(super) fn ring_address(&self) -> u64 {
        self.region.as_ptr() as u64
    }

    /// Makes the kernel's choice of buffer `id` the caller's.
    pub(super) fn lend(self: &Rc<Self>, id: u16, len: u32) -> Buf {
        assert!(id < self.count && len <= self.buffer_bytes, "the kernel named a buffer that is not ours");
        Buf { pool: Rc::clone(self), id, len }
    }

    /// Gives every dropped buffer back to the kernel.
    pub(super) fn give_back(&self) {
        let mut free = self.free.borrow_mut();
        if free.is_empty() {
            return;
        }
        let entries: *mut BufRingEntry = self.region.as_ptr().cast();
        // SAFETY: `entries` is the base of the ring of entries, zeroed at the start and aligned to a page.
        let tail_at = unsafe { BufRingEntry::tail(entries) }.cast_mut();
        // SAFETY: the tail is a u16 inside our region, aligned to 2; besides us only the kernel touches it.
        let tail_shared = unsafe { AtomicU16::from_ptr(tail_at) };
        let mut tail = tail_shared.load(Ordering::Relaxed);
        for id in free.drain(..) {
            // SAFETY: the place is inside the ring of `count` entries, and it is vacant: at most `count`
            // buffers exist, and this one is not among those between the ring's head and tail. The setters
            // leave the entry's last two bytes alone, which in entry 0 are the ring's tail.
            let entry = unsafe { &mut *entries.add(usize::from(tail & (self.count - 1))) };
            entry.set_addr(self.buffer(id).as_ptr() as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
            tail = tail.wrapping_add(1);
        }
        tail_shared.store(tail, Ordering::Release);
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        // SAFETY: `id < count`, so the offset is inside the region.
        unsafe { self.region.add(self.buffers_at + usize::from(id) * self.buffer_bytes as usize) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the last owner goes; no `Buf` is left (each holds an `Rc`), and the driver keeps its `Rc`
        // until its ring is closed and drained.
        unsafe { libc::munmap(self.region.as_ptr().cast(), self.region_bytes) };
    }
}
