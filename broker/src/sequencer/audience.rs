//! How many subscriptions a topic has: its own, and those to filters with wildcards that match it.
//!
//! Asked for messages whose publisher wants to know; others cost nothing here. The numbers themselves are counted by the
//! shards that have the subscriptions ([`Topic::subscriptions`]); which filters match is remembered for the topics that were
//! asked for last, until a filter comes or goes at this sequencer.
//!
//! Cost: a load per filter that matches; a search as [`Filters`] describes for a topic that is not remembered.
//!
//! Bounds: [`TOPICS_MAX`] topics are remembered, with [`MATCHES_MAX`] filters each; one that more filters match is looked for
//! each time, which its deliveries outweigh. Filters are remembered by weak references: they may go, and what is left of
//! one's memory then, half a megabyte of a shard at most, goes when its place is used again.
//!
//! [`Filters`]: crate::topics::filters::Filters

use std::sync::Weak;

use crate::ids::TopicId;
use crate::sequencer::wanted::Joined;
use crate::topics::matches::Version;
use crate::topics::registry::Topic;

/// Topics that are remembered: one for each remainder of their ids.
const TOPICS_MAX: usize = 256;
/// Filters that are remembered of one topic.
const MATCHES_MAX: usize = 16;

/// See the file's head. Empty until it is asked for the first time.
#[derive(Default, Debug)]
pub(super) struct Audience {
    found: Vec<Option<Found>>,
}

/// The filters that match a topic, as of a version of the filters.
#[derive(Debug)]
struct Found {
    topic: TopicId,
    version: Version,
    filters: Box<[Weak<Topic>]>,
}

impl Audience {
    /// Subscriptions in force that match `topic`. `version` changes with `filters`.
    pub(super) fn of(&mut self, topic: &Topic, filters: &Joined, version: Version) -> u32 {
        let own = topic.subscriptions();
        if filters.is_empty() {
            return own;
        }
        if self.found.is_empty() {
            self.found.resize_with(TOPICS_MAX, || None);
        }
        let place = &mut self.found[(topic.id.0 % TOPICS_MAX as u64) as usize];
        if let Some(found) = place.as_ref().filter(|found| found.topic == topic.id && found.version == version) {
            let filters = found.filters.iter().filter_map(Weak::upgrade);
            return filters.fold(own, |sum, filter| sum.saturating_add(filter.subscriptions()));
        }
        let (mut sum, mut matching) = (own, Vec::new());
        filters.each_match(&topic.name, |(filter, _)| {
            sum = sum.saturating_add(filter.subscriptions());
            if matching.len() <= MATCHES_MAX {
                matching.push(filter.downgrade());
            }
        });
        *place = (matching.len() <= MATCHES_MAX).then(|| Found {
            topic: topic.id,
            version,
            filters: matching.into_boxed_slice(),
        });
        sum
    }
}
