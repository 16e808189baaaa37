//! What becomes of subscribers that are far behind, and of the publishers that they are behind of.
//!
//! Of topics with `slow-consumer = "disconnect"`, and with `latest` as far as the keys alone take too much; nobody waits for
//! single subscribers of topics with `skip`.
//!
//! A subscriber that is behind by more than half of `--max-lag` is *awaited*: the publishers of its topic wait, until it
//! is behind by a quarter at most. So one that reads is never too slow, however fast somebody publishes. One that takes
//! nothing for [`PATIENCE`], or that does not get there within [`PATIENCE_MAX`], is given up: until it has caught up,
//! nobody waits for it, and once it is behind by more than `--max-lag` it is closed with 1013. Nobody is closed who was
//! not waited for.
//!
//! Cost: nothing for subscribers that are near; a map entry for each that is awaited.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos};
use rustc_hash::FxHashMap;

use crate::ids::LogSlot;
use crate::observe::counters::Reason;
use crate::session::subscription::{Patience, Subscription};
use crate::shard::Shard;
use crate::shard::fanout::FanOut;
use crate::shard::fanout::log::Subscriber;
use crate::shard::transport::connection::Flags;

/// How long publishers wait for a subscriber whose socket takes nothing.
const PATIENCE: Nanos = 250_000_000;
/// How long they wait for one whose socket takes something now and then.
const PATIENCE_MAX: Nanos = 2_000_000_000;

/// Subscribers that publishers wait for.
#[derive(Default, Debug)]
pub(in crate::shard) struct Awaited {
    /// Since when, and until when for now.
    all: FxHashMap<Subscriber, Wait>,
    /// By that deadline; those that are awaited no longer, or until later, are passed over.
    due: VecDeque<(Nanos, LogSlot, Subscriber)>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Nanos,
    until: Nanos,
}

impl Awaited {
    /// When somebody may have to be given up.
    pub(in crate::shard) fn next(&self) -> Option<Nanos> {
        self.due.front().map(|&(until, ..)| until)
    }

    /// Somebody that is awaited since `since` is looked at again after [`PATIENCE`].
    fn add(&mut self, slot: LogSlot, subscriber: Subscriber, since: Nanos, now: Nanos) {
        let until = now + PATIENCE;
        self.all.insert(subscriber, Wait { since, until });
        self.due.push_back((until, slot, subscriber));
    }

    /// The next one that is to be looked at by `now`.
    fn take_due(&mut self, now: Nanos) -> Option<(LogSlot, Subscriber, Wait)> {
        while let Some(&(until, slot, subscriber)) = self.due.front().filter(|(until, ..)| *until <= now) {
            self.due.pop_front();
            if let Some(&wait) = self.all.get(&subscriber).filter(|wait| wait.until == until) {
                return Some((slot, subscriber, wait));
            }
        }
        None
    }
}

impl FanOut {
    /// A subscriber may be far behind now. `sending`: its socket has not taken all of the last send yet.
    pub(in crate::shard) fn enforce_lag_limit(
        &mut self,
        subscriber: Subscriber,
        subscription: &mut Subscription,
        sending: bool,
        now: Nanos,
    ) {
        let slot = subscription.log;
        let policy = self.logs[slot].policy;
        if !policy.awaits_subscribers() {
            return;
        }
        let max = policy.bytes_max;
        let lag_bytes = self.logs[slot].lag_bytes(subscription.cursor);
        match subscription.patience {
            Patience::Awaited if lag_bytes <= max / 4 => {
                subscription.patience = Patience::Near;
                self.await_no_longer(slot, subscriber);
            }
            Patience::GivenUp if lag_bytes == 0 => subscription.patience = Patience::Near,
            Patience::Near if lag_bytes > max / 2 => {
                subscription.patience = Patience::Awaited;
                self.awaited.add(slot, subscriber, now, now);
                self.logs[slot].awaited += 1;
                self.congest(slot);
            }
            Patience::GivenUp if lag_bytes > max && sending => self.close_later(subscriber.conn, slot, lag_bytes),
            _ => {}
        }
    }

    /// A connection is found too slow, with so many bytes of a log before it: it is closed once the rounds are over.
    pub(in crate::shard) fn close_later(&mut self, id: ConnId, slot: LogSlot, bytes: u64) {
        let topic = Arc::clone(&self.logs[slot].topic.name);
        self.too_slow.push((id, topic, bytes));
    }

    /// A subscription that was awaited is near again, was given up, or ends.
    pub(in crate::shard) fn await_no_longer(&mut self, slot: LogSlot, subscriber: Subscriber) {
        self.awaited.all.remove(&subscriber);
        self.logs[slot].awaited -= 1;
        self.delivered_logs.push(slot);
    }
}

impl<D: Driver> Shard<D> {
    /// Gives up those that publishers have waited for long enough.
    pub(in crate::shard) fn give_up_some(&mut self) {
        while let Some((slot, subscriber, wait)) = self.fanout.awaited.take_due(self.now) {
            let conn = self.conns.get(subscriber.conn).expect("an awaited subscription's connection is open");
            // One that is not being sent to waits for this shard, and not the other way round.
            let blocked = conn.flags.has(Flags::SENDING)
                && (conn.send_age(self.now) >= PATIENCE / 2 || self.now - wait.since >= PATIENCE_MAX);
            if blocked {
                let subscription = conn.session.subscription_mut(subscriber.sub).expect("an awaited subscription");
                subscription.patience = Patience::GivenUp;
                self.fanout.await_no_longer(slot, subscriber);
                self.stats().given_up.add(1);
            } else {
                self.fanout.awaited.add(slot, subscriber, wait.since, self.now);
            }
        }
    }

    /// Closes those that were found too slow in this turn's delivery rounds.
    pub(in crate::shard) fn close_too_slow(&mut self) {
        for (id, topic, bytes) in std::mem::take(&mut self.fanout.too_slow) {
            let why = format!("too slow: {bytes} bytes wait; connect again; topic {topic}");
            self.close_with(id, close_code::TRY_AGAIN_LATER.into(), &why, Reason::Slow);
        }
    }
}
