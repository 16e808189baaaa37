//! Whom the broker takes: how many WebSockets at a time, and how many handshakes a second, all shards together.
//!
//! The kernel deals connections to shards by a hash of their addresses, so some shards get more than others; limits
//! that each shard kept for itself would refuse clients while there is room elsewhere. So this is the one thing that
//! shards count together. It is asked once per handshake, never per message, and costs two atomic operations there.
//!
//! HTTP connections that stay with shards are counted here as well: half of the places of HTTP connections are theirs at
//! most.
//!
//! Not responsible for origins, hosts and addresses, nor for a shard's own table: see [`reserve`].
//!
//! Invariants: `open` counts exactly the [`Admission::enter`]s without their [`Admission::leave`]; `enter` never lets it
//! exceed `connections_max`. Whoever was let in leaves once.
//!
//! **Rate.** Handshakes go by a schedule: each takes the next place, one `Admission::period` behind the one before, and
//! may be ahead of the clock by a second. So a second's worth gets through at once, and never more than two
//! seconds' worth within any second. Those refused stand in a line of their own: each gets a Retry-After that ends when as many places will have passed as
//! there are refused ones before it. So a crowd that comes at once returns as fast as the broker takes it, and not all
//! together.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ring::Nanos;

use crate::access::rejection::Rejection;

const SECOND: Nanos = 1_000_000_000;
/// The longest Retry-After because of the rate.
const LINE_S_MAX: Nanos = 60;
/// How long whoever finds the broker full stays away, at least and at most. Nobody knows when somebody leaves.
const FULL_S: (u32, u32) = (3, 12);
/// How long whoever finds the broker going down stays away, at least and at most: another takes over meanwhile.
const DRAINING_S: (u32, u32) = (1, 5);

/// How many slots of a shard's table of `capacity` WebSockets leave free: for handshakes, for refusals, and for requests
/// on their way to the control plane. One in 200, but at least 64 and at most 1024; of a small table, a quarter.
#[must_use]
pub fn reserve(capacity: u32) -> u32 {
    (capacity / 200).clamp(64, 1024).min(capacity / 4)
}

/// See the file's head.
#[derive(Debug)]
pub struct Admission {
    connections_max: u64,
    open: AtomicU64,
    /// Nanoseconds between two handshakes at the highest rate; 0: no limit.
    period: Nanos,
    /// The place in time of the last handshake let in.
    last: AtomicU64,
    /// The place in time promised to the last one refused.
    line: AtomicU64,
    /// Counts answers whose waits are to differ.
    turn: AtomicU32,
    /// HTTP connections that shards keep, and how many they may.
    http: AtomicU64,
    http_max: u64,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(u64::MAX, None)
    }
}

impl Admission {
    /// At most `connections_max` WebSockets at a time, and `rate_max` handshakes a second.
    #[must_use]
    pub fn new(connections_max: u64, rate_max: Option<NonZeroU32>) -> Self {
        Self {
            connections_max,
            open: AtomicU64::new(0),
            period: rate_max.map_or(0, |rate| SECOND / Nanos::from(rate.get())),
            last: AtomicU64::new(0),
            line: AtomicU64::new(0),
            turn: AtomicU32::new(0),
            http: AtomicU64::new(0),
            http_max: u64::MAX,
        }
    }

    /// The same with at most so many HTTP connections that stay with shards.
    #[must_use]
    pub fn keeping_http(self, http_max: u64) -> Self {
        Self { http_max, ..self }
    }

    /// Lets an HTTP connection stay with its shard; false: there are as many as there may be. It must
    /// [`Admission::leave_http`] when it is gone.
    #[must_use]
    pub fn enter_http(&self) -> bool {
        let more = |kept| (kept < self.http_max).then_some(kept + 1);
        self.http.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// An HTTP connection that stayed with its shard is gone, or handed over.
    pub fn leave_http(&self) {
        self.http.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many HTTP connections stay with shards.
    #[must_use]
    pub fn http(&self) -> u64 {
        self.http.load(Ordering::Relaxed)
    }

    /// Lets a WebSocket in, at `now` on the monotonic clock. It must [`Admission::leave`] when it is gone.
    ///
    /// # Errors
    /// Which limit it met.
    pub fn enter(&self, now: Nanos) -> Result<(), Rejection> {
        let more = |open| (open < self.connections_max).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Err(self.full());
        }
        if let Err(seconds) = self.take_place(now) {
            self.leave();
            return Err(Rejection::AcceptRate(seconds));
        }
        Ok(())
    }

    /// A WebSocket that was let in is gone.
    pub fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many WebSockets are in.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// There is no room.
    pub(crate) fn full(&self) -> Rejection {
        Rejection::Connections(self.spread(FULL_S))
    }

    /// The broker goes down.
    pub(crate) fn draining(&self) -> Rejection {
        Rejection::Draining(self.spread(DRAINING_S))
    }

    /// The next place in the schedule, or after how many seconds to ask again.
    fn take_place(&self, now: Nanos) -> Result<(), u32> {
        if self.period == 0 {
            return Ok(());
        }
        let next = |last: Nanos| {
            let place = last.max(now) + self.period;
            (place <= now + SECOND.max(self.period)).then_some(place)
        };
        if self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
            return Ok(());
        }
        let behind = |line: Nanos| Some((line.max(now) + self.period).min(now + LINE_S_MAX * SECOND));
        let before = self.line.fetch_update(Ordering::Relaxed, Ordering::Relaxed, behind).unwrap_or(now);
        Err((before.saturating_sub(now) / SECOND + 1) as u32)
    }

