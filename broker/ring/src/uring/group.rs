//! A group of provided buffers (`IORING_REGISTER_PBUF_RING`): one region, whose start is the ring of entries
//! that the kernel takes from ([`entries`](super::entries)). Who holds which buffer is the owner's affair
//! ([`buffers`](super::buffers), [`discard`](super::discard)); this file knows where the bytes are.
//!
//! Only the ring of entries is pinned and counts as locked memory (`RLIMIT_MEMLOCK`): 16 bytes per buffer.

use std::io;
use std::ptr::{self, NonNull};

use io_uring::IoUring;

use super::entries::Entries;

/// Layout: `count` entries of 16 bytes, rounded up to a page, then `bytes` for the buffers.
pub(super) struct Group {
    region: NonNull<u8>,
    region_bytes: usize,
    bytes_at: usize,
    /// At the start of the region. No pointer to the buffers reaches into it.
    entries: Entries,
}

const PAGE_BYTES: usize = 4096;

impl Group {
    /// `count` is a power of two up to 32,768. With `touch` every page is touched here, without it only those
    /// that are written to ever cost memory.
    pub(super) fn new(count: u16, bytes: usize, touch: bool) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers are no group");
        let bytes_at = (usize::from(count) * Entries::ENTRY_BYTES).next_multiple_of(PAGE_BYTES);
        let region_bytes = bytes_at + bytes;
        // Miri knows neither flag; both are about when memory is taken.
        let how = match touch {
            _ if cfg!(miri) => 0,
            true => libc::MAP_POPULATE,
            false => libc::MAP_NORESERVE,
        };
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no other memory.
        let region = unsafe {
            libc::mmap(
                ptr::null_mut(),
                region_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | how,
                -1,
                0,
            )
        };
        if region == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let region = NonNull::new(region.cast()).expect("a mapping is never at address 0");
        // SAFETY: a new mapping is zeroed and aligned to a page, and begins with room for `count` entries; it is
        // unmapped by `drop` only, and nothing else of this file touches what lies before `bytes_at`.
        let entries = unsafe { Entries::new(region, count) };
        Ok(Self { region, region_bytes, bytes_at, entries })
    }

    /// Makes the group known to `ring`. The owner of both keeps the group until the ring is drained and closed.
    pub(super) fn register(&self, ring: &IoUring, id: u16) -> io::Result<()> {
        // SAFETY: the region starts with room for `count` entries, is aligned to a page, and outlives the ring:
        // the driver keeps its groups until the ring is drained and closed, or leaks them.
        unsafe { ring.submitter().register_buf_ring_with_flags(self.entries.address(), self.count(), id, 0) }
    }

    /// Where the kernel finds the ring of entries.
    #[cfg(test)]
    pub(super) fn address(&self) -> u64 {
        self.entries.address()
    }

    /// How many buffers there may be.
    pub(super) fn count(&self) -> u16 {
        self.entries.count()
    }

    /// Where byte `at` of the buffers is.
    pub(super) fn byte(&self, at: usize) -> NonNull<u8> {
        assert!(self.bytes_at + at < self.region_bytes, "outside the group");
        // SAFETY: the offset is inside the region, as just checked.
        unsafe { self.region.add(self.bytes_at + at) }
    }

    /// Gives buffers to the kernel: `place` says where each one starts and how long it is. The caller holds
    /// none of them any more, and no two callers of the same id: at most `count` are ever the kernel's.
    pub(super) fn give(&self, ids: impl Iterator<Item = u16>, place: impl Fn(u16) -> (usize, u32)) {
        self.entries.give(ids.map(|id| {
            let (at, len) = place(id);
            assert!(len > 0, "an empty buffer");
            let (first, _last) = (self.byte(at), self.byte(at + len as usize - 1));
            (id, first.as_ptr() as u64, len)
        }));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the last owner goes: nobody holds a buffer, and the driver keeps its groups until its ring is
        // closed and drained.
        unsafe { libc::munmap(self.region.as_ptr().cast(), self.region_bytes) };
    }
}
