//! Bytes to be sent in one operation, shared by reference between any number of sends.
//!
//! A gather is built once per (cursor, head) pair of a topic and then cloned per subscriber: a clone is
//! one non-atomic increment. It is immutable, so the `iovec`s it holds stay valid as long as any clone
//! lives; the driver keeps a clone from submission to the last completion.

use std::any::Any;
use std::ptr;
use std::rc::Rc;

use bytes::Bytes;

/// An immutable list of byte ranges that go out in one send, in order. Cloning is one increment.
#[derive(Clone)]
pub struct Gather(Rc<Inner>);

struct Inner {
    parts: Parts,
    /// Sum of all parts' lengths, in bytes.
    len: usize,
    /// What lives as long as the gather: the caller's affair.
    _kept: Option<Box<dyn Any>>,
}

enum Parts {
    One(Bytes),
    Many {
        parts: Box<[Bytes]>,
        /// Names the bytes of `parts`; built once, shared by every send of every clone.
        message: Message,
    },
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
        Self(Rc::new(Inner { parts: Parts::One(bytes), len, _kept: None }))
    }

    /// A gather of several ranges, in order; empty ones are dropped.
    ///
    /// # Panics
    /// If nothing remains, or more than [`Gather::PARTS_MAX`] ranges do.
    #[must_use]
    pub fn many(parts: Vec<Bytes>) -> Self {
        Self::many_keeping(parts, None)
    }

    /// The same; `kept` is dropped when the last clone is: a token for the memory that the list itself takes.
    ///
    /// # Panics
    /// As [`Gather::many`].
    #[must_use]
    pub fn many_keeping(mut parts: Vec<Bytes>, kept: Option<Box<dyn Any>>) -> Self {
        parts.retain(|part| !part.is_empty());
        assert!(parts.len() <= Self::PARTS_MAX, "more ranges than one sendmsg takes");
        if parts.len() == 1 {
            return Self::one(parts.remove(0));
        }
        assert!(!parts.is_empty(), "an empty gather");
        let len = parts.iter().map(Bytes::len).sum();
        let message = Message::new(parts.iter().map(iovec).collect());
        Self(Rc::new(Inner { parts: Parts::Many { parts: parts.into_boxed_slice(), message }, len, _kept: kept }))
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
            Parts::Many { parts, .. } => parts,
        }
    }

    /// How one operation sends `self[from..]`.
    ///
    /// # Panics
    /// If `from >= self.len()`.
    pub(crate) fn tail(&self, from: usize) -> Tail<'_> {
        assert!(from < self.len(), "a send from {from} of {} bytes", self.len());
        match &self.0.parts {
            Parts::One(bytes) => Tail::Contiguous(&bytes[from..]),
            Parts::Many { message, .. } if from == 0 => Tail::Whole(message),
            Parts::Many { parts, .. } => trimmed_tail(parts, from),
        }
    }
}

/// What of a gather is to be sent. Everything named lives as long as the gather, but for
/// [`Tail::Trimmed`], which has to be kept beside it.
pub(crate) enum Tail<'a> {
    /// One range: an ordinary send.
    Contiguous(&'a [u8]),
    /// All ranges, by the gather's own message head.
    Whole(&'a Message),
    /// The ranges from somewhere in the middle.
    Trimmed(Rc<Message>),
}

fn trimmed_tail(parts: &[Bytes], from: usize) -> Tail<'_> {
    let mut skip = from;
    let first = parts.iter().position(|part| {
        let found = skip < part.len();
        if !found {
            skip -= part.len();
        }
        found
    });
    let rest = &parts[first.expect("from is below the sum of the lengths")..];
    if let [last] = rest {
        return Tail::Contiguous(&last[skip..]);
    }
    let mut iovecs: Vec<libc::iovec> = rest.iter().map(iovec).collect();
    iovecs[0] = iovec(&rest[0][skip..]);
    Tail::Trimmed(Rc::new(Message::new(iovecs)))
}

fn iovec(bytes: &(impl AsRef<[u8]> + ?Sized)) -> libc::iovec {
    let bytes = bytes.as_ref();
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// A `msghdr` and the `iovec`s it names. Moving it is harmless to the `iovec`s (they are on the heap), not
/// to the head: the owner keeps it in place while an operation names it. Neither is in a `Box`: moving one claims
/// that nobody else has a pointer to what is in it.
pub(crate) struct Message {
    head: libc::msghdr,
    /// Only read by the kernel, through `head`.
    _iovecs: Vec<libc::iovec>,
}

impl Message {
    fn new(mut iovecs: Vec<libc::iovec>) -> Self {
        let head = libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: iovecs.as_mut_ptr(),
            msg_iovlen: iovecs.len() as _,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Self { head, _iovecs: iovecs }
    }

    /// What `sendmsg` takes. The kernel only reads it.
    pub(crate) fn as_ptr(&self) -> *const libc::msghdr {
        &raw const self.head
    }
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gather({} bytes in {})", self.len(), self.parts().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(tail: &Tail<'_>) -> Vec<u8> {
        // As the kernel reads it: by the head's address, after the message was moved.
        let head = match tail {
            Tail::Contiguous(bytes) => return bytes.to_vec(),
            Tail::Whole(message) => message.as_ptr(),
            Tail::Trimmed(message) => message.as_ptr(),
        };
        let slice = |at: usize| {
            // SAFETY: the tail under test keeps the head and its list of ranges in place, and its gather the ranges.
            unsafe {
                let range = (*head).msg_iov.add(at).read();
                std::slice::from_raw_parts(range.iov_base.cast::<u8>(), range.iov_len)
            }
        };
        // SAFETY: as above.
        let count: usize = unsafe { (&raw const (*head).msg_iovlen).read() } as _;
        (0..count).flat_map(slice).copied().collect()
    }

    #[test]
    fn a_tail_names_every_byte_from_anywhere() {
        let parts = ["alpha", "", "b", "gamma", "delta"].map(Bytes::from);
        let whole = b"alphabgammadelta";
        for gather in [Gather::many(parts.to_vec()), Gather::one(Bytes::from_static(whole))] {
            assert_eq!(gather.len(), whole.len());
            for from in 0..whole.len() {
                assert_eq!(bytes_of(&gather.tail(from)), &whole[from..]);
            }
        }
    }

    #[test]
    fn the_last_part_is_contiguous() {
        let gather = Gather::many(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]);
        assert!(matches!(gather.tail(0), Tail::Whole(_)));
        assert!(matches!(gather.tail(1), Tail::Trimmed(_)));
        assert!(matches!(gather.tail(2), Tail::Contiguous(b"cd")));
    }

    #[test]
    #[should_panic(expected = "an empty gather")]
    fn nothing_is_not_a_gather() {
        let _ = Gather::many(vec![Bytes::new()]);
    }
}
