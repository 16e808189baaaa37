//! Leases and wills of a run: which topics clients take the leases of, in a share of the seeds with sessions.

use ring::Random;

use crate::rules::TopicRule;

/// How the names of topics begin that say who has a lease.
pub(crate) const LEASE: &str = "$lease/";
/// The longest time that somebody waits for a lease, in milliseconds.
pub(crate) const WAIT_MS_MAX: u64 = 3_000;
/// How long a lease lasts if its client does not say, in milliseconds.
pub(crate) const TTL_MS: u64 = 10_000;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Leases {
    /// The topics whose leases are taken.
    pub topics: Vec<usize>,
    /// How long leases last, in milliseconds.
    pub ttls_ms: Vec<u64>,
    /// How long wills wait, in milliseconds.
    pub delays_ms: Vec<u64>,
}

impl Leases {
    /// Of a run with these topics, to which an exclusive one is added, from a generator of its own.
    pub(crate) fn draw(rng: &mut Random, topics: &mut Vec<String>, rules: &mut Vec<TopicRule>) -> Self {
        let mut leased: Vec<usize> = (rng.one_in(3)).then(|| rng.below(topics.len())).into_iter().collect();
        leased.push(topics.len());
        topics.push("x/loco".to_owned());
        rules.push(TopicRule { exclusive: true, ..rng.pick(rules) });
        let ttls_ms = rng.pick(&[&[1_000][..], &[1_000, 1_500, 4_000], &[TTL_MS, 600_000], &[1_000, TTL_MS]]);
        let delays_ms = rng.pick(&[&[0][..], &[0, 0, 30, 300], &[0, 1_000, 60_000]]);
        Self { topics: leased, ttls_ms: ttls_ms.to_vec(), delays_ms: delays_ms.to_vec() }
    }
}
