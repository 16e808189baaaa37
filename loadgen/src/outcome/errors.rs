//! What went wrong in a run, and how far each stream came, from which a merge finds what was lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What went wrong. A good run has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Errors {
    /// Messages that a subscriber never got: the gaps, and what is missing at the end of streams that this outcome
    /// knows the end of. Set by `verdict`.
    pub lost: u64,
    /// Messages that came again.
    pub doubled: u64,
    /// Messages that came after a later one of their stream, without having been missed for good.
    pub reordered: u64,
    /// Messages with the wrong length, filler or topic, or without a stamp; and those `beyond`.
    pub corrupt: u64,
    /// Messages received that nobody published: numbers beyond the end of streams that this outcome knows the end of.
    /// Part of `corrupt`. Set by `verdict`.
    pub beyond: u64,
    /// Clients that count bytes and got another number than was sent to them.
    pub miscounted: u64,
    /// Answers about recovery that were not true: `recovered: true` with something missing, or `recovered: false` with
    /// nothing missing.
    pub untrue: u64,
    /// Messages and gaps whose offsets are not the next, although the messages themselves came in order.
    pub misnumbered: u64,
    /// Keys (or retained messages) of which a newcomer, or a subscriber that is conflated, did not get the newest message.
    pub stale: u64,
    /// Subscriptions that got more deliveries than their throttle allows.
    pub unthrottled: u64,
    /// Clients that never became subscribed, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Connections that the server closed, by close code; 1006 without a close frame. Slow consumers of a scenario
    /// that wants them are not counted here, but in `shed`.
    pub closed: BTreeMap<u16, u64>,
    /// Violations of the protocol and refusals by the server, by reason.
    pub broken: BTreeMap<String, u64>,
    /// Publishers' connections lost, by reason.
    pub publishers: BTreeMap<String, u64>,
    /// Not an error: slow consumers closed by the server, by close code.
    pub shed: BTreeMap<u16, u64>,
}

impl Errors {
    /// Whether all went well.
    #[must_use]
    pub fn none(&self) -> bool {
        Self { shed: BTreeMap::new(), ..self.clone() } == Self::default()
    }

    /// How many, of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        let by_code = self.closed.values();
        let by_reason = [&self.refused, &self.broken, &self.publishers].into_iter().flat_map(BTreeMap::values);
        let history = [self.untrue, self.misnumbered, self.stale, self.unthrottled];
        [self.lost, self.doubled, self.reordered, self.corrupt, self.miscounted]
            .iter()
            .chain(&history)
            .chain(by_code)
            .chain(by_reason)
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds the errors of another.
    pub fn add(&mut self, other: &Self) {
        self.lost = self.lost.saturating_add(other.lost);
        self.doubled = self.doubled.saturating_add(other.doubled);
        self.reordered = self.reordered.saturating_add(other.reordered);
        self.corrupt = self.corrupt.saturating_add(other.corrupt);
        self.beyond = self.beyond.saturating_add(other.beyond);
        self.miscounted = self.miscounted.saturating_add(other.miscounted);
        self.untrue = self.untrue.saturating_add(other.untrue);
        self.misnumbered = self.misnumbered.saturating_add(other.misnumbered);
        self.stale = self.stale.saturating_add(other.stale);
        self.unthrottled = self.unthrottled.saturating_add(other.unthrottled);
        add_each(&mut self.refused, &other.refused);
        add_each(&mut self.closed, &other.closed);
        add_each(&mut self.broken, &other.broken);
        add_each(&mut self.publishers, &other.publishers);
        add_each(&mut self.shed, &other.shed);
    }
}

/// Adds counts key by key.
fn add_each<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        let sum = to.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

/// Adds streams, number by number.
pub fn add_streams(to: &mut BTreeMap<u32, Stream>, from: &BTreeMap<u32, Stream>) {
    for (number, stream) in from {
        let sum = to.entry(*number).or_default();
        sum.published = sum.published.saturating_add(stream.published);
        add_each(&mut sum.reached, &stream.reached);
    }
}

/// What became of one stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// Messages that this process published on it.
    pub published: u64,
    /// Verifying clients here, by the number they expected next when the run ended.
    pub reached: BTreeMap<u64, u64>,
}
