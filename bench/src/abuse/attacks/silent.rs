//! Clients that send nothing, or a byte now and then, or stop half-way: the deadline that each misses must end it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::{Ending, Peer};
use crate::abuse::scale::Scale;
use crate::abuse::wire::{BINARY, PONG, frame, upgrade, upgrade_with};

/// Between two bytes of a slow client, and between two looks at whether clients were ended.
const STEP: Duration = Duration::from_millis(100);
/// A deadline may be met this much early: the broker's clock is coarse.
const EARLY: Duration = Duration::from_millis(500);
/// A deadline may be met this much late, on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// A kind of silent client.
struct Sort {
    name: &'static str,
    /// Sent at once, upgrade first.
    begin: Vec<u8>,
    /// Sent byte by byte, over and over.
    drip: &'static [u8],
    /// The beginning of the answer that comes before the end.
    answer: &'static [u8],
    /// The deadline.
    limit: Duration,
}

fn sorts(scale: &Scale) -> [Sort; 8] {
    let &Scale { handshake_timeout, ping_interval, ping_timeout, .. } = scale;
    let silence = ping_interval + ping_timeout;
    let late = b"HTTP/1.1 408 ";
    let post = b"POST /pub/abuse/slow HTTP/1.1\r\nHost: b\r\nContent-Length: 9\r\n\r\n";
    let head = upgrade_with("/sub/abuse/slow", "X: ");
    let half_head = head[..head.len() - 4].to_vec();
    let half_frame = [upgrade("/pub/abuse/slow"), frame(BINARY, &[0; 999])[..500].to_vec()].concat();
    let get = b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n";
    let sort = |name, begin: &[u8], drip, answer, limit| Sort { name, begin: begin.to_vec(), drip, answer, limit };
    [
        sort("say nothing", b"", b"", late, handshake_timeout),
        sort("a head byte by byte", b"", b"GET /sub/abuse/slow HTTP/1.1\r\nX: ", late, handshake_timeout),
        sort("a field byte by byte", &half_head, b"x", late, handshake_timeout),
        sort("no body", post, b"", b"HTTP/1.1 408 ", handshake_timeout),
        sort("no second request", get, b"", b"HTTP/1.1 200 ", handshake_timeout),
        sort("no pong to a subscription", &upgrade("/sub/abuse/quiet"), b"", b"HTTP/1.1 101 ", silence),
        sort("no pong from /ws", &upgrade("/ws"), b"", b"HTTP/1.1 101 ", silence),
        sort("half a frame", &half_frame, b"", b"HTTP/1.1 101 ", silence),
    ]
}

struct Silent {
    sort: usize,
    peer: Peer,
    since: Instant,
    sent: usize,
}

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let sorts = sorts(&abuser.target.scale);
    let longest = sorts.iter().map(|sort| sort.limit).max().unwrap_or_default();
    // One wave at least, however short the round.
    loop {
        wave(abuser, &sorts)?;
        if Instant::now() + longest > abuser.target.deadline {
            return Ok(());
        }
    }
}

fn wave(abuser: &mut Abuser<'_>, sorts: &[Sort]) -> Result<()> {
    let mut silent = Vec::new();
    for _ in 0..abuser.target.scale.silent {
        for (sort, Sort { begin, .. }) in sorts.iter().enumerate() {
            let mut peer = abuser.connect()?;
            peer.send(begin)?;
            silent.push(Silent { sort, peer, since: Instant::now(), sent: 0 });
        }
    }
    while !silent.is_empty() {
        thread::sleep(STEP);
        let mut left = Vec::with_capacity(silent.len());
        for mut one in silent {
            let sort = &sorts[one.sort];
            if let Some(ending) = one.peer.poll_ending()? {
                judge(abuser, sort, &one, ending);
            } else if one.since.elapsed() > sort.limit + SLACK {
                abuser.violation(format!("{}: still open after {:?}", sort.name, one.since.elapsed()));
            } else {
                if !sort.drip.is_empty() {
                    // Fails when the connection was ended meanwhile, which the next step shows.
                    drop(one.peer.send(&[sort.drip[one.sent % sort.drip.len()]]));
                    one.sent += 1;
                }
                left.push(one);
            }
        }
        silent = left;
    }
    Ok(())
}

fn judge(abuser: &mut Abuser<'_>, sort: &Sort, one: &Silent, ending: Ending) {
    let (said, after) = (one.peer.rest(), one.since.elapsed());
    // The next byte of a slow client causes a reset when the socket is closed already.
    let ended = ending == Ending::Eof || ending == Ending::Reset;
    if !ended || !said.starts_with(sort.answer) || after + EARLY < sort.limit {
        let said = said[..said.len().min(80)].escape_ascii();
        abuser.violation(format!("{}: {ending:?} after {after:?} and \"{said}\"", sort.name));
    }
    abuser.count(if sort.drip.is_empty() { "silent peers ended" } else { "slow peers ended" }, 1);
}

/// An unsolicited pong.
pub(super) fn sign_of_life() -> Vec<u8> {
    frame(PONG, b"")
}
