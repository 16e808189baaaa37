//! Filters with wildcards, found by the topics that they match.
//!
//! | a filter | is kept in | a match costs |
//! | --- | --- | --- |
//! | without wildcards | the table of all filters | one look-up |
//! | with at most `PLUS_MAX` `+`, all within the first `PLUS_LEVELS` levels | `tree` | see below |
//! | with more, or deeper ones | `blocks` | a step per level and 1,024 such filters |
//!
//! Why two structures: in a tree a topic follows the branch of its own level and the branch `+` at the same time, so
//! filters with `+` in many different places make it visit two to the power of its levels. With few `+` near the
//! front it visits at most 255 nodes, whatever anybody subscribes to. The remaining filters are compared 1,024 at a
//! time by bit sets.
//!
//! Bound, in look-ups of a hash table, for a topic of `n` levels: `255 * (n + 3)` for the tree, and `3n + 4` for each
//! 1,024 filters in blocks. A client's subscriptions are 1,024 unless configured otherwise: it adds one block. Beside
//! that, each filter that matches costs a comparison with the topic, which also sorts out what only hashes alike.
//! Inserting and removing is linear in the filter's length.
//!
//! Levels are compared by their hashes under a secret key ([`Keys`]). Not responsible for the grammar
//! (`protocol::topic`).

mod blocks;
mod tree;

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;

use crate::topics::filters::blocks::Blocks;
use crate::topics::filters::tree::Tree;
use crate::topics::keys::Keys;

/// Most `+` of a filter in the tree.
const PLUS_MAX: usize = 3;
/// Those are among so many first levels.
const PLUS_LEVELS: usize = 8;

/// Filters, each with a value.
#[derive(Debug)]
pub struct Filters<V> {
    /// Where each filter is in `entries`.
    ids: HashMap<Arc<str>, u32, Keys>,
    entries: Vec<Option<Entry<V>>>,
    /// Vacant places of `entries`.
    free: Vec<u32>,
    /// How many have wildcards.
    wild: usize,
    tree: Tree,
    blocks: Blocks,
}

#[derive(Debug)]
struct Entry<V> {
    filter: Arc<str>,
    value: V,
    /// Where it is in `blocks`, if it is there.
    place: Option<u32>,
}

/// A filter with its levels hashed.
#[derive(Debug)]
struct Pattern {
    /// `None` is `+`. Without the `#`.
    levels: Vec<Option<u64>>,
    /// Ends with `#`.
    open: bool,
    /// Levels up to the last `+`.
    fixed_from: usize,
    plus: usize,
}

impl<V> Filters<V> {
    /// None yet. Levels are hashed under `keys`.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            ids: HashMap::with_hasher(keys),
            entries: Vec::new(),
            free: Vec::new(),
            wild: 0,
            tree: Tree::default(),
            blocks: Blocks::default(),
        }
    }

    /// Adds a filter that is not there yet.
    ///
    /// # Panics
    /// If it is.
    pub fn insert(&mut self, filter: Arc<str>, value: V) {
        let id = self.free.pop().unwrap_or(self.entries.len() as u32);
        let mut place = None;
        if protocol::topic::is_wildcard(&filter) {
            let pattern = Pattern::new(&filter, *self.ids.hasher());
            if pattern.suits_tree() {
                self.tree.insert(&pattern, id);
            } else {
                place = Some(self.blocks.insert(&pattern, id));
            }
            self.wild += 1;
        }
        let before = self.ids.insert(Arc::clone(&filter), id);
        assert!(before.is_none(), "a filter is added once");
        let entry = Some(Entry { filter, value, place });
        match self.entries.get_mut(id as usize) {
            Some(vacant) => *vacant = entry,
            None => self.entries.push(entry),
        }
    }

    /// Removes a filter, if it is there.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        let id = self.ids.remove(filter)?;
        let entry = self.entries[id as usize].take().expect("an id in use");
        self.free.push(id);
        if protocol::topic::is_wildcard(filter) {
            let pattern = Pattern::new(filter, *self.ids.hasher());
            match entry.place {
                Some(place) => self.blocks.remove(&pattern, place),
                None => self.tree.remove(&pattern, id),
            }
            self.wild -= 1;
        }
        if self.ids.is_empty() {
            *self = Self::new(*self.ids.hasher());
        }
        Some(entry.value)
    }

    /// The value of this very filter.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&V> {
        let id = *self.ids.get(filter)?;
        self.entries[id as usize].as_ref().map(|entry| &entry.value)
    }

    /// The value of this very filter.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        let id = *self.ids.get(filter)?;
        self.entries[id as usize].as_mut().map(|entry| &mut entry.value)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Calls `found` with the value of every filter that matches `topic`.
    pub fn each_match(&self, topic: &str, found: impl FnMut(&V)) {
        self.search(topic, found);
    }

    /// The same. Returns how many look-ups it took.
    fn search(&self, topic: &str, mut found: impl FnMut(&V)) -> usize {
        if self.ids.len() > self.wild
            && let Some(value) = self.get(topic)
        {
            found(value);
        }
        if self.wild == 0 {
            return 1;
        }
        let keys = *self.ids.hasher();
        let levels: Vec<u64> = topic.split('/').map(|level| keys.hash_text(level)).collect();
        let mut candidates = Vec::new();
        let looked_up = self.tree.search(&levels, &mut candidates) + self.blocks.search(&levels, &mut candidates);
        for id in candidates {
            let entry = self.entries[id as usize].as_ref().expect("an id in use");
            if protocol::topic::matches(&entry.filter, topic) {
                found(&entry.value);
            }
        }
        1 + looked_up
    }

    /// Bytes on the heap, filters' text excepted, which others share. Cost: one step per block.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        table_bytes(self.ids.capacity(), size_of::<(Arc<str>, u32)>())
            + self.entries.capacity() * size_of::<Option<Entry<V>>>()
            + self.free.capacity() * size_of::<u32>()
            + self.tree.heap_bytes()
            + self.blocks.heap_bytes()
    }
}

