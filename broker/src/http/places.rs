//! Who may have an HTTP connection: so many at a time, a quarter of them for one client, and some more that are kept
//! for probes.
//!
//! When all places are taken, a newcomer takes the place of a connection that is idle, the longest first, else of a
//! body that is longest under way (`bodies`); a few newcomers at a time wait for such a place to become free. Whoever
//! finds none gets 503, but for probes (`/healthz`, `/readyz`): spare places are kept for them, in which one request is
//! answered and the connection closed. So neither slow nor silent clients can keep probes out.
//!
//! HTTP connections that stay with shards (`shard/transport/http.rs`) take of the same places, half of them at most.
//!
//! Invariant: places and spare places together are [`Capacity::http_connections_max`], so descriptors suffice. A [`Place`]
//! is given back when it is dropped.
//!
//! Cost: a map entry per connection; at the bound a look at every connection per newcomer.
//!
//! [`Capacity::http_connections_max`]: crate::capacity::connections::Capacity::http_connections_max

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::access::address::Client;
use crate::access::lock;
use crate::access::rejection::Rejection;
use crate::capacity::budget::{Charge, Held};
use crate::capacity::memory::HTTP_CONNECTION_BYTES;
use crate::http::app::App;
use crate::http::connection::Connection;

/// Spare places, where there are enough.
const SPARE_TOP: usize = 64;
/// Places of which one is spare.
const SPARE_PART: usize = 8;
/// One client may have one place in so many.
const CLIENT_PART: usize = 4;
/// How long a newcomer waits for a place that is about to become free.
const WAIT: Duration = Duration::from_secs(1);

/// All places of the public port.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    permits: Arc<Semaphore>,
    /// Half of the spare places answer, the other half lets newcomers wait.
    spare: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Default, Debug)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    of_client: HashMap<Client, usize>,
}

/// The right to have a connection.
#[derive(Debug)]
pub(crate) struct Place {
    app: App,
    at: u64,
    client: Option<Client>,
    _permit: OwnedSemaphorePermit,
    _charge: Charge,
}

impl Places {
    /// `max` of them, the spare ones included; at least 1.
    pub(crate) fn new(max: usize) -> Self {
        let spare = (max / SPARE_PART).clamp(1, SPARE_TOP).min(max - 1);
        let waiting = spare / 2;
        Self {
            max,
            permits: Arc::new(Semaphore::new(max - spare)),
            spare: Arc::new(Semaphore::new(spare - waiting)),
            waiting: Arc::new(Semaphore::new(waiting)),
            open: Mutex::default(),
        }
    }

    /// How many connections there are, those in spare places included.
    pub(crate) fn taken(&self) -> usize {
        self.max
            - [&self.permits, &self.spare, &self.waiting].map(|kind| kind.available_permits()).iter().sum::<usize>()
    }

    /// Waits until there is none.
    pub(crate) async fn idle(&self) {
        let spare = (self.max / SPARE_PART).clamp(1, SPARE_TOP).min(self.max - 1);
        let waiting = spare / 2;
        // No semaphore is ever closed.
        for (kind, all) in [(&self.waiting, waiting), (&self.spare, spare - waiting), (&self.permits, self.max - spare)]
        {
            let _ = kind.acquire_many(all as u32).await;
        }
    }

    /// A spare place, if one is free.
    pub(crate) fn spare(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.spare).try_acquire_owned().ok()
    }

    fn share(&self) -> usize {
        (self.max / CLIENT_PART).max(1)
    }
}

/// A place for `connection`, at once.
pub(crate) fn enter(app: &App, connection: &Arc<Connection>) -> Result<Place, Rejection> {
    let places = app.places();
    if let Some(client) = connection.client {
        let has = lock(&places.open).of_client.get(&client).copied().unwrap_or(0);
        if has >= places.share() {
            end_longest_idle(places, Some(client));
            return Err(Rejection::Address);
        }
    }
    if !app.shared().budget.has_room_for_request(HTTP_CONNECTION_BYTES) {
        return Err(Rejection::HttpConnections);
    }
    // Those that stay with shards count as well.
    if places.permits.available_permits() as u64 <= app.shared().admission.http() {
        return Err(Rejection::HttpConnections);
    }
    let permit = Arc::clone(&places.permits).try_acquire_owned().map_err(|_| Rejection::HttpConnections)?;
    Ok(take(app, connection, permit))
}

/// Has somebody who needs a place least give it up, and waits for it. `None`: nobody can, or enough wait already.
pub(crate) fn wait(app: &App, connection: &Arc<Connection>) -> Option<impl Future<Output = Option<Place>> + use<>> {
    let waiting = Arc::clone(&app.places().waiting).try_acquire_owned().ok()?;
    if !app.shared().budget.has_room_for_request(HTTP_CONNECTION_BYTES) {
        return None;
    }
    if !end_longest_idle(app.places(), None) && !app.bodies().give_up_longest() {
        return None;
    }
    let (app, connection) = (app.clone(), Arc::clone(connection));
    Some(async move {
        let _waiting = waiting;
        let permit = timeout(WAIT, Arc::clone(&app.places().permits).acquire_owned()).await.ok()?.ok()?;
        Some(take(&app, &connection, permit))
    })
}

fn take(app: &App, connection: &Arc<Connection>, permit: OwnedSemaphorePermit) -> Place {
    let open = &mut *lock(&app.places().open);
    let at = open.next;
    open.next += 1;
    open.connections.insert(at, Arc::clone(connection));
    if let Some(client) = connection.client {
        *open.of_client.entry(client).or_default() += 1;
    }
    let charge = Charge::new(app.shared().budget.of_plane(), Held::Http, HTTP_CONNECTION_BYTES);
    Place { app: app.clone(), at, client: connection.client, _permit: permit, _charge: charge }
}

/// Ends the connection, of this client if one is named, that is idle for the longest time; false if none is.
fn end_longest_idle(places: &Places, client: Option<Client>) -> bool {
    let open = lock(&places.open);
    let idle = open
        .connections
        .values()
        .filter(|connection| client.is_none() || connection.client == client)
        .filter_map(|connection| Some((connection.idle_since()?, connection)));
    match idle.min_by_key(|(since, _)| *since) {
        Some((_, connection)) => {
            // Not to be chosen again while it ends.
            connection.busy();
            connection.end();
            true
        }
        None => false,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = &mut *lock(&self.app.places().open);
        open.connections.remove(&self.at);
        if let Some(client) = self.client
            && let Some(has) = open.of_client.get_mut(&client)
        {
            *has -= 1;
            if *has == 0 {
                open.of_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_places_are_part_of_all() {
        for (max, spare) in [(1, 0), (2, 1), (16, 2), (20, 2), (4096, 64)] {
            let places = Places::new(max);
            let kept = places.spare.available_permits() + places.waiting.available_permits();
            assert_eq!((kept, places.permits.available_permits()), (spare, max - spare), "{max}");
            assert_eq!(places.taken(), 0);
        }
    }
}