    /// Numbers from `least` to `most`, in turn.
    fn spread(&self, (least, most): (u32, u32)) -> u32 {
        least + self.turn.fetch_add(1, Ordering::Relaxed) % (most - least + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_http_connections_stay_with_shards() {
        let admission = Admission::new(1, None).keeping_http(2);
        assert!(admission.enter_http() && admission.enter_http() && !admission.enter_http());
        assert_eq!((admission.http(), admission.open()), (2, 0), "they are no WebSockets");
        admission.leave_http();
        assert!(admission.enter_http());
    }

    #[test]
    fn as_many_as_allowed_and_again_when_one_has_left() {
        let admission = Admission::new(2, None);
        assert!(admission.enter(0).is_ok() && admission.enter(0).is_ok());
        assert!(matches!(admission.enter(0), Err(Rejection::Connections(3..=12))));
        let waits: std::collections::BTreeSet<_> = (0..20).map(|_| admission.full().answer().retry_after_s).collect();
        assert_eq!(waits.len(), 10, "they do not all come back together");
        admission.leave();
        assert!(admission.enter(0).is_ok());
        assert_eq!(admission.open(), 2);
    }

    /// A crowd that comes at once and waits as Retry-After says is in as soon as the rate allows, in two tries each.
    #[test]
    fn a_crowd_comes_back_at_the_rate_it_is_taken() {
        const CROWD: usize = 50_000;
        let admission = Admission::new(u64::MAX, NonZeroU32::new(5_000));
        let mut waiting = vec![0; CROWD];
        let mut tries = 0;
        for second in 0..=10 {
            let now = 1_000 * SECOND + second * SECOND;
            let mut came = 0;
            waiting.retain_mut(|due| {
                if *due > second {
                    return true;
                }
                came += 1;
                match admission.enter(now) {
                    Ok(()) => false,
                    Err(Rejection::AcceptRate(wait_s)) => {
                        *due = second + u64::from(wait_s);
                        true
                    }
                    Err(other) => panic!("{other:?}"),
                }
            });
            assert!(second == 0 || came <= 5_001, "{came} in second {second}");
            tries += came;
        }
        assert!(waiting.is_empty(), "{} are still out", waiting.len());
        assert!(tries <= 2 * CROWD + 10, "{tries}");
        assert_eq!(admission.open(), CROWD as u64);
    }

    #[test]
    fn the_rate_holds_over_any_time_and_idleness_saves_up_one_second() {
        let admission = Admission::new(u64::MAX, NonZeroU32::new(100));
        let millis = |ms: u64| 50 * SECOND + ms * 1_000_000;
        let admit_client = |from: u64, to: u64| (from..to).filter(|&ms| admission.enter(millis(ms)).is_ok()).count();
        assert_eq!(admit_client(0, 1000), 199, "a second's worth at once, and a second's worth");
        assert_eq!(admit_client(1000, 5000), 400);
        assert_eq!(admit_client(60_000, 61_000), 199);
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let admission = Admission::new(u64::MAX, NonZeroU32::new(1));
        assert!(admission.enter(SECOND).is_ok());
        assert!(admission.enter(SECOND).is_err());
        assert!(admission.enter(2 * SECOND).is_ok());
    }

    #[test]
    fn tables_keep_slots_for_refusals() {
        let reserves = [2, 8, 100, 1_000, 20_000, 1 << 20].map(reserve);
        assert_eq!(reserves, [0, 2, 25, 64, 100, 1024]);
    }
}
