//! What the configuration makes of tokens and keys: replaced as a whole when it changes.
//!
//! Not responsible for signatures, nor for when it is replaced ([`Authority`](crate::access::authority::Authority)).

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::{Map, Value};

use crate::access::authority::setup::{KeyRule, Setup};
use crate::access::cache::Digest;
use crate::access::grants::{Grants, Permissions};
use crate::access::principal::{Principal, PrincipalKind};
use crate::access::rules::{Rules, own_grants};
use crate::access::token::{Cause, Expectations};

/// What the configuration makes of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) setup: Option<Setup>,
    pub(super) expected: Expectations,
    rules: Rules,
    pub(super) anonymous: Option<Arc<Principal>>,
    pub(super) keys: Vec<(Digest, Arc<Principal>)>,
}

impl State {
    pub(super) fn new(setup: Option<Setup>, generation: u64) -> Self {
        let Some(setup) = setup else {
            let (expected, rules) = (Expectations::default(), Rules::default());
            return Self { setup: None, expected, rules, anonymous: None, keys: Vec::new() };
        };
        let rules = Rules::new(setup.allow.clone());
        let principal = |kind, name: &str, shared: Arc<Grants>, claims: String| {
            let permissions = Permissions { shared, own: None, explains: setup.explain };
            Arc::new(Principal {
                kind,
                name: name.into(),
                issued_at_s: None,
                expires_ms: None,
                max_age_ms: None,
                permissions: Arc::new(permissions),
                claims: claims.into(),
                generation,
            })
        };
        let anonymous = || principal(PrincipalKind::Anonymous, "anonymous", rules.of_anonymous(), String::new());
        let key = |key: &KeyRule| {
            let claims = hex(&key.sha256);
            (key.sha256, principal(PrincipalKind::Key, &key.name, Arc::new(key.grants.clone()), claims))
        };
        let expected = Expectations {
            issuer: setup.issuer.clone(),
            audience: setup.audience.clone(),
            typ: setup.typ.clone(),
            user_claim: setup.user_claim.clone(),
            leeway_ms: setup.leeway_ms,
            may_lack_expiry: setup.max_age_ms.is_some(),
        };
        let anonymous = (!setup.required).then(anonymous);
        let keys = setup.keys.iter().map(key).collect();
        Self { setup: Some(setup), expected, rules, anonymous, keys }
    }

    /// The holder of the key with this SHA-256. Compares with every key, in constant time.
    pub(super) fn holder_of(&self, digest: &Digest) -> Option<Arc<Principal>> {
        let is_it = |key: &Digest| verify_slices_are_equal(key, digest).is_ok();
        let found = self.keys.iter().fold(None, |found, (key, holder)| if is_it(key) { Some(holder) } else { found });
        found.map(Arc::clone)
    }

    /// What a user with these claims may do.
    pub(super) fn permissions(&self, claims: &Map<String, Value>) -> Result<Arc<Permissions>, Cause> {
        let setup = self.setup.as_ref().ok_or(Cause::UnknownKey)?;
        let (shared, mut own) = self.rules.of_user(claims);
        if let Some(claim) = claims.get(&setup.topics_claim) {
            own.add(&own_grants(claim).ok_or(Cause::Topics)?);
        }
        let own = (!own.is_empty()).then(|| Box::new(own));
        Ok(Arc::new(Permissions { shared, own, explains: setup.explain }))
    }
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
