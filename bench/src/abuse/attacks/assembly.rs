//! Messages in fragments that are never finished: each holds memory, and its sender shows signs of life.
//!
//! The broker closes the connection, with 1008 for a message that takes too long or 1013 when memory is short; the client
//! then connects again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::silent::sign_of_life;
use crate::abuse::abuser::Abuser;
use crate::abuse::peer::{Ending, Peer};
use crate::abuse::wire::{BINARY, frame};

/// Bytes of the first fragment.
const LEN: usize = 1_000_000;
/// Between two signs of life.
const LIFE_INTERVAL: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(2);

struct Holder {
    peer: Peer,
    sent: usize,
    alive_at: Instant,
}

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    // Without FIN (RFC 6455, section 5.4).
    let begin = frame(BINARY & 0x0f, &vec![b'y'; LEN]);
    let alive = sign_of_life();
    let mut holders: Vec<Option<Holder>> = Vec::new();
    holders.resize_with(abuser.target.scale.counts.holders, || None);
    while !abuser.over() {
        for place in &mut holders {
            let Some(holder) = place else {
                *place = open(abuser);
                continue;
            };
            let sent = if holder.sent < begin.len() {
                holder.peer.send_some(&begin[holder.sent..]).map(|len| holder.sent += len)
            } else if holder.alive_at.elapsed() > LIFE_INTERVAL {
                holder.alive_at = Instant::now();
                holder.peer.send(&alive)
            } else {
                Ok(())
            };
            if sent.is_err() || holder.alive_at.elapsed() > LIFE_INTERVAL / 2 {
                if let Some(ending) = ending(&mut holder.peer)? {
                    judge(abuser, ending);
                    *place = None;
                } else if sent.is_err() {
                    *place = None;
                }
            }
            if abuser.over() {
                break;
            }
        }
        thread::sleep(STEP);
    }
    let held = holders.iter().flatten().filter(|holder| holder.sent == begin.len()).count();
    abuser.count("held at the end", held as u64);
    Ok(())
}

fn open(abuser: &mut Abuser<'_>) -> Option<Holder> {
    let peer = abuser.open("/pub/abuse/held");
    abuser.count(if peer.is_ok() { "opened" } else { "refused" }, 1);
    Some(Holder { peer: peer.ok()?, sent: 0, alive_at: Instant::now() })
}

/// How the connection ended, if it did: a close frame comes before the end of the stream.
fn ending(peer: &mut Peer) -> Result<Option<Ending>> {
    let Some(ending) = peer.poll_ending()? else { return Ok(None) };
    Ok(Some(match peer.frame() {
        Ok((crate::abuse::wire::CLOSE, payload)) => Ending::Close(crate::abuse::wire::close_code(payload)),
        _ => ending,
    }))
}

fn judge(abuser: &mut Abuser<'_>, ending: Ending) {
    match ending {
        Ending::Close(1008) => abuser.count("closed for taking too long (1008)", 1),
        Ending::Close(1013) => abuser.count("closed for want of memory (1013)", 1),
        // The close frame is lost when data under way cause a reset.
        Ending::Eof | Ending::Reset => abuser.count("ended", 1),
        other => abuser.violation(format!("an unfinished message was ended by {other:?}")),
    }
}
