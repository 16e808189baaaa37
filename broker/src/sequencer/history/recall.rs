//! What is given of a topic's history: to a subscriber that begins, and to the command `history`.
//!
//! A [`Recall`] asks, [`Recalled`] is the answer. It says how the topic stands at one moment: everything that is published
//! after that comes to the asking shard behind the answer. Messages of an answer that the subscriber is sent anyway, because it
//! was in force before, are left out by the shard.

use std::sync::Arc;

use protocol::v1::Position;
use ring::Nanos;

use crate::ids::{Epoch, Offset};
use crate::message::Message;
use crate::sequencer::history::History;
use crate::topics::rules::Rule;

/// A place in a topic that a client names; offset 0: it has none of its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The life of the topic.
    pub epoch: Epoch,
    /// The last message the client has.
    pub offset: Offset,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self { epoch: Epoch(position.epoch), offset: Offset(position.offset) }
    }
}

/// What a subscriber wants of the past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recall {
    /// State only: what a newcomer needs to begin.
    State,
    /// The newest messages, so many.
    Last {
        /// At least 1.
        count: u32,
        /// Whether state is wanted besides.
        state: bool,
    },
    /// Everything after a place.
    Since {
        /// The place.
        place: Place,
        /// Whether state is wanted if that is not there any more.
        state: bool,
    },
}

/// What a topic has for a subscriber, in the order in which it is to be sent.
#[derive(Default, Debug)]
pub struct Recalled {
    /// For [`Recall::Since`]: whether everything after the place is in this answer.
    pub recovered: Option<bool>,
    /// The window's first and last offset, for the case that not everything is sent; unless it is empty.
    pub available: Option<(Offset, Offset)>,
    /// Retained message, keys, or snapshot; oldest first.
    pub state: Option<Arc<[Arc<Message>]>>,
    /// Messages of the window, without gaps, up to the newest. What lies between a snapshot and the first is lost.
    pub replay: Vec<Arc<Message>>,
    /// State for the case that the connection has no room for all of `replay`: if the place was found, or there was none.
    pub instead: Option<Arc<[Arc<Message>]>>,
}

/// What the command `history` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryQuery {
    /// Only what comes after this place.
    pub since: Option<Place>,
    /// Only what comes before it.
    pub before: Option<Place>,
    /// Most messages of the answer.
    pub limit: u32,
    /// Newest first.
    pub reverse: bool,
}

/// The answer.
#[derive(Debug)]
pub struct Page {
    /// Whether everything after `since` that was asked for is there; `None` without `since`.
    pub recovered: Option<bool>,
    /// In the order that was asked for.
    pub messages: Vec<Arc<Message>>,
    /// Whether there are more of them.
    pub more: bool,
}

/// Messages of one page have so many bytes at most, unless it is a single one: its answer is written as a whole.
const PAGE_BYTES_MAX: u64 = 512 << 10;

/// A topic at one moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::sequencer) struct Now {
    pub(in crate::sequencer) epoch: Epoch,
    pub(in crate::sequencer) next: Offset,
    pub(in crate::sequencer) time: Nanos,
}

impl History {
    /// What a subscriber is given. One that asks for a place may replay `bytes_max` at most.
    pub(in crate::sequencer) fn recall(&mut self, recall: Recall, rule: &Rule, now: Now, bytes_max: u64) -> Recalled {
        self.expire(rule, now.time);
        match recall {
            Recall::State => self.newcomer(now.time, bytes_max),
            Recall::Last { count, state: state_wanted } => {
                let replay: Vec<_> = self.window.newest(count as usize, bytes_max).cloned().collect();
                let first = replay.first().map_or(now.next, |first| first.offset);
                let older = |message: &Arc<Message>| message.offset < first;
                let state = match self.keyed() {
                    _ if !state_wanted => None,
                    Some(_) => Some(self.shown(now.time)),
                    None => list(self.retained.iter().filter(|message| older(message)).cloned()),
                };
                let instead = if state_wanted { list(self.retained.iter().cloned()) } else { None };
                Recalled { state, replay, instead, ..Recalled::default() }
            }
            Recall::Since { place, state } => self.since(place, state, now, bytes_max),
        }
    }

