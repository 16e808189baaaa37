//! What publishers asked of the broker's memory, and how that was answered: options, refusals, duplicates, snapshots, pages.

use std::collections::BTreeMap;

use super::order::Position;
use super::purge::Purge;
use super::state::SLACK;
use super::{Arrival, MessageId, Model, StreamId, Tick, Violation};
use crate::payload::Kind;
use crate::rules::{Policy, TopicRule};

/// The idempotency keys of a topic are remembered so long, in nanoseconds.
const RECENT: u64 = 300_000_000_000;

/// What a publish asks for besides being delivered.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Options {
    /// Which entry of a keyed topic it is.
    pub key: Option<String>,
    /// It becomes the retained message.
    pub retain: bool,
    /// It removes an entry, or the retained message.
    pub removed: bool,
    /// For how many milliseconds newcomers are shown it.
    pub ttl_ms: Option<u64>,
    /// What names the publish.
    pub idempotency_key: Option<String>,
    /// The offset of the newest message before it; 0: none.
    pub if_offset: Option<u64>,
    /// The number of the topic's lease under which it is published.
    pub lease: Option<u64>,
}

/// What became of a message.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It is published, or on its way.
    #[default]
    Open,
    /// The publisher learned that it was not published.
    Refused,
    /// The publisher learned that it had been published before.
    Duplicate(Position),
}

/// What the model knows of memory.
#[derive(Default, Debug)]
pub(super) struct Past {
    /// The rule of each topic.
    pub(super) rules: Vec<TopicRule>,
    /// Rules that only say how filters are delivered.
    pub(super) filters: Vec<(String, Policy)>,
    pub(super) purges: Vec<Purge>,
    /// Nothing is held up, so that deliveries can be timed.
    pub(super) steady: bool,
    /// Nanoseconds.
    pub(super) time: u64,
    /// Positions that clients had when they left, by topic.
    pub(super) left: BTreeMap<usize, Vec<Position>>,
    /// The highest place known of each topic and, in keyed ones, key.
    newest: BTreeMap<(usize, String), Position>,
    /// Snapshots that were sent: topic, up to where, when answered.
    pub(super) snapshots: BTreeMap<MessageId, Snapshot>,
    /// Conditional publishes that were answered `ok` with a place.
    won: Vec<(MessageId, Position)>,
    /// What one subscribe may replay.
    pub(super) recovery_bytes: u64,
    /// Windows were given up for want of room, or topics forgotten: what is not there may have been.
    pub(super) evicted: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) topic: usize,
    pub(super) up_to: Position,
    pub(super) stored: Option<Tick>,
}

/// What streams of events do not say of a message.
#[derive(Clone, Debug)]
pub struct Unsaid {
    /// As what it was published.
    pub kind: Kind,
    /// Under which key.
    pub key: Option<String>,
    /// Whether it removes.
    pub removed: bool,
    /// Whether it is a snapshot.
    pub is_snapshot: bool,
}

/// A `history` command, and its answer.
#[derive(Clone, Default, Debug)]
pub struct Page {
    /// Its topic.
    pub topic: usize,
    /// Only what comes after it.
    pub since: Option<Position>,
    /// Only what comes before it.
    pub before: Option<Position>,
    /// Most messages.
    pub limit: usize,
    /// Newest first.
    pub reverse: bool,
}

impl Model {
    /// The same with rules for topics.
    #[must_use]
    pub fn ruled(mut self, rules: Vec<TopicRule>, recovery_bytes: u64) -> Self {
        (self.past.rules, self.past.recovery_bytes) = (rules, recovery_bytes);
        self
    }

    /// It is so late, in nanoseconds.
    pub fn clock(&mut self, now: u64) {
        self.past.time = now;
    }

    /// The broker gave up memory that rules allow.
    pub fn evicted(&mut self) {
        self.past.evicted = true;
    }

    /// The rule of a topic.
    #[must_use]
    pub fn rule(&self, topic: usize) -> TopicRule {
        self.past.rules.get(topic).copied().unwrap_or_default()
    }

    /// `publisher` is about to publish something that the broker may refuse.
    pub fn publish_with(
        &mut self,
        publisher: usize,
        topic: usize,
        kind: Kind,
        len: usize,
        options: Options,
    ) -> MessageId {
        let id = self.publish(publisher, topic, kind, len);
        let message = &mut self.messages[id as usize];
        (message.options, message.conditional) = (options, true);
        id
    }

