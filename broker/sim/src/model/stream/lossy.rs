//! What a client need not get: messages that a policy leaves out.
//!
//! With `skip` a client of `ringyard.v1` is notified which, and a raw one gets the newest at least. With `latest` a message is left
//! out for a newer one of its topic and key only.

use super::{Segment, Stream, Sub, SubState};
use crate::model::{Message, Position, Tick, Violation, matches};
use crate::rules::Slow;

/// Whether something may be left out of a topic's messages.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Lossy {
    /// Messages that were far behind.
    pub(super) skip: bool,
    /// Messages that were superseded.
    pub(super) latest: bool,
}

/// What a client got that is newer than a message.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in crate::model) struct Newer {
    /// Something of its topic.
    pub(in crate::model) of_topic: bool,
    /// Something of its key as well.
    pub(in crate::model) of_key: bool,
}

/// Messages of a topic of which a gap said that they will not come.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Left {
    pub(in crate::model) topic: usize,
    /// Where it is known.
    pub(in crate::model) epoch: Option<u64>,
    pub(in crate::model) from: u64,
    pub(in crate::model) to: u64,
}

impl Lossy {
    pub(super) fn of<'a>(subs: impl IntoIterator<Item = &'a Sub>) -> Self {
        subs.into_iter().fold(Self::default(), |sum, sub| Self {
            skip: sum.skip || sub.policy.slow == Slow::Skip,
            latest: sum.latest || sub.policy.slow == Slow::Latest,
        })
    }

    pub(super) fn add(&mut self, other: Self) {
        self.skip |= other.skip;
        self.latest |= other.latest;
    }

    pub(super) fn any(self) -> bool {
        self.skip || self.latest
    }
}

const TOLD: &str = "a gap is what is missing";

/// What is left out.
impl Stream {
    /// Subscriptions that match a topic, and may leave something out.
    fn lossy_here(&self, name: &str) -> Lossy {
        Lossy::of(self.subs.iter().filter(|(filter, _)| matches(filter, name)).map(|(_, sub)| sub))
    }

    /// It goes on behind `to`.
    pub(in crate::model) fn skipped(&mut self, topic: usize, name: &str, from: u64, to: u64) -> Result<(), Violation> {
        let who = &self.name;
        let bad = |what: &str| Err(Violation::new(TOLD, format!("{who}, {name:?}, {from} to {to}: {what}")));
        let mut here: Vec<_> =
            self.subs.iter_mut().filter(|(filter, _)| matches(filter, name)).map(|(_, sub)| sub).collect();
        if !here.iter().any(|sub| sub.is_confirmed() && sub.policy.slow == Slow::Skip) {
            return bad("nothing may be skipped");
        }
        if to < from {
            return bad("it ends before it begins");
        }
        let segment = self.segments.entry(topic).or_default();
        let mut epoch = None;
        if let [sub] = &mut here[..]
            && let SubState::Confirmed { epoch: known } = sub.state
        {
            epoch = known;
            if sub.begun.alone && !sub.begun.asked.is_filter() && !sub.begun.live {
                segment.next_offset = Some(sub.begun.first_live(who)?);
            }
        }
        let anew = epoch.is_none() && from == 1;
        let conflated = |due: u64| segment.lossy.latest && (from > due || epoch.is_none());
        if let Some(due) = segment.next_offset.filter(|due| *due != from && !anew && !conflated(*due)) {
            return bad(&format!("{due} was next"));
        }
        segment.next_offset = Some(to + 1);
        segment.cut();
        self.left.push(Left { topic, epoch, from, to });
        Ok(())
    }

    /// A topic was purged.
    pub(in crate::model) fn reset(&mut self, topic: usize, name: &str, epoch: u64) -> Result<(), Violation> {
        let who = &self.name;
        let bad = |what: &str| {
            let property = "every live subscription learns of a purge, once";
            Err(Violation::new(property, format!("{who}, of {name:?}, {epoch:x}: {what}")))
        };
        let mut known = None;
        let mut confirmed = 0;
        for (_, sub) in self.subs.iter_mut().filter(|(filter, _)| matches(filter, name)) {
            let SubState::Confirmed { epoch: before } = &mut sub.state else { continue };
            confirmed += 1;
            if let Some(before) = before {
                known = known.max(Some(*before));
                *before = epoch;
                (sub.begun.live, sub.begun.due, sub.begun.purged) = (true, 1, true);
            }
        }
        if confirmed == 0 {
            return bad("it does not subscribe");
        }
        if !self.resets.insert((topic, epoch)) || known.is_some_and(|known| known >= epoch) {
            return bad("a second time, or too late");
        }
        let segment = self.segments.entry(topic).or_default();
        (segment.next_offset, segment.epoch) = (Some(1), known.map(|_| epoch));
        Ok(())
    }

    /// Whether it learned of a purge.
    pub(in crate::model) fn has_learned(&self, topic: usize, epoch: u64) -> bool {
        self.resets.contains(&(topic, epoch))
    }

    /// Subscriptions of these filters end. Notes until when something may have been left out.
    pub(super) fn end_losses(&mut self, filters: &[String], topics: &[String], now: Tick) {
        for (topic, name) in topics.iter().enumerate() {
            let was = self.lossy_here(name);
            let others = self.subs.iter().filter(|(filter, _)| matches(filter, name) && !filters.contains(filter));
            if was.any()
                && !Lossy::of(others.map(|(_, sub)| sub)).any()
                && let Some(segment) = self.segments.get_mut(&topic)
            {
                segment.lossy_until = Some(now);
            }
        }
    }

    /// Whether a message that it did not get may have been left out. `newer`: what it got that is newer.
    pub(in crate::model) fn may_lack(
        &self,
        message: &Message,
        name: &str,
        place: Option<Position>,
        newer: Newer,
    ) -> bool {
        let Some(segment) = self.segments.get(&message.topic) else { return false };
        let over = !self.lossy_here(name).any()
            && segment.lossy_until.is_some_and(|until| message.written.is_some_and(|written| written > until));
        if over || (segment.lossy.latest && newer.of_key) {
            return !over;
        }
        if !segment.lossy.skip {
            return false;
        }
        if !self.notified {
            // Of a filter's topics, one with nothing new is skipped with the others.
            return newer.of_topic || self.subs.keys().any(|filter| filter != name);
        }
        self.left.iter().any(|left| {
            left.topic == message.topic
                && place.is_none_or(|place| {
                    (left.from..=left.to).contains(&place.offset) && left.epoch.is_none_or(|epoch| epoch == place.epoch)
                })
        })
    }
}

impl Segment {
    /// What comes next need not follow on what came before.
    pub(super) fn cut(&mut self) {
        self.seq_of.clear();
        self.empties.clear();
        self.last = None;
    }
}
