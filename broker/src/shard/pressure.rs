//! What happens when memory gets short: connections that hold much and take nothing are closed, those first that hold
//! most or longest; and publishers wait.
//!
//! Short is the budget of the whole broker ([`Budget::level`](crate::capacity::budget::Budget::level)) or this shard's share of
//! messages (`--max-log`). A connection can be closed for it if its socket has taken nothing for [`BLOCKED`], or if it
//! has left a message unfinished for [`UNFINISHED`]; what it holds is its send in flight, what waits for it in logs, its
//! answers and its input.
//!
//! Only while memory is short are connections looked at, so many a turn. One pass over all of them finds out from which
//! weight on they have to go, the next one closes those. Weight is bytes held, times the seconds held.
//!
//! Cost: a comparison a turn while nothing is short.

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos};

use crate::capacity::budget::Level;
use crate::capacity::log_shares::full_from;
use crate::observe::counters::Reason;
use crate::publishing::body::given_up;
use crate::session::Session;
use crate::session::subscription::Subscription;
use crate::shard::Shard;
use crate::shard::fanout::parts::Thrift;
use crate::shard::transport::connection::{Flags, State};

/// For how long a connection has to have taken nothing.
const BLOCKED: Nanos = 250_000_000;
/// For how long a message has to have been under way.
const UNFINISHED: Nanos = 1_000_000_000;
/// And how many bytes it has to hold: shorter ones are not what memory is short of.
const UNFINISHED_BYTES: u64 = 64 << 10;
/// Connections that a turn looks at.
const LOOKS_PER_TURN: usize = 256;
/// Subscriptions of one connection that are looked at.
const SUBSCRIPTIONS_LOOKED_AT: usize = 64;
const SECOND: Nanos = 1_000_000_000;

/// How far the search for those that hold most has got.
#[derive(Debug)]
pub(super) struct Pressure {
    /// How short memory is, as of this turn.
    pub(super) level: Level,
    /// Bytes that this shard's account may grow to in this turn before sends are frugal.
    account_bytes_high: u64,
    /// And before no more publishes are taken.
    account_bytes_max: u64,
    /// And before not even those are that were received already.
    account_bytes_top: u64,
    /// Publishers had to wait for memory.
    was_full: bool,
    /// The next slot to look at.
    next: usize,
    /// From this weight on connections are closed; `None` in a pass that only looks.
    closes_from: Option<u64>,
    /// Bytes held by connections whose weight has this many bits, as seen in this pass.
    held: [u64; 64],
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            level: Level::Calm,
            account_bytes_high: u64::MAX,
            account_bytes_max: u64::MAX,
            account_bytes_top: u64::MAX,
            was_full: false,
            next: 0,
            closes_from: None,
            held: [0; 64],
        }
    }
}

impl Pressure {
    /// The weight from which on connections have to go, so that `bytes` become free.
    fn threshold(&self, bytes: u64) -> Option<u64> {
        let mut freed = 0;
        for bits in (0..64).rev() {
            freed += self.held[bits];
            if freed >= bytes || (bits == 0 && freed > 0) {
                return Some(if bits == 0 { 0 } else { 1 << (bits - 1) });
            }
        }
        None
    }
}

impl<D: Driver> Shard<D> {
    /// Finds out how short memory is, and closes connections for it; called once a turn.
    pub(super) fn relieve_pressure(&mut self) {
        let log_max = self.limits.log_bytes_max;
        let kept = self.logged_bytes();
        let come = self.mailbox.take_come_bytes();
        let logs = if self.shared.log_shares.keep(self.id, kept, come, log_max) {
            Level::Full
        } else if kept >= log_max - log_max / 4 {
            Level::High
        } else {
            Level::Calm
        };
        let budget = &self.shared.budget;
        let used = budget.used();
        let level = budget.level_of(used).max(logs);
        let (used_here, shards) = (self.account.used(), u64::from(self.shards()));
        let own = |left: u64| used_here.saturating_add(left / shards);
        let (high, max) = (budget.bytes_to(Level::High, used), budget.bytes_to(Level::Full, used));
        (self.pressure.account_bytes_high, self.pressure.account_bytes_max) = (own(high), own(max));
        self.pressure.account_bytes_top = own(budget.bytes_to_top(used));
        self.pressure.level = level;
        let is_full = level == Level::Full || self.logs_are_full();
        if std::mem::replace(&mut self.pressure.was_full, is_full) && !is_full {
            self.input.try_all();
        }
        if level == Level::Calm {
            (self.pressure.next, self.pressure.closes_from, self.pressure.held) = (0, None, [0; 64]);
            return;
        }
        // Down to five eighths.
        let goal = |bytes: u64, max: u64| bytes.saturating_sub(max - max / 8 * 3);
        let excess = goal(used, self.shared.budget.bytes_max()).max(goal(self.fanout.log_bytes, log_max));
        self.look_for_holders(excess);
    }