    /// What a publish asked for.
    #[must_use]
    pub fn options(&self, id: MessageId) -> &Options {
        &self.messages[id as usize].options
    }

    /// What a message is, for subscribers whose wire does not say it all.
    #[must_use]
    pub fn unsaid(&self, id: MessageId) -> Option<Unsaid> {
        let message = self.messages.get(id as usize)?;
        let Options { key, removed, .. } = message.options.clone();
        Some(Unsaid { kind: message.kind, key, removed, is_snapshot: self.past.snapshots.contains_key(&id) })
    }

    /// The topic of a message.
    #[must_use]
    pub fn topic_of(&self, id: MessageId) -> usize {
        self.messages[id as usize].topic
    }

    /// A place became known.
    pub(super) fn placed(&mut self, id: MessageId, place: Position) {
        let message = &mut self.messages[id as usize];
        message.known_at.get_or_insert(self.past.time);
        let topic = message.topic;
        let key = if self.rule(topic).is_keyed() { self.key_of(id) } else { String::new() };
        let newest = self.past.newest.entry((topic, key)).or_insert(place);
        *newest = (*newest).max(place);
    }

    pub(super) fn key_of(&self, id: MessageId) -> String {
        self.messages[id as usize].options.key.clone().unwrap_or_default()
    }

    /// The newest place known, of a key where the topic is keyed.
    #[must_use]
    pub fn newest(&self, topic: usize, key: Option<&str>) -> Option<Position> {
        let key = if self.rule(topic).is_keyed() { key.unwrap_or_default() } else { "" };
        self.past.newest.get(&(topic, key.to_owned())).copied()
    }

    /// Where clients that left were.
    #[must_use]
    pub fn left(&self, topic: usize) -> &[Position] {
        self.past.left.get(&topic).map_or(&[], Vec::as_slice)
    }

    /// A client's position in every topic, as far as it is certain.
    pub(super) fn remember_positions(&mut self, stream: StreamId, filters: Option<&[String]>) {
        for (topic, position) in self.streams[stream].positions(&self.topics, filters) {
            self.past.left.entry(topic).or_default().push(position);
        }
    }

    /// A publish was refused.
    ///
    /// # Errors
    /// It must not have been.
    pub fn refused_publish(&mut self, id: MessageId, code: &str, offset: Option<u64>) -> Result<(), Violation> {
        let message = &mut self.messages[id as usize];
        message.fate = Fate::Refused;
        let (options, topic) = (message.options.clone(), message.topic);
        let rule = self.rule(topic);
        let fits = match code {
            "conflict" => options.if_offset.is_some() && offset.is_some() && offset != options.if_offset,
            "unsupported" => rule.refuses(&options),
            "limit" => rule.may_refuse() || options.retain,
            "not-holder" => rule.exclusive,
            _ => false,
        };
        if fits && !self.messages[id as usize].accepted {
            return Ok(());
        }
        let evidence = format!("{} {options:?}: {code}, {offset:?}", self.describe(id));
        Err(Violation::new(REFUSED, evidence))
    }

    /// A publish was answered as one that was made before.
    ///
    /// # Errors
    /// It was not, as far as is known by now.
    pub fn duplicate(&mut self, id: MessageId, place: Position) -> Result<(), Violation> {
        let message = &mut self.messages[id as usize];
        message.fate = Fate::Duplicate(place);
        let named = message.options.idempotency_key.is_some();
        if named && !message.accepted {
            return Ok(());
        }
        Err(Violation::new(ONE_MESSAGE, format!("{} is called a duplicate", self.describe(id))))
    }

    pub(super) fn check_won(&mut self, id: MessageId, place: Position) -> Result<(), Violation> {
        let rule = self.rule(self.messages[id as usize].topic);
        let options = &self.messages[id as usize].options;
        if rule.refuses(options) {
            return Err(Violation::new("a rule holds", format!("{}: {options:?} against {rule:?}", self.describe(id))));
        }
        if rule.exclusive && options.lease.is_none() && !self.wills.is_will(id) {
            return Err(Violation::new("an exclusive topic is published to under its lease", self.describe(id)));
        }
        let Some(expected) = options.if_offset else { return Ok(()) };
        self.past.won.push((id, place));
        let is_next = rule.is_keyed() || place.offset == expected + 1;
        if is_next && place.offset > expected {
            return Ok(());
        }
        let evidence = format!("{} expected {expected} and is at {place:?}", self.describe(id));
        Err(Violation::new(COMPARED, evidence))
    }

