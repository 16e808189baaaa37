//! What the two ends of a call say: `ringyard.v1` over a WebSocket, or NATS' text protocol over TCP.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use protocol::frame::{Opcode, put_client_frame};

use crate::client::{Client, upgrade_request};

/// How a whole frame of a server begins (RFC 6455 §5.2).
pub(crate) const TEXT: u8 = 0x80 | Opcode::Text as u8;
pub(crate) const PING: u8 = 0x80 | Opcode::Ping as u8;

/// Which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// `ringyard.v1` over a WebSocket.
    V1,
    /// NATS' text protocol over TCP.
    Nats,
}

impl Wire {
    /// Between levels of a name.
    pub(crate) fn separator(self) -> char {
        match self {
            Self::V1 => '/',
            Self::Nats => '.',
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    wire: Wire,
    client: Client<TcpStream>,
    /// Where answers of NATS come.
    inbox: String,
    out: Vec<u8>,
}

impl Peer {
    /// Connects, until commands may be sent. No later wait is longer than `patience`.
    ///
    /// # Errors
    /// When that fails, or takes longer.
    pub fn connect(wire: Wire, address: SocketAddr, patience: Duration) -> Result<Self> {
        let client = Client::new(connect(address, patience)?);
        let mut peer = Self { wire, client, inbox: String::new(), out: Vec::new() };
        match wire {
            Wire::V1 => {
                upgrade_request(&address.to_string(), "/ws", Some("ringyard.v1"), &mut peer.out);
                peer.flush()?;
                let answer = peer.client.answer().map_err(|ending| anyhow!("no answer: {ending:?}"))?;
                ensure!(answer.status == 101, "the server answered {answer:?}");
            }
            Wire::Nats => {
                peer.line()?;
                peer.out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
                peer.settle()?;
            }
        }
        Ok(peer)
    }

    /// It as a connection whose frames are read one by one.
    pub(crate) fn into_client(self) -> Client<TcpStream> {
        self.client
    }

    /// What it sends and receives over.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.client.stream()
    }

    /// It serves a topic from now on.
    pub(crate) fn respond(&mut self, topic: &str) -> Result<()> {
        match self.wire {
            Wire::V1 => {
                self.say(&format!(r#"{{"type":"respond","id":0,"topic":"{topic}"}}"#))?;
                let answer = self.text()?;
                ensure!(answer.contains(r#""type":"ok""#), "respond was answered with {answer}");
                Ok(())
            }
            Wire::Nats => {
                self.out.extend_from_slice(format!("SUB {topic} 1\r\n").as_bytes());
                self.settle()
            }
        }
    }

    /// It asks from now on.
    pub(crate) fn prepare(&mut self, pair: u64) -> Result<()> {
        if self.wire == Wire::Nats {
            self.inbox = format!("_INBOX.loadgen{pair}.{}", std::process::id());
            self.out.extend_from_slice(format!("SUB {} 1\r\n", self.inbox).as_bytes());
            self.settle()?;
        }
        Ok(())
    }

    /// Asks, and reads the answer.
    pub(crate) fn call(&mut self, topic: &str, number: u64, question: &str) -> Result<()> {
        match self.wire {
            Wire::V1 => {
                self.say(&format!(r#"{{"type":"request","id":{number},"topic":"{topic}","data":"{question}"}}"#))?;
                let answer = self.text()?;
                let expected = format!(r#"{{"type":"ok","id":{number},"data":"{question}"}}"#);
                ensure!(answer == expected, "request {number} was answered with {answer}");
            }
            Wire::Nats => {
                let inbox = &self.inbox;
                let command = format!("PUB {topic} {inbox} {}\r\n{question}\r\n", question.len());
                self.out.extend_from_slice(command.as_bytes());
                self.flush()?;
                let (_, answer) = self.message()?;
                ensure!(answer == question, "request {number} was answered with {answer}");
            }
        }
        Ok(())
    }

    /// Answers the next request with what it asks.
    pub(crate) fn answer(&mut self) -> Result<()> {
        match self.wire {
            Wire::V1 => {
                let request = self.text()?;
                let data = between(&request, r#""data":""#, "\"").context("a request without data")?;
                let number = between(&request, r#""reply":"#, ",").context("a request without a number")?;
                let reply = format!(r#"{{"type":"reply","reply":{number},"data":"{data}"}}"#);
                self.say(&reply)
            }
            Wire::Nats => {
                let (inbox, question) = self.message()?;
                let inbox = inbox.context("a request without an inbox")?;
                let command = format!("PUB {inbox} {}\r\n{question}\r\n", question.len());
                self.out.extend_from_slice(command.as_bytes());
                self.flush()
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.client.send(&self.out)?;
        self.out.clear();
        Ok(())
    }

    // ---- ringyard.v1

    /// Sends a command.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn say(&mut self, text: &str) -> Result<()> {
        put_client_frame(&mut self.out, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
        self.flush()
    }

    /// The next text message; pings are answered.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn text(&mut self) -> Result<String> {
        loop {
            let (first, payload) = self.client.frame().map_err(|ending| anyhow!("the connection ended: {ending:?}"))?;
            match first {
                TEXT => return Ok(String::from_utf8(payload.to_vec())?),
                PING => {
                    put_client_frame(&mut self.out, Opcode::Pong, payload, [1, 2, 3, 4]);
                    self.flush()?;
                }
                other => return Err(anyhow!("a frame that begins with {other:#x}")),
            }
        }
    }

    // ---- NATS

    /// Sends what there is, and waits until the server has carried it out.
    fn settle(&mut self) -> Result<()> {
        self.out.extend_from_slice(b"PING\r\n");
        self.flush()?;
        while self.line()? != "PONG" {}
        Ok(())
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.client.rest().windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8(self.client.rest()[..end].to_vec())?;
                self.client.take(end + 2);
                ensure!(!line.starts_with("-ERR"), "the server says {line}");
                return Ok(line);
            }
            self.client.read_more().map_err(|ending| anyhow!("the connection ended: {ending:?}"))?;
        }
    }

    /// The next message: where its answer goes, and its payload.
    fn message(&mut self) -> Result<(Option<String>, String)> {
        loop {
            let line = self.line()?;
            if line == "PING" {
                self.out.extend_from_slice(b"PONG\r\n");
                self.flush()?;
                continue;
            }
            let Some(arguments) = line.strip_prefix("MSG ") else { continue };
            let arguments: Vec<_> = arguments.split(' ').collect();
            let len: usize = arguments.last().context("no length")?.parse()?;
            while self.client.rest().len() < len + 2 {
                self.client.read_more().map_err(|ending| anyhow!("the connection ended: {ending:?}"))?;
            }
            let payload = String::from_utf8(self.client.rest()[..len].to_vec())?;
            self.client.take(len + 2);
            return Ok(((arguments.len() == 4).then(|| arguments[2].to_owned()), payload));
        }
    }
}

/// A stream that sends at once, and whose reads have an end.
fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// What stands behind `open`, up to `close`.
#[must_use]
pub fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inner, _)| inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread;

    use clap::Parser;

    use super::*;
    use crate::options::Options;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// Options of a scenario, not completed.
    pub(crate) fn options_of(scenario: &str, arguments: &str) -> Options {
        let line = ["test", "--scenario", scenario].into_iter().chain(arguments.split_whitespace());
        Line::parse_from(line).options
    }

    /// A server that serves each connection on a thread of its own, by its number.
    pub(crate) fn serve_each(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(number, stream));
            }
        });
        address
    }

    #[test]
    fn parts_of_a_request() {
        let request = r#"{"type":"request","topic":"t/0","data":"x","reply":12,"timeout":4999}"#;
        assert_eq!(between(request, r#""data":""#, "\""), Some("x"));
        assert_eq!(between(request, r#""reply":"#, ","), Some("12"));
        assert_eq!(between(request, r#""from":"#, ","), None);
    }
}
