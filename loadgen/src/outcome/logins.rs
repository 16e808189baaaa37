//! What a storm of logins did to those that were there.

use serde::{Deserialize, Serialize};

use super::Latencies;

/// Clients that logged in at once, and the deliveries to others before and meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logins {
    /// Clients that were logged in and subscribed, in the end.
    pub opened: u64,
    /// With tokens that the server had seen before.
    pub reused: bool,
    /// From the first connect until the last was subscribed.
    pub seconds: f64,
    /// From the connect's success until subscribed, of each.
    pub took: Latencies,
    /// Deliveries to the others before.
    pub calm: Latencies,
    /// Deliveries to the others meanwhile.
    pub storm: Latencies,
    /// The server's processor time meanwhile, beyond what the same time took before.
    pub server_cpu_ns: Option<u64>,
    /// This program's share of one core meanwhile.
    pub own_cpu: f64,
}

impl Logins {
    /// The 99th percentile meanwhile by that before.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.calm.count > 0 && self.storm.count > 0).then(|| self.storm.p99 as f64 / self.calm.p99 as f64)
    }

    /// The server's processor time per login.
    #[must_use]
    pub fn server_ns(&self) -> Option<f64> {
        self.server_cpu_ns.filter(|_| self.opened > 0).map(|ns| ns as f64 / self.opened as f64)
    }

    /// Logins per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        super::per(self.opened as f64, self.seconds)
    }
}
