//! Publishers as fast as the broker lets them, on a topic of their own, and a subscriber (the witness) that checks the order.
//!
//! The broker may close the witness with 1013 when it falls behind; until then it must miss nothing.

use anyhow::{Context, Result};

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Ending;
use crate::abuse::wire::{BINARY, CLOSE, TEXT, put_frame};

/// The topic of the flood.
pub(super) const HOT: &str = "abuse/hot";
/// Messages per write.
const BATCH: u64 = 64;
/// Bytes of one message: the publisher's number, the message's, and filler.
const LEN: usize = 1000;
/// The last thread is the witness, the one before it publishes over `ringyard.v1`, the others raw.
pub(super) const THREADS: usize = 4;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    match abuser.of - abuser.index {
        1 => witness(abuser),
        2 => publish(abuser, "/ws"),
        _ => publish(abuser, &format!("/pub/{HOT}")),
    }
}

fn publish(abuser: &mut Abuser<'_>, path: &str) -> Result<()> {
    let mut peer = abuser.open(path)?;
    let (mut seq, mut batch) = (0_u64, Vec::new());
    while !abuser.over() {
        batch.clear();
        for _ in 0..BATCH {
            let text = format!("{} {seq} {:x<LEN$}", abuser.index, "");
            if path == "/ws" {
                let command = format!(r#"{{"type":"publish","topic":"{HOT}","data":"{text}"}}"#);
                put_frame(&mut batch, TEXT, command.as_bytes());
            } else {
                put_frame(&mut batch, BINARY, text.as_bytes());
            }
            seq += 1;
        }
        peer.send(&batch).context("a publisher was closed")?;
        abuser.count("published", BATCH);
    }
    peer.close().context("a publisher")
}

fn witness(abuser: &mut Abuser<'_>) -> Result<()> {
    while !abuser.over() {
        let mut peer = abuser.open(&format!("/sub/{HOT}"))?;
        let mut next = [None; THREADS];
        loop {
            if abuser.over() {
                return Ok(());
            }
            match peer.message() {
                Ok((CLOSE, payload)) if payload.starts_with(&1013_u16.to_be_bytes()) => {
                    abuser.count("witnesses closed (1013)", 1);
                    break;
                }
                Ok((BINARY | TEXT, payload)) => {
                    let place = place(&payload);
                    match place {
                        Some((who, seq)) if next[who].is_none_or(|next| next == seq) => next[who] = Some(seq + 1),
                        _ => abuser.violation(format!("{place:?} came where {next:?} was due")),
                    }
                    abuser.count("witnessed", 1);
                }
                // The publishers are gone.
                Err(Ending::Late) if abuser.over() => return Ok(()),
                other => {
                    let what = format!("a witness got {other:?}");
                    abuser.violation(what);
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Which publisher's message this is, and which of its messages.
pub(super) fn place(payload: &[u8]) -> Option<(usize, u64)> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    let who = words.next()?.parse().ok().filter(|who| *who < THREADS)?;
    Some((who, words.next()?.parse().ok()?))
}
