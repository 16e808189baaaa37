//! Everything that decides who may do what: one [`Authority`] per broker, asked by shards and control plane.
//!
//! Off without the tables `[auth]`, `[[allow]]`, `[[key]]`: then everybody may do everything, and nothing here is asked.
//! Otherwise a credential is an API key, which begins with `rk_`, or a token. What it allows holds for one generation: the number
//! rises with each change of grants, keys and revocations, and shards look at it once a turn and [`Authority::renew`] their
//! principals when it has risen. Revocation and the end of a token are checked at each use, also of a token that was seen
//! before. Time is the caller's, in milliseconds since 1970.
//!
//! A token that was accepted is not judged again by later settings of `issuer`, `audience`, `typ`, `user-claim` and
//! `topics-claim`; by later keys, grants and revocations it is. If `[[allow]]` names a claim that it did not name before, users
//! have what that grants with their next token.
//!
//! Memory: principals are charged to the control plane's account for as long as they live; see [`token_cache`],
//! `interner` and [`revocations`](crate::access::revocations) for what else is bounded. Nothing of a
//! token is in any error, notice or `Debug`. Cost: a known token about 1 µs, another what its signature costs.
//!
//! [`token_cache`]: crate::access::token_cache

mod revoking;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};

use crate::access::interner::Interner;
use crate::access::key_fetch::KeyFetch;
use crate::access::key_sources::{KeySources, KeysUrl, Notice};
use crate::access::lock;
use crate::access::permissions::{Operation, Permissions};
use crate::access::principal::{Cause, Denial, Identified, Origin, Principal, PrincipalKind};
use crate::access::revocations::Revocations;
use crate::access::state::{Settings, State};
use crate::access::token_cache::{TokenCache, TokenName};
use crate::access::tokens::{COST_OF_CLAIMS, COST_OF_READING, Demands, Unverified, Verified};
use crate::capacity::budget::{Account, Charge, Held};
use crate::config::auth::AccessTables;

/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "rk_";
/// The longest API key, in bytes.
const API_KEY_BYTES_MAX: usize = 256;
/// What the SHA-256 of a token or an API key costs, in units of about 100 ns.
const COST_OF_DIGEST: u32 = 15;

/// See the file's head.
#[derive(Debug)]
pub struct Authority {
    is_on: bool,
    account: Arc<Account>,
    state: ArcSwap<State>,
    generation: AtomicU64,
    /// Taken for every change.
    sources: Mutex<KeySources>,
    interner: Interner,
    cache: TokenCache,
    revocations: Revocations,
    refused: [AtomicU64; Cause::ALL.len()],
    key_fetch: KeyFetch,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new(&AccessTables::default(), &Arc::default(), 0).expect("without tables no file is read")
    }
}

impl Authority {
    /// What the tables say. Principals are charged to `account`, and `cache_bytes_max` bounds those that are remembered without a
    /// connection.
    ///
    /// # Errors
    /// A sentence about a file of keys.
    pub fn new(tables: &AccessTables, account: &Arc<Account>, cache_bytes_max: u64) -> Result<Self, String> {
        let sources = KeySources::read(tables.auth.as_ref())?;
        let keys = sources.united()?;
        let interner = Interner::new(account);
        let state = State::new(0, tables, keys, &interner);
        Ok(Self {
            is_on: !tables.is_empty(),
            account: Arc::clone(account),
            state: ArcSwap::from_pointee(state),
            generation: AtomicU64::new(0),
            sources: Mutex::new(sources),
            interner,
            cache: TokenCache::new(cache_bytes_max),
            revocations: Revocations::default(),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            key_fetch: KeyFetch::default(),
        })
    }

