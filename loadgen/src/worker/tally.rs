//! What a worker counts: since the last snapshot, and in total.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;

use crate::adapter::SlowConsumer;
use crate::outcome::{Errors, History, Stream, histogram};

/// Reasons that are counted separately.
const REASONS_MAX: usize = 100;

/// Counts that only grow. The coordinator takes differences.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    /// Subscribers open now (a gauge).
    pub(crate) open: u64,
    /// Subscribers that became open.
    pub(crate) opened: u64,
    /// Of these, again.
    pub(crate) reopened: u64,
    /// Subscribers given up.
    pub(crate) failed: u64,
    pub(crate) retries: u64,
    pub(crate) published: u64,
    /// Messages that were due while their publisher was not connected.
    pub(crate) unpublished: u64,
    /// How often a publisher had to wait until the server took some.
    pub(crate) blocked: u64,
    /// Messages that verifying clients received.
    pub(crate) messages: u64,
    /// Bytes that clients received which only count bytes.
    pub(crate) discarded: u64,
    /// Bytes that all received.
    pub(crate) bytes: u64,
    pub(crate) receives: u64,
    pub(crate) pings: u64,
    pub(crate) errors: u64,
    /// Processor time of the thread.
    pub(crate) cpu_ns: u64,
    /// Time the thread wanted a core and had none.
    pub(crate) waited_ns: u64,
}

/// A worker's answer to a request for its state.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) worker: u32,
    pub(crate) counts: Counts,
    /// Latencies since the last snapshot: nanoseconds and how often.
    pub(crate) latency: Vec<(u64, u64)>,
    /// Admissions since the last snapshot.
    pub(crate) admission: Vec<(u64, u64)>,
    pub(crate) errors: Errors,
    /// The newest publication that came to some client here, and when the first and the last had it.
    pub(crate) broadcast: Broadcast,
}

/// When a publication reached its clients: monotonic nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Broadcast {
    pub(crate) published: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// A worker's share of the outcome.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) errors: Errors,
    pub(crate) gaps: u64,
    /// Latencies of messages that were due in the measured time.
    pub(crate) latency: Histogram<u64>,
    pub(crate) admission: Histogram<u64>,
    pub(crate) lateness: Histogram<u64>,
    pub(crate) streams: BTreeMap<u32, Stream>,
    pub(crate) slow: SlowPart,
    pub(crate) history: HistoryPart,
    pub(crate) terms: TermsPart,
    pub(crate) tls: Option<Box<TlsPart>>,
    pub(crate) logins: Option<Box<Histogram<u64>>>,
}

/// What a worker's clients made of histories.
#[derive(Clone, Debug)]
pub(crate) struct HistoryPart {
    /// Its distributions are empty: they are in `catch_up`.
    pub(crate) counts: History,
    /// From the connect until what was missed, or the state, had come.
    pub(crate) catch_up: Histogram<u64>,
}

