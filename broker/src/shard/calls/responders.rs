//! The index of those who serve topics, a full copy on every shard: from a topic to the responder whose turn it is.
//!
//! Of the filters that match a topic the most specific comes first, as [`compare`] has it; of those who serve the same filter,
//! each in turn. A shard takes turns by itself, and begins with its own connections: so the shards' first requests do not all
//! go to the same one.
//!
//! Cost of a choice: that of the matching filters ([`Filters`]), their sorting, and logarithmic in the responders of one filter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use ring::ConnId;

use crate::ids::ShardId;
use crate::shard::calls::parcels::Place;
use crate::topics::filters::{Filters, filter_bytes};
use crate::topics::keys::Keys;
use crate::topics::rules::compare;

/// What one responder of a filter takes, its two places in sets included, in bytes.
const RESPONDER_BYTES: u64 = 160;
/// What a filter takes besides its part of [`Filters`], in bytes.
const FILTER_BYTES: u64 = 160;

/// See the file's head.
pub(super) struct Responders {
    own: ShardId,
    filters: Filters<Served>,
    len: usize,
    bytes: u64,
}

/// Those who serve one filter.
#[derive(Debug)]
struct Served {
    filter: Arc<str>,
    /// With the member that each is.
    members: BTreeMap<Place, Option<Arc<str>>>,
    turn: Turn,
    of_member: BTreeMap<Arc<str>, (BTreeSet<Place>, Turn)>,
}

/// Whose turn it is: the first from here on, in a circle.
#[derive(Clone, Copy, Debug)]
struct Turn(Bound<Place>);

impl Turn {
    /// The first of `places` that was not tried. `places` gives those in a range, in their order.
    fn next<'a, I>(&mut self, places: impl Fn((Bound<Place>, Bound<Place>)) -> I, tried: &[Place]) -> Option<Place>
    where
        I: Iterator<Item = &'a Place>,
    {
        let up_to_here = match self.0 {
            Bound::Included(place) => Bound::Excluded(place),
            Bound::Excluded(place) => Bound::Included(place),
            Bound::Unbounded => Bound::Unbounded,
        };
        let later = places((self.0, Bound::Unbounded));
        let mut all = later.chain(places((Bound::Unbounded, up_to_here)));
        let next = *all.find(|place| !tried.contains(place))?;
        self.0 = Bound::Excluded(next);
        Some(next)
    }
}

impl Responders {
    pub(super) fn new(own: ShardId, keys: Keys) -> Self {
        Self { own, filters: Filters::new(keys), len: 0, bytes: 0 }
    }

    /// How many there are, each once for every filter that it serves.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a registration takes on one shard at most, in bytes.
    pub(super) fn bytes_for(filter: &str) -> u64 {
        RESPONDER_BYTES + Self::filter_bytes(filter)
    }

    fn filter_bytes(filter: &str) -> u64 {
        FILTER_BYTES + filter_bytes(filter) + filter.len() as u64
    }

    /// A connection serves a filter, as this member; if it did before, perhaps as another one.
    pub(super) fn add(&mut self, filter: &str, place: Place, member: Option<Arc<str>>) {
        self.remove(filter, place);
        let first = Turn(Bound::Included((self.own, ConnId { slot: 0, generation: 0 })));
        if self.filters.get(filter).is_none() {
            // Not the same allocation as on other shards: nobody else counts references to it.
            let filter: Arc<str> = filter.into();
            let served = Served {
                filter: Arc::clone(&filter),
                members: BTreeMap::new(),
                turn: first,
                of_member: BTreeMap::new(),
            };
            self.bytes += Self::filter_bytes(&filter);
            self.filters.insert(filter, served);
        }
        let served = self.filters.get_mut(filter).expect("inserted above");
        if let Some(member) = &member {
            let of_member = served.of_member.entry(Arc::clone(member));
            of_member.or_insert_with(|| (BTreeSet::new(), first)).0.insert(place);
        }
        served.members.insert(place, member);
        self.bytes += RESPONDER_BYTES;
        self.len += 1;
    }

    /// A connection serves a filter no longer.
    pub(super) fn remove(&mut self, filter: &str, place: Place) {
        let Some(served) = self.filters.get_mut(filter) else { return };
        let Some(member) = served.members.remove(&place) else { return };
        self.bytes -= RESPONDER_BYTES;
        self.len -= 1;
        if let Some(member) = member
            && let Some((places, _)) = served.of_member.get_mut(&member)
        {
            places.remove(&place);
            if places.is_empty() {
                served.of_member.remove(&member);
            }
        }
        if served.members.is_empty() {
            self.filters.remove(filter);
            self.bytes -= Self::filter_bytes(filter);
        }
    }

    /// Whose turn it is to answer a request for `topic`, as this member if one is given, of those who have not been tried;
    /// with the filter.
    pub(super) fn next(&mut self, topic: &str, to: Option<&str>, tried: &[Place]) -> Option<(Place, Arc<str>)> {
        let mut matching: Vec<Arc<str>> = Vec::new();
        self.filters.each_match(topic, |served| matching.push(Arc::clone(&served.filter)));
        // The greater one wins.
        matching.sort_unstable_by(|a, b| compare(b, a));
        for filter in matching {
            let served = self.filters.get_mut(&filter).expect("it matched");
            let next = match to {
                None => served.turn.next(|range| served.members.range(range).map(|(place, _)| place), tried),
                Some(member) => served
                    .of_member
                    .get_mut(member)
                    .and_then(|(places, turn)| turn.next(|range| places.range(range), tried)),
            };
            if let Some(place) = next {
                return Some((place, filter));
            }
        }
        None
    }

