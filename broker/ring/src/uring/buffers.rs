//! The receive buffers: one group that the kernel takes from when bytes arrive, so that an idle connection
//! holds none.
//!
//! A buffer has at any time exactly one owner of three: the kernel (its id lies between the ring's head and
//! tail), a [`Buf`] (which alone may touch the bytes), or the free list (dropped, and given back to the kernel
//! at the next turn). Receiving allocates nothing and copies nothing.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use io_uring::IoUring;

use super::group::Group;

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
        // SAFETY: this `Buf` is the only owner of buffer `id` (see the file's head), its first `len`
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

/// The buffers, and the list of those that nobody holds.
pub(super) struct Pool {
    group: Group,
    buffer_bytes: u32,
    free: RefCell<Vec<u16>>,
}

impl Pool {
    /// `count` is a power of two up to 32,768. Every page is touched here, none later.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> io::Result<Rc<Self>> {
        let group = Group::new(count, usize::from(count) * buffer_bytes as usize, true)?;
        let free = RefCell::new((0..count).collect());
        Ok(Rc::new(Self { group, buffer_bytes, free }))
    }

    pub(super) fn register(&self, ring: &IoUring, id: u16) -> io::Result<()> {
        self.group.register(ring, id)
    }

    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Makes the kernel's choice of buffer `id` the caller's.
    pub(super) fn lend(self: &Rc<Self>, id: u16, len: u32) -> Buf {
        assert!(id < self.group.count() && len <= self.buffer_bytes, "the kernel named a buffer that is not ours");
        Buf { pool: Rc::clone(self), id, len }
    }

    /// Gives every dropped buffer back to the kernel.
    pub(super) fn give_back(&self) {
        let mut free = self.free.borrow_mut();
        if !free.is_empty() {
            self.group.give(free.drain(..), |id| (self.place(id), self.buffer_bytes));
        }
    }

    fn place(&self, id: u16) -> usize {
        usize::from(id) * self.buffer_bytes as usize
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        self.group.byte(self.place(id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::tests::Kernel;
    use super::*;

    /// The kernel writes to buffers that it holds while this side reads, changes and drops others.
    #[test]
    fn a_buffer_has_one_owner_at_a_time() {
        const BYTES: u32 = 16;
        let pool = Pool::new(4, BYTES).unwrap();
        pool.give_back();
        let mut kernel = Kernel::new(pool.group.address(), 4);
        let mut held = Vec::new();
        let mut received = 0u32;
        for round in 0..if cfg!(miri) { 30 } else { 3_000 } {
            while let Some((id, addr, len)) = kernel.take() {
                assert_eq!(len, BYTES);
                let at: *mut u8 = std::ptr::with_exposed_provenance_mut(addr as usize);
                // SAFETY: the buffer is the kernel's, whose part this test plays, and holds `len` bytes.
                unsafe { at.write_bytes(received as u8, len as usize) };
                let mut buf = pool.lend(id, 1 + received % BYTES);
                buf[0] ^= 0xff;
                held.push((buf, received as u8));
                received += 1;
            }
            for (buf, value) in &mut held {
                assert_eq!(buf[0], *value ^ 0xff);
                assert!(buf[1..].iter().all(|byte| *byte == *value));
            }
            // From either end, one to three at a time.
            for _ in 0..=round % 3 {
                let at = if round % 2 == 0 { 0 } else { held.len().saturating_sub(1) };
                if !held.is_empty() {
                    held.remove(at);
                }
            }
            pool.give_back();
        }
        assert!(received > 30);
        // The last one outlives the pool's owner.
        drop(pool);
        drop(held);
    }
}
