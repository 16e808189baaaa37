//! Messages that many thousands of overlapping filters match: matches are work, and work has a bound per turn.

use std::time::Duration;

use anyhow::Result;

use super::super::arena::Abuser;
use super::asking::{Asking, put_publish};
use super::shapes::{LEVELS, subscribe};

/// Publishes per write.
const BATCH: usize = 20;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut subscribers = subscribe(abuser, abuser.arena.scale.counts.overlapping_connections, "overlap")?;
    let topic = (0..LEVELS).map(|at| format!("overlap{at}")).collect::<Vec<_>>().join("/");
    let mut batch = Vec::new();
    (0..BATCH).for_each(|_| put_publish(&mut batch, &topic));
    let mut asking = None;
    while !abuser.over() {
        let Some(mut connection) = asking.take().or_else(|| Asking::open(abuser)) else { continue };
        let answers = connection.ask(abuser, &batch, BATCH)?;
        abuser.count("messages that all of them match", answers.ok as u64);
        asking = (!answers.closed).then_some(connection);
        subscribers.read(Duration::ZERO)?;
    }
    abuser.count("kilobytes delivered", subscribers.bytes >> 10);
    if subscribers.ended > 0 {
        let what = format!("{} subscribers that read were closed", subscribers.ended);
        abuser.refused_or_violation(what, "subscribers closed");
    }
    Ok(())
}
