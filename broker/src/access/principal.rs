//! Who a connection or a request belongs to: a user with a token, the holder of an API key, or "anonymous"; and why
//! a credential is refused.
//!
//! Nothing of a token is in any of these types: [`Debug`] and errors cannot show one.
//!
//! Memory: a principal is charged to the control plane's account for as long as it lives. Connections that brought the same
//! token share one. What a token can make it hold is bounded by the token's length ([`TOKEN_BYTES_MAX`]).
//!
//! [`TOKEN_BYTES_MAX`]: crate::access::tokens::TOKEN_BYTES_MAX

use std::sync::Arc;

use crate::access::permissions::{Grant, Permissions, Scope};
use crate::access::templates::{ClaimValues, Claims, values_of};
use crate::access::trusted_keys::KeyId;
use crate::capacity::budget::{COUNTS_BYTES, Charge};

/// What kind of credential a principal has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrincipalKind {
    /// None.
    Anonymous,
    /// A token.
    User,
    /// An API key.
    Key,
    /// None, by the operators' own listener.
    Operator,
}

/// See the file's head.
#[derive(Debug)]
pub struct Principal {
    /// What kind it is.
    pub kind: PrincipalKind,
    /// The user of a token, the name of a key, or "anonymous".
    pub name: Arc<str>,
    /// When its token was issued, in seconds since 1970.
    pub issued_at_s: Option<u64>,
    /// When its token expires, in milliseconds since 1970, without leeway and grace. `None`: keys, anonymous, and tokens that
    /// `max-age` bounds.
    pub expires_ms: Option<u64>,
    /// How long a connection may last from its beginning, in milliseconds, where the token does not expire.
    pub max_age_ms: Option<u64>,
    /// What it may do, but for the claims in its filters. Equal permissions are one allocation.
    pub(crate) permissions: Arc<Permissions>,
    pub(crate) origin: Origin,
    pub(crate) _charge: Option<Charge>,
}

/// The name of clients without a credential.
const ANONYMOUS: &str = "anonymous";
/// The name of operators without a key.
const OPERATOR: &str = "operator";

impl Principal {
    /// A client without a credential.
    #[must_use]
    pub fn anonymous(permissions: Arc<Permissions>) -> Self {
        Self::without_token(PrincipalKind::Anonymous, ANONYMOUS, permissions, Origin::Anonymous)
    }

    /// The holder of an API key with this SHA-256.
    #[must_use]
    pub(crate) fn holder(name: &str, permissions: Arc<Permissions>, sha256: [u8; 32]) -> Self {
        Self::without_token(PrincipalKind::Key, name, permissions, Origin::Key(sha256))
    }

    /// Whoever reaches the operators' own listener and needs no key there: it reads what the broker says of itself, and
    /// nothing else. `is_near`: it is on this machine.
    #[must_use]
    pub(crate) fn operator(is_near: bool) -> Self {
        let permissions = Permissions::new(Vec::new(), &[Scope::Topics, Scope::Metrics]);
        Self::without_token(PrincipalKind::Operator, OPERATOR, Arc::new(permissions), Origin::Operator { is_near })
    }

    fn without_token(kind: PrincipalKind, name: &str, permissions: Arc<Permissions>, origin: Origin) -> Self {
        let (issued_at_s, expires_ms, max_age_ms) = (None, None, None);
        Self { kind, name: name.into(), issued_at_s, expires_ms, max_age_ms, permissions, origin, _charge: None }
    }

    /// What stands in place of claims in its filters.
    pub(crate) fn claims(&self) -> &Claims {
        match &self.origin {
            Origin::Anonymous | Origin::Key(_) | Origin::Operator { .. } => &[],
            Origin::Token(token) => &token.claims,
        }
    }

    /// As which member a client with it appears to others: the user of its token.
    #[must_use]
    pub fn member_name(&self) -> Option<Arc<str>> {
        (self.kind == PrincipalKind::User).then(|| Arc::clone(&self.name))
    }

    /// What its token says of its member: the text of a JSON value.
    #[must_use]
    pub fn member_info(&self) -> Option<Arc<[u8]>> {
        match &self.origin {
            Origin::Anonymous | Origin::Key(_) | Origin::Operator { .. } => None,
            Origin::Token(token) => token.info.clone(),
        }
    }

    /// Bytes that it takes without its permissions.
    pub(crate) fn bytes(&self) -> u64 {
        let origin = match &self.origin {
            Origin::Anonymous | Origin::Key(_) | Origin::Operator { .. } => 0,
            Origin::Token(token) => token.bytes(&self.permissions),
        };
        (size_of::<Self>() + 2 * COUNTS_BYTES + self.name.len()) as u64 + origin
    }
}

/// What is needed to find out again what a principal may do.
#[derive(Debug)]
pub(crate) enum Origin {
    Anonymous,
    /// The SHA-256 of the key.
    Key([u8; 32]),
    /// An operator without a key.
    Operator {
        /// On this machine, where none is needed to read.
        is_near: bool,
    },
    Token(TokenOrigin),
}

