//! Which filters match a topic, remembered for the topics that messages came for.
//!
//! A filter that comes or goes does not throw away what is known: the latest changes are kept ([`Changes`]), and what
//! is known of a topic is brought up to date, when its next message comes, by comparing the topic with those filters
//! alone. Only what is older than the changes kept is looked for anew.
//!
//! Bounds: `TOPICS_MAX` topics and `VALUES_MAX` matches are remembered; beyond that the oldest go, one for each
//! that comes.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::ids::TopicId;
use crate::topics::filters::Filters;
use crate::topics::keys::Keys;

/// Changes that are kept: comparing a topic with so many filters costs about as much as looking for all that match.
const CHANGES_MAX: usize = 128;
/// Topics that are remembered.
const TOPICS_MAX: usize = 64 << 10;
/// Their matches, all together.
const VALUES_MAX: usize = 1 << 20;

/// Counts changes of filters from the first; another number means that something changed.
pub type Version = u64;

/// A filter that came or went.
#[derive(Clone, Debug)]
pub struct Change<V> {
    /// Which one.
    pub filter: Arc<str>,
    /// Its value.
    pub value: V,
    /// It came; else it went.
    pub added: bool,
}

/// The latest changes of a set of filters.
#[derive(Debug)]
pub struct Changes<V> {
    version: Version,
    latest: VecDeque<Change<V>>,
}

impl<V> Default for Changes<V> {
    fn default() -> Self {
        Self { version: 0, latest: VecDeque::new() }
    }
}

impl<V> Changes<V> {
    /// A filter came or went.
    pub fn push(&mut self, change: Change<V>) {
        self.version += 1;
        if self.latest.len() == CHANGES_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(change);
    }

    /// How many there were.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What changed since `version`, oldest first; `None` if that is too long ago.
    #[must_use]
    pub fn since(&self, version: Version) -> Option<impl Iterator<Item = &Change<V>>> {
        let missed = usize::try_from(self.version - version).ok()?;
        let skip = self.latest.len().checked_sub(missed)?;
        Some(self.latest.range(skip..))
    }
}

/// Filters, each with a value, and which of them match the topics of the latest messages.
#[derive(Debug)]
pub struct Matches<V> {
    filters: Filters<V>,
    changes: Changes<V>,
    known: FxHashMap<TopicId, Known<V>>,
    /// The topics of `known`, oldest first.
    order: VecDeque<TopicId>,
    /// The matches in `known`.
    values: usize,
    topics_max: usize,
    values_max: usize,
}

#[derive(Debug)]
struct Known<V> {
    values: Arc<[V]>,
    version: Version,
}

impl<V: Copy + PartialEq> Matches<V> {
    /// No filters yet. Their levels are hashed under `keys`.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            filters: Filters::new(keys),
            changes: Changes::default(),
            known: FxHashMap::default(),
            order: VecDeque::new(),
            values: 0,
            topics_max: TOPICS_MAX,
            values_max: VALUES_MAX,
        }
    }

    /// Adds a filter that is not there yet.
    pub fn insert(&mut self, filter: Arc<str>, value: V) {
        self.filters.insert(Arc::clone(&filter), value);
        self.changes.push(Change { filter, value, added: true });
    }

    /// Removes a filter, if it is there.
    pub fn remove(&mut self, filter: &Arc<str>) {
        if let Some(value) = self.filters.remove(filter) {
            self.changes.push(Change { filter: Arc::clone(filter), value, added: false });
        }
    }

    /// Whether there are no filters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The values of all filters that match a topic, by reference. Cost: one look-up if no filter changed since the
    /// topic's last message, else one comparison per change, or a search as [`Filters`] describes.
    pub fn of(&mut self, id: TopicId, topic: &str) -> Arc<[V]> {
        if self.filters.is_empty() {
            return Arc::default();
        }
        let version = self.changes.version();
        if let Some(known) = self.known.get_mut(&id) {
            if known.version != version {
                let before = known.values.len();
                match self.changes.since(known.version) {
                    Some(changes) => bring_up_to_date(&mut known.values, topic, changes),
                    None => known.values = find(&self.filters, topic),
                }
                known.version = version;
                self.values = self.values - before + known.values.len();
            }
            return Arc::clone(&known.values);
        }
        let values = find(&self.filters, topic);
        self.values += values.len();
        self.known.insert(id, Known { values: Arc::clone(&values), version });
        self.order.push_back(id);
        while self.known.len() > self.topics_max || self.values > self.values_max {
            let Some(oldest) = self.order.pop_front() else { break };
            let gone = self.known.remove(&oldest).expect("known and in order");
            self.values -= gone.values.len();
        }
        values
    }
}

