//! What HTTP handlers share: limits, capacity, places, bodies, and how far the broker is in its shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex, Semaphore, watch};

use crate::access::policy::Policy;
use crate::access::quota::ClientShares;
use crate::capacity::connections::Capacity;
use crate::config::limits::Limits;
use crate::http::Operators;
use crate::http::bodies::Bodies;
use crate::http::places::Places;
use crate::ids::ShardId;
use crate::shard::shared::SharedState;

/// The broker's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shared: Arc<SharedState>,
    limits: Arc<Limits>,
    started: Instant,
    /// Seconds since 1970.
    started_s: f64,
    life: watch::Sender<Life>,
    room: Capacity,
    operators: Operators,
    places: Places,
    /// Those of polls that wait.
    polls: Arc<Semaphore>,
    bodies: Bodies,
    /// Held by the one request that lists topics.
    listing: Mutex<()>,
    /// The shard that gets the next adopted WebSocket.
    next_shard: AtomicU16,
}

/// How far the broker is on its way out. It only ever moves down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Life {
    /// Not at all.
    Serving,
    /// Load balancers see that they have to look elsewhere.
    Draining,
    /// HTTP connections end after the request under way.
    Closing,
    /// Nothing new is published, and nobody becomes a WebSocket.
    Stopping,
}

impl App {
    pub(crate) fn new(shared: Arc<SharedState>, limits: Arc<Limits>, room: Capacity, operators: Operators) -> Self {
        let bodies = Bodies::new(&shared.budget, limits.message_bytes_max);
        Self(Arc::new(Shared {
            shared,
            limits,
            started: Instant::now(),
            started_s: SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs_f64(),
            life: watch::Sender::new(Life::Serving),
            room,
            operators,
            places: Places::new(room.http_connections_max as usize),
            polls: Arc::new(Semaphore::new(polls_max(&room))),
            bodies,
            listing: Mutex::default(),
            next_shard: AtomicU16::new(0),
        }))
    }

    /// From now on readiness says no; everything else goes on.
    pub(crate) fn drain(&self) {
        self.enter(Life::Draining);
    }

    /// From now on connections end after the request under way. What they ask for is still done.
    pub(crate) fn close(&self) {
        self.enter(Life::Closing);
    }

    /// From now on, besides, nothing new is published over HTTP, and nobody becomes a WebSocket.
    pub(crate) fn stop(&self) {
        self.enter(Life::Stopping);
    }

    /// Waits for [`App::close`].
    pub(crate) async fn closing(&self) {
        // The sender lives in here, so the channel stays open.
        let _ = self.0.life.subscribe().wait_for(|life| *life >= Life::Closing).await;
    }

    /// Whether newcomers are admitted.
    pub(crate) fn is_ready(&self) -> bool {
        *self.0.life.borrow() == Life::Serving
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.0.life.borrow() >= Life::Closing
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.life.borrow() == Life::Stopping
    }

    fn enter(&self, life: Life) {
        self.0.life.send_modify(|now| *now = life.max(*now));
    }

    pub(crate) fn shared(&self) -> &SharedState {
        &self.0.shared
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The same, for who keeps them.
    pub(crate) fn shared_limits(&self) -> Arc<Limits> {
        Arc::clone(&self.0.limits)
    }

    /// The rules as they stand now.
    pub(crate) fn policy(&self) -> Policy<'_> {
        let SharedState { addresses, admission, publish_keys: keys, refused_values: refused, .. } = self.shared();
        let (is_draining, now) = (self.is_stopping(), ring::monotonic());
        Policy { limits: self.limits(), refused, keys, addresses, admission, is_draining, now }
    }

    pub(crate) fn room(&self) -> &Capacity {
        &self.0.room
    }

    pub(crate) fn operators(&self) -> &Operators {
        &self.0.operators
    }

    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(crate) fn polls(&self) -> &Arc<Semaphore> {
        &self.0.polls
    }

    /// How many polls wait.
    pub(crate) fn polls_waiting(&self) -> usize {
        polls_max(&self.0.room) - self.0.polls.available_permits()
    }

    pub(crate) fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    pub(crate) fn name_shares(&self) -> &ClientShares {
        &self.shared().name_shares
    }

    /// Held by the one request that lists topics.
    pub(crate) fn listing(&self) -> &Mutex<()> {
        &self.0.listing
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// Seconds since 1970.
    pub(crate) fn started_s(&self) -> f64 {
        self.0.started_s
    }

    /// How many HTTP connections there are, those that stay with shards included.
    pub(crate) fn http_connections(&self) -> usize {
        self.0.places.taken() + self.shared().admission.http() as usize
    }

    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.0.shared.inboxes.len()).expect("as many as the broker was started with")
    }

    /// Each shard in turn.
    pub(crate) fn next_shard(&self) -> ShardId {
        ShardId(self.0.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards())
    }
}

/// How many polls may wait: the other half of the places is for those that are answered at once.
fn polls_max(room: &Capacity) -> usize {
    (room.http_connections_max as usize / 2).max(1)
}
