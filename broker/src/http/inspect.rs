//! What shards know of topics, for operators: asked of all of them, and added up.
//!
//! Bounds: [`INSPECTED_MAX`] topics, or subscribers of one topic, in one question; so long a turn of a shard is.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::http::app::App;
use crate::http::error::HttpError;
use crate::http::shards::{ask, ask_all, connection_name, within_patience};
use crate::ids::{ShardId, TopicId};
use crate::presence::members::Listed;
use crate::sequencer::history::figures::Remembered;
use crate::shard::shared::{self, ControlMessage, INSPECTED_MAX, SLOWEST_MAX, Slow, TopicState};

/// What a topic's window has.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Window {
    /// The first and the last offset.
    from: u64,
    to: u64,
    messages: u64,
    bytes: u64,
}

/// What a topic keeps for newcomers.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct State {
    entries: u64,
    bytes: u64,
}

impl Window {
    pub(crate) fn of(remembered: &Remembered) -> Option<Self> {
        let (from, to) = remembered.window?;
        let Remembered { window_messages: messages, window_bytes: bytes, .. } = *remembered;
        Some(Self { from: from.0, to: to.0, messages, bytes })
    }
}

impl State {
    pub(crate) fn of(remembered: &Remembered) -> Self {
        Self { entries: remembered.state_entries, bytes: remembered.state_bytes }
    }
}

/// A subscription that is behind.
#[derive(PartialEq, Eq, Serialize, Debug)]
pub(crate) struct SlowSubscription {
    /// Its [`connection_name`].
    connection: String,
    /// From where it comes, port included; `None`: it is gone by now.
    address: Option<SocketAddr>,
    bytes: u64,
    behind_ms: u64,
}

/// Who is present at a topic. What members say of themselves is for those who watch the topic.
#[derive(PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Present {
    count: u64,
    members: Vec<Member>,
    /// Whether there are others.
    more: bool,
}

#[derive(PartialEq, Eq, Serialize, Debug)]
struct Member {
    member: String,
    connections: u32,
}

impl Present {
    fn of(present: shared::Present) -> Self {
        let shared::Present { count, listed } = present;
        let members = listed.into_iter();
        let members =
            members.map(|Listed { member, connections, .. }| Member { member: (*member).to_owned(), connections });
        let members: Vec<_> = members.collect();
        Self { count, more: members.len() as u64 != count, members }
    }

    /// Only how many there are.
    pub(crate) fn counted(self) -> Self {
        Self { more: self.count > 0, members: Vec::new(), ..self }
    }

    /// Whether nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Who is present at a topic that this shard sequences.
pub(crate) async fn present(app: &App, sequencer: ShardId, topic: TopicId) -> Result<Present, HttpError> {
    let order = |answer| ControlMessage::Present { topic, answer };
    within_patience(async { ask(app, sequencer, order).await.map(Present::of) }).await
}

/// What all shards together know of these topics now.
pub(crate) async fn topics(app: &App, topics: &Arc<[TopicId]>) -> Result<Vec<TopicState>, HttpError> {
    debug_assert!(topics.len() <= INSPECTED_MAX);
    within_patience(async {
        let order = |answer| ControlMessage::Inspect { topics: Arc::clone(topics), answer };
        let mut sums = vec![TopicState::default(); topics.len()];
        for (_, states) in ask_all(app, order).await? {
            for (sum, state) in sums.iter_mut().zip(states) {
                if state.position.is_some() {
                    (sum.position, sum.remembered) = (state.position, state.remembered);
                }
                sum.lease = sum.lease.take().or(state.lease);
                sum.waiting_bytes += state.waiting_bytes;
            }
        }
        Some(sums)
    })
    .await
}

/// The subscriptions to a topic, of all shards, that are furthest behind, furthest first.
pub(crate) async fn slowest(app: &App, topic: TopicId) -> Result<Vec<SlowSubscription>, HttpError> {
    within_patience(async {
        let mut slowest: Vec<(ShardId, Slow)> = Vec::new();
        for shard in ShardId::all(app.shards()) {
            let mut next = Some(0);
            while let Some(from) = next {
                let part = ask(app, shard, |answer| ControlMessage::Slowest { topic, from, answer }).await?;
                slowest.extend(part.slowest.into_iter().map(|slow| (shard, slow)));
                keep_slowest(&mut slowest);
                next = part.next;
            }
        }
        let addresses = peers(app, &slowest).await?;
        let listed = slowest.iter().zip(addresses);
        Some(listed.map(|((shard, slow), address)| SlowSubscription::new(*shard, slow, address)).collect())
    })
    .await
}

/// From where each of these connections comes.
async fn peers(app: &App, slowest: &[(ShardId, Slow)]) -> Option<Vec<Option<SocketAddr>>> {
    let mut addresses = vec![None; slowest.len()];
    for asked in ShardId::all(app.shards()) {
        let of_shard = || slowest.iter().enumerate().filter(|(_, (shard, _))| *shard == asked);
        let conns: Vec<_> = of_shard().map(|(_, (_, slow))| slow.conn).collect();
        if conns.is_empty() {
            continue;
        }
        let found = ask(app, asked, |answer| ControlMessage::Peers { conns, answer }).await?;
        for ((at, _), address) in of_shard().zip(found) {
            addresses[at] = address;
        }
    }
    Some(addresses)
}

/// Of one that was found twice, because it changed its place meanwhile, one stays.
fn keep_slowest(found: &mut Vec<(ShardId, Slow)>) {
    found.sort_by_key(|(shard, slow)| (Reverse((slow.bytes, slow.behind)), *shard, slow.conn));
    let mut seen = std::collections::HashSet::new();
    found.retain(|(shard, slow)| seen.insert((*shard, slow.conn)));
    found.truncate(SLOWEST_MAX);
}

impl SlowSubscription {
    fn new(shard: ShardId, slow: &Slow, address: Option<SocketAddr>) -> Self {
        Self {
            address,
            connection: connection_name(shard, slow.conn),
            bytes: slow.bytes,
            behind_ms: slow.behind / 1_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::ConnId;

    use super::*;

    #[test]
    fn the_slowest_of_all_shards_stay_and_each_once() {
        let slow = |slot: u32, bytes| Slow { conn: ConnId { slot, generation: 3 }, bytes, behind: 2_500_000 };
        let mut found: Vec<_> = (0..20).map(|slot| (ShardId(0), slow(slot, u64::from(slot)))).collect();
        found.extend([(ShardId(1), slow(7, 100)), (ShardId(0), slow(19, 21)), (ShardId(1), slow(8, 1))]);
        keep_slowest(&mut found);
        let bytes: Vec<_> = found.iter().map(|(_, slow)| slow.bytes).collect();
        assert_eq!(bytes, [100, 21, 18, 17, 16, 15, 14, 13, 12, 11]);
        let first = SlowSubscription::new(found[0].0, &found[0].1, None);
        assert_eq!(first, SlowSubscription { connection: "1-7-3".to_owned(), address: None, bytes: 100, behind_ms: 2 });
    }
}
