//! Readers on a slow link that read steadily: they make progress, so the broker must not close them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::silent::sign_of_life;
use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Peer;
use crate::abuse::wire::{BINARY, frame};

/// Bytes per second that each reads.
const RATE: usize = 40_000;
const STEP: Duration = Duration::from_millis(100);
/// Messages that wait for each reader: 3.5 MB, below the broker's limit for one topic.
const MESSAGES: usize = 14;
const LEN: usize = 250_000;
/// Between two signs of life, so that the broker's pings count as answered.
const LIFE_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut readers = Vec::new();
    for number in 0..abuser.target.scale.counts.slow_readers {
        let topic = format!("abuse/slow/{number}");
        let peer = Peer::connect_small(&abuser.target.address)?;
        readers.push(peer.upgraded(&format!("/sub/{topic}")).context("a slow reader")?);
        let mut publisher = abuser.open(&format!("/pub/{topic}"))?;
        publisher.send(&frame(BINARY, &vec![b'x'; LEN]).repeat(MESSAGES))?;
    }
    let (mut alive_at, mut read) = (Instant::now(), 0_u64);
    let mut open = readers.len();
    let mut readers: Vec<_> = readers.into_iter().map(Some).collect();
    while !abuser.over() {
        let step = Instant::now();
        let alive = alive_at.elapsed() > LIFE_INTERVAL;
        for place in &mut readers {
            let Some(reader) = place else { continue };
            match reader.read_slowly(RATE / 10) {
                Ok(len) => read += len as u64,
                Err(ending) => {
                    open -= 1;
                    *place = None;
                    let what = format!("a reader that makes steady progress was ended: {ending:?}");
                    abuser.refused_or_violation(what, "readers closed");
                    continue;
                }
            }
            if alive {
                // Fails once the broker has ended it, which the next read shows.
                drop(reader.send(&sign_of_life()));
            }
        }
        if alive {
            alive_at = Instant::now();
        }
        thread::sleep(STEP.saturating_sub(step.elapsed()));
    }
    abuser.count("kilobytes read", read >> 10);
    abuser.count("readers at the end", open as u64);
    Ok(())
}
