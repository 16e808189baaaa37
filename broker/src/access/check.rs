//! What a principal may do, as an answer: the reason why not, for messages and for HTTP.
//!
//! With `explain = true` a reason names the grant that comes nearest. Not responsible for what is granted
//! ([`permissions`](crate::access::permissions)).

use crate::access::permissions::{Operation, Right, Scope};
use crate::access::principal::{Principal, PrincipalKind};
use crate::access::rejection::Rejection;

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

    /// Whether the operation is granted to it for this filter or name, which is valid.
    #[must_use]
    pub fn allows(&self, operation: Operation, name: &str) -> bool {
        self.permissions.allows(self.claims(), operation, name)
    }

    /// Whether it has this right for what this filter or name, which is valid, subscribes to.
    #[must_use]
    pub fn has(&self, right: Right, name: &str) -> bool {
        self.permissions.has(self.claims(), right, name)
    }

    /// Why this is not granted, as a reason without a full stop. `explains`: it names the nearest grant.
    #[must_use]
    pub fn explain(&self, operation: Operation, name: &str, explains: bool) -> String {
        let reason = format!("nothing grants {} {name:?}", operation.name());
        if !explains {
            return reason;
        }
        match self.permissions.nearest(self.claims(), operation, name) {
            Some(nearest) => format!("{reason}; the nearest grant is {nearest:?}"),
            None => format!("{reason}; no filter is granted for that"),
        }
    }

    /// The same of a right.
    #[must_use]
    pub fn explain_right(&self, right: Right, name: &str) -> String {
        format!("nothing grants the right {:?}, which {name:?} needs", right.name())
    }

    /// Whether it may do this. `explains`: a refusal names the nearest grant.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn check(&self, operation: Operation, name: &str, explains: bool) -> Result<(), Rejection> {
        match self.allows(operation, name) {
            true => Ok(()),
            false => Err(Rejection::Forbidden(self.explain(operation, name, explains))),
        }
    }

    /// Whether it may ask this of the operators' API.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn check_scope(&self, scope: Scope) -> Result<(), Rejection> {
        match self.permissions.api(scope) {
            true => Ok(()),
            false => Err(Rejection::Forbidden(format!("this needs a key with the scope {:?}", scope.name()))),
        }
    }
}

/// Equal principals may do the same for as long.
impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        let times = |principal: &Self| (principal.issued_at_s, principal.expires_ms, principal.max_age_ms);
        self.is_same(other) && times(self) == times(other) && self.permissions == other.permissions
    }
}

impl Eq for Principal {}

impl PrincipalKind {
    /// Its name in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Key => "key",
            Self::Operator => "operator",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::access::permissions::{Grant, Permissions, Rights};

    #[test]
    fn a_reason_names_the_nearest_grant_if_that_is_asked_for() {
        let grant = |filter: &str| Grant {
            operation: Operation::Subscribe,
            filter: filter.into(),
            rights: Rights::default(),
            is_template: false,
        };
        let permissions = Permissions::new(vec![grant("chat/+"), grant("a/#")], &[]);
        let somebody = Principal::anonymous(Arc::new(permissions));
        let explain = |operation, name| somebody.explain(operation, name, true);
        let nearest = explain(Operation::Subscribe, "chat/7/x");
        assert_eq!(nearest, "nothing grants subscribe \"chat/7/x\"; the nearest grant is \"chat/+\"");
        let none = explain(Operation::Publish, "a");
        assert_eq!(none, "nothing grants publish \"a\"; no filter is granted for that");
        assert_eq!(somebody.explain(Operation::Publish, "a", false), "nothing grants publish \"a\"");
    }
}
