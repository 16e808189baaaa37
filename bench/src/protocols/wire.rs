//! One connection of a client: bytes, requests and answers, counted. HTTP/1.1 with `Content-Length`; WebSocket frames only as far as they
//! are sent.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use loadgen::client::upgrade_request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room for what one read brings.
const READ_BYTES: usize = 16 << 10;

/// What all connections of a client have sent and received.
#[derive(Default, Debug)]
pub(super) struct Totals {
    pub(super) bytes: Cell<u64>,
    pub(super) requests: Cell<u64>,
}

impl Totals {
    fn add_bytes(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    fn add_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }
}

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    host: String,
    /// Received, and not returned yet.
    input: Vec<u8>,
    totals: Rc<Totals>,
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr, totals: Rc<Totals>) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: address.to_string(), input: Vec::new(), totals })
    }

    /// Sends a GET request without waiting for the answer. `fields` are lines, each ended by CR LF.
    pub(super) async fn ask(&mut self, path: &str, fields: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.host);
        self.totals.add_request();
        self.send(request.as_bytes()).await
    }

    /// GETs a path: the body of a 200.
    pub(super) async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        self.ask(path, "").await?;
        self.answer().await
    }

    /// POSTs a text.
    pub(super) async fn post(&mut self, path: &str, text: &str) -> Result<Vec<u8>> {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: ", self.host);
        self.totals.add_request();
        self.send(format!("{head}{}\r\n\r\n{text}", text.len()).as_bytes()).await?;
        self.answer().await
    }

    /// Becomes a WebSocket.
    pub(super) async fn upgrade(&mut self, path: &str, subprotocol: Option<&str>) -> Result<()> {
        let mut request = Vec::new();
        upgrade_request(&self.host, path, subprotocol, &mut request);
        self.totals.add_request();
        self.send(&request).await?;
        let head = self.head().await?;
        ensure!(head.starts_with("HTTP/1.1 101 "), "no WebSocket: {head}");
        Ok(())
    }

    /// Reads the head of an answer.
    pub(super) async fn head(&mut self) -> Result<String> {
        loop {
            if let Some(at) = self.input.windows(4).position(|part| part == b"\r\n\r\n") {
                let head: Vec<u8> = self.input.drain(..at + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.read_more().await?;
        }
    }

    async fn answer(&mut self) -> Result<Vec<u8>> {
        let head = self.head().await?;
        let len = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let len = len.with_context(|| format!("an answer without a length: {head}"))?;
        while self.input.len() < len {
            self.read_more().await?;
        }
        let body: Vec<u8> = self.input.drain(..len).collect();
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}{}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    async fn read_more(&mut self) -> Result<()> {
        let before = self.input.len();
        self.input.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the broker ended a connection");
        }
        self.totals.add_bytes(self.input.len() - before);
        Ok(())
    }

    /// The next bytes of a stream; waits until there are some.
    pub(super) async fn some(&mut self) -> Result<Vec<u8>> {
        if self.input.is_empty() {
            self.read_more().await?;
        }
        Ok(std::mem::take(&mut self.input))
    }

    /// Sends all of `bytes`.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.totals.add_bytes(bytes.len());
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The two directions of a WebSocket, for two tasks; what came already with the first.
    pub(super) fn split(self) -> (Incoming, Outgoing) {
        let (reads, writes) = self.stream.into_split();
        let incoming = Incoming { stream: reads, input: self.input, totals: Rc::clone(&self.totals) };
        (incoming, Outgoing { stream: writes, totals: self.totals })
    }
}

/// What a WebSocket receives.
pub(super) struct Incoming {
    stream: tokio::net::tcp::OwnedReadHalf,
    input: Vec<u8>,
    totals: Rc<Totals>,
}

impl Incoming {
    /// The next bytes; waits until there are some.
    pub(super) async fn some(&mut self) -> Result<Vec<u8>> {
        if self.input.is_empty() {
            self.input.reserve(READ_BYTES);
            ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the broker ended a connection");
            self.totals.add_bytes(self.input.len());
        }
        Ok(std::mem::take(&mut self.input))
    }
}

/// What a WebSocket sends.
pub(super) struct Outgoing {
    stream: tokio::net::tcp::OwnedWriteHalf,
    totals: Rc<Totals>,
}

impl Outgoing {
    /// Sends a text message.
    pub(super) async fn text(&mut self, text: &str) -> Result<()> {
        let frame = text_frame(text);
        self.totals.add_bytes(frame.len());
        Ok(self.stream.write_all(&frame).await?)
    }
}

/// A client's text frame, masked with zeros (RFC 6455 §5.2, §5.3).
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(len @ ..126) => frame.push(0x80 | len as u8),
        Ok(len) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(text_frame("hi"), b"\x81\x82\0\0\0\0hi");
        assert_eq!(text_frame(&"x".repeat(200))[..8], [0x81, 0xfe, 0, 200, 0, 0, 0, 0]);
        assert_eq!(text_frame(&"x".repeat(70_000))[..6], [0x81, 0xff, 0, 0, 0, 0]);
    }
}
