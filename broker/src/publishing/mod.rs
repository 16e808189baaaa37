//! The rules of `POST /pub/{topic}` that both planes call: the shard that answers such a request itself, and the control
//! plane for all requests that a shard hands over. So a request gets the same answer on either way.
//!
//! | file | what |
//! | --- | --- |
//! | `mod` | the topic that a path names, the answer to a publish, how long a publish waits |
//! | `payload` | from a body and its `Content-Type` to what is published |
//! | `body` | how long a body may take, and the answers to those that take too long or too much |
//! | `options` | what a request asks for besides its body: its query and `Idempotency-Key` |
//! | `item` | from an item of a batch to what is published |
//! | `problem` | errors: status, fields, body |
//! | `fields` | what every answer says in its fields |
//! | `answer` | an answer as bytes, for the plane that has no HTTP library |
//! | `date` | the time of day |
//!
//! Not responsible for sockets, access control (`access`) or offsets. Knows neither the HTTP
//! library nor shards. Cost: one string for the answer.

pub(crate) mod answer;
pub(crate) mod body;
pub mod date;
pub(crate) mod fields;
pub(crate) mod item;
pub(crate) mod options;
pub(crate) mod payload;
pub(crate) mod problem;

use std::borrow::Cow;
use std::time::Duration;

use protocol::head::{Endpoint, Refusal, endpoint, topic_name};
use serde::{Serialize, Serializer};

use crate::access::rejection::Rejection;
use crate::config::limits::Limits;
use crate::ids::{Epoch, Offset};
use crate::observe::counters::Refused;
use crate::publishing::problem::{Code, Problem};

/// How long a publish waits for room in its sequencer's queue, and for its topic's slow subscribers.
pub(crate) const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

/// The media type of [`Answer::to_json`].
pub(crate) const CONTENT_TYPE: &str = "application/json";

/// Where a message was put.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'a> {
    topic: &'a str,
    #[serde(serialize_with = "hexadecimal")]
    epoch: Epoch,
    offset: u64,
    /// Subscriptions that matched the topic when the message got its offset.
    subscribers: u32,
    /// It is the place of an earlier message, which this one repeats.
    #[serde(skip_serializing_if = "is_false")]
    duplicate: bool,
}

/// Sixteen digits: JavaScript's numbers could not hold it.
fn hexadecimal<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:016x}", epoch.0))
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl<'a> Answer<'a> {
    pub(crate) fn new(topic: &'a str, epoch: Epoch, offset: Offset, subscribers: u32, duplicate: bool) -> Self {
        Self { topic, epoch, offset: offset.0, subscribers, duplicate }
    }

    /// Appends the body of the answer.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("strings and numbers");
    }

    /// The body of the answer.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers")
    }
}

/// The topic that the path names, under the rules for WebSockets.
pub(crate) fn topic_of<'a>(path: &'a str, limits: &Limits) -> Result<Cow<'a, str>, Problem> {
    // Without a topic it is the same request with an empty one.
    let path = if path == "/pub" { "/pub/" } else { path };
    match endpoint(path, limits.topic_bytes_max) {
        Ok(Endpoint::Publish(topic)) => Ok(topic),
        Ok(_) => Err(Problem::bad("There is no topic in this path.").coded(Code::BadTopic)),
        Err(refusal) => Err(no_topic(refusal)),
    }
}

/// The topic that a part of a path names, under the same rules.
pub(crate) fn topic_named<'a>(encoded: &'a str, limits: &Limits) -> Result<Cow<'a, str>, Problem> {
    topic_name(encoded, limits.topic_bytes_max).map_err(no_topic)
}

fn no_topic(refusal: Refusal) -> Problem {
    let is_name = refusal.status == 400;
    let problem = Problem::from(Rejection::Malformed(refusal));
    if is_name { problem.coded(Code::BadTopic) } else { problem }
}

/// The answer to a publish whose sequencer did not answer before the broker ended.
pub(crate) fn unanswered() -> Problem {
    let sentence = "The broker is shutting down; the message may or may not have been published.";
    Problem::unavailable(sentence).because(Refused::Draining)
}

/// The answer to a publish that waited for [`QUEUE_PATIENCE`].
pub(crate) fn overloaded() -> Problem {
    Problem::unavailable("The broker is overloaded; the message was not published.").because(Refused::Overload)
}
