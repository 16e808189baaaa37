//! Filters with many `+`, compared with a topic [`WIDTH`] at a time.
//!
//! A block has a bit for each of its filters. For every level it knows which filters ask for a certain text there, and
//! which do not: their union for the topic's text there, taken together over all levels, leaves the filters that match.
//! Where a filter ends is one more such question. What stands behind the first [`CUT`] levels of a filter without
//! `+` there is one hash.
//!
//! Values are ids of the caller, who compares what is found with the topic. Invariant: a bit is set in a block's `ends`
//! exactly while its place is taken.

use rustc_hash::FxHashMap;

use crate::topics::filters::{EXACT, OPEN, Pattern, fold, table_bytes};

/// Filters in one block.
pub(super) const WIDTH: usize = 1024;
const WORDS: usize = WIDTH / 64;
/// Levels that are compared one by one, unless a `+` stands behind them.
const CUT: usize = 16;

/// A bit for each place of a block.
type Set = [u64; WORDS];

/// See the file's head. A place is a block's index times [`WIDTH`], and a bit in it.
#[derive(Default, Debug)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    free: Vec<u32>,
}

#[derive(Default, Debug)]
struct Block {
    /// The caller's id of each place.
    ids: Vec<u32>,
    /// Which filters end in a certain way.
    ends: FxHashMap<u64, Bits>,
    levels: Vec<Level>,
    /// Heap of all [`Bits::Many`].
    many: usize,
}

#[derive(Debug)]
struct Level {
    /// Filters that take any text here, or ask for none.
    any: Set,
    /// Filters that ask for the text with this hash.
    named: FxHashMap<u64, Bits>,
}

/// A set that is small as long as it has one member.
#[derive(Debug)]
enum Bits {
    One(u16),
    Many(Box<Set>),
}

impl Blocks {
    /// Adds a filter. Returns its place.
    pub(super) fn insert(&mut self, pattern: &Pattern, id: u32) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            let last = self.blocks.last().map_or(WIDTH, |block| block.ids.len());
            if last == WIDTH {
                self.blocks.push(Block::default());
            }
            let block = self.blocks.last_mut().expect("added above");
            block.ids.push(id);
            ((self.blocks.len() - 1) * WIDTH + self.blocks.last().map_or(0, |block| block.ids.len() - 1)) as u32
        });
        let (block, bit) = (&mut self.blocks[place as usize / WIDTH], place as usize % WIDTH);
        block.ids[bit] = id;
        add(&mut block.ends, end(pattern), bit, &mut block.many);
        for (at, level) in one_by_one(pattern).iter().enumerate() {
            if block.levels.len() == at {
                block.levels.push(Level { any: [!0; WORDS], named: FxHashMap::default() });
            }
            if let Some(hash) = level {
                let level = &mut block.levels[at];
                level.any[bit / 64] &= !(1 << (bit % 64));
                add(&mut level.named, *hash, bit, &mut block.many);
            }
        }
        place
    }

    /// Removes the filter at a place.
    pub(super) fn remove(&mut self, pattern: &Pattern, place: u32) {
        let (block, bit) = (&mut self.blocks[place as usize / WIDTH], place as usize % WIDTH);
        take(&mut block.ends, end(pattern), bit, &mut block.many);
        for (at, level) in one_by_one(pattern).iter().enumerate() {
            if let Some(hash) = level {
                let level = &mut block.levels[at];
                level.any[bit / 64] |= 1 << (bit % 64);
                take(&mut level.named, *hash, bit, &mut block.many);
            }
        }
        if block.ends.is_empty() {
            block.levels = Vec::new();
        }
        self.free.push(place);
    }

    /// Adds the ids of filters that may match a topic of these levels. Returns the number of look-ups.
    pub(super) fn search(&self, levels: &[u64], found: &mut Vec<u32>) -> usize {
        if self.blocks.is_empty() {
            return 0;
        }
        let ends = ends(levels);
        let mut looked_up = 0;
        for block in self.blocks.iter().filter(|block| !block.ends.is_empty()) {
            let mut left = [0; WORDS];
            if block.ends.len() < ends.len() {
                let possible = block.ends.iter().filter(|(end, _)| ends.contains(end));
                possible.for_each(|(_, bits)| bits.add_to(&mut left));
                looked_up += block.ends.len();
            } else {
                ends.iter().filter_map(|end| block.ends.get(end)).for_each(|bits| bits.add_to(&mut left));
                looked_up += ends.len();
            }
            for (level, hash) in block.levels.iter().zip(levels) {
                if left == [0; WORDS] {
                    break;
                }
                looked_up += 1;
                let mut fits = level.any;
                if let Some(bits) = level.named.get(hash) {
                    bits.add_to(&mut fits);
                }
                left.iter_mut().zip(fits).for_each(|(left, fits)| *left &= fits);
            }
            for (at, mut word) in left.into_iter().enumerate() {
                while word != 0 {
                    found.push(block.ids[at * 64 + word.trailing_zeros() as usize]);
                    word &= word - 1;
                }
            }
        }
        looked_up
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| {
            let tables = block.levels.iter().map(|level| level.named.capacity()).chain([block.ends.capacity()]);
            tables.map(|capacity| table_bytes(capacity, size_of::<(u64, Bits)>())).sum::<usize>()
                + block.levels.capacity() * size_of::<Level>()
                + block.ids.capacity() * size_of::<u32>()
                + block.many
        });
        blocks.sum::<usize>() + self.blocks.capacity() * size_of::<Block>() + self.free.capacity() * size_of::<u32>()
    }
}

