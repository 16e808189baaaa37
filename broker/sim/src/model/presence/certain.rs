//! When a session was somewhere for certain, and when possibly.

use super::{Act, Deed, Presence, Session, SessionId};

/// A moment: nanoseconds, and the order of what happened within them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct At(pub u64, pub u64);

impl At {
    /// None is later.
    pub(in crate::model) const NEVER: Self = Self(u64::MAX, u64::MAX);
}

/// From a moment to another, the latter not included.
pub(super) type Span = (At, At);

impl Deed {
    /// Whether it may have been done behind another one. What one client asks for is done in its order. What another one asks for,
    /// over whose connection the session goes on, is done at some time; its unsubscribes even after they were answered.
    fn may_follow(&self, other: &Self) -> bool {
        let goes_on = self.act == Act::Unsubscribe || self.to.is_none_or(|to| to > other.from);
        self.from > other.from || (self.client != other.client && goes_on)
    }
}

impl Presence {
    /// Until when a session was kept for certain: while its client was connected, and for the grace.
    pub(in crate::model) fn kept_until(&self, id: SessionId) -> At {
        let session = &self.sessions[id];
        let mut until = At::default();
        for owner in &session.owners {
            let mut seen = self.guests.get(&owner.client).map_or(owner.asked, |guest| guest.alive);
            // From when somebody else asked for it, its client may not have had it any longer.
            for claim in session.claims.iter().filter(|claim| claim.client != owner.client) {
                if claim.heard.is_none_or(|heard| heard > owner.asked) {
                    seen = seen.min(claim.asked);
                }
            }
            let seen = seen.max(owner.asked);
            let waits = session.secret.is_some() && self.grace > 0 && !self.is_scarce;
            let from = self.slowest_at(seen.0);
            until = until.max(if waits { At(from.saturating_add(self.grace), 0).max(seen) } else { seen });
        }
        session.ending.map_or(until, |ending| until.min(ending))
    }

    /// The earliest time that a shard took it for, from a time on.
    pub(in crate::model) fn slowest_at(&self, nanos: u64) -> u64 {
        let next = self.behind.partition_point(|&(time, _)| time <= nanos);
        next.checked_sub(1).map_or(nanos, |at| self.behind[at].1)
    }

    /// From when on every shard knew that it was so late.
    pub(in crate::model) fn all_are_past(&self, nanos: u64) -> Option<u64> {
        let first = self.behind.partition_point(|&(_, slowest)| slowest < nanos);
        self.behind.get(first).map(|&(time, _)| time)
    }

    /// When a session was over for certain, if it was.
    pub(in crate::model) fn over(&self, id: SessionId) -> Option<At> {
        self.sessions[id].over
    }

    /// By which name others see a session.
    pub(in crate::model) fn member_of(&self, id: SessionId) -> &str {
        &self.sessions[id].member
    }

    /// Whether a session has had one connection, and nobody else has asked for it.
    pub(in crate::model) fn is_alone(&self, id: SessionId) -> bool {
        let Session { owners, claims, .. } = &self.sessions[id];
        owners.len() == 1 && claims.iter().all(|claim| claim.client == owners[0].client)
    }

    /// Until when a client was connected for certain.
    pub(in crate::model) fn alive_until(&self, client: usize) -> At {
        self.guests.get(&client).map_or(At::default(), |guest| guest.alive)
    }

    /// How long a session waits for its client for certain, in nanoseconds.
    pub(in crate::model) fn waits(&self, id: SessionId) -> u64 {
        if self.sessions[id].secret.is_some() && !self.is_scarce { self.grace } else { 0 }
    }

    /// When clients asked for the session of this one, and when each that got it heard so.
    pub(in crate::model) fn claims_beside(&self, client: usize) -> impl Iterator<Item = (At, Option<At>)> {
        let claims = self.session_of(client).map(|id| &self.sessions[id].claims);
        let others = claims.into_iter().flatten().filter(move |claim| claim.client != client);
        others.map(|claim| (claim.asked, claim.heard))
    }

    fn deeds_of(&self, id: SessionId, topic: usize) -> impl Iterator<Item = &Deed> {
        self.deeds.iter().filter(move |deed| deed.session == id && deed.topic == topic)
    }

    /// When a session was at a topic for certain.
    pub(super) fn certain(&self, id: SessionId, topic: usize) -> Vec<Span> {
        let kept = self.kept_until(id);
        let entered = self.deeds_of(id, topic).filter(|deed| deed.enters());
        let span = |deed: &Deed| {
            let leaves = self.deeds_of(id, topic).filter(|other| other.leaves() && other.may_follow(deed));
            let left = leaves.map(|other| other.from).min().unwrap_or(At::NEVER);
            let from = deed.to?;
            (from < left.min(kept)).then_some((from, left.min(kept)))
        };
        entered.filter_map(span).collect()
    }

    /// When a session may have been at a topic.
    pub(super) fn possible(&self, id: SessionId, topic: usize) -> Vec<Span> {
        let Session { over, owners, claims, .. } = &self.sessions[id];
        let over = over.unwrap_or(At::NEVER);
        let is_alone = owners.len() + claims.len() == 1;
        let span = |deed: &Deed| {
            let later = || self.deeds_of(id, topic).filter(|other| other.leaves() && other.from > deed.from);
            let left = later().filter(|other| other.act == Act::Leave).filter_map(|other| other.to);
            // An unsubscribe is answered before everybody knows, and is of no account from who has the session no longer.
            let is_settled = |other: &&Deed| other.to.is_some_and(|to| to < self.rested) && is_alone;
            let quiet = later().filter(is_settled).map(|_| self.rested);
            let left = left.chain(quiet).min();
            (deed.from, left.unwrap_or(At::NEVER).min(over))
        };
        self.deeds_of(id, topic).filter(|deed| deed.enters()).map(span).collect()
    }

    /// The sessions of a member.
    pub(super) fn sessions_of(&self, member: &str) -> impl Iterator<Item = SessionId> {
        let sessions = self.sessions.iter().enumerate();
        sessions.filter(move |(_, session)| session.member == member).map(|(id, _)| id)
    }

    /// Whether a member was at a topic for certain, at every moment of a span.
    pub(super) fn covers(&self, member: &str, topic: usize, (from, to): Span) -> bool {
        let mut spans: Vec<Span> = self.sessions_of(member).flat_map(|id| self.certain(id, topic)).collect();
        spans.sort();
        let mut reached = from;
        for (begins, ends) in spans {
            if begins > reached {
                break;
            }
            reached = reached.max(ends);
        }
        reached > to
    }

    /// Sessions of a member that were at a topic for all of a span, and those that may have been for some of it.
    pub(super) fn counts(&self, member: &str, topic: usize, (from, to): Span) -> (usize, usize) {
        let always =
            |id: &SessionId| self.certain(*id, topic).iter().any(|&(begins, ends)| begins <= from && ends > to);
        let ever =
            |id: &SessionId| self.possible(*id, topic).iter().any(|&(begins, ends)| begins <= to && ends >= from);
        let all: Vec<SessionId> = self.sessions_of(member).collect();
        (all.iter().filter(|id| always(id)).count(), all.iter().filter(|id| ever(id)).count())
    }

    /// The members that there ever were, each once.
    pub(super) fn members(&self) -> Vec<&str> {
        let mut members: Vec<_> = self.sessions.iter().map(|session| session.member.as_str()).collect();
        members.sort_unstable();
        members.dedup();
        members
    }
}
