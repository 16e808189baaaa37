//! Who may come in and how much one client may do. `policy` has the rules in their order, [`rejection`] the answers; the
//! other files are what the rules count and compare.

pub mod address;
pub mod admission;
pub mod host;
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
