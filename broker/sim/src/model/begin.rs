//! How a subscription of a `ringyard.v1` client begins: what it asked for of the past, how that was answered, and what it was shown.
//!
//! Checks what can be seen at once: the order of `ok`, state, `state-end`, `gap` and live messages, and where the messages
//! without the flag `state` have to begin. What takes the whole history to judge is checked at the end (`state`).

use super::{MessageId, Position, Tick, Violation};

/// Where a subscription was asked to begin.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Start {
    /// Where it is now.
    #[default]
    Now,
    /// With the newest messages, so many.
    Last(u64),
    /// Behind a position.
    Since(Position),
}

/// One subscription that a client asks for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Its topic or filter.
    pub filter: String,
    /// Where it begins.
    pub start: Start,
    /// Whether it wants state. Raw subscriptions do not.
    pub state: bool,
    /// The least time between two deliveries that it asks for, in milliseconds.
    pub throttle_ms: u64,
}

impl Asked {
    /// A subscription without a past.
    #[must_use]
    pub fn live(filter: &str) -> Self {
        Self { filter: filter.to_owned(), ..Self::default() }
    }

    pub(super) fn is_filter(&self) -> bool {
        self.filter.contains(['+', '#'])
    }
}

/// One subscription that is in force, as the client knows it.
#[derive(Clone, Default, Debug)]
pub struct Confirmed {
    /// Its topic or filter.
    pub filter: String,
    /// Where a single topic stands, if the client learns of it.
    pub position: Option<Position>,
    /// Whether everything since a position is there.
    pub recovered: Option<bool>,
    /// What the topic still has, if not.
    pub available: Option<(u64, u64)>,
    /// What the topic remembers.
    pub history: Option<Remembers>,
    /// The client may not have what was published before.
    pub unread: bool,
}

/// What a topic remembers, as its subscribers learn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remembers {
    /// Its newest messages.
    Window,
    /// The newest message of each key.
    Keyed,
}

/// See the file's head.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    pub(super) asked: Asked,
    pub(super) asked_at: (Tick, u64),
    pub(super) confirmed: Confirmed,
    pub(super) confirmed_at: (Tick, u64),
    /// It alone covered its topic from its command to its end: everything that came was its own.
    pub(super) alone: bool,
    /// State that came, with its topic, offset, and whether it removes.
    pub(super) state: Vec<(usize, MessageId, u64)>,
    /// When `state-end` came, and as of which offset.
    pub(super) ended: Option<(Tick, Option<u64>)>,
    pub(super) snapshot: Option<(MessageId, u64)>,
    pub(super) gap: Option<(u64, u64)>,
    /// A message without the flag came.
    pub(super) live: bool,
    /// Of a single topic: the offset of the next such message.
    pub(super) due: u64,
    /// Of a single topic: the offsets of those that came, until it was purged.
    pub(super) got: Vec<u64>,
    pub(super) purged: bool,
}

impl Beginning {
    pub(super) fn new(asked: Asked, at: (Tick, u64)) -> Self {
        Self {
            asked,
            asked_at: at,
            confirmed: Confirmed::default(),
            confirmed_at: (0, 0),
            alone: true,
            state: Vec::new(),
            ended: None,
            snapshot: None,
            gap: None,
            live: false,
            due: 0,
            got: Vec::new(),
            purged: false,
        }
    }

    pub(super) fn recovered(&self) -> bool {
        self.confirmed.recovered == Some(true)
    }

    fn is_keyed(&self) -> bool {
        self.confirmed.history == Some(Remembers::Keyed)
    }

    /// Whether its state ends with `state-end`.
    pub(super) fn expects_end(&self) -> bool {
        let asked = &self.asked;
        if asked.is_filter() { asked.state } else { self.is_keyed() && (asked.state || self.recovered()) }
    }

