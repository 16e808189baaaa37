//! Who somebody is, once that is known: a user by a token, the holder of a key, or nobody in particular.
//!
//! A principal is made once per token and shared by all connections that bring the same one. The token itself is not kept.
//!
//! Not responsible for finding out who it is (`authority`), nor for what it may do ([`Permissions`]).

use std::fmt;
use std::sync::Arc;

use crate::access::grants::{Operation, Permissions, Scope};
use crate::access::rejection::Rejection;

/// What kind of principal it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrincipalKind {
    /// Nobody in particular.
    Anonymous,
    /// The user that a token names.
    User,
    /// The holder of a key.
    Key,
}

impl PrincipalKind {
    /// Its name in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Key => "key",
        }
    }
}

/// See the file's head.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// What kind it is.
    pub kind: PrincipalKind,
    /// The user, or the name of the key.
    pub name: Arc<str>,
    /// When its token was issued, in seconds since 1970.
    pub issued_at_s: Option<u64>,
    /// When its token ends, in milliseconds since 1970, without leeway and grace. `None`: it has no end of its own.
    pub expires_ms: Option<u64>,
    /// How long a connection with a token without an end may last, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// What it may do.
    pub permissions: Arc<Permissions>,
    /// The token's claims, as JSON, to look at again when rules change.
    pub(in crate::access) claims: Box<str>,
    /// The rules that it was made by.
    pub(in crate::access) generation: u64,
}

impl Principal {
    /// Whether it is nobody in particular.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.kind == PrincipalKind::Anonymous
    }

    /// Whether both are the same user, or the same key.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.name) == (other.kind, &other.name)
    }

    /// Whether it may do this.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn check(&self, operation: Operation, name: &str) -> Result<(), Rejection> {
        match self.permissions.allows(operation, name) {
            true => Ok(()),
            false => Err(Rejection::Forbidden(self.permissions.explain(operation, name))),
        }
    }

    /// Whether it may ask this of the operators' API.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn check_scope(&self, scope: Scope) -> Result<(), Rejection> {
        match self.permissions.reaches(scope) {
            true => Ok(()),
            false => Err(Rejection::Forbidden(format!("this needs a key with the scope {:?}", scope.as_str()))),
        }
    }

    /// What it takes on the heap beside its record, in bytes; what is shared with others not counted.
    #[must_use]
    pub(in crate::access) fn heap_bytes(&self) -> usize {
        let own = self.permissions.own.as_ref().map_or(0, |grants| size_of_val(&**grants) + grants.heap_bytes());
        self.name.len() + self.claims.len() + size_of::<Permissions>() + own
    }

    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, permissions: Permissions) -> Self {
        Self {
            kind: PrincipalKind::User,
            name: name.into(),
            issued_at_s: None,
            expires_ms: None,
            max_age_ms: None,
            permissions: Arc::new(permissions),
            claims: "{}".into(),
            generation: 0,
        }
    }
}

/// Keeps the claims, which may be personal, out of logs.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, issued_at_s, expires_ms, .. } = self;
        let mut shown = f.debug_struct("Principal");
        shown.field("kind", kind).field("name", name).field("issued_at_s", issued_at_s).field("expires_ms", expires_ms);
        shown.finish_non_exhaustive()
    }
}
