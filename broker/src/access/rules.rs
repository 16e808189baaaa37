//! Grants of the `[[allow]]` and `[[key]]` tables, and which of them a principal has.
//!
//! What a table grants is united with what others grant, and with the claim of the token. Filters of `[[allow]]` with claims in them
//! are kept as they are (`templates`), so that users with the same tables have the same permissions.
//!
//! Not responsible for reading tables ([`config::auth`](crate::config::auth)) nor for tokens. Memory: bounded by the file.
//! Cost: linear in the tables, once per verified token.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::access::interner::Interner;
use crate::access::permissions::{Grant, Operation, Permissions, Right, Rights, Scope};
use crate::access::principal::{Principal, TokenOrigin};
use crate::access::templates::{claims_in, expanded, is_template};
use crate::config::auth::{AccessTables, AllowTable, GrantLists, KeyTable, Who};

/// Everything that the tables grant.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    allows: Vec<AllowTable>,
    /// By the first bytes of their SHA-256.
    keys: HashMap<[u8; 8], Vec<ApiKey>>,
    /// Claims whose values decide about grants, sorted.
    claims: Vec<Arc<str>>,
}

/// A key of a `[[key]]`.
#[derive(Debug)]
struct ApiKey {
    sha256: [u8; 32],
    holder: Arc<Principal>,
}

impl Rules {
    /// Those of the tables.
    pub(crate) fn new(tables: &AccessTables, interner: &Interner) -> Self {
        let mut claims: Vec<Arc<str>> = tables.allows.iter().flat_map(claims_of).map(Arc::from).collect();
        claims.sort();
        claims.dedup();
        let mut keys: HashMap<_, Vec<_>> = HashMap::new();
        for table in &tables.keys {
            keys.entry(first_bytes(&table.sha256)).or_default().push(ApiKey::new(table, interner));
        }
        Self { allows: tables.allows.clone(), keys, claims }
    }

    /// Claims whose values [`Rules::of_token`] looks at.
    pub(crate) fn claims(&self) -> &[Arc<str>] {
        &self.claims
    }

    /// Whether there are API keys.
    pub(crate) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The holder of the key with this SHA-256, which is compared in constant time.
    pub(crate) fn key(&self, sha256: &[u8; 32]) -> Option<&Arc<Principal>> {
        let keys = self.keys.get(&first_bytes(sha256))?;
        keys.iter().find(|key| verify_slices_are_equal(&key.sha256, sha256).is_ok()).map(|key| &key.holder)
    }

    /// What somebody without a credential may do.
    pub(crate) fn of_anonymous(&self) -> Permissions {
        let tables = self.allows.iter().filter(|allow| allow.principal == Who::Anonymous);
        Permissions::new(tables.flat_map(|allow| grants(&allow.grants, false)).collect(), &[])
    }

    /// What the user of a token may do.
    pub(crate) fn of_token(&self, token: &TokenOrigin) -> Permissions {
        let tables = self.allows.iter().filter(|allow| applies(&allow.principal, token));
        let granted: Vec<_> = tables.flat_map(|allow| grants(&allow.grants, true)).collect();
        if granted.is_empty() {
            return Permissions::of_grants(Arc::clone(&token.grants), &[]);
        }
        Permissions::new([&*token.grants, &*granted].concat(), &[])
    }

    /// The table whose filter grants an operation to the user of a token, and this filter as the table has it.
    pub(crate) fn table_granting<'a>(
        &'a self,
        operation: Operation,
        granted: &str,
        token: Option<&TokenOrigin>,
    ) -> Option<(&'a AllowTable, &'a str)> {
        self.allows.iter().find_map(|allow| {
            let is_meant = token.map_or(allow.principal == Who::Anonymous, |token| applies(&allow.principal, token));
            let mut filters = filters(&allow.grants, operation).iter();
            let filter = filters.find(|filter| match token {
                Some(token) => expanded(filter, &token.claims).as_deref() == Some(granted),
                None => *filter == granted,
            })?;
            is_meant.then_some((allow, &**filter))
        })
    }
}

impl ApiKey {
    fn new(table: &KeyTable, interner: &Interner) -> Self {
        let scopes: Vec<_> =
            Scope::ALL.into_iter().filter(|scope| table.api.iter().any(|name| name == scope.name())).collect();
        let grants = grants(&table.grants, false);
        let permissions = interner.intern(Permissions::new(grants, &scopes));
        let holder = Arc::new(Principal::holder(&table.name, permissions, table.sha256));
        Self { sha256: table.sha256, holder }
    }
}

fn first_bytes(sha256: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&sha256[..8]);
    first
}

/// Whether an `[[allow]]` is for the user of a token.
fn applies(principal: &Who, token: &TokenOrigin) -> bool {
    match principal {
        Who::Anonymous => false,
        Who::User => true,
        Who::Claim { name, value } => token.values(name).iter().any(|other| **other == **value),
    }
}

fn filters(lists: &GrantLists, operation: Operation) -> &[String] {
    match operation {
        Operation::Subscribe => &lists.subscribe,
        Operation::Publish => &lists.publish,
        Operation::Respond => &lists.respond,
        Operation::Lease => &lists.lease,
    }
}

/// The grants of a table, whose filters may have claims in them.
fn grants(lists: &GrantLists, with_claims: bool) -> Vec<Grant> {
    let is_listed = |right: &Right| lists.rights.iter().any(|name| name == right.name());
    let rights = Right::ALL.into_iter().filter(is_listed).fold(Rights::default(), Rights::with);
    let mut grants = Vec::new();
    for operation in Operation::ALL {
        let rights = if operation == Operation::Subscribe { rights } else { Rights::default() };
        let grant = |filter: &String| Grant {
            operation,
            filter: filter.as_str().into(),
            rights,
            is_template: with_claims && is_template(filter),
        };
        grants.extend(filters(lists, operation).iter().map(grant));
    }
    grants
}

/// The claims that decide about a table's grants.
fn claims_of(allow: &AllowTable) -> Vec<&str> {
    let mut claims = Vec::new();
    if let Who::Claim { name, .. } = &allow.principal {
        claims.push(&**name);
    }
    for operation in Operation::ALL {
        for filter in filters(&allow.grants, operation) {
            claims.extend(claims_in(filter));
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::trusted_keys::KeyId;

    fn token(claims: &[(&str, &[&str])]) -> TokenOrigin {
        let claims =
            claims.iter().map(|(name, values)| ((*name).into(), values.iter().map(|value| (*value).into()).collect()));
        TokenOrigin { signed_by: KeyId::default(), grants: Arc::default(), claims: claims.collect(), info: None }
    }

    #[test]
    fn a_claim_is_text_or_a_list_that_has_it() {
        let admin = Who::Claim { name: "role".into(), value: "admin".into() };
        assert!(applies(&admin, &token(&[("role", &["admin"])])));
        assert!(applies(&admin, &token(&[("role", &["user", "admin"])])));
        for other in [&[("role", &["admin2"][..])][..], &[("roles", &["admin"])], &[("role", &[])], &[]] {
            assert!(!applies(&admin, &token(other)), "{other:?}");
        }
        assert!(!applies(&Who::Anonymous, &token(&[])) && applies(&Who::User, &token(&[])));
    }
}
