//! How many names clients may begin: all together, and each by itself.
//!
//! A topic exists as long as somebody remembers it, so its name is memory that a client can make grow with one short
//! message. Two bounds: `--max-topics`, and the names' share of the budget, hold for all (`shard/names.rs` compares); a
//! [`NameShare`] holds for one client, so that the others find room. Names that exist already cost nobody anything.

use std::collections::HashMap;
use std::sync::Mutex;

use ring::{Nanos, nanos};

use crate::access::address::Client;
use crate::access::lock;
use crate::config::limits::Limits;

/// What a name means for the registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// It is registered.
    Known,
    /// It is not, and there is room for it: whoever registers it begins it.
    New,
}

/// Why no new name is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NamesFull {
    /// There are as many as `--max-topics` allows.
    Topics,
    /// They would take more memory than they may.
    Memory,
}

impl NamesFull {
    /// A clause for the client.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topics => "the broker has as many topics as --max-topics allows",
            Self::Memory => "the broker has no memory left for new topics; see --max-memory",
        }
    }
}

/// One client's share of the new names: so many at once, and from then on as many per window.
///
/// A schedule: every name takes the next place, a fraction of the window behind the one before; a place more than a
/// window ahead of the clock is one too many.
///
/// Many clients together could still begin all names that there may be. So the share gets smaller with the room that is
/// left: nobody may have begun more within the window than there is room for. (Switches share their buffers so; Choudhury
/// and Hahne, "Dynamic queue length thresholds", 1998.) However many take all they can, a newcomer finds room.
#[derive(Clone, Copy, Default, Debug)]
pub struct NameShare {
    /// The place of the last name.
    last: Nanos,
    /// The same for its bytes: how much of the window is taken by what this client's names weigh.
    bytes_last: Nanos,
}

/// What there is room for.
#[derive(Clone, Copy, Debug)]
pub struct NamesLeft {
    /// Names, by their number.
    pub names: usize,
    /// Bytes of names.
    pub bytes: u64,
    /// The most bytes that all names may take.
    pub bytes_max: u64,
}

impl NameShare {
    /// Takes a place for a new name that weighs `bytes`, of `names_max` in `window` nanoseconds, while there is room
    /// for so much more of all clients. False: there is none.
    #[must_use]
    pub fn take(&mut self, now: Nanos, names_max: usize, window: Nanos, bytes: u64, left: NamesLeft) -> bool {
        let period = (window / names_max.max(1) as u64).max(1);
        let place = self.last.max(now) + period;
        if place > now + window || (place - now) / period > left.names as u64 {
            return false;
        }
        let part = |bytes: u64| {
            let part = u128::from(window) * u128::from(bytes) / u128::from(left.bytes_max.max(1));
            Nanos::try_from(part).unwrap_or(Nanos::MAX / 4)
        };
        let bytes_place = self.bytes_last.max(now) + part(bytes);
        if bytes_place - now > part(left.bytes) {
            return false;
        }
        (self.last, self.bytes_last) = (place, bytes_place);
        true
    }

    /// Whether nothing would be lost with this share: all its places have passed.
    #[must_use]
    pub fn is_over(&self, now: Nanos) -> bool {
        self.last <= now && self.bytes_last <= now
    }
}

/// Addresses that are remembered, 32 bytes each.
const CLIENTS_MAX: usize = 1 << 16;

/// The shares of clients that begin topics over HTTP, where a client is an address and not a connection. All whose
/// address is not known, those of loopback, are one client together. Beyond 65,536 addresses a client counts as
/// one of those. Hashed at random, for clients may choose their addresses.
#[derive(Default, Debug)]
pub struct ClientShares {
    known: Mutex<HashMap<Client, NameShare>>,
    unknown: Mutex<NameShare>,
}