/// About what a filter with wildcards takes in one [`Filters`], in bytes, its text excepted: an entry, and a node or a
/// bit for every level that is looked at alone. Tables count twice, as they are after they grew.
#[must_use]
pub fn filter_bytes(filter: &str) -> u64 {
    const ENTRY_BYTES: u64 = 320;
    const LEVEL_BYTES: u64 = 72;
    let (mut levels, mut plus, mut fixed_from) = (0, 0, 0);
    for level in filter.split('/') {
        levels += 1;
        if level == "+" {
            (plus, fixed_from) = (plus + 1, levels);
        }
    }
    let looked_at = if plus <= PLUS_MAX && fixed_from <= PLUS_LEVELS { fixed_from } else { levels };
    ENTRY_BYTES + LEVEL_BYTES * looked_at as u64
}

impl Pattern {
    fn new(filter: &str, keys: Keys) -> Self {
        let mut pattern = Self { levels: Vec::new(), open: false, fixed_from: 0, plus: 0 };
        // Neighbours are often alike (`a/a/a`), and then hashed once.
        let mut last = None;
        for level in filter.split('/') {
            match level {
                "#" => pattern.open = true,
                "+" => {
                    pattern.levels.push(None);
                    pattern.fixed_from = pattern.levels.len();
                    pattern.plus += 1;
                }
                _ => {
                    let hash = match last {
                        Some((text, hash)) if text == level => hash,
                        _ => keys.hash_text(level),
                    };
                    last = Some((level, hash));
                    pattern.levels.push(Some(hash));
                }
            }
        }
        pattern
    }

    fn suits_tree(&self) -> bool {
        self.plus <= PLUS_MAX && self.fixed_from <= PLUS_LEVELS
    }

    /// The hashes of the levels from `from` on, none of which is `+`.
    fn literals(&self, from: usize) -> impl Iterator<Item = u64> {
        self.levels[from..].iter().map(|level| level.expect("no `+` behind the last one"))
    }
}

/// Ends of a sequence of levels, for [`fold`]: nothing follows, or anything may.
const EXACT: u64 = 0x9e37_79b9_7f4a_7c15;
const OPEN: u64 = 0xd1b5_4a32_d192_ed03;

