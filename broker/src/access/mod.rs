//! Who may come in and how much one client may do, for both planes.
//!
//! | file | what |
//! | --- | --- |
//! | `policy` | the rules, in the order in which they win |
//! | [`rejection`] | what each rejection is answered and counted as |
//! | [`address`] | connections per client address; trusted proxies |
//! | [`keys`] | keys that let their holders publish |
//! | [`authority`] | who a token or an API key belongs to, and what that principal may do; `state` is what holds at a moment |
//! | [`permissions`], [`principal`] | what may be done; who does it; why a credential is refused |
//! | `rules`, `templates`, `interner` | grants of the tables; claims in their filters; one allocation for equal permissions |
//! | [`tokens`], `json`, `info` | signature and claims of a token; strict JSON; what it says of its member |
//! | [`trusted_keys`], [`key_sources`] | keys that tokens are checked with, and their files |
//! | [`key_fetch`] | which tokens wait for keys that are being fetched |
//! | [`token_cache`], [`revocations`] | tokens that were verified before; users whose tokens are refused |
//! | [`host`], [`origin`] | host names that requests may be addressed to; pages that may connect |
//! | [`admission`] | WebSockets of all shards, and handshakes a second |
//! | [`quota`], `rate` | how many names one client may begin; how fast a connection publishes |
//!
//! Not responsible for limits of sizes and times, which belong to whatever reads, nor for memory (`capacity/budget.rs`).

pub mod address;
pub mod admission;
pub mod authority;
mod check;
pub mod host;
pub(crate) mod info;
pub(crate) mod interner;
pub(crate) mod json;
pub mod key_fetch;
pub mod key_sources;
pub mod keys;
pub mod origin;
pub mod permissions;
pub(crate) mod policy;
pub mod principal;
pub mod quota;
pub(crate) mod rate;
pub mod rejection;
pub mod revocations;
pub(crate) mod rules;
pub mod state;
pub(crate) mod templates;
pub mod token_cache;
pub mod tokens;
pub mod trusted_keys;

#[cfg(test)]
mod vectors;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A thread that panics ends the process, so there is no poison to heed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
