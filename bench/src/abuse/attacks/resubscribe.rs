//! One topic, subscribed and unsubscribed again and again.
//!
//! Most pairs of commands are pipelined while other subscribers keep the topic's logs alive. One thread has a topic of its
//! own, so that each subscription creates a log and each end drops it.

use anyhow::{Result, bail};

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Peer;
use crate::abuse::wire::{PONG, TEXT, frame};

/// Pairs of commands per write.
const BATCH: usize = 128;
/// Subscribers that stay: enough for at least one on each shard.
const KEEPERS: usize = 8;
pub(super) const THREADS: usize = 4;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let total = abuser.target.scale.resubscriptions;
    // An unsubscribe may be pipelined only if its subscription takes effect at once. On the lone topic it does not, so
    // that a pair costs two round trips: fewer of those.
    let alone = abuser.index == 0;
    let lone = total / 20;
    let share = if alone { lone } else { (total - lone) / (abuser.of - 1) + 1 };
    let (topic, batch_len) = if alone { ("again/alone", 1) } else { ("again", BATCH) };
    let mut keepers = Vec::new();
    if !alone {
        for _ in 0..KEEPERS {
            keepers.push(abuser.open(&format!("/sub/{topic}"))?);
        }
    }
    let mut peer = abuser.open("/ws")?;
    let subscribe = frame(TEXT, format!(r#"{{"type":"subscribe","id":1,"topic":"{topic}"}}"#).as_bytes());
    let unsubscribe = frame(TEXT, format!(r#"{{"type":"unsubscribe","id":2,"topic":"{topic}"}}"#).as_bytes());
    let pair = [&subscribe[..], &unsubscribe].concat();
    let mut done = 0;
    while done < share {
        let pairs = batch_len.min(share - done);
        if alone {
            peer.send(&subscribe)?;
            oks(&mut peer, 1)?;
            peer.send(&unsubscribe)?;
            oks(&mut peer, 1)?;
        } else {
            peer.send(&pair.repeat(pairs))?;
            oks(&mut peer, 2 * pairs)?;
            if done % (64 * BATCH) == 0 {
                keepers.iter_mut().try_for_each(stay)?;
            }
        }
        abuser.count("subscribed and left", pairs as u64);
        abuser.count("oks", 2 * pairs as u64);
        done += pairs;
    }
    Ok(())
}

/// Reads `count` answers, all of which must be ok.
fn oks(peer: &mut Peer, count: usize) -> Result<()> {
    for _ in 0..count {
        match peer.message() {
            Ok((TEXT, payload)) if payload.starts_with(br#"{"type":"ok""#) => {}
            Ok((_, payload)) => bail!("instead of an ok: {}", payload.escape_ascii()),
            Err(ending) => bail!("instead of an ok: {ending:?}"),
        }
    }
    Ok(())
}

/// Shows the broker that a keeper is alive, and checks that it was not closed.
fn stay(keeper: &mut Peer) -> Result<()> {
    keeper.send(&frame(PONG, b""))?;
    if let Some(ending) = keeper.poll_ending()? {
        bail!("a quiet subscriber was ended: {ending:?}");
    }
    Ok(())
}
