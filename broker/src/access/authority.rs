//! Who somebody is, and what the broker's rules grant to that: one answer for both planes.
//!
//! [`Authority::identify`] takes a token or a key and gives a [`Principal`]; where it refuses, the cause is counted and goes
//! to the log, and the client gets one answer for all causes. Without `[auth]`, `[[allow]]` and `[[key]]` there is no access
//! control ([`Authority::is_on`]), and nothing here is asked.
//!
//! What may change while the broker runs is replaced as a whole: the rules ([`Authority::set_rules`]), the keys
//! ([`Authority::set_keys`]), the list of revocations. Each change but that of keys raises [`Authority::generation`]; whoever
//! keeps a principal asks [`Authority::renew`] then.
//!
//! Not responsible for where a request carries its token (`shard/entry.rs`), for files and addresses (`server/keys.rs`), nor
//! for what a connection does about a changed right (`shard/permissions.rs`).
//!
//! Time of day is an argument, in milliseconds since 1970: nobody here reads a clock. Memory: the tokens that are remembered
//! (`cache`), at most [`REVOKED_MAX`] revocations, and what the configuration says. Cost: a SHA-256 and a look-up for a token
//! seen before, else a signature check.

mod setup;
mod state;
#[cfg(test)]
mod tests;

pub use setup::{KeyRule, Setup};

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;

use crate::access::authority::state::State;
use crate::access::cache::{Cache, Digest};
use crate::access::keyset::KeySet;
use crate::access::lock;
use crate::access::principal::{Principal, PrincipalKind};
use crate::access::token::{Cause, Claims, TOKEN_BYTES_MAX, Token, cost_of};
use crate::capacity::budget::Account;

/// What every API key begins with.
pub const KEY_PREFIX: &str = "rk_";
/// Most users with revoked tokens at one time.
pub const REVOKED_MAX: usize = 10_000;
/// A revocation is remembered for at least so long, in seconds, whatever lifetimes of tokens were seen.
const REMEMBERED_S: u64 = 24 * 3600;
/// What finding a token that was seen before costs, in units of 100 ns of processor time.
const KNOWN_COST: u32 = 20;

/// Whom a token or key belongs to.
#[derive(Debug)]
pub struct Identified {
    /// The principal, or why there is none.
    pub result: Result<Arc<Principal>, Denial>,
    /// What finding out cost, in units of 100 ns of processor time, roughly.
    pub cost: u32,
}

/// A token or key is refused. Nobody outside learns the cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denial {
    /// Why.
    pub cause: Cause,
}

impl Denial {
    /// Whether the token is good but for its end: the only cause that a client learns.
    #[must_use]
    pub fn is_expired(self) -> bool {
        self.cause == Cause::Expired
    }
}

/// See the file's head.
#[derive(Debug)]
pub struct Authority {
    is_on: AtomicBool,
    generation: AtomicU64,
    state: ArcSwap<State>,
    /// Those of files and those of an address, and both.
    sources: Mutex<[KeySet; 2]>,
    keys: ArcSwap<KeySet>,
    cache: Cache,
    revoked: Mutex<HashMap<Box<str>, u64>>,
    has_revoked: AtomicBool,
    /// The longest lifetime of a token that was seen, in seconds.
    lifetime_seen_s: AtomicU64,
    /// A token asked for a key that is not there.
    wants_keys: AtomicBool,
    refused: Box<[AtomicU64]>,
}

impl Default for Authority {
    /// No access control.
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            state: ArcSwap::from_pointee(State::new(None, 0)),
            sources: Mutex::default(),
            keys: ArcSwap::default(),
            cache: Cache::default(),
            revoked: Mutex::default(),
            has_revoked: AtomicBool::new(false),
            lifetime_seen_s: AtomicU64::new(0),
            wants_keys: AtomicBool::new(false),
            refused: Cause::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Authority {
    /// Access control by these rules, and keys of files.
    #[must_use]
    pub fn new(setup: Option<Setup>, keys: KeySet) -> Self {
        let authority = Self::default();
        authority.set_file_keys(keys);
        authority.set_rules(setup);
        authority
    }

    // ---- configuration

    /// Replaces the rules; `None`: there is no access control from now on. Tokens that were verified stay so.
    pub fn set_rules(&self, setup: Option<Setup>) {
        let generation = self.generation() + 1;
        let is_on = setup.is_some();
        self.state.store(Arc::new(State::new(setup, generation)));
        self.is_on.store(is_on, Ordering::Release);
        self.generation.store(generation, Ordering::Release);
    }

    /// Replaces the keys that tokens are signed with and that come from files.
    pub fn set_file_keys(&self, keys: KeySet) {
        self.set_keys(0, keys);
    }

    /// Replaces those that come from an address.
    pub fn set_fetched_keys(&self, keys: KeySet) {
        self.set_keys(1, keys);
    }

    fn set_keys(&self, source: usize, keys: KeySet) {
        let mut sources = lock(&self.sources);
        sources[source] = keys;
        let [of_files, fetched] = sources.clone();
        self.keys.store(Arc::new(of_files.and(fetched)));
        self.wants_keys.store(false, Ordering::Relaxed);
        self.cache.clear();
    }

    /// Memory of tokens that are remembered counts as this account's from now on.
    pub fn charge_to(&self, account: &Arc<Account>) {
        self.cache.charge_to(account);
    }

    /// Whether a token has asked for a key that is not there since this was asked last.
    pub fn take_wants_keys(&self) -> bool {
        self.wants_keys.swap(false, Ordering::Relaxed)
    }

    // ---- questions

    /// Whether there is access control at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Rises with every change of rules and revocations.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether there are API keys.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.is_on() && !self.state.load().keys.is_empty()
    }

