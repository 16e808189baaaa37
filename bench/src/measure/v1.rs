//! A client that speaks `ringyard.v1`, one command and one message at a time.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use loadgen::client::{Client, upgrade_request};
use protocol::frame::{Opcode, put_client_frame};
use socket2::SockRef;

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How a whole frame with text begins (RFC 6455 §5.2).
const TEXT: u8 = 0x80 | Opcode::Text as u8;

/// One connection.
pub(super) struct V1Client {
    client: Client<TcpStream>,
    out: Vec<u8>,
}

impl V1Client {
    /// Connects to `/ws`.
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Client::new(stream);
        let mut out = Vec::new();
        upgrade_request(&address.to_string(), "/ws", Some(protocol::v1::SUBPROTOCOL), &mut out);
        client.send(&out)?;
        let answer = client.answer().map_err(|ending| anyhow!("no answer: {ending:?}"))?;
        ensure!(answer.status == 101, "the broker answered {answer:?}");
        Ok(Self { client, out })
    }

    /// Sends a command.
    pub(super) fn say(&mut self, command: &str) -> Result<()> {
        self.out.clear();
        put_client_frame(&mut self.out, Opcode::Text, command.as_bytes(), [1, 2, 3, 4]);
        Ok(self.client.send(&self.out)?)
    }

    /// The next message, in which `part` must be.
    pub(super) fn hear(&mut self, part: &str) -> Result<String> {
        loop {
            let (head, payload) = self.client.frame().map_err(|ending| anyhow!("no {part}: {ending:?}"))?;
            if head == TEXT {
                let text = String::from_utf8_lossy(payload).into_owned();
                ensure!(text.contains(part), "not {part}, but {text}");
                return Ok(text);
            }
        }
    }

    /// Sends a command, and reads the answer that it was carried out.
    pub(super) fn ask(&mut self, command: &str) -> Result<String> {
        self.say(command)?;
        self.hear(r#""type":"ok""#)
    }

    /// Ends the connection with a reset, as that of a process that was killed with unread bytes.
    pub(super) fn reset(mut self) -> Result<()> {
        Ok(SockRef::from(&*self.client.stream()).set_linger(Some(Duration::ZERO))?)
    }
}
