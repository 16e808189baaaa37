//! Principals of tokens that were verified before, each under a name of its token: see `TokenName`.
//!
//! A reconnect storm brings known tokens: a hit costs a digest, or an HMAC, and a short lock. Only good tokens
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
const ENTRY_BYTES: u64 = 136;
/// The end of tokens that do not end.
const NEVER_MS: u64 = u64::MAX;

/// What nobody finds two tokens for: the MAC of one that a secret of the broker has signed, the SHA-256 of any other.
pub(crate) type TokenName = [u8; 32];

/// See the file's head.
#[derive(Debug)]
pub(crate) struct TokenCache {
    stripes: Box<[Mutex<Stripe>]>,
    /// Most bytes of a stripe.
    stripe_bytes_max: u64,
}

#[derive(Default, Debug)]
struct Stripe {
    entries: HashMap<TokenName, Entry, FxBuildHasher>,
    /// Every entry, the oldest first, and when its token ends, in milliseconds since 1970; [`NEVER_MS`] if it does not.
    order: VecDeque<(TokenName, u64)>,
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
        self.order.front().is_some_and(|(_, expires_ms)| *expires_ms <= now_ms)
    }
}

impl TokenCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), stripe_bytes_max: bytes_max / STRIPES as u64 }
    }

    /// The principal of a token that was verified under this issue.
    pub(crate) fn get(&self, token: &TokenName, issue: u64) -> Option<Arc<Principal>> {
        let stripe = lock(self.stripe(token));
        let entry = stripe.entries.get(token).filter(|entry| entry.issue == issue)?;
        Some(Arc::clone(&entry.principal))
    }

    /// Remembers the principal, which takes so many bytes, of a token that was verified under this issue.
    pub(crate) fn put(&self, token: TokenName, issue: u64, (principal, bytes): (&Arc<Principal>, u64), now_ms: u64) {
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
            None => stripe.order.push_back((token, principal.expires_ms.unwrap_or(NEVER_MS))),
        }
        while stripe.entries.len() > ENTRIES_MAX / STRIPES
            || stripe.bytes > self.stripe_bytes_max
            || stripe.oldest_has_ended(now_ms)
        {
            let (oldest, _) = stripe.order.pop_front().expect("every entry has its place in the order");
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

    fn stripe(&self, token: &TokenName) -> &Mutex<Stripe> {
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
