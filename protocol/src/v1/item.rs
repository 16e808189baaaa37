//! Items: what one HTTP request, or one line of one, publishes. An item is a `publish` command without `type`, `id` and
//! `ack`; with `topics` it is published to several topics. So both have the same rules.
//!
//! [`split`] finds the items of a batch, `{"messages": [...]}`, without reading them: each is then parsed by itself
//! ([`Parser::parse_item`](super::Parser::parse_item)), so memory is that of the longest item.

use std::borrow::Cow;
use std::ops::Range;

use simd_json::Node;

use super::command::{CommandError, Scratch, Topics};
use super::json::{self, plain_len};
use super::members::{Fault, Members, missing, wrong_type};
use super::names::Member;
use super::options::PublishOptions;
use super::{ErrorCode, PayloadKind};
use crate::topic::check_name;

/// How many topics one item may be published to.
pub const ITEM_TOPICS_MAX: usize = 1000;

/// One thing to be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    /// Valid names, at least one, at most [`ITEM_TOPICS_MAX`].
    pub topics: Topics<'a>,
    /// It has `topics`, so its result is a list.
    pub is_broadcast: bool,
    /// What `data` is.
    pub kind: PayloadKind,
    /// The payload.
    pub data: &'a [u8],
    /// What else it asks for.
    pub options: PublishOptions<'a>,
}

/// The members of an item.
const MEMBERS: [Member; 11] = [
    Member::Topic,
    Member::Topics,
    Member::Data,
    Member::Encoding,
    Member::Key,
    Member::Retain,
    Member::Removed,
    Member::Ttl,
    Member::IdempotencyKey,
    Member::IfOffset,
    Member::Lease,
];

/// Turns a parsed item into what it publishes.
pub(super) fn interpret<'a>(
    nodes: &[Node<'a>],
    topic_len_max: usize,
    scratch: &'a mut Scratch,
) -> Result<Item<'a>, CommandError> {
    read(nodes, topic_len_max, scratch).map_err(|fault| fault.of(None))
}

fn read<'a>(nodes: &[Node<'a>], topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Item<'a>, Fault> {
    if json::members(nodes).is_none() {
        return Err(Fault::command("An item is a JSON object."));
    }
    let mut members = Members::default();
    members.read(nodes)?;
    members.all_are(|member| MEMBERS.contains(&member), "An item")?;
    let is_broadcast = members.get(Member::Topics).is_some();
    topics(&members, topic_len_max, scratch)?;
    let options = members.options()?;
    if is_broadcast && options.if_offset.is_some() {
        return Err(Fault::command("\"if_offset\" needs a \"topic\"."));
    }
    if is_broadcast && options.lease.is_some() {
        return Err(Fault::command("\"lease\" needs a \"topic\"."));
    }
    let (topics, data) = scratch.split();
    let (kind, data) = members.published(&options, data)?;
    Ok(Item { topics, is_broadcast, kind, data, options })
}

/// Collects `topic` or `topics`.
fn topics(members: &Members<'_, '_>, topic_len_max: usize, scratch: &mut Scratch) -> Result<(), Fault> {
    let list = || wrong_type(Member::Topics, "an array of 1 to 1000 strings");
    let mut rest = match (members.string(Member::Topic)?, members.get(Member::Topics)) {
        (Some(_), Some(_)) => return Err(Fault::command("The item has both \"topic\" and \"topics\".")),
        (None, None) => return Err(missing(Member::Topic)),
        (Some(topic), None) => {
            check_name(topic, topic_len_max)?;
            scratch.push_topic(topic);
            return Ok(());
        }
        (None, Some([Node::Array { len: 1..=ITEM_TOPICS_MAX, .. }, topics @ ..])) => topics,
        (None, Some(_)) => return Err(list()),
    };
    while let Some((node, after)) = rest.split_first() {
        let Node::String(topic) = node else { return Err(list()) };
        check_name(topic, topic_len_max)?;
        scratch.push_topic(topic);
        rest = after;
    }
    Ok(())
}

/// Where the items of a batch are in its text, of which there may be `items_max`. What is found may not be JSON yet: only
/// where it ends is certain.
///
/// # Errors
/// The text is no batch.
pub fn split(text: &[u8], items_max: usize) -> Result<Vec<Range<usize>>, CommandError> {
    Splitter { text, at: 0 }.batch(items_max).map_err(|fault| fault.of(None))
}

struct Splitter<'a> {
    text: &'a [u8],
    at: usize,
}

