//! A client that speaks `ringyard.v1`, one command and one message at a time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use loadgen::calls::wire::{Peer, Wire};
use socket2::SockRef;

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection.
pub(super) struct V1Client(Peer);

impl V1Client {
    /// Connects to `/ws`.
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self(Peer::connect(Wire::V1, address, PATIENCE)?))
    }

    /// Sends a command.
    pub(super) fn say(&mut self, command: &str) -> Result<()> {
        self.0.say(command)
    }

    /// The next message, in which `part` must be.
    pub(super) fn hear(&mut self, part: &str) -> Result<String> {
        let text = self.0.text()?;
        ensure!(text.contains(part), "not {part}, but {text}");
        Ok(text)
    }

    /// Sends a command, and reads the answer that it was carried out.
    pub(super) fn ask(&mut self, command: &str) -> Result<String> {
        self.say(command)?;
        self.hear(r#""type":"ok""#)
    }

    /// Ends the connection with a reset, as that of a process that was killed with unread bytes.
    pub(super) fn reset(mut self) -> Result<()> {
        Ok(SockRef::from(&*self.0.stream()).set_linger(Some(Duration::ZERO))?)
    }
}
