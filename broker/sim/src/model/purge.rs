//! Topics that operators purge: every live subscription learns of it, between the last message of the old epoch and the first
//! one of the new, and what the topic remembered is gone.

use super::{Model, Position, StreamId, Tick, Violation};

/// A purge, as the operator knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purge {
    topic: usize,
    /// When it was ordered, and at which time in nanoseconds.
    ordered: (Tick, u64),
    /// When it was answered, and which epoch began; none: the topic was not kept.
    answered: Option<(Tick, Option<u64>)>,
}

const ANNOUNCED: &str = "every live subscription learns of a purge, once";

impl Model {
    /// A topic is about to be purged. Returns the purge's number.
    pub fn purging(&mut self, topic: usize) -> usize {
        let ordered = (self.tick(), self.past.time);
        self.past.purges.push(Purge { topic, ordered, answered: None });
        self.past.purges.len() - 1
    }

    /// It was: the epoch that began, if the topic was kept.
    ///
    /// # Errors
    /// The epoch is none that could begin then.
    pub fn purged(&mut self, number: usize, epoch: Option<u64>) -> Result<(), Violation> {
        let now = self.tick();
        let Purge { topic, ordered, .. } = self.past.purges[number];
        self.past.purges[number].answered = Some((now, epoch));
        let Some(epoch) = epoch else { return Ok(()) };
        let before = self.messages.iter().filter(|message| message.topic == topic).find(|message| {
            message.acked.is_some_and(|acked| acked < ordered.0)
                && self.orders.place_of(message.id).is_some_and(|place| place.epoch >= epoch)
        });
        match before {
            None => Ok(()),
            Some(message) => {
                let evidence = format!("{} is before the purge that begins {epoch:x}", self.describe(message.id));
                Err(Violation::new("a purge begins an epoch", evidence))
            }
        }
    }

    /// A client learned of a purge.
    ///
    /// # Errors
    /// There was none, or it has learned of it before.
    pub fn reset(&mut self, stream: StreamId, name: &str, place: Position) -> Result<(), Violation> {
        let topic = self.topics.iter().position(|topic| topic == name);
        let is_true = |purge: &&Purge| {
            Some(purge.topic) == topic && purge.answered.is_none_or(|(_, epoch)| epoch == Some(place.epoch))
        };
        let (Some(topic), Some(_), 0) = (topic, self.past.purges.iter().find(is_true), place.offset) else {
            let evidence = format!("{} was told of {place:?} of {name:?}", self.streams[stream].name);
            return Err(Violation::new(ANNOUNCED, evidence));
        };
        self.streams[stream].reset(topic, name, place.epoch)
    }

    /// Whether a place of a topic may belong to what a purge ended that was ordered by this time, in nanoseconds.
    pub(super) fn may_be_purged(&self, topic: usize, place: Option<Position>, now: u64) -> bool {
        self.past.purges.iter().any(|purge| {
            let began = purge.answered.and_then(|(_, epoch)| epoch);
            purge.topic == topic
                && purge.ordered.1 <= now
                && place.zip(began).is_none_or(|(place, began)| place.epoch < began)
        })
    }

    /// Whether a place of a topic belongs to what a purge ended that was answered before `tick`.
    pub(super) fn is_purged(&self, topic: usize, place: Position, tick: Tick) -> bool {
        self.past.purges.iter().any(|purge| {
            let ended =
                purge.answered.is_some_and(|(at, epoch)| at < tick && epoch.is_some_and(|began| place.epoch < began));
            purge.topic == topic && ended
        })
    }

    /// At the end: everybody who subscribed all the time has learned of it.
    pub(super) fn check_purges(&self) -> Result<(), Violation> {
        for purge in &self.past.purges {
            let Some((answered, Some(epoch))) = purge.answered else { continue };
            for stream in self.streams.iter().filter(|stream| stream.live && stream.notified) {
                let gone = stream.told_to_go && self.window.is_some_and(|window| answered > window);
                let since = stream.covered_since(purge.topic).is_some_and(|since| since < purge.ordered.0);
                if since && !gone && !stream.has_learned(purge.topic, epoch) {
                    let evidence = format!("{}, of {purge:?}", stream.name);
                    return Err(Violation::new(ANNOUNCED, evidence));
                }
            }
        }
        Ok(())
    }
}
