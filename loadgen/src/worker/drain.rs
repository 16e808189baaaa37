//! The drain: whether everything has arrived, and this worker's share of the outcome.

use std::ops::Range;
use std::sync::Arc;

use ring::{Dial, Nanos};

use super::client::{Client, State, UNKNOWN};
use super::tally::count_reason;
use super::{Final, HistoryPart, Part, Report, Worker};
use crate::adapter::Topics;

/// Between two checks whether everything has arrived.
const LOOK_NS: Nanos = 20_000_000;

/// How long to wait after everything has arrived, for messages that should not come, such as doubled ones.
const LINGER_NS: Nanos = 200_000_000;

/// Why a client is missing that was opened before.
const NOT_BACK: &str = "not connected again when the run ended";

/// Why a newcomer's state is not whole, whatever came of it.
const NO_END: &str = "the end of the state was not announced";

/// The drain under way.
pub(super) struct Drain {
    published: Arc<Final>,
    began: Nanos,
    /// Clients before this one have everything.
    looked_at: usize,
}

impl<D: Dial> Worker<D> {
    pub(super) fn begin_drain(&mut self, published: Arc<Final>) {
        let began = self.driver.now();
        self.heard_at = began;
        let slow = (0..).zip(&self.clients).filter(|(_, client)| client.slow && client.state == State::Open);
        let missing = slow.map(|(at, client)| (at, self.missing(at, client, &published)));
        self.tally.slow_behind = missing.filter(|(_, missing)| *missing > 0).collect();
        self.drain = Some(Drain { published, began, looked_at: 0 });
        // Clients that never read do so now, and learn whether they were closed.
        for at in 0..self.clients.len() as u32 {
            let client = &self.clients[at as usize];
            if client.state == State::Open && client.slow {
                self.receive_more(at);
            }
        }
    }

    /// Checks whether the drain is over; returns when to check again.
    pub(super) fn drain_due(&mut self, now: Nanos) -> Nanos {
        let Some(drain) = self.drain.as_ref().filter(|_| !self.drained) else { return Nanos::MAX };
        let options = &self.plan.options;
        // While clients come back, the others are waited for; but not for clients that come and go without end.
        let coming_back = now < drain.began + options.connect_timeout.as_nanos() as u64;
        let last = if coming_back { self.heard_at.max(self.opened_at) } else { self.heard_at };
        let quiet = now.saturating_sub(last) > options.drain_timeout.as_nanos() as u64;
        let looked_at = self.first_without_all(drain);
        let lingered = now.saturating_sub(self.heard_at) > LINGER_NS;
        if quiet || (looked_at.is_none() && lingered) {
            self.drained = true;
            self.report(Report::Drained);
            return Nanos::MAX;
        }
        if let (Some(drain), Some(looked_at)) = (&mut self.drain, looked_at) {
            drain.looked_at = looked_at;
        }
        now + LOOK_NS
    }

    /// The first client for which something may still come.
    fn first_without_all(&self, drain: &Drain) -> Option<usize> {
        let published = &drain.published;
        if published.published.contains(&UNKNOWN) {
            return Some(0);
        }
        let has_all = |at: usize, client: &Client| match client.state {
            // A slow client that was not closed must have everything, too.
            State::Open => !client.is_subscriber() || self.missing(at as u32, client, published) == 0,
            State::Closing => !client.comes_back,
            State::Gone => true,
            State::Waiting | State::Dialling | State::Upgrading | State::Greeting => published.interrupted,
        };
        let lacks = |mut range: Range<usize>| range.find(|at| !has_all(*at, &self.clients[*at]));
        // A client that had everything may have lost its connection since.
        lacks(drain.looked_at..self.clients.len()).or_else(|| lacks(0..drain.looked_at))
    }

    /// Messages (or bytes, for a client that counts them) that an open client has not received, and has to; none of streams
    /// whose end is not known here.
    fn missing(&self, at: u32, client: &Client, published: &Final) -> u64 {
        let topics = self.plan.duty(client.role).subscribes;
        if !client.verifies {
            let expected = expected_bytes(published, client, &topics, self.plan.topics);
            return expected.map_or(0, |expected| expected.saturating_sub(client.received));
        }
        let nexts = client.nexts.all().iter().take(self.plan.places(&topics)).enumerate();
        nexts
            .filter(|(_, next)| **next != UNKNOWN)
            .map(|(place, next)| {
                let stream = self.plan.stream_at(&topics, place);
                let all = published.published.get(stream as usize).copied().unwrap_or(0);
                let behind = || if all == UNKNOWN { 0 } else { all.saturating_sub(*next) };
                self.past.stale(at, place, all).unwrap_or_else(behind)
            })
            .sum()
    }

