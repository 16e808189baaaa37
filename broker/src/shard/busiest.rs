//! Which topics a shard's sequencer gave most messages and most bytes: counted for operators while they ask, every few seconds
//! anew.
//!
//! Bound: [`COUNTED_MAX`] topics between two questions. What is published to others meanwhile is not counted: a topic that is
//! busy is soon among the first. Cost: a test per message while nobody asks, else a look-up.

use std::cmp::Reverse;
use std::mem;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::ids::TopicId;
use crate::message::Message;
use crate::shard::shared::BusyTopic;

/// Topics that are counted between two questions.
const COUNTED_MAX: usize = 4096;
/// How many an answer has, by messages and again by bytes.
const BUSIEST_MAX: usize = 50;

/// See the file's head.
#[derive(Default, Debug)]
pub(super) struct Busiest {
    /// Since the last question; `None`: nobody asks.
    counted: Option<FxHashMap<TopicId, BusyTopic>>,
}

impl Busiest {
    /// A message got its place.
    pub(super) fn count(&mut self, message: &Message) {
        let Some(counted) = &mut self.counted else { return };
        let bytes = message.payload().bytes().len() as u64;
        if let Some(topic) = counted.get_mut(&message.topic_id) {
            topic.messages += 1;
            topic.bytes += bytes;
        } else if counted.len() < COUNTED_MAX {
            let topic = BusyTopic { name: Arc::clone(&message.topic), messages: 1, bytes };
            counted.insert(message.topic_id, topic);
        }
    }

    /// The busiest since the last question. If there will be another, counting begins anew.
    pub(super) fn take(&mut self, goes_on: bool) -> Vec<BusyTopic> {
        let counted = mem::replace(&mut self.counted, goes_on.then(FxHashMap::default)).unwrap_or_default();
        let mut busiest: Vec<BusyTopic> = counted.into_values().collect();
        busiest.sort_unstable_by(|a, b| (Reverse(a.messages), &a.name).cmp(&(Reverse(b.messages), &b.name)));
        let mut others = busiest.split_off(busiest.len().min(BUSIEST_MAX));
        others.sort_unstable_by(|a, b| (Reverse(a.bytes), &a.name).cmp(&(Reverse(b.bytes), &b.name)));
        others.truncate(BUSIEST_MAX);
        busiest.extend(others);
        busiest
    }
}

#[cfg(test)]
mod tests {
    use protocol::v1::PayloadKind;

    use super::*;
    use crate::capacity::budget::Budget;
    use crate::ids::Offset;
    use crate::message::Payload;

    fn message(topic: u64, bytes: usize, budget: &Budget) -> Message {
        let payload = Payload::copy_of(PayloadKind::Binary, &vec![0; bytes], budget.of_shard(0));
        Message::new((TopicId(topic), format!("t/{topic:04}").into()), Offset(1), payload, 0)
    }

    #[test]
    fn it_is_counted_only_while_somebody_asks() {
        let budget = Budget::new(1, 1 << 20);
        let mut busiest = Busiest::default();
        busiest.count(&message(1, 3, &budget));
        assert!(busiest.take(true).is_empty());
        for topic in [1, 2, 1] {
            busiest.count(&message(topic, 3, &budget));
        }
        let topic = |name: &str, messages, bytes| BusyTopic { name: name.into(), messages, bytes };
        assert_eq!(busiest.take(true), [topic("t/0001", 2, 6), topic("t/0002", 1, 3)]);
        busiest.count(&message(2, 3, &budget));
        assert_eq!(busiest.take(false), [topic("t/0002", 1, 3)]);
        busiest.count(&message(2, 3, &budget));
        assert_eq!((busiest.take(false).len(), busiest.counted.is_none()), (0, true));
    }

    #[test]
    fn those_with_most_messages_and_with_most_bytes_are_named() {
        let budget = Budget::new(1, 1 << 24);
        let mut busiest = Busiest::default();
        busiest.take(true);
        for topic in 0..200 {
            busiest.count(&message(topic, topic as usize, &budget));
            if topic < 50 {
                busiest.count(&message(topic, 0, &budget));
            }
        }
        let found = busiest.take(true);
        let names: Vec<&str> = found.iter().map(|topic| &*topic.name).collect();
        assert_eq!(
            (found.len(), names[0], names[49], names[50], names[99]),
            (100, "t/0000", "t/0049", "t/0199", "t/0150")
        );
        for topic in 0..COUNTED_MAX as u64 + 9 {
            busiest.count(&message(topic, 0, &budget));
        }
        assert_eq!(busiest.counted.as_ref().map(FxHashMap::len), Some(COUNTED_MAX));
    }
}
