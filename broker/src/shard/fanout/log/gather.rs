//! One send of a log, made once for all subscribers that are at the same place.

use ring::Gather;

use crate::ids::Seq;
use crate::message::Encoding;
use crate::shard::fanout::log::Log;
use crate::shard::fanout::parts::{Parts, Thrift};

/// Up to this many bytes, several frames are copied together once, so that thousands of sends are
/// contiguous; above, they go out by reference as one vectored send.
pub(super) const COALESCE_BYTES_MAX: usize = 64 << 10;

/// A send, and when it can be used again: by every subscriber at `from` while the log ends at `head`.
#[derive(Debug)]
pub(super) struct Built {
    encoding: Encoding,
    from: Seq,
    head: Seq,
    taken: Taken,
}

/// What one send takes of a log.
#[derive(Clone, Debug)]
pub struct Taken {
    /// `None`: nothing of it is sent.
    pub gather: Option<Gather>,
    /// The position after it.
    pub to: Seq,
    /// Messages that are sent.
    pub messages: u64,
    /// Messages on the way that newer ones of their keys have superseded.
    pub superseded: u64,
}

impl Log {
    /// Everything from `from` to the head in one send, or as much as one send takes. Built once for all subscribers that are
    /// at the same place, as thrifty as the first one asks for.
    ///
    /// # Panics
    /// If `from` is not within the log, or at its head.
    pub fn gather(&mut self, from: Seq, encoding: Encoding, thrift: Thrift) -> Taken {
        let head = self.head();
        assert!(from < head, "a cursor outside its log");
        let known = self.gathers.iter().position(|built| built.encoding == encoding);
        if let Some(built) = known.map(|at| &self.gathers[at])
            && built.from == from
            && built.head == head
        {
            return built.taken.clone();
        }
        let taken = self.build(from, encoding, thrift);
        let built = Built { encoding, from, head, taken: taken.clone() };
        match known {
            Some(at) => self.gathers[at] = built,
            None => self.gathers.push(built),
        }
        taken
    }

    fn build(&self, from: Seq, encoding: Encoding, thrift: Thrift) -> Taken {
        let mut parts = Parts::new(thrift);
        let filled = parts.fill(self.pending(from), encoding, &self.account, |_| true);
        let to = filled.end.unwrap_or(self.head());
        let (messages, superseded) = (parts.len() as u64, (to - from) - filled.passed);
        let gather = (!parts.is_empty()).then(|| parts.coalesce(COALESCE_BYTES_MAX, &self.account));
        Taken { gather, to, messages, superseded }
    }
}