    /// This worker's share of the outcome. Ends it.
    pub(super) fn part(mut self) -> Part {
        self.tally.slow.behind = self.tally.slow_behind.len() as u64;
        self.tally.slow.behind_messages = self.tally.slow_behind.values().copied().max().unwrap_or(0);
        let mut part = Part {
            errors: std::mem::take(&mut self.tally.errors),
            gaps: self.tally.gaps,
            latency: self.tally.latency.clone(),
            admission: self.tally.admission.clone(),
            lateness: self.tally.lateness.clone(),
            streams: std::collections::BTreeMap::new(),
            slow: std::mem::take(&mut self.tally.slow),
            terms: self.tally.terms.clone(),
            tls: self.tally.tls.take(),
            logins: self.tally.logins.take(),
            history: HistoryPart { counts: self.tally.history.clone(), catch_up: self.tally.catch_up.clone() },
        };
        for (stream, published) in self.publishing.published() {
            part.streams.entry(stream).or_default().published = published;
        }
        if let Some(Drain { published, .. }) = self.drain.take() {
            self.judge(&published, &mut part);
        }
        part
    }

    /// What each subscriber lacks of what was published.
    fn judge(&mut self, published: &Final, part: &mut Part) {
        for (at, client) in (0..).zip(&self.clients) {
            if !client.is_subscriber() {
                continue;
            }
            match client.state {
                State::Open => {}
                State::Gone => continue,
                State::Closing if !client.comes_back => continue,
                _ => {
                    if !published.interrupted {
                        count_reason(&mut part.errors.refused, NOT_BACK.to_owned());
                    }
                    continue;
                }
            }
            let topics = self.plan.duty(client.role).subscribes;
            let known = |stream: u32| published.published.get(stream as usize).copied().unwrap_or(0);
            if self.plan.late() {
                let (endless, stale) = self.past.unfinished(&self.plan, at, client.role, known);
                part.errors.stale += stale;
                if endless {
                    count_reason(&mut part.errors.broken, NO_END.to_owned());
                }
            }
            if let Some(member) = self.past.member_of(at) {
                part.errors.unthrottled += member.too_fast();
                part.terms.subscriptions += member.throttled_count();
            }
            if client.verifies {
                self.judge_streams(at, client, &known, part);
            } else if let Some(expected) = expected_bytes(published, client, &topics, self.plan.topics) {
                let least = self.plan.payloads.sizes().min() as u64;
                let surplus = client.received.checked_sub(expected);
                // Pings, two bytes each without a payload, are no messages.
                if surplus.is_none_or(|surplus| surplus >= least || surplus % 2 != 0) {
                    part.errors.miscounted += 1;
                }
            }
        }
    }

    /// How far a client that looks at every message has come.
    fn judge_streams(&self, at: u32, client: &Client, known: &impl Fn(u32) -> u64, part: &mut Part) {
        let topics = self.plan.duty(client.role).subscribes;
        for (place, next) in client.nexts.all().iter().enumerate().take(self.plan.places(&topics)) {
            let stream = self.plan.stream_at(&topics, place);
            if *next == UNKNOWN || stream >= self.plan.streams {
                continue;
            }
            let lacks = known(stream).saturating_sub(*next);
            let excused = match self.past.stale(at, place, known(stream)) {
                // Where it is conflated, the newest message of each key is all that had to come. A newcomer's state was
                // judged as such.
                Some(stale) => {
                    part.errors.stale += if self.plan.late() { 0 } else { stale };
                    lacks
                }
                // What was announced to be missing may be the last.
                None => lacks.min(self.past.excuses.left(at, place as u32)),
            };
            *part.streams.entry(stream).or_default().reached.entry(*next + excused).or_default() += 1;
        }
    }
}

/// Bytes that a client must have received; nothing where that is not known.
fn expected_bytes(published: &Final, client: &Client, topics: &Topics, all: u32) -> Option<u64> {
    let wire = published.wire.as_ref().filter(|_| !client.joined_late)?;
    topics.iter(all).map(|topic| wire.get(topic as usize).copied()).sum()
}
