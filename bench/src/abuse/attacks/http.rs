//! HTTP publishes, pipelined on kept connections: the answers must come in order; then such a connection is upgraded.

use anyhow::{Context, Result, bail, ensure};

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::{Answer, Peer};
use crate::abuse::wire::{TEXT, frame, post};

/// Requests per write.
const BATCH: usize = 16;
/// Batches per connection, before it is upgraded.
const BATCHES: usize = 20;
pub(super) const THREADS: usize = 4;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let topic = format!("abuse/http/{}", abuser.index);
    let requests = post(&topic, "", b"hello").repeat(BATCH);
    while !abuser.over() {
        let mut peer = abuser.connect()?;
        let mut last = None;
        for _ in 0..BATCHES {
            peer.send(&requests)?;
            for _ in 0..BATCH {
                last = Some(published(&mut peer, last)?);
            }
            abuser.count("published over HTTP", BATCH as u64);
        }
        upgrade_kept(peer, &topic)?;
        abuser.count("kept connections upgraded", 1);
    }
    Ok(())
}

/// Epoch and offset of an answer. The offset is one more than the last, unless the topic was forgotten meanwhile.
fn published(peer: &mut Peer, last: Option<(String, u64)>) -> Result<(String, u64)> {
    let answer = match peer.answer() {
        Ok(Answer { status: 200, body }) => serde_json::from_slice::<serde_json::Value>(&body)?,
        other => bail!("a publish was answered by {other:?}"),
    };
    let epoch = answer["epoch"].as_str().context("no epoch")?.to_owned();
    let offset = answer["offset"].as_u64().context("no offset")?;
    if let Some((last_epoch, last)) = last {
        let expected = if last_epoch == epoch { last + 1 } else { 1 };
        ensure!(offset == expected, "offset {offset} came where {expected} was due");
    }
    Ok((epoch, offset))
}

/// The connection becomes a WebSocket, receives its own message and is closed.
fn upgrade_kept(peer: Peer, topic: &str) -> Result<()> {
    let mut peer = peer.upgraded(&format!("/bus/{topic}"))?;
    peer.send(&frame(TEXT, b"kept"))?;
    match peer.frame() {
        Ok((TEXT, b"kept")) => {}
        other => bail!("a kept connection heard {other:?} instead of itself"),
    }
    peer.close().context("a kept connection")
}
