//! The receive buffers of a simulated driver: ordinary memory, but counted, so that they run out.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Received bytes. Counts against the driver's buffers until dropped.
pub struct Buf {
    bytes: Vec<u8>,
    lent: Rc<Cell<u32>>,
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.lent.set(self.lent.get() - 1);
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({} bytes)", self.bytes.len())
    }
}

/// The buffers that a host lends out.
pub(super) struct Buffers {
    pub(super) count_max: u32,
    pub(super) bytes_max: usize,
    pub(super) lent: Rc<Cell<u32>>,
}

impl Buffers {
    pub(super) fn is_empty(&self) -> bool {
        self.lent.get() == self.count_max
    }

    pub(super) fn lend(&self, bytes: Vec<u8>) -> Buf {
        self.lent.set(self.lent.get() + 1);
        Buf { bytes, lent: Rc::clone(&self.lent) }
    }
}
