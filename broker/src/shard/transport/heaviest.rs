//! Who gives memory back when one purpose takes too much: a connection of the client that holds most for it.
//!
//! Not responsible for when that is, nor for closing it: see [`crate::shard::transport::assembly`] and
//! [`crate::shard::transport::pause`].
//!
//! Where addresses are counted, all connections of an address are one client; otherwise each is a client of its own.
//! Weight is bytes, or bytes times the time they have been held.
//!
//! Cost: linear in the holders, of which a search looks at no more than [`LOOKED_AT`].

use std::hash::Hash;

use ring::ConnId;
use rustc_hash::FxHashMap;

/// Of so many, the one that weighs most goes.
pub(super) const LOOKED_AT: usize = 64;

/// What one connection holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<C> {
    pub(super) id: ConnId,
    pub(super) client: C,
    pub(super) bytes: u64,
    pub(super) weight: u64,
}

/// The heaviest connection of the client whose connections weigh most together, among clients that hold at least
/// `bytes_min`.
pub(super) fn heaviest<C: Copy + Eq + Hash>(holders: &[Holder<C>], bytes_min: u64) -> Option<ConnId> {
    let mut of_client: FxHashMap<C, (u64, u64)> = FxHashMap::default();
    for holder in holders {
        let (bytes, weight) = of_client.entry(holder.client).or_default();
        *bytes += holder.bytes;
        *weight = weight.saturating_add(holder.weight);
    }
    let much = holders.iter().filter(|holder| of_client[&holder.client].0 >= bytes_min);
    much.max_by_key(|holder| (of_client[&holder.client].1, holder.weight, holder.id)).map(|holder| holder.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(id: u32, client: u8, bytes: u64, weight: u64) -> Holder<u8> {
        Holder { id: ConnId { slot: id, generation: 0 }, client, bytes, weight }
    }

    #[test]
    fn the_heaviest_of_the_heaviest_client_goes() {
        let holders = [holder(1, 1, 50, 50), holder(2, 2, 30, 30), holder(3, 2, 31, 31)];
        assert_eq!(heaviest(&holders, 0).map(|id| id.slot), Some(3));
        assert_eq!(heaviest(&holders, 61).map(|id| id.slot), Some(3));
        assert_eq!(heaviest(&holders, 62), None, "nobody holds that much");
        let older = [holder(1, 1, 50, 50), holder(2, 2, 5, 500)];
        assert_eq!(heaviest(&older, 0).map(|id| id.slot), Some(2));
        assert_eq!(heaviest(&older, 6).map(|id| id.slot), Some(1), "what is light is safe");
    }
}
