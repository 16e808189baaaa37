//! How many topics one client may begin over HTTP: `topics_per_connection_max` within `--topic-idle-timeout`, so that
//! nobody takes all names that the broker can keep (`--max-topics`).
//!
//! A client is an address where one is known; all others, those of loopback, are one client together. A schedule instead of a list of names: each new topic
//! takes the next place, one period behind the one before; a place further ahead of the clock than the whole time is
//! too much. A client that was quiet may begin all of its topics at once.
//!
//! Memory: a table of addresses that began topics lately, [`CLIENTS_MAX`] at most; beyond that a client counts as one
//! whose address is not known.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use ring::Nanos;

use crate::access::address::Client;
use crate::access::quota::{NameShare, NamesLeft};
use crate::config::limits::Limits;
use crate::http::connection::lock;

/// Addresses that are remembered, 32 bytes each.
const CLIENTS_MAX: usize = 1 << 16;

/// The places of all clients in their schedules. Hashed at random, for clients may choose their addresses.
#[derive(Default, Debug)]
pub(crate) struct Names {
    known: Mutex<HashMap<Client, NameShare>>,
    /// Of all clients whose address is not known: those of loopback. Connections are too cheap to count by.
    unknown: Mutex<NameShare>,
}

impl Names {
    /// Takes a place for one new topic. False: this client began too many.
    /// `bytes`: what it weighs; `left`: for how much more of all clients there is room.
    pub(crate) fn take(
        &self,
        client: Option<Client>,
        now: Nanos,
        limits: &Limits,
        bytes: u64,
        left: NamesLeft,
    ) -> bool {
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

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const PLENTY: NamesLeft = NamesLeft { names: usize::MAX, bytes: u64::MAX >> 1, bytes_max: u64::MAX >> 1 };

    fn taken(names: &Names, client: Option<Client>, now: Nanos, tries: usize) -> usize {
        let limits = Limits { topics_per_connection_max: 10, ..Limits::default() };
        (0..tries).filter(|_| names.take(client, now, &limits, 600, PLENTY)).count()
    }

    #[test]
    fn each_client_begins_so_many_and_then_as_time_goes_by() {
        let names = Names::default();
        let client = |ip: &str| Client::of(ip.parse().unwrap());
        let begin = 1000 * SECOND;
        let one = client("203.0.113.7");
        assert_eq!(taken(&names, one, begin, 50), 10);
        assert_eq!(taken(&names, one, begin, 50), 0);
        assert_eq!(taken(&names, client("203.0.113.8"), begin, 50), 10);
        assert_eq!(taken(&names, None, begin, 50), 10);
        assert_eq!(taken(&names, None, begin, 50), 0, "those that nobody knows are one client");
        assert_eq!(taken(&names, one, begin + 6 * SECOND, 50), 1);
        assert_eq!(taken(&names, one, begin + 200 * SECOND, 50), 10);
    }
}
