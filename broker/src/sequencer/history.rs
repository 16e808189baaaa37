//! What one topic remembers: a window of its newest messages or the newest message of each key, a retained message, a
//! snapshot, and the idempotency keys of its last publishes. The topic's [`Rule`] says how much.
//!
//! | file | what |
//! | --- | --- |
//! | `window` | the newest messages |
//! | `keyed` | the newest message of each key, and which keys were removed |
//! | `recent` | idempotency keys |
//! | `figures` | how much of all that there is |
//! | `recall` | what a subscriber, or the command `history`, is given of all that |
//!
//! Messages are shared by reference with the logs that deliver them and the connections that replay them. So what a
//! subscriber was given stays whole for it, whatever is forgotten here meanwhile.
//!
//! Not responsible for the bound over all topics (`ledger`), nor for who is sent what.
//!
//! Invariants (`History::invariants`): the window's offsets are dense and end with the topic's newest message; a snapshot
//! lies before the window.

pub mod figures;
pub(super) mod keyed;
pub mod recall;
mod recent;
#[cfg(test)]
mod tests;
pub(super) mod window;

use std::sync::Arc;

use ring::{Nanos, nanos};

use crate::ids::Offset;
use crate::message::Message;
use crate::message::options::{Expected, PublishOptions, Refusal};
use crate::sequencer::history::keyed::{KeyBounds, KeyedState};
use crate::sequencer::history::recent::Recent;
use crate::sequencer::history::window::{Bounds, Window};
use crate::topics::keys::Keys;
use crate::topics::rules::{self, Retain, Rule};

/// See the file's head. Most topics have a window or a retained message and nothing else, and there may be millions.
#[derive(Default, Debug)]
pub(super) struct History {
    window: Window,
    retained: Option<Arc<Message>>,
    rare: Option<Box<Rare>>,
}

/// What few topics have.
#[derive(Default, Debug)]
struct Rare {
    keyed: Option<Box<KeyedState>>,
    snapshot: Option<Arc<Message>>,
    recent: Option<Box<Recent>>,
}

/// What a history takes: bytes and entries that are bounded over all topics.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Size {
    /// Of messages in windows, and of idempotency keys: evicted when there is no room.
    pub(super) window_bytes: u64,
    /// Of keys, retained messages and snapshots: refused when there is no room.
    pub(super) state_bytes: u64,
    /// Keys, retained messages and snapshots.
    pub(super) state_entries: u64,
    /// Of those bytes, what is not part of messages: lists, tables, idempotency keys.
    pub(super) overhead_bytes: u64,
}

/// What a topic takes in the lists of those that remember something: the one of topics with state, in the order of names,
/// and those of the ledger.
const LISTED_BYTES: u64 = 64;
/// What is rare takes by itself.
const RARE_BYTES: u64 = size_of::<Rare>().next_multiple_of(16) as u64;

impl Size {
    /// Adds what another history takes.
    pub(super) fn add(&mut self, other: Self) {
        self.window_bytes += other.window_bytes;
        self.state_bytes += other.state_bytes;
        self.state_entries += other.state_entries;
        self.overhead_bytes += other.overhead_bytes;
    }
}

/// By how much state becomes larger.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Growth {
    pub(super) entries: u64,
    /// Bytes that come, and bytes that go.
    pub(super) added: u64,
    pub(super) freed: u64,
}

impl Growth {
    /// An entry of `added` bytes takes the place of one of `freed`, if there is one.
    fn add(&mut self, added: u64, freed: Option<u64>) {
        self.entries += u64::from(freed.is_none());
        self.added += added;
        self.freed += freed.unwrap_or(0);
    }
}

impl History {
    // ---- publishing

    /// The offset that a publish with this idempotency key got before.
    pub(super) fn find_duplicate(&self, key: &str, now: Nanos) -> Option<Offset> {
        self.recent()?.find(key, now)
    }

    /// Whether a publish with these options and this weight is possible, as far as this topic decides. `next` is the
    /// offset that it would get.
    pub(super) fn check(
        &self,
        options: &PublishOptions,
        weight: u64,
        rule: &Rule,
        next: Offset,
        now: Nanos,
    ) -> Result<(), Refusal> {
        let is_keyed = matches!(rule.history, rules::History::Keyed { .. });
        let key = options.key.as_deref().unwrap_or_default();
        if options.retain && rule.retain == Retain::Never {
            return Err(Refusal::Unsupported("the topic's rule says retain = \"never\""));
        }
        if options.removed && !is_keyed && !options.retain {
            return Err(Refusal::Unsupported(
                "\"removed\" needs a keyed topic, or \"retain\" for the retained message",
            ));
        }
        if let Some(expected) = options.if_offset {
            let newest = match is_keyed {
                true => self.keyed().and_then(|keyed| keyed.offset_of(key, now)).map_or(0, |offset| offset.0),
                false => next.0 - 1,
            };
            let expected = match expected {
                Expected::Absent => 0,
                Expected::Offset(offset) => offset,
            };
            if expected != newest {
                return Err(Refusal::Conflict { offset: newest });
            }
        }
        match (key_bounds(rule), self.keyed()) {
            (Some(bounds), _) if weight > bounds.bytes_max && !options.removed => {
                Err(Refusal::Limit("the message is larger than the topic's rule allows (history-bytes)"))
            }
            (Some(bounds), Some(keyed)) if !options.removed => {
                keyed.admits(key, weight, bounds).map_err(Refusal::Limit)
            }
            _ => Ok(()),
        }
    }

