//! The configuration of access control, as [`Authority`](crate::access::authority::Authority) takes it.
//!
//! Not responsible for reading it (`config/access.rs`, `server/access.rs`).

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use crate::access::grants::Grants;
use crate::access::rules::AllowRule;

/// The configuration of access control, without the keys that tokens are signed with. Durations are in milliseconds.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whether a client needs a token or a key.
    pub required: bool,
    /// Algorithms that a token may be signed with; none, if only API keys are taken.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// What `aud` has to have.
    pub audience: Option<String>,
    /// What `typ` has to be.
    pub typ: Option<String>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that says what the token grants.
    pub topics_claim: String,
    /// How far clocks may differ.
    pub leeway_ms: u64,
    /// How long a connection may stay once its token has ended.
    pub grace_ms: u64,
    /// How long a connection may last whose token has no end.
    pub max_age_ms: Option<u64>,
    /// Whether plain requests may carry their token in the query.
    pub query_token: bool,
    /// The cookie that may carry the token.
    pub cookie: Option<Arc<str>>,
    /// Whether a refusal names the nearest grant.
    pub explain: bool,
    /// The `[[allow]]` tables.
    pub allow: Vec<AllowRule>,
    /// The `[[key]]` tables.
    pub keys: Vec<KeyRule>,
}

/// One `[[key]]` table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRule {
    /// Its name, as whom its holder is known.
    pub name: String,
    /// The SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What it grants.
    pub grants: Grants,
    /// Where the table begins: `FILE:LINE`.
    pub source: String,
}