    /// Whether what is counted is there. Linear in everything.
    pub(super) fn invariants(&self) -> Result<(), String> {
        match self.filters.is_empty() && self.bytes != 0 {
            true => Err(format!("responders: {} bytes of none", self.bytes)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn place(shard: u16, slot: u32) -> Place {
        (ShardId(shard), ConnId { slot, generation: 0 })
    }

    fn index(own: u16, registered: &[(&str, Place, Option<&str>)]) -> Responders {
        let mut index = Responders::new(ShardId(own), Keys::from_seed(1));
        for &(filter, place, member) in registered {
            index.add(filter, place, member.map(Into::into));
        }
        index
    }

    fn asked(index: &mut Responders, topic: &str, times: usize) -> Vec<u32> {
        let next = |_| index.next(topic, None, &[]).expect("somebody").0.1.slot;
        (0..times).map(next).collect()
    }

    #[test]
    fn the_most_specific_filter_comes_first() {
        let order = ["points/3", "points/+", "points/#", "+/3", "#"];
        let registered: Vec<_> = order.iter().zip(0..).map(|(&filter, slot)| (filter, place(0, slot), None)).collect();
        let mut index = index(0, &registered);
        let mut tried = Vec::new();
        for expected in order {
            let (place, filter) = index.next("points/3", None, &tried).expect("one more");
            assert_eq!(&*filter, expected);
            tried.push(place);
        }
        assert!(index.next("points/3", None, &tried).is_none());
        assert_eq!(index.next("points/3/4", None, &[]).map(|(_, filter)| filter), Some("points/#".into()));
    }

    #[test]
    fn those_of_one_filter_are_asked_in_turn_beginning_with_the_own_shard() {
        let all =
            [("a", place(0, 1), None), ("a", place(1, 2), None), ("a", place(1, 3), None), ("a", place(2, 4), None)];
        assert_eq!(asked(&mut index(0, &all), "a", 5), [1, 2, 3, 4, 1]);
        let mut index = index(1, &all);
        assert_eq!(asked(&mut index, "a", 3), [2, 3, 4]);
        index.remove("a", place(0, 1));
        assert_eq!(asked(&mut index, "a", 2), [2, 3], "who goes takes nobody's turn");
        // One that refuses is passed over, and the turn goes on behind the one who takes it.
        assert_eq!(index.next("a", None, &[place(2, 4)]).map(|(place, _)| place), Some(place(1, 2)));
        assert_eq!(asked(&mut index, "a", 1), [3]);
    }

    #[test]
    fn a_member_is_asked_by_its_name() {
        let (ada, bob) = (Some("ada"), Some("bob"));
        let all = [("#", place(0, 1), ada), ("a", place(0, 2), bob), ("#", place(0, 3), ada), ("#", place(0, 4), None)];
        let mut index = index(0, &all);
        let mut to = |member| index.next("a", Some(member), &[]).map(|((_, conn), _)| conn.slot);
        assert_eq!([to("ada"), to("bob"), to("ada"), to("ada"), to("eve")], [Some(1), Some(2), Some(3), Some(1), None]);
        index.add("#", place(0, 1), None);
        let mut to = |member| index.next("a", Some(member), &[]).map(|((_, conn), _)| conn.slot);
        assert_eq!([to("ada"), to("ada")], [Some(3), Some(3)], "one is known as nobody in particular now");
    }

    proptest! {
        /// Against a list that is searched from end to end; and with everybody gone nothing is left.
        #[test]
        fn it_finds_what_a_list_would(
            steps in prop::collection::vec((0..4_usize, 0..3_u16, 0..4_u32, 0..3_usize, any::<bool>()), 1..60),
        ) {
            let filters = ["a/b", "a/+", "#", "c"];
            let members = [None, Some("ada"), Some("bob")];
            let mut index = index(1, &[]);
            let mut list = BTreeMap::new();
            for (filter, shard, slot, member, add) in steps {
                let (filter, place, member) = (filters[filter], place(shard, slot), members[member]);
                if add {
                    index.add(filter, place, member.map(Into::into));
                    list.insert((filter, place), member);
                } else {
                    index.remove(filter, place);
                    list.remove(&(filter, place));
                }
                for to in members {
                    let suits = |&(&(filter, _), &member): &(&(&str, Place), &Option<&str>)| {
                        filter != "c" && (to.is_none() || member == to)
                    };
                    let best = list.iter().filter(suits).map(|(&(filter, _), _)| filter).max_by(|a, b| compare(a, b));
                    let mut tried = Vec::new();
                    let first = index.next("a/b", to, &[]);
                    prop_assert_eq!(first.as_ref().map(|(_, filter)| &**filter), best);
                    while let Some((place, _)) = index.next("a/b", to, &tried) {
                        prop_assert!(!tried.contains(&place));
                        tried.push(place);
                    }
                    let all: BTreeSet<_> = list.iter().filter(suits).map(|(&(_, place), _)| place).collect();
                    prop_assert_eq!(tried.into_iter().collect::<BTreeSet<_>>(), all);
                }
                prop_assert!(index.invariants().is_ok());
            }
            for (filter, place) in list.into_keys() {
                index.remove(filter, place);
            }
            prop_assert_eq!(index.bytes(), 0);
        }
    }
}
