//! One thread of an attack: its target, its deadline, and a tally of what it did and what went wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Result;
use fastrand::Rng;

use super::broker::Broker;
use super::mutate::ends;
use super::peer::{Address, Peer};
use super::scale::Scale;

/// Violations kept as sentences, per kind of attack; the others are only counted.
const SENTENCES_MAX: usize = 8;

/// What all threads of a round attack, how much, and until when.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    /// Where its counters are, without TLS.
    pub(super) operators: SocketAddr,
    /// The port with TLS, if the broker has one.
    pub(super) tls: Option<SocketAddr>,
    pub(super) scale: Scale,
    pub(super) round: usize,
    pub(super) deadline: Instant,
}

/// One thread of one kind of attack.
pub(super) struct Abuser<'a> {
    pub(super) target: &'a Target,
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

impl Target {
    /// A broker, from `begun` on.
    pub(super) fn new(broker: &Broker, scale: &Scale, round: usize, begun: Instant) -> Self {
        let (address, deadline) = (broker.clients.clone(), begun + scale.time);
        Self { address, operators: broker.operators, tls: broker.tls, scale: *scale, round, deadline }
    }
}

impl Abuser<'_> {
    pub(super) fn over(&self) -> bool {
        Instant::now() >= self.target.deadline
    }

    pub(super) fn connect(&self) -> Result<Peer> {
        Peer::connect(&self.target.address)
    }

    pub(super) fn open(&self, path: &str) -> Result<Peer> {
        Peer::open(&self.target.address, path)
    }

    /// Sends `bytes` in random pieces. The broker may end the connection before all are sent; its answer says why.
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

    /// Something that must not happen when the attack runs alone. When all attacks run together, it is only counted as
    /// `what`.
    pub(super) fn refused_or_violation(&mut self, sentence: String, what: &'static str) {
        if self.target.scale.counts.together {
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
