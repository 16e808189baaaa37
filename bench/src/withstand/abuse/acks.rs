//! A publisher that pipelines acknowledged publishes and reads the answers all the while: every one is acknowledged,
//! and it is never closed, however many answers wait for the end of a turn.

use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::super::arena::Abuser;
use super::super::peer::Peer;
use super::super::wire::{PING, TEXT, describe, put_frame};

/// Publishes of one burst.
const BURST: usize = 30_000;

#[derive(Deserialize)]
struct Answer<'a> {
    r#type: &'a str,
    id: usize,
}

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    for id in 0..BURST {
        let command = format!(r#"{{"type":"publish","id":{id},"topic":"abuse/acknowledged","data":1}}"#);
        put_frame(&mut bytes, TEXT, command.as_bytes());
    }
    // One burst at least, however short the round.
    loop {
        let mut peer = abuser.open("/ws")?;
        let mut sender = peer.sender()?;
        let acknowledged = thread::scope(|scope| {
            // When the broker ends the connection, the reader says how.
            let sending = scope.spawn(|| drop(sender.send(&bytes)));
            let acknowledged = read(&mut peer);
            sending.join().expect("a sender does not panic");
            acknowledged
        });
        acknowledged.context("a publisher that reads its answers")?;
        abuser.count("acknowledged", BURST as u64);
        if abuser.over() {
            return Ok(());
        }
    }
}

/// Reads until all have been acknowledged, each once.
fn read(peer: &mut Peer) -> Result<()> {
    let (mut seen, mut missing) = (vec![false; BURST], BURST);
    while missing > 0 {
        match peer.frame() {
            Ok((TEXT, payload)) => {
                let answer: Answer<'_> = serde_json::from_slice(payload)
                    .with_context(|| format!("answered {}", payload.escape_ascii()))?;
                let again = seen.get_mut(answer.id).is_none_or(|seen| std::mem::replace(seen, true));
                ensure!(answer.r#type == "ok" && !again, "answered {}", payload.escape_ascii());
                missing -= 1;
            }
            // No pong from here: the other thread may be within a frame, and whatever it sends is a sign of life.
            Ok((PING, _)) => {}
            Ok((first, payload)) => bail!("{}, {missing} not acknowledged", describe(first, payload)),
            Err(ending) => bail!("ended with {ending:?}, {missing} not acknowledged"),
        }
    }
    Ok(())
}
