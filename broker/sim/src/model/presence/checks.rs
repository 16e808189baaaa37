//! What was said of members, against what can have been: judged at the end.

use super::certain::{At, Span};
use super::{DeedId, Departure, Presence, Refusal, Violation};

/// An answer to `members`.
#[derive(Debug)]
pub struct Answered {
    /// Of which topic.
    pub topic: usize,
    /// When it was asked for.
    pub asked: At,
    /// When it came.
    pub heard: At,
    /// How many there are.
    pub count: u64,
    /// Those that are listed: name, the deed that said what it says of itself, with how many connections.
    pub listed: Vec<(String, Option<DeedId>, u64)>,
    /// Whether all that are listed are here.
    pub is_whole: bool,
}

impl Presence {
    // ---- what a watcher got

    /// Whether a deed says this of a member.
    ///
    /// # Errors
    /// It does not.
    pub fn check_said(&self, topic: usize, member: &str, deed: DeedId) -> Result<(), Violation> {
        let is_its = self
            .deeds
            .get(deed)
            .is_some_and(|deed| deed.topic == topic && deed.says() && self.sessions[deed.session].member == member);
        match is_its {
            true => Ok(()),
            false => {
                let evidence = format!("{member} at {topic}: deed {deed}, {:?}", self.deeds.get(deed));
                Err(Violation::new("what a member says of itself is what it said", evidence))
            }
        }
    }

    /// Whether something a member said is older than something else, for certain.
    #[must_use]
    pub fn is_older(&self, deed: DeedId, than: DeedId) -> bool {
        let (deed, than) = (&self.deeds[deed], &self.deeds[than]);
        let same = deed.session == than.session && deed.client == than.client && deed.from < than.from;
        same || deed.to.is_some_and(|to| to < than.from)
    }

    /// A watcher learned that a member is gone, or is there anew, after it had learned what this deed said.
    pub fn departed(&mut self, watcher: usize, topic: usize, member: &str, after: Option<DeedId>, what: String) {
        let to = self.mark();
        let from = after.map_or(At::default(), |deed| self.deeds[deed].from);
        self.departures.push(Departure { watcher, topic, member: member.to_owned(), from, to, what });
    }

    /// The most connections with which a member may be somewhere, and how often it may have come.
    #[must_use]
    pub fn entries(&self, topic: usize, member: &str) -> (usize, usize) {
        let of =
            |deed: &&super::Deed| deed.topic == topic && deed.enters() && self.sessions[deed.session].member == member;
        let mut sessions: Vec<_> = self.deeds.iter().filter(of).map(|deed| deed.session).collect();
        let entries = sessions.len();
        sessions.sort_unstable();
        sessions.dedup();
        (sessions.len(), entries)
    }

    /// `members` was answered.
    pub fn answered(&mut self, answer: Answered) {
        self.answers.push(answer);
    }

    // ---- the end

    /// Judges what is past.
    ///
    /// # Errors
    /// Something that cannot have been.
    pub fn settle(&self) -> Result<(), Violation> {
        for departure in &self.departures {
            let Departure { topic, member, from, to, .. } = departure;
            if self.covers(member, *topic, (*from, *to)) && !self.is_short {
                let spans: Vec<_> =
                    self.sessions_of(member).map(|id| (id, self.certain(id, *topic), &self.sessions[id])).collect();
                let Departure { watcher, what, .. } = departure;
                let evidence = format!("watcher {watcher}, {what}, {from:?} to {to:?}; for certain there: {spans:?}");
                return Err(Violation::new("a member is gone only if it may be", evidence));
            }
        }
        self.answers.iter().try_for_each(|answer| self.check_answer(answer))?;
        self.refusals.iter().try_for_each(|refusal| self.check_refusal(refusal))
    }

    fn check_answer(&self, answer: &Answered) -> Result<(), Violation> {
        let span = (answer.asked, answer.heard);
        let bad = |what: String| {
            Err(Violation::new("members are those between asked and answered", format!("{what}: {answer:?}")))
        };
        for (member, said, connections) in &answer.listed {
            let (least, most) = self.counts(member, answer.topic, span);
            if most == 0 || *connections < least.max(1) as u64 || *connections > most as u64 {
                return bad(format!("{member} with {least} to {most}"));
            }
            if let Some(said) = said
                && let Some(newer) = self.newer(answer.topic, member, *said, answer.asked)
            {
                return bad(format!("{member}: {newer} is newer"));
            }
        }
        let (mut least, mut most) = (0, 0);
        for member in self.members() {
            let (always, ever) = self.counts(member, answer.topic, span);
            least += u64::from(always > 0);
            most += u64::from(ever > 0);
            let is_listed = answer.listed.iter().any(|(name, ..)| name == member);
            if always > 0 && !is_listed && answer.is_whole && !self.is_short {
                return bad(format!("{member} is missing"));
            }
        }
        if answer.count < least || answer.count > most {
            return bad(format!("{least} to {most}"));
        }
        Ok(())
    }

    /// What a member had said after that, for certain, before a moment.
    pub(super) fn newer(&self, topic: usize, member: &str, said: DeedId, before: At) -> Option<DeedId> {
        let after = self.deeds[said].to?;
        let is_newer = |deed: &super::Deed| {
            let was_said = deed.says() && deed.from > after && deed.to.is_some_and(|to| to <= before);
            was_said && deed.topic == topic && self.sessions[deed.session].member == member
        };
        self.deeds.iter().position(is_newer)
    }

    fn check_refusal(&self, refusal: &Refusal) -> Result<(), Violation> {
        let Refusal { session, client, topic, from, to } = *refusal;
        let bad = |property| {
            Err(Violation::new(property, format!("{refusal:?}, {:?}, {:?}", self.sessions[session], self.deeds)))
        };
        let Some(topic) = topic else {
            return match self.kept_until(session) > to {
                true => bad("a session that waits is given to who had it"),
                false => Ok(()),
            };
        };
        let is_its = self.sessions[session].claims.iter().all(|claim| claim.client == client);
        let was_there = |&(begins, ends): &Span| begins <= from && ends > to;
        match is_its && self.certain(session, topic).iter().any(was_there) {
            true => bad("who has entered can update and leave"),
            false => Ok(()),
        }
    }
}
