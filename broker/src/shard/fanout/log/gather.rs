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
    to: Seq,
    /// `None`: subscribers are sent nothing of what there is.
    gather: Option<Gather>,
}

impl Log {
    /// Everything from `from` to the head in one send, or as much as one send takes, and the position after it. `None`:
    /// nothing of it is sent. Built once for all subscribers that are at the same place, as thrifty as the first one asks
    /// for.
    ///
    /// # Panics
    /// If `from` is not within the log, or at its head.
    pub fn gather(&mut self, from: Seq, encoding: Encoding, thrift: Thrift) -> (Option<Gather>, Seq) {
        let head = self.head();
        assert!(self.tail <= from && from < head, "a cursor outside its log");
        let known = self.gathers.iter().position(|built| built.encoding == encoding);
        if let Some(built) = known.map(|at| &self.gathers[at])
            && built.from == from
            && built.head == head
        {
            return (built.gather.clone(), built.to);
        }
        let (gather, to) = self.build(from, encoding, thrift);
        let built = Built { encoding, from, head, to, gather: gather.clone() };
        match known {
            Some(at) => self.gathers[at] = built,
            None => self.gathers.push(built),
        }
        (gather, to)
    }

    fn build(&self, from: Seq, encoding: Encoding, thrift: Thrift) -> (Option<Gather>, Seq) {
        let mut parts = Parts::new(thrift);
        let to = from + parts.fill(self.pending(from), encoding, &self.account, |_| true);
        ((!parts.is_empty()).then(|| parts.coalesce(COALESCE_BYTES_MAX, &self.account)), to)
    }
}
