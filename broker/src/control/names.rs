//! How many topics one client may begin over HTTP: `topics_per_connection_max` within `--topic-idle-timeout`, so that
//! nobody takes all names that the broker can keep (`--max-topics`).
//!
//! A client is an address where one is known, else a connection. A schedule instead of a list of names: each new topic
//! takes the next place, one period behind the one before; a place further ahead of the clock than the whole time is
//! too much. A client that was quiet may begin all of its topics at once.
//!
//! Memory: a table of addresses that began topics lately, [`CLIENTS_MAX`] at most; beyond that a connection stands for
//! its client.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use ring::Nanos;

use super::connection::{Connection, lock};
use crate::address::Client;
use crate::limits::Limits;

/// Addresses that are remembered, 32 bytes each.
const CLIENTS_MAX: usize = 1 << 16;

/// The places of all clients in their schedules. Hashed at random, for clients may choose their addresses.
#[derive(Default, Debug)]
pub(super) struct Names(Mutex<HashMap<Client, Nanos>>);

impl Names {
    /// Takes a place for one new topic. False: this client began too many.
    pub(super) fn take(&self, client: Option<Client>, connection: &Connection, now: Nanos, limits: &Limits) -> bool {
        let Some(client) = client else {
            return take(&mut lock(&connection.names), now, limits);
        };
        let clients = &mut *lock(&self.0);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            // In an order that nobody can foresee, for as long as it takes to find what is out of date.
            clients.retain(|_, last| *last > now);
            if clients.len() >= CLIENTS_MAX {
                return take(&mut lock(&connection.names), now, limits);
            }
        }
        take(clients.entry(client).or_default(), now, limits)
    }
}

fn take(last: &mut Nanos, now: Nanos, limits: &Limits) -> bool {
    let whole = nanos(limits.topic_idle_timeout);
    let Some(period) = whole.checked_div(limits.topics_per_connection_max as Nanos) else { return false };
    let place = (*last).max(now) + period;
    if place > now + whole {
        return false;
    }
    *last = place;
    true
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Guest;

    const SECOND: Nanos = 1_000_000_000;

    fn taken(names: &Names, client: Option<Client>, connection: &Connection, now: Nanos, tries: usize) -> usize {
        let limits = Limits { topics_per_connection_max: 10, ..Limits::default() };
        (0..tries).filter(|_| names.take(client, connection, now, &limits)).count()
    }

    #[test]
    fn each_client_begins_so_many_and_then_as_time_goes_by() {
        let names = Names::default();
        let client = |ip: &str| Client::of(ip.parse().unwrap());
        let connection = || Connection::new(Guest::default(), || None, &Limits::default());
        let (first, second) = (connection(), connection());
        let begin = 1000 * SECOND;
        let one = client("203.0.113.7");
        assert_eq!(taken(&names, one, &first, begin, 50), 10);
        assert_eq!(taken(&names, one, &second, begin, 50), 0, "another connection of the same client");
        assert_eq!(taken(&names, client("203.0.113.8"), &first, begin, 50), 10);
        assert_eq!(taken(&names, None, &first, begin, 50), 10, "where nobody is known the connection counts");
        assert_eq!(taken(&names, None, &second, begin, 50), 10);
        assert_eq!(taken(&names, one, &first, begin + 6 * SECOND, 50), 1);
        assert_eq!(taken(&names, one, &first, begin + 200 * SECOND, 50), 10);
    }
}
