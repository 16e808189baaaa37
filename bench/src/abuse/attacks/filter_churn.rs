//! Filters that are subscribed and unsubscribed at a high rate, while another connection publishes to thousands of topics:
//! the broker must not forget all matches with every change of a filter.

use anyhow::Result;

use super::v1_client::{V1Client, put_filters, put_publish};
use crate::abuse::abuser::Abuser;

/// The last thread publishes, the others subscribe and unsubscribe.
pub(super) const THREADS: usize = 3;
/// Filters per command, some of which match what is published.
const FILTERS: usize = 50;
/// Topics that are published to in turn.
const TOPICS: usize = 2000;
/// Publishes per write.
const BATCH: usize = 200;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    if abuser.index + 1 == abuser.of { publish(abuser) } else { churn(abuser) }
}

fn churn(abuser: &mut Abuser<'_>) -> Result<()> {
    V1Client::repeat(abuser, |abuser, connection| {
        let filters: Vec<_> = (0..FILTERS).map(|at| filter(at, &mut abuser.rng)).collect();
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        put_filters(&mut subscribe, "subscribe", &filters);
        put_filters(&mut unsubscribe, "unsubscribe", &filters);
        let begun = connection.ask(abuser, &subscribe, 1)?;
        if begun.ok == 0 {
            return Ok(false);
        }
        let ended = connection.ask(abuser, &unsubscribe, 1)?;
        abuser.count("filters that came and went", (ended.ok * FILTERS) as u64);
        Ok(!ended.closed)
    })
}

/// A filter that no other with another `at` equals: one in four matches topics that are published to.
fn filter(at: usize, rng: &mut fastrand::Rng) -> String {
    match at % 4 {
        0 => format!("again/{}/+/b", at * (TOPICS / FILTERS) + rng.usize(..TOPICS / FILTERS)),
        1 => format!("again/+/{at}/{}", rng.u32(..)),
        2 => format!("again/{at}x{:x}/#", rng.u64(..)),
        _ => format!("again/{at}x{}/{}", rng.u32(..), rng.u32(..)),
    }
}

fn publish(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut number = 0;
    V1Client::repeat(abuser, |abuser, connection| {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            put_publish(&mut batch, &format!("again/{}/a/b", number % TOPICS));
            number += 1;
        }
        let answers = connection.ask(abuser, &batch, BATCH)?;
        abuser.count("published meanwhile", answers.ok as u64);
        Ok(!answers.closed)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_filters_of_a_command_differ() {
        let mut rng = fastrand::Rng::with_seed(1);
        let filters: HashSet<_> = (0..FILTERS).map(|at| filter(at, &mut rng)).collect();
        assert_eq!(filters.len(), FILTERS);
    }
}
