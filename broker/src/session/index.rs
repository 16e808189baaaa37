//! What a connection with more than a few subscriptions keeps to find them.
//!
//! It answers, without looking at all of them: which one has a certain filter, which ones match a topic, where the next
//! one goes, and whether two may match the same topic. The last is answered on the safe side: two filters may overlap
//! if the literal levels before the first wildcard of one begin those of the other. As long as no such pair exists, the
//! neighbours of a new filter in the order of these levels decide for all: between a filter and whatever begins with its
//! levels, everything begins with them.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::mem::size_of;
use std::ops::Bound;
use std::sync::Arc;

use crate::topics::filters::Filters;
use crate::topics::keys::Keys;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Index {
    /// Keys of subscriptions, by filter.
    pub(crate) keys: Filters<u32>,
    /// Places without a subscription.
    pub(crate) free: Vec<u32>,
    /// The filters in force, no two of which can match the same topic.
    apart: BTreeSet<Literal>,
}

/// A filter, in the order of its levels before the first wildcard.
#[derive(Debug)]
struct Literal(Arc<str>);

impl Index {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys: Filters::new(keys), free: Vec::new(), apart: BTreeSet::new() }
    }

    /// A filter comes into force. Whether it may match a topic that another in force matches; from then on there is
    /// nothing more to ask.
    pub(crate) fn overlaps(&mut self, filter: &Arc<str>) -> bool {
        let new = Literal(Arc::clone(filter));
        let before = self.apart.range(..=&new).next_back();
        let behind = self.apart.range((Bound::Excluded(&new), Bound::Unbounded)).next();
        if before.into_iter().chain(behind).any(|other| new.may_overlap(other)) {
            self.apart = BTreeSet::new();
            return true;
        }
        self.apart.insert(new);
        false
    }

    /// A filter is no longer in force.
    pub(crate) fn forget(&mut self, filter: &Arc<str>) {
        if self.apart.first().is_some() {
            self.apart.remove(&Literal(Arc::clone(filter)));
        }
    }

    /// Bytes on the heap and of this record.
    pub(crate) fn heap_bytes(&self) -> usize {
        // A node of the ordered set has room for eleven, and half of that is used at least.
        let apart = self.apart.len() * 2 * size_of::<Literal>();
        size_of::<Self>() + self.keys.heap_bytes() + self.free.capacity() * size_of::<u32>() + apart
    }
}

impl Literal {
    fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').take_while(|level| !matches!(*level, "+" | "#"))
    }

    fn is_wildcard(&self) -> bool {
        protocol::topic::is_wildcard(&self.0)
    }

    fn may_overlap(&self, other: &Self) -> bool {
        let (mut here, mut there) = (self.levels(), other.levels());
        loop {
            match (here.next(), there.next()) {
                (None, None) => return self.is_wildcard() || other.is_wildcard(),
                (None, Some(_)) => return self.is_wildcard(),
                (Some(_), None) => return other.is_wildcard(),
                (Some(here), Some(there)) if here != there => return false,
                _ => {}
            }
        }
    }
}

impl Ord for Literal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.levels().cmp(other.levels())
    }
}

impl PartialOrd for Literal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Literal {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "c", "", "+"]);
        (prop::collection::vec(level, 1..5), any::<bool>()).prop_map(|(mut levels, open)| {
            if open || levels == [""] {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        /// It may say that filters overlap which do not, never the reverse; and it says what asking each pair would.
        #[test]
        fn neighbours_decide_as_all_pairs_would(
            filters in prop::collection::btree_set(filter(), 1..12)
                .prop_map(|filters| filters.into_iter().collect::<Vec<_>>()).prop_shuffle(),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut index = Index::new(Keys::from_seed(1));
            let mut held: Vec<Arc<str>> = Vec::new();
            let mut gone = gone.into_iter();
            for filter in filters {
                let filter: Arc<str> = filter.into();
                let new = Literal(Arc::clone(&filter));
                let expected = held.iter().any(|other| new.may_overlap(&Literal(Arc::clone(other))));
                let exact = held.iter().any(|other| protocol::topic::overlap(other, &filter));
                prop_assert!(expected || !exact, "{:?} {}", held, filter);
                prop_assert_eq!(index.overlaps(&filter), expected, "{:?} {}", held, filter);
                if expected {
                    break;
                }
                held.push(filter);
                if held.len() > 2 && let Some(at) = gone.next() {
                    let gone = held.swap_remove(at.index(held.len()));
                    index.forget(&gone);
                }
            }
        }
    }
}