impl HistoryPart {
    pub(crate) fn new() -> Self {
        Self { counts: History::default(), catch_up: histogram() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.catch_up.add(&other.catch_up).expect("the same bounds");
    }
}

/// The TLS handshakes of a worker's connections.
#[derive(Clone, Debug)]
pub(crate) struct TlsPart {
    /// By version, and whether they were resumed.
    pub(crate) handshakes: BTreeMap<(&'static str, bool), u64>,
    /// From the connect's success until the end of the handshake.
    pub(crate) took: Histogram<u64>,
}

impl TlsPart {
    pub(crate) fn new() -> Self {
        Self { handshakes: BTreeMap::new(), took: histogram() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.handshakes.iter().for_each(|(kind, count)| *self.handshakes.entry(*kind).or_default() += count);
        self.took.add(&other.took).expect("the same bounds");
    }
}

/// On which terms a worker's clients were delivered to, and what came of that.
#[derive(Clone, Default, Debug)]
pub(crate) struct TermsPart {
    /// Subscriptions by the answer to them: policy, and throttle in milliseconds.
    pub(crate) answers: BTreeMap<(SlowConsumer, u64), u64>,
    /// Messages left out for newer ones of their key.
    pub(crate) conflated: u64,
    /// Subscriptions whose deliveries are counted, and their deliveries in the measured time.
    pub(crate) subscriptions: u64,
    pub(crate) deliveries: u64,
}

impl TermsPart {
    pub(crate) fn add(&mut self, other: &Self) {
        other.answers.iter().for_each(|(terms, count)| *self.answers.entry(*terms).or_default() += count);
        self.conflated += other.conflated;
        self.subscriptions += other.subscriptions;
        self.deliveries += other.deliveries;
    }
}

/// What became of a worker's slow clients.
#[derive(Clone, Default, Debug)]
pub(crate) struct SlowPart {
    /// Those that had not received everything when publishing ended, and were not closed.
    pub(crate) behind: u64,
    /// Messages that the slowest of them had not received then.
    pub(crate) behind_messages: u64,
    /// Those that the server closed, by close code.
    pub(crate) closed: BTreeMap<u16, u64>,
    /// When the last messages of the closed ones were published, the earliest and the latest: nanoseconds since 1970.
    pub(crate) cut_off_ns: Option<(u64, u64)>,
}

impl SlowPart {
    pub(crate) fn add(&mut self, other: &Self) {
        self.behind += other.behind;
        self.behind_messages = self.behind_messages.max(other.behind_messages);
        other.closed.iter().for_each(|(code, count)| *self.closed.entry(*code).or_default() += count);
        if let Some((first, last)) = other.cut_off_ns {
            let (least, most) = self.cut_off_ns.unwrap_or((first, last));
            self.cut_off_ns = Some((least.min(first), most.max(last)));
        }
    }
}

/// Everything a worker counts.
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) errors: Errors,
    pub(super) gaps: u64,
    /// Since the last snapshot.
    pub(super) interval: Histogram<u64>,
    pub(super) latency: Histogram<u64>,
    pub(super) admission: Histogram<u64>,
    pub(super) admission_interval: Histogram<u64>,
    pub(super) lateness: Histogram<u64>,
    pub(super) broadcast: Broadcast,
    pub(super) slow: SlowPart,
    pub(super) terms: TermsPart,
    /// Nothing without TLS: it is large.
    pub(super) tls: Option<Box<TlsPart>>,
    /// How long each login took; nothing until the first.
    pub(super) logins: Option<Box<Histogram<u64>>>,
    pub(super) history: History,
    pub(super) catch_up: Histogram<u64>,
    /// When the newest message that a slow client received was published, by client: nanoseconds since 1970.
    pub(super) slow_heard: HashMap<u32, u64>,
    /// Messages that slow clients had not received when publishing ended, by client; a closed one is taken out.
    pub(super) slow_behind: HashMap<u32, u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            counts: Counts::default(),
            errors: Errors::default(),
            gaps: 0,
            interval: histogram(),
            latency: histogram(),
            admission: histogram(),
            admission_interval: histogram(),
            lateness: histogram(),
            broadcast: Broadcast::default(),
            slow: SlowPart::default(),
            terms: TermsPart::default(),
            tls: None,
            logins: None,
            history: History::default(),
            catch_up: histogram(),
            slow_heard: HashMap::new(),
            slow_behind: HashMap::new(),
        }
    }

    pub(super) fn snapshot(&mut self, worker: u32) -> Snapshot {
        let (cpu_ns, waited_ns) = crate::usage::thread();
        self.counts.cpu_ns = cpu_ns;
        self.counts.waited_ns = waited_ns;
        Snapshot {
            worker,
            counts: self.counts,
            latency: take(&mut self.interval),
            admission: take(&mut self.admission_interval),
            errors: self.errors.clone(),
            broadcast: self.broadcast,
        }
    }

    /// The server closed a slow client.
    pub(super) fn count_slow_closed(&mut self, at: u32, code: u16) {
        self.slow_behind.remove(&at);
        let cut_off_ns = self.slow_heard.get(&at).map(|heard| (*heard, *heard));
        self.slow.add(&SlowPart { closed: [(code, 1)].into(), cut_off_ns, ..SlowPart::default() });
    }

    pub(super) fn count_refused(&mut self, why: String) {
        count_reason(&mut self.errors.refused, why);
        self.counts.errors += 1;
        self.counts.failed += 1;
    }
}

/// Counts a reason. The number of reasons is limited, because a server may give each client another one.
pub(super) fn count_reason(reasons: &mut BTreeMap<String, u64>, why: String) {
    let known = reasons.len() < REASONS_MAX || reasons.contains_key(&why);
    *reasons.entry(if known { why } else { "other reasons".to_owned() }).or_default() += 1;
}

fn take(histogram: &mut Histogram<u64>) -> Vec<(u64, u64)> {
    let values = histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
    histogram.reset();
    values
}
