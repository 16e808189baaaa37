//! The frames of one send: as many as fit, copied together or by reference, whichever costs less.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ring::Gather;

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::capacity::shared_bytes::shared;
use crate::ids::Seq;
use crate::message::{Encoding, Message};

/// The most bytes one send carries, unless a single message is longer.
pub const GATHER_BYTES_MAX: usize = 256 << 10;

/// The most bytes of a send while other topics wait.
const SHORT_BYTES_MAX: usize = 64 << 10;

/// As many bytes are enough for a send when memory is short.
const FRUGAL_BYTES_MAX: usize = 16 << 10;

/// Frames that are shorter than this on average are copied together however many bytes they are: a range of a vectored
/// send costs more than the copy.
const PART_BYTES_LEAST: usize = 2 << 10;

/// Frames of one connection's several topics, and its own frames, are copied together up to this many bytes: for a single
/// send that is cheaper than a vector.
pub(in crate::shard) const COPY_BYTES_MAX: usize = 4 << 10;
/// Most messages in one vectored send; a connection's own frames go in front.
pub const PARTS_MAX: usize = Gather::PARTS_MAX - 1;

/// How free a send may be with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thrift {
    /// As fast as can be: many frames, copied together where that is cheaper, encodings kept for others.
    Fast,
    /// The same, in shorter sends: other topics wait for their turn.
    Short,
    /// Memory is short: few frames, by reference, encodings for this send only.
    Frugal,
}

/// How far [`Parts::fill`] came.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Messages that it passed, those that were not wanted included.
    pub passed: u64,
    /// The position of the first one that it did not; `None`: it passed all.
    pub end: Option<Seq>,
}

/// The frames of one send.
#[derive(Debug)]
pub struct Parts {
    parts: Vec<Bytes>,
    bytes: usize,
    thrift: Thrift,
}

impl Parts {
    /// None yet.
    #[must_use]
    pub fn new(thrift: Thrift) -> Self {
        Self { parts: Vec::new(), bytes: 0, thrift }
    }

    /// Adds frames of those messages that are `wanted`, until the send is long enough.
    pub fn fill<'m>(
        &mut self,
        messages: impl Iterator<Item = (Seq, &'m Arc<Message>)>,
        encoding: Encoding,
        account: &Arc<Account>,
        mut wanted: impl FnMut(&Message) -> bool,
    ) -> Filled {
        let mut passed = 0;
        for (seq, message) in messages {
            if wanted(message) && !self.take(message, encoding, account) {
                return Filled { passed, end: Some(seq) };
            }
            passed += 1;
        }
        Filled { passed, end: None }
    }

    /// Adds frames, unless the send is long enough. Says whether it did.
    pub fn push(&mut self, frames: Bytes) -> bool {
        let bytes_max = match self.thrift {
            Thrift::Fast => GATHER_BYTES_MAX,
            Thrift::Short => SHORT_BYTES_MAX,
            Thrift::Frugal => FRUGAL_BYTES_MAX,
        };
        if !self.parts.is_empty() && (self.bytes + frames.len() > bytes_max || self.parts.len() == PARTS_MAX) {
            return false;
        }
        self.bytes += frames.len();
        self.parts.push(frames);
        true
    }

    /// Adds a message's frame, if it has one, unless the send is long enough. Says whether that was so.
    fn take(&mut self, message: &Message, encoding: Encoding, account: &Arc<Account>) -> bool {
        let frugal = self.thrift == Thrift::Frugal;
        if frugal && (self.bytes >= FRUGAL_BYTES_MAX || self.parts.len() == PARTS_MAX) {
            return false;
        }
        let frame = message.frame(encoding, account, !frugal);
        if frame.is_empty() {
            return true;
        }
        let bytes_max = if self.thrift == Thrift::Short { SHORT_BYTES_MAX } else { GATHER_BYTES_MAX };
        if !self.parts.is_empty() && self.bytes + frame.len() > bytes_max {
            return false;
        }
        self.bytes += frame.len();
        self.parts.push(frame);
        true
    }

    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// One send for them: see [`coalesce`].
    #[must_use]
    pub fn coalesce(self, copy_max: usize, account: &Arc<Account>) -> Gather {
        match self.thrift {
            Thrift::Fast | Thrift::Short => coalesce(self.parts, self.bytes, copy_max, account),
            Thrift::Frugal => by_reference(self.parts, account),
        }
    }
}

/// One send for `parts`, `bytes` long together: copied into one range up to `copy_max` bytes, or if they are many and
/// short; else by reference. What that takes is charged to `account`.
#[must_use]
pub fn coalesce(parts: Vec<Bytes>, bytes: usize, copy_max: usize, account: &Arc<Account>) -> Gather {
    if parts.len() == 1 || (bytes > copy_max && bytes / parts.len() >= PART_BYTES_LEAST && parts.len() <= PARTS_MAX) {
        return by_reference(parts, account);
    }
    let mut whole = BytesMut::with_capacity(bytes);
    for part in &parts {
        whole.extend_from_slice(part);
    }
    let capacity = whole.capacity();
    Gather::one(shared(whole, capacity, 0, account, Held::Messages))
}

fn by_reference(mut parts: Vec<Bytes>, account: &Arc<Account>) -> Gather {
    if parts.len() == 1 {
        return Gather::one(parts.remove(0));
    }
    let list = parts.len() * (size_of::<Bytes>() + IOVEC_BYTES);
    let charge = Charge::new(account, Held::Messages, allocated(list));
    Gather::many_keeping(parts, Some(Box::new(charge)))
}

/// The kernel's name for one range of a vectored send: an address and a length (writev(2)).
const IOVEC_BYTES: usize = 16;