    fn since(&mut self, place: Place, state: bool, now: Now, bytes_max: u64) -> Recalled {
        let is_known = place.epoch == now.epoch && place.offset < now.next;
        if is_known && place.offset + 1 == now.next {
            return Recalled { recovered: Some(true), ..Recalled::default() };
        }
        if is_known && let Some(keyed) = self.keyed() {
            if let Some(changed) = keyed.since(place.offset, now.time) {
                return Recalled { recovered: Some(true), state: Some(changed), ..Recalled::default() };
            }
        } else if is_known && state && self.snapshot_up_to().is_some_and(|up_to| place.offset < up_to) {
            let recalled = self.newcomer(now.time, bytes_max);
            let first = recalled.replay.first().map_or(now.next, |message| message.offset);
            let recovered = self.snapshot_up_to().is_some_and(|up_to| first == up_to + 1);
            return Recalled { recovered: Some(recovered), available: self.available(), ..recalled };
        } else if is_known && self.window.first().is_some_and(|first| first <= place.offset + 1) {
            let replay: Vec<_> = self.window.from(place.offset + 1).cloned().collect();
            if replay.iter().map(|message| message.weight()).sum::<u64>() <= bytes_max {
                let instead = if state { self.newcomer(now.time, 0).state } else { None };
                let available = self.available();
                return Recalled { recovered: Some(true), available, replay, instead, ..Recalled::default() };
            }
        }
        let newcomer = if state { self.newcomer(now.time, bytes_max) } else { Recalled::default() };
        Recalled { recovered: Some(false), available: self.available(), ..newcomer }
    }

    /// What newcomers are given: keys, a retained message, or a snapshot and the window behind it.
    fn newcomer(&mut self, now: Nanos, bytes_max: u64) -> Recalled {
        if let Some(snapshot) = self.snapshot() {
            let replay: Vec<_> = self.window.newest(usize::MAX, bytes_max).cloned().collect();
            return Recalled { state: list([Arc::clone(snapshot)]), replay, ..Recalled::default() };
        }
        let state = Some(self.shown(now)).filter(|state| !state.is_empty());
        Recalled { state, ..Recalled::default() }
    }

    /// The newest message of each key, oldest first, or the retained message.
    pub(in crate::sequencer) fn shown(&mut self, now: Nanos) -> Arc<[Arc<Message>]> {
        if let Some(keyed) = self.keyed_mut() {
            return keyed.all(now);
        }
        let retained = self.retained.iter().filter(|retained| retained.expires_at().is_none_or(|at| at > now));
        retained.cloned().collect()
    }

    fn available(&self) -> Option<(Offset, Offset)> {
        Some((self.window.first()?, self.window.last()?))
    }

    /// What the command `history` is answered.
    pub(in crate::sequencer) fn page(&mut self, query: &HistoryQuery, rule: &Rule, now: Now) -> Page {
        self.expire(rule, now.time);
        let known = query.since.filter(|place| place.epoch == now.epoch && place.offset < now.next);
        let from = known.map_or(Offset(1), |place| place.offset + 1);
        let to = match query.before {
            None => now.next,
            Some(place) if place.epoch == now.epoch => place.offset.min(now.next),
            Some(_) => Offset(0),
        };
        let (mut messages, complete) = match self.keyed_mut() {
            Some(keyed) => {
                let changed = known.and_then(|place| keyed.since(place.offset, now.time));
                let complete = changed.is_some();
                let all = changed.unwrap_or_else(|| keyed.all(now.time));
                let [from, to] = [from, to].map(|at| all.partition_point(|message| message.offset < at));
                (all[from.min(to)..to].to_vec(), complete)
            }
            None => {
                let complete = self.window.first().unwrap_or(now.next) <= from;
                (self.window_part(from, to, query), complete)
            }
        };
        if query.reverse {
            messages.reverse();
        }
        let found = messages.len();
        messages.truncate(query.limit as usize);
        let mut bytes = 0;
        let fits = messages.iter().take_while(|message| {
            bytes += message.weight();
            bytes <= PAGE_BYTES_MAX
        });
        // One is given however long it is: else nobody could read on.
        let fits = fits.count().max(1);
        messages.truncate(fits);
        let more = messages.len() < found;
        let recovered = query.since.map(|_| known.is_some() && complete);
        Page { recovered, messages, more }
    }

    /// Messages of the window in these bounds, oldest first, and no more than one beyond the query's limit.
    fn window_part(&self, from: Offset, to: Offset, query: &HistoryQuery) -> Vec<Arc<Message>> {
        let from = self.window.from(from);
        let Some(first) = from.clone().next().map(|first| first.offset).filter(|first| *first < to) else {
            return Vec::new();
        };
        let count = from.clone().count().min(usize::try_from(to - first).unwrap_or(usize::MAX));
        let taken = count.min(query.limit as usize + 1);
        from.skip(if query.reverse { count - taken } else { 0 }).take(taken).cloned().collect()
    }
}

fn list(messages: impl IntoIterator<Item = Arc<Message>>) -> Option<Arc<[Arc<Message>]>> {
    let list: Arc<[Arc<Message>]> = messages.into_iter().collect();
    (!list.is_empty()).then_some(list)
}