    /// As whom clients without a token count; `None`: they need one.
    #[must_use]
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        self.state.load().anonymous.clone()
    }

    /// How long a connection may stay once its token has ended, in milliseconds.
    #[must_use]
    pub fn grace_ms(&self) -> u64 {
        self.state.load().setup.as_ref().map_or(0, |setup| setup.grace_ms)
    }

    /// The cookie that may carry a token.
    #[must_use]
    pub fn cookie(&self) -> Option<Arc<str>> {
        self.state.load().setup.as_ref()?.cookie.clone()
    }

    /// Whether plain requests may carry a token in their query.
    #[must_use]
    pub fn takes_query_tokens(&self) -> bool {
        self.state.load().setup.as_ref().is_some_and(|setup| setup.query_token)
    }

    /// How many tokens and keys were refused, by cause.
    pub fn refused(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.iter().zip(&self.refused).map(|(cause, count)| (*cause, count.load(Ordering::Relaxed)))
    }

    /// Counts a request with more than one token or key.
    pub fn refuse_ambiguous(&self) -> Denial {
        self.refuse(Cause::Ambiguous)
    }

    /// Whom a token or key belongs to.
    pub fn identify(&self, credential: &[u8], now_ms: u64) -> Identified {
        let (result, cost) = self.find(credential, now_ms);
        Identified { result: result.map_err(|cause| self.refuse(cause)), cost }
    }

    /// The same principal under the rules of now.
    ///
    /// # Errors
    /// It may not stay: its key is gone, its tokens were revoked, or anonymous clients are not admitted any more.
    pub fn renew(&self, principal: &Arc<Principal>) -> Result<Arc<Principal>, Denial> {
        self.renewed(principal).map_err(|cause| self.refuse(cause))
    }

    fn renewed(&self, principal: &Arc<Principal>) -> Result<Arc<Principal>, Cause> {
        let generation = self.generation();
        if principal.generation == generation {
            return Ok(Arc::clone(principal));
        }
        let state = self.state.load();
        match principal.kind {
            PrincipalKind::Anonymous => state.anonymous.clone().ok_or(Cause::UnknownKey),
            PrincipalKind::Key => {
                let is_same = |key: &&(Digest, Arc<Principal>)| key.1.claims == principal.claims;
                state.keys.iter().find(is_same).map(|key| Arc::clone(&key.1)).ok_or(Cause::ApiKey)
            }
            PrincipalKind::User if self.is_revoked(&principal.name, principal.issued_at_s) => Err(Cause::Revoked),
            PrincipalKind::User => {
                let claims = serde_json::from_str(&principal.claims).map_err(|_| Cause::Claims)?;
                let permissions = state.permissions(&claims)?;
                Ok(Arc::new(Principal { permissions, generation, ..(**principal).clone() }))
            }
        }
    }

    /// Refuses tokens of a user that were issued before this second since 1970. Returns false if there is no room for one
    /// more revocation.
    #[must_use]
    pub fn revoke(&self, user: &str, before_s: u64, now_ms: u64) -> bool {
        let mut revoked = lock(&self.revoked);
        // A token from before that is still good would have to have been longer than any that was seen.
        let lifetime_s = self.lifetime_seen_s.load(Ordering::Relaxed).max(REMEMBERED_S);
        revoked.retain(|_, before| before.saturating_add(lifetime_s) >= now_ms / 1000);
        if revoked.len() >= REVOKED_MAX && !revoked.contains_key(user) {
            return false;
        }
        let before = revoked.entry(user.into()).or_default();
        *before = before_s.max(*before);
        self.has_revoked.store(true, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::AcqRel);
        true
    }

    // ---- tokens and keys

    fn find(&self, credential: &[u8], now_ms: u64) -> (Result<Arc<Principal>, Cause>, u32) {
        if credential.len() > TOKEN_BYTES_MAX {
            return (Err(Cause::TooLong), KNOWN_COST);
        }
        let digest = sha256(credential);
        if credential.starts_with(KEY_PREFIX.as_bytes()) {
            return (self.state.load().holder_of(&digest).ok_or(Cause::ApiKey), KNOWN_COST);
        }
        match self.cache.get(&digest) {
            Some(known) => (self.check_known(digest, known, now_ms), KNOWN_COST),
            None => self.verify(digest, credential, now_ms),
        }
    }

    /// A token whose signature was checked before.
    fn check_known(&self, digest: Digest, known: Arc<Principal>, now_ms: u64) -> Result<Arc<Principal>, Cause> {
        let renewed = self.renewed(&known)?;
        if !Arc::ptr_eq(&renewed, &known) {
            self.cache.put(digest, Arc::clone(&renewed));
        }
        let leeway_ms = self.state.load().expected.leeway_ms;
        if has_ended(renewed.expires_ms, leeway_ms, now_ms) { Err(Cause::Expired) } else { Ok(renewed) }
    }

    fn verify(&self, digest: Digest, token: &[u8], now_ms: u64) -> (Result<Arc<Principal>, Cause>, u32) {
        let token = match Token::parse(token) {
            Ok(token) => token,
            Err(cause) => return (Err(cause), KNOWN_COST),
        };
        // The generation first: what is made by rules that change meanwhile is renewed.
        let (generation, state, keys) = (self.generation(), self.state.load(), self.keys.load_full());
        let algorithms = state.setup.as_ref().map_or(&[][..], |setup| &setup.algorithms);
        let (claims, checked) = token.verify(&keys, algorithms);
        if claims.as_ref().is_err_and(|cause| *cause == Cause::UnknownKey)
            || token.kid().is_some_and(|kid| !keys.has(kid))
        {
            self.wants_keys.store(true, Ordering::Relaxed);
        }
        let cost = KNOWN_COST + checked * cost_of(&token);
        let made = claims.and_then(|claims| self.principal(&state, &claims, generation, now_ms)).map(Arc::new);
        if let Ok(principal) = &made {
            self.cache.put(digest, Arc::clone(principal));
            // Keys that were replaced meanwhile may not be those that it was signed with.
            if !Arc::ptr_eq(&keys, &self.keys.load()) {
                self.cache.clear();
            }
        }
        (made, cost)
    }

    /// Of all causes the end is the last: a client learns that, and only of a token that is good otherwise.
    fn principal(&self, state: &State, claims: &Claims, generation: u64, now_ms: u64) -> Result<Principal, Cause> {
        let registered = claims.check(&state.expected, now_ms)?;
        let permissions = state.permissions(&claims.members)?;
        if self.is_revoked(&registered.user, registered.issued_at_s) {
            return Err(Cause::Revoked);
        }
        if has_ended(registered.expires_ms, state.expected.leeway_ms, now_ms) {
            return Err(Cause::Expired);
        }
        if let (Some(end_ms), Some(issued_s)) = (registered.expires_ms, registered.issued_at_s) {
            self.lifetime_seen_s.fetch_max((end_ms / 1000).saturating_sub(issued_s), Ordering::Relaxed);
        }
        Ok(Principal {
            kind: PrincipalKind::User,
            name: registered.user.into(),
            issued_at_s: registered.issued_at_s,
            expires_ms: registered.expires_ms,
            max_age_ms: state.setup.as_ref().and_then(|setup| setup.max_age_ms),
            permissions,
            claims: serde_json::to_string(&claims.members).unwrap_or_default().into(),
            generation,
        })
    }

    fn is_revoked(&self, user: &str, issued_at_s: Option<u64>) -> bool {
        self.has_revoked.load(Ordering::Relaxed)
            && lock(&self.revoked).get(user).is_some_and(|before| issued_at_s.is_none_or(|at| at < *before))
    }

    fn refuse(&self, cause: Cause) -> Denial {
        self.refused[cause as usize].fetch_add(1, Ordering::Relaxed);
        Denial { cause }
    }
}

/// RFC 7519 §4.1.4: at its end or later a token is refused.
fn has_ended(expires_ms: Option<u64>, leeway_ms: u64, now_ms: u64) -> bool {
    expires_ms.is_some_and(|end| end.saturating_add(leeway_ms) <= now_ms)
}

/// The SHA-256 of a token or key.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
