//! What one client with subscriptions was told and saw.
//!
//! A topic is *covered* while at least one confirmed subscription matches it. From the first confirmation to
//! the last end its messages must come without a gap, however many subscriptions come and go meanwhile.

mod begun;
mod lossy;

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

use super::begin::{Asked, Beginning, Confirmed, Start};
use super::order::Orders;
use super::timing::{Batch, Timed};
use super::{Message, MessageId, Position, Tick, Violation, matches};
use crate::payload::Kind;
use crate::rules::Policy;
use lossy::Lossy;
pub(super) use lossy::{Left, Newer};

/// A message as a client got it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its topic, where the client can tell.
    pub topic: Option<&'a str>,
    /// Its offset, where it comes with one.
    pub offset: Option<u64>,
    /// What it came as.
    pub kind: Kind,
    /// Its bytes.
    pub payload: &'a [u8],
    /// What comes with it on `ringyard.v1`.
    pub tags: Option<Tags<'a>>,
}

/// What comes with a message on `ringyard.v1`.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tags<'a> {
    /// Its key.
    pub key: Option<&'a str>,
    /// It removes.
    pub removed: bool,
    /// It is state.
    pub state: bool,
    /// It is a snapshot, up to this offset.
    pub up_to: bool,
}

/// What of the model a stream may look at.
pub(super) struct Known<'a> {
    pub(super) topics: &'a [String],
    pub(super) messages: &'a [Message],
    pub(super) published: &'a BTreeMap<(usize, usize), Vec<MessageId>>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    /// Something may still be owed to it.
    pub(super) live: bool,
    /// It was closed because the broker went down.
    pub(super) told_to_go: bool,
    /// It is notified of what it does not get.
    pub(super) notified: bool,
    /// What gaps said that it will not get.
    pub(super) left: Vec<Left>,
    /// Purges that it learned of: topics and the epochs that began.
    resets: BTreeSet<(usize, u64)>,
    pub(super) timed: Timed,
    subs: BTreeMap<String, Sub>,
    segments: FxHashMap<usize, Segment>,
    seen: FxHashSet<MessageId>,
    /// Beginnings of subscriptions that ended.
    over: Vec<Beginning>,
    /// The last message of each publisher and topic.
    last_of: FxHashMap<(usize, usize), u32>,
}

#[derive(Debug)]
pub(super) struct Sub {
    state: SubState,
    pub(super) begun: Beginning,
    pub(super) policy: Policy,
    /// What came last for it.
    pub(super) batch: Option<Batch>,
}

#[derive(Debug)]
enum SubState {
    Pending,
    Confirmed { epoch: Option<u64> },
}

impl Sub {
    fn is_confirmed(&self) -> bool {
        matches!(self.state, SubState::Confirmed { .. })
    }
}

/// A topic's messages without a gap.
#[derive(Default, Debug)]
struct Segment {
    covered_since: Option<Tick>,
    /// It followed on one that ended while another subscription was being asked for: where that began is not
    /// known.
    blurred: bool,
    first_offset: Option<u64>,
    /// The epoch of the last message, where it is known.
    epoch: Option<u64>,
    /// The offset that must come next.
    next_offset: Option<u64>,
    last: Option<MessageId>,
    /// The last message that says which it is, whatever was left out since.
    before: Option<MessageId>,
    /// Empty messages after `last`.
    empties: Vec<Kind>,
    /// Publishers seen in this segment, with their last number.
    seq_of: FxHashMap<usize, u32>,
    /// What subscriptions in it may have left out, those that ended too.
    lossy: Lossy,
    /// When the last of those ended.
    lossy_until: Option<Tick>,
}

