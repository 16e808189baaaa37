//! A buffer whose bytes are charged to the budget for as long as it keeps them.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::capacity::shared_bytes::shared;

/// Bytes that are gathered for a while, charged as long as they are kept. Empty, it holds no memory.
#[derive(Debug)]
pub struct Buffer {
    bytes: BytesMut,
    charge: Charge,
}

impl Buffer {
    /// An empty one.
    #[must_use]
    pub fn new(account: &Arc<Account>, held: Held) -> Self {
        Self { bytes: BytesMut::new(), charge: Charge::new(account, held, 0) }
    }

    /// Adds `bytes` at the end.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.edit(|held| held.extend_from_slice(bytes));
    }

    /// Makes room for `bytes` in all, exactly; what is kept is moved.
    pub fn grow_to(&mut self, bytes: usize) {
        if bytes > self.bytes.capacity() {
            let mut grown = BytesMut::with_capacity(bytes);
            grown.extend_from_slice(&self.bytes);
            self.bytes = grown;
            self.charge.resize(allocated(self.bytes.capacity()));
        }
    }

    /// How many bytes it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Has `edit` add something.
    pub fn edit(&mut self, edit: impl FnOnce(&mut BytesMut)) {
        edit(&mut self.bytes);
        // Capacity at the front that was read is seen again by nobody: the largest capacity stands for all of it.
        let bytes = allocated(self.bytes.capacity());
        if bytes > self.charge.bytes() {
            self.charge.resize(bytes);
        }
    }

    /// Takes everything out; the charge ends with that.
    pub fn take(&mut self) -> BytesMut {
        self.charge.resize(0);
        std::mem::take(&mut self.bytes)
    }

    /// Takes everything out with its charge; what is left is empty.
    #[must_use]
    pub fn detach(&mut self) -> Self {
        let charge = self.charge.split(0);
        std::mem::replace(self, Self { bytes: BytesMut::new(), charge })
    }

    /// The same bytes, held for something else on another account.
    #[must_use]
    pub fn transfer(self, account: &Arc<Account>, held: Held) -> Self {
        Self { bytes: self.bytes, charge: Charge::new(account, held, self.charge.bytes()) }
    }

    /// The bytes and their charge, which has to live as long as they do.
    pub fn into_parts(self) -> (BytesMut, Charge) {
        (self.bytes, self.charge)
    }

    /// Has `consume` read from the front, as many bytes as it returns. Linear over all calls: what is left is moved only
    /// when it is the smaller part.
    pub fn consume(&mut self, consume: impl FnOnce(&mut [u8]) -> usize) {
        let consumed = consume(&mut self.bytes);
        self.bytes.advance(consumed);
        if self.bytes.is_empty() {
            self.take();
        } else if (self.bytes.len() as u64) < self.charge.bytes() / 4 {
            self.bytes = BytesMut::from(&self.bytes[..]);
            self.charge.resize(allocated(self.bytes.capacity()));
        }
    }

    /// Takes everything out for others to share, charged until the last reference is gone.
    pub fn share(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.bytes);
        let capacity = usize::try_from(self.charge.bytes()).expect("memory is addressed by a usize");
        self.charge.resize(0);
        let Charge { account, held, .. } = &self.charge;
        shared(bytes, capacity, 0, account, *held)
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether none are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes charged.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.charge.bytes()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
