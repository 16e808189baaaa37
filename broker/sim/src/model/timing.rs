//! When messages come: of a subscription with a throttle, in one batch per interval, the first after silence at once, and none
//! waits longer than the interval.
//!
//! Only in runs in which nothing holds up shards or network, and for clients that read at once. Units: nanoseconds, unless a
//! name says otherwise. A round of the simulation takes up to 12 ms, and whatever happens between a publisher and a subscriber
//! takes several.

use super::{MessageId, Model, StreamId, Violation};

const MILLIS: u64 = 1_000_000;
/// What two batches may be nearer to each other than the interval.
const JITTER: u64 = 40 * MILLIS;
/// How long a message that need not wait is under way.
const UNDER_WAY: u64 = 150 * MILLIS;
/// A batch of more messages than this may take several sends.
const ONE_SEND: u32 = 16;

/// What came last for a subscription.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Batch {
    at: u64,
    messages: u32,
    /// The subscription began so shortly before that it is no measure.
    is_first: bool,
}

/// When a client gets what, as far as that is measured.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Timed {
    /// It reads at once.
    pub(super) prompt: bool,
    /// Unsubscribes that wait for their answer, and when the last one was answered.
    ending: u32,
    ended_at: u64,
}

impl Model {
    /// The same for a run in which nothing is held up.
    #[must_use]
    pub fn steady(mut self, steady: bool) -> Self {
        self.past.steady = steady;
        self
    }

    /// The broker is about to end: nothing waits for its time any more.
    pub fn draining(&mut self) {
        self.past.steady = false;
    }

    /// A client reads at once.
    pub fn reads_at_once(&mut self, stream: StreamId) {
        self.streams[stream].timed.prompt = true;
    }

    /// A client is about to end subscriptions: what waits for it is sent before its time.
    pub fn unsubscribing(&mut self, stream: StreamId) {
        self.streams[stream].timed.ending += 1;
    }

    /// An unsubscribe of a client was answered.
    pub fn unsubscribe_answered(&mut self, stream: StreamId) {
        let now = self.past.time;
        let timed = &mut self.streams[stream].timed;
        (timed.ending, timed.ended_at) = (timed.ending - 1, now);
    }

    /// Something came of a topic, but not as state: `written` and `known` say when it was published and when that was certain,
    /// if it says what it is.
    pub(super) fn check_time(
        &mut self,
        stream: StreamId,
        topic: usize,
        message: Option<(u64, u64)>,
    ) -> Result<(), Violation> {
        let now = self.past.time;
        if !self.past.steady || !self.streams[stream].timed.prompt {
            return Ok(());
        }
        let timed = self.streams[stream].timed;
        let name = &self.topics[topic];
        let Some(sub) = self.streams[stream].only_sub(name) else { return Ok(()) };
        let interval = sub.policy.throttle_ms * MILLIS;
        let (began, before) = (sub.begun.confirmed_at.1, sub.batch);
        let is_new = before.is_none_or(|before| before.at != now);
        let flushed = timed.ending > 0 || before.is_none_or(|before| timed.ended_at + JITTER >= before.at);
        let goes_on = before.is_some_and(|before| before.messages > ONE_SEND);
        let is_first = before.is_none_or(|before| before.at < began + UNDER_WAY);
        if is_new {
            sub.batch = Some(Batch { at: now, messages: 1, is_first });
        } else if let Some(batch) = &mut sub.batch {
            batch.messages += 1;
        }
        let bad = |what: &str| {
            let evidence =
                format!("{}, {name:?}: {what}, {message:?}, now {now}, {before:?}", self.streams[stream].name);
            Err(Violation::new("a throttle is one batch per interval, the first at once", evidence))
        };
        if let Some(before) = before
            && is_new
            && !before.is_first
            && !flushed
            && !goes_on
            && now - before.at + JITTER < interval
        {
            return bad(&format!("again within {} ms", interval / MILLIS));
        }
        let Some((written, known)) = message else { return Ok(()) };
        if known < began {
            return Ok(());
        }
        // What it was sent early, or what came before it began, is delivered to others up to an interval later.
        let heard = before.map_or(began, |before| before.at.max(began)) + interval;
        let silent = is_new && heard + interval + JITTER < written;
        let may_wait = if silent { 0 } else { interval };
        if now - known > may_wait + UNDER_WAY {
            return bad(&format!("waited for {} ms, silent: {silent}", (now - known) / MILLIS));
        }
        Ok(())
    }

    /// When a message was published, and when that was certain.
    pub(super) fn times_of(&self, id: MessageId) -> (u64, u64) {
        let message = &self.messages[id as usize];
        (message.written_at, message.known_at.unwrap_or(self.past.time))
    }
}