    /// It is in force.
    pub(super) fn confirm(&mut self, answer: Confirmed, at: (Tick, u64), who: &str) -> Result<(), Violation> {
        let bad = |what: &str| {
            let evidence = format!("{who} asked {:?}, was answered {answer:?}: {what}", self.asked);
            Violation::new("an answer to a position is true", evidence)
        };
        match (self.asked.start, answer.recovered) {
            (Start::Since(_), None) => return Err(bad("nothing is said of the position")),
            (Start::Now | Start::Last(_), Some(_)) => return Err(bad("there was no position")),
            (_, Some(true)) if answer.unread => return Err(bad("this client may not read what was before")),
            (Start::Since(_), Some(true)) if self.asked.is_filter() => return Err(bad("filters do not recover")),
            _ => {}
        }
        if let (Start::Since(since), Some(true), Some(position)) = (self.asked.start, answer.recovered, answer.position)
        {
            if since.epoch != position.epoch {
                return Err(bad("recovered from another epoch"));
            }
            if position.offset < since.offset + 1 {
                return Err(bad("recovered from beyond the newest message"));
            }
        }
        if let Some((from, to)) = answer.available {
            let live = answer.position.map_or(0, |position| position.offset);
            if from == 0 || from > to || to + 1 < live {
                return Err(bad("what is available does not end with the newest"));
            }
        }
        self.due = answer.position.map_or(0, |position| position.offset);
        (self.confirmed, self.confirmed_at) = (answer, at);
        Ok(())
    }

    /// State came.
    pub(super) fn shown(
        &mut self,
        topic: usize,
        id: MessageId,
        offset: u64,
        up_to: bool,
        who: &str,
    ) -> Result<(), Violation> {
        let bad =
            |what: &str| Violation::new("state comes first, and once", format!("{who}, ~{id}~ at {offset}: {what}"));
        if self.alone && self.live && !self.asked.is_filter() {
            return Err(bad("after a live message"));
        }
        if up_to {
            if self.snapshot.replace((id, offset)).is_some() || !self.state.is_empty() {
                return Err(bad("a second snapshot, or one behind other state"));
            }
            if self.alone && !self.recovered() && offset >= self.due {
                return Err(bad("the messages that a snapshot stands for come again"));
            }
            return Ok(());
        }
        if self.alone && self.state.iter().any(|&(_, known, _)| known == id) {
            return Err(bad("again"));
        }
        let is_behind = self.state.last().is_some_and(|&(last, _, before)| last == topic && before >= offset);
        if self.alone && !self.asked.is_filter() && is_behind {
            return Err(bad("not by offset"));
        }
        let limit = if self.is_keyed() { u64::MAX } else { self.due };
        if self.alone && !self.asked.is_filter() && offset >= limit {
            return Err(bad("it is to be delivered live"));
        }
        self.state.push((topic, id, offset));
        Ok(())
    }

    /// `state-end` came.
    pub(super) fn end(&mut self, offset: Option<u64>, now: Tick, who: &str) -> Result<(), Violation> {
        let bad =
            |what: &str| Violation::new("state ends once, where it is asked for", format!("{who}: {what}, {offset:?}"));
        if !self.expects_end() {
            return Err(bad("none was due"));
        }
        if offset.is_some() == self.asked.is_filter() {
            return Err(bad("an offset is for single topics"));
        }
        if self.ended.replace((now, offset)).is_some() {
            return Err(bad("a second one"));
        }
        if let Some(offset) = offset {
            if !self.recovered() && offset + 1 != self.due {
                return Err(bad("as of another offset than the subscription begins behind"));
            }
            if self.alone && self.state.iter().any(|&(_, _, shown)| shown > offset) {
                return Err(bad("state beyond its end"));
            }
            self.due = offset + 1;
        }
        Ok(())
    }

    /// `gap` came.
    pub(super) fn gap(&mut self, from: u64, to: u64, who: &str) -> Result<(), Violation> {
        let due = self.snapshot.map(|(_, up_to)| up_to + 1);
        if self.live || self.gap.is_some() || due != Some(from) || to < from || to + 1 != self.due {
            let evidence = format!("{who}: {from} to {to}, snapshot {:?}, due {}", self.snapshot, self.due);
            return Err(Violation::new("a gap is what is missing", evidence));
        }
        self.gap = Some((from, to));
        Ok(())
    }

    /// A message without the flag `state` came, and is the first. Which offset it must have.
    pub(super) fn first_live(&mut self, who: &str) -> Result<u64, Violation> {
        if self.live {
            return Ok(self.due);
        }
        self.live = true;
        let bad = |what: &str| Violation::new("nothing is left out without a word", format!("{who}: {what}"));
        if self.expects_end() && self.ended.is_none() {
            return Err(bad("a live message before state-end"));
        }
        if let Start::Since(since) = self.asked.start
            && self.recovered()
            && self.snapshot.is_none()
            && !self.is_keyed()
            && self.due != since.offset + 1
        {
            return Err(bad("recovered, but not from the position on"));
        }
        if let (Some((_, up_to)), None) = (self.snapshot, self.gap)
            && self.due != up_to + 1
        {
            return Err(bad("the window does not begin behind the snapshot, and no gap said so"));
        }
        Ok(self.due)
    }
}
