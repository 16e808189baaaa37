//! How full each shard's share of messages (`--max-log`) is, as all shards see it.
//!
//! A shard keeps messages for its subscribers wherever their publishers are. So publishers of all shards wait while the share
//! of any is full: seven eighths by what it keeps and what is on its way to it, or an eighth by what is on its way alone. The
//! shard itself says that once a turn, and so does a sequencer that sends it more; only the shard says that it is over.
//!
//! Cost: an addition, a comparison and a load for each batch between shards; a store a turn; a load of something that hardly
//! ever changes for each look.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;

use crate::ids::ShardId;

/// See the file's head.
#[derive(Debug)]
pub struct LogShares {
    shares: Box<[CachePadded<Share>]>,
    /// How many are full.
    full: CachePadded<AtomicUsize>,
}

#[derive(Default, Debug)]
struct Share {
    /// Bytes that the shard kept at its last turn.
    kept: AtomicU64,
    /// Bytes in batches that were not among what it kept then.
    coming: AtomicU64,
    is_full: AtomicBool,
    has_ended: AtomicBool,
}

/// From how many bytes on a share of `bytes_max` is full: seven eighths.
#[must_use]
pub(crate) fn full_from(bytes_max: u64) -> u64 {
    bytes_max - bytes_max / 8
}

/// Whether a share is full: by what is kept and coming, or because a shard does not come to taking what is sent to it.
fn is_full(kept: u64, coming: u64, bytes_max: u64) -> bool {
    kept + coming >= full_from(bytes_max) || coming >= bytes_max / 8
}

impl LogShares {
    /// Empty shares of so many shards.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self { shares: (0..shards).map(|_| CachePadded::default()).collect(), full: CachePadded::default() }
    }

    /// Messages of so many bytes go to a shard. Said before they can have come.
    pub(crate) fn send(&self, shard: ShardId, bytes: u64, bytes_max: u64) {
        let share = self.of(shard);
        let coming = share.coming.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if is_full(share.kept.load(Ordering::Relaxed), coming, bytes_max) {
            self.set_full(share, true);
        }
    }

    /// Its queue had no room for what was sent.
    pub(crate) fn take_back(&self, shard: ShardId, bytes: u64) {
        self.of(shard).coming.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A shard keeps so many bytes, and `come` bytes that were sent to it since it last said so are among them or gone. Returns
    /// whether its share is full.
    pub(crate) fn keep(&self, shard: ShardId, bytes: u64, come: u64, bytes_max: u64) -> bool {
        let share = self.of(shard);
        share.kept.store(bytes, Ordering::Relaxed);
        let coming = match come {
            0 => share.coming.load(Ordering::Relaxed),
            _ => share.coming.fetch_sub(come, Ordering::Relaxed) - come,
        };
        let is_full = is_full(bytes, coming, bytes_max);
        self.set_full(share, is_full);
        is_full
    }

    /// Whether publishers have to wait for any shard.
    pub(crate) fn is_any_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) > 0
    }

    /// A shard has ended: nobody waits for it.
    pub(crate) fn end(&self, shard: ShardId) {
        let share = self.of(shard);
        share.has_ended.store(true, Ordering::SeqCst);
        self.set_full(share, false);
    }

    fn set_full(&self, share: &Share, is_full: bool) {
        let is_full = is_full && !share.has_ended.load(Ordering::SeqCst);
        if share.is_full.load(Ordering::Relaxed) == is_full || share.is_full.swap(is_full, Ordering::SeqCst) == is_full
        {
            return;
        }
        if is_full {
            self.full.fetch_add(1, Ordering::SeqCst);
            if share.has_ended.load(Ordering::SeqCst) {
                // It ended in between, and may not have seen this.
                self.set_full(share, false);
            }
        } else {
            self.full.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn of(&self, shard: ShardId) -> &Share {
        &self.shares[usize::from(shard)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_waits_for_a_full_share_until_its_shard_has_room() {
        let (shares, max) = (LogShares::new(2), 8000);
        let [one, other] = [ShardId(0), ShardId(1)];
        shares.send(one, 500, max);
        assert!(!shares.keep(one, 6300, 0, max) && !shares.is_any_full());
        shares.send(one, 200, max);
        assert!(shares.is_any_full(), "700 are coming, 6,300 are kept");
        shares.send(one, 100, max);
        assert!(shares.keep(other, 7000, 0, max) && shares.is_any_full());
        assert!(!shares.keep(other, 6999, 0, max) && shares.is_any_full(), "one is full");
        assert!(shares.keep(one, 6900, 700, max), "100 are still coming");
        shares.take_back(one, 100);
        assert!(shares.is_any_full(), "only the shard says that it has room");
        assert!(!shares.keep(one, 6900, 0, max) && !shares.is_any_full());
        shares.keep(one, 0, 0, max);
        shares.send(one, 1000, max);
        assert!(shares.is_any_full(), "the shard does not come to taking what is sent to it");
        assert!(!shares.keep(one, 1000, 1000, max) && !shares.is_any_full());
        shares.send(one, 1000, max);
        shares.end(one);
        shares.send(one, 1000, max);
        assert!(!shares.is_any_full(), "nobody waits for one that has ended");
    }
}
