//! Leases, wills and the order of messages together: what is published under which lease comes when, and what is owed of wills.

use super::{MessageId, Model, Position, Violation};

/// What [`Model::settle_leases`] found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Judged {
    /// How often somebody who waited for a lease got it before somebody who came later.
    pub turns: u64,
    /// Wills that did not come because their clients came back.
    pub cancelled: u64,
    /// Wills that were compared with what the next holders published.
    pub before_next: u64,
}

impl Model {
    /// All is quiet, and graces are over: wills of those who are gone have been published. Returns how many that are for certain.
    pub fn expect_wills(&mut self, is_connected: impl Fn(usize) -> bool, is_short: bool) -> u64 {
        let mut certain = 0;
        for (id, client, _) in self.wills.due(is_connected, &self.presence) {
            let message = &self.messages[id as usize];
            let (topic, rule) = (message.topic, self.rule(message.topic));
            let may_be_refused = rule.is_keyed() || rule.retains_always() || message.options.retain || is_short;
            let session = self.presence.session_of(client).expect("who has a will has a session");
            let has_lease =
                !rule.exclusive || self.leases.held_to_the_end(topic, (client, session), &mut self.presence);
            if !may_be_refused && has_lease {
                self.not_refused(id);
                certain += 1;
            }
        }
        certain
    }

    /// Judges leases and wills, at the end.
    ///
    /// # Errors
    /// Something that cannot have been.
    pub fn settle_leases(&mut self) -> Result<Judged, Violation> {
        let turns = self.leases.settle(&self.presence)?;
        let cancelled = self.wills.settle(&self.presence)?;
        let mut before_next = 0;
        for topic in 0..self.topics.len() {
            let placed: Vec<(Position, MessageId)> = self.orders.all(topic).collect();
            if self.rule(topic).exclusive {
                self.leases.check_order(&placed)?;
            }
            before_next += self.check_wills_among(topic, &placed)?;
        }
        Ok(Judged { turns, cancelled, before_next })
    }

    /// The will of who had the lease comes before what is published once the next holder has it.
    fn check_wills_among(&self, topic: usize, placed: &[(Position, MessageId)]) -> Result<u64, Violation> {
        let mut checked = 0;
        for &(place, id) in placed {
            let Some(client) = self.wills.client_of(id) else { continue };
            let Some(session) = self.presence.session_of(client) else { continue };
            let bad = |what: String| {
                let evidence = format!("{} at {place:?}: {what}", self.describe(id));
                Err(Violation::new("the will of who had the lease comes before the next holder", evidence))
            };
            let before = || placed.iter().filter(|(other, _)| other.epoch == place.epoch && *other < place);
            let after = placed.iter().filter(|(other, _)| other.epoch == place.epoch && *other > place);
            if let Some((next, heard)) = self.leases.next_after_the_end(topic, session) {
                checked += 1;
                if let Some(late) = before().find(|(_, id)| self.leases.is_written_after(*id, heard)) {
                    return bad(format!("behind {late:?}, which was written when {next} was given"));
                }
            }
            let number = |&(_, id): &(Position, MessageId)| self.leases.number_of(id);
            let between = (before().filter_map(number).max(), after.filter_map(number).min());
            if self.rule(topic).exclusive && !self.leases.may_lie_between(topic, session, between) {
                return bad(format!("between {between:?}, of which session {session} has no lease"));
            }
        }
        Ok(checked)
    }
}
