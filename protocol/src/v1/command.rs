//! Commands: one JSON object each, parsed by `flat.rs` or in place by simd-json. What is and is not a command is judged
//! in `members.rs` and `interpret.rs`. A command that is refused is an error for the client, and the connection goes on.
//!
//! A [`Parser`] is reused for one command after the other (one per thread, not per connection). Strings of a
//! command point into the frame it came in; lists of topics, positions, decoded base64 and compacted JSON into the
//! parser's own buffers, which keep their room, so a warm parser does not allocate. After a command longer than
//! [`KEPT_LEN_MAX`] bytes the room is given back.

use std::borrow::Cow;
use std::{fmt, mem};

use super::interpret::interpret;
use super::item::{self, Item};
use super::lease::{LeaseAsked, Will};
use super::options::{HistoryQuery, PublishOptions};
#[cfg(doc)]
use super::options::{MEMBERS_LIMIT_MAX, THROTTLE_MAX_MS};
use super::position::{Position, PositionList, Start};
use super::precheck::Flaw;
use super::request::Reply;
#[cfg(doc)]
use super::request::TIMEOUT_MS;
use super::value::{KEPT_LEN_MAX, Reader};
use super::{ErrorCode, Id, PayloadKind};

const NOT_JSON: &str = "The frame is not one JSON value.";

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Says hello, and who the client is.
    Connect {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A token or key, as it came. Whether it is a good one is the broker's decision.
        token: Option<&'a str>,
        /// The client wants pings that it can see, as messages.
        pings: bool,
        /// The client wants a session that outlives the connection.
        session: Option<SessionAsked<'a>>,
        /// What is published when the connection ends without `disconnect`.
        will: Option<Will<'a>>,
    },
    /// Ends the connection on purpose: what it has is not kept for a reconnect.
    Disconnect {
        /// To be repeated in the answer.
        id: Option<Id>,
    },
    /// Subscribes to topics or filters.
    Subscribe {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// At least one; all are valid filters.
        topics: Topics<'a>,
        /// What the subscriptions deliver first.
        start: Start<'a>,
        /// The client wants the state of the topics.
        state: bool,
        /// The least time between two deliveries, in milliseconds, up to [`THROTTLE_MAX_MS`]; the topics' rules may make it
        /// longer.
        throttle_ms: u32,
    },
    /// Ends subscriptions.
    Unsubscribe {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// At least one; all are valid filters, spelled as they were subscribed.
        topics: Topics<'a>,
    },
    /// Publishes one message.
    Publish {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name.
        topic: &'a str,
        /// What `data` is.
        kind: PayloadKind,
        /// The payload.
        data: &'a [u8],
        /// The client wants an answer when it is done; then there is an id.
        ack: bool,
        /// What else it asks for.
        options: PublishOptions<'a>,
    },
    /// Reads messages that a topic remembers.
    History {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name, which may be one of the broker's own.
        topic: &'a str,
        /// Which of them.
        query: HistoryQuery,
    },
    /// Stores what stands for all messages of a topic up to one.
    Snapshot {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name.
        topic: &'a str,
        /// The last message that it stands for.
        up_to: Position,
        /// What `data` is.
        kind: PayloadKind,
        /// The payload.
        data: &'a [u8],
        /// The number of the lease that it is stored under.
        lease: Option<u64>,
    },
    /// Asks whoever serves a topic.
    Request {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name.
        topic: &'a str,
        /// What `data` is.
        kind: PayloadKind,
        /// The question.
        data: &'a [u8],
        /// How long the client waits for the answer, in milliseconds, within [`TIMEOUT_MS`].
        timeout_ms: u32,
        /// Only this member is to answer.
        to: Option<&'a str>,
    },
    /// Serves topics, or does so no longer.
    Respond {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid filter.
        filter: &'a str,
        /// It does so no longer.
        end: bool,
    },
    /// Answers a request.
    Reply {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// The number that the request came with.
        reply: u64,
        /// What it is answered with.
        answer: Reply<'a>,
    },
    /// Is present at a topic, or says something else of itself there.
    Enter {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name.
        topic: &'a str,
        /// What it says of itself: the text of a JSON value. `None`: nothing.
        info: Option<&'a [u8]>,
        /// It has to be present already.
        is_update: bool,
    },
    /// Is present at a topic no more.
    Leave {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name.
        topic: &'a str,
    },
    /// Asks who is present at a topic.
    Members {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name.
        topic: &'a str,
        /// So many are named at most: 1 to [`MEMBERS_LIMIT_MAX`].
        limit: u32,
    },
    /// Takes, renews or gives back the lease of a topic.
    Lease {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// A valid name.
        topic: &'a str,
        /// Which of these.
        asked: LeaseAsked,
    },
    /// Says what is published when the connection ends without `disconnect`.
    Will {
        /// To be repeated in the answer.
        id: Option<Id>,
        /// `None`: nothing.
        will: Option<Will<'a>>,
    },
    /// Asks for a pong.
    Ping {
        /// To be repeated in the answer.
        id: Option<Id>,
    },
    /// Answers a ping; is not answered itself.
    Pong,
}

