//! What abusers share: where, how long, how much, and what came of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use super::mutate::ends;
use super::peer::Peer;

/// Violations kept as sentences, per kind of abuse; the others are counted.
const SENTENCES_MAX: usize = 8;

/// `--max-message` of the campaign's broker, in bytes.
pub(super) const MESSAGE_MAX: usize = 256 << 10;
/// `--max-lag` of the campaign's broker.
pub(super) const LAG_MAX: &str = "1m";

/// How much is done, and the deadlines that the broker was started with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Of abuse, per round.
    pub(super) time: Duration,
    /// Before an attack.
    pub(super) calm: Duration,
    /// Well-behaved raw subscribers, and those that speak `ringyard.v1`.
    pub(super) raw: usize,
    pub(super) multi: usize,
    /// Topics created per round.
    pub(super) topics: usize,
    /// Subscriptions begun and ended per round.
    pub(super) resubscriptions: usize,
    /// Silent peers of each sort at the same time.
    pub(super) silent: usize,
    /// Subscribers of each sort that do not read.
    pub(super) stalled: usize,
    pub(super) handshake_timeout: Duration,
    pub(super) ping_interval: Duration,
    pub(super) ping_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) topic_idle_timeout: Duration,
    pub(super) message_timeout: Duration,
    /// What single attacks need.
    pub(super) counts: Counts,
}

/// How many clients attack in each kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Fast readers of large messages.
    pub(super) readers: usize,
    /// Fast readers of a topic that is flooded.
    pub(super) flood_readers: usize,
    /// Clients that ask and do not read the answers.
    pub(super) outboxes: usize,
    /// Messages that are left open.
    pub(super) holders: usize,
    /// HTTP bodies that come a byte at a time, and large ones of which the end is missing.
    pub(super) bodies: usize,
    pub(super) large_bodies: usize,
    /// Connections that subscribe to as many filters as they may.
    pub(super) filter_connections: usize,
    pub(super) overlapping_connections: usize,
    /// Readers that make slow but steady progress.
    pub(super) slow_readers: usize,
    /// Whether everything happens at once, so that the broker may have to close what it need not close otherwise.
    pub(super) together: bool,
}

/// One round's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arena {
    pub(super) address: SocketAddr,
    pub(super) scale: Scale,
    pub(super) round: usize,
    pub(super) deadline: Instant,
}

/// One thread of one kind of abuse.
pub(super) struct Abuser<'a> {
    pub(super) arena: &'a Arena,
    /// Which of the kind's threads this is, and of how many.
    pub(super) index: usize,
    pub(super) of: usize,
    pub(super) rng: Rng,
    pub(super) tally: Tally,
}

/// What was done, and what went wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) violations: u64,
    /// The first of them.
    pub(super) sentences: Vec<String>,
}

impl Abuser<'_> {
    pub(super) fn over(&self) -> bool {
        Instant::now() >= self.arena.deadline
    }

    pub(super) fn connect(&self) -> Result<Peer> {
        Peer::connect(self.arena.address)
    }

    pub(super) fn open(&self, path: &str) -> Result<Peer> {
        Peer::open(self.arena.address, path)
    }

    /// Cut anywhere. A broker that has seen enough may end the connection before all is sent: what it answered tells.
    pub(super) fn send_in_pieces(&mut self, peer: &mut Peer, bytes: &[u8]) {
        let mut from = 0;
        for end in ends(bytes.len(), &mut self.rng) {
            if peer.send(&bytes[from..end]).is_err() {
                return;
            }
            from = end;
        }
    }

    pub(super) fn count(&mut self, what: &'static str, n: u64) {
        *self.tally.counts.entry(what).or_default() += n;
    }

    /// Something that must not happen.
    pub(super) fn violation(&mut self, sentence: String) {
        self.tally.violation(sentence);
    }

    /// Something that must not happen, unless everything happens at once: then it is counted as `what`.
    pub(super) fn refused_or_violation(&mut self, sentence: String, what: &'static str) {
        if self.arena.scale.counts.together {
            self.count(what, 1);
        } else {
            self.violation(sentence);
        }
    }

    /// This thread's part of a number that all threads of its kind share.
    pub(super) fn share(&self, whole: usize) -> usize {
        whole / self.of + usize::from(self.index < whole % self.of)
    }
}

impl Tally {
    pub(super) fn violation(&mut self, sentence: String) {
        self.violations += 1;
        if self.sentences.len() < SENTENCES_MAX {
            self.sentences.push(sentence);
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        other.counts.iter().for_each(|(what, n)| *self.counts.entry(what).or_default() += n);
        self.violations += other.violations;
        self.sentences.extend(other.sentences);
        self.sentences.truncate(SENTENCES_MAX);
    }
}
