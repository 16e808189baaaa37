//! What the broker tells about itself: counters, histograms, `/metrics`, `/api/stats`, log lines once a second.

pub mod counters;
pub(crate) mod events;
pub(crate) mod histogram;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod stats;
