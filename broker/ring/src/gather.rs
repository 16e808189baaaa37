//! Bytes to be sent in one operation, shared by reference between any number of sends.
//!
//! A gather is built once per (cursor, head) pair of a topic and then cloned per subscriber: a clone is
//! one non-atomic increment. It is immutable, so the `iovec`s it holds stay valid as long as any clone
//! lives; the driver keeps a clone from submission to the last completion.

use std::rc::Rc;

use bytes::Bytes;

/// An immutable list of byte ranges that go out in one send, in order. Cloning is one increment.
#[derive(Clone)]
pub struct Gather(Rc<Inner>);

struct Inner {
    parts: Parts,
    /// Sum of all parts' lengths, in bytes.
    len: usize,
}

enum Parts {
    One(Bytes),
    Many(Box<[Bytes]>),
}

impl Gather {
    /// A gather of one contiguous range.
    ///
    /// # Panics
    /// If `bytes` is empty: an empty send has no meaning on a stream.
    #[must_use]
    pub fn one(bytes: Bytes) -> Self {
        assert!(!bytes.is_empty(), "an empty gather");
        let len = bytes.len();
        Self(Rc::new(Inner { parts: Parts::One(bytes), len }))
    }

    /// A gather of several ranges, in order; empty ones are dropped.
    ///
    /// # Panics
    /// If nothing remains, or more than [`Gather::PARTS_MAX`] ranges do.
    #[must_use]
    pub fn many(parts: Vec<Bytes>) -> Self {
        let mut parts = parts;
        parts.retain(|part| !part.is_empty());
        assert!(parts.len() <= Self::PARTS_MAX, "more ranges than one sendmsg takes");
        if parts.len() == 1 {
            return Self::one(parts.remove(0));
        }
        assert!(!parts.is_empty(), "an empty gather");
        let len = parts.iter().map(Bytes::len).sum();
        Self(Rc::new(Inner { parts: Parts::Many(parts.into_boxed_slice()), len }))
    }

    /// The most ranges one send takes (`UIO_MAXIOV`, sendmsg(2)).
    pub const PARTS_MAX: usize = 1024;

    /// Length in bytes, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a gather is never empty")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// The ranges, in order; none is empty.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        match &self.0.parts {
            Parts::One(bytes) => std::slice::from_ref(bytes),
            Parts::Many(parts) => parts,
        }
    }
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gather({} bytes in {})", self.len(), self.parts().len())
    }
}
