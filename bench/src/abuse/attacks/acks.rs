//! Publishers that pipeline acknowledged publishes and read the answers more slowly than they come. Every publish must be
//! acknowledged, and no publisher closed, however many answers wait. Several publishers at once make the broker's turns
//! long, so that much arrives between two turns.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Peer;
use crate::abuse::wire::{PING, TEXT, describe, put_frame};

pub(super) const THREADS: usize = 4;
/// Publishes of one burst.
const BURST: usize = 30_000;
/// Answers read in a row, and the pause that follows: 200,000 per second, about as fast as a script reads.
const RUN: usize = 1000;
const PAUSE: Duration = Duration::from_millis(5);
const RECEIVE_BUFFER: usize = 16 << 10;

#[derive(Deserialize)]
struct Answer<'a> {
    r#type: &'a str,
    id: usize,
}

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    for id in 0..BURST {
        let command =
            format!(r#"{{"type":"publish","id":{id},"topic":"abuse/acknowledged/{}","data":1}}"#, abuser.index);
        put_frame(&mut bytes, TEXT, command.as_bytes());
    }
    // One burst at least, however short the round.
    loop {
        let mut peer = Peer::connect_with(&abuser.target.address, Some(RECEIVE_BUFFER), None)?.upgraded("/ws")?;
        let mut sender = peer.sender()?;
        let acknowledged = thread::scope(|scope| {
            // When the broker ends the connection, the reader reports it.
            let sending = scope.spawn(|| drop(sender.send(&bytes)));
            let acknowledged = read(&mut peer);
            sending.join().expect("a sender does not panic");
            acknowledged
        });
        match acknowledged {
            Ok(()) => abuser.count("acknowledged", BURST as u64),
            Err(error) => {
                abuser.refused_or_violation(format!("a publisher that reads its answers: {error:#}"), "bursts cut off");
            }
        }
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
                let answer: Answer<'_> =
                    serde_json::from_slice(payload).with_context(|| format!("answered {}", payload.escape_ascii()))?;
                let again = seen.get_mut(answer.id).is_none_or(|seen| std::mem::replace(seen, true));
                ensure!(answer.r#type == "ok" && !again, "answered {}", payload.escape_ascii());
                missing -= 1;
                if missing % RUN == 0 {
                    thread::sleep(PAUSE);
                }
            }
            // No pong: the other thread may be within a frame, and everything that it sends counts as a sign of life.
            Ok((PING, _)) => {}
            Ok((first, payload)) => bail!("{}, {missing} not acknowledged", describe(first, payload)),
            Err(ending) => bail!("ended with {ending:?}, {missing} not acknowledged"),
        }
    }
    Ok(())
}
