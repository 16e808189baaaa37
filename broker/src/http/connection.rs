//! What the control plane knows of one HTTP connection, shared by the parts that serve it: its client's address, how
//! fast it publishes, whether it is idle.
//!
//! Not responsible for its bytes (`heads`) nor for how many there may be (`places`).

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::access::address::{self, AddressLease, Client};
use crate::access::lock;
use crate::access::rate::RateLimiter;
use crate::config::limits::Limits;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Connection {
    /// As what it counts among the connections of its address.
    pub(crate) lease: AddressLease,
    /// Whose it is, where that is known: not on loopback, and not behind a proxy that speaks for many.
    pub(crate) client: Option<Client>,
    /// Whether it gets one answer and then ends, because all places are taken.
    pub(crate) is_spare: bool,
    /// Whether it came by the operators' listener.
    pub(crate) is_operators: bool,
    /// Whether it comes from this machine, and not through a trusted proxy.
    pub(crate) is_local: bool,
    /// How fast it publishes.
    pub(crate) rate_limiter: Mutex<RateLimiter>,
    idle_since: Mutex<Option<Instant>>,
    end: Notify,
}

impl Connection {
    /// `peer` is asked for only if nobody counted the connection.
    pub(crate) fn new(lease: AddressLease, peer: impl FnOnce() -> Option<SocketAddr>, limits: &Limits) -> Self {
        let client = lease.client().or_else(|| {
            let ip = (!lease.is_known()).then(peer)??.ip();
            // A proxy that says for whom it speaks before the request was asked already.
            if address::is_trusted(ip, &limits.trusted_proxies) { None } else { Client::of(ip) }
        });
        Self {
            lease,
            client,
            is_spare: false,
            is_operators: false,
            is_local: false,
            rate_limiter: Mutex::default(),
            idle_since: Mutex::default(),
            end: Notify::new(),
        }
    }

    /// A connection that gets one answer.
    pub(crate) fn spare(self) -> Self {
        Self { is_spare: true, ..self }
    }

    /// A connection of the operators' listener.
    pub(crate) fn of_operators(self) -> Self {
        Self { is_operators: true, ..self }
    }

    /// The same, which comes from this machine if its socket does. A proxy on this machine speaks for others: for whom, it says
    /// with each request, or has said before, and then its client is counted.
    pub(crate) fn near(self, socket_is_near: bool) -> Self {
        Self { is_local: socket_is_near && !self.lease.is_known(), ..self }
    }

    /// Nothing of its next request has come, from now on.
    pub(crate) fn idle(&self) {
        lock(&self.idle_since).get_or_insert_with(Instant::now);
    }

    /// Something has come.
    pub(crate) fn busy(&self) {
        *lock(&self.idle_since) = None;
    }

    /// Since when it is idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        *lock(&self.idle_since)
    }

    /// Ends it after the request under way, if there is one.
    pub(crate) fn end(&self) {
        self.end.notify_one();
    }

    /// Waits for [`Connection::end`].
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }
}
