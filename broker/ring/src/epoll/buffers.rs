//! The receive buffers: a bounded pool, made as they are first needed, so that an idle connection holds none
//! and an idle driver hardly any.
//!
//! A buffer belongs to the pool or to exactly one [`Buf`]; dropping that gives it back.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Received bytes, borrowed from the driver's pool until dropped. May outlive the driver.
pub struct Buf {
    pool: Rc<Pool>,
    /// Of the pool's size; taken out when dropped.
    bytes: Box<[u8]>,
    len: u32,
}

impl Buf {
    /// Where the kernel may write.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// So many bytes were received.
    pub(super) fn fill(&mut self, len: usize) {
        assert!(len <= self.bytes.len(), "the kernel wrote no more than there was room for");
        self.len = len as u32;
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len as usize]
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.pool.free.borrow_mut().push(std::mem::take(&mut self.bytes));
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

pub(super) struct Pool {
    buffer_bytes: u32,
    /// The buffers that were made and nobody holds; the one used last is lent first.
    free: RefCell<Vec<Box<[u8]>>>,
    /// How many more may be made.
    unmade: std::cell::Cell<u16>,
}

impl Pool {
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Rc<Self> {
        Rc::new(Self { buffer_bytes, free: RefCell::default(), unmade: std::cell::Cell::new(count) })
    }

    /// A buffer without bytes, unless all are lent.
    pub(super) fn lend(self: &Rc<Self>) -> Option<Buf> {
        let free = self.free.borrow_mut().pop();
        let bytes = free.or_else(|| {
            self.unmade.set(self.unmade.get().checked_sub(1)?);
            Some(vec![0; self.buffer_bytes as usize].into_boxed_slice())
        })?;
        Some(Buf { pool: Rc::clone(self), bytes, len: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_once_and_comes_back() {
        let pool = Pool::new(2, 16);
        let mut first = pool.lend().expect("two are free");
        let second = pool.lend().expect("one is free");
        assert!(pool.lend().is_none());
        first.room()[..3].copy_from_slice(b"abc");
        first.fill(3);
        assert_eq!(&*first, b"abc");
        drop(second);
        let third = pool.lend().expect("it came back");
        assert!(third.is_empty() && pool.lend().is_none());
        drop(pool);
        assert_eq!(&*first, b"abc");
    }
}
