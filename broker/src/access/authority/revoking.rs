//! Users whose tokens are refused: by an operator, or by the broker that ran before.

use std::sync::atomic::Ordering;

use crate::access::authority::Authority;
use crate::access::revocations::Revoked;

impl Authority {
    /// Refuses tokens of a user that were issued before a time, in seconds since 1970.
    ///
    /// # Errors
    /// A sentence: too many users are revoked.
    pub fn revoke(&self, user: &str, before_s: u64, now_ms: u64) -> Result<(), String> {
        self.revocations.revoke(user, before_s, now_ms)?;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Everything that is revoked, for a successor.
    #[must_use]
    pub fn revoked(&self) -> Revoked {
        self.revocations.all()
    }

    /// Revokes what a predecessor had revoked too.
    ///
    /// # Errors
    /// A sentence: there are more users than can be revoked. The others are.
    pub fn revoke_all(&self, revoked: &Revoked, now_ms: u64) -> Result<(), String> {
        let taken = self.revocations.take(revoked, now_ms);
        if !revoked.is_empty() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        taken
    }

    /// Waits for a revocation since the last call. For one caller.
    pub async fn revocations_changed(&self) {
        self.revocations.changed.notified().await;
    }

    /// How many users are revoked.
    #[must_use]
    pub fn revoked_users(&self) -> usize {
        self.revocations.len()
    }
}