fn find<V: Copy>(filters: &Filters<V>, topic: &str) -> Arc<[V]> {
    let mut values = Vec::new();
    filters.each_match(topic, |&value| values.push(value));
    values.into()
}

fn bring_up_to_date<'a, V: Copy + PartialEq + 'a>(
    values: &mut Arc<[V]>,
    topic: &str,
    changes: impl Iterator<Item = &'a Change<V>>,
) {
    let mut changed: Option<Vec<V>> = None;
    for change in changes.filter(|change| protocol::topic::matches(&change.filter, topic)) {
        let values = changed.get_or_insert_with(|| values.to_vec());
        if change.added {
            values.push(change.value);
        } else {
            values.retain(|value| *value != change.value);
        }
    }
    if let Some(changed) = changed {
        *values = changed.into();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add(u8),
        Remove(u8),
        /// Adds and removes a filter so often that all changes before are forgotten.
        Flood,
        Message(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..40_u8).prop_map(Step::Add),
            4 => (0..40_u8).prop_map(Step::Remove),
            1 => Just(Step::Flood),
            8 => (0..12_u8).prop_map(Step::Message),
        ]
    }

    fn filter(n: u8) -> Arc<str> {
        let level = |n: u8| ["+", "a", "b"][usize::from(n % 3)];
        let levels = [level(n), level(n / 3)].join("/");
        (if n.is_multiple_of(4) { format!("{levels}/#") } else { format!("{levels}/{}", level(n / 9)) }).into()
    }

    fn topic(n: u8) -> String {
        let level = |n: u8| ["a", "b", "c"][usize::from(n % 3)];
        format!("{}/{}/{}", level(n), level(n / 3), level(n / 5))
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_matches_now(steps in prop::collection::vec(step(), 1..120)) {
            let mut matches = Matches::new(Keys::from_seed(1));
            // So few that topics are forgotten as well.
            (matches.topics_max, matches.values_max) = (8, 40);
            let mut model: BTreeMap<Arc<str>, u32> = BTreeMap::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Add(n) if !model.contains_key(&filter(n)) => {
                        // Values are used again, as slots of logs are.
                        let value = (0..).find(|value| !model.values().any(|used| used == value)).unwrap();
                        next += 1;
                        matches.insert(filter(n), value);
                        model.insert(filter(n), value);
                    }
                    Step::Remove(n) => {
                        matches.remove(&filter(n));
                        model.remove(&filter(n));
                    }
                    Step::Flood => for _ in 0..CHANGES_MAX {
                        matches.insert("flood/#".into(), u32::MAX);
                        matches.remove(&"flood/#".into());
                    },
                    Step::Message(n) => {
                        let topic = topic(n);
                        let mut found = matches.of(TopicId(n.into()), &topic).to_vec();
                        found.sort_unstable();
                        let matching = model.iter().filter(|(filter, _)| protocol::topic::matches(filter, &topic));
                        let mut expected: Vec<u32> = matching.map(|(_, value)| *value).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(found, expected, "{} after {} filters", topic, next);
                    }
                    Step::Add(_) => {}
                }
                prop_assert!(matches.known.len() <= 8 && matches.known.len() == matches.order.len());
                let values: usize = matches.known.values().map(|known| known.values.len()).sum();
                prop_assert_eq!(matches.values, values);
            }
        }
    }

    #[test]
    fn a_filter_that_does_not_match_changes_nothing_of_what_is_known() {
        let mut matches = Matches::new(Keys::from_seed(1));
        matches.insert("a/+".into(), 1);
        let first = matches.of(TopicId(1), "a/b");
        for n in 0..50 {
            matches.insert(format!("x/{n}/#").into(), 2 + n);
        }
        let second = matches.of(TopicId(1), "a/b");
        assert!(Arc::ptr_eq(&first, &second), "the same list, not one made anew");
        assert_eq!(second[..], [1]);
    }

    #[test]
    fn the_oldest_topics_go_one_by_one() {
        let mut matches = Matches::new(Keys::from_seed(1));
        matches.topics_max = 4;
        matches.insert("#".into(), 1);
        for n in 0..10 {
            matches.of(TopicId(n), "t");
            assert_eq!(matches.known.len(), 4.min(n as usize + 1));
        }
        assert!(matches.known.contains_key(&TopicId(9)) && !matches.known.contains_key(&TopicId(5)));
    }
}