/// One hash for a sequence of levels: begins with 0, and takes one level after the other. Levels are hashed under a
/// secret key already, so this need not hide anything.
fn fold(hash: u64, level: u64) -> u64 {
    (hash.rotate_left(23) ^ level).wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// What a hash table of this capacity takes: one byte of control per bucket, an eighth of them empty.
fn table_bytes(capacity: usize, entry_bytes: usize) -> usize {
    if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() * (entry_bytes + 1) + 16 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "+", "+", "$x"])
    }

    /// Short ones for the tree, long ones for blocks and for tails behind their first levels.
    fn filter() -> impl Strategy<Value = String> {
        let levels = prop_oneof![prop::collection::vec(level(), 0..4), prop::collection::vec(level(), 10..22)];
        (levels, any::<bool>()).prop_map(|(mut levels, open)| {
            if open || levels.iter().all(|level| level.is_empty()) {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    /// Topics that a random filter has a chance to match: filters with their wildcards filled in.
    fn topic_like(filter: &str, fill: &[&str]) -> String {
        let mut fill = fill.iter().cycle();
        let levels = filter.split('/').map(|level| match level {
            "+" | "#" => *fill.next().expect("an endless iterator"),
            level => level,
        });
        levels.collect::<Vec<_>>().join("/")
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_matches(
            filters in prop::collection::btree_set(filter(), 0..60),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..20),
            fill in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ""]), 1..6),
            seed in any::<u64>(),
        ) {
            let mut filters: Vec<String> = filters.into_iter().collect();
            let mut held = Filters::new(Keys::from_seed(seed));
            for filter in &filters {
                held.insert(filter.as_str().into(), filter.clone());
            }
            let like = filters.iter().map(|filter| topic_like(filter, &fill));
            let topics: Vec<String> =
                topics.into_iter().map(|topic| topic.join("/").replace('+', "c")).chain(like).filter(|topic| !topic.is_empty()).collect();
            for gone in gone {
                if !filters.is_empty() {
                    let gone = filters.remove(gone.index(filters.len()));
                    prop_assert_eq!(held.remove(&gone), Some(gone));
                }
            }
            prop_assert_eq!(held.len(), filters.len());
            for topic in topics {
                let mut found = Vec::new();
                held.each_match(&topic, |filter| found.push(filter.clone()));
                found.sort();
                let expected: Vec<String> =
                    filters.iter().filter(|filter| protocol::topic::matches(filter, &topic)).cloned().collect();
                prop_assert_eq!(found, expected, "{}", topic);
            }
            for filter in filters {
                prop_assert_eq!(held.get(&filter), Some(&filter));
                held.remove(&filter);
            }
            prop_assert!(held.is_empty() && held.heap_bytes() == 0);
        }
    }

    /// The most look-ups that the head of this file allows.
    fn bound(levels: usize, in_blocks: usize) -> usize {
        1 + 255 * (levels + 3) + in_blocks.div_ceil(blocks::WIDTH) * (3 * levels + 4)
    }

    fn with_plus(mask: usize, levels: usize, last: &str) -> String {
        let level = |at: usize| if mask >> at & 1 == 1 { "+".to_owned() } else { format!("q{at}") };
        (0..levels).map(level).chain([last.to_owned()]).collect::<Vec<_>>().join("/")
    }

    /// Filters with `+` in all combinations of places, of which a topic fits every level but the last.
    #[test]
    fn a_topic_that_nearly_matches_thousands_of_filters_costs_a_bounded_number_of_look_ups() {
        for (levels, filters) in [(8, 1 << 8), (12, 1 << 12), (15, 1 << 15)] {
            let mut held = Filters::new(Keys::from_seed(3));
            for mask in 0..filters {
                held.insert(with_plus(mask, levels, "x").into(), mask);
            }
            let near = with_plus(0, levels, "y");
            let mut matches = 0;
            let looked_up = held.search(&near, |_| matches += 1);
            assert_eq!(matches, 0);
            assert!(looked_up <= bound(levels + 1, filters), "{levels} levels: {looked_up}");
            assert!(looked_up < 4000, "{levels} levels: {looked_up}");
            held.search(&with_plus(0, levels, "x"), |_| matches += 1);
            assert_eq!(matches, filters);
        }
    }

    /// The same with `#` behind every number of levels, and with topics of the greatest depth: of one byte a level, and of
    /// none.
    #[test]
    fn many_levels_and_open_ends_stay_within_the_bound() {
        stays_within_the_bound("a", 128);
        stays_within_the_bound("", 256);
    }

    fn stays_within_the_bound(level: &str, depth: usize) {
        let mut held = Filters::new(Keys::from_seed(3));
        let deep = vec![level; depth].join("/");
        assert_eq!(deep.len(), 255);
        let mut filters = 0;
        for mask in 0..256_usize {
            for end in (8..60).step_by(3) {
                let levels: Vec<&str> = (0..end).map(|at| if mask >> at & 1 == 1 { "+" } else { level }).collect();
                held.insert(format!("{}/z/#", levels.join("/")).into(), 0);
                filters += 1;
            }
        }
        let mut matches = 0;
        let looked_up = held.search(&deep, |_| matches += 1);
        assert_eq!(matches, 0);
        assert!(looked_up <= bound(depth, filters), "{looked_up}");
    }

    #[test]
    fn what_is_on_the_heap_grows_with_the_filters_and_goes_with_them() {
        let mut held = Filters::new(Keys::from_seed(1));
        let filters: Vec<String> = (0..2000).map(|n| with_plus(n, 11, "x")).collect();
        for filter in &filters {
            held.insert(filter.as_str().into(), ());
        }
        assert!(held.heap_bytes() > 2000 * 40);
        for filter in &filters {
            held.remove(filter);
        }
        assert_eq!(held.heap_bytes(), 0);
    }
}
