//! Connections that are reset after each byte of some conversations in turn.

use anyhow::Result;

use super::flood::HOT;
use crate::abuse::abuser::Abuser;
use crate::abuse::wire::{BINARY, CLOSE, TEXT, frame, post, upgrade};

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let conversations = conversations();
    let longest = conversations.iter().map(Vec::len).max().unwrap_or(0);
    for len in (0..=longest).cycle() {
        for conversation in conversations.iter().filter(|conversation| len <= conversation.len()) {
            if abuser.over() {
                return Ok(());
            }
            let mut peer = abuser.connect()?;
            // Fails when the broker has ended the connection already.
            drop(peer.send(&conversation[..len]));
            if abuser.rng.u8(..4) == 0 {
                // Some have received the beginning of an answer by then.
                drop(peer.poll_ending());
            }
            peer.reset();
            abuser.count("resets", 1);
        }
    }
    Ok(())
}

fn conversations() -> Vec<Vec<u8>> {
    let command = br#"{"type":"subscribe","id":1,"topics":["abuse/reset","abuse/+"]}"#;
    let publish = br#"{"type":"publish","id":2,"topic":"abuse/reset","data":"x"}"#;
    vec![
        [upgrade(&format!("/sub/{HOT}")), frame(CLOSE, &[3, 0xe8])].concat(),
        [upgrade("/bus/abuse/reset"), frame(TEXT, b"hello"), frame(0x02, &[7; 200]), frame(0x80, b"end")].concat(),
        [upgrade("/ws"), frame(TEXT, command), frame(TEXT, publish)].concat(),
        [upgrade("/pub/abuse/reset"), frame(BINARY, &[1; 400])].concat(),
        [post("abuse/reset", "", &[b'x'; 100]), upgrade("/sub/abuse/reset"), frame(CLOSE, b"")].concat(),
    ]
}
