//! From the text of an item to what is published: with the rules of a `publish` command of `ringyard.v1`.
//!
//! Cost: one copy of the payload, into the frame that every raw subscriber shares; an allocation for the topic.

use std::cell::RefCell;
use std::sync::Arc;

use protocol::v1::{Item, Parser};

use crate::capacity::budget::{Account, Budget, Charge, Held, allocated};
use crate::config::limits::Limits;
use crate::message::Payload;
use crate::message::options::PublishOptions;
use crate::publishing::body::{no_room, too_long};
use crate::publishing::problem::Problem;

thread_local! {
    /// Buffers of a thread that serves HTTP.
    static PARSER: RefCell<Parser> = RefCell::new(Parser::new());
}

/// An item that may be published.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) topics: Topics,
    pub(crate) payload: Payload,
    pub(crate) options: Option<Box<PublishOptions>>,
}

/// Where an item is published to.
#[derive(Debug)]
pub(crate) enum Topics {
    /// One topic.
    One(Box<str>),
    /// Several, each of which has a result.
    Many(List),
}

/// Names one behind the other.
#[derive(Debug)]
pub(crate) struct List {
    text: String,
    ends: Vec<u32>,
    _charge: Charge,
}

impl List {
    fn new(topics: protocol::v1::Topics<'_>, account: &Arc<Account>) -> Self {
        let mut text = String::with_capacity(topics.iter().map(str::len).sum());
        let mut ends = Vec::with_capacity(topics.iter().len());
        for topic in topics.iter() {
            text.push_str(topic);
            ends.push(u32::try_from(text.len()).expect("an item is shorter"));
        }
        let bytes = allocated(text.capacity()) + allocated(ends.capacity() * size_of::<u32>());
        Self { text, ends, _charge: Charge::new(account, Held::Bodies, bytes) }
    }

    /// All of them, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut from = 0;
        self.ends.iter().map(move |&end| &self.text[std::mem::replace(&mut from, end as usize)..end as usize])
    }
}

/// Reads an item, which is overwritten.
pub(crate) fn prepare(text: &mut [u8], limits: &Limits, budget: &Budget) -> Result<Prepared, Problem> {
    PARSER.with_borrow_mut(|parser| {
        let Item { topics, is_broadcast, kind, data, options } =
            parser.parse_item(text, limits.topic_bytes_max).map_err(Problem::from)?;
        // A number's text may have grown.
        if data.len() as u64 > limits.message_bytes_max {
            return Err(too_long(limits));
        }
        if !budget.has_room_for_request(allocated(data.len())) {
            return Err(no_room());
        }
        let account = budget.of_plane();
        let topics = match is_broadcast {
            true => Topics::Many(List::new(topics, account)),
            false => Topics::One(topics.iter().next().expect("an item has a topic").into()),
        };
        Ok(Prepared { topics, payload: Payload::copy_of(kind, data, account), options: PublishOptions::of(options) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_prepared_is_charged_and_bounded() {
        let limits = Limits { message_bytes_max: 10, ..Limits::default() };
        let budget = Budget::new(1, 1000);
        let prepare = |text: &str| prepare(&mut text.as_bytes().to_vec(), &limits, &budget);
        let one = prepare(r#"{"topic":"a","data":"0123456789","key":"k"}"#).expect("an item");
        assert_eq!(one.payload.bytes(), b"0123456789");
        assert_eq!(one.options.and_then(|options| options.key).as_deref(), Some("k"));
        assert!(matches!(one.topics, Topics::One(topic) if &*topic == "a"));
        let many = prepare(r#"{"topics":["a","bc","a"],"data":[1, 2]}"#).expect("an item");
        let Topics::Many(list) = &many.topics else { panic!("{many:?}") };
        assert_eq!(list.iter().collect::<Vec<_>>(), ["a", "bc", "a"]);
        assert!(budget.held(Held::Bodies) > 0 && budget.held(Held::Messages) > 0);
        drop((one.payload, many));
        assert_eq!(budget.used(), 0);
        let too_long = prepare(r#"{"topic":"a","data":"01234567890"}"#).expect_err("eleven bytes");
        assert_eq!(too_long.status(), 413);
        let grown = prepare(r#"{"topic":"a","data":[1e9,1e9]}"#).expect_err("more when it is written");
        assert_eq!(grown.status(), 413);
        let charge = Charge::new(budget.of_plane(), Held::Messages, 995);
        assert_eq!(prepare(r#"{"topic":"a","data":"x"}"#).expect_err("no room").status(), 503);
        drop(charge);
    }
}
