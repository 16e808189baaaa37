//! At the end, with the list of each topic at hand: whether what newcomers were shown was the state of their topics, and
//! whether what was there was recovered.
//!
//! Of some messages the place is never learnt, because nobody got them: where one of those may have come between, nothing is
//! claimed. A message whose time may have been over may have been left out; one whose time was over for certain must have been.

use std::collections::BTreeMap;

use super::begin::{Beginning, Start};
use super::order::Position;
use super::past::Fate;
use super::{MessageId, Model, Stream, Tick, Violation, matches};

/// A shard whose turns are withheld is behind in time, by leaps of the clock as well, but not by more: in nanoseconds.
pub(super) const SLACK: u64 = 90_000_000_000;

impl Model {
    /// Checks every beginning of every client.
    pub(super) fn check_beginnings(&self) -> Result<u64, Violation> {
        let mut checked = 0;
        for stream in &self.streams {
            for begun in stream.beginnings() {
                let complete = begun.ended.is_some() || (!begun.expects_end() && (begun.live || stream.is_owed()));
                if begun.expects_end() && begun.ended.is_none() && stream.is_owed() && stream.has(&begun.asked.filter) {
                    let evidence = format!("{}: {begun:?}", stream.name);
                    return Err(Violation::new("state ends once, where it is asked for", evidence));
                }
                if begun.confirmed_at.0 == 0 || !complete {
                    continue;
                }
                checked += 1;
                if begun.asked.is_filter() {
                    self.check_filter(stream, begun)?;
                } else if begun.alone {
                    self.check_single(stream, begun)?;
                }
                self.check_stale(stream, begun)?;
            }
        }
        Ok(checked)
    }

    fn check_single(&self, stream: &Stream, begun: &Beginning) -> Result<(), Violation> {
        let Some(topic) = self.topics.iter().position(|topic| *topic == begun.asked.filter) else { return Ok(()) };
        let Some(position) = begun.confirmed.position else { return Ok(()) };
        self.check_recovered(stream, begun, topic)?;
        if self.rule(topic).is_keyed() {
            self.check_keyed(stream, begun, topic, position.epoch)
        } else {
            self.check_retained(stream, begun, topic, position)
        }
    }

    /// What was there for certain was recovered.
    fn check_recovered(&self, stream: &Stream, begun: &Beginning, topic: usize) -> Result<(), Violation> {
        let (Start::Since(since), Some(false), Some(position)) =
            (begun.asked.start, begun.confirmed.recovered, begun.confirmed.position)
        else {
            return Ok(());
        };
        let Some((messages, bytes)) = self.rule(topic).window() else { return Ok(()) };
        // Of a topic that was purged meanwhile, nothing of the epoch is left that the subscription entered.
        let purged = self.may_be_purged(topic, Some(position), begun.confirmed_at.1);
        let generous = !begun.confirmed.unread
            && !purged
            && !self.past.evicted
            && !self.has_snapshot(topic)
            && self.past.recovery_bytes >= 1 << 20;
        if !generous || since.epoch != position.epoch || since.offset + 1 > position.offset {
            return Ok(());
        }
        let missed = self.orders.range(topic, since.epoch, since.offset + 1, position.offset);
        let ttl = self.rule(topic).ttl;
        let young = |&(_, id): &(u64, MessageId)| {
            ttl == 0 || self.messages[id as usize].written_at + ttl > begun.confirmed_at.1 + SLACK
        };
        // What is sequenced before the answer came counts as well, and perhaps is delivered live.
        let after = self.messages.iter().filter(|message| {
            message.topic == topic && message.written.is_some_and(|written| written < begun.confirmed_at.0)
        });
        let small = after.clone().map(|message| message.len as u64 + 600).sum::<u64>() <= bytes.min(1 << 18);
        let few = (after.count() as u64) < messages;
        let whole = missed.len() as u64 == position.offset - since.offset - 1;
        if whole && few && small && missed.iter().all(young) {
            let evidence = format!("{}: {begun:?}", stream.name);
            return Err(Violation::new("what is there is recovered", evidence));
        }
        Ok(())
    }

