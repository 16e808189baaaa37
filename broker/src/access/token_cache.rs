//! Principals of tokens that were verified before, by the SHA-256 of the token.
//!
//! A reconnect storm brings known tokens: a hit costs a digest and a short lock instead of a signature check. Only good tokens
//! are remembered, so nobody without one can fill it. An entry holds for one issue of the rules and keys: after a change of
//! those it is verified again. Revocation and expiry are checked by the caller at every hit.
//!
//! Memory: at most [`ENTRIES_MAX`] entries and the bytes given at start, whichever is less; the oldest go, and before them the
//! oldest whose tokens have ended. Principals are charged themselves, under a name of their own ([`Held::Tokens`]): what is
//! remembered of clients that have left takes no room that others need for subscriptions. One lock for each of 64 parts.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use rustc_hash::FxBuildHasher;

use crate::access::lock;
use crate::access::principal::Principal;
#[cfg(doc)]
use crate::capacity::budget::Held;

/// Most tokens that are remembered.
pub const ENTRIES_MAX: usize = 64 << 10;
/// Parts with a lock each.
const STRIPES: usize = 64;
/// What a part has room for with its first entry.
const ENTRIES_AT_FIRST: usize = 112;
/// What an entry takes besides its principal, in bytes.
const ENTRY_BYTES: u64 = 128;

/// The SHA-256 of a token.
pub(crate) type TokenDigest = [u8; 32];

/// See the file's head.
#[derive(Debug)]
pub(crate) struct TokenCache {
    stripes: Box<[Mutex<Stripe>]>,
    /// Most bytes of a stripe.
    stripe_bytes_max: u64,
}

#[derive(Default, Debug)]
struct Stripe {
    entries: HashMap<TokenDigest, Entry, FxBuildHasher>,
    /// Every entry, the oldest first.
    order: VecDeque<TokenDigest>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    principal: Arc<Principal>,
    issue: u64,
    bytes: u64,
}

impl Stripe {
    /// Whether nobody can come back with the oldest token, though leeway would let it in for a moment more.
    fn oldest_has_ended(&self, now_ms: u64) -> bool {
        let oldest = self.order.front().and_then(|oldest| self.entries.get(oldest));
        let expires_ms = oldest.and_then(|entry| entry.principal.expires_ms);
        expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

impl TokenCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), stripe_bytes_max: bytes_max / STRIPES as u64 }
    }

    /// The principal of a token that was verified under this issue.
    pub(crate) fn get(&self, token: &TokenDigest, issue: u64) -> Option<Arc<Principal>> {
        let stripe = lock(self.stripe(token));
        let entry = stripe.entries.get(token).filter(|entry| entry.issue == issue)?;
        Some(Arc::clone(&entry.principal))
    }

    /// Remembers the principal, which takes so many bytes, of a token that was verified under this issue.
    pub(crate) fn put(&self, token: TokenDigest, issue: u64, (principal, bytes): (&Arc<Principal>, u64), now_ms: u64) {
        let bytes = bytes + ENTRY_BYTES;
        if bytes > self.stripe_bytes_max {
            return;
        }
        let mut stripe = lock(self.stripe(&token));
        let entry = Entry { principal: Arc::clone(principal), issue, bytes };
        stripe.bytes += bytes;
        if stripe.order.is_empty() {
            stripe.entries.reserve(ENTRIES_AT_FIRST);
            stripe.order.reserve(ENTRIES_AT_FIRST);
        }
        match stripe.entries.insert(token, entry) {
            Some(before) => stripe.bytes -= before.bytes,
            None => stripe.order.push_back(token),
        }
        while stripe.entries.len() > ENTRIES_MAX / STRIPES
            || stripe.bytes > self.stripe_bytes_max
            || stripe.oldest_has_ended(now_ms)
        {
            let oldest = stripe.order.pop_front().expect("every entry has its place in the order");
            let removed = stripe.entries.remove(&oldest).expect("what is in the order is an entry");
            stripe.bytes -= removed.bytes;
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for stripe in &self.stripes {
            *lock(stripe) = Stripe::default();
        }
    }

    fn stripe(&self, token: &TokenDigest) -> &Mutex<Stripe> {
        // The map takes its hash from all bytes; a part of the digest is as good for the stripe.
        &self.stripes[usize::from(token[31]) % STRIPES]
    }

    /// How many entries and bytes there are.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, u64) {
        self.stripes.iter().map(lock).fold((0, 0), |(entries, bytes), stripe| {
            assert_eq!(stripe.entries.len(), stripe.order.len());
            (entries + stripe.entries.len(), bytes + stripe.bytes)
        })
    }
}
