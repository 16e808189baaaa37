//! As many topic names as the broker allows, over one `ringyard.v1` connection and over HTTP.
//!
//! Refusals are right answers. Other clients must still be able to create topics, which the bystanders check.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::v1_client::{V1Client, put_publish};
use crate::abuse::abuser::Abuser;
use crate::abuse::peer::{Answer, Ending, Peer};
use crate::abuse::wire::post;

/// The first thread stays on one connection, the second speaks HTTP.
pub(super) const THREADS: usize = 2;
/// Names per write.
const BATCH: usize = 256;
const HTTP_BATCH: usize = 32;
/// After a batch of which everything was refused.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    if abuser.index + 1 == abuser.of { over_http(abuser) } else { over_websocket(abuser) }
}

fn over_websocket(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut number = 0_u64;
    V1Client::repeat(abuser, |abuser, connection| {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            put_publish(&mut batch, &format!("abuse/name/{number}"));
            number += 1;
        }
        let answers = connection.ask(abuser, &batch, BATCH)?;
        abuser.count("names begun", answers.ok as u64);
        if answers.ok == 0 {
            thread::sleep(PAUSE);
        }
        Ok(!answers.closed)
    })
}

fn over_http(abuser: &mut Abuser<'_>) -> Result<()> {
    let (mut peer, mut number): (Option<Peer>, _) = (None, 0_u64);
    while !abuser.over() {
        let mut connection = match peer.take() {
            Some(peer) => peer,
            None => abuser.connect()?,
        };
        let batch: Vec<u8> =
            (0..HTTP_BATCH as u64).flat_map(|at| post(&format!("abuse/http-name/{}", number + at), "", b"x")).collect();
        number += HTTP_BATCH as u64;
        if connection.send(&batch).is_err() {
            abuser.count("HTTP connections closed", 1);
            continue;
        }
        let (mut begun, mut open) = (0, true);
        for _ in 0..HTTP_BATCH {
            match connection.answer() {
                Ok(Answer { status: 200, .. }) => begun += 1,
                Ok(Answer { status: 429 | 503, .. }) => abuser.count("HTTP publishes refused", 1),
                Err(Ending::Eof | Ending::Reset) => {
                    abuser.count("HTTP connections closed", 1);
                    open = false;
                    break;
                }
                other => bail!("a publish over HTTP was answered by {other:?}"),
            }
        }
        peer = open.then_some(connection);
        abuser.count("names begun over HTTP", begun);
        if begun == 0 {
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}
