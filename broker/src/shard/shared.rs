//! How shards and the control plane reach each other: bounded queues and one wake-up per batch.
//!
//! Three queues lead into a shard, because they wait for different things:
//!
//! | queue | carries | when it is full |
//! | --- | --- | --- |
//! | `requests` | publishes, joins and leaves for topics whose sequencer this shard is | the sender keeps its batch and pauses its publishers, nothing else |
//! | `deliveries` | sequenced messages and answers from sequencers | the sequencer keeps its batch and takes no further requests |
//! | `control_messages` | adopted sockets, HTTP publishes, shutdown | the control plane waits |
//!
//! A shard takes deliveries without waiting for anybody, so many a turn. So deliveries always drain. It takes requests
//! while its own deliveries do not back up, whatever requests of its own wait elsewhere. Therefore requests always
//! drain: no cycle of waiting shards. What keeps deliveries from piling up in a log is not the queue but the topic: its
//! publishers, on every shard, wait while it is congested ([`Topic::is_congested`]), and nobody else does.
//!
//! [`Topic::is_congested`]: crate::topics::registry::Topic::is_congested

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crossbeam::utils::CachePadded;

use crate::access::address::Addresses;
use crate::access::admission::Admission;
use crate::access::authority::Authority;
use crate::access::keys::PublishKeys;
use crate::access::quota::ClientShares;
use crate::capacity::budget::{Budget, Held};
use crate::capacity::log_shares::LogShares;
use crate::ids::{Epoch, ShardId};
use crate::observe::counters::Stats;
use crate::observe::refused::RefusedValues;
use crate::presence::secret::Secrets;
use crate::publishing::date::WallClock;
use crate::sequencer::ledger::Usage;
use crate::shard::handover::Handovers;
use crate::shard::inbox::ORDERS_MAX;
pub use crate::shard::inbox::{Depths, Inbox};
pub use crate::shard::inspected::{
    BusyTopic, INSPECTED_MAX, LeaseState, OfClientPart, Present, SLOWEST_MAX, SignedIn, SignedInPart, Slow,
    SlowestPart, TopicState,
};
pub use crate::shard::messages::{ControlMessage, Delivery, Origin, Published, Request};
use crate::tls;
use crate::topics::registry::Registry;
use crate::topics::rules::{Rules, SharedRules};

/// Everything that threads of one broker share.
#[derive(Debug)]
pub struct SharedState {
    /// Names of topics.
    pub registry: Registry,
    /// What topics remember: those of the registry. SIGHUP replaces them.
    pub rules: Arc<SharedRules>,
    /// Memory held for clients.
    pub budget: Budget,
    /// How full each shard's part of what subscribers have not been sent is.
    pub log_shares: LogShares,
    /// One per shard.
    pub inboxes: Box<[Inbox]>,
    /// One per shard.
    pub stats: Box<[Stats]>,
    /// What was refused since the log was last written.
    pub refused_values: RefusedValues,
    /// Keys to publish with. Read again by [`PublishKeys::reload`].
    pub publish_keys: PublishKeys,
    /// Who may do what. Read again by SIGHUP.
    pub authority: Arc<Authority>,
    /// What connections of `--tls-listen` share, if there is one.
    pub tls: Option<Arc<tls::server::Server>>,
    /// Topics that clients began over HTTP.
    pub name_shares: ClientShares,
    /// Where the secrets of sessions come from.
    pub secrets: Secrets,
    /// What the time of day is, for answers.
    pub wall_clock: WallClock,
    /// How many connections each client address has.
    pub addresses: Arc<Addresses>,
    /// What the control plane counts: the requests that it refused by itself.
    pub plane: Stats,
    /// Whom the broker takes. The only thing here that is written to now and then: kept apart from what all read.
    pub admission: CachePadded<Admission>,
    /// Sockets on their way to the control plane.
    pub handovers: Handovers,
    /// What the histories of all sequencers take.
    pub history_usage: Usage,
    /// Where epochs begin; every sequencer adds its own count. Different after each start.
    pub epoch_base: Epoch,
    /// Shards that accept nobody any more: the kernel notifies them of nobody.
    pub(crate) stopped_accepting: AtomicUsize,
    /// Shards that have, on their way out, forwarded every publish they had accepted.
    pub(crate) forwarded: AtomicUsize,
    /// Shards that have, after that, sequenced and passed on everything.
    pub(crate) sequenced: AtomicUsize,
}

impl SharedState {
    /// SharedState for `shards` shards. `seed` decides which shard sequences a topic and how names of clients are hashed: it
    /// must be random where they are not to be trusted. `epoch_base` should be the start time.
    #[must_use]
    pub fn new(shards: u16, seed: u64, epoch_base: Epoch) -> Self {
        let budget = Budget::new(shards, u64::MAX >> 1);
        let account = Arc::clone(budget.of_plane());
        let registry = Registry::new(shards, seed).charging(account, budget.share(Held::Names));
        Self {
            rules: Arc::clone(registry.rules()),
            registry,
            budget,
            log_shares: LogShares::new(shards),
            inboxes: (0..shards).map(|_| Inbox::new()).collect(),
            stats: (0..shards).map(|_| Stats::default()).collect(),
            refused_values: RefusedValues::default(),
            publish_keys: PublishKeys::default(),
            authority: Arc::default(),
            tls: None,
            name_shares: ClientShares::default(),
            secrets: Secrets::default(),
            wall_clock: WallClock::default(),
            addresses: Arc::default(),
            plane: Stats::default(),
            admission: CachePadded::default(),
            handovers: Handovers::new(ORDERS_MAX),
            history_usage: Usage::new(shards),
            epoch_base,
            stopped_accepting: AtomicUsize::new(0),
            forwarded: AtomicUsize::new(0),
            sequenced: AtomicUsize::new(0),
        }
    }

    /// The same with limits on whom the broker takes.
    #[must_use]
    pub fn admitting(self, admission: Admission) -> Self {
        Self { admission: CachePadded::new(admission), ..self }
    }

    /// The same with keys to publish with.
    #[must_use]
    pub fn guarded_by(self, publish_keys: PublishKeys) -> Self {
        Self { publish_keys, ..self }
    }

    /// The same with rules for clients.
    #[must_use]
    pub fn authorized_by(self, authority: Arc<Authority>) -> Self {
        Self { authority, ..self }
    }

    /// The same with certificates for connections of `--tls-listen`.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<tls::server::Server>>) -> Self {
        Self { tls, ..self }
    }

    /// The same with rules for topics.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        let rules = Arc::new(SharedRules::new(rules));
        Self { registry: self.registry.ruled_by(Arc::clone(&rules)), rules, ..self }
    }

    /// The same within a budget of so many bytes.
    #[must_use]
    pub fn within(self, budget_bytes: u64) -> Self {
        let shards = self.inboxes.len() as u16;
        let budget = Budget::new(shards, budget_bytes);
        let account = Arc::clone(budget.of_plane());
        Self { registry: self.registry.charging(account, budget.share(Held::Names)), budget, ..self }
    }

    /// Gives an order to a shard.
    ///
    /// # Errors
    /// The order itself, when the shard's queue is full: wait, then try again.
    pub fn send_control(&self, shard: ShardId, message: ControlMessage) -> Result<(), ControlMessage> {
        let inbox = &self.inboxes[usize::from(shard)];
        inbox.control_messages.push(message)?;
        inbox.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every message of every shard is moved as one of these.
    #[test]
    fn a_delivery_is_no_longer_than_a_join() {
        assert!(size_of::<Delivery>() <= 40, "{}", size_of::<Delivery>());
    }
}