    fn look_for_holders(&mut self, excess: u64) {
        for _ in 0..LOOKS_PER_TURN {
            let at = self.pressure.next;
            if at >= self.conns.slots() {
                self.pressure.next = 0;
                self.pressure.closes_from = match self.pressure.closes_from {
                    None => self.pressure.threshold(excess),
                    Some(_) => None,
                };
                self.pressure.held = [0; 64];
                return;
            }
            self.pressure.next += 1;
            let Some(id) = self.conns.id_at(at) else { continue };
            let Some((bytes, age)) = self.holding(id) else { continue };
            let weight = bytes.saturating_mul(1 + age / SECOND);
            match self.pressure.closes_from {
                None => self.pressure.held[(u64::BITS - weight.leading_zeros()).min(63) as usize] += bytes,
                Some(least) if weight >= least => self.close_holder(id),
                Some(_) => {}
            }
        }
    }

    /// What a connection holds without getting on, and for how long; `None`: nothing, or it gets on.
    fn holding(&mut self, id: ConnId) -> Option<(u64, Nanos)> {
        let now = self.now;
        let conn = self.conns.get(id)?;
        if !matches!(conn.state, State::Http | State::Open | State::Closing) {
            return None;
        }
        let stuck = conn.flags.has(Flags::SENDING).then(|| conn.send_age(now));
        let mut bytes = conn.send_bytes() + conn.extra.as_ref().map_or(0, |extra| extra.charged());
        let unfinished = conn.extra.as_ref().and_then(|extra| extra.assembly.as_ref());
        let unfinished = unfinished.map(|assembly| now.saturating_sub(assembly.since));
        // A message may be unfinished because this shard makes its connection wait, so it has more time.
        let unfinished = unfinished.filter(|age| *age >= UNFINISHED && bytes >= UNFINISHED_BYTES);
        let age = stuck.filter(|age| *age >= BLOCKED).max(unfinished)?;
        if stuck.is_some() {
            bytes += lag_bytes(&conn.session, |subscription| {
                self.fanout.logs.get(subscription.log).map_or(0, |log| log.lag_bytes(subscription.cursor))
            });
        }
        Some((bytes, age))
    }

    /// Closes a connection because of the memory that it holds: at once, for its socket would not take a word.
    fn close_holder(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::SENDING) || conn.state == State::Closing {
            self.abort(id, Reason::Memory);
        } else if conn.state == State::Http {
            self.fail_request(id, &given_up());
        } else {
            let why = "memory is short, and this connection held much of it; connect again";
            self.close_with(id, close_code::TRY_AGAIN_LATER.into(), why, Reason::Memory);
        }
    }

    /// How long a send may be, and how free with memory.
    pub(super) fn thrift(&self) -> Thrift {
        let short = self.pressure.level != Level::Calm || self.account.used() >= self.pressure.account_bytes_high;
        match (short, self.fanout.short_turns > 0) {
            (true, _) => Thrift::Frugal,
            (_, true) => Thrift::Short,
            (_, false) => Thrift::Fast,
        }
    }

    /// Whether publishers have to wait because memory is short. Input that is kept already takes some itself: it is
    /// worked off a little longer than more is received, or all would hold memory while they wait for it.
    pub(super) fn memory_is_full(&self) -> bool {
        if self.logs_are_full() {
            return true;
        }
        if self.input.resuming {
            return self.account.used() >= self.pressure.account_bytes_top;
        }
        self.pressure.level == Level::Full || self.account.used() >= self.pressure.account_bytes_max
    }

    /// Whether a share of messages is full, this shard's or another's.
    fn logs_are_full(&self) -> bool {
        self.shared.log_shares.is_any_full() || self.logged_bytes() >= full_from(self.limits.log_bytes_max)
    }

    /// Bytes of messages in logs, and of those that are here on their way into some.
    fn logged_bytes(&self) -> u64 {
        self.fanout.log_bytes + self.fanout.appends.bytes() + self.mailbox.held_bytes()
    }
}

/// Bytes that wait for a connection in logs.
fn lag_bytes(session: &Session, lag: impl Fn(&Subscription) -> u64) -> u64 {
    let some = session.pending().iter().take(SUBSCRIPTIONS_LOOKED_AT);
    some.filter_map(|&key| session.subscription(key)).map(lag).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_go_first_and_no_more_than_needed() {
        let mut pressure = Pressure::default();
        pressure.held[11] = 5 * 1024;
        pressure.held[21] = 3 << 20;
        pressure.held[17] = 10 << 16;
        assert_eq!(pressure.threshold(1), Some(1 << 20));
        assert_eq!(pressure.threshold(3 << 20), Some(1 << 20));
        assert_eq!(pressure.threshold((3 << 20) + 1), Some(1 << 16));
        assert_eq!(pressure.threshold(1 << 30), Some(0), "not enough: all that hold anything");
        assert_eq!(Pressure::default().threshold(1), None);
    }
}
