//! The memory that the broker holds for its clients, in real bytes, with one bound.
//!
//! Whatever outlives the turn or the request that made it, and that a client can make grow, is charged here for as
//! long as it lives: messages with their encodings and the sends that carry them, messages that arrive in pieces,
//! answers, HTTP bodies, batches between shards, names, subscriptions. A [`Charge`] is part of what it stands for
//! and gives its bytes back when that is dropped, so nobody has to remember to. Not responsible for what happens at
//! the bound: the code that is about to hold more asks ([`Budget::level`], [`Budget::fits`]) and decides.
//!
//! Not charged, because their number is bounded and their size fixed: connection records, timers, rings and receive
//! buffers. [`Capacity`](crate::capacity::connections::Capacity) adds those up at start.
//!
//! Units: bytes as the allocator gives them out ([`allocated`]), overhead included.
//!
//! Invariant: `used` = the sum of all living charges.
//!
//! Cost: one atomic addition per charge and one per release, on a cache line of the shard that charged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use protocol::frame::HEADER_MAX;

/// What memory is held for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// Published messages, their encodings, and the sends that carry them.
    Messages,
    /// Messages that arrive in pieces.
    Assemblies,
    /// Input that waits, and what a connection needs while it does.
    Input,
    /// Answers that wait for their connection's socket.
    Outboxes,
    /// HTTP connections with their buffers.
    Http,
    /// Bodies of HTTP requests.
    Bodies,
    /// Batches on their way between shards.
    Queues,
    /// Topics and filters.
    Names,
    /// Subscriptions, publishers' state and requests of `ringyard.v1` connections.
    Subscriptions,
    /// What topics' histories take besides their messages.
    Histories,
    /// Keys and records of TLS connections.
    Tls,
    /// Whom tokens belong to and what they allow, also those that are remembered after their clients have left.
    Tokens,
}

impl Held {
    /// All there are.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Messages,
        Self::Assemblies,
        Self::Input,
        Self::Outboxes,
        Self::Http,
        Self::Bodies,
        Self::Queues,
        Self::Names,
        Self::Subscriptions,
        Self::Histories,
        Self::Tls,
        Self::Tokens,
    ];
    /// How many there are.
    pub const COUNT: usize = 12;

    /// Its name in `/metrics`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Assemblies => "assemblies",
            Self::Input => "input",
            Self::Outboxes => "outboxes",
            Self::Http => "http",
            Self::Bodies => "bodies",
            Self::Queues => "queues",
            Self::Names => "names",
            Self::Subscriptions => "subscriptions",
            Self::Histories => "histories",
            Self::Tls => "tls",
            Self::Tokens => "tokens",
        }
    }

    /// Its share of the budget, in sixteenths. Messages, with what carries them and answers, have none: they take what
    /// is left, and their senders wait when that is used. All other shares together are three quarters, so that messages
    /// get on however much is held for other reasons.
    #[must_use]
    const fn sixteenths(self) -> u64 {
        match self {
            Self::Messages | Self::Outboxes | Self::Queues | Self::Histories | Self::Tls | Self::Tokens => 16,
            Self::Names => 3,
            Self::Assemblies | Self::Http | Self::Bodies | Self::Subscriptions => 2,
            Self::Input => 1,
        }
    }

    /// Its share of a budget of so many bytes.
    #[must_use]
    pub const fn share_of(self, budget_bytes: u64) -> u64 {
        budget_bytes / 16 * self.sixteenths()
    }
}

/// What a message of `message_bytes_max` takes with its frame's header, in bytes.
#[must_use]
pub fn longest_message(message_bytes_max: u64) -> u64 {
    allocated(usize::try_from(message_bytes_max).unwrap_or(usize::MAX).saturating_add(HEADER_MAX))
}

/// How much of the budget is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Less than three quarters.
    Calm,
    /// Connections that hold much and take nothing are closed.
    High,
    /// Seven eighths or more: publishers wait too. What is left is for what cannot be refused at once.
    Full,
}

/// Bytes charged by one thread: a shard or the control plane. Any thread may release them.
#[derive(Debug, Default)]
pub struct Account(CachePadded<[AtomicU64; Held::COUNT]>);

impl Account {
    /// Bytes charged here for `held`.
    #[must_use]
    pub fn held(&self, held: Held) -> u64 {
        self.0[held as usize].load(Ordering::Relaxed)
    }

    /// Charges `bytes` for something that is too small to carry a [`Charge`]. Whoever charges so releases the same when that
    /// is dropped.
    pub fn charge(&self, held: Held, bytes: u64) {
        self.0[held as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was charged with [`Account::charge`].
    pub fn release(&self, held: Held, bytes: u64) {
        self.0[held as usize].fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes charged here.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}

/// The bound and all accounts.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    accounts: Box<[Arc<Account>]>,
}

impl Budget {
    /// A budget of `bytes_max` with one account for each of `shards` and one for the control plane.
    #[must_use]
    pub fn new(shards: u16, bytes_max: u64) -> Self {
        Self { bytes_max, accounts: (0..=shards).map(|_| Arc::default()).collect() }
    }

    /// The account of a shard.
    #[must_use]
    pub fn of_shard(&self, shard: u16) -> &Arc<Account> {
        &self.accounts[usize::from(shard)]
    }

    /// The account of the control plane, and of whatever belongs to no shard.
    #[must_use]
    pub fn of_plane(&self) -> &Arc<Account> {
        self.accounts.last().expect("one account beside those of the shards")
    }

    /// The bound.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes charged by all.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.accounts.iter().map(|account| account.used()).sum()
    }

    /// Bytes charged by all for `held`.
    #[must_use]
    pub fn held(&self, held: Held) -> u64 {
        self.accounts.iter().map(|account| account.held(held)).sum()
    }

    /// How full it is now.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level_of(self.used())
    }

