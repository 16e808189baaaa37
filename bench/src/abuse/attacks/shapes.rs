//! Tens of thousands of filters, each with `+` in other places, then publishes to one new name after the other: the
//! broker must not compare the first message of a topic with every filter.

use std::time::Duration;

use anyhow::Result;

use super::v1_client::{V1Client, put_filters, put_publish};
use crate::abuse::abuser::Abuser;
use crate::abuse::readers::Readers;

/// Levels of all filters and names.
pub(super) const LEVELS: usize = 16;
/// Filters of one connection: the broker's default is 1,024.
pub(super) const FILTERS: usize = 1000;
/// Publishes per write.
const BATCH: usize = 50;
/// Names after which the first is used again: the broker has forgotten it by then. Leaves names for other clients.
const NAMES: u64 = 20_000;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut subscribers = subscribe(abuser, abuser.target.scale.counts.filter_connections, "shape")?;
    let mut number = 0_u64;
    V1Client::repeat(abuser, |abuser, connection| {
        subscribers.read(Duration::ZERO)?;
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            put_publish(&mut batch, &format!("n{}{}", number % NAMES, "/z".repeat(LEVELS - 1)));
            number += 1;
        }
        let answers = connection.ask(abuser, &batch, BATCH)?;
        abuser.count("new names published to", answers.ok as u64);
        // A connection that has used up its names is replaced.
        Ok(!answers.closed && answers.refused == 0)
    })
}

/// `connections` that subscribe to [`FILTERS`] each, all different and all matching `{level}0/{level}1/...`.
pub(super) fn subscribe(abuser: &mut Abuser<'_>, connections: usize, level: &str) -> Result<Readers> {
    let mut peers = Vec::new();
    for number in 0..connections {
        let first = 1 + number * FILTERS;
        let filters: Vec<_> = (first..first + FILTERS).map(|mask| filter(mask, level)).collect();
        let mut frames = Vec::new();
        put_filters(&mut frames, "subscribe", &filters);
        let Some(mut connection) = V1Client::open(abuser) else { continue };
        let answers = connection.ask(abuser, &frames, 1)?;
        abuser.count("filters", (answers.ok * FILTERS) as u64);
        if !answers.closed {
            peers.push(connection.into_peer());
        }
        if abuser.over() {
            break;
        }
    }
    Readers::new(peers)
}

/// The filter that has `+` where `mask` has a bit, else the level's own text.
fn filter(mask: usize, level: &str) -> String {
    let levels = (0..LEVELS).map(|at| if mask >> at & 1 == 1 { "+".to_owned() } else { format!("{level}{at}") });
    levels.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_differ_in_their_places() {
        assert_eq!(filter(0b101, "q").split('/').take(4).collect::<Vec<_>>(), ["+", "q1", "+", "q3"]);
        assert_eq!(filter(1, "q").split('/').count(), LEVELS);
    }
}
