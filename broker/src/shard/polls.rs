//! Long polls (`GET /sub/{topic}` without a stream), as the sequencer of their topic answers them: at once, or as soon as a message
//! is there. The control plane holds the request, its time, and its place among those that wait (`http/poll.rs`).
//!
//! Bounds: who waits has one of a number of places ([`PollRequest::place`]), and gives it back when it is answered, or within a second
//! of having gone. Cost: while nobody waits a test per message; else a look-up, and for each that waits for its topic an answer.

use std::sync::Arc;

use ring::{Driver, Nanos};
use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::ids::{Epoch, Offset, TopicId};
use crate::message::Message;
use crate::sequencer::history::recall::{HistoryQuery, Page, Place};
use crate::shard::Shard;
use crate::topics::registry::TopicRef;

/// Between two looks for those who have gone.
const LOOK_AGAIN: Nanos = 1_000_000_000;

/// A poll, for its topic's sequencer.
#[derive(Debug)]
pub struct PollRequest {
    /// Which topic.
    pub topic: TopicRef,
    /// The last message that the client has; `None`: it only wants to know where the topic is.
    pub since: Option<Place>,
    /// Without `since`: the newest so many messages, too.
    pub last: u32,
    /// With `since`: most messages.
    pub limit: u32,
    /// The place of one that waits, if it may; without, it is answered at once.
    pub place: Option<OwnedSemaphorePermit>,
    /// The answer's way.
    pub answer: oneshot::Sender<Polled>,
}

/// The answer.
#[derive(Debug)]
pub struct Polled {
    /// The topic's epoch.
    pub epoch: Epoch,
    /// The last message that the client has now, and what to ask for next.
    pub offset: Offset,
    /// With `since`: whether everything after it is there, so far as it was asked for.
    pub recovered: Option<bool>,
    /// Oldest first.
    pub messages: Vec<Arc<Message>>,
}

impl Polled {
    /// Whether its client has everything, so that it may wait for more.
    #[must_use]
    pub fn is_nothing_new(&self) -> bool {
        self.recovered == Some(true) && self.messages.is_empty()
    }
}

/// Those that wait.
#[derive(Default, Debug)]
pub(in crate::shard) struct Polls {
    waiting: FxHashMap<TopicId, Vec<PollRequest>>,
    looked_at: Nanos,
}

impl Polls {
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets those whose clients have gone, now and then.
    pub(in crate::shard) fn forget_gone(&mut self, now: Nanos) {
        if self.is_empty() || now < self.looked_at + LOOK_AGAIN {
            return;
        }
        self.looked_at = now;
        self.waiting.retain(|_, waiting| {
            waiting.retain(|poll| !poll.answer.is_closed());
            !waiting.is_empty()
        });
    }

    /// When that is due.
    pub(in crate::shard) fn next_look(&self) -> Option<Nanos> {
        (!self.is_empty()).then_some(self.looked_at + LOOK_AGAIN)
    }

    /// The broker goes: who waits is answered by the end of its channel.
    pub(in crate::shard) fn end(&mut self) {
        self.waiting.clear();
    }
}

impl<D: Driver> Shard<D> {
    /// Answers a poll, or has it wait.
    pub(super) fn poll(&mut self, poll: PollRequest) {
        let found = self.look_up(&poll, None);
        if poll.place.is_some() && found.is_nothing_new() && !self.drain.is_under_way() {
            self.polls.waiting.entry(poll.topic.id).or_default().push(poll);
        } else {
            // Who asked may have given up.
            let _ = poll.answer.send(found);
        }
    }

    /// Something happened to a topic: this message was published, or it began anew.
    pub(super) fn answer_polls(&mut self, topic: TopicId, message: Option<&Arc<Message>>) {
        if self.polls.is_empty() {
            return;
        }
        for poll in self.polls.waiting.remove(&topic).unwrap_or_default() {
            if poll.answer.is_closed() {
                continue;
            }
            let found = self.look_up(&poll, message);
            let _ = poll.answer.send(found);
        }
    }

    /// What there is for a poll; `new`: with this message, which a topic without history has forgotten already.
    fn look_up(&mut self, poll: &PollRequest, new: Option<&Arc<Message>>) -> Polled {
        let is_since = poll.since.is_some();
        let limit = if is_since { poll.limit } else { poll.last };
        let query = HistoryQuery { since: poll.since, before: None, limit, reverse: !is_since };
        let Ok((epoch, next, page)) = self.sequencer.page(poll.topic.clone(), &query, self.now) else {
            return self.look_up_without_history(poll, new);
        };
        let head = Offset(next.0 - 1);
        let Page { recovered, mut messages, more } = page;
        if !is_since {
            // A page has one message at least.
            messages.truncate(limit as usize);
            messages.reverse();
        }
        let last = messages.last().filter(|_| is_since && more).map(|message| message.offset);
        Polled { epoch, offset: last.unwrap_or(head), recovered, messages }
    }

    /// The same of a topic that remembers nothing: whoever has its newest message has everything.
    fn look_up_without_history(&mut self, poll: &PollRequest, new: Option<&Arc<Message>>) -> Polled {
        let (epoch, next) = self.sequencer.position(poll.topic.id).unwrap_or((Epoch::default(), Offset(1)));
        let head = Offset(next.0 - 1);
        let mut answer = Polled { epoch, offset: head, recovered: None, messages: Vec::new() };
        let Some(since) = poll.since else { return answer };
        let is_next = |message: &&Arc<Message>| since.epoch == epoch && message.offset == since.offset + 1;
        answer.messages.extend(new.filter(is_next).cloned());
        let has = since.offset + answer.messages.len() as u64;
        answer.recovered = Some(since.epoch == epoch && has == head);
        answer
    }
}
