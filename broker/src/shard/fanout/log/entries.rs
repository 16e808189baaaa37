//! The messages of a log, by position: all of them, or the newest of each key.
//!
//! Positions are given in the order of arrival and never change. With `slow-consumer = "latest"` a message that has been
//! superseded by another one of its topic and key is dropped at once: its position is passed over by those that had not been
//! sent it. So such a log holds one message per key at most, however long somebody takes nothing. Messages without a key supersede
//! each other. Markers of a new epoch supersede nothing, and nothing supersedes them.
//!
//! Sizes are bytes of memory: a message, and its entry here. Cost: a push onto a queue; with `latest`, a look-up by key and two
//! changes of an ordered map.

use std::collections::{BTreeMap, HashMap, VecDeque, btree_map, vec_deque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::capacity::budget;
use crate::ids::Seq;
use crate::message::Message;
use crate::topics::keys::Keys;

/// What a message takes in a queue, on top of itself: the queue has room for up to twice as many.
const ENTRY_BYTES: u64 = 2 * size_of::<Entry>() as u64;
/// What it takes in the ordered map and in the table of keys.
const LATEST_ENTRY_BYTES: u64 = 96;

/// See the file's head.
#[derive(Debug)]
pub(super) enum Entries {
    All(Queue),
    Latest(Box<Latest>),
}

/// All messages, from the position `tail` on.
#[derive(Default, Debug)]
pub(super) struct Queue {
    list: VecDeque<Entry>,
    tail: Seq,
    /// Cumulative bytes before `tail`.
    tail_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    /// Cumulative bytes up to and with this message.
    end: u64,
}

/// The newest message of each topic and key.
///
/// Invariants: `newest` has each message that is no marker, once; `bytes` is what `list` weighs, and `bytes_behind` what of it
/// has a position from `behind` on.
#[derive(Debug)]
pub(super) struct Latest {
    list: BTreeMap<Seq, Arc<Message>>,
    newest: HashMap<ByKey, Seq, Keys>,
    head: Seq,
    bytes: u64,
    behind: Seq,
    bytes_behind: u64,
}

/// A message in the table of keys.
#[derive(Debug)]
struct ByKey(Arc<Message>);

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.topic_id.hash(state);
        self.0.key().hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic_id == other.0.topic_id && self.0.key() == other.0.key()
    }
}

impl Eq for ByKey {}

impl Entries {
    /// None yet: all that will come.
    pub(super) fn all() -> Self {
        Self::All(Queue::default())
    }

    /// None yet: the newest of each key, which is hashed under `keys`.
    pub(super) fn latest(keys: Keys) -> Self {
        Self::Latest(Box::new(Latest {
            list: BTreeMap::new(),
            newest: HashMap::with_hasher(keys),
            head: Seq::default(),
            bytes: 0,
            behind: Seq::default(),
            bytes_behind: 0,
        }))
    }

    /// Adds a message at the head.
    pub(super) fn push(&mut self, message: Arc<Message>) {
        match self {
            Self::All(queue) => {
                let end = queue.head_bytes() + message.weight() + ENTRY_BYTES;
                queue.list.push_back(Entry { message, end });
            }
            Self::Latest(latest) => latest.push(message),
        }
    }