    /// By how much a publish with these options and this weight would make the state larger. A removal may take more than
    /// what it removes; it is forgotten if there is no room for that.
    pub(super) fn growth(&self, options: &PublishOptions, weight: u64, rule: &Rule) -> Growth {
        let mut growth = Growth::default();
        if options.removed {
            return growth;
        }
        let is_keyed = matches!(rule.history, rules::History::Keyed { .. });
        if !is_keyed && (options.retain || rule.retain == Retain::Always) {
            growth.add(weight, self.retained.as_ref().map(|retained| retained.weight()));
        }
        if is_keyed {
            let key = options.key.as_deref().unwrap_or_default();
            growth.add(weight + keyed::ENTRY_BYTES, self.keyed().and_then(|keyed| keyed.bytes_of(key)));
        }
        growth
    }

    /// By how much a snapshot of this weight would make the state larger.
    pub(super) fn growth_by_snapshot(&self, weight: u64) -> Growth {
        let mut growth = Growth::default();
        growth.add(weight, self.snapshot().map(|snapshot| snapshot.weight()));
        growth
    }

    /// The topic's newest message is remembered, as far as its rule says. `retain`: its publisher asked for it to be
    /// retained.
    pub(super) fn remember(&mut self, message: &Arc<Message>, rule: &Rule, retain: bool, keys: Keys) {
        let now = message.sequenced_at;
        match rule.history {
            rules::History::None => {}
            rules::History::Window { .. } => self.window.push(Arc::clone(message), bounds(rule), now),
            rules::History::Keyed { .. } => {
                // What was forgotten with the state before this one is not known any more.
                let floor = Offset(message.offset.0 - 1);
                let keyed = self.rare().keyed.get_or_insert_with(|| Box::new(KeyedState::new(keys, floor)));
                let bounds = key_bounds(rule).expect("a keyed rule");
                keyed.put(message, bounds);
                keyed.expire(bounds, now);
            }
        }
        match rule.retain {
            // The entry of its key is what newcomers are shown: beside it, a retained message could only be out of date.
            _ if self.keyed().is_some() => {}
            Retain::Never => {}
            Retain::Flag | Retain::Always if retain && message.is_removal() => self.retained = None,
            Retain::Flag if !retain => {}
            Retain::Flag | Retain::Always => self.retained = Some(Arc::clone(message)),
        }
    }

    /// Remembers under which idempotency key a message was published.
    pub(super) fn remember_key(&mut self, key: &str, offset: Offset, keys: Keys, now: Nanos) {
        self.rare().recent.get_or_insert_with(|| Box::new(Recent::new(keys))).add(key, offset, now);
    }

    /// Forgets which keys were removed: there is no room.
    pub(super) fn forget_removals(&mut self) {
        if let Some(keyed) = self.keyed_mut() {
            keyed.forget_removals();
        }
    }

    /// A snapshot replaces the one before, and the messages that it stands for.
    pub(super) fn set_snapshot(&mut self, snapshot: Arc<Message>) {
        self.window.drop_up_to(snapshot.offset);
        self.rare().snapshot = Some(snapshot);
    }

    /// Up to which offset the snapshot stands for the topic's messages.
    pub(super) fn snapshot_up_to(&self) -> Option<Offset> {
        self.snapshot().map(|snapshot| snapshot.offset)
    }

