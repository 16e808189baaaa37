//! Numbers that identify something, or count something's positions, shared by all parts of the broker. Each is a type of
//! its own, so that none is taken for another. They depend on nothing.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A shard's number, dense from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// All of `shards`, ascending.
    pub fn all(shards: u16) -> impl Iterator<Item = Self> {
        (0..shards).map(Self)
    }
}

impl From<ShardId> for usize {
    fn from(shard: ShardId) -> Self {
        shard.0.into()
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies a topic or filter for the life of the process; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicId(pub u64);

/// Identifies one life of a topic's log; another epoch means that offsets began anew. 0 for a filter, which has none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The first of many: that of a shard whose broker began with `base`. Leaves room to count on within 56 bits, which is
    /// what a message keeps of its epoch.
    #[must_use]
    pub fn first(base: Self, shard: ShardId) -> Self {
        Self(base.0.wrapping_add(u64::from(shard.0) << 40) & (Self::MAX >> 1))
    }

    /// The largest.
    const MAX: u64 = (1 << 56) - 1;

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Makes a number that counts positions: a distance can be added, and two have a distance.
macro_rules! positions {
    ($($(#[$doc:meta])* $name:ident,)+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub u64);

        impl Add<u64> for $name {
            type Output = Self;

            fn add(self, distance: u64) -> Self {
                Self(self.0 + distance)
            }
        }

        impl AddAssign<u64> for $name {
            fn add_assign(&mut self, distance: u64) {
                self.0 += distance;
            }
        }

        impl Sub for $name {
            type Output = u64;

            fn sub(self, before: Self) -> u64 {
                self.0 - before.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+ };
}

positions! {
    /// Position of a message in its topic: dense, from 1, within an epoch. 0 for a filter, which has none.
    Offset,
    /// A position in one shard's log of a topic or filter: dense from 0.
    Seq,
}

/// Index of a log in its shard; used again once that log is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct LogSlot(u32);

impl LogSlot {
    /// The slot with this index.
    pub(crate) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a shard has fewer logs than connections"))
    }

    /// Its index.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
