//! One publisher as fast as the broker lets it, and one reader that keeps up and checks every message.
//!
//! The reader is not slow, it waits for bytes most of the time: it must get everything and never be closed. The broker
//! must make the publisher wait instead of storing messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::{Ending, Peer};
use crate::abuse::wire::{BINARY, PING, PONG, describe, put_frame};

/// Messages per write.
const BATCH: u64 = 256;
/// Bytes of one message: its number, then filler.
const LEN: usize = 100;
/// The number of messages is not known yet.
const UNKNOWN: u64 = u64::MAX;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let reader = abuser.open("/sub/abuse/one-reader")?;
    let mut publisher = abuser.open("/pub/abuse/one-reader")?;
    let total = AtomicU64::new(UNKNOWN);
    let (published, read) = thread::scope(|scope| {
        let reader = scope.spawn(|| read(reader, &total));
        let published = publish(abuser, &mut publisher);
        total.store(*published.as_ref().unwrap_or(&0), Ordering::Relaxed);
        (published, reader.join().expect("a reader does not panic"))
    });
    let published = match published {
        Ok(published) => published,
        Err(error) => {
            abuser.refused_or_violation(format!("the publisher: {error:#}"), "publishers closed");
            return Ok(());
        }
    };
    abuser.count("published", published);
    match read {
        Ok(read) if read == published => {}
        Ok(read) => abuser.violation(format!("{published} were published, {read} came to a reader that keeps up")),
        Err(error) => abuser.refused_or_violation(format!("a reader that keeps up: {error:#}"), "readers closed"),
    }
    Ok(())
}

/// Publishes until the deadline; returns how many.
fn publish(abuser: &Abuser<'_>, peer: &mut Peer) -> Result<u64> {
    let (mut number, mut batch, mut message) = (0, Vec::new(), [b'x'; LEN]);
    while !abuser.over() {
        batch.clear();
        for _ in 0..BATCH {
            message[..8].copy_from_slice(&u64::to_be_bytes(number));
            put_frame(&mut batch, BINARY, &message);
            number += 1;
        }
        peer.send(&batch)?;
    }
    peer.close()?;
    Ok(number)
}

/// Reads until all published messages have come; returns how many came, in order.
fn read(mut peer: Peer, total: &AtomicU64) -> Result<u64> {
    let (mut next, mut pong) = (0, Vec::new());
    while next < total.load(Ordering::Relaxed) {
        match peer.frame() {
            Ok((BINARY, payload)) => {
                let number = payload.first_chunk().map(|number| u64::from_be_bytes(*number));
                anyhow::ensure!(number == Some(next) && payload.len() == LEN, "{number:?} came where {next} was due");
                next += 1;
            }
            Ok((PING, payload)) => put_frame(&mut pong, PONG, payload),
            Ok((first, payload)) => anyhow::bail!("{} after {next} messages", describe(first, payload)),
            // Nothing comes any more: the caller compares the numbers.
            Err(Ending::Late) => break,
            Err(ending) => anyhow::bail!("ended with {ending:?} after {next} messages"),
        }
        if !pong.is_empty() {
            peer.send(&pong)?;
            pong.clear();
        }
    }
    Ok(next)
}