    /// How full it is with `used` bytes.
    #[must_use]
    pub fn level_of(&self, used: u64) -> Level {
        if used >= self.full_bytes() {
            Level::Full
        } else if used >= self.high_bytes() {
            Level::High
        } else {
            Level::Calm
        }
    }

    /// The most bytes that may be held for `held`.
    #[must_use]
    pub fn share(&self, held: Held) -> u64 {
        held.share_of(self.bytes_max)
    }

    /// Whether `bytes` more may be held by somebody who can be refused: they stay below [`Level::Full`].
    #[must_use]
    pub fn fits(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) < self.full_bytes()
    }

    /// Whether `bytes` more may be held at all, by what has a share of its own and cannot wait for others to give memory
    /// back: they stay within the bound.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.bytes_max
    }

    /// The same for HTTP requests, which can be refused with a 503: the last thirty-second is left to open connections,
    /// for their input and their topics' names.
    #[must_use]
    pub fn has_room_for_request(&self, bytes: u64) -> bool {
        self.has_room(bytes.saturating_add(self.bytes_max / 32))
    }

    /// How many bytes more make it `level` when `used` are charged.
    #[must_use]
    pub fn bytes_to(&self, level: Level, used: u64) -> u64 {
        let from = match level {
            Level::Calm => 0,
            Level::High => self.high_bytes(),
            Level::Full => self.full_bytes(),
        };
        from.saturating_sub(used)
    }

    /// How many bytes more there may be before not even input that is kept already is worked off, when `used` are
    /// charged: up to fifteen sixteenths.
    #[must_use]
    pub fn bytes_to_top(&self, used: u64) -> u64 {
        (self.bytes_max - self.bytes_max / 16).saturating_sub(used)
    }

    fn high_bytes(&self) -> u64 {
        self.bytes_max - self.bytes_max / 4
    }

    fn full_bytes(&self) -> u64 {
        self.bytes_max - self.bytes_max / 8
    }
}

/// Bytes that count as used for as long as this lives.
#[derive(Debug)]
#[must_use = "dropped, it gives its bytes back"]
pub struct Charge {
    pub(super) account: Arc<Account>,
    pub(super) held: Held,
    bytes: u64,
}

impl Charge {
    /// Charges `bytes` whatever the bound.
    pub fn new(account: &Arc<Account>, held: Held, bytes: u64) -> Self {
        account.0[held as usize].fetch_add(bytes, Ordering::Relaxed);
        Self { account: Arc::clone(account), held, bytes }
    }

    /// From now on it stands for `bytes`.
    pub fn resize(&mut self, bytes: u64) {
        // Two's complement: adding the difference is right both ways.
        if bytes != self.bytes {
            self.account.0[self.held as usize].fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
            self.bytes = bytes;
        }
    }

    /// A charge of `bytes` on the same account.
    pub fn split(&self, bytes: u64) -> Self {
        Self::new(&self.account, self.held, bytes)
    }

    /// What it stands for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.0[self.held as usize].fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the two counts of an `Arc` take, in bytes.
pub const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// What the allocator gives out for `bytes`: mimalloc has four size classes between a power of two and the next.
#[must_use]
pub fn allocated(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    match bytes {
        0 => 0,
        1..=64 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_counts_while_it_lives_and_as_much_as_it_was_resized_to() {
        let budget = Budget::new(1, 1000);
        let mut first = Charge::new(budget.of_shard(0), Held::Input, 100);
        let second = Charge::new(budget.of_plane(), Held::Bodies, 50);
        assert_eq!((budget.used(), budget.held(Held::Input), budget.held(Held::Bodies)), (150, 100, 50));
        first.resize(30);
        assert_eq!(budget.used(), 80);
        first.resize(300);
        drop(second);
        assert_eq!(budget.used(), 300);
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn levels_begin_at_three_quarters_and_seven_eighths() {
        let budget = Budget::new(1, 800);
        let level = |bytes| {
            let _charge = Charge::new(budget.of_shard(0), Held::Messages, bytes);
            budget.level()
        };
        assert_eq!(
            [0, 599, 600, 699, 700, 900].map(level),
            [Level::Calm, Level::Calm, Level::High, Level::High, Level::Full, Level::Full]
        );
        assert!(budget.fits(699) && !budget.fits(700));
        assert!(budget.has_room(800) && !budget.has_room(801));
        assert!(budget.has_room_for_request(775) && !budget.has_room_for_request(776));
    }

    #[test]
    fn shares_leave_a_quarter_to_messages() {
        let shares = Held::ALL.into_iter().map(Held::sixteenths).filter(|share| *share < 16);
        assert_eq!(shares.sum::<u64>(), 12);
    }

    /// Classes as `mi_usable_size` reports them.
    #[test]
    fn what_is_allocated_is_what_the_allocator_gives_out() {
        let classes =
            [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280];
        for bytes in 1..=1280 {
            let class = classes.into_iter().find(|class| *class >= bytes as u64);
            assert_eq!(Some(allocated(bytes)), class, "{bytes}");
        }
        for bytes in (1280..5000).chain([1 << 16, (1 << 16) + 1, 1_000_000]) {
            let allocated = allocated(bytes);
            assert!(allocated >= bytes as u64, "{bytes}");
            assert!(allocated <= (bytes + bytes / 4) as u64, "{bytes}: {allocated}");
        }
    }
}