    /// The newest message of each key, or of those that changed.
    fn check_keyed(&self, stream: &Stream, begun: &Beginning, topic: usize, epoch: u64) -> Result<(), Violation> {
        let Some((_, Some(end))) = begun.ended else { return Ok(()) };
        let from = match (begun.asked.start, begun.recovered()) {
            (Start::Since(since), true) => since.offset,
            _ => 0,
        };
        let bad = |what: &str, key: &str, id: MessageId| {
            let message = &self.messages[id as usize];
            let (place, at) = (self.orders.place_of(id), message.written_at);
            let evidence =
                format!("{}, key {key:?}, ~{id}~ of {at}, {place:?}: {what}; after {from}; {begun:?}", stream.name);
            Violation::new("a keyed topic's state is the newest of each key", evidence)
        };
        let (mut newest, mut before) = (BTreeMap::new(), BTreeMap::new());
        for (offset, id) in self.orders.range(topic, epoch, 1, end + 1) {
            newest.insert(self.key_of(id), (offset, id));
            if offset <= from {
                before.insert(self.key_of(id), (offset, id));
            }
        }
        for &(_, id, offset) in &begun.state {
            let key = self.key_of(id);
            if let Some(&(newer, _)) = newest.get(&key).filter(|&&(newer, _)| newer > offset) {
                return Err(bad(&format!("there is {newer}, it is at {offset}"), &key, id));
            }
            let removed = self.messages[id as usize].options.removed;
            if offset <= from || (removed && !begun.recovered()) {
                return Err(bad("the client had it, or it was removed", &key, id));
            }
        }
        for (key, &(offset, id)) in &newest {
            let shown = begun.state.iter().any(|&(_, shown, _)| shown == id);
            if shown
                || offset <= from
                || self.messages[id as usize].is_empty()
                || !self.orders.is_whole(topic, epoch, offset, end)
            {
                continue;
            }
            // One that came before the state was put together, and behind its end, is delivered live instead.
            let newer = self.messages.iter().any(|other| {
                other.topic == topic
                    && other.fate == Fate::Open
                    && other.written.is_some_and(|written| written < begun.confirmed_at.0)
                    && self.key_of(other.id) == *key
                    && self.orders.place_of(other.id).is_none_or(|place| place.epoch == epoch && place.offset > end)
            });
            if newer {
                continue;
            }
            let message = &self.messages[id as usize];
            if message.options.removed {
                // Nothing unknown may have removed it before the client left.
                let had = before.get(key).is_some_and(|&(at, id)| {
                    !self.messages[id as usize].options.removed && self.orders.is_whole(topic, epoch, at, from)
                });
                if begun.recovered() && had && !self.may_be_over(id, topic, begun.confirmed_at.1) {
                    return Err(bad("the client does not learn that it was removed", key, id));
                }
            } else if !self.may_be_over(id, topic, begun.confirmed_at.1) {
                return Err(bad("it is missing", key, id));
            }
        }
        Ok(())
    }

    /// The retained message of a topic by itself.
    fn check_retained(&self, stream: &Stream, begun: &Beginning, topic: usize, at: Position) -> Result<(), Violation> {
        let bad = |what: &str, id: MessageId| {
            let evidence = format!("{}, ~{id}~: {what}; {begun:?}", stream.name);
            Violation::new("a newcomer is shown the retained message", evidence)
        };
        let known = self.orders.range(topic, at.epoch, 1, at.offset);
        let newest = known.iter().rev().find(|&&(_, id)| self.is_state(id));
        if let Some(&(_, shown, offset)) = begun.state.first() {
            if begun.state.len() > 1 || !self.is_state(shown) || self.messages[shown as usize].options.removed {
                return Err(bad("it is not retained, or not alone", shown));
            }
            if newest.is_some_and(|&(newer, _)| newer > offset) {
                return Err(bad("there is a newer one", shown));
            }
            return Ok(());
        }
        let wanted = begun.asked.state && !begun.recovered() && begun.snapshot.is_none() && !self.has_snapshot(topic);
        let Some(&(offset, id)) = newest.filter(|_| wanted) else { return Ok(()) };
        let newer = self.messages.iter().any(|other| {
            let placed = self.orders.place_of(other.id);
            let retains = other.topic == topic && self.is_state(other.id);
            retains
                && other.written.is_some_and(|written| written < begun.confirmed_at.0)
                && placed.is_none_or(|place| place.epoch == at.epoch && place.offset >= at.offset)
                && other.fate == Fate::Open
        });
        let certain = self.orders.is_whole(topic, at.epoch, offset, at.offset - 1) && !newer;
        let message = &self.messages[id as usize];
        if certain
            && !message.is_empty()
            && !message.options.removed
            && !self.may_be_over(id, topic, begun.confirmed_at.1)
        {
            return Err(bad("it was not shown", id));
        }
        Ok(())
    }

