//! HTTP bodies that never end: thousands that come a byte at a time, and hundreds whose last part is missing.
//!
//! The broker answers 408 after its timeout, or 503 when its memory is used up; the client then connects again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Peer;

/// Bytes that are announced, and how many of them a large body sends.
const ANNOUNCED: usize = 1_000_000;
const LARGE: usize = 900_000;
/// Between two bytes of each.
const BYTE_INTERVAL: Duration = Duration::from_millis(1500);
const STEP: Duration = Duration::from_millis(2);
/// Connections opened in a row before the others get a byte.
const OPENED_MAX: usize = 64;

/// The first thread sends bodies byte by byte, the second large ones.
pub(super) const THREADS: usize = 2;

struct Body {
    peer: Peer,
    sent: usize,
    moved_at: Instant,
}

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let counts = abuser.target.scale.counts;
    let (count, len) = if abuser.index == 0 { (counts.bodies, 1) } else { (counts.large_bodies, LARGE) };
    let head = format!("POST /pub/abuse/body HTTP/1.1\r\nHost: broker\r\nContent-Length: {ANNOUNCED}\r\n\r\n");
    let begin = [head.as_bytes(), &vec![b'x'; len]].concat();
    let mut bodies: Vec<Option<Body>> = Vec::new();
    bodies.resize_with(count, || None);
    while !abuser.over() {
        let mut opened = 0;
        for place in &mut bodies {
            let Some(body) = place else {
                if opened < OPENED_MAX {
                    opened += 1;
                    let peer = abuser.connect()?;
                    *place = Some(Body { peer, sent: 0, moved_at: Instant::now() });
                    abuser.count("begun", 1);
                }
                continue;
            };
            let due = body.moved_at.elapsed() > BYTE_INTERVAL;
            let sent = if body.sent < begin.len() {
                body.peer.send_some(&begin[body.sent..]).map(|len| body.sent += len)
            } else if due {
                body.peer.send_some(b"x").map(drop)
            } else {
                continue;
            };
            if due {
                body.moved_at = Instant::now();
            }
            if (due || sent.is_err()) && ended(abuser, &mut body.peer, sent.is_err())? {
                *place = None;
            }
        }
        thread::sleep(STEP);
    }
    let held = bodies.iter().flatten().filter(|body| body.sent == begin.len()).count();
    abuser.count("under way at the end", held as u64);
    Ok(())
}

/// Whether the connection was answered or ended. Only a refusal is a right answer.
fn ended(abuser: &mut Abuser<'_>, peer: &mut Peer, broken: bool) -> Result<bool> {
    let ending = peer.poll_ending()?;
    let said = peer.rest();
    let name = match said.get(9..12) {
        None if ending.is_none() && !broken => return Ok(false),
        None => "ended without an answer",
        Some(b"408") => "answered 408",
        Some(b"429") => "answered 429",
        Some(b"503") => "answered 503",
        Some(_) => {
            let said = said[..said.len().min(80)].escape_ascii();
            abuser.violation(format!("a body without an end was answered \"{said}\""));
            return Ok(true);
        }
    };
    abuser.count(name, 1);
    Ok(true)
}
