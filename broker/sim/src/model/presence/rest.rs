//! What must be true when all is quiet: of what watchers know, of counts, and of sessions.

use std::collections::BTreeMap;

use super::{At, DeedId, Presence, SessionId, Violation};

/// What a watcher was shown of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The deed that said what it says of itself.
    pub said: Option<DeedId>,
    /// With how many connections it is there.
    pub connections: u64,
    /// Since when, as it is said.
    pub since: u64,
}

/// All that a watcher knows of a topic.
#[derive(Debug)]
pub struct Viewed<'a> {
    /// Who watches.
    pub watcher: usize,
    /// Which topic.
    pub topic: usize,
    /// How many it may list.
    pub members_max: usize,
    /// The members.
    pub members: &'a BTreeMap<String, Shown>,
}

/// What `$count/{topic}` says, and how many subscribers there are at least and at most.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Of which topic.
    pub topic: usize,
    /// As it says.
    pub subscribers: u64,
    /// As it says.
    pub members: u64,
    /// As it is.
    pub between: (u64, u64),
}

impl Presence {
    /// All is quiet. These clients are connected; whoever else had a session has it no longer, if `graces_are_over`.
    ///
    /// # Errors
    /// Two connections have one session.
    pub fn rests(&mut self, is_connected: impl Fn(usize) -> bool, graces_are_over: bool) -> Result<(), Violation> {
        let connected: Vec<usize> = self.guests.keys().copied().filter(|client| is_connected(*client)).collect();
        let rested = self.mark();
        self.rested = rested;
        connected.iter().for_each(|client| self.alive(*client, rested));
        for session in &mut self.sessions {
            let here = session.owners.iter().filter(|owner| connected.contains(&owner.client)).count();
            if here > 1 {
                let evidence = format!("{session:?}");
                return Err(Violation::new("a session goes on over one connection", evidence));
            }
            let is_over = session.ended || (graces_are_over && here == 0);
            if is_over {
                session.over.get_or_insert(rested);
            }
        }
        Ok(())
    }

    /// Sessions that these clients can come back to.
    #[must_use]
    pub fn resumable(&self, is_connected: impl Fn(usize) -> bool) -> usize {
        let has = |session: &&super::Session| {
            session.secret.is_some() && session.owners.iter().any(|owner| is_connected(owner.client))
        };
        self.sessions.iter().filter(has).count()
    }

    /// Sessions that are over, and what they were resumed with.
    pub fn past(&self) -> impl Iterator<Item = SessionId> {
        self.sessions
            .iter()
            .enumerate()
            .filter(|(_, session)| session.over.is_some() && session.secret.is_some())
            .map(|(id, _)| id)
    }

    /// With what a session is resumed.
    #[must_use]
    pub fn secret(&self, session: SessionId) -> Option<&str> {
        self.sessions[session].secret.as_deref()
    }

    /// Who is at a topic for certain, and who possibly, with how many connections.
    fn present(&self, topic: usize) -> BTreeMap<&str, (usize, usize)> {
        let now = (self.rested, self.rested);
        // What was true until this moment is true at it.
        let here = At(self.rested.0, self.rested.1 - 1);
        let counts = |member| {
            let certain = self.counts(member, topic, (here, here)).0;
            (member, (certain, self.counts(member, topic, now).1))
        };
        self.members().into_iter().map(counts).filter(|(_, (_, most))| *most > 0).collect()
    }

    /// What a watcher knows, now that all is quiet.
    ///
    /// # Errors
    /// It is not what is true.
    pub fn check_view(&self, view: &Viewed<'_>) -> Result<(), Violation> {
        let present = self.present(view.topic);
        let bad = |what: String| {
            Err(Violation::new("a watcher ends with who is there", format!("{what}; {view:?}, there: {present:?}")))
        };
        for (member, shown) in view.members {
            let Some(&(least, most)) = present.get(member.as_str()) else { return bad(format!("{member} is gone")) };
            if (shown.connections < least.max(1) as u64 && !self.is_short) || shown.connections > most as u64 {
                return bad(format!("{member} is there with {least} to {most} connections"));
            }
            let newer = shown.said.and_then(|said| self.newer(view.topic, member, said, self.rested));
            if let Some(newer) = newer.filter(|_| !self.is_short) {
                return bad(format!("{member} has said something newer: {newer}, {:?}", self.deeds[newer]));
            }
            if shown.said.is_none() && self.has_said(view.topic, member) && !self.is_short {
                return bad(format!("{member} has said something of itself"));
            }
        }
        if view.members.len() > view.members_max {
            return bad("more are listed than may be".to_owned());
        }
        let certain = || present.iter().filter(|(_, (least, _))| *least > 0);
        let missing = certain().find(|(member, _)| !view.members.contains_key(**member));
        let is_full = view.members.len() == view.members_max;
        match missing.filter(|_| !is_full && !self.is_short) {
            Some((member, _)) => bad(format!("{member} is missing")),
            None => Ok(()),
        }
    }

    /// Whether a session of a member that is there for certain has said something since it entered.
    fn has_said(&self, topic: usize, member: &str) -> bool {
        let here = At(self.rested.0, self.rested.1 - 1);
        self.sessions_of(member).any(|id| {
            let spans = self.certain(id, topic);
            let now = spans.iter().filter(|(begins, ends)| *begins <= here && *ends > here).map(|(begins, _)| *begins);
            let since = now.min();
            let said = |deed: &&super::Deed| {
                deed.session == id && deed.topic == topic && deed.says() && deed.to.is_some_and(|to| Some(to) >= since)
            };
            since.is_some() && self.deeds.iter().any(|deed| said(&deed))
        })
    }

    /// What a count says, now that all is quiet.
    ///
    /// # Errors
    /// It is not what is true.
    pub fn check_count(&self, counted: Counted) -> Result<(), Violation> {
        let present = self.present(counted.topic);
        let least = present.values().filter(|(least, _)| *least > 0).count() as u64;
        let (fewest, most) = counted.between;
        let is_right =
            (least..=present.len() as u64).contains(&counted.members) && (fewest..=most).contains(&counted.subscribers);
        match is_right || self.is_short {
            true => Ok(()),
            false => Err(Violation::new("a count ends with what is true", format!("{counted:?}, there: {present:?}"))),
        }
    }

    /// How many sessions there were.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}
