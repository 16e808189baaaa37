//! Many topics, each created by one pipelined publish over `/ws`, which must be acknowledged with the first offset.

use anyhow::{Result, bail};

use crate::abuse::abuser::Abuser;
use crate::abuse::wire::{TEXT, put_frame};

/// Publishes per write.
const BATCH: usize = 256;
pub(super) const THREADS: usize = 4;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let mut peer = abuser.open("/ws")?;
    let (round, who, share) = (abuser.target.round, abuser.index, abuser.share(abuser.target.scale.topics));
    let (mut made, mut batch) = (0, Vec::new());
    while made < share {
        batch.clear();
        let end = share.min(made + BATCH);
        for id in made..end {
            let topic = format!("many/{round}/{who}/{id}");
            let command = format!(r#"{{"type":"publish","id":{id},"topic":"{topic}","data":"x"}}"#);
            put_frame(&mut batch, TEXT, command.as_bytes());
        }
        peer.send(&batch)?;
        // Answers come in any order: different shards sequence the topics.
        let mut answered = vec![false; end - made];
        let mut missing = answered.len();
        while missing > 0 {
            match peer.message() {
                Ok((TEXT, payload)) => {
                    let answer: serde_json::Value = serde_json::from_slice(&payload)?;
                    let id = answer["id"].as_u64().and_then(|id| (id as usize).checked_sub(made));
                    let slot = id.and_then(|at| answered.get_mut(at));
                    match slot {
                        Some(slot) if !*slot && answer["type"] == "ok" && answer["offset"] == 1 => *slot = true,
                        _ => bail!("a first publish was answered by {answer}"),
                    }
                    missing -= 1;
                }
                other => bail!("instead of an answer to a publish: {other:?}"),
            }
        }
        abuser.count("topics created", (end - made) as u64);
        made = end;
    }
    Ok(())
}
