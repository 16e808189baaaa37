//! One allocation for permissions of equal content.
//!
//! Memory: permissions are charged to the control plane's account for as long as they live. Beside them a table of weak references, which is cleared of dead ones whenever it would grow; so it is bounded by twice the
//! permissions that live. Cost: one lock and one hash per verified token, none per connection or message.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, Weak};

use rustc_hash::FxBuildHasher;

use crate::access::lock;
use crate::access::permissions::Permissions;
use crate::capacity::budget::Account;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Interner {
    account: Arc<Account>,
    known: Mutex<Known>,
}

#[derive(Default, Debug)]
struct Known {
    /// By the hash of their content. Of two with one hash, the later one is known.
    permissions: HashMap<u64, Weak<Permissions>, FxBuildHasher>,
    /// With so many entries dead ones are removed.
    limit: usize,
}

/// Fewer entries are never cleared.
const LIMIT_LEAST: usize = 64;

impl Interner {
    /// One that charges what it makes to `account`.
    pub(crate) fn new(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), known: Mutex::default() }
    }

    /// The living permissions that equal these, or these.
    pub(crate) fn intern(&self, permissions: Permissions) -> Arc<Permissions> {
        let hash = FxBuildHasher.hash_one(&permissions);
        let mut known = lock(&self.known);
        let living = known.permissions.get(&hash).and_then(Weak::upgrade);
        if let Some(equal) = living.filter(|living| **living == permissions) {
            return equal;
        }
        let new = Arc::new(permissions.charged(&self.account));
        if known.permissions.len() >= known.limit.max(LIMIT_LEAST) {
            known.permissions.retain(|_, weak| weak.strong_count() > 0);
            known.limit = 2 * known.permissions.len();
        }
        known.permissions.insert(hash, Arc::downgrade(&new));
        new
    }

    /// How many entries the table has.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.known).permissions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::permissions::{Grant, Operation, Rights};

    fn permissions(filter: &str) -> Permissions {
        let grant = Grant {
            operation: Operation::Publish,
            filter: filter.into(),
            rights: Rights::default(),
            is_template: false,
        };
        Permissions::new(vec![grant], &[])
    }

    #[test]
    fn equal_permissions_are_one_allocation() {
        let interner = Interner::new(&Arc::default());
        let (a, b, c) = (permissions("a"), permissions("a"), permissions("b"));
        let (a, b, c) = (interner.intern(a), interner.intern(b), interner.intern(c));
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c) && *a != *c);
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let interner = Interner::new(&Arc::default());
        let kept = interner.intern(permissions("kept"));
        for n in 0..10_000 {
            let _ = interner.intern(permissions(&n.to_string()));
            assert!(interner.len() <= LIMIT_LEAST);
        }
        assert!(Arc::ptr_eq(&kept, &interner.intern(permissions("kept"))));
    }
}
