//! When the rounds of logs with a throttle are opened.
//!
//! The first message after silence opens the round at once. From then on, once every interval, the next round is opened if
//! something came meanwhile; after an interval without anything there is silence again. So a subscriber is delivered to once
//! per interval at most, and waits no longer than that. A round is opened early if more than a quarter of what subscribers may
//! be behind waits, so that a throttle never makes publishers wait, and when the broker ends.
//!
//! There is one queue for each interval, in the order of time. Cost: nothing for logs without a throttle; otherwise a push and
//! a pop per round, whatever the number of subscribers and messages. Bounds: [`ROUNDS_PER_TURN`]; the queues are charged to the
//! budget.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use ring::Nanos;

use crate::capacity::budget::{Account, Charge, Held};
use crate::ids::LogSlot;
use crate::shard::fanout::FanOut;
use crate::topics::rules::Throttle;

/// Rounds that are opened in one turn because they are due.
const ROUNDS_PER_TURN: usize = 1024;

/// The next round of each log with a throttle that is not silent.
#[derive(Debug)]
pub(super) struct Timing {
    queues: [VecDeque<Next>; Throttle::COUNT],
    /// For the queues.
    charge: Charge,
    /// The driver's clock, as of the last time it was read.
    now: Nanos,
    /// Rounds are opened at once: the broker ends.
    is_over: bool,
}

/// When a log's next round is opened.
#[derive(Clone, Copy, Debug)]
struct Next {
    at: Nanos,
    slot: LogSlot,
    /// By which a slot that was given to another log meanwhile is recognised.
    number: u64,
}

impl Timing {
    /// No log has a throttle. What the queues take is charged to `account`.
    pub(super) fn new(account: &Arc<Account>) -> Self {
        let charge = Charge::new(account, Held::Subscriptions, 0);
        Self { queues: Default::default(), charge, now: 0, is_over: false }
    }

    fn push(&mut self, throttle: Throttle, next: Next) {
        self.queues[throttle.index()].push_back(next);
        self.recharge();
    }

    /// Takes one that is due by now.
    fn take_due(&mut self) -> Option<Next> {
        let now = self.now;
        let next = self.queues.iter_mut().find_map(|queue| queue.pop_front_if(|next| next.at <= now))?;
        for queue in &mut self.queues {
            if queue.is_empty() {
                *queue = VecDeque::new();
            } else if queue.capacity() > 64 && queue.len() < queue.capacity() / 4 {
                queue.shrink_to(queue.capacity() / 2);
            }
        }
        self.recharge();
        Some(next)
    }

    fn recharge(&mut self) {
        let places: usize = self.queues.iter().map(VecDeque::capacity).sum();
        let bytes = (places * size_of::<Next>()) as u64;
        if self.charge.bytes() != bytes {
            self.charge.resize(bytes);
        }
    }

    /// When the first of them is due.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.queues.iter().filter_map(|queue| queue.front()).map(|next| next.at).min()
    }
}

impl FanOut {
    /// Opens the rounds that are due by `now`.
    pub(in crate::shard) fn open_due_rounds(&mut self, now: Nanos) {
        self.timing.now = now;
        for _ in 0..ROUNDS_PER_TURN {
            let Some(next) = self.timing.take_due() else { break };
            let Some(log) = self.logs.get_mut(next.slot).filter(|log| log.number == next.number) else { continue };
            log.is_timed = false;
            if log.has_unopened() {
                self.open_round(next.slot);
            }
        }
    }

    /// From now on every round is opened at once.
    pub(in crate::shard) fn end_throttles(&mut self) {
        if std::mem::replace(&mut self.timing.is_over, true) {
            return;
        }
        for slot in self.logs.slots().collect::<Vec<_>>() {
            if self.logs[slot].has_unopened() {
                self.open_round(slot);
            }
        }
    }

    /// A message came to a log: its round is opened, at once or when it is time.
    pub(super) fn on_appended(&mut self, slot: LogSlot) {
        let log = &self.logs[slot];
        if log.has_unopened() && (!log.is_timed || self.timing.is_over || log.is_full()) {
            self.open_round(slot);
        } else {
            self.queue_round(slot);
        }
    }

    fn open_round(&mut self, slot: LogSlot) {
        let log = &mut self.logs[slot];
        log.open_round();
        if !std::mem::replace(&mut log.is_timed, true) {
            let throttle = log.policy.throttle;
            let next = Next { at: self.timing.now.saturating_add(throttle.nanos()), slot, number: log.number };
            self.timing.push(throttle, next);
        }
        self.queue_round(slot);
    }

    /// Has a log's round made, if it is open.
    fn queue_round(&mut self, slot: LogSlot) {
        let log = &mut self.logs[slot];
        if log.has_pending() && !log.queued {
            log.queued = true;
            self.fresh.push_back(slot);
        }
    }
}
