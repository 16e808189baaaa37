//! Filters with wildcards, found by the topics that they match.
//!
//! Filters that have their wildcards in the same places are one *shape*. A topic is compared with shapes, not
//! with filters: of each shape only one filter can match it, the one that reads like the topic with the
//! wildcards put in. So a match costs one look-up per shape that fits the topic's number of levels, however
//! many filters there are: a handful with usual filters, and whoever means harm gets at most `2^levels`.
//! Not responsible for the grammar (`protocol::topic`).

use std::sync::Arc;

use rustc_hash::FxHashMap;

/// Filters, each with a value.
#[derive(Debug)]
pub struct Filters<V> {
    held: FxHashMap<Arc<str>, V>,
    /// Shapes in use, by length; each with the number of its filters.
    shapes: FxHashMap<Length, FxHashMap<Places, usize>>,
}

/// Levels of a filter before a `#`, and whether there is one.
type Length = (usize, bool);
/// Which of those levels are `+`.
type Places = Box<[usize]>;

impl<V> Default for Filters<V> {
    fn default() -> Self {
        Self { held: FxHashMap::default(), shapes: FxHashMap::default() }
    }
}

impl<V> Filters<V> {
    /// Adds a filter that is not there yet.
    pub fn insert(&mut self, filter: Arc<str>, value: V) {
        let (length, places) = shape(&filter);
        *self.shapes.entry(length).or_default().entry(places).or_default() += 1;
        let before = self.held.insert(filter, value);
        assert!(before.is_none(), "a filter is added once");
    }

    /// Removes a filter, if it is there.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        let value = self.held.remove(filter)?;
        let (length, places) = shape(filter);
        let of_length = self.shapes.get_mut(&length).expect("a shape in use");
        let filters = of_length.get_mut(&places).expect("a shape in use");
        *filters -= 1;
        if *filters == 0 {
            of_length.remove(&places);
        }
        if of_length.is_empty() {
            self.shapes.remove(&length);
        }
        Some(value)
    }

    /// The value of this very filter.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        self.held.get_mut(filter)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Calls `found` with the value of every filter that matches `topic`.
    pub fn each_match(&self, topic: &str, mut found: impl FnMut(&V)) {
        if self.held.is_empty() {
            return;
        }
        let levels: Vec<&str> = topic.split('/').collect();
        let mut filter = String::with_capacity(topic.len() + 2);
        let whole = (levels.len(), false);
        for length in (0..=levels.len()).map(|before| (before, true)).chain([whole]) {
            for places in self.shapes.get(&length).into_iter().flat_map(FxHashMap::keys) {
                // The broker's own topics are not matched by a wildcard in first place.
                let first = places.first() == Some(&0) || length == (0, true);
                if first && protocol::topic::is_reserved(topic) {
                    continue;
                }
                read_as(&mut filter, &levels, length, places);
                self.held.get(filter.as_str()).into_iter().for_each(&mut found);
            }
        }
    }
}

fn shape(filter: &str) -> (Length, Places) {
    let (mut levels, mut hash, mut places) = (0, false, Vec::new());
    for level in filter.split('/') {
        match level {
            "#" => {
                hash = true;
                break;
            }
            "+" => places.push(levels),
            _ => {}
        }
        levels += 1;
    }
    ((levels, hash), places.into())
}

/// Writes the one filter of a shape that could match the topic with these levels.
fn read_as(filter: &mut String, levels: &[&str], (before, hash): Length, places: &[usize]) {
    filter.clear();
    let mut places = places.iter().copied().peekable();
    for (at, level) in levels[..before].iter().enumerate() {
        if at > 0 {
            filter.push('/');
        }
        filter.push_str(if places.next_if_eq(&at).is_some() { "+" } else { level });
    }
    if hash {
        filter.push_str(if before > 0 { "/#" } else { "#" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "+", "$x"])
    }

    fn filter() -> impl Strategy<Value = String> {
        (prop::collection::vec(level(), 0..4), any::<bool>()).prop_map(|(mut levels, hash)| {
            if hash || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_matches(
            filters in prop::collection::btree_set(filter(), 0..40),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..20),
        ) {
            let mut filters: Vec<String> = filters.into_iter().collect();
            let mut held = Filters::default();
            for filter in &filters {
                held.insert(filter.as_str().into(), filter.clone());
            }
            for gone in gone {
                if !filters.is_empty() {
                    let gone = filters.remove(gone.index(filters.len()));
                    prop_assert_eq!(held.remove(&gone), Some(gone));
                }
            }
            for topic in topics {
                let topic = topic.join("/").replace('+', "c");
                let mut found = Vec::new();
                held.each_match(&topic, |filter| found.push(filter.clone()));
                found.sort();
                let expected: Vec<String> =
                    filters.iter().filter(|filter| protocol::topic::matches(filter, &topic)).cloned().collect();
                prop_assert_eq!(found, expected, "{}", topic);
            }
            for filter in filters {
                held.remove(&filter);
            }
            prop_assert!(held.is_empty() && held.shapes.is_empty());
        }
    }
}
