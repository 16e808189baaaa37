//! Who may come in and how much one client may do, for both planes.
//!
//! | file | what |
//! | --- | --- |
//! | `policy` | the rules, in the order in which they win |
//! | [`rejection`] | what each rejection is answered and counted as |
//! | [`address`] | connections per client address; trusted proxies |
//! | [`keys`] | keys that let their holders publish |
//! | [`host`], [`origin`] | host names that requests may be addressed to; pages that may connect |
//! | [`admission`] | WebSockets of all shards, and handshakes a second |
//! | [`quota`], `rate` | how many names one client may begin; how fast a connection publishes |
//!
//! Not responsible for limits of sizes and times, which belong to whatever reads, nor for memory (`capacity/budget.rs`).

pub mod address;
pub mod admission;
pub mod host;
pub mod keys;
pub mod origin;
pub(crate) mod policy;
pub mod quota;
pub(crate) mod rate;
pub mod rejection;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A thread that panics ends the process, so there is no poison to heed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
