//! Connections that are opened and closed as fast as the machine allows.

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::wire::upgrade;

/// Threads; the first [`HASTY`] of them never wait for an answer.
pub(super) const THREADS: usize = 6;
const HASTY: usize = 2;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let ask = upgrade("/sub/abuse/churn");
    let kinds = if abuser.index < HASTY { 0..3 } else { 3..5 };
    for kind in kinds.cycle() {
        if abuser.over() {
            break;
        }
        let mut peer = abuser.connect()?;
        match kind {
            0 => abuser.count("connected and left", 1),
            1 => {
                peer.reset();
                abuser.count("connected and reset", 1);
            }
            2 => {
                peer.send(&ask)?;
                abuser.count("asked for an upgrade and left", 1);
            }
            3 => {
                drop(peer.upgraded("/sub/abuse/churn")?);
                abuser.count("upgraded and left", 1);
            }
            _ => match peer.upgraded("/ws")?.close() {
                Ok(()) => abuser.count("upgraded and closed", 1),
                Err(error) => abuser.violation(format!("{error:#}")),
            },
        }
    }
    Ok(())
}
