//! A `ringyard.v1` connection of an attack. The broker may refuse its commands or close it; all other answers must be
//! right.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::peer::{Ending, Peer};
use crate::abuse::wire::{CLOSE, TEXT, close_code, put_frame};

/// After a refusal.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection.
pub(super) struct V1Client(Peer);

/// The answers to some commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Answers {
    pub(super) ok: usize,
    /// Errors with the codes `limit` and `busy`.
    pub(super) refused: usize,
    /// The connection was closed before all were answered.
    pub(super) closed: bool,
}

impl V1Client {
    /// Connects; returns nothing, after a pause, when that is refused.
    pub(super) fn open(abuser: &mut Abuser<'_>) -> Option<Self> {
        let peer = abuser.open("/ws").ok();
        if peer.is_none() {
            abuser.count("connections refused", 1);
            thread::sleep(PAUSE);
        }
        peer.map(Self)
    }

    /// Calls `act` until the deadline with a connection that is kept while `act` returns true.
    pub(super) fn repeat(
        abuser: &mut Abuser<'_>,
        mut act: impl FnMut(&mut Abuser<'_>, &mut Self) -> Result<bool>,
    ) -> Result<()> {
        let mut kept = None;
        while !abuser.over() {
            let Some(mut connection) = kept.take().or_else(|| Self::open(abuser)) else { continue };
            kept = act(abuser, &mut connection)?.then_some(connection);
        }
        Ok(())
    }

    /// Sends frames with `commands` commands, each of which has an answer, and waits for the answers.
    pub(super) fn ask(&mut self, abuser: &mut Abuser<'_>, frames: &[u8], commands: usize) -> Result<Answers> {
        let mut answers = Answers::default();
        if self.0.send(frames).is_err() {
            answers.closed = true;
            abuser.count("connections closed", 1);
            return Ok(answers);
        }
        while answers.ok + answers.refused < commands {
            match self.0.message() {
                Ok((TEXT, answer)) if answer.starts_with(br#"{"type":"ok""#) => answers.ok += 1,
                Ok((TEXT, answer)) if is_refusal(&answer) => answers.refused += 1,
                // A message of its subscriptions, or the end of their state.
                Ok((TEXT, answer)) if is_of_subscription(&answer) => {}
                Ok((CLOSE, payload)) if matches!(close_code(&payload), 1008 | 1013) => answers.closed = true,
                Err(Ending::Eof | Ending::Reset) => answers.closed = true,
                Ok((_, answer)) => anyhow::bail!("answered {}", answer[..answer.len().min(200)].escape_ascii()),
                Err(Ending::Late) => {
                    abuser.refused_or_violation("commands were not answered".to_owned(), "waits given up");
                    answers.closed = true;
                }
                Err(ending) => anyhow::bail!("instead of an answer: {ending:?}"),
            }
            if answers.closed {
                abuser.count("connections closed", 1);
                break;
            }
        }
        abuser.count("commands refused", answers.refused as u64);
        Ok(answers)
    }

    /// The connection, to become one of [`Readers`](crate::abuse::readers::Readers).
    pub(super) fn into_peer(self) -> Peer {
        self.0
    }
}

fn is_of_subscription(message: &[u8]) -> bool {
    message.starts_with(br#"{"type":"message""#) || message.starts_with(br#"{"type":"state-end""#)
}

fn is_refusal(answer: &[u8]) -> bool {
    let is = |code: &str| answer.windows(code.len()).any(|bytes| bytes == code.as_bytes());
    answer.starts_with(br#"{"type":"error""#) && (is(r#""code":"limit""#) || is(r#""code":"busy""#))
}

/// Appends a frame with the command `{type} {filters}`, of id 1.
pub(super) fn put_filters(out: &mut Vec<u8>, command: &str, filters: &[String]) {
    let text = serde_json::json!({ "type": command, "id": 1, "topics": filters }).to_string();
    put_frame(out, TEXT, text.as_bytes());
}

/// Appends a frame with an acknowledged publish to `topic`.
pub(super) fn put_publish(out: &mut Vec<u8>, topic: &str) {
    put_frame(out, TEXT, format!(r#"{{"type":"publish","id":1,"topic":"{topic}","data":1}}"#).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_are_refusals() {
        assert!(is_refusal(br#"{"type":"error","id":1,"code":"limit","reason":"r"}"#));
        assert!(is_refusal(br#"{"type":"error","code":"busy","reason":"r"}"#));
        assert!(!is_refusal(br#"{"type":"error","code":"bad-topic","reason":"r"}"#));
        assert!(!is_refusal(br#"{"type":"ok","id":1}"#));
    }
}
