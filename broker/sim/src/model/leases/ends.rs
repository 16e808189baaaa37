//! How leases end with their sessions, and what wills have to do with that.

use super::super::MessageId;
use super::super::presence::{At, Presence, SessionId};
use super::{Ask, Got, Leases};

impl Leases {
    /// The last lease of a session on a topic, if it did not give it back.
    fn last_of(&self, topic: usize, session: SessionId) -> Option<u64> {
        let of_topic = self.grants.range((topic, 0)..(topic + 1, 0)).rev();
        let (&(_, number), _) = { of_topic }.find(|(_, grant)| grant.session == session)?;
        let gives_back = |command: &super::Command| {
            let asked = matches!(command.ask, Ask::Release { number: asked } if asked == number);
            command.topic == topic && asked && command.got != Some(Got::NotFound)
        };
        (!self.commands.iter().any(gives_back)).then_some(number)
    }

    /// The lease that was given when a session ended that still had the one before: its number, and when that was known.
    pub(in crate::model) fn next_after_the_end(&self, topic: usize, session: SessionId) -> Option<(u64, At)> {
        let number = self.last_of(topic, session)?;
        let (&(_, next), grant) = self.grants.range((topic, number + 1)..(topic + 1, 0)).next()?;
        (grant.heard < self.lasts(topic, number)).then_some((next, grant.heard))
    }

    /// Whether a client had the lease of a topic when its connection ended, and its session had it until that was over.
    pub(in crate::model) fn held_to_the_end(
        &self,
        topic: usize,
        (client, session): (usize, SessionId),
        presence: &mut Presence,
    ) -> bool {
        let Some(number) = self.last_of(topic, session) else { return false };
        let is_own = self.commands[self.grants[&(topic, number)].command].client == client;
        let over = self.superseded(topic, number).unwrap_or_else(|| presence.mark());
        is_own && over < self.lasts(topic, number)
    }

    /// Whether something was written on a topic whose lease is taken after this moment.
    pub(in crate::model) fn is_written_after(&self, id: MessageId, moment: At) -> bool {
        self.published.get(&id).is_some_and(|published| published.from > moment)
    }

    /// Under which number something was published on an exclusive topic.
    pub(in crate::model) fn number_of(&self, id: MessageId) -> Option<u64> {
        self.published.get(&id).filter(|published| published.is_exclusive)?.number
    }

    /// Whether a session may have had the lease of a topic between those by two numbers, or by one of them.
    pub(in crate::model) fn may_lie_between(
        &self,
        topic: usize,
        session: SessionId,
        (from, to): (Option<u64>, Option<u64>),
    ) -> bool {
        let numbers = (topic, from.unwrap_or(0))..=(topic, to.unwrap_or(u64::MAX));
        let unheard = |command: &super::Command| command.session == session && self.may_have_got(command, topic);
        self.grants.range(numbers).any(|(_, grant)| grant.session == session) || self.commands.iter().any(unheard)
    }
}
