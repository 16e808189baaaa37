//! One publisher of large messages as fast as the broker lets it, and many readers that take all of them at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Peer;
use crate::abuse::readers::Readers;
use crate::abuse::wire::{BINARY, frame};

const TOPIC: &str = "abuse/large";
const LEN: usize = 100_000;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let readers = abuser.target.scale.counts.readers;
    // A server's frame of this length has a header of ten bytes (RFC 6455, section 5.2).
    flood(abuser, TOPIC, readers, LEN, LEN + 10, 1)
}

/// Publishes messages of `len` bytes to `readers` readers, each of which must receive all: `frame_len` bytes per message.
pub(super) fn flood(
    abuser: &mut Abuser<'_>,
    topic: &str,
    readers: usize,
    len: usize,
    frame_len: usize,
    batch: usize,
) -> Result<()> {
    let path = format!("/sub/{topic}");
    let peers = (0..readers).map(|_| abuser.open(&path)).collect::<Result<Vec<_>>>()?;
    let mut group = Readers::new(peers)?;
    let publisher = abuser.open(&format!("/pub/{topic}"))?;
    let (published, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let publishing = thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let result = publish(abuser, publisher, len, batch, &published);
            done.store(true, Ordering::Relaxed);
            result
        });
        while !done.load(Ordering::Relaxed) {
            group.read(Duration::from_millis(20))?;
        }
        let publishing = publishing.join().expect("a publisher does not panic");
        // A publisher that was closed has written more than the broker took.
        if publishing.is_ok() {
            let all = published.load(Ordering::Relaxed) * (readers * frame_len) as u64;
            group.read_up_to(all, crate::abuse::peer::PATIENCE)?;
        }
        anyhow::Ok(publishing)
    })?;
    if let Err(error) = publishing {
        abuser.refused_or_violation(format!("the publisher: {error:#}"), "publishers closed");
        return Ok(());
    }
    let published = published.into_inner();
    let due = published * (readers * frame_len) as u64;
    abuser.count("published", published);
    abuser.count("megabytes delivered", group.bytes / 1_000_000);
    // More may come: the broker's pings.
    if group.ended > 0 {
        let what = format!("{} of {readers} readers that keep up were closed", group.ended);
        abuser.refused_or_violation(what, "readers closed");
    } else if group.bytes < due {
        abuser.violation(format!("readers that keep up got {} of {due} bytes", group.bytes));
    }
    Ok(())
}

fn publish(abuser: &Abuser<'_>, mut peer: Peer, len: usize, batch: usize, published: &AtomicU64) -> Result<()> {
    let bytes = frame(BINARY, &vec![b'x'; len]).repeat(batch);
    while !abuser.over() {
        peer.send(&bytes)?;
        published.fetch_add(batch as u64, Ordering::Relaxed);
    }
    peer.close()
}