    // ---- forgetting

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, rule: &Rule, now: Nanos) {
        self.window.expire(nanos(rule.history_ttl), now);
        if let (Some(keyed), Some(bounds)) = (self.keyed_mut(), key_bounds(rule)) {
            keyed.expire(bounds, now);
        }
        if self.retained.as_ref().is_some_and(|retained| retained.expires_at().is_some_and(|at| at <= now)) {
            self.retained = None;
        }
        if let Some(rare) = &mut self.rare {
            rare.recent.take_if(|recent| {
                recent.expire(now);
                recent.is_empty()
            });
        }
    }

    /// Forgets what may be forgotten when there is no room: the window and the idempotency keys.
    pub(super) fn evict(&mut self) {
        self.window.clear();
        if let Some(rare) = &mut self.rare {
            rare.recent = None;
        }
    }

    /// With its last entry a topic forgets how it came to that.
    pub(super) fn reset_if_empty(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    // ---- getters

    /// When something is too old next.
    pub(super) fn due(&self, rule: &Rule) -> Option<Nanos> {
        let ttl = nanos(rule.history_ttl);
        let window = self.window.oldest_at().filter(|_| ttl > 0).map(|at| at.saturating_add(ttl));
        let keyed = self.keyed().zip(key_bounds(rule)).and_then(|(keyed, bounds)| keyed.due(bounds));
        let retained = self.retained.as_ref().and_then(|retained| retained.expires_at());
        let recent = self.recent().and_then(|recent| recent.due());
        [window, keyed, retained, recent].into_iter().flatten().min()
    }

    /// Whether it has something that newcomers are shown.
    pub(super) fn has_state(&self) -> bool {
        self.retained.is_some()
            || self.rare.as_ref().is_some_and(|rare| {
                rare.snapshot.is_some() || rare.keyed.as_ref().is_some_and(|keyed| keyed.has_live())
            })
    }

    /// Whether it has something that makes its topic worth keeping.
    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty() && self.retained.is_none() && self.rare.as_ref().is_none_or(|rare| rare.is_empty())
    }

    /// Whether eviction would free something.
    pub(super) fn is_evictable(&self) -> bool {
        !self.window.is_empty() || self.recent().is_some()
    }

    /// What it takes.
    pub(super) fn size(&self) -> Size {
        if self.is_empty() {
            return Size::default();
        }
        let weight = |message: Option<&Arc<Message>>| message.map_or(0, |message| message.weight());
        let (retained, window) = (self.retained.as_ref(), &self.window);
        let plain = Size {
            window_bytes: window.bytes(),
            state_bytes: weight(retained),
            state_entries: u64::from(retained.is_some()),
            overhead_bytes: LISTED_BYTES + window.overhead_bytes(),
        };
        let Some(rare) = &self.rare else { return plain };
        let (snapshot, keyed) = (rare.snapshot.as_ref(), rare.keyed.as_ref());
        let recent = rare.recent.as_ref().map_or(0, |recent| recent.bytes());
        Size {
            window_bytes: plain.window_bytes + recent,
            state_bytes: plain.state_bytes + weight(snapshot) + keyed.map_or(0, |keyed| keyed.bytes()),
            state_entries: plain.state_entries
                + u64::from(snapshot.is_some())
                + keyed.map_or(0, |keyed| keyed.live() as u64),
            overhead_bytes: plain.overhead_bytes
                + RARE_BYTES
                + recent
                + keyed.map_or(0, |keyed| keyed.overhead_bytes()),
        }
    }

    /// Every message that is kept, some more than once.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Arc<Message>> {
        let keyed = self.keyed().into_iter().flat_map(|keyed| keyed.iter());
        self.window.iter().chain(&self.retained).chain(self.snapshot()).chain(keyed)
    }

    /// See the file's head. `next` is the offset of the topic's next message.
    pub(super) fn invariants(&self, next: Offset) -> Result<(), &'static str> {
        let offsets: Vec<u64> = self.window.iter().map(|message| message.offset.0).collect();
        let rules = [
            ("the window is dense", offsets.windows(2).all(|pair| pair[0] + 1 == pair[1])),
            ("the window ends with the newest", offsets.last().is_none_or(|last| last + 1 == next.0)),
            (
                "a snapshot lies before the window",
                self.snapshot_up_to()
                    .is_none_or(|up_to| up_to < next && self.window.first().is_none_or(|first| first > up_to)),
            ),
        ];
        if let Some((rule, _)) = rules.iter().find(|(_, holds)| !holds) {
            return Err(rule);
        }
        self.keyed().map_or(Ok(()), |keyed| keyed.invariants())
    }

    // ---- what is rare

    fn keyed(&self) -> Option<&KeyedState> {
        self.rare.as_ref()?.keyed.as_deref()
    }

    fn keyed_mut(&mut self) -> Option<&mut KeyedState> {
        self.rare.as_mut()?.keyed.as_deref_mut()
    }

    fn snapshot(&self) -> Option<&Arc<Message>> {
        self.rare.as_ref()?.snapshot.as_ref()
    }

    fn recent(&self) -> Option<&Recent> {
        self.rare.as_ref()?.recent.as_deref()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.recent.is_none() && self.snapshot.is_none() && self.keyed.as_ref().is_none_or(|keyed| keyed.is_empty())
    }
}

/// What a rule allows a window.
fn bounds(rule: &Rule) -> Bounds {
    let (messages_max, bytes_max) = match rule.history {
        rules::History::Window { messages_max, bytes_max } => (messages_max, bytes_max),
        rules::History::None | rules::History::Keyed { .. } => (0, 0),
    };
    Bounds { messages_max, bytes_max, ttl: nanos(rule.history_ttl) }
}

/// What a rule allows keys.
fn key_bounds(rule: &Rule) -> Option<KeyBounds> {
    let rules::History::Keyed { keys_max, bytes_max, tombstone_ttl } = rule.history else { return None };
    Some(KeyBounds { keys_max, bytes_max, ttl: nanos(rule.history_ttl), tombstone_ttl: nanos(tombstone_ttl) })
}
