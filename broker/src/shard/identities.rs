//! Who this shard's connections are, where access control is on, and until when.
//!
//! | a connection | what is kept of it | what is due |
//! | --- | --- | --- |
//! | without access control, or of an anonymous client | nothing | nothing |
//! | of an operator without a key, also without access control | an entry | nothing |
//! | whose `connect` has to say who it is ([`Flags::UNIDENTIFIED`]) | an entry | `--auth-timeout`, then it is closed with 4408 |
//! | of a user or a key | an entry with its [`Principal`], which connections of equal tokens share | a minute before the token's end, or when half of its time has passed, `refresh`; at the end and the grace, 4401 |
//!
//! Rights are looked up where they are used: with each subscribe, and with each publish to another topic than before
//! (`shard/permissions.rs`). When they change, because of another token or because the broker's own rules, keys or
//! revocations did ([`Authority::generation`]), connections are looked at again, a bounded number per turn: a subscription
//! that nothing grants any more ends, and a raw connection without its right is closed with 4403.
//!
//! Time: the end of a token is a time of day, and becomes a time of the driver's clock once, when the connection gets the
//! token. Memory: an entry, and its place in the list of what is due, charged to the shard's account; nothing for others.
//!
//! [`Authority::generation`]: crate::access::authority::Authority::generation

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ring::{ConnId, Nanos};
use rustc_hash::FxHashMap;

use crate::access::principal::{Principal, PrincipalKind};
use crate::capacity::budget::{Account, Charge, Held};

#[cfg(doc)]
use crate::shard::transport::connection::Flags;

/// So long before its end a client is asked for another token, in milliseconds; of a token that is short, when half of its time
/// has passed.
pub(super) const REFRESH_MS: u64 = 60_000;
/// What an entry takes, its place in the list of what is due included, in bytes: tables have room for more than they hold.
const ENTRY_BYTES: u64 = 2 * (size_of::<(ConnId, Identity)>() + size_of::<(Nanos, ConnId)>()) as u64;

/// See the file's head.
pub(super) struct Identities {
    of: FxHashMap<ConnId, Identity>,
    /// When something is due for each that has something due.
    due: BTreeSet<(Nanos, ConnId)>,
    /// Those to be looked at again because rights changed, each perhaps more than once.
    changed: VecDeque<ConnId>,
    /// What rights, keys and revocations were when all were looked at last.
    pub(super) generation: u64,
    charge: Charge,
}

/// One connection's.
#[derive(Debug)]
pub(super) struct Identity {
    /// `None`: it has to say who it is.
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) next: Next,
    due: Option<Nanos>,
}

/// What is due next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// It is closed, because it did not say who it is.
    Timeout,
    /// It is asked for another token, which would be in time until it `ends`; without one it is closed then.
    Refresh { ends: Nanos, closed: Nanos },
    /// It is closed, because its token has ended.
    End,
}

/// When a token's client is asked for another one, and when it is closed; `None`: never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lifetime {
    pub(super) refresh: Nanos,
    pub(super) ends: Nanos,
    pub(super) closed: Nanos,
}