impl Stream {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            live: true,
            told_to_go: false,
            notified: false,
            left: Vec::new(),
            resets: BTreeSet::new(),
            timed: Timed::default(),
            subs: BTreeMap::new(),
            segments: FxHashMap::default(),
            seen: FxHashSet::default(),
            over: Vec::new(),
            last_of: FxHashMap::default(),
        }
    }

    // ---- subscriptions

    pub(super) fn subscribing(&mut self, asked: &[(Asked, Policy)], at: (Tick, u64)) {
        for (asked, policy) in asked {
            let mut begun = Beginning::new(asked.clone(), at);
            for (filter, sub) in &mut self.subs {
                if matches(filter, &asked.filter)
                    || matches(&asked.filter, filter)
                    || (begun.asked.is_filter() && filter.contains(['+', '#']))
                {
                    (begun.alone, sub.begun.alone) = (false, false);
                }
            }
            let sub = Sub { state: SubState::Pending, begun, policy: *policy, batch: None };
            self.subs.insert(asked.filter.clone(), sub);
        }
    }

    pub(super) fn refused(&mut self, filters: &[String]) {
        for filter in filters {
            if self.subs.get(filter).is_some_and(|sub| !sub.is_confirmed()) {
                self.subs.remove(filter);
            }
        }
    }

    pub(super) fn confirmed(
        &mut self,
        filters: &[Confirmed],
        topics: &[String],
        topic_of: impl Fn(MessageId) -> usize,
        at: (Tick, u64),
    ) -> Result<(), Violation> {
        let now = at.0;
        // A message does not name its epoch. Where several subscriptions match, it may be one that a filter
        // still holds from before the topic was forgotten, so that only a subscription alone can tell.
        let alone =
            |confirmed: &Confirmed| self.subs.keys().filter(|filter| matches(filter, &confirmed.filter)).count() == 1;
        let epochs: Vec<_> = filters
            .iter()
            .map(|confirmed| confirmed.position.filter(|_| alone(confirmed)).map(|position| position.epoch))
            .collect();
        for (index, topic) in topics.iter().enumerate() {
            let mut by = filters.iter().filter(|confirmed| matches(&confirmed.filter, topic)).peekable();
            if by.peek().is_none() {
                continue;
            }
            let alone = self.subs.keys().filter(|filter| matches(filter, topic)).count() == 1;
            let anew = by.peek().is_some_and(|confirmed| {
                alone
                    && self
                        .subs
                        .get(&confirmed.filter)
                        .is_some_and(|sub| sub.begun.asked.start != Start::Now || sub.begun.asked.state)
            });
            if anew {
                // What it got before may come again.
                self.seen.retain(|&id| topic_of(id) != index);
                self.last_of.retain(|&(_, topic), _| topic != index);
            }
            let lossy = Lossy::of(self.subs.iter().filter(|(filter, _)| matches(filter, topic)).map(|(_, sub)| sub));
            let segment = self.segments.entry(index).or_default();
            segment.lossy.add(lossy);
            let position = by.find_map(|confirmed| confirmed.position);
            if segment.covered_since.is_none()
                && !segment.blurred
                && let Some(position) = position
            {
                match segment.first_offset {
                    // Beside others it may hold messages from before the topic was forgotten.
                    Some(first) if alone && first != position.offset => {
                        let evidence = format!(
                            "{} subscribed to {topic:?} at {}, but got {first} first",
                            self.name, position.offset
                        );
                        return Err(Violation::new("a subscription begins where it was confirmed", evidence));
                    }
                    None if alone => segment.next_offset = Some(position.offset),
                    _ => {}
                }
            }
            segment.covered_since.get_or_insert(now);
        }
        for (confirmed, epoch) in filters.iter().zip(epochs) {
            let name = &self.name;
            let sub = self.subs.get_mut(&confirmed.filter).filter(|sub| !sub.is_confirmed());
            if let Some(sub) = sub {
                sub.state = SubState::Confirmed { epoch };
                sub.begun.confirm(confirmed.clone(), at, name)?;
            } else {
                let evidence = format!("{} was told of {:?} unasked", self.name, confirmed.filter);
                return Err(Violation::new("a subscription is confirmed once", evidence));
            }
        }
        Ok(())
    }

    pub(super) fn unsubscribed(&mut self, filters: &[String], topics: &[String], now: Tick) {
        self.end_losses(filters, topics, now);
        for filter in filters {
            self.over.extend(self.subs.remove(filter).map(|sub| sub.begun));
        }
        let Self { segments, subs, .. } = self;
        segments.retain(|&topic, segment| {
            let mut here =
                subs.iter().filter(|(filter, _)| matches(filter, &topics[topic])).map(|(_, sub)| sub).peekable();
            let pending = here.peek().is_some();
            let covered = here.any(Sub::is_confirmed);
            if !covered {
                *segment = Segment { blurred: true, ..Segment::default() };
            }
            covered || pending
        });
    }

    pub(super) fn asked_for(&self, filter: &str) -> bool {
        self.subs.contains_key(filter)
    }

    pub(super) fn covering(&self, topic: &str) -> usize {
        let covers = |(filter, sub): &(&String, &Sub)| sub.is_confirmed() && matches(filter, topic);
        self.subs.iter().filter(covers).count()
    }

    // ---- messages

    pub(super) fn received(
        &mut self,
        topic: usize,
        id: Option<MessageId>,
        arrival: &Arrival<'_>,
        known: &Known<'_>,
        orders: &mut Orders,
    ) -> Result<(), Violation> {
        let name = &known.topics[topic];
        let here: Vec<_> = self.subs.iter().filter(|(filter, _)| matches(filter, name)).map(|(_, sub)| sub).collect();
        if here.is_empty() {
            let evidence = format!("{} got a message of {name:?}", self.name);
            return Err(Violation::new("only subscribers of a topic get its messages", evidence));
        }
        if arrival.tags.is_some() && !here.iter().any(|sub| sub.is_confirmed()) {
            let evidence = format!("{} got a message of {name:?}", self.name);
            return Err(Violation::new("ok comes before the messages of its subscriptions", evidence));
        }
        let epoch = here.iter().find_map(|sub| match sub.state {
            SubState::Confirmed { epoch } => epoch,
            SubState::Pending => None,
        });
        let lossy = Lossy::of(here);
        self.goes_live(topic, name, arrival)?;
        if let Some(offset) = arrival.offset {
            self.check_offset(topic, name, offset, epoch, lossy)?;
        }
        let segment = self.segments.entry(topic).or_default();
        if lossy.any() {
            // Whatever comes next need not follow on this.
            segment.cut();
        }
        let Some(id) = id else {
            if !lossy.any() {
                segment.empties.push(arrival.kind);
            }
            return Ok(());
        };
        let message = &known.messages[id as usize];
        let describe = || format!("~{id}~ (number {} of publisher {})", message.seq, message.publisher);
        if !self.seen.insert(id) {
            let evidence = format!("{} got {} of {name:?} again", self.name, describe());
            return Err(Violation::new("nothing is doubled", evidence));
        }
        self.check_publisher(id, topic, message, known, lossy)?;
        if let Some(offset) = arrival.offset {
            orders.offset(id, offset, describe)?;
            if let Some(epoch) = epoch {
                orders.place(topic, Position { epoch, offset }, id, describe)?;
            }
        }
        let segment = self.segments.entry(topic).or_default();
        if let Some(previous) = segment.before.replace(id) {
            orders.precedes(previous, id);
        }
        let empties = std::mem::take(&mut segment.empties);
        if lossy.any() {
            return Ok(());
        }
        if let Some(previous) = segment.last.replace(id) {
            orders.follows(previous, arrival.topic.map(|_| &empties[..]), id, &self.name)?;
        }
        Ok(())
    }

    fn check_offset(
        &mut self,
        topic: usize,
        name: &str,
        offset: u64,
        epoch: Option<u64>,
        lossy: Lossy,
    ) -> Result<(), Violation> {
        let segment = self.segments.entry(topic).or_default();
        segment.first_offset.get_or_insert(offset);
        if let Some(due) = segment.next_offset {
            // A filter does not keep a topic alive: forgotten, it begins anew.
            let anew = offset == 1 && (epoch.is_none() || epoch != segment.epoch);
            // Of a filter, whether it began anew meanwhile shows in the end.
            let conflated = lossy.latest && (offset > due || epoch.is_none());
            if offset != due && !anew && !conflated {
                let evidence = format!("{} got offset {offset} of {name:?}, {due} was next", self.name);
                return Err(Violation::new("offsets are dense", evidence));
            }
        }
        (segment.next_offset, segment.epoch) = (Some(offset + 1), epoch);
        Ok(())
    }

    /// A publisher's messages come in its order, and without a gap within a segment.
    fn check_publisher(
        &mut self,
        id: MessageId,
        topic: usize,
        message: &Message,
        known: &Known<'_>,
        lossy: Lossy,
    ) -> Result<(), Violation> {
        let publisher = message.publisher;
        let before = self.last_of.insert((publisher, topic), message.seq);
        if before.is_some_and(|before| before > message.seq) {
            let evidence = format!(
                "{} got ~{id}~, number {} of publisher {publisher}, after its number {before:?}",
                self.name, message.seq
            );
            return Err(Violation::new("a publisher's order is kept", evidence));
        }
        let segment = self.segments.entry(topic).or_default();
        if lossy.any() {
            return Ok(());
        }
        let Some(last) = segment.seq_of.insert(publisher, message.seq) else { return Ok(()) };
        let skipped = &known.published[&(publisher, topic)][last as usize + 1..message.seq as usize];
        let must = |id: MessageId| !known.messages[id as usize].is_empty() && !known.messages[id as usize].conditional;
        if let Some(lost) = skipped.iter().find(|&&id| must(id)) {
            let evidence = format!(
                "{} got number {last} of publisher {publisher} on {:?}, then {}: ~{lost}~ is missing",
                self.name, known.topics[topic], message.seq
            );
            return Err(Violation::new("nothing is lost", evidence));
        }
        Ok(())
    }
}
