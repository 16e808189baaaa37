//! What an [`Authority`](crate::access::authority::Authority) goes by at one moment: rules, keys and settings, replaced as a whole.
//!
//! Not responsible for changes. Memory: bounded by the configuration, and by the keys of its sources.

use std::sync::{Arc, OnceLock};

use jsonwebtoken::Algorithm;

use crate::access::interner::Interner;
use crate::access::key_sources::KeysUrl;
use crate::access::permissions::{Operation, Permissions};
use crate::access::principal::{Origin, Principal};
use crate::access::rules::Rules;
use crate::access::tokens::Demands;
use crate::access::trusted_keys::TrustedKeys;
use crate::config::auth::{AccessTables, AuthTable};

/// What changes as a whole.
#[derive(Debug)]
pub(crate) struct State {
    /// Tells states apart.
    pub(crate) issue: u64,
    pub(crate) rules: Arc<Rules>,
    /// `None`: there are no tokens.
    pub(crate) demands: Option<Arc<Demands>>,
    pub(crate) keys: TrustedKeys,
    pub(crate) keys_url: Option<KeysUrl>,
    pub(crate) anonymous: Option<Arc<Principal>>,
    pub(crate) settings: Settings,
}

/// Settings of `[auth]` for those who read credentials and answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `leeway`, in milliseconds: a token holds for so long after its `exp`.
    pub leeway_ms: u64,
    /// `grace`, in milliseconds: a connection may stay for so long after its token's `exp`.
    pub grace_ms: u64,
    /// `query-token`.
    pub query_token: bool,
    /// `cookie`.
    pub cookie: Option<String>,
    /// `explain`.
    pub explain: bool,
    /// Whether there are tokens, beside API keys.
    pub takes_tokens: bool,
}

impl Settings {
    fn new(auth: Option<&AuthTable>) -> Self {
        let ms = |of: fn(&AuthTable) -> std::time::Duration| auth.map_or(0, |auth| of(auth).as_millis() as u64);
        Self {
            leeway_ms: ms(|auth| auth.leeway),
            grace_ms: ms(|auth| auth.grace),
            query_token: auth.is_some_and(|auth| auth.query_token),
            cookie: auth.and_then(|auth| auth.cookie.clone()),
            explain: auth.is_some_and(|auth| auth.explain),
            takes_tokens: auth.is_some_and(AuthTable::has_source_of_keys),
        }
    }
}

impl State {
    /// The state that the tables and keys give.
    pub(crate) fn new(issue: u64, tables: &AccessTables, keys: TrustedKeys, interner: &Interner) -> Self {
        let rules = Arc::new(Rules::new(tables, interner));
        let permissions = || match tables.is_empty() {
            true => Permissions::everything(),
            false => interner.intern(rules.of_anonymous()),
        };
        let anonymous = (!tables.is_required()).then(|| Arc::new(Principal::anonymous(permissions())));
        let auth = tables.auth.as_ref();
        Self {
            issue,
            demands: auth.filter(|auth| auth.has_source_of_keys()).map(|auth| Arc::new(demands(auth))),
            keys,
            keys_url: auth.and_then(KeysUrl::of),
            anonymous,
            settings: Settings::new(auth),
            rules,
        }
    }

    /// The same with other keys.
    pub(crate) fn with_keys(&self, issue: u64, keys: TrustedKeys) -> Self {
        Self {
            issue,
            rules: Arc::clone(&self.rules),
            demands: self.demands.clone(),
            keys,
            keys_url: self.keys_url.clone(),
            anonymous: self.anonymous.clone(),
            settings: self.settings.clone(),
        }
    }

    /// What grants an operation to a principal, for people.
    pub(crate) fn granting(&self, principal: &Principal, operation: Operation, name: &str) -> Option<String> {
        let granted = principal.permissions.granting(principal.claims(), operation, name)?;
        let granted = &*granted;
        let table = match &principal.origin {
            Origin::Anonymous => self.rules.table_granting(operation, granted, None),
            Origin::Token(token) => self.rules.table_granting(operation, granted, Some(token)),
            Origin::Operator { .. } => return None,
            Origin::Key(_) => return Some(format!("'{granted}' of its [[key]]")),
        };
        Some(match table {
            Some((table, template)) if template == granted => {
                format!("'{granted}' of the [[allow]] at {}", table.source)
            }
            Some((table, template)) => format!("'{granted}', from '{template}' of the [[allow]] at {}", table.source),
            None => format!("'{granted}' of the token's own claim"),
        })
    }
}

fn demands(auth: &AuthTable) -> Demands {
    let algorithm = |name: &String| name.parse::<Algorithm>().expect("the schema lists algorithms that exist");
    Demands {
        algorithms: auth.algorithms.iter().map(algorithm).collect(),
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        user_claim: auth.user_claim.clone(),
        topics_claim: auth.topics_claim.clone(),
        typ: auth.typ.clone(),
        leeway_ms: auth.leeway.as_millis() as u64,
        max_age_ms: auth.max_age.map(|age| age.as_millis() as u64),
        usual_header: OnceLock::new(),
    }
}
