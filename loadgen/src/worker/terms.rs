//! The terms on which a server delivers to a subscriber, as its answer says: what becomes of one that is too far behind, and
//! the least time between two deliveries. What is checked follows from them:
//!
//! | answer | what may be missing |
//! | --- | --- |
//! | nothing, or a protocol that says nothing | nothing |
//! | `skip` | what a `gap` announced |
//! | `latest` | messages of whose key a newer one comes; numbers and offsets rise; after silence, the newest of each key is there |
//! | a throttle | nothing more, but there are no more deliveries than one per interval |
//!
//! Whose terms are to wait for nothing and to be closed if it is slow has none of this, and no cost.

use super::client::{Client, UNKNOWN};
use super::past::{Member, Past};
use super::receive::{Order, Visitor};
use crate::adapter::{Begin, SlowConsumer, Visit};
use crate::history::{Backwards, Newest, Sequence, Throttled};
use crate::options::Scenario;
use crate::plan::Plan;

/// What one subscriber has of one topic.
#[derive(Clone)]
pub(super) struct Subscription {
    pub(super) sequence: Sequence,
    pub(super) policy: SlowConsumer,
    /// Where the newest message of each key has to come: to newcomers, and where subscribers are conflated.
    pub(super) newest: Option<Newest>,
    /// Of a subscription with terms.
    throttled: Option<Throttled>,
}

impl Subscription {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            sequence: Sequence::default(),
            policy: SlowConsumer::Disconnect,
            newest: plan.late().then(|| Newest::new(plan.uses.keys)),
            throttled: None,
        }
    }

    /// Keys of which the newest of `published` messages has not come, though it has to.
    pub(super) fn stale(&self, published: u64) -> u64 {
        self.newest.as_ref().map_or(0, |newest| newest.stale(published))
    }
}

impl Member {
    /// Whether the server keeps this subscriber, however far behind it is.
    pub(super) fn is_kept(&self) -> bool {
        self.subscriptions.iter().all(|subscription| subscription.policy != SlowConsumer::Disconnect)
    }

    /// Whether messages are left out for this subscriber, at a place, for newer ones of their key.
    pub(super) fn is_conflated(&self, place: usize) -> bool {
        self.subscriptions[place % self.subscriptions.len()].policy == SlowConsumer::Latest
    }

    fn throttled(&self) -> impl Iterator<Item = &Throttled> {
        self.subscriptions.iter().filter_map(|subscription| subscription.throttled.as_ref())
    }

    /// Subscriptions whose deliveries are counted.
    pub(super) fn throttled_count(&self) -> u64 {
        self.throttled().count() as u64
    }

    /// Those that got more deliveries than their throttle allows.
    pub(super) fn too_fast(&self) -> u64 {
        self.throttled().filter(|throttled| throttled.is_too_fast()).count() as u64
    }
}

impl Past {
    /// Keys of which the newest message has not come to a client that is conflated at this place; nothing if it is not.
    pub(super) fn stale(&self, at: u32, place: usize, published: u64) -> Option<u64> {
        let member = self.member_of(at).filter(|member| member.is_conflated(place))?;
        let subscription = &member.subscriptions[place % member.subscriptions.len()];
        Some(if published == UNKNOWN { 0 } else { subscription.stale(published) })
    }

    /// Whether the server said that it does not close this client for being slow.
    pub(super) fn is_kept(&self, client: &Client, at: u32) -> bool {
        client.is_subscriber() && self.member_of(at).is_some_and(Member::is_kept)
    }
}

impl Visitor<'_> {
    /// A subscription begins on these terms.
    pub(super) fn on_terms(&mut self, index: usize, begin: &Begin) {
        let (policy, throttle_ms) = (begin.slow_consumer, begin.throttle_ms);
        let conflate = self.plan.options.scenario == Scenario::Conflate;
        if conflate && policy != SlowConsumer::Latest {
            let why = "the topic is not conflated: the server needs a rule for it with slow-consumer = \"latest\"";
            return self.broken(why);
        }
        if let Some(asked) = self.plan.uses.throttle_ms
            && u64::from(asked) > throttle_ms
        {
            return self.broken(&format!("a throttle of {asked} ms was asked for, and {throttle_ms} ms is the answer"));
        }
        if policy == SlowConsumer::Disconnect && throttle_ms == 0 {
            return;
        }
        // Stamps do not say whose message of a key is newer, nor what another process published.
        if policy == SlowConsumer::Latest && (self.plan.streams_per_topic() > 1 || self.plan.options.share.of > 1) {
            let why = "the topic has slow-consumer = \"latest\", which is checked with one publisher per topic, in one process";
            return self.broken(why);
        }
        *self.tally.terms.answers.entry((policy, throttle_ms)).or_default() += 1;
        let plan = self.plan;
        let role = self.client.role;
        let member = self.member.get_or_insert_with(|| Box::new(Member::new(plan, role)));
        let subscription = &mut member.subscriptions[index];
        subscription.policy = policy;
        // Who only counts bytes does not know, and who reads late does not see when it was sent to.
        if !self.client.verifies {
            return;
        }
        if !self.client.slow {
            subscription.throttled = Some(Throttled::new(throttle_ms));
        }
        if policy == SlowConsumer::Latest {
            let newest = subscription.newest.get_or_insert_with(|| Newest::new(plan.uses.keys));
            if *self.client.nexts.at(index) == UNKNOWN {
                newest.forgive();
            }
        }
    }

    /// A message that counts came: whether it begins a delivery.
    pub(super) fn count_delivery(&mut self, place: usize) {
        let Some(member) = self.member.as_deref_mut() else { return };
        let at = place % member.subscriptions.len();
        if let Some(throttled) = &mut member.subscriptions[at].throttled
            && throttled.heard(self.now)
        {
            self.tally.terms.deliveries += 1;
        }
    }

    pub(super) fn is_conflated(&self, place: usize) -> bool {
        self.member.as_deref().is_some_and(|member| member.is_conflated(place))
    }

    /// A message whose number is not higher than those before, at a client that is conflated.
    pub(super) fn backwards(&mut self, place: usize, seq: u64) -> Order {
        let member = self.member.as_deref_mut().expect("it is conflated");
        let at = place % member.subscriptions.len();
        let heard = member.subscriptions[at].newest.as_mut().map(|newest| newest.heard(seq));
        let errors = &mut self.tally.errors;
        match heard {
            Some(Err(Backwards::Again)) => errors.doubled += 1,
            _ => errors.reordered += 1,
        }
        self.tally.counts.errors += 1;
        Order::Doubled
    }
}