impl Identities {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self {
            of: FxHashMap::default(),
            due: BTreeSet::new(),
            changed: VecDeque::new(),
            generation: 0,
            charge: Charge::new(account, Held::Subscriptions, 0),
        }
    }

    /// A connection has to say until then who it is.
    pub(super) fn expect(&mut self, id: ConnId, until: Nanos) {
        self.put(id, Identity { principal: None, next: Next::Timeout, due: Some(until) });
    }

    /// A connection is of this principal, for so long.
    pub(super) fn set(&mut self, id: ConnId, principal: Arc<Principal>, lifetime: Option<Lifetime>, asks: bool) {
        let (next, due) = match lifetime {
            Some(Lifetime { refresh, ends, closed }) if asks => (Next::Refresh { ends, closed }, Some(refresh)),
            Some(Lifetime { closed, .. }) => (Next::End, Some(closed)),
            None => (Next::End, None),
        };
        self.put(id, Identity { principal: Some(principal), next, due });
    }

    /// The same connection with other rights: what is due for it does not change.
    pub(super) fn replace(&mut self, id: ConnId, principal: Arc<Principal>) {
        if let Some(identity) = self.of.get_mut(&id) {
            identity.principal = Some(principal);
        }
    }

    fn put(&mut self, id: ConnId, identity: Identity) {
        self.forget(id);
        self.due.extend(identity.due.map(|due| (due, id)));
        self.of.insert(id, identity);
        self.recharge();
    }

    /// The connection is gone, or anonymous.
    pub(super) fn forget(&mut self, id: ConnId) {
        if let Some(identity) = self.of.remove(&id) {
            if let Some(due) = identity.due {
                self.due.remove(&(due, id));
            }
            self.recharge();
        }
    }

    /// Whom a connection belongs to, unless that is nobody in particular.
    pub(super) fn principal(&self, id: ConnId) -> Option<&Arc<Principal>> {
        self.of.get(&id)?.principal.as_ref()
    }

    /// The connections of this user or key; `issued_before_s`: only those of tokens from before that second since 1970, and
    /// none of a key, which nothing revokes but the configuration.
    pub(super) fn of_user<'a>(
        &'a self,
        name: &'a str,
        issued_before_s: Option<u64>,
    ) -> impl Iterator<Item = ConnId> + 'a {
        let is_meant = move |principal: &Principal| {
            let is_old = |before| principal.issued_at_s.is_none_or(|at| at < before);
            let is_revoked = |before| principal.kind == PrincipalKind::User && is_old(before);
            *principal.name == *name && issued_before_s.is_none_or(is_revoked)
        };
        let of_it = move |(&id, identity): (&ConnId, &'a Identity)| {
            identity.principal.as_ref().is_some_and(|principal| is_meant(principal)).then_some(id)
        };
        self.of.iter().filter_map(of_it)
    }

    /// Every connection that is of somebody.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Arc<Principal>)> {
        self.of.iter().filter_map(|(&id, identity)| Some((id, identity.principal.as_ref()?)))
    }

    // ---- audited

    /// Whether anything is kept of a connection.
    pub(super) fn has(&self, id: ConnId) -> bool {
        self.of.contains_key(&id)
    }

    /// Of how many connections something is kept.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Everything due is due for one that is kept, at its time, and the other way round.
    ///
    /// # Errors
    /// What does not agree.
    pub(super) fn invariants(&self) -> Result<(), String> {
        let expected: BTreeSet<_> = self.of.iter().filter_map(|(&id, identity)| Some((identity.due?, id))).collect();
        if expected != self.due {
            return Err(format!("identities have {expected:?} due, listed are {:?}", self.due));
        }
        match self.of.iter().find(|(_, identity)| identity.principal.is_none() != (identity.next == Next::Timeout)) {
            Some((id, identity)) => Err(format!("{id:?} is {identity:?}")),
            None => Ok(()),
        }
    }

    // ---- due

    /// When the next thing is due.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.due.first().map(|&(due, _)| due)
    }

    /// The next connection for which something is due, and what.
    pub(super) fn take_due(&mut self, now: Nanos) -> Option<(ConnId, Next)> {
        let &(due, id) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, id));
        let identity = self.of.get_mut(&id).expect("what is due is due for somebody");
        let next = identity.next;
        identity.due = None;
        if let Next::Refresh { closed, .. } = next {
            (identity.next, identity.due) = (Next::End, Some(closed));
            self.due.insert((closed, id));
        }
        Some((id, next))
    }

    // ---- changes of rights

    /// These are to be looked at again.
    pub(super) fn look_again_at(&mut self, ids: impl IntoIterator<Item = ConnId>) {
        self.changed.extend(ids);
    }

    /// How many are.
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    pub(super) fn take_changed(&mut self) -> Option<ConnId> {
        let id = self.changed.pop_front();
        if self.changed.is_empty() {
            self.changed.shrink_to(0);
        }
        id
    }

    fn recharge(&mut self) {
        let bytes = self.of.len() as u64 * ENTRY_BYTES;
        self.charge.resize(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::budget::Budget;

    const A: ConnId = ConnId { slot: 1, generation: 0 };
    const B: ConnId = ConnId { slot: 2, generation: 0 };

    /// A key may have the name of a user.
    #[test]
    fn a_revocation_is_of_a_user_and_not_of_a_key() {
        let budget = Budget::new(1, 1 << 20);
        let mut identities = Identities::new(budget.of_shard(0));
        let key = Principal::holder("shop", Arc::default(), [0; 32]);
        let user = |issued_at_s| Principal {
            kind: PrincipalKind::User,
            issued_at_s,
            ..Principal::holder("shop", Arc::default(), [0; 32])
        };
        identities.set(A, Arc::new(key), None, true);
        identities.set(B, Arc::new(user(Some(70))), None, true);
        let of = |before| {
            let mut ids: Vec<_> = identities.of_user("shop", before).collect();
            ids.sort();
            ids
        };
        assert_eq!((of(None), of(Some(71)), of(Some(70))), (vec![A, B], vec![B], vec![]));
        identities.set(B, Arc::new(user(None)), None, true);
        assert_eq!(identities.of_user("shop", Some(1)).collect::<Vec<_>>(), [B], "nobody knows how old it is");
    }

    #[test]
    fn what_is_due_comes_in_the_order_of_time_and_once() {
        let budget = Budget::new(1, 1 << 20);
        let mut identities = Identities::new(budget.of_shard(0));
        let principal = Arc::new(Principal::anonymous(Arc::default()));
        let lifetime = |refresh| Some(Lifetime { refresh, ends: refresh + 60, closed: refresh + 85 });
        identities.expect(A, 50);
        identities.set(B, Arc::clone(&principal), lifetime(40), true);
        assert_eq!((identities.next_due(), identities.take_due(39)), (Some(40), None));
        assert_eq!(identities.take_due(40), Some((B, Next::Refresh { ends: 100, closed: 125 })));
        assert_eq!(identities.take_due(60), Some((A, Next::Timeout)));
        assert_eq!((identities.take_due(124), identities.next_due()), (None, Some(125)));
        identities.set(B, Arc::clone(&principal), lifetime(300), false);
        assert_eq!(identities.take_due(300), None, "who cannot be asked is not");
        assert_eq!(identities.take_due(385), Some((B, Next::End)));
        identities.set(B, principal, None, true);
        assert_eq!(identities.next_due(), None);
        assert!(budget.of_shard(0).held(Held::Subscriptions) > 0);
        identities.forget(A);
        identities.forget(B);
        assert_eq!(budget.of_shard(0).held(Held::Subscriptions), 0);
        drop(identities);
    }
}
