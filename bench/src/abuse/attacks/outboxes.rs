//! Clients that cause answers and never read them: pings from subscribers, acknowledged publishes over `/ws`.
//!
//! The broker may stop reading from them or close them. Closed clients connect again.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Peer;
use crate::abuse::wire::{PING, TEXT, frame};

/// Requests per write.
const BATCH: usize = 400;
/// One of so many clients asks for acknowledgements.
const ACKS_PART: usize = 4;
const STEP: Duration = Duration::from_millis(5);

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let pings = frame(PING, &[b'p'; 125]).repeat(BATCH);
    let publishes = frame(TEXT, br#"{"type":"publish","id":1,"topic":"abuse/unread","data":1}"#).repeat(BATCH);
    let mut peers: Vec<Option<(Peer, usize)>> = Vec::new();
    peers.resize_with(abuser.target.scale.counts.outboxes, || None);
    while !abuser.over() {
        for (number, place) in peers.iter_mut().enumerate() {
            let acks = number % ACKS_PART == 0;
            let (path, requests) = if acks { ("/ws", &publishes) } else { ("/sub/abuse/quiet", &pings) };
            let Some((peer, sent)) = place else {
                *place = open(abuser, path);
                continue;
            };
            match peer.send_some(&requests[*sent..]) {
                Ok(len) => {
                    *sent = (*sent + len) % requests.len();
                    abuser.count("kilobytes of requests", len as u64 >> 10);
                }
                Err(_) => {
                    abuser.count("closed", 1);
                    *place = None;
                }
            }
            if abuser.over() {
                break;
            }
        }
        thread::sleep(STEP);
    }
    Ok(())
}

fn open(abuser: &mut Abuser<'_>, path: &str) -> Option<(Peer, usize)> {
    let peer = Peer::connect_small(&abuser.target.address).and_then(|peer| peer.upgraded(path));
    abuser.count(if peer.is_ok() { "opened" } else { "refused" }, 1);
    Some((peer.ok()?, 0))
}