impl ClientShares {
    /// Takes a place for one new topic. False: this client began too many.
    /// `bytes`: what it weighs; `left`: for how much more of all clients there is room.
    #[must_use]
    pub fn take(&self, client: Option<Client>, now: Nanos, limits: &Limits, bytes: u64, left: NamesLeft) -> bool {
        let take = |share: &mut NameShare| {
            share.take(now, limits.topics_per_connection_max, nanos(limits.topic_idle_timeout), bytes, left)
        };
        let Some(client) = client else {
            return take(&mut lock(&self.unknown));
        };
        let clients = &mut *lock(&self.known);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            // In an order that nobody can foresee, for as long as it takes to find what is out of date.
            clients.retain(|_, share| !share.is_over(now));
            if clients.len() >= CLIENTS_MAX {
                return take(&mut lock(&self.unknown));
            }
        }
        take(clients.entry(client).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const PLENTY: NamesLeft = NamesLeft { names: usize::MAX, bytes: u64::MAX >> 1, bytes_max: u64::MAX >> 1 };

    #[test]
    fn a_share_is_taken_at_once_and_comes_back_over_the_window() {
        let mut share = NameShare::default();
        let taken =
            |share: &mut NameShare, now| (0..1000).filter(|_| share.take(now, 100, 60 * SECOND, 600, PLENTY)).count();
        assert_eq!(taken(&mut share, 5 * SECOND), 100);
        assert_eq!(taken(&mut share, 5 * SECOND), 0);
        assert!(!share.is_over(5 * SECOND));
        assert_eq!(taken(&mut share, 35 * SECOND), 50);
        assert_eq!(taken(&mut share, 500 * SECOND), 100, "and no more than that after a long time");
        assert!(share.is_over(600 * SECOND));
    }

    #[test]
    fn however_many_take_all_they_can_a_newcomer_finds_room() {
        const ROOM: usize = 1000;
        let mut names = 0;
        let mut shares = [NameShare::default(); 9];
        for _ in 0..ROOM {
            for share in &mut shares {
                let left = NamesLeft { names: ROOM - names, ..PLENTY };
                names += usize::from(share.take(SECOND, ROOM, 60 * SECOND, 600, left));
            }
        }
        assert!((880..=900).contains(&names), "{names}");
        let left = NamesLeft { names: ROOM - names, ..PLENTY };
        assert!(NameShare::default().take(SECOND, ROOM, 60 * SECOND, 600, left));
        // The same by weight.
        let (mut bytes, mut shares) = (0, [NameShare::default(); 9]);
        for _ in 0..ROOM {
            for share in &mut shares {
                let left = NamesLeft { bytes: 1_000_000 - bytes, bytes_max: 1_000_000, ..PLENTY };
                bytes += if share.take(SECOND, 1_000_000, 60 * SECOND, 5_000, left) { 5_000 } else { 0 };
            }
        }
        assert!((850_000..=900_000).contains(&bytes), "{bytes}");
    }

    fn begun(names: &ClientShares, client: Option<Client>, now: Nanos, tries: usize) -> usize {
        let limits = Limits { topics_per_connection_max: 10, ..Limits::default() };
        (0..tries).filter(|_| names.take(client, now, &limits, 600, PLENTY)).count()
    }

    #[test]
    fn each_client_begins_so_many_and_then_as_time_goes_by() {
        let names = ClientShares::default();
        let client = |ip: &str| Client::of(ip.parse().unwrap());
        let begin = 1000 * SECOND;
        let one = client("203.0.113.7");
        assert_eq!(begun(&names, one, begin, 50), 10);
        assert_eq!(begun(&names, one, begin, 50), 0);
        assert_eq!(begun(&names, client("203.0.113.8"), begin, 50), 10);
        assert_eq!(begun(&names, None, begin, 50), 10);
        assert_eq!(begun(&names, None, begin, 50), 0, "those that nobody knows are one client");
        assert_eq!(begun(&names, one, begin + 6 * SECOND, 50), 1);
        assert_eq!(begun(&names, one, begin + 200 * SECOND, 50), 10);
    }
}
