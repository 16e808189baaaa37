//! How the subscriptions of one client begin: which of them what came belongs to.

use super::{Arrival, Stream, Sub, SubState};
use crate::model::begin::{Beginning, Start};
use crate::model::{MessageId, Position, Tick, Violation, matches};
use crate::rules::Policy;

/// Where subscriptions begin.
impl Stream {
    /// The first message without the flag `state` is where the beginning said.
    pub(super) fn goes_live(&mut self, topic: usize, name: &str, arrival: &Arrival<'_>) -> Result<(), Violation> {
        let Self { subs, segments, name: who, .. } = self;
        let mut here = subs.iter_mut().filter(|(filter, _)| matches(filter, name)).map(|(_, sub)| sub);
        let (Some(sub), None) = (here.next(), here.next()) else { return Ok(()) };
        let begun = &mut sub.begun;
        if let Some(offset) = arrival.offset.filter(|_| !begun.asked.is_filter() && !begun.purged) {
            begun.got.push(offset);
        }
        if arrival.tags.is_none() || !begun.alone || begun.asked.is_filter() || begun.live {
            return Ok(());
        }
        let due = begun.first_live(who)?;
        segments.entry(topic).or_default().next_offset = Some(due);
        Ok(())
    }

    /// State came. Returns the topic's epoch, if it is certain.
    pub(in crate::model) fn shown(
        &mut self,
        topic: usize,
        id: MessageId,
        offset: u64,
        up_to: bool,
        topics: &[String],
    ) -> Result<Option<u64>, Violation> {
        let Self { subs, name: who, .. } = self;
        let name = &topics[topic];
        let all = subs.iter().filter(|(filter, _)| matches(filter, name)).count();
        let mut begun: Vec<_> = subs
            .iter_mut()
            .filter(|(filter, sub)| matches(filter, name) && sub.is_confirmed() && sub.begun.ended.is_none())
            .filter(|(_, sub)| sub.begun.asked.state || sub.begun.expects_end())
            .map(|(_, sub)| sub)
            .collect();
        if begun.is_empty() {
            let evidence = format!("{who} was shown ~{id}~ of {name:?} at {offset}, {all} subscriptions match");
            return Err(Violation::new("state is for those who want it, behind ok", evidence));
        }
        let epoch = match (&begun[..], all) {
            ([sub], 1) => match sub.state {
                SubState::Confirmed { epoch } => epoch,
                SubState::Pending => None,
            },
            _ => None,
        };
        let many = begun.len() > 1;
        for sub in &mut begun {
            let alone = sub.begun.alone;
            sub.begun.alone &= !many;
            sub.begun.shown(topic, id, offset, up_to, who)?;
            sub.begun.alone = alone;
        }
        Ok(epoch)
    }

    fn begun(&mut self, filter: &str) -> Option<&mut Sub> {
        self.subs.get_mut(filter).filter(|sub| sub.is_confirmed())
    }

    pub(in crate::model) fn state_ended(
        &mut self,
        filter: &str,
        offset: Option<u64>,
        now: Tick,
        topics: &[String],
    ) -> Result<(), Violation> {
        let name = self.name.clone();
        let Some(sub) = self.begun(filter) else {
            return Err(Violation::new("state ends once, where it is asked for", format!("{name}: of {filter:?}")));
        };
        sub.begun.end(offset, now, &name)?;
        let due = sub.begun.due;
        if sub.begun.alone
            && !sub.begun.asked.is_filter()
            && let Some(topic) = topics.iter().position(|topic| topic == filter)
        {
            self.segments.entry(topic).or_default().next_offset = Some(due);
        }
        Ok(())
    }

    pub(in crate::model) fn gap(
        &mut self,
        topic: &str,
        from: u64,
        to: u64,
        topics: &[String],
    ) -> Result<(), Violation> {
        let name = self.name.clone();
        debug_assert!(topics.iter().any(|known| known == topic), "a topic of the run");
        match self.begun(topic) {
            Some(sub) => sub.begun.gap(from, to, &name),
            None => Err(Violation::new("a gap is what is missing", format!("{name}: of {topic:?}"))),
        }
    }

    /// Beginnings of all its subscriptions, those that ended too.
    pub(in crate::model) fn beginnings(&self) -> impl Iterator<Item = &Beginning> {
        let here = self.subs.values().filter(|sub| sub.is_confirmed()).map(|sub| &sub.begun);
        self.over.iter().chain(here)
    }

    /// Whether everything must have come that was owed to it.
    pub(in crate::model) fn is_owed(&self) -> bool {
        self.live && !self.told_to_go
    }

    /// Whether a subscription is in force.
    pub(in crate::model) fn has(&self, filter: &str) -> bool {
        self.subs.get(filter).is_some_and(Sub::is_confirmed)
    }

    /// Whether a subscription asks for the newest messages.
    pub(in crate::model) fn asks_for_last(&self, filter: &str) -> bool {
        self.subs.get(filter).is_some_and(|sub| matches!(sub.begun.asked.start, Start::Last(_)))
    }

    /// Those that are in force.
    pub(in crate::model) fn filters(&self) -> impl Iterator<Item = &str> {
        self.subs.iter().filter(|(_, sub)| sub.is_confirmed()).map(|(filter, _)| filter.as_str())
    }

    /// The subscription that matches a topic, if no other one of the client does or did.
    pub(in crate::model) fn only_sub(&mut self, name: &str) -> Option<&mut Sub> {
        let mut here = self.subs.iter_mut().filter(|(filter, _)| matches(filter, name)).map(|(_, sub)| sub);
        let (Some(sub), None) = (here.next(), here.next()) else { return None };
        Some(sub).filter(|sub| sub.begun.alone && sub.is_confirmed())
    }

    pub(in crate::model) fn policy_of(&self, filter: &str) -> Option<Policy> {
        self.subs.get(filter).map(|sub| sub.policy)
    }

    pub(in crate::model) fn covered_since(&self, topic: usize) -> Option<Tick> {
        self.segments.get(&topic)?.covered_since
    }

    pub(in crate::model) fn has_seen(&self, id: MessageId) -> bool {
        self.seen.contains(&id)
    }

    /// Whether a message came as state.
    pub(in crate::model) fn was_shown(&self, id: MessageId) -> bool {
        self.beginnings().any(|begun| begun.state.iter().any(|&(_, shown, _)| shown == id))
    }

    /// Its position in each topic that one subscription alone covers.
    pub(in crate::model) fn positions(&self, topics: &[String], filters: Option<&[String]>) -> Vec<(usize, Position)> {
        let mut positions = Vec::new();
        for (filter, sub) in &self.subs {
            let wanted = filters.is_none_or(|filters| filters.contains(filter)) && sub.begun.alone;
            let (true, SubState::Confirmed { epoch: Some(epoch) }) = (wanted, &sub.state) else { continue };
            let Some(topic) = topics.iter().position(|topic| topic == filter) else { continue };
            let begun = &sub.begun;
            let unsure = (begun.expects_end() && begun.ended.is_none()) || (begun.recovered() && !begun.live);
            let next = match self.segments.get(&topic).and_then(|segment| segment.next_offset) {
                Some(next) if begun.live => next,
                _ if begun.ended.is_some() => begun.due,
                _ => continue,
            };
            if !unsure || begun.ended.is_some() {
                positions.push((topic, Position { epoch: *epoch, offset: next - 1 }));
            }
        }
        positions
    }
}