/// What is kept of a token.
#[derive(Clone, Debug)]
pub(crate) struct TokenOrigin {
    /// The key that its signature was checked with.
    pub(crate) signed_by: KeyId,
    /// What its own claim grants, in order. Its principal's permissions have the same list if nothing else grants anything.
    pub(crate) grants: Arc<[Grant]>,
    /// The claims that `[[allow]]` tables named when it was checked.
    pub(crate) claims: Box<[(Arc<str>, ClaimValues)]>,
    /// What it says of its member: the text of a JSON value.
    pub(crate) info: Option<Arc<[u8]>>,
}

impl TokenOrigin {
    /// The values of a claim, one if it is not a list.
    pub(crate) fn values(&self, claim: &str) -> &[Box<str>] {
        values_of(&self.claims, claim)
    }

    /// Takes the list of grants of these permissions for its own, if both say the same.
    pub(crate) fn share(&mut self, permissions: &Permissions) {
        if self.grants == *permissions.grants() {
            self.grants = Arc::clone(permissions.grants());
        }
    }

    /// Bytes behind it, without those that it shares with these permissions.
    fn bytes(&self, permissions: &Permissions) -> u64 {
        let own = Some(&self.grants).filter(|grants| !Arc::ptr_eq(grants, permissions.grants()));
        let grants = own.into_iter().flat_map(|grants| &**grants);
        let grants = grants.map(|grant| size_of::<Grant>() + grant.filter.len());
        let values =
            |values: &ClaimValues| values.iter().map(|value| size_of::<Box<str>>() + value.len()).sum::<usize>();
        let claims = self.claims.iter().map(|(_, of_claim)| size_of::<(Arc<str>, ClaimValues)>() + values(of_claim));
        let info = self.info.as_ref().map_or(0, |info| COUNTS_BYTES + info.len());
        (grants.sum::<usize>() + claims.sum::<usize>() + info) as u64
    }
}

/// Who a credential belongs to, and what it cost to find out.
#[derive(Debug)]
pub struct Identified {
    /// The principal, or why there is none.
    pub result: Result<Arc<Principal>, Denial>,
    /// Processor time in units of about 100 ns.
    pub cost: u32,
}

/// Why a credential is refused. Clients get one answer whatever the cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denial {
    /// For metrics and the log only.
    pub cause: Cause,
    /// It is not decided yet: the key that it names may be among those that are being fetched. Ask again when
    /// [`KeyFetch::is_awaited`](crate::access::key_fetch::KeyFetch::is_awaited) says no.
    pub awaits_key: bool,
}

impl Denial {
    /// One that is decided.
    #[must_use]
    pub fn of(cause: Cause) -> Self {
        Self { cause, awaits_key: false }
    }

    /// Whether the token is valid but for its end, which clients may know.
    #[must_use]
    pub fn is_expired(self) -> bool {
        self.cause == Cause::Expired
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident $label:literal $sentence:literal,)+) => {
        /// Causes of refused credentials, in the order in which they are found.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Cause {
            $($(#[$doc])* $name,)+
        }

        impl Cause {
            /// All there are: `ALL[i] as usize == i`.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its label in `/metrics`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// It as a sentence without a full stop.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),+ }
            }
        }
    };
}

causes! {
    /// There is no credential, and one is required.
    Missing "missing" "there is no token and no key, and one is required",
    /// It begins as an API key does, and there is no such key.
    UnknownApiKey "unknown-api-key" "there is no [[key]] with the SHA-256 of this key",
    /// Tokens are not configured.
    NoTokens "no-tokens" "it is no API key, and [auth] has no source of keys that tokens are checked with",
    /// It is longer than tokens may be.
    TooLong "too-long" "the token is longer than 4096 bytes",
    /// A request brings more than one, of which each could be meant.
    Ambiguous "ambiguous" "the request brings more than one token or key",
    /// Not three parts in base64url, no JSON, members twice, too deep.
    Malformed "malformed" "the token is not three parts in base64url of which the first two are JSON objects, with no \
        member twice and at most 8 levels",
    /// The algorithm is not in the list.
    Algorithm "algorithm" "the header's alg is not one of `algorithms`",
    /// The header has `crit`.
    Critical "critical" "the header has crit: extensions are not understood",
    /// The header's `typ` is not the required one.
    Type "type" "the header's typ is not `typ` of [auth]",
    /// No trusted key suits its `kid` and algorithm.
    UnknownKey "unknown-key" "no trusted key suits the header's kid and alg",
    /// No trusted key made this signature.
    Signature "signature" "the signature is wrong",
    /// A registered claim has another type than it should.
    Claims "claims" "exp, nbf, iat, iss or aud has a wrong type",
    /// The issuer is another.
    Issuer "issuer" "iss is not `issuer` of [auth]",
    /// It is meant for others.
    Audience "audience" "aud is not `audience` of [auth], or has it not",
    /// `user-claim` is missing or no usable text.
    User "user" "the claim that names the user is missing, empty, longer than 255 bytes, or no text",
    /// The claim with topics is not as it must be.
    Topics "topics" "the claim with topics is not as it must be: lists of valid filters, at most 64 in all, and known rights",
    /// It has no `exp`, and no `max-age` bounds its connections.
    NoExpiry "no-expiry" "there is no exp, and [auth] has no max-age",
    /// `nbf` or `iat` is in the future.
    NotYet "not-yet" "nbf or iat is in the future",
    /// An operator has revoked it.
    Revoked "revoked" "it was issued before the time that its user's tokens were revoked for",
    /// It is over.
    Expired "expired" "exp is in the past",
}
