//! The topics of one sequencer, by their ids: their records side by side, and a table of their places.
//!
//! There may be millions of topics. A hash table has up to twice as many buckets as entries, so its buckets are small: a
//! record is found in two steps, and looked for once per request ([`Topics::find_or_insert`]).
//!
//! Invariants: every record has one place in the table; records have no holes, so a removal moves the last one.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::ids::TopicId;
use crate::sequencer::topic::Topic;

/// Room for fewer topics is not given back.
const ROOM_LEAST: usize = 1024;

/// Where a topic's record is, until one is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u32);

/// See the file's head.
#[derive(Default, Debug)]
pub(super) struct Topics {
    places: HashTable<u32>,
    records: Vec<Topic>,
}

impl Topics {
    /// Where a topic is.
    pub(super) fn find(&self, id: TopicId) -> Option<Place> {
        self.places.find(hash(id), |&place| self.records[place as usize].id() == id).copied().map(Place)
    }

    /// Where a topic is, which is made if it is new.
    pub(super) fn find_or_insert(&mut self, id: TopicId, make: impl FnOnce() -> Topic) -> Place {
        if let Some(place) = self.find(id) {
            return place;
        }
        let place = u32::try_from(self.records.len()).expect("fewer topics than bytes of names");
        self.records.push(make());
        self.places.insert_unique(hash(id), place, |&place| hash(self.records[place as usize].id()));
        Place(place)
    }

    pub(super) fn get(&self, id: TopicId) -> Option<&Topic> {
        self.find(id).map(|place| &self[place])
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.find(id).map(|place| &mut self[place])
    }

    /// Removes a topic. Cost: constant, averaged over all that are removed.
    pub(super) fn remove(&mut self, id: TopicId) -> Option<Topic> {
        let Place(place) = self.find(id)?;
        let last = self.records.len() as u32 - 1;
        let moved = self.records[last as usize].id();
        self.places.find_entry(hash(id), |known| *known == place).ok()?.remove();
        if place != last {
            *self.places.find_mut(hash(moved), |known| *known == last)? = place;
        }
        let removed = self.records.swap_remove(place as usize);
        let room = self.records.len() * 2;
        if room >= ROOM_LEAST && room * 2 < self.records.capacity() {
            self.records.shrink_to(room);
            self.places.shrink_to(room, |&place| hash(self.records[place as usize].id()));
        }
        Some(removed)
    }

    /// Every topic, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.records.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}

impl Index<Place> for Topics {
    type Output = Topic;

    fn index(&self, Place(place): Place) -> &Topic {
        &self.records[place as usize]
    }
}

impl IndexMut<Place> for Topics {
    fn index_mut(&mut self, Place(place): Place) -> &mut Topic {
        &mut self.records[place as usize]
    }
}

fn hash(id: TopicId) -> u64 {
    FxBuildHasher.hash_one(id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::Epoch;
    use crate::topics::registry::Registry;

    proptest! {
        /// However topics come and go: each that was not removed is found with its record, and none besides.
        #[test]
        fn what_is_found_is_what_a_map_has(steps in prop::collection::vec((0..40_u64, any::<bool>()), 1..400)) {
            let registry = Registry::new(1, 1);
            let names: Vec<_> = (0..40).map(|n| registry.resolve(&format!("t{n}"))).collect();
            let (mut topics, mut model) = (Topics::default(), BTreeMap::new());
            for (epoch, (n, remove)) in (1..).map(Epoch).zip(steps) {
                let name = &names[n as usize];
                if remove {
                    let removed = topics.remove(name.id).map(|topic| topic.epoch);
                    prop_assert_eq!(removed, model.remove(&name.id));
                } else {
                    let place = topics.find_or_insert(name.id, || Topic::new(name.clone(), epoch));
                    prop_assert_eq!(topics[place].epoch, *model.entry(name.id).or_insert(epoch));
                }
                prop_assert_eq!(topics.len(), model.len());
                for name in &names {
                    let found = topics.get(name.id).map(|topic| topic.epoch);
                    prop_assert_eq!(found, model.get(&name.id).copied());
                }
            }
        }
    }

    #[test]
    fn room_is_given_back() {
        let registry = Registry::new(1, 1);
        let mut topics = Topics::default();
        let names: Vec<_> = (0..10_000).map(|n| registry.resolve(&format!("t{n}"))).collect();
        names.iter().for_each(|name| {
            topics.find_or_insert(name.id, || Topic::new(name.clone(), Epoch(name.id.0)));
        });
        for (left, name) in (0..names.len()).rev().zip(&names) {
            assert_eq!(topics.remove(name.id).map(|topic| topic.epoch), Some(Epoch(name.id.0)));
            assert!(topics.records.capacity() <= (left * 4).max(4 * ROOM_LEAST), "{left}");
            assert!(topics.places.capacity() <= (left * 8).max(8 * ROOM_LEAST), "{left}");
        }
    }
}
