//! The abusers, one file each kind.

mod churn;
mod flood;
mod frames;
mod heads;
mod http;
mod resets;
mod resubscribe;
mod silent;
mod stalled;
mod topics;

use std::thread;

use anyhow::Result;
use fastrand::Rng;

use super::arena::{Abuser, Arena, Tally};

/// A kind of abuse: what it is called, its threads, and what each does until the deadline.
pub(super) type Kind = (&'static str, usize, fn(&mut Abuser<'_>) -> Result<()>);

/// All kinds.
pub(super) const KINDS: [Kind; 10] = [
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
];

/// Lets these loose at once; what each kind did, when the last has ended.
pub(super) fn run(kinds: &[Kind], arena: &Arena, seed: u64) -> Vec<(&'static str, Tally)> {
    thread::scope(|scope| {
        let mut rng = Rng::with_seed(seed.wrapping_add(arena.round as u64));
        let running: Vec<_> = kinds
            .iter()
            .map(|&(name, of, run)| {
                let threads: Vec<_> = (0..of)
                    .map(|index| {
                        let mut abuser = Abuser { arena, index, of, rng: rng.fork(), tally: Tally::default() };
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