impl Bits {
    fn add_to(&self, set: &mut Set) {
        match self {
            Self::One(bit) => set[usize::from(*bit) / 64] |= 1 << (bit % 64),
            Self::Many(bits) => set.iter_mut().zip(bits.iter()).for_each(|(word, bits)| *word |= bits),
        }
    }
}

fn add(sets: &mut FxHashMap<u64, Bits>, key: u64, bit: usize, many: &mut usize) {
    let bits = sets.entry(key).or_insert(Bits::One(bit as u16));
    if let Bits::One(first) = *bits
        && usize::from(first) != bit
    {
        let mut set = Box::new([0; WORDS]);
        set[usize::from(first) / 64] |= 1 << (first % 64);
        *bits = Bits::Many(set);
        *many += size_of::<Set>();
    }
    if let Bits::Many(set) = bits {
        set[bit / 64] |= 1 << (bit % 64);
    }
}

fn take(sets: &mut FxHashMap<u64, Bits>, key: u64, bit: usize, many: &mut usize) {
    if let Bits::Many(set) = sets.get_mut(&key).expect("a filter that is here") {
        set[bit / 64] &= !(1 << (bit % 64));
        if **set != [0; WORDS] {
            return;
        }
        *many -= size_of::<Set>();
    }
    sets.remove(&key);
}

/// The levels of a filter that are compared one by one.
fn one_by_one(pattern: &Pattern) -> &[Option<u64>] {
    &pattern.levels[..pattern.levels.len().min(pattern.fixed_from.max(CUT))]
}

/// How a filter ends: after how many levels, or with which levels behind the first.
fn end(pattern: &Pattern) -> u64 {
    let how = if pattern.open { OPEN } else { EXACT };
    if pattern.fixed_from <= CUT && pattern.levels.len() > CUT {
        return fold(pattern.literals(CUT).fold(0, fold), how);
    }
    length(pattern.levels.len(), how)
}

fn length(levels: usize, how: u64) -> u64 {
    fold(fold(how, levels as u64), how)
}

/// How filters end that match these levels.
fn ends(levels: &[u64]) -> Vec<u64> {
    let mut ends: Vec<u64> = (0..=levels.len()).map(|before| length(before, OPEN)).collect();
    ends.push(length(levels.len(), EXACT));
    let mut hash = 0;
    for &level in levels.iter().skip(CUT) {
        hash = fold(hash, level);
        ends.push(fold(hash, OPEN));
    }
    if levels.len() > CUT {
        ends.push(fold(hash, EXACT));
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_empty_blocks_hold_nothing() {
        let mut blocks = Blocks::default();
        let pattern = |n: u64| Pattern { levels: vec![None, Some(n), None], open: false, fixed_from: 3, plus: 2 };
        for round in 0..3 {
            let places: Vec<u32> = (0..3000).map(|n| blocks.insert(&pattern(n), n as u32)).collect();
            assert_eq!(blocks.blocks.len(), 3, "round {round}");
            let mut found = Vec::new();
            blocks.search(&[1, 2999, 1], &mut found);
            assert_eq!(found, [2999]);
            for (n, place) in (0..).zip(places) {
                blocks.remove(&pattern(n), place);
            }
            found.clear();
            assert_eq!(blocks.search(&[1, 2999, 1], &mut found), 0);
            assert!(blocks.blocks.iter().all(|block| block.many == 0 && block.levels.is_empty()));
        }
    }
}
