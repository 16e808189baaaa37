//! What must be true of every history of publishes, subscriptions and deliveries.
//!
//! The model knows nothing of shards, logs or cursors. It is told what clients did and saw, in the order
//! in which that happened, and says so when something cannot be:
//!
//! - a topic has one order, the same for all: whoever sees `a` and next `b` agrees with everybody else who
//!   sees either (`order`);
//! - each publisher's messages come in its own order, each once, none left out (`stream`);
//! - offsets are dense within an epoch, begin where the subscription was confirmed, and belong to the same
//!   message for every subscriber and in the publisher's acknowledgement (`order`);
//! - whatever was accepted after a subscription was confirmed is owed to it while it lasts
//!   ([`Model::settle`]);
//! - payloads arrive as they were sent, text as text, binary as binary.
//!
//! Time is the count of things told; only "before" and "after" matter.

mod access;
mod arrive;
mod begin;
mod calls;
mod leases;
mod order;
mod pages;
mod past;
mod policy;
mod presence;
mod purge;
mod replay;
mod state;
mod stream;
mod timing;
mod under;
mod violation;
mod wills;

use std::collections::BTreeMap;

pub use access::{Moment, TokenId};
pub use begin::{Asked, Confirmed, Remembers, Start};
pub use calls::{CallId, Calls};
pub use leases::{Ask, Got, LeaseId, Leases, Panel};
pub use order::Position;
pub use past::{Options, Page, Unsaid};
pub use presence::{Act, Answered, At, Counted, DeedId, Presence, SessionId, Shown, Viewed};
pub use stream::{Arrival, Tags};
pub use under::Judged;
pub use violation::Violation;
pub use wills::{WillId, Wills};

use crate::payload::Kind;
use access::AccessHistory;
use order::Orders;
use past::{Fate, Past};
pub(crate) use policy::contains;
pub use policy::matches;
use stream::{Newer, Stream};

/// When something happened, counted in things told to the model.
pub type Tick = u64;
/// A message, by the order of its making.
pub type MessageId = u32;
/// A client with subscriptions.
pub type StreamId = usize;

/// A message as its publisher knows it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Index of its topic.
    pub topic: usize,
    /// Who published it; each has its own order per topic.
    pub publisher: usize,
    /// Its place in that order, from 0.
    pub seq: u32,
    /// What it is.
    pub kind: Kind,
    /// Asked-for length; 0 for an empty payload.
    pub len: usize,
    /// What it asks for.
    pub options: Options,
    /// The broker may refuse it, so that it need not come.
    conditional: bool,
    fate: Fate,
    id: MessageId,
    /// When its first byte left, and when its place was known, in nanoseconds.
    written_at: u64,
    known_at: Option<u64>,
    /// Its first byte left the publisher.
    written: Option<Tick>,
    /// The publisher was told its place.
    acked: Option<Tick>,
    /// It is certain that the broker took it.
    accepted: bool,
    /// And since when that is certain, if it was noticed in passing.
    noticed: Option<Tick>,
}

impl Message {
    /// Whether its payload says which message it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.kind != Kind::Json
    }
}

/// The history so far.
#[derive(Debug)]
pub struct Model {
    topics: Vec<String>,
    messages: Vec<Message>,
    next_seq: BTreeMap<(usize, usize), u32>,
    /// Messages of each publisher and topic, in its order.
    published: BTreeMap<(usize, usize), Vec<MessageId>>,
    orders: Orders,
    streams: Vec<Stream>,
    past: Past,
    access: AccessHistory,
    /// What becomes of requests.
    pub calls: Calls,
    /// Who is present where.
    pub presence: Presence,
    /// Who has which lease.
    pub leases: Leases,
    /// What is published when connections end.
    pub wills: Wills,
    now: Tick,
    /// When the broker began to tell clients to go, one after the other, while others went on.
    window: Option<Tick>,
}

impl Model {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(topics: Vec<String>) -> Self {
        Self {
            topics,
            messages: Vec::new(),
            next_seq: BTreeMap::new(),
            published: BTreeMap::new(),
            orders: Orders::default(),
            streams: Vec::new(),
            past: Past::default(),
            access: AccessHistory::default(),
            calls: Calls::default(),
            presence: Presence::default(),
            leases: Leases::default(),
            wills: Wills::default(),
            now: 0,
            window: None,
        }
    }

    fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }

    // ---- publishers

    /// `publisher` is about to publish its next message on a topic.
    pub fn publish(&mut self, publisher: usize, topic: usize, kind: Kind, len: usize) -> MessageId {
        let id = self.messages.len() as MessageId;
        let seq = self.next_seq.entry((publisher, topic)).or_default();
        self.messages.push(Message {
            topic,
            publisher,
            seq: *seq,
            kind,
            len,
            options: Options::default(),
            conditional: false,
            fate: Fate::Open,
            id,
            written_at: 0,
            known_at: None,
            written: None,
            acked: None,
            accepted: false,
            noticed: None,
        });
        *seq += 1;
        self.published.entry((publisher, topic)).or_default().push(id);
        id
    }

    /// Its first byte is on the way.
    pub fn written(&mut self, id: MessageId) {
        let now = self.tick();
        let message = &mut self.messages[id as usize];
        (message.written, message.written_at) = (Some(now), self.past.time);
    }

    /// The broker must have taken it: its publisher lived on, or was told goodbye after it.
    pub fn accepted(&mut self, id: MessageId) {
        let message = &mut self.messages[id as usize];
        message.accepted |= !message.conditional;
    }

    /// The broker must have taken it, although it may refuse such a message: then it would have ended the publisher.
    pub fn not_refused(&mut self, id: MessageId) {
        self.messages[id as usize].accepted = true;
    }

    /// The publisher was told its place.
    ///
    /// # Errors
    /// A place that something else has, or another than was seen before.
    pub fn acknowledged(&mut self, id: MessageId, place: Position) -> Result<(), Violation> {
        let now = self.tick();
        let message = &mut self.messages[id as usize];
        if message.acked.replace(now).is_some() {
            return Err(Violation::new("a publish is acknowledged once", self.describe(id)));
        }
        message.accepted = true;
        message.noticed.get_or_insert(now);
        let topic = message.topic;
        self.orders.place(topic, place, id, || format!("message ~{id}~"))?;
        self.placed(id, place);
        self.check_won(id, place)
    }

    // ---- subscribers

    /// A client begins; it has no subscriptions yet.
    pub fn open(&mut self, name: String) -> StreamId {
        self.streams.push(Stream::new(name));
        self.streams.len() - 1
    }

    /// A client is about to ask for subscriptions.
    pub fn subscribing(&mut self, stream: StreamId, filters: &[String]) {
        let asked: Vec<_> = filters.iter().map(|filter| Asked::live(filter)).collect();
        self.ask(stream, &asked);
    }

    /// A client of `ringyard.v1` is about to ask for subscriptions that may begin in the past.
    pub fn asking(&mut self, stream: StreamId, asked: &[Asked]) {
        self.streams[stream].notified = true;
        self.ask(stream, asked);
    }

    fn ask(&mut self, stream: StreamId, asked: &[Asked]) {
        let at = (self.tick(), self.past.time);
        let asked =
            asked.iter().map(|asked| (asked.clone(), self.policy_of(&asked.filter).throttled(asked.throttle_ms)));
        let asked: Vec<_> = asked.collect();
        self.streams[stream].subscribing(&asked, at);
    }

    /// They are in force, as the client was told.
    ///
    /// # Errors
    /// A beginning that contradicts what came already.
    pub fn confirmed(&mut self, stream: StreamId, filters: &[Confirmed]) -> Result<(), Violation> {
        let now = self.tick();
        let Self { streams, messages, topics, past, .. } = self;
        streams[stream].confirmed(filters, topics, |id| messages[id as usize].topic, (now, past.time))
    }

    /// They are not: the command failed.
    pub fn refused(&mut self, stream: StreamId, filters: &[String]) {
        self.streams[stream].refused(filters);
    }

    /// The client was told that these ended.
    pub fn unsubscribed(&mut self, stream: StreamId, filters: &[String]) {
        let now = self.tick();
        self.remember_positions(stream, Some(filters));
        self.streams[stream].unsubscribed(filters, &self.topics, now);
    }

    /// Whether a client asked for a subscription and still has it, or waits for it.
    #[must_use]
    pub fn asked_for(&self, stream: StreamId, filter: &str) -> bool {
        self.streams[stream].asked_for(filter)
    }

    /// How many of a client's confirmed subscriptions match a topic.
    #[must_use]
    pub fn covering(&self, stream: StreamId, topic: &str) -> usize {
        self.streams[stream].covering(topic)
    }

    /// The client's subscriptions end with its connection: nothing is owed to it any more.
    pub fn ended(&mut self, stream: StreamId) {
        if self.streams[stream].live {
            self.remember_positions(stream, None);
        }
        self.streams[stream].live = false;
    }

    /// The broker begins to tell clients to go.
    pub fn begin_window(&mut self) {
        let now = self.tick();
        self.window = Some(now);
    }

    /// A client was told to go. Within a window, it is owed only what had come through before that began.
    pub fn told_to_go(&mut self, stream: StreamId) {
        self.streams[stream].told_to_go = true;
    }

    // ---- the end

    /// Everything has come to rest: whatever is still owed is lost.
    ///
    /// # Errors
    /// The first thing that is missing, or orders that contradict each other in a circle.
    pub fn settle(&self) -> Result<Settled, Violation> {
        let mut settled = Settled::default();
        for stream in self.streams.iter().filter(|stream| stream.live) {
            settled.streams += 1;
            for (id, message) in (0..).zip(&self.messages) {
                if !message.accepted || message.is_empty() {
                    continue;
                }
                if let (Some(window), true) = (self.window, stream.told_to_go)
                    && message.noticed.is_none_or(|noticed| noticed > window)
                {
                    continue;
                }
                let since = stream.covered_since(message.topic);
                let (Some(since), Some(written)) = (since, message.written) else { continue };
                if since < written {
                    settled.owed += 1;
                    if !stream.has_seen(id) && !stream.was_shown(id) && !self.may_lack(stream, message) {
                        let evidence = format!("{} did not get {}", stream.name, self.describe(id));
                        return Err(Violation::new("nothing is lost", evidence));
                    }
                }
            }
        }
        self.orders.check_circles()?;
        self.orders.check_earlier()?;
        self.check_purges()?;
        self.check_publishes()?;
        self.check_denied()?;
        self.check_replays()?;
        settled.beginnings = self.check_beginnings()?;
        Ok(settled)
    }

    /// Whether a policy may have left out what a client did not get.
    fn may_lack(&self, stream: &Stream, message: &Message) -> bool {
        let place = self.orders.place_of(message.id);
        let is_newer = |other: &&Message| {
            let both = place.zip(self.orders.place_of(other.id));
            other.topic == message.topic
                && other.id != message.id
                && other.written.is_some()
                && both.is_none_or(|(place, other)| other > place)
                && (place.is_none() || other.is_empty() || stream.has_seen(other.id) || stream.was_shown(other.id))
        };
        let mut newer = Newer::default();
        for other in self.messages.iter().filter(is_newer) {
            newer.of_topic = true;
            newer.of_key |= other.options.key == message.options.key;
        }
        stream.may_lack(message, &self.topics[message.topic], place, newer)
    }

    /// A message's name for people.
    #[must_use]
    pub fn describe(&self, id: MessageId) -> String {
        let message = &self.messages[id as usize];
        format!(
            "message ~{id}~ (number {} of publisher {} on {:?}, {:?} of {} bytes)",
            message.seq, message.publisher, self.topics[message.topic], message.kind, message.len
        )
    }

    /// A message's asked-for length.
    #[must_use]
    pub fn length(&self, id: MessageId) -> usize {
        self.messages[id as usize].len
    }

    /// How many messages were made.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.len()
    }
}

/// How much [`Model::settle`] had to look at.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Settled {
    /// Subscribers that lasted to the end.
    pub streams: usize,
    /// Messages that were owed to them, and came.
    pub owed: usize,
    /// Beginnings of subscriptions that could be checked.
    pub beginnings: u64,
}