impl Command<'_> {
    /// What its answer repeats.
    #[must_use]
    pub const fn id(&self) -> Option<Id> {
        match *self {
            Self::Connect { id, .. }
            | Self::Subscribe { id, .. }
            | Self::Unsubscribe { id, .. }
            | Self::Publish { id, .. }
            | Self::History { id, .. }
            | Self::Snapshot { id, .. }
            | Self::Request { id, .. }
            | Self::Respond { id, .. }
            | Self::Reply { id, .. }
            | Self::Disconnect { id }
            | Self::Enter { id, .. }
            | Self::Leave { id, .. }
            | Self::Members { id, .. }
            | Self::Lease { id, .. }
            | Self::Will { id, .. }
            | Self::Ping { id } => id,
            Self::Pong => None,
        }
    }
}

/// Which session a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionAsked<'a> {
    /// A new one.
    New,
    /// The one that it was given before, if it is still there; else a new one.
    Resumed(&'a str),
}

/// The topics or filters of one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topics<'a> {
    /// All of them, one behind the other.
    text: &'a str,
    /// Where each ends in `text`.
    ends: &'a [usize],
}

impl<'a> Topics<'a> {
    /// The topics in the order of the command, which may name one twice.
    pub fn iter(self) -> impl ExactSizeIterator<Item = &'a str> {
        let mut from = 0;
        self.ends.iter().map(move |&end| &self.text[mem::replace(&mut from, end)..end])
    }
}

/// A command that is not carried out. The client gets this answer, and the connection goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandError {
    /// The command's id, if it could be read.
    pub id: Option<Id>,
    /// What kind of error it is.
    pub code: ErrorCode,
    /// A sentence.
    pub reason: Cow<'static, str>,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.reason)
    }
}

impl std::error::Error for CommandError {}

/// Parses commands; see the file's head for its buffers.
pub struct Parser {
    reader: Reader,
    scratch: Scratch,
}

/// What of a command cannot point into its frame.
#[derive(Default)]
pub(super) struct Scratch {
    topics: String,
    topic_ends: Vec<usize>,
    /// What `since` says.
    pub(super) positions: PositionList,
    /// The payload, if it is not a plain string.
    pub(super) data: Vec<u8>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parser").finish_non_exhaustive()
    }
}

impl Parser {
    /// A parser with buffers still small.
    #[must_use]
    pub fn new() -> Self {
        Self { reader: Reader::new(), scratch: Scratch::default() }
    }

    /// Parses the text of one frame, which it overwrites. Topics may have `topic_len_max` bytes.
    ///
    /// # Errors
    /// The text is not a command, with the reason to give the client.
    pub fn parse<'a>(&'a mut self, text: &'a mut [u8], topic_len_max: usize) -> Result<Command<'a>, CommandError> {
        self.scratch.clear();
        let scratch = &mut self.scratch;
        match self.reader.read(text, |nodes| interpret(nodes, topic_len_max, scratch)) {
            Ok(command) => command,
            Err(Flaw::HalfPair) => Err(bad_json("A string of the frame escapes half a surrogate pair.")),
            Err(Flaw::NotJson) => Err(bad_json(NOT_JSON)),
        }
    }

    /// Parses the text of one item, which it overwrites. Topics may have `topic_len_max` bytes.
    ///
    /// # Errors
    /// The text is not an item, with the reason to give the client.
    pub fn parse_item<'a>(&'a mut self, text: &'a mut [u8], topic_len_max: usize) -> Result<Item<'a>, CommandError> {
        self.scratch.clear();
        let scratch = &mut self.scratch;
        match self.reader.read(text, |nodes| item::interpret(nodes, topic_len_max, scratch)) {
            Ok(item) => item,
            Err(Flaw::HalfPair) => Err(bad_json("A string of the item escapes half a surrogate pair.")),
            Err(Flaw::NotJson) => Err(bad_json("The item is not one JSON value.")),
        }
    }
}

impl Scratch {
    /// Forgets the last command, and its room if it was a long one.
    fn clear(&mut self) {
        let capacities = [self.data.capacity(), self.topics.capacity(), self.positions.capacity()];
        if capacities.into_iter().any(|capacity| capacity > KEPT_LEN_MAX) {
            *self = Self::default();
        }
        self.topics.clear();
        self.topic_ends.clear();
        self.positions.clear();
        self.data.clear();
    }

    pub(super) fn push_topic(&mut self, topic: &str) {
        self.topics.push_str(topic);
        self.topic_ends.push(self.topics.len());
    }

    /// The topics, and where the payload goes.
    pub(super) fn split(&mut self) -> (Topics<'_>, &mut Vec<u8>) {
        (Topics { text: &self.topics, ends: &self.topic_ends }, &mut self.data)
    }

    pub(super) fn topics(&self) -> Topics<'_> {
        Topics { text: &self.topics, ends: &self.topic_ends }
    }
}

fn bad_json(reason: &'static str) -> CommandError {
    CommandError { id: None, code: ErrorCode::BadJson, reason: Cow::Borrowed(reason) }
}