impl Splitter<'_> {
    fn batch(&mut self, items_max: usize) -> Result<Vec<Range<usize>>, Fault> {
        let shape = || Fault::command("A batch is an object with one member, \"messages\", an array of items.");
        match self.next() {
            Some(b'{') => {}
            Some(_) => return Err(shape()),
            None => return Err(not_json()),
        }
        let is_named = self.next() == Some(b'"') && self.text[self.at..].starts_with(b"messages\"");
        if !is_named {
            return Err(shape());
        }
        self.at += b"messages\"".len();
        self.expect(b':')?;
        if self.next() != Some(b'[') {
            return Err(shape());
        }
        let items = self.items(items_max)?;
        match self.next() {
            Some(b'}') if self.next().is_none() => Ok(items),
            Some(b',') => Err(shape()),
            _ => Err(not_json()),
        }
    }

    /// What stands between the brackets.
    fn items(&mut self, items_max: usize) -> Result<Vec<Range<usize>>, Fault> {
        let mut items = Vec::new();
        loop {
            let Some(byte) = self.next() else { return Err(not_json()) };
            if byte == b']' && items.is_empty() {
                return Ok(items);
            }
            if items.len() == items_max {
                let reason = format!("A batch has at most {items_max} items.");
                return Err(Fault::new(ErrorCode::TooBig, reason));
            }
            self.at -= 1;
            let from = self.at;
            self.skip_value();
            items.push(from..self.at);
            match self.next() {
                Some(b',') => {}
                Some(b']') => return Ok(items),
                _ => return Err(not_json()),
            }
        }
    }

    /// Goes behind the value that begins here, if it is one: to the end of its brackets, or before what follows a scalar.
    fn skip_value(&mut self) {
        let mut depth = 0;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => self.skip_string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' | b',' if depth == 0 => return,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        loop {
            self.at += plain_len(&self.text[self.at.min(self.text.len())..]);
            match self.text.get(self.at) {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => self.at = (self.at + 2).min(self.text.len()),
                // Not allowed in a string: the parser of the item says so.
                Some(_) => self.at += 1,
                None => break,
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.next() == Some(byte) { Ok(()) } else { Err(not_json()) }
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        let blank = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.text[self.at..].iter().take_while(blank).count();
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

fn not_json() -> Fault {
    Fault::new(ErrorCode::BadJson, Cow::Borrowed("The batch is not one JSON value."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Parser;
    use super::*;

    fn items(text: &str) -> Result<Vec<&str>, ErrorCode> {
        let ranges = split(text.as_bytes(), 3).map_err(|error| error.code)?;
        Ok(ranges.into_iter().map(|range| &text[range]).collect())
    }

    #[test]
    fn items_of_a_batch() {
        assert_eq!(items(r#"{"messages":[]}"#), Ok(vec![]));
        assert_eq!(items(" { \"messages\" : [ {\"a\":1} ,\n 7 , [2,{}] ] } "), Ok(vec!["{\"a\":1}", "7 ", "[2,{}]"]));
        let tricky = r#"{"messages":[{"d":"]}\",{[\\"},"x"]}"#;
        assert_eq!(items(tricky), Ok(vec![r#"{"d":"]}\",{[\\"}"#, r#""x""#]));
        assert_eq!(items(r#"{"messages":[1,2,3,4]}"#), Err(ErrorCode::TooBig));
        for text in ["[]", "1", "{}", r#"{"message":[]}"#, r#"{"messages":{}}"#, r#"{"messages":[],"a":1}"#] {
            assert_eq!(items(text), Err(ErrorCode::BadCommand), "{text}");
        }
        for text in [
            "",
            " ",
            r#"{"messages":[1"#,
            r#"{"messages":[1}"#,
            r#"{"messages":[1]"#,
            r#"{"messages":[1]]"#,
            r#"{"messages":[1]}x"#,
            r#"{"messages":["a]}"#,
            r#"{"messages":["a\"#,
            r#"{"messages" [1]}"#,
        ] {
            assert_eq!(items(text), Err(ErrorCode::BadJson), "{text}");
        }
        // That these are no values is found when they are read.
        assert_eq!(items(r#"{"messages":[,]}"#), Ok(vec!["", ""]));
        assert_eq!(items(r#"{"messages":[1 2,]}"#), Ok(vec!["1 2", ""]));
    }

    #[test]
    fn an_item_is_a_publish_command_without_its_frame() {
        let read = |text: &str| {
            let mut parser = Parser::new();
            let mut text = text.as_bytes().to_vec();
            let item = parser.parse_item(&mut text, 10).map_err(|error| (error.code, error.reason.into_owned()))?;
            let topics: Vec<_> = item.topics.iter().map(str::to_owned).collect();
            Ok((topics, item.is_broadcast, item.kind, String::from_utf8_lossy(item.data).into_owned()))
        };
        let topics = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let one = |kind, data: &str| Ok((topics(&["t"]), false, kind, data.to_owned()));
        assert_eq!(read(r#"{"topic":"t","data":"x"}"#), one(PayloadKind::Text, "x"));
        assert_eq!(read(r#"{"topic":"t","data":{"a": [1, 2]}}"#), one(PayloadKind::Json, r#"{"a":[1,2]}"#));
        assert_eq!(read(r#"{"data":"eA==","encoding":"base64","topic":"t"}"#), one(PayloadKind::Binary, "x"));
        assert_eq!(read(r#"{"topic":"t","removed":true}"#), one(PayloadKind::Json, "null"));
        let broadcast = Ok((topics(&["a", "b"]), true, PayloadKind::Text, "x".to_owned()));
        assert_eq!(read(r#"{"topics":["a","b"],"data":"x"}"#), broadcast);
        let many = |n: usize| format!(r#"{{"topics":[{}],"data":"x"}}"#, vec!["\"a\""; n].join(","));
        assert_eq!(read(&many(1000)).map(|(topics, ..)| topics.len()), Ok(1000));
        for (text, code) in [
            (r#"{"topic":"t","data":"x""#, ErrorCode::BadJson),
            ("", ErrorCode::BadJson),
            (r#"{"topic":"t","data":"x"} 1"#, ErrorCode::BadJson),
            (r#"["t"]"#, ErrorCode::BadCommand),
            (r#"{"topic":"t","data":"x","id":1}"#, ErrorCode::BadCommand),
            (r#"{"topic":"t","data":"x","type":"publish"}"#, ErrorCode::BadCommand),
            (r#"{"topic":"t","data":"x","x":1}"#, ErrorCode::BadCommand),
            (r#"{"topic":"t","data":"x","data":"y"}"#, ErrorCode::BadCommand),
            (r#"{"topic":"t"}"#, ErrorCode::BadCommand),
            (r#"{"data":"x"}"#, ErrorCode::BadCommand),
            (r#"{"topic":1,"data":"x"}"#, ErrorCode::BadCommand),
            (r#"{"topic":"t","topics":["t"],"data":"x"}"#, ErrorCode::BadCommand),
            (r#"{"topics":[],"data":"x"}"#, ErrorCode::BadCommand),
            (r#"{"topics":["t",1],"data":"x"}"#, ErrorCode::BadCommand),
            (&many(1001), ErrorCode::BadCommand),
            (r#"{"topics":["t"],"data":"x","if_offset":1}"#, ErrorCode::BadCommand),
            (r#"{"topic":"t","data":"x","ttl":0}"#, ErrorCode::BadCommand),
            (r#"{"topic":"+","data":"x"}"#, ErrorCode::BadTopic),
            (r#"{"topics":["t",""],"data":"x"}"#, ErrorCode::BadTopic),
            (r#"{"topic":"longer than it may be","data":"x"}"#, ErrorCode::BadTopic),
            (r#"{"topic":"$sys","data":"x"}"#, ErrorCode::Forbidden),
            (r#"{"topics":["t"],"data":"x","lease":1}"#, ErrorCode::BadCommand),
        ] {
            assert_eq!(read(text).map_err(|(code, _)| code), Err(code), "{text}");
        }
    }

    /// JSON values and what may go wrong in them.
    fn parts() -> impl Strategy<Value = Vec<String>> {
        let value = r#"\{"a":("[a-z\]\}\{\[,]{0,9}"|[0-9]{1,3}|\[\]|\{"b":\[1,"\\"\]"\]\})\}|"x\\\\"|[0-9]{1,3}|null"#;
        prop::collection::vec(value, 0..5)
    }

    proptest! {
        /// Whatever stands in a batch comes out as it went in, cut at its ends.
        #[test]
        fn a_batch_is_split_where_its_values_end(parts in parts(), blank in "[ \n\t]{0,2}") {
            let text = format!("{{{blank}\"messages\":[{blank}{}{blank}]}}", parts.join(&format!("{blank},{blank}")));
            let found = split(text.as_bytes(), 9).expect("a batch");
            let found: Vec<_> = found.into_iter().map(|range| text[range].trim_end().to_owned()).collect();
            prop_assert_eq!(found, parts);
        }

        /// No text makes it look beyond its end, and what is taken for a batch and consists of JSON values is JSON.
        #[test]
        fn only_json_is_split_into_json(text in r#"\{"messages":\[([\[\]\{\}",:\\a1 ]{0,24})\]?\}?"#) {
            let whole = is_json(text.as_bytes());
            let split = split(text.as_bytes(), 99);
            let parts = split.map(|items| items.into_iter().all(|range| is_json(&text.as_bytes()[range])));
            prop_assert_eq!(parts.unwrap_or(false), whole);
        }
    }

    fn is_json(text: &[u8]) -> bool {
        simd_json::to_tape(&mut text.to_vec()).is_ok()
    }
}
