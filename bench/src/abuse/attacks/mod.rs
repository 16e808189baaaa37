//! The attacks, one file per kind.

mod acks;
mod assembly;
mod bodies;
mod churn;
mod filter_churn;
mod flood;
mod flood_one_reader;
mod flood_topic;
mod frames;
mod heads;
mod http;
mod large_messages;
mod large_subscribes;
mod names;
mod outboxes;
mod overlap;
mod resets;
mod resubscribe;
mod shapes;
mod silent;
mod slow_progress;
mod small_messages;
mod stalled;
mod tls;
mod topics;
mod v1_client;

use std::thread;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use super::abuser::{Abuser, Tally, Target};

/// A kind of attack: its name, its threads, and what each does until the deadline.
pub(super) type Kind = (&'static str, usize, fn(&mut Abuser<'_>) -> Result<()>);

/// The kinds of the campaign: all at once, round after round, and afterwards the broker must hold as much as before.
pub(super) const KINDS: [Kind; 11] = [
    ("heads", 1, heads::run),
    ("frames", 1, frames::run),
    ("silent", 1, silent::run),
    ("resets", 1, resets::run),
    ("churn", churn::THREADS, churn::run),
    ("stalled", 1, stalled::run),
    ("flood", flood::THREADS, flood::run),
    ("topics", topics::THREADS, topics::run),
    ("resubscribe", resubscribe::THREADS, resubscribe::run),
    ("http", http::THREADS, http::run),
    (TLS, tls::THREADS, tls::run),
];

/// The kind that needs a port with TLS.
pub(super) const TLS: &str = "tls";

/// An attack on one limit of the broker.
#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) kind: Kind,
    /// What it does.
    pub(super) what: &'static str,
    /// The shortest useful time.
    pub(super) least: Duration,
    /// The pairs' largest median under attack, as a multiple of the median before; nothing where it is not promised.
    pub(super) median_factor_max: Option<f64>,
}

const fn attack(kind: Kind, what: &'static str) -> Attack {
    Attack { kind, what, least: Duration::ZERO, median_factor_max: None }
}

/// All attacks.
pub(super) const ATTACKS: [Attack; 14] = [
    attack(
        ("flood-one-reader", 1, flood_one_reader::run),
        "one publisher as fast as it can, one reader that keeps up and checks every message",
    ),
    attack(
        ("large-messages", 1, large_messages::run),
        "one publisher of 100 KB messages as fast as it can, many readers that keep up",
    ),
    attack(
        ("small-messages", small_messages::THREADS, small_messages::run),
        "empty messages and messages of one byte to subscribers that do not read",
    ),
    attack(("outboxes", 1, outboxes::run), "pings and acknowledged publishes from clients that never read"),
    attack(
        ("acks", acks::THREADS, acks::run),
        "bursts of 30,000 acknowledged publishes from clients that read the answers",
    ),
    attack(("assembly", 1, assembly::run), "1 MB fragments of messages that are never finished"),
    attack(("bodies", bodies::THREADS, bodies::run), "HTTP bodies a byte at a time, and 900 KB bodies without an end"),
    attack(("names", names::THREADS, names::run), "as many topic names as the broker gives"),
    attack(("shapes", 1, shapes::run), "filters with + in different places, then publishes to new names"),
    attack(("large-subscribes", 1, large_subscribes::run), "1,024 filters of 110 levels, subscribed and unsubscribed"),
    attack(("overlap", 1, overlap::run), "messages that thousands of overlapping filters match"),
    Attack {
        median_factor_max: Some(3.0),
        ..attack(("flood-topic", 1, flood_topic::run), "one publisher without a limit of its own, many fast readers")
    },
    Attack {
        // Until the kernel's buffers are full, the broker does not wait for the readers.
        least: Duration::from_secs(7),
        ..attack(("slow-progress", 1, slow_progress::run), "readers at 40 KB/s that never stop reading")
    },
    attack(
        ("filter-churn", filter_churn::THREADS, filter_churn::run),
        "filters that come and go while others publish to thousands of topics",
    ),
];

/// Runs these kinds at once, until the last has ended; returns what each did.
pub(super) fn run(kinds: &[Kind], target: &Target, seed: u64) -> Vec<(&'static str, Tally)> {
    thread::scope(|scope| {
        let mut rng = Rng::with_seed(seed.wrapping_add(target.round as u64));
        let running: Vec<_> = kinds
            .iter()
            .map(|&(name, of, run)| {
                let threads: Vec<_> = (0..of)
                    .map(|index| {
                        let mut abuser = Abuser { target, index, of, rng: rng.fork(), tally: Tally::default() };
                        scope.spawn(move || {
                            if let Err(error) = run(&mut abuser) {
                                abuser.violation(format!("{error:#}"));
                            }
                            abuser.tally
                        })
                    })
                    .collect();
                (name, threads)
            })
            .collect();
        let finished = running.into_iter().map(|(name, threads)| {
            let mut tally = Tally::default();
            threads.into_iter().for_each(|thread| tally.add(thread.join().expect("an abuser does not panic")));
            (name, tally)
        });
        finished.collect()
    })
}
