//! Queues between shards that are full.

use protocol::v1::PayloadKind;
use ring::sim::{Faults, SimDriver, World};

use crate::config::limits::Limits;
use crate::ids::Epoch;
use crate::shard::ShardSetup;
use crate::shard::mailbox::*;
use crate::shard::shared::SharedState;

fn publish(topic: &TopicRef, account: &Arc<Account>) -> Request {
    let payload = Payload::copy_of(PayloadKind::Text, b"x", account);
    Request::Publish { topic: topic.clone(), payload, options: None, origin: Origin::Silent }
}

/// Two shards whose queues of requests are full, and that have more for each other than publishers may
/// add to: each goes on as a sequencer, or neither would ever.
#[test]
fn full_queues_of_requests_both_ways_do_not_lock_up() {
    let world = World::new(1, Faults::default());
    let shared = Arc::new(SharedState::new(2, 1, Epoch(1)));
    let limits = Arc::new(Limits::default());
    let shard = |id| {
        let setup = ShardSetup { id, shared: Arc::clone(&shared), limits: Arc::clone(&limits) };
        Shard::new(world.driver(4, 4, 64), setup)
    };
    let mut shards: Vec<Shard<SimDriver>> = vec![shard(ShardId(0)), shard(ShardId(1))];
    let sequenced_at = |sequencer| {
        let mut topics = (0..).map(|n: u32| shared.registry.resolve(&format!("t{n}")));
        topics.find(|topic| topic.sequencer == sequencer).expect("names are many")
    };
    let topics = [sequenced_at(ShardId(0)), sequenced_at(ShardId(1))];
    for (shard, topic) in shards.iter_mut().zip(topics.iter().rev()) {
        let inbox = &shared.inboxes[usize::from(topic.sequencer)];
        let account = Arc::clone(&shard.account);
        let batch = || {
            let mut batch = Batch::new(&account);
            queue::add(&mut batch, publish(topic, &account));
            batch
        };
        let bytes = batch().bytes;
        while inbox.requests.push(batch()).is_ok() {
            shared.log_shares.send(topic.sequencer, bytes, limits.log_bytes_max);
        }
        while !shard.mailbox.is_full() {
            shard.mailbox.request(topic.sequencer, publish(topic, &account));
        }
    }
    for _ in 0..100 {
        for shard in &mut shards {
            shard.step().unwrap();
        }
    }
    for shard in &shards {
        assert!(shard.mailbox.has_forwarded() && shard.mailbox.has_sequenced());
        assert!(!shard.must_wait());
    }
}