    /// Whether anything is asked here at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Rises with each change of grants, keys and revocations.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Settings for those who read credentials and answer.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.state.load().settings.clone()
    }

    /// Whether there are API keys.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.is_on && self.state.load().rules.has_keys()
    }

    /// Who has no credential. `None`: everybody needs one; the caller answers `unauthorized` and counts
    /// [`Cause::Missing`] with [`Authority::count`].
    #[must_use]
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        self.state.load().anonymous.clone()
    }

    /// Who a credential, an API key or a token, belongs to. A refusal is counted, unless it is for now only
    /// ([`Denial::awaits_key`]).
    pub fn identify(&self, credential: &[u8], now_ms: u64) -> Identified {
        let identified = if credential.starts_with(API_KEY_PREFIX.as_bytes()) {
            Identified { result: self.holder(credential), cost: COST_OF_DIGEST }
        } else {
            self.user(credential, now_ms)
        };
        if let Err(denial) = identified.result
            && !denial.awaits_key
        {
            self.count(denial.cause);
        }
        identified
    }

    /// The same principal under the rules of now. Without a time its token may be over: a connection stays for the grace.
    ///
    /// # Errors
    /// It may stay no longer.
    pub fn renew(&self, principal: &Arc<Principal>, now_ms: Option<u64>) -> Result<Arc<Principal>, Denial> {
        let state = self.state.load();
        let denial = |cause| {
            self.count(cause);
            Denial::of(cause)
        };
        match &principal.origin {
            Origin::Anonymous => state.anonymous.clone().ok_or_else(|| denial(Cause::Missing)),
            Origin::Key(sha256) => Self::of_key(&state, sha256).map_err(|denied| denial(denied.cause)),
            Origin::Operator { is_near } if *is_near || !state.rules.has_keys() => Ok(Arc::clone(principal)),
            Origin::Operator { .. } => Err(denial(Cause::Missing)),
            Origin::Token(token) => {
                self.check_use(principal, &state, now_ms).map_err(denial)?;
                if !state.keys.has(token.signed_by) {
                    return Err(denial(Cause::UnknownKey));
                }
                let permissions = self.interner.intern(state.rules.of_token(token));
                if permissions == principal.permissions {
                    return Ok(Arc::clone(principal));
                }
                let mut token = token.clone();
                token.share(&permissions);
                Ok(self.principal(Principal {
                    kind: principal.kind,
                    name: Arc::clone(&principal.name),
                    issued_at_s: principal.issued_at_s,
                    expires_ms: principal.expires_ms,
                    max_age_ms: principal.max_age_ms,
                    permissions,
                    origin: Origin::Token(token),
                    _charge: None,
                }))
            }
        }
    }

    /// Reads the files of keys again that have changed, with new tables if there are some.
    ///
    /// # Errors
    /// A sentence; everything stays as it was.
    pub fn reload(&self, tables: Option<&AccessTables>) -> Result<Vec<Notice>, String> {
        let Some(tables) = tables else { return Ok(self.read_changed()) };
        if tables.is_empty() == self.is_on {
            let what = if self.is_on { "off" } else { "on" };
            return Err(format!("access control is turned {what} after a restart (`ringyard restart`)"));
        }
        let mut new = KeySources::read(tables.auth.as_ref())?;
        let mut sources = lock(&self.sources);
        let asked = |source: Option<KeysUrl>| source.map(|source| source.url);
        let url = asked(tables.auth.as_ref().and_then(KeysUrl::of));
        if url.is_some() && url == asked(self.keys_url()) {
            new.keep_fetched(&sources)?;
        }
        let keys = new.united()?;
        *sources = new;
        self.replace(|issue| State::new(issue, tables, keys, &self.interner));
        drop(sources);
        self.key_fetch.wake();
        Ok(Vec::new())
    }

    /// What grants an operation to a principal, for people.
    #[must_use]
    pub fn granting(&self, principal: &Principal, operation: Operation, name: &str) -> Option<String> {
        self.state.load().granting(principal, operation, name)
    }

    /// Where keys are fetched from.
    #[must_use]
    pub fn keys_url(&self) -> Option<KeysUrl> {
        self.state.load().keys_url.clone()
    }

    /// Takes a JWK set that was fetched from there.
    ///
    /// # Errors
    /// The rest of a sentence; the keys before stay.
    pub fn take_fetched(&self, text: &[u8]) -> Result<bool, String> {
        let mut sources = lock(&self.sources);
        let is_changed = sources.take_fetched(text)?;
        if is_changed {
            let keys = sources.united()?;
            self.replace(|issue| self.state.load().with_keys(issue, keys));
        }
        Ok(is_changed)
    }

    /// What tokens and the thread that fetches keys say to each other.
    #[must_use]
    pub fn key_fetch(&self) -> &KeyFetch {
        &self.key_fetch
    }

    /// Counts a refusal. [`Authority::identify`] and [`Authority::renew`] do it themselves.
    pub fn count(&self, cause: Cause) {
        self.refused[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often each cause refused a credential.
    pub fn counts(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.iter().map(|cause| (*cause, self.refused[*cause as usize].load(Ordering::Relaxed)))
    }

    /// How many keys tokens are checked with.
    #[must_use]
    pub fn trusted_keys(&self) -> usize {
        self.state.load().keys.len()
    }
}

impl Authority {
    /// The holder of an API key.
    fn holder(&self, key: &[u8]) -> Result<Arc<Principal>, Denial> {
        if key.len() > API_KEY_BYTES_MAX {
            return Err(Denial::of(Cause::UnknownApiKey));
        }
        Self::of_key(&self.state.load(), &sha256(key))
    }

    fn of_key(state: &State, sha256: &[u8; 32]) -> Result<Arc<Principal>, Denial> {
        state.rules.key(sha256).map(Arc::clone).ok_or(Denial::of(Cause::UnknownApiKey))
    }

    /// The user of a token.
    fn user(&self, token: &[u8], now_ms: u64) -> Identified {
        let state = self.state.load();
        let mut cost = COST_OF_READING;
        let result = match self.user_under(&state, token, now_ms, &mut cost) {
            Err(Cause::UnknownKey) if state.keys_url.is_some() => {
                let awaits_key = self.key_fetch.ask(now_ms);
                if !awaits_key && self.state.load().issue != state.issue {
                    // The keys came in between.
                    return self.user(token, now_ms);
                }
                Err(Denial { cause: Cause::UnknownKey, awaits_key })
            }
            result => result.map_err(Denial::of),
        };
        Identified { result, cost }
    }

    /// The user of a token under these rules and keys. What it takes to find out is added to `cost`.
    fn user_under(&self, state: &State, token: &[u8], now_ms: u64, cost: &mut u32) -> Result<Arc<Principal>, Cause> {
        let demands = state.demands.as_ref().ok_or(Cause::NoTokens)?;
        let unverified = Unverified::read(token, demands)?;
        // To check the HMAC of a secret costs no more than a digest. So it is checked before, and names the token.
        let (name, by_secret) = match unverified.mac() {
            Some(mac) => (mac, Some(unverified.signer(&state.keys, cost)?)),
            None => {
                *cost += COST_OF_DIGEST;
                (sha256(token), None)
            }
        };
        if let Some(principal) = self.cache.get(&name, state.issue) {
            self.check_use(&principal, state, Some(now_ms))?;
            return Ok(principal);
        }
        *cost += COST_OF_CLAIMS;
        let signer = by_secret.map_or_else(|| unverified.signer(&state.keys, cost), Ok)?;
        let verified = unverified.claims(signer, demands, state.rules.claims(), now_ms)?;
        self.admit(name, verified, state, demands, now_ms)
    }

    /// The principal of a token whose signature and claims are right.
    fn admit(
        &self,
        name: TokenName,
        verified: Verified,
        state: &State,
        demands: &Demands,
        now_ms: u64,
    ) -> Result<Arc<Principal>, Cause> {
        let Verified { user, issued_at_s, expires_ms, mut origin } = verified;
        let max_age_ms = demands.max_age_ms.filter(|_| expires_ms.is_none());
        let mut principal = Principal {
            kind: PrincipalKind::User,
            name: user,
            issued_at_s,
            expires_ms,
            max_age_ms,
            permissions: Permissions::everything(),
            origin: Origin::Anonymous,
            _charge: None,
        };
        self.check_use(&principal, state, Some(now_ms))?;
        let ends_ms = expires_ms.map(|expires_ms| expires_ms.saturating_add(demands.leeway_ms));
        self.revocations.note_lifetime(issued_at_s, ends_ms, now_ms);
        principal.permissions = self.interner.intern(state.rules.of_token(&origin));
        origin.share(&principal.permissions);
        principal.origin = Origin::Token(origin);
        let bytes = principal.bytes() + principal.permissions.bytes();
        let principal = self.principal(principal);
        self.cache.put(name, state.issue, (&principal, bytes), now_ms);
        Ok(principal)
    }

    /// Whether the token of a principal is neither revoked nor, at this time, over.
    fn check_use(&self, principal: &Principal, state: &State, now_ms: Option<u64>) -> Result<(), Cause> {
        if self.revocations.is_revoked(&principal.name, principal.issued_at_s) {
            return Err(Cause::Revoked);
        }
        let is_over = |(expires_ms, now_ms): (u64, u64)| now_ms >= expires_ms.saturating_add(state.settings.leeway_ms);
        if principal.expires_ms.zip(now_ms).is_some_and(is_over) {
            return Err(Cause::Expired);
        }
        Ok(())
    }

    /// A principal that is charged.
    fn principal(&self, principal: Principal) -> Arc<Principal> {
        let bytes = principal.bytes();
        let charge = Charge::new(&self.account, Held::Tokens, bytes);
        Arc::new(Principal { _charge: Some(charge), ..principal })
    }

    fn read_changed(&self) -> Vec<Notice> {
        let (mut sources, mut notices) = (lock(&self.sources), Vec::new());
        if sources.read_changed(&mut notices) {
            match sources.united() {
                Ok(keys) => self.replace(|issue| self.state.load().with_keys(issue, keys)),
                Err(text) => notices.push(Notice { is_error: true, text }),
            }
        }
        notices
    }

    /// Puts a new state in force. The caller holds the lock of the sources.
    fn replace(&self, new: impl FnOnce(u64) -> State) {
        let issue = self.state.load().issue + 1;
        self.state.store(Arc::new(new(issue)));
        self.cache.clear();
        self.generation.fetch_add(1, Ordering::Release);
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sha256
}

#[cfg(test)]
pub(crate) mod tests;
