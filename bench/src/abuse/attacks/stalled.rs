//! Subscribers that never read: of the flood's topic, where the broker closes them with 1013, and of the control group's.
//!
//! Half of the flood's subscribers read once they are closed: they must find every message up to the close frame, in order.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::flood::{HOT, THREADS, place};
use super::silent::sign_of_life;
use crate::abuse::abuser::Abuser;
use crate::abuse::control::TOPIC;
use crate::abuse::peer::{Ending, Peer};
use crate::abuse::stats::Poller;
use crate::abuse::wire::{BINARY, CLOSE, TEXT, close_code, frame};

/// Receive buffer of a stalled subscriber, in bytes.
const RECEIVE_BUFFER: usize = 4096;
const STEP: Duration = Duration::from_millis(50);
/// The flood must close those that do not read within this time.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut poller = Poller::new(abuser.target.operators);
    let mut sharing = Vec::new();
    for _ in 0..abuser.target.scale.stalled {
        sharing.push(open(abuser, TOPIC)?);
    }
    abuser.count("sharing the control group's topic", sharing.len() as u64);
    while !abuser.over() {
        wave(abuser, &mut poller, &mut sharing)?;
    }
    Ok(())
}

fn open(abuser: &Abuser<'_>, topic: &str) -> Result<Peer> {
    Peer::connect_with(&abuser.target.address, Some(RECEIVE_BUFFER), None)?.upgraded(&format!("/sub/{topic}"))
}

fn wave(abuser: &mut Abuser<'_>, poller: &mut Poller, sharing: &mut [Peer]) -> Result<()> {
    let before = poller.ask()?.total("dropped_slow")?;
    let wanted = 2 * abuser.target.scale.stalled;
    let mut stalled = Vec::new();
    for _ in 0..wanted {
        stalled.push(open(abuser, HOT)?);
    }
    let begun = Instant::now();
    while poller.ask()?.total("dropped_slow")? < before + wanted as u64 {
        if abuser.over() {
            // The flood has ended, and may have been too short for this wave.
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            abuser.violation(format!("{wanted} subscribers that do not read were not dropped within {PATIENCE:?}"));
            return Ok(());
        }
        // Half of the subscribers of the control group's topic show signs of life.
        for peer in sharing.iter_mut().step_by(2) {
            // Fails once the broker has closed it.
            drop(peer.send(&sign_of_life()));
        }
        thread::sleep(STEP);
    }
    abuser.count("dropped", wanted as u64);
    let reading = stalled.split_off(wanted / 2);
    for mut peer in reading {
        match read_on(&mut peer) {
            Ok(messages) => {
                abuser.count("closed with 1013 after the last message", 1);
                abuser.count("messages received until then", messages);
            }
            Err(what) => abuser.violation(what),
        }
    }
    Ok(())
}

/// Reads up to the close frame with 1013; returns how many messages came before it, all in order.
fn read_on(peer: &mut Peer) -> Result<u64, String> {
    let (mut messages, mut next) = (0, [None; THREADS]);
    loop {
        match peer.frame() {
            Ok((TEXT | BINARY, payload)) => match place(payload) {
                Some((who, seq)) if next[who].is_none_or(|next| next == seq) => {
                    next[who] = Some(seq + 1);
                    messages += 1;
                }
                other => return Err(format!("a slow subscriber got {other:?} where {next:?} was due")),
            },
            Ok((CLOSE, payload)) if close_code(payload) == 1013 => {
                // Fails when the broker no longer waits for it.
                drop(peer.send(&frame(CLOSE, &1013_u16.to_be_bytes())));
                return Ok(messages);
            }
            Ok((CLOSE, payload)) => return Err(format!("a slow subscriber was closed with {}", close_code(payload))),
            Ok(_) => {}
            Err(ending @ (Ending::Eof | Ending::Reset | Ending::Late | Ending::Close(_) | Ending::Broken(_))) => {
                return Err(format!(
                    "a slow subscriber was dropped without a code: {ending:?} after {messages} messages"
                ));
            }
        }
    }
}
