//! Timed work: heartbeats, churn, slow reading, storms, timeouts.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use ring::{Dial, Nanos};

use super::Worker;
use super::client::{Awaits, State};

/// Ten times a second.
const TICK_NS: Nanos = 100_000_000;
/// What one slow read takes at most: the size of a receive buffer.
pub(crate) const SLOW_READ_BYTES: u64 = 8192;

/// What is due, and when.
pub(super) struct Upkeep {
    ticked_at: Nanos,
    /// Clients that a heartbeat is due for, a fraction included.
    heartbeats: f64,
    /// The next client to send one.
    heart: usize,
    /// Subscriptions to be churned, a fraction included.
    churns: f64,
    /// The next client to churn.
    churner: usize,
    /// Slow clients: when they read next.
    slow: BinaryHeap<Reverse<(Nanos, u32)>>,
    /// Clients whose last try failed: when they are given up, and why it failed.
    failures: HashMap<u32, (Nanos, Box<str>)>,
}

impl Upkeep {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            ticked_at: now,
            heartbeats: 0.0,
            heart: 0,
            churns: 0.0,
            churner: 0,
            slow: BinaryHeap::new(),
            failures: HashMap::new(),
        }
    }

    pub(super) fn read_later(&mut self, now: Nanos, at: u32, bytes_per_second: u32) {
        let wait = SLOW_READ_BYTES * 1_000_000_000 / u64::from(bytes_per_second);
        self.slow.push(Reverse((now + wait, at)));
    }

    pub(super) fn patience_of(&self, at: u32) -> Option<Nanos> {
        self.failures.get(&at).map(|(until, _)| *until)
    }

    /// Why a client's last try failed.
    pub(super) fn failure_of(&self, at: u32) -> Option<&str> {
        self.failures.get(&at).map(|(_, why)| &**why)
    }

    pub(super) fn remember_failure(&mut self, at: u32, until: Nanos, why: &str) {
        self.failures.insert(at, (until, why.into()));
    }

    pub(super) fn forget_failure(&mut self, at: u32) {
        self.failures.remove(&at);
    }
}

impl<D: Dial> Worker<D> {
    /// Does what is due; returns when there is more.
    pub(super) fn upkeep_due(&mut self, now: Nanos) -> Nanos {
        while let Some(Reverse((due, at))) = self.upkeep.slow.peek().copied() {
            if due > now {
                break;
            }
            self.upkeep.slow.pop();
            let client = &mut self.clients[at as usize];
            if client.state == State::Open && !client.receiving {
                client.receiving = true;
                self.driver.receive_once(client.conn);
            }
        }
        let slow = self.upkeep.slow.peek().map_or(Nanos::MAX, |Reverse((due, _))| *due);
        let elapsed = now - self.upkeep.ticked_at;
        if elapsed >= TICK_NS {
            self.upkeep.ticked_at = now;
            // A worker that was delayed does not catch up all at once.
            let seconds = (elapsed as f64 / 1e9).min(1.0);
            self.send_heartbeats(seconds);
            self.churn(now, seconds);
            self.drop_some(now, seconds);
            self.check_patience(now);
        }
        let busy = !self.opening.is_empty()
            || self.heartbeat_period().is_some()
            || self.churns_per_second(now) > 0.0
            || self.drops_per_second(now) > 0.0;
        slow.min(if busy { self.upkeep.ticked_at + TICK_NS } else { Nanos::MAX })
    }

    /// Seconds between two heartbeats of one client; nothing when none are needed.
    fn heartbeat_period(&self) -> Option<f64> {
        let period = self.plan.options.heartbeat.as_secs_f64();
        let slow = self.plan.options.slow_share.is_some_and(|share| share > 0.0);
        (period > 0.0 && (self.plan.verifying < 1.0 || slow)).then_some(period)
    }

    fn send_heartbeats(&mut self, seconds: f64) {
        let Some(period) = self.heartbeat_period() else { return };
        self.upkeep.heartbeats += self.clients.len() as f64 * seconds / period;
        while self.upkeep.heartbeats >= 1.0 {
            self.upkeep.heartbeats -= 1.0;
            let at = self.upkeep.heart % self.clients.len();
            self.upkeep.heart = at + 1;
            let client = &self.clients[at];
            // Who reads slowly finds a ping long after it came, and would be taken for dead.
            if client.state == State::Open && (!client.verifies || client.slow) && !client.sending {
                let mut heartbeat = Vec::new();
                self.plan.adapter.heartbeat(&mut heartbeat);
                if !heartbeat.is_empty() {
                    self.send(at as u32, heartbeat);
                }
            }
        }
    }

    // ---- churn

    fn churns_per_second(&self, now: Nanos) -> f64 {
        let within = self.times.is_some_and(|times| (times.begin..times.end).contains(&now));
        let share = self.clients.len() as f64 / self.plan.clients as f64;
        if within { self.plan.options.churn.unwrap_or(0.0) * share } else { 0.0 }
    }

    fn churn(&mut self, now: Nanos, seconds: f64) {
        self.upkeep.churns += self.churns_per_second(now) * seconds;
        let mut looked_at = 0;
        while self.upkeep.churns >= 1.0 && looked_at < self.clients.len() {
            looked_at += 1;
            let at = self.upkeep.churner % self.clients.len();
            self.upkeep.churner = at + 1;
            let client = &mut self.clients[at];
            if client.state != State::Open || !client.is_subscriber() || client.slow || client.awaits != Awaits::Nothing
            {
                continue;
            }
            self.upkeep.churns -= 1.0;
            let mut bytes = Vec::new();
            if self.plan.adapter.abilities().churn {
                let topics = self.plan.duty(client.role).subscribes;
                client.awaits = Awaits::Unsubscribed;
                client.joined_late = true;
                // Messages that are still under way may come or not.
                client.nexts.forget(topics.count as usize);
                self.plan.adapter.unsubscribe(topics.first, &mut bytes);
                self.send(at as u32, bytes);
            } else {
                self.close(at as u32, true);
            }
        }
        self.upkeep.churns = self.upkeep.churns.min(1000.0);
    }

    /// Subscribes again after the unsubscribe was acknowledged.
    pub(super) fn subscribe_again(&mut self, at: u32) {
        self.past.forget(at);
        let client = &mut self.clients[at as usize];
        let topics = self.plan.duty(client.role).subscribes;
        client.awaits = Awaits::Subscribed;
        client.nexts.forget(topics.count as usize);
        let mut bytes = Vec::new();
        self.plan.adapter.subscribe(topics.first, &mut bytes);
        self.send(at, bytes);
    }

    // ---- storms

    /// Every subscriber drops its connection without a close frame, and comes back.
    pub(super) fn storm(&mut self) {
        for at in 0..self.clients.len() as u32 {
            let client = &self.clients[at as usize];
            if client.state == State::Open && client.is_subscriber() {
                self.close(at, true);
            }
        }
    }
}
