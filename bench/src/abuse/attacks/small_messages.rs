//! Empty messages and messages of one byte, to subscribers that do not read: the broker needs many times their length to
//! keep them.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::Peer;
use crate::abuse::wire::{BINARY, put_frame};

pub(super) const THREADS: usize = 2;
/// Messages per write.
const BATCH: usize = 5000;
/// Topics of each thread, written to in turn.
const TOPICS: usize = 4;
/// Between two new subscribers of a topic, because the broker closes the earlier ones.
const INTERVAL: Duration = Duration::from_millis(300);
/// Subscribers of each topic that are kept open.
const SUBSCRIBERS: usize = 2;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let topic = |abuser: &Abuser<'_>, number: usize| format!("abuse/small/{}/{number}", abuser.index);
    let mut publishers = (0..TOPICS)
        .map(|number| abuser.open(&format!("/pub/{}", topic(abuser, number))))
        .collect::<Result<Vec<_>>>()?;
    let mut batch = Vec::new();
    (0..BATCH).for_each(|number| put_frame(&mut batch, BINARY, &b"x"[..number % 2]));
    let mut stalled: Vec<Vec<Peer>> = (0..TOPICS).map(|_| Vec::new()).collect();
    let mut came: Option<Instant> = None;
    let mut unsent = [0; TOPICS];
    while !abuser.over() {
        if came.is_none_or(|came| came.elapsed() > INTERVAL) {
            came = Some(Instant::now());
            for (number, stalled) in stalled.iter_mut().enumerate() {
                let peer = Peer::connect_small(&abuser.target.address)?;
                match peer.upgraded(&format!("/sub/{}", topic(abuser, number))) {
                    Ok(peer) => stalled.push(peer),
                    Err(_) => abuser.count("subscribers refused", 1),
                }
                if stalled.len() > SUBSCRIBERS {
                    stalled.remove(0);
                }
            }
        }
        for (number, publisher) in publishers.iter_mut().enumerate() {
            // A batch that was sent in part continues where it ended: frames stay whole.
            let from = unsent[number];
            match publisher.send_some(&batch[from..]) {
                Ok(len) => {
                    unsent[number] = (from + len) % batch.len();
                    if from + len == batch.len() {
                        abuser.count("published", BATCH as u64);
                    }
                }
                Err(_) => {
                    abuser.count("publishers closed", 1);
                    *publisher = abuser.open(&format!("/pub/{}", topic(abuser, number)))?;
                    unsent[number] = 0;
                }
            }
        }
    }
    Ok(())
}
