//! Tokens that were verified before, by their SHA-256: a storm of clients that come back costs a hash and a look-up each, not
//! a signature.
//!
//! Two generations per stripe: what was used since the older one was emptied is in the newer one. A full newer one becomes
//! the older. So what is used stays, what is not goes, and no list has to be kept in order.
//!
//! Bounds: [`TOKENS_MAX`] tokens and [`BYTES_MAX`] bytes in all, charged to the budget. Any thread may use it; a stripe is
//! locked for a look-up.

use std::sync::{Arc, Mutex};

use rustc_hash::FxHashMap;

use crate::access::lock;
use crate::access::principal::Principal;
use crate::capacity::budget::{Account, Charge, Held};

/// The SHA-256 of a token.
pub(in crate::access) type Digest = [u8; 32];

const STRIPES: usize = 16;
/// Most tokens that are remembered.
pub(in crate::access) const TOKENS_MAX: usize = 64 << 10;
/// Most bytes that they take.
const BYTES_MAX: usize = 32 << 20;
/// Of one generation of a stripe.
const TOKENS_OF_PART: usize = TOKENS_MAX / STRIPES / 2;
const BYTES_OF_PART: usize = BYTES_MAX / STRIPES / 2;

/// See the file's head.
#[derive(Default, Debug)]
pub(in crate::access) struct Cache {
    stripes: [Mutex<Stripe>; STRIPES],
}

#[derive(Default, Debug)]
struct Stripe {
    newer: Part,
    older: Part,
    charge: Option<Charge>,
}

#[derive(Default, Debug)]
struct Part {
    tokens: FxHashMap<Digest, Arc<Principal>>,
    bytes: usize,
}

impl Cache {
    /// The same, charged to this account from now on.
    pub(in crate::access) fn charge_to(&self, account: &Arc<Account>) {
        for stripe in &self.stripes {
            lock(stripe).charge = Some(Charge::new(account, Held::Subscriptions, 0));
        }
    }

    /// Whom this token belonged to when it was verified.
    pub(in crate::access) fn get(&self, digest: &Digest) -> Option<Arc<Principal>> {
        let mut stripe = lock(self.stripe(digest));
        if let Some(found) = stripe.newer.tokens.get(digest) {
            return Some(Arc::clone(found));
        }
        let found = stripe.older.remove(digest)?;
        stripe.put(*digest, Arc::clone(&found));
        Some(found)
    }

    /// Remembers whom a token belongs to.
    pub(in crate::access) fn put(&self, digest: Digest, principal: Arc<Principal>) {
        let mut stripe = lock(self.stripe(&digest));
        stripe.older.remove(&digest);
        stripe.put(digest, principal);
    }

    /// Forgets all: keys have changed.
    pub(in crate::access) fn clear(&self) {
        for stripe in &self.stripes {
            let mut stripe = lock(stripe);
            (stripe.newer, stripe.older) = Default::default();
            stripe.recharge();
        }
    }

    /// How many tokens are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.stripes
            .iter()
            .map(|stripe| lock(stripe))
            .map(|stripe| stripe.newer.tokens.len() + stripe.older.tokens.len())
            .sum()
    }

    fn stripe(&self, digest: &Digest) -> &Mutex<Stripe> {
        &self.stripes[usize::from(digest[0]) % STRIPES]
    }
}

impl Stripe {
    fn put(&mut self, digest: Digest, principal: Arc<Principal>) {
        if self.newer.tokens.len() >= TOKENS_OF_PART || self.newer.bytes >= BYTES_OF_PART {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.put(digest, principal);
        self.recharge();
    }

    fn recharge(&mut self) {
        let bytes = (self.newer.bytes + self.older.bytes) as u64;
        if let Some(charge) = &mut self.charge {
            charge.resize(bytes);
        }
    }
}

impl Part {
    fn put(&mut self, digest: Digest, principal: Arc<Principal>) {
        self.bytes += bytes_of(&principal);
        if let Some(before) = self.tokens.insert(digest, principal) {
            self.bytes -= bytes_of(&before);
        }
    }

    fn remove(&mut self, digest: &Digest) -> Option<Arc<Principal>> {
        let removed = self.tokens.remove(digest)?;
        self.bytes -= bytes_of(&removed);
        Some(removed)
    }
}

/// What an entry takes: tables have room for up to twice what they hold.
fn bytes_of(principal: &Principal) -> usize {
    2 * size_of::<(Digest, Arc<Principal>)>() + size_of::<Principal>() + principal.heap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::grants::Permissions;
    use crate::capacity::budget::Budget;

    fn digest(n: u32) -> Digest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_le_bytes());
        digest
    }

    #[test]
    fn what_is_used_stays_and_bytes_are_charged() {
        let budget = Budget::new(1, 1 << 30);
        let cache = Cache::default();
        cache.charge_to(budget.of_plane());
        let principal = Arc::new(Principal::for_tests("a", Permissions::default()));
        for n in 0..3 * TOKENS_MAX as u32 {
            cache.put(digest(n), Arc::clone(&principal));
            assert!(cache.get(&digest(7)).is_some() || n < 7, "{n}");
        }
        assert!(cache.len() <= TOKENS_MAX, "{}", cache.len());
        assert!(cache.len() >= TOKENS_MAX / 4 && cache.get(&digest(8)).is_none());
        let held = budget.of_plane().held(Held::Subscriptions);
        assert!((1 << 20..=BYTES_MAX as u64 + (1 << 20)).contains(&held), "{held}");
        cache.clear();
        assert_eq!((cache.len(), budget.of_plane().held(Held::Subscriptions)), (0, 0));
    }

    #[test]
    fn large_principals_are_fewer() {
        let cache = Cache::default();
        let principal = Arc::new(Principal::for_tests(&"x".repeat(100_000), Permissions::default()));
        for n in 0..2000 {
            cache.put(digest(n), Arc::clone(&principal));
        }
        assert!(cache.len() * 100_000 <= BYTES_MAX + STRIPES * 2 * 100_000, "{}", cache.len());
    }
}
