//! What a principal may do: granted filters, the rights that go with them, and scopes of `/api`.
//!
//! A requested filter must lie within one granted filter ([`covers`]): every topic that it matches is matched by that grant.
//! Grants of several tables and of the token are united, filter by filter; two grants never combine to cover one filter.
//! Neither `#` nor a leading `+` covers topics that begin with `$`. Those for operators are granted by scopes alone.
//!
//! Not responsible for who gets which grants (`rules`) nor for whether names are valid: filters
//! and names are checked before.
//!
//! Memory: permissions of equal content are one allocation (`interner`), and claims in filters are filled in only when one is
//! asked about (`templates`), so that connections whose rights come from `[[allow]]` alone cost nothing here. Cost: one comparison
//! per granted filter, linear in its length; nothing is allocated but for a filter with claims.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

pub use protocol::topic::covers;
use protocol::topic::{BUSIEST, COUNT, ENDS, LEASE, LOAD, PRESENCE, is_for_operators, is_reserved};

use crate::access::templates::{Claims, expanded, template_covers};
use crate::capacity::budget::{Account, Charge, Held};

/// What somebody wants to do with topics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// Receive what is published; takes filters.
    Subscribe,
    /// Publish.
    Publish,
    /// Answer requests.
    Respond,
    /// Hold a lease.
    Lease,
}

impl Operation {
    /// All there are: `ALL[i] as usize == i`.
    pub const ALL: [Self; 4] = [Self::Subscribe, Self::Publish, Self::Respond, Self::Lease];

    /// Its name in tables and in the token's claim.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Respond => "respond",
            Self::Lease => "lease",
        }
    }
}

/// What somebody may do with what is subscribed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// See who is there.
    Presence,
    /// Be seen there.
    Enter,
    /// Ask for earlier messages.
    History,
    /// Send requests.
    Request,
}

impl Right {
    /// All there are: `ALL[i] as usize == i`.
    pub const ALL: [Self; 4] = [Self::Presence, Self::Enter, Self::History, Self::Request];

    /// Its name in tables and in the token's claim.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Enter => "enter",
            Self::History => "history",
            Self::Request => "request",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rights(u8);

impl Rights {
    /// Every right.
    pub const ALL: Self = Self(0b1111);

    /// With this right too.
    #[must_use]
    pub const fn with(self, right: Right) -> Self {
        Self(self.0 | 1 << right as u8)
    }

    /// Whether it has this right.
    #[must_use]
    pub const fn has(self, right: Right) -> bool {
        self.0 & 1 << right as u8 != 0
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A part of `/api` and `/metrics`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Topics.
    Topics,
    /// Connections, and closing and revoking users.
    Connections,
    /// `/metrics`.
    Metrics,
    /// What goes through a topic, live.
    Inspect,
}

impl Scope {
    /// All there are: `ALL[i] as usize == i`.
    pub const ALL: [Self; 4] = [Self::Topics, Self::Connections, Self::Metrics, Self::Inspect];

    /// Its name in `[[key]]`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Connections => "connections",
            Self::Metrics => "metrics",
            Self::Inspect => "inspect",
        }
    }
}

/// A granted filter. `rights` have a meaning for [`Operation::Subscribe`] only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Grant {
    pub(crate) operation: Operation,
    pub(crate) filter: Box<str>,
    pub(crate) rights: Rights,
    /// Whether the filter has claims in it (`templates`).
    pub(crate) is_template: bool,
}

impl Grant {
    /// Whether it covers a name or filter for somebody with these claims.
    fn covers(&self, claims: &Claims, name: &str) -> bool {
        match self.is_template {
            true => template_covers(&self.filter, claims, name),
            false => covers(&self.filter, name),
        }
    }

    /// Its filter for somebody with these claims; `None`: it grants nothing.
    fn filter_for(&self, claims: &Claims) -> Option<Cow<'_, str>> {
        if self.is_template { expanded(&self.filter, claims) } else { Some(Cow::Borrowed(&self.filter)) }
    }
}

/// See the file's head. Equal permissions have equal content: grants are sorted and unlike.
#[derive(Default, Debug)]
pub struct Permissions {
    content: Content,
    charge: Option<Charge>,
}

#[derive(Default, PartialEq, Eq, Hash, Debug)]
struct Content {
    is_everything: bool,
    grants: Arc<[Grant]>,
    /// Where the grants of each operation end.
    ends: [u32; Operation::ALL.len()],
    scopes: u8,
}

impl PartialEq for Permissions {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for Permissions {}

impl Hash for Permissions {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.content.hash(hasher);
    }
}

impl Permissions {
    /// What all these grants and scopes allow together.
    #[must_use]
    pub fn new(mut grants: Vec<Grant>, scopes: &[Scope]) -> Self {
        in_order(&mut grants);
        Self::of_grants(grants.into(), scopes)
    }

    /// What these grants, which are [`in_order`], and scopes allow together.
    pub(crate) fn of_grants(grants: Arc<[Grant]>, scopes: &[Scope]) -> Self {
        let ends = Operation::ALL.map(|operation| grants.partition_point(|grant| grant.operation <= operation) as u32);
        let scopes = scopes.iter().fold(0, |bits, scope| bits | 1 << *scope as u8);
        Self { content: Content { is_everything: false, grants, ends, scopes }, charge: None }
    }

    /// The same, charged to an account for as long as it lives.
    #[must_use]
    pub(crate) fn charged(mut self, account: &Arc<Account>) -> Self {
        self.charge = Some(Charge::new(account, Held::Tokens, self.bytes()));
        self
    }

