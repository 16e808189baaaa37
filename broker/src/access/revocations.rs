//! Users whose tokens of before a time are refused.
//!
//! A revocation is remembered for the longest lifetime (`exp` and leeway minus `iat`) of any token seen, and for a day at
//! least: by then whatever was issued before it has expired. Where tokens do not expire, `max-age` bounds connections
//! only, so revocations are remembered for as long as the broker runs. A token without `iat` counts as issued at the
//! beginning of time.
//!
//! Revocations are in memory only. A successor that takes over gets all of them ([`Revoked`]); another start begins with
//! none.
//!
//! Memory: at most [`USERS_MAX`] users; one beyond is refused, since forgetting another would give back what was taken.
//! Cost: one load where nobody is revoked, else one lock and one lookup per credential.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::access::lock;

/// Most users that are revoked at a time.
pub const USERS_MAX: usize = 10_000;
/// A revocation is remembered for as long at least: a day.
const REMEMBERED_LEAST_S: u64 = 24 * 3600;
/// Tokens that never expire have been seen.
const FOREVER_S: u64 = u64::MAX;

/// Everything that is remembered, for a successor.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Revoked {
    /// Users, and the second since 1970 before which their tokens were issued that are refused.
    users: Vec<(Box<str>, u64)>,
    longest_lifetime_s: u64,
}

impl Revoked {
    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Revocations {
    /// For each user the time, in seconds since 1970, before which tokens were issued that are refused.
    users: Mutex<HashMap<Box<str>, u64>>,
    count: AtomicUsize,
    longest_lifetime_s: AtomicU64,
    /// Notified at each revocation.
    pub(crate) changed: Notify,
}

impl Default for Revocations {
    fn default() -> Self {
        let longest_lifetime_s = AtomicU64::new(REMEMBERED_LEAST_S);
        Self { users: Mutex::default(), count: AtomicUsize::new(0), longest_lifetime_s, changed: Notify::new() }
    }
}

impl Revocations {
    /// A good token was seen that was issued at one time and is accepted until another.
    pub(crate) fn note_lifetime(&self, issued_at_s: Option<u64>, expires_ms: Option<u64>, now_ms: u64) {
        let Some(expires_ms) = expires_ms else {
            self.longest_lifetime_s.store(FOREVER_S, Ordering::Relaxed);
            return;
        };
        let lifetime_s = (expires_ms / 1000).saturating_sub(issued_at_s.unwrap_or(now_ms / 1000));
        if lifetime_s > self.longest_lifetime_s.load(Ordering::Relaxed) {
            self.longest_lifetime_s.fetch_max(lifetime_s, Ordering::Relaxed);
        }
    }

    /// Refuses tokens of `user` that were issued before a time.
    ///
    /// # Errors
    /// A sentence: too many users are revoked.
    pub(crate) fn revoke(&self, user: &str, before_s: u64, now_ms: u64) -> Result<(), String> {
        let mut users = lock(&self.users);
        if !users.contains_key(user) && users.len() >= USERS_MAX {
            let lifetime_s = self.longest_lifetime_s.load(Ordering::Relaxed);
            users.retain(|_, before_s| before_s.saturating_add(lifetime_s) > now_ms / 1000);
            if users.len() >= USERS_MAX {
                return Err(format!(
                    "{USERS_MAX} users are revoked already, and none of their tokens has ended: change the keys instead"
                ));
            }
        }
        let before = users.entry(user.into()).or_default();
        *before = before_s.max(*before);
        self.count.store(users.len(), Ordering::Release);
        self.changed.notify_one();
        Ok(())
    }

    /// Everything that is remembered.
    pub(crate) fn all(&self) -> Revoked {
        let users = lock(&self.users).iter().map(|(user, before_s)| (user.clone(), *before_s)).collect();
        Revoked { users, longest_lifetime_s: self.longest_lifetime_s.load(Ordering::Relaxed) }
    }

    /// Remembers what another broker did, beside what is remembered here.
    ///
    /// # Errors
    /// As of [`Revocations::revoke`]; those before were taken.
    pub(crate) fn take(&self, revoked: &Revoked, now_ms: u64) -> Result<(), String> {
        self.longest_lifetime_s.fetch_max(revoked.longest_lifetime_s, Ordering::Relaxed);
        revoked.users.iter().try_for_each(|(user, before_s)| self.revoke(user, *before_s, now_ms))
    }

    /// Whether a token of `user` is refused.
    pub(crate) fn is_revoked(&self, user: &str, issued_at_s: Option<u64>) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && lock(&self.users).get(user).is_some_and(|before_s| issued_at_s.unwrap_or(0) < *before_s)
    }

    /// How many users are revoked.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}
