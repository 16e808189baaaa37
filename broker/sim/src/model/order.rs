//! One order per topic: who follows whom, and which place belongs to whom.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{MessageId, Violation};
use crate::payload::Kind;

/// A message's place in its topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The life of the topic's log.
    pub epoch: u64,
    /// From 1.
    pub offset: u64,
}

/// What is known of all topics' orders.
#[derive(Default, Debug)]
pub(super) struct Orders {
    /// After whom, with which empty messages between (`None`: not known), comes who.
    after: FxHashMap<MessageId, Step>,
    before: FxHashMap<MessageId, MessageId>,
    offset_of: FxHashMap<MessageId, u64>,
    epoch_of: FxHashMap<MessageId, u64>,
    at: BTreeMap<(usize, Position), MessageId>,
    /// Who came before whom, with others between them perhaps.
    earlier: Vec<(MessageId, MessageId)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    empties: Option<Vec<Kind>>,
    next: MessageId,
}

const ONE_ORDER: &str = "all subscribers of a topic see the same order";
const ONE_PLACE: &str = "a message has one place, and a place one message";

impl Orders {
    /// Somebody saw `next` right after `previous`, but for empty messages.
    pub(super) fn follows(
        &mut self,
        previous: MessageId,
        empties: Option<&[Kind]>,
        next: MessageId,
        who: &str,
    ) -> Result<(), Violation> {
        let step = Step { empties: empties.map(<[Kind]>::to_vec), next };
        let known = self.after.entry(previous).or_insert_with(|| step.clone());
        if known.next != next {
            let evidence = format!("after ~{previous}~ {who} saw ~{next}~, another subscriber ~{}~", known.next);
            return Err(Violation::new(ONE_ORDER, evidence));
        }
        match (&known.empties, step.empties) {
            (Some(known), Some(seen)) if *known != seen => {
                let evidence = format!(
                    "between ~{previous}~ and ~{next}~ {who} saw empty messages {seen:?}, another subscriber {known:?}"
                );
                return Err(Violation::new(ONE_ORDER, evidence));
            }
            (None, Some(seen)) => known.empties = Some(seen),
            _ => {}
        }
        let known = *self.before.entry(next).or_insert(previous);
        if known != previous {
            let evidence = format!("before ~{next}~ {who} saw ~{previous}~, another subscriber ~{known}~");
            return Err(Violation::new(ONE_ORDER, evidence));
        }
        Ok(())
    }

    /// Somebody saw `previous` before `next`, and perhaps not what is between them.
    pub(super) fn precedes(&mut self, previous: MessageId, next: MessageId) {
        self.earlier.push((previous, next));
    }

    /// Whoever was seen before another one has the lower place.
    pub(super) fn check_earlier(&self) -> Result<(), Violation> {
        for &(previous, next) in &self.earlier {
            if let (Some(before), Some(behind)) = (self.place_of(previous), self.place_of(next))
                && before >= behind
            {
                let evidence = format!("~{previous}~ at {before:?} came before ~{next}~ at {behind:?}");
                return Err(Violation::new(ONE_ORDER, evidence));
            }
        }
        Ok(())
    }

    /// `id` was seen at `offset`, in whatever epoch.
    pub(super) fn offset(&mut self, id: MessageId, offset: u64, name: impl Fn() -> String) -> Result<(), Violation> {
        let known = *self.offset_of.entry(id).or_insert(offset);
        if known != offset {
            let evidence = format!("{} is at {offset}, and elsewhere at {known}", name());
            return Err(Violation::new(ONE_PLACE, evidence));
        }
        Ok(())
    }

    /// `id` has this place.
    pub(super) fn place(
        &mut self,
        topic: usize,
        place: Position,
        id: MessageId,
        name: impl Fn() -> String,
    ) -> Result<(), Violation> {
        let known = *self.at.entry((topic, place)).or_insert(id);
        if known != id {
            return Err(Violation::new(ONE_PLACE, format!("{} is at {place:?}, where ~{known}~ is", name())));
        }
        let known = *self.epoch_of.entry(id).or_insert(place.epoch);
        if known != place.epoch {
            let evidence = format!("{} is of epoch {:x}, and elsewhere of {known:x}", name(), place.epoch);
            return Err(Violation::new(ONE_PLACE, evidence));
        }
        self.offset(id, place.offset, name)
    }

    /// Which message has a place, if that is known.
    pub(super) fn at(&self, topic: usize, place: Position) -> Option<MessageId> {
        self.at.get(&(topic, place)).copied()
    }

    /// The place of a message, if it is known.
    pub(super) fn place_of(&self, id: MessageId) -> Option<Position> {
        Some(Position { epoch: *self.epoch_of.get(&id)?, offset: *self.offset_of.get(&id)? })
    }

    /// The messages known of a topic from one offset to before another.
    pub(super) fn range(&self, topic: usize, epoch: u64, from: u64, to: u64) -> Vec<(u64, MessageId)> {
        let place = |offset| (topic, Position { epoch, offset });
        if from >= to {
            return Vec::new();
        }
        self.at.range(place(from)..place(to)).map(|(&(_, place), &id)| (place.offset, id)).collect()
    }

    /// The messages of a topic whose places are known, in order.
    pub(super) fn all(&self, topic: usize) -> impl Iterator<Item = (Position, MessageId)> {
        let place = |epoch, offset| (topic, Position { epoch, offset });
        self.at.range(place(0, 0)..=place(u64::MAX, u64::MAX)).map(|(&(_, place), &id)| (place, id))
    }

    /// Whether every message between two offsets, the second included, is known.
    pub(super) fn is_whole(&self, topic: usize, epoch: u64, after: u64, to: u64) -> bool {
        after >= to || self.range(topic, epoch, after + 1, to + 1).len() as u64 == to - after
    }

    /// Steps that lead around in a circle contradict each other, although no two of them do.
    pub(super) fn check_circles(&self) -> Result<(), Violation> {
        let mut walked = 0;
        let mut starts: Vec<_> = self.after.keys().copied().filter(|id| !self.before.contains_key(id)).collect();
        starts.sort_unstable();
        for start in starts {
            let mut at = start;
            while let Some(step) = self.after.get(&at) {
                walked += 1;
                at = step.next;
            }
        }
        if walked == self.after.len() {
            return Ok(());
        }
        Err(Violation::new(ONE_ORDER, format!("{} steps form a circle", self.after.len() - walked)))
    }
}