    /// Forgets messages before `keep`, which is at most the head.
    pub(super) fn trim(&mut self, keep: Seq) {
        match self {
            Self::All(queue) => {
                while queue.tail < keep {
                    let entry = queue.list.pop_front().expect("the tail is below the head");
                    queue.tail += 1;
                    queue.tail_bytes = entry.end;
                }
            }
            Self::Latest(latest) => {
                while latest.tail() < keep && !latest.list.is_empty() {
                    latest.remove(latest.tail());
                }
            }
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        match self {
            Self::All(queue) => {
                queue.tail_bytes = queue.head_bytes();
                queue.tail += queue.list.len() as u64;
                queue.list.clear();
                if queue.list.capacity() > 64 {
                    queue.list.shrink_to(16);
                }
            }
            Self::Latest(latest) => {
                latest.list.clear();
                latest.newest.clear();
                latest.newest.shrink_to(64);
                (latest.bytes, latest.behind, latest.bytes_behind) = (0, latest.head, 0);
            }
        }
    }

    /// The position that the next message gets.
    pub(super) fn head(&self) -> Seq {
        match self {
            Self::All(queue) => queue.tail + queue.list.len() as u64,
            Self::Latest(latest) => latest.head,
        }
    }

    /// The lowest position that is kept, or the head.
    pub(super) fn tail(&self) -> Seq {
        match self {
            Self::All(queue) => queue.tail,
            Self::Latest(latest) => latest.tail(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::All(queue) => queue.list.is_empty(),
            Self::Latest(latest) => latest.list.is_empty(),
        }
    }

    /// Whether messages that were superseded are dropped.
    pub(super) fn are_latest(&self) -> bool {
        matches!(self, Self::Latest(_))
    }

    /// What is kept from a position on, oldest first.
    ///
    /// # Panics
    /// If the position is outside the log.
    pub(super) fn pending(&self, from: Seq) -> Pending<'_> {
        match self {
            Self::All(queue) => Pending(Kept::All(from, queue.list.range(queue.index(from)..))),
            Self::Latest(latest) => Pending(Kept::Latest(latest.list.range(from..))),
        }
    }

    // ---- sizes

    /// Bytes of messages kept.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::All(queue) => queue.head_bytes() - queue.tail_bytes,
            Self::Latest(latest) => latest.bytes,
        }
    }

    /// Bytes of messages kept from a position on. With `latest` linear in them, unless that is all or nothing.
    pub(super) fn bytes_from(&self, from: Seq) -> u64 {
        match self {
            Self::All(queue) => queue.head_bytes() - queue.bytes_before(from),
            Self::Latest(latest) => latest.bytes_from(from),
        }
    }

    /// Whether a position needs everything that is kept.
    pub(super) fn needs_all(&self, from: Seq) -> bool {
        from <= self.tail()
    }

    /// Of all messages, the first one after which there are at most so many bytes.
    pub(super) fn newest_bytes(&self, bytes: u64) -> Option<Seq> {
        let Self::All(queue) = self else { return None };
        let begin = queue.head_bytes().saturating_sub(bytes);
        Some(queue.tail + queue.list.partition_point(|entry| entry.end < begin) as u64)
    }

    /// Everybody that keeps up is at `position`: what [`Entries::bytes_behind`] counts from.
    pub(super) fn set_behind(&mut self, position: Seq) {
        if let Self::Latest(latest) = self
            && latest.behind < position
        {
            latest.bytes_behind = latest.bytes_from(position);
            latest.behind = position;
        }
    }

    /// Bytes of messages kept from there on.
    pub(super) fn bytes_behind(&self, position: Seq) -> u64 {
        match self {
            Self::All(_) => self.bytes_from(position.max(self.tail())),
            Self::Latest(latest) => latest.bytes_behind,
        }
    }

    /// What the lists take.
    pub(super) fn list_bytes(&self) -> u64 {
        match self {
            Self::All(queue) => budget::allocated(queue.list.capacity() * size_of::<Entry>()),
            Self::Latest(latest) => {
                let keys = latest.newest.capacity() * (size_of::<(ByKey, Seq)>() + 1);
                size_of::<Latest>() as u64 + latest.list.len() as u64 * 48 + budget::allocated(keys)
            }
        }
    }

    /// # Errors
    /// What does not hold of the file head's invariants.
    pub(super) fn invariants(&self) -> Result<(), &'static str> {
        let rules = match self {
            Self::All(queue) => vec![("sizes ascend", queue.list.iter().map(|entry| entry.end).is_sorted())],
            Self::Latest(latest) => {
                let is_newest = |(seq, message): (&Seq, &Arc<Message>)| {
                    message.begins().is_some() || latest.newest.get(&ByKey(Arc::clone(message))) == Some(seq)
                };
                let markers = latest.list.values().filter(|message| message.begins().is_some()).count();
                let sum = |from: Seq| latest.list.range(from..).map(|(_, message)| weight_of(message)).sum::<u64>();
                vec![
                    ("a key has its newest message", latest.list.iter().all(is_newest)),
                    ("a key has one message", latest.newest.len() + markers == latest.list.len()),
                    ("positions are below the head", latest.list.keys().all(|seq| *seq < latest.head)),
                    ("bytes are counted", latest.bytes == sum(Seq::default())),
                    ("bytes behind are counted", latest.bytes_behind == sum(latest.behind)),
                ]
            }
        };
        rules.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(rule, _)| Err(rule))
    }
}

impl Queue {
    fn head_bytes(&self) -> u64 {
        self.list.back().map_or(self.tail_bytes, |entry| entry.end)
    }

    fn index(&self, position: Seq) -> usize {
        usize::try_from(position - self.tail).expect("a log fits in memory")
    }

    fn bytes_before(&self, position: Seq) -> u64 {
        match self.index(position) {
            0 => self.tail_bytes,
            behind => self.list[behind - 1].end,
        }
    }
}

impl Latest {
    fn push(&mut self, message: Arc<Message>) {
        let seq = self.head;
        self.head += 1;
        if message.begins().is_none() {
            // The table's key has to be the message that is kept.
            if let Some((_, superseded)) = self.newest.remove_entry(&ByKey(Arc::clone(&message))) {
                let old = self.list.remove(&superseded).expect("the newest message of a key is kept");
                self.forget_weight(superseded, &old);
            }
            self.newest.insert(ByKey(Arc::clone(&message)), seq);
        }
        self.bytes += weight_of(&message);
        self.bytes_behind += weight_of(&message);
        self.list.insert(seq, message);
    }

    fn remove(&mut self, seq: Seq) {
        let Some(message) = self.list.remove(&seq) else { return };
        self.forget_weight(seq, &message);
        if message.begins().is_none() {
            self.newest.remove(&ByKey(message));
        }
    }

    fn forget_weight(&mut self, seq: Seq, message: &Message) {
        self.bytes -= weight_of(message);
        if seq >= self.behind {
            self.bytes_behind -= weight_of(message);
        }
    }

    fn tail(&self) -> Seq {
        self.list.first_key_value().map_or(self.head, |(seq, _)| *seq)
    }

    fn bytes_from(&self, from: Seq) -> u64 {
        match from {
            from if from <= self.tail() => self.bytes,
            from if from == self.head => 0,
            from => self.list.range(from..).map(|(_, message)| weight_of(message)).sum(),
        }
    }
}

fn weight_of(message: &Message) -> u64 {
    message.weight() + LATEST_ENTRY_BYTES
}

/// Messages with their positions, oldest first.
#[derive(Clone, Debug)]
pub struct Pending<'a>(Kept<'a>);

#[derive(Clone, Debug)]
enum Kept<'a> {
    /// All from a position on.
    All(Seq, vec_deque::Iter<'a, Entry>),
    /// The newest of each key.
    Latest(btree_map::Range<'a, Seq, Arc<Message>>),
}

impl<'a> Iterator for Pending<'a> {
    type Item = (Seq, &'a Arc<Message>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Kept::All(next, entries) => {
                let entry = entries.next()?;
                let seq = *next;
                *next += 1;
                Some((seq, &entry.message))
            }
            Kept::Latest(entries) => entries.next().map(|(seq, message)| (*seq, message)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Kept::All(_, entries) => entries.size_hint(),
            Kept::Latest(entries) => entries.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests;
