//! The end: whether everything has arrived, and what this worker adds to the outcome.

use std::sync::Arc;

use ring::{Dial, Nanos};

use super::client::{State, UNKNOWN};
use super::{Final, Part, Report, Worker};

/// How often it is looked whether all is there.
const LOOK_NS: Nanos = 20_000_000;

impl<D: Dial> Worker<D> {
    pub(super) fn begin_drain(&mut self, published: Arc<Final>) {
        self.drain = Some(published);
        self.heard_at = self.driver.now();
        // Those who never read do so now: whatever became of them, they learn it.
        for at in 0..self.clients.len() as u32 {
            let client = &self.clients[at as usize];
            if client.state == State::Open && client.slow {
                self.receive_more(at);
            }
        }
    }

    /// Looks whether the drain is over; says when to look again.
    pub(super) fn drain_due(&mut self, now: Nanos) -> Nanos {
        let Some(published) = self.drain.clone().filter(|_| !self.drained) else { return Nanos::MAX };
        let quiet = now.saturating_sub(self.heard_at) > self.plan.options.drain_timeout.as_nanos() as u64;
        if quiet || self.has_all(&published) {
            self.drained = true;
            self.report(Report::Drained);
            return Nanos::MAX;
        }
        now + LOOK_NS
    }

    fn has_all(&self, published: &Final) -> bool {
        let unknown = published.published.contains(&UNKNOWN);
        let settled = |state| !matches!(state, State::Waiting | State::Dialling | State::Upgrading | State::Greeting);
        !unknown
            && self.clients.iter().all(|client| {
                // A slow client that was not closed has everything, too, when all is read.
                settled(client.state)
                    && (client.state != State::Open || !client.is_subscriber() || self.missing(client, published) == 0)
            })
    }

    /// Messages (or, of a client that counts them, bytes) that an open client has not got; those of streams whose end
    /// is not known here are not missed.
    fn missing(&self, client: &super::client::Client, published: &Final) -> u64 {
        let topics = self.plan.duty(client.role).subscribes;
        if !client.verifies && !client.slow {
            let expected = expected_bytes(published, client, &topics, self.plan.topics);
            return expected.map_or(0, |expected| expected.saturating_sub(client.received));
        }
        let nexts = client.nexts.all().iter().take(self.plan.places(&topics)).enumerate();
        nexts
            .filter(|(_, next)| **next != UNKNOWN)
            .map(|(place, next)| {
                let stream = self.plan.stream_at(&topics, place);
                let all = published.published.get(stream as usize).copied().unwrap_or(0);
                if all == UNKNOWN { 0 } else { all.saturating_sub(*next) }
            })
            .sum()
    }

    /// This worker's share of the outcome. Ends it.
    pub(super) fn part(mut self) -> Part {
        let mut part = Part {
            errors: std::mem::take(&mut self.tally.errors),
            gaps: self.tally.gaps,
            latency: self.tally.latency.clone(),
            admission: self.tally.admission.clone(),
            lateness: self.tally.lateness.clone(),
            streams: std::collections::BTreeMap::new(),
        };
        for (stream, published) in self.publishing.published() {
            part.streams.entry(stream).or_default().published = published;
        }
        let nothing = Arc::new(Final { published: Vec::new(), wire: None });
        let published = self.drain.clone().unwrap_or(nothing);
        for (client, open) in self.clients.iter().zip(&self.settled) {
            if !client.is_subscriber() || !open {
                continue;
            }
            let topics = self.plan.duty(client.role).subscribes;
            if client.verifies || client.slow {
                for (place, next) in client.nexts.all().iter().enumerate().take(self.plan.places(&topics)) {
                    let stream = self.plan.stream_at(&topics, place);
                    if *next != UNKNOWN && stream < self.plan.streams {
                        *part.streams.entry(stream).or_default().reached.entry(*next).or_default() += 1;
                    }
                }
            } else if let Some(expected) = expected_bytes(&published, client, &topics, self.plan.topics) {
                let least = self.plan.payloads.sizes().min() as u64;
                let surplus = client.received.checked_sub(expected);
                // Pings, two bytes each without a payload, are no messages.
                if surplus.is_none_or(|surplus| surplus >= least || surplus % 2 != 0) {
                    part.errors.miscounted += 1;
                }
            }
        }
        part
    }
}

/// Bytes that a client which counts them must have got; nothing where that is not known.
fn expected_bytes(
    published: &Final,
    client: &super::client::Client,
    topics: &crate::adapter::Topics,
    all: u32,
) -> Option<u64> {
    let wire = published.wire.as_ref().filter(|_| !client.joined_late)?;
    (0..topics.count).map(|at| wire.get(((topics.first + at * topics.step) % all) as usize).copied()).sum()
}