    /// After the state of a filter every topic's state has been shown, or something newer.
    fn check_filter(&self, stream: &Stream, begun: &Beginning) -> Result<(), Violation> {
        let Some((ended, _)) = begun.ended else { return Ok(()) };
        for topic in (0..self.topics.len()).filter(|&topic| matches(&begun.asked.filter, &self.topics[topic])) {
            for (group, (place, id)) in self.newest_before(topic, begun.asked_at.0) {
                let message = &self.messages[id as usize];
                let over = self.may_be_over(id, topic, begun.confirmed_at.1.max(self.past.time));
                if message.options.removed || message.is_empty() || over {
                    continue;
                }
                let shown = begun.state.iter().any(|&(_, shown, _)| shown == id) || stream.has_seen(id);
                let newer = self.messages.iter().any(|other| {
                    other.topic == topic
                        && other.fate == Fate::Open
                        && self.group(other.id).as_ref() == Some(&group)
                        && other.written.is_some_and(|written| written < ended)
                        && self.orders.place_of(other.id).is_none_or(|other| other > place)
                });
                if !shown && !newer {
                    let evidence = format!("{} was not shown {}: {begun:?}", stream.name, self.describe(id));
                    return Err(Violation::new("a filter's state is that of every topic", evidence));
                }
            }
        }
        Ok(())
    }

    /// Nothing that was shown was known to be superseded, or over, before it was asked for.
    fn check_stale(&self, stream: &Stream, begun: &Beginning) -> Result<(), Violation> {
        // What is shown does not say for which subscription: it may be for one that began before.
        if !begun.alone {
            return Ok(());
        }
        let bad = |id: MessageId, what: &str| {
            let evidence = format!("{}, ~{id}~: {what}: {begun:?}", stream.name);
            Err(Violation::new("nothing old is shown as state", evidence))
        };
        for &(topic, id, _) in &begun.state {
            let message = &self.messages[id as usize];
            let Some(group) = self.group(id) else { return bad(id, "it is no state") };
            let Some(place) = self.orders.place_of(id) else { continue };
            let newer = self.newest_before(topic, begun.asked_at.0);
            if self.is_purged(topic, place, begun.asked_at.0) {
                return bad(id, "it was purged");
            }
            if newer.get(&group).is_some_and(|&(newer, _)| newer > place) {
                return bad(id, "it was superseded");
            }
            let ttl = message.options.ttl_ms.map_or(u64::MAX, |ms| ms * 1_000_000);
            if !message.options.removed
                && message.known_at.is_some_and(|at| at.saturating_add(ttl).saturating_add(SLACK) <= begun.asked_at.1)
            {
                return bad(id, "its time was over");
            }
        }
        Ok(())
    }

    /// The newest state of each group of a topic that was acknowledged before `tick`.
    fn newest_before(&self, topic: usize, tick: Tick) -> BTreeMap<String, (Position, MessageId)> {
        let mut newest = BTreeMap::new();
        for message in self.messages.iter().filter(|message| message.topic == topic) {
            if message.acked.is_some_and(|acked| acked < tick)
                && message.fate == Fate::Open
                && let (Some(place), Some(group)) = (self.orders.place_of(message.id), self.group(message.id))
            {
                let entry = newest.entry(group).or_insert((place, message.id));
                *entry = (*entry).max((place, message.id));
            }
        }
        newest
    }

    /// What a message supersedes as state: those of its key, or the retained message.
    fn group(&self, id: MessageId) -> Option<String> {
        let topic = self.messages[id as usize].topic;
        self.is_state(id).then(|| if self.rule(topic).is_keyed() { self.key_of(id) } else { String::new() })
    }

    fn is_state(&self, id: MessageId) -> bool {
        let message = &self.messages[id as usize];
        let rule = self.rule(message.topic);
        message.publisher != usize::MAX - 1 && (rule.is_keyed() || rule.retains_always() || message.options.retain)
    }

    /// Whether a message may have been too old to be shown, at this time: its age is counted by the clock of its shard, which may
    /// have been behind when it came.
    fn may_be_over(&self, id: MessageId, topic: usize, now: u64) -> bool {
        let (message, rule) = (&self.messages[id as usize], self.rule(topic));
        let own = message.options.ttl_ms.map_or(u64::MAX, |ms| ms * 1_000_000);
        let ruled = match (rule.is_keyed(), message.options.removed) {
            (true, true) => rule.tombstone_ttl(),
            (true, false) if rule.ttl > 0 => rule.ttl,
            _ => u64::MAX,
        };
        self.presence.slowest_at(message.written_at).saturating_add(own.min(ruled)) <= now
            || self.may_be_purged(topic, self.orders.place_of(id), now)
    }
}
