//! What becomes of subscribers that are far behind, and of the publishers that they are behind of.
//!
//! A subscriber that is behind by more than half of `--max-lag` is *awaited*: the publishers of its topic wait, until it
//! is behind by a quarter at most. So one that reads is never too slow, however fast somebody publishes. One that takes
//! nothing for [`PATIENCE`], or that does not get there within [`PATIENCE_MAX`], is given up: until it has caught up,
//! nobody waits for it, and once it is behind by more than `--max-lag` it is closed with 1013. Nobody is closed who was
//! not waited for.
//!
//! Cost: nothing for subscribers that are near; a map entry for each that is awaited.

use std::collections::VecDeque;

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos};
use rustc_hash::FxHashMap;

use crate::ids::LogSlot;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::fanout::log::Subscriber;
use crate::shard::transport::connection::{Conn, Flags};

/// How long publishers wait for a subscriber whose socket takes nothing.
const PATIENCE: Nanos = 250_000_000;
/// How long they wait for one whose socket takes something now and then.
const PATIENCE_MAX: Nanos = 2_000_000_000;

/// Subscribers that publishers wait for.
#[derive(Default, Debug)]
pub(in crate::shard) struct Awaited {
    /// Since when, and until when for now.
    all: FxHashMap<(ConnId, u32), Wait>,
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
}

/// Where one subscription stands: on the connection of a raw one, else on the subscription itself.
fn standing(conn: &mut Conn, sub: u32) -> (bool, bool) {
    match &conn.v1 {
        Some(v1) => (v1.sub(sub).awaited, v1.sub(sub).given_up),
        None => (conn.flags.has(Flags::AWAITED), conn.flags.has(Flags::GIVEN_UP)),
    }
}

fn set_standing(conn: &mut Conn, sub: u32, awaited: bool, given_up: bool) {
    match &mut conn.v1 {
        Some(v1) => {
            let sub = v1.sub_mut(sub);
            (sub.awaited, sub.given_up) = (awaited, given_up);
        }
        None => {
            conn.flags.put(Flags::AWAITED, awaited);
            conn.flags.put(Flags::GIVEN_UP, given_up);
        }
    }
}

impl<D: Driver> Shard<D> {
    /// A subscriber is now behind by `lag_bytes`.
    pub(in crate::shard) fn enforce_lag_limit(&mut self, slot: LogSlot, subscriber: Subscriber, lag_bytes: u64) {
        let max = self.limits.lag_bytes_max;
        let Some(conn) = self.conns.get(subscriber.conn) else { return };
        let (awaited, given_up) = standing(conn, subscriber.sub);
        if lag_bytes <= max / 4 {
            if awaited || (given_up && lag_bytes == 0) {
                set_standing(conn, subscriber.sub, false, given_up && lag_bytes > 0);
            }
            if awaited {
                self.await_no_longer(slot, subscriber);
            }
        } else if lag_bytes > max / 2 && !awaited && !given_up {
            set_standing(conn, subscriber.sub, true, false);
            self.await_subscriber(slot, subscriber, self.now);
            let log = self.logs[slot as usize].as_mut().expect("a log with a subscriber");
            log.awaited += 1;
            self.congest(slot);
        } else if lag_bytes > max && given_up && conn.flags.has(Flags::SENDING) {
            self.drop_slow(subscriber.conn);
        }
    }

    fn await_subscriber(&mut self, slot: LogSlot, subscriber: Subscriber, since: Nanos) {
        let until = self.now + PATIENCE;
        self.awaited.all.insert((subscriber.conn, subscriber.sub), Wait { since, until });
        self.awaited.due.push_back((until, slot, subscriber));
    }

    /// A subscription that was awaited is near again, was given up, or ends.
    pub(in crate::shard) fn await_no_longer(&mut self, slot: LogSlot, subscriber: Subscriber) {
        self.awaited.all.remove(&(subscriber.conn, subscriber.sub));
        let log = self.logs[slot as usize].as_mut().expect("a log with a subscriber");
        log.awaited -= 1;
        self.delivered_logs.push(slot);
    }

    /// Gives up those that publishers have waited for long enough.
    pub(in crate::shard) fn give_up_some(&mut self) {
        while let Some(&(until, slot, subscriber)) = self.awaited.due.front()
            && until <= self.now
        {
            self.awaited.due.pop_front();
            let key = (subscriber.conn, subscriber.sub);
            let Some(&wait) = self.awaited.all.get(&key).filter(|wait| wait.until == until) else { continue };
            let conn = self.conns.get(subscriber.conn).expect("an awaited subscription's connection is open");
            // One that is not being sent to waits for this shard, and not the other way round.
            let blocked = conn.flags.has(Flags::SENDING)
                && (conn.send_age(self.now) >= PATIENCE / 2 || self.now - wait.since >= PATIENCE_MAX);
            if blocked {
                set_standing(conn, subscriber.sub, false, true);
                self.stats().given_up.add(1);
                self.await_no_longer(slot, subscriber);
            } else {
                self.await_subscriber(slot, subscriber, wait.since);
            }
        }
    }

    /// The slow-consumer policy's end.
    pub(in crate::shard) fn drop_slow(&mut self, id: ConnId) {
        let why = "too slow: messages would be lost; connect again";
        self.close_with(id, close_code::TRY_AGAIN_LATER.into(), why, Reason::Slow);
    }
}