    /// What holds where access control is off.
    #[must_use]
    pub fn everything() -> Arc<Self> {
        static EVERYTHING: LazyLock<Arc<Permissions>> = LazyLock::new(|| {
            let content = Content { is_everything: true, ..Content::default() };
            Arc::new(Permissions { content, charge: None })
        });
        Arc::clone(&EVERYTHING)
    }

    /// Whether the operation is granted for this filter or name, which is valid.
    #[must_use]
    pub(crate) fn allows(&self, claims: &Claims, operation: Operation, name: &str) -> bool {
        let is_scoped = operation == Operation::Subscribe && self.reads(name);
        if is_for_operators(name) {
            return is_scoped;
        }
        let mut grants = self.grants_of(operation).iter();
        self.content.is_everything
            || is_scoped
            || grants.any(|grant| grant.covers(claims, name))
            || operation == Operation::Subscribe
                && Says::of(name).is_some_and(|says| match says {
                    Says::Members(of) => self.has(claims, Right::Presence, of),
                    Says::Count(of) | Says::Lease(of) => self.allows(claims, Operation::Subscribe, of),
                })
    }

    /// Whether the right is granted for what this filter or name, which is valid, subscribes to.
    #[must_use]
    pub(crate) fn has(&self, claims: &Claims, right: Right, name: &str) -> bool {
        if let Some(Says::Members(of) | Says::Count(of) | Says::Lease(of)) = Says::of(name)
            && self.allows(claims, Operation::Subscribe, name)
            && self.has(claims, right, of)
        {
            return true;
        }
        let is_scoped = right == Right::History && self.reads(name);
        let mut grants = self.grants_of(Operation::Subscribe).iter();
        self.content.is_everything
            || is_scoped
            || grants.any(|grant| grant.rights.has(right) && grant.covers(claims, name))
    }

    /// Whether a scope lets its holder read this topic of the broker's own.
    fn reads(&self, name: &str) -> bool {
        let scope = match name {
            LOAD | ENDS => Scope::Metrics,
            BUSIEST => Scope::Topics,
            _ => return false,
        };
        self.content.scopes & 1 << scope as u8 != 0
    }

    /// The granted filter that begins with most levels of `name`, for somebody who wonders why it is not granted.
    #[must_use]
    pub(crate) fn nearest(&self, claims: &Claims, operation: Operation, name: &str) -> Option<Cow<'_, str>> {
        self.filters(claims, operation).rev().max_by_key(|filter| levels_in_common(filter, name))
    }

    /// The granted filter that a name or filter lies within.
    #[must_use]
    pub(crate) fn granting(&self, claims: &Claims, operation: Operation, name: &str) -> Option<Cow<'_, str>> {
        self.filters(claims, operation).find(|filter| covers(filter, name))
    }

    /// Whether this part of `/api` is granted.
    #[must_use]
    pub fn api(&self, scope: Scope) -> bool {
        self.content.is_everything || self.content.scopes & 1 << scope as u8 != 0
    }

    /// Whether any part of `/api` is: then its holder publishes to exclusive topics without their leases. Where there is no access
    /// control, nobody does.
    #[must_use]
    pub fn needs_no_lease(&self) -> bool {
        !self.content.is_everything && self.content.scopes != 0
    }

    /// Every granted filter of an operation.
    pub(crate) fn filters(
        &self,
        claims: &Claims,
        operation: Operation,
    ) -> impl DoubleEndedIterator<Item = Cow<'_, str>> {
        self.grants_of(operation).iter().filter_map(move |grant| grant.filter_for(claims))
    }

    /// Bytes that it takes, itself included, without what the allocator adds.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        let filters: usize = self.content.grants.iter().map(|grant| grant.filter.len()).sum();
        (size_of::<Self>() + size_of_val::<[Grant]>(&self.content.grants) + filters) as u64
    }

    /// Its grants, one after the other.
    pub(crate) fn grants(&self) -> &Arc<[Grant]> {
        &self.content.grants
    }

    fn grants_of(&self, operation: Operation) -> &[Grant] {
        let begin = (operation as usize).checked_sub(1).map_or(0, |before| self.content.ends[before]);
        &self.content.grants[begin as usize..self.content.ends[operation as usize] as usize]
    }
}

/// Sorts grants, and unites those that differ in their rights only.
pub(crate) fn in_order(grants: &mut Vec<Grant>) {
    grants.sort_unstable();
    grants.dedup_by(|second, first| {
        let facts = |grant: &Grant| (grant.operation, grant.is_template);
        let is_same = facts(first) == facts(second) && first.filter == second.filter;
        if is_same {
            first.rights = first.rights.union(second.rights);
        }
        is_same
    });
}

/// What topics of the broker say of another topic or filter.
enum Says<'a> {
    /// Who is there.
    Members(&'a str),
    /// How many are.
    Count(&'a str),
    /// Who has its lease.
    Lease(&'a str),
}

impl<'a> Says<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let members = || name.strip_prefix(PRESENCE).map(Self::Members);
        let lease = || name.strip_prefix(LEASE).map(Self::Lease);
        // They say nothing of each other: it would take ever longer to find out whether that is granted.
        members().or_else(|| name.strip_prefix(COUNT).map(Self::Count)).or_else(lease).filter(|says| match says {
            Self::Members(of) | Self::Count(of) | Self::Lease(of) => !of.is_empty() && !is_reserved(of),
        })
    }
}

/// How many levels at the start of a granted filter suit those of a requested one.
fn levels_in_common(granted: &str, asked: &str) -> usize {
    let suits = |(granted, asked): &(&str, &str)| granted == asked || matches!(*granted, "+" | "#");
    granted.split('/').zip(asked.split('/')).take_while(suits).count()
}

#[cfg(test)]
mod tests;