    /// What comes was published, as it comes.
    pub(super) fn check_arrival(&self, id: MessageId, arrival: &Arrival<'_>) -> Result<(), Violation> {
        let message = &self.messages[id as usize];
        let bad = |what| bad_property(what, format!("{}: {:?}", self.describe(id), arrival.tags));
        match message.fate {
            Fate::Open => {}
            Fate::Refused => return bad_property(REFUSED, self.describe(id)),
            Fate::Duplicate(_) => return bad_property(ONE_MESSAGE, self.describe(id)),
        }
        let Some(tags) = arrival.tags else { return Ok(()) };
        let options = &message.options;
        if tags.key != options.key.as_deref() || tags.removed != options.removed {
            return bad("a message keeps its key");
        }
        if tags.up_to != self.past.snapshots.contains_key(&id) {
            return bad("a snapshot is none of the messages");
        }
        Ok(())
    }

    // ---- the end

    /// What idempotency keys and comparisons promise.
    pub(super) fn check_publishes(&self) -> Result<(), Violation> {
        let mut groups: BTreeMap<(usize, &str), Vec<MessageId>> = BTreeMap::new();
        for (id, message) in (0..).zip(&self.messages) {
            if let Some(key) = &message.options.idempotency_key {
                groups.entry((message.topic, key)).or_default().push(id);
            }
        }
        for ((topic, key), ids) in &groups {
            for &id in ids {
                let message = &self.messages[id as usize];
                if let Fate::Duplicate(place) = message.fate
                    && let Some(first) = self.orders.at(*topic, place)
                    && !ids.contains(&first)
                {
                    let evidence = format!("{} is a duplicate of ~{first}~, with another key", self.describe(id));
                    return Err(Violation::new(ONE_MESSAGE, evidence));
                }
            }
            self.check_once(key, ids)?;
        }
        for &(id, place) in &self.past.won {
            self.check_compared(id, place)?;
        }
        Ok(())
    }

    /// Of the publishes with one key only one yields a message, while it is remembered.
    fn check_once(&self, key: &str, ids: &[MessageId]) -> Result<(), Violation> {
        if self.past.evicted {
            return Ok(());
        }
        let placed = ids.iter().filter_map(|&id| Some((self.orders.place_of(id)?, id)));
        let mut placed: Vec<_> = placed.collect();
        placed.sort_unstable();
        for pair in placed.windows(2) {
            let [(a, first), (b, next)] = [pair[0], pair[1]];
            let [first, next] = [first, next].map(|id| &self.messages[id as usize]);
            let last_at = next.known_at.unwrap_or(u64::MAX);
            if a.epoch == b.epoch && last_at.saturating_add(SLACK) < first.written_at + RECENT {
                let evidence = format!("{key:?} is at {a:?} and at {b:?}");
                return Err(Violation::new(ONE_MESSAGE, evidence));
            }
        }
        Ok(())
    }

    fn check_compared(&self, id: MessageId, place: Position) -> Result<(), Violation> {
        let message = &self.messages[id as usize];
        let (topic, expected) = (message.topic, message.options.if_offset.unwrap_or(0));
        if !self.rule(topic).is_keyed() || expected == 0 {
            return Ok(());
        }
        let key = self.key_of(id);
        let between = self.orders.range(topic, place.epoch, expected + 1, place.offset);
        match between.into_iter().find(|&(_, other)| self.key_of(other) == key) {
            Some((offset, other)) => {
                let evidence =
                    format!("{} expected {expected}, but ~{other}~ of the same key is at {offset}", self.describe(id));
                Err(Violation::new(COMPARED, evidence))
            }
            None => Ok(()),
        }
    }
}

const ONE_MESSAGE: &str = "an idempotency key yields one message";
const COMPARED: &str = "compare-and-set compares and sets at once";
const REFUSED: &str = "a publish is refused only with a reason, and then not published";

pub(super) fn bad_property(property: &'static str, evidence: String) -> Result<(), Violation> {
    Err(Violation::new(property, evidence))
}
