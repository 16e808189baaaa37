//! Places in topics: where a client says it stands, and where a subscription begins. Their JSON is read here.
//!
//! Not here: whether the broker still has what comes after a position. Offsets count messages; an epoch is a 64-bit
//! number that is written as 16 hexadecimal digits. Nothing allocates but a [`PositionList`], which is reused.

use std::ops::Range;

use bytes::BufMut;
use simd_json::Node;

use super::command::Topics;
use super::json::{self, put_hex, put_u64};

/// How many topics one subscribe may give positions for.
pub(super) const POSITIONS_MAX: usize = 128;

/// A place in a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The life of the topic's log; offsets of another epoch mean nothing here.
    pub epoch: u64,
    /// Of a message. In a client's position it is the last message that the client has, and 0 if it has none yet. In
    /// the answer to a subscribe it is the first message that the subscription delivers.
    pub offset: u64,
}

impl Position {
    /// Appends it as `EPOCH:OFFSET`, as ids of events have it.
    pub fn write_to(self, out: &mut impl BufMut) {
        put_hex(out, self.epoch);
        out.put_u8(b':');
        put_u64(out, self.offset);
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start<'a> {
    /// With the state and the messages to come.
    Now,
    /// After these positions; a topic that has none begins as with [`Self::Now`].
    Since(Positions<'a>),
    /// With the newest so many messages that the topic remembers, at least 1. No topic of the command has wildcards.
    Last(u32),
}

/// The positions of one subscribe, by topic. Each of their topics is one of the command's, which may have wildcards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Positions<'a> {
    names: &'a str,
    /// In the order of their names, each of which is there once.
    entries: &'a [Entry],
}

/// One topic's position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    /// The name is `names[from..to]`.
    from: usize,
    to: usize,
    position: Position,
}

impl Entry {
    fn name(&self) -> Range<usize> {
        self.from..self.to
    }
}

impl Positions<'_> {
    /// The position for this topic of the command, spelled as it is there.
    #[must_use]
    pub fn of(&self, topic: &str) -> Option<Position> {
        self.find(topic).map(|at| self.entries[at].position)
    }

    /// Whether each of their topics is one of `topics`.
    pub(super) fn are_of(&self, topics: Topics<'_>) -> bool {
        const { assert!(POSITIONS_MAX <= u128::BITS as usize) };
        let found = topics.iter().filter_map(|topic| self.find(topic)).fold(0_u128, |found, at| found | 1 << at);
        found.count_ones() as usize == self.entries.len()
    }

    fn find(&self, topic: &str) -> Option<usize> {
        self.entries.binary_search_by(|entry| self.names[entry.name()].cmp(topic)).ok()
    }
}

/// What [`Positions`] point into.
#[derive(Default)]
pub(super) struct PositionList {
    names: String,
    entries: Vec<Entry>,
}

impl PositionList {
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.entries.clear();
    }

    /// Room for names, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.names.capacity()
    }

    /// Adds one; not more than [`POSITIONS_MAX`].
    pub(super) fn push(&mut self, topic: &str, position: Position) {
        let from = self.names.len();
        self.names.push_str(topic);
        self.entries.push(Entry { from, to: self.names.len(), position });
    }

    /// Puts them in order; false if a topic is there twice. Comes between the last `push` and `positions`.
    pub(super) fn sort(&mut self) -> bool {
        let Self { names, entries } = self;
        entries.sort_unstable_by(|a, b| names[a.name()].cmp(&names[b.name()]));
        entries.windows(2).all(|pair| names[pair[0].name()] != names[pair[1].name()])
    }

    pub(super) fn positions(&self) -> Positions<'_> {
        Positions { names: &self.names, entries: &self.entries }
    }
}

/// The position that a JSON value is: `{"epoch": "16 digits", "offset": number}`, and nothing else.
pub(super) fn position(value: &[Node<'_>]) -> Option<Position> {
    let (mut epoch, mut offset) = (None, None);
    for (name, value) in json::members(value)? {
        let before = match name {
            "epoch" => epoch.replace(epoch_of(value)?),
            "offset" => offset.replace(json::whole(value)?),
            _ => return None,
        };
        if before.is_some() {
            return None;
        }
    }
    Some(Position { epoch: epoch?, offset: offset? })
}

fn epoch_of(value: &[Node<'_>]) -> Option<u64> {
    let [Node::String(text)] = value else { return None };
    let is_epoch = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_epoch.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Position> {
        let mut bytes = text.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut bytes).expect("JSON");
        position(&tape.0)
    }

    #[test]
    fn nothing_else_is_a_position() {
        let whole = r#"{"epoch":"00000000000000ff","offset":7}"#;
        assert_eq!(read(whole), Some(Position { epoch: 255, offset: 7 }));
        for text in [
            "1",
            "[]",
            "{}",
            r#""00000000000000ff:7""#,
            r#"{"epoch":"00000000000000ff"}"#,
            r#"{"offset":7}"#,
            r#"{"epoch":"00000000000000FF","offset":7}"#,
            r#"{"epoch":"+0000000000000ff","offset":7}"#,
            r#"{"epoch":"ff","offset":7}"#,
            r#"{"epoch":"000000000000000ff","offset":7}"#,
            r#"{"epoch":255,"offset":7}"#,
            r#"{"epoch":"00000000000000ff","offset":"7"}"#,
            r#"{"epoch":"00000000000000ff","offset":7,"offset":7}"#,
            r#"{"epoch":"00000000000000ff","epoch":"00000000000000ff","offset":7}"#,
            r#"{"epoch":"00000000000000ff","offset":7,"topic":"a"}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn positions_are_found_by_topic(
            topics in proptest::collection::btree_map("[a-c/]{1,3}", any::<u64>(), 0..30),
            asked in proptest::collection::vec("[a-c/]{1,3}", 0..30),
        ) {
            let mut list = PositionList::default();
            let position = |offset| Position { epoch: 1, offset };
            // Backwards, so that sorting has something to do.
            topics.iter().rev().for_each(|(topic, &offset)| list.push(topic, position(offset)));
            prop_assert!(list.sort());
            for topic in &asked {
                prop_assert_eq!(list.positions().of(topic), topics.get(topic).copied().map(position));
            }
            if let Some(topic) = topics.keys().next() {
                list.push(topic, position(0));
                prop_assert!(!list.sort());
            }
        }

        #[test]
        fn written_positions_read_back(epoch in any::<u64>(), offset in 0..1_u64 << 53, offset_first in any::<bool>()) {
            let (one, other) = (format!(r#""epoch":"{epoch:016x}""#), format!(r#""offset":{offset}"#));
            let [one, other] = if offset_first { [other, one] } else { [one, other] };
            prop_assert_eq!(read(&format!("{{ {one} ,{other}}}")), Some(Position { epoch, offset }));
        }
    }
}
