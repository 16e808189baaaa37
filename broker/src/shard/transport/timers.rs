//! A coarse timer wheel: one deadline per connection, moved for free.
//!
//! A connection has one valid entry in the wheel ([`Conn::timer`]) and a deadline ([`Conn::deadline`]).
//! Moving the deadline later touches only the connection: its entry, when due, is put back at the
//! deadline. Moving it earlier adds an entry and leaves the old one to be recognised as stale. Cost of an
//! idle connection: one entry a ping interval.
//!
//! Unit: ticks of [`TICK`].
//!
//! [`Conn::timer`]: crate::shard::transport::connection::Conn
//! [`Conn::deadline`]: crate::shard::transport::connection::Conn

use std::time::Duration;

use ring::{ConnId, Nanos};

use crate::shard::transport::connection::Conn;

/// The wheel's grain: deadlines are met this much late at most.
pub(crate) const TICK: Duration = Duration::from_millis(250);
const TICK_NANOS: Nanos = TICK.as_nanos() as Nanos;
/// Slots; a deadline further away is put back when its slot comes by.
const SLOTS: u32 = 256;

/// Deadlines of a shard's connections.
#[derive(Debug)]
pub(crate) struct Timers {
    slots: Vec<Vec<(ConnId, u32)>>,
    /// The tick up to which everything was fired.
    fired: u32,
    /// The tick that deadlines count from. Ahead of `fired` after a sleep, until what is due was fired.
    clock: u32,
    origin: Nanos,
}

impl Timers {
    pub(crate) fn new(now: Nanos) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), fired: 0, clock: 0, origin: now }
    }

    /// Sets the time. Fires nothing: what came in during a sleep is looked at before what was due in it.
    pub(crate) fn advance(&mut self, now: Nanos) {
        self.clock = self.tick_at(now);
    }

    /// Sets the deadline of `conn` to `after` from now.
    pub(crate) fn set(&mut self, id: ConnId, conn: &mut Conn, after: Duration) {
        conn.deadline = self.clock + ticks(after);
        if conn.deadline < conn.timer {
            self.enter(id, conn);
        }
    }

    /// Takes what is due by the time of the last [`Timers::advance`]: connections whose deadline may have passed. Each must be
    /// given to [`Timers::fire`].
    pub(crate) fn due(&mut self, due: &mut Vec<(ConnId, u32)>) {
        // A clock that jumped far ahead needs one round only: every slot has been by then.
        let rounds = (self.clock - self.fired).min(SLOTS);
        let first = self.clock - rounds;
        for tick in first + 1..=self.clock {
            // Taken whole: a slot that kept the room of its busiest tick would keep it for good.
            due.append(&mut std::mem::take(&mut self.slots[(tick % SLOTS) as usize]));
        }
        self.fired = self.clock;
    }

    /// Whether the entry that came due is the connection's valid one and its deadline has passed. If only
    /// the former, the connection is put back.
    pub(crate) fn fire(&mut self, id: ConnId, conn: &mut Conn, entry: u32) -> bool {
        if conn.timer != entry {
            return false;
        }
        conn.timer = u32::MAX;
        if conn.deadline > self.fired {
            self.enter(id, conn);
            return false;
        }
        true
    }

    /// When the next entry comes due.
    pub(crate) fn next(&self) -> Option<Nanos> {
        (1..=SLOTS)
            .map(|ahead| self.fired + ahead)
            .find(|tick| !self.slots[(tick % SLOTS) as usize].is_empty())
            .map(|tick| self.origin + Nanos::from(tick) * TICK_NANOS)
    }

    fn enter(&mut self, id: ConnId, conn: &mut Conn) {
        let tick = conn.deadline.clamp(self.fired + 1, self.fired + SLOTS - 1);
        conn.timer = tick;
        self.slots[(tick % SLOTS) as usize].push((id, tick));
    }

    fn tick_at(&self, now: Nanos) -> u32 {
        let tick = now.saturating_sub(self.origin) / TICK_NANOS;
        u32::try_from(tick).unwrap_or(u32::MAX - SLOTS).max(self.clock)
    }
}

fn ticks(after: Duration) -> u32 {
    let ticks = after.as_nanos().div_ceil(u128::from(TICK_NANOS));
    u32::try_from(ticks).unwrap_or(u32::MAX / 4).clamp(1, u32::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ConnId = ConnId { slot: 0, generation: 0 };

    fn fired(timers: &mut Timers, conn: &mut Conn, now: Duration) -> usize {
        let mut due = Vec::new();
        timers.advance(now.as_nanos() as Nanos);
        timers.due(&mut due);
        due.into_iter().filter(|&(id, entry)| timers.fire(id, conn, entry)).count()
    }

    #[test]
    fn a_deadline_fires_once_and_not_before() {
        let mut timers = Timers::new(0);
        let mut conn = Conn::new(0);
        timers.set(ID, &mut conn, Duration::from_secs(1));
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_millis(900)), 0);
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_millis(1000)), 1);
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(100)), 0);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_deadline_moves_both_ways() {
        let mut timers = Timers::new(0);
        let mut conn = Conn::new(0);
        timers.set(ID, &mut conn, Duration::from_secs(10));
        timers.set(ID, &mut conn, Duration::from_secs(20));
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(11)), 0, "moved later");
        timers.set(ID, &mut conn, Duration::from_secs(1));
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(12)), 1, "moved earlier");
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(30)), 0, "the old entry is stale");
    }

    #[test]
    fn a_deadline_set_after_a_long_sleep_counts_from_its_end() {
        let mut timers = Timers::new(0);
        let mut conn = Conn::new(0);
        timers.advance(Duration::from_secs(3600).as_nanos() as Nanos);
        timers.set(ID, &mut conn, Duration::from_secs(10));
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(3609)), 0);
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(3610)), 1);
    }

    #[test]
    fn beyond_the_wheel_and_after_a_clock_jump() {
        let mut timers = Timers::new(0);
        let mut conn = Conn::new(0);
        timers.set(ID, &mut conn, Duration::from_secs(3600));
        let mut count = 0;
        for second in 0..3600 {
            count += fired(&mut timers, &mut conn, Duration::from_secs(second));
        }
        assert_eq!(count, 0);
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(3600)), 1);
        timers.set(ID, &mut conn, Duration::from_secs(5));
        assert_eq!(fired(&mut timers, &mut conn, Duration::from_secs(1_000_000)), 1);
    }
}
