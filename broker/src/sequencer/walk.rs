//! The state that a new subscriber of a filter is shown, topic by topic, so many at a time.
//!
//! A walk goes through the topics with state in the order of their names, from where the last part ended. What is published
//! after the walk began is not part of it: the subscriber is delivered that live.
//!
//! Cost of a part: the topics that are looked at, at most `TOPICS_PER_PART`.

use std::ops::Bound;
use std::sync::Arc;

use ring::Nanos;

use crate::message::Message;
use crate::sequencer::{ByName, Sequencer};

/// Topics that one part looks at.
const TOPICS_PER_PART: usize = 1000;
/// A part ends once its messages have so many bytes.
const PART_BYTES: u64 = 256 << 10;

/// How far a walk has got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalkPlace {
    /// The topic that was looked at last; empty: none was.
    pub after: Arc<str>,
    /// What was sequenced later than this is not part of the walk; `None`: it begins now.
    pub began_at: Option<Nanos>,
}

impl Default for WalkPlace {
    /// The beginning.
    fn default() -> Self {
        Self { after: "".into(), began_at: None }
    }
}

/// A part of a walk.
#[derive(Debug)]
pub struct WalkPart {
    /// State of topics that match the filter.
    pub state: Vec<Arc<Message>>,
    /// Where to go on; `None`: that was all.
    pub next: Option<WalkPlace>,
}

impl Sequencer {
    /// The part of a walk that begins at `place`.
    pub fn walk(&mut self, filter: &str, place: &WalkPlace, now: Nanos) -> WalkPart {
        let began_at = place.began_at.unwrap_or(self.last_at);
        let prefix = literal_prefix(filter);
        let from = match place.after.is_empty() {
            true => Bound::Included(prefix),
            false => Bound::Excluded(&*place.after),
        };
        let (mut state, mut bytes, mut last) = (Vec::new(), 0, None);
        let range = self.stateful.range::<str, _>((from, Bound::Unbounded));
        for (looked_at, ByName(topic)) in range.take_while(|ByName(topic)| topic.name.starts_with(prefix)).enumerate() {
            if looked_at == TOPICS_PER_PART || bytes >= PART_BYTES {
                let next = last.map(|after| WalkPlace { after, began_at: Some(began_at) });
                return WalkPart { state, next };
            }
            last = Some(Arc::clone(&topic.name));
            if !protocol::topic::matches(filter, &topic.name) {
                continue;
            }
            let Some(held) = self.topics.get_mut(topic.id) else { continue };
            for message in held.history.shown(now).iter().filter(|message| message.sequenced_at <= began_at) {
                bytes += message.weight();
                state.push(Arc::clone(message));
            }
        }
        WalkPart { state, next: None }
    }
}

/// What the name of every topic begins with that the filter matches.
fn literal_prefix(filter: &str) -> &str {
    let wild = filter.find(['+', '#']).unwrap_or(filter.len());
    filter[..wild].trim_end_matches('/')
}
