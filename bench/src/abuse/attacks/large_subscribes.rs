//! Commands with as many filters as a connection may have, each with as many levels as fit, over and over.

use anyhow::Result;

use super::v1_client::{V1Client, put_filters};
use crate::abuse::abuser::Abuser;

/// Filters of the command: the broker's default limit.
const FILTERS: usize = 1024;
/// Levels that all filters share, between a `+` and the last level: a filter may have 255 bytes.
const SHARED_LEVELS: usize = 108;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let filters: Vec<_> = (0..FILTERS).map(|at| format!("+/{}{at:06}", "a/".repeat(SHARED_LEVELS))).collect();
    let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
    put_filters(&mut subscribe, "subscribe", &filters);
    put_filters(&mut unsubscribe, "unsubscribe", &filters);
    V1Client::repeat(abuser, |abuser, connection| {
        let begun = connection.ask(abuser, &subscribe, 1)?;
        abuser.count("filters subscribed", (begun.ok * FILTERS) as u64);
        if begun.ok == 0 {
            return Ok(false);
        }
        let ended = connection.ask(abuser, &unsubscribe, 1)?;
        abuser.count("filters unsubscribed", (ended.ok * FILTERS) as u64);
        Ok(!ended.closed)
    })
}
