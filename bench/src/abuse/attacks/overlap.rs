//! Messages that thousands of overlapping filters match: the broker must bound the work of matching per turn.

use std::time::Duration;

use anyhow::Result;

use super::shapes::{LEVELS, subscribe};
use super::v1_client::{V1Client, put_publish};
use crate::abuse::abuser::Abuser;

/// Publishes per write.
const BATCH: usize = 20;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut subscribers = subscribe(abuser, abuser.target.scale.counts.overlapping_connections, "overlap")?;
    let topic = (0..LEVELS).map(|at| format!("overlap{at}")).collect::<Vec<_>>().join("/");
    let mut batch = Vec::new();
    (0..BATCH).for_each(|_| put_publish(&mut batch, &topic));
    V1Client::repeat(abuser, |abuser, connection| {
        let answers = connection.ask(abuser, &batch, BATCH)?;
        abuser.count("messages that all of them match", answers.ok as u64);
        subscribers.read(Duration::ZERO)?;
        Ok(!answers.closed)
    })?;
    abuser.count("kilobytes delivered", subscribers.bytes >> 10);
    if subscribers.ended > 0 {
        let what = format!("{} subscribers that read were closed", subscribers.ended);
        abuser.refused_or_violation(what, "subscribers closed");
    }
    Ok(())
}
