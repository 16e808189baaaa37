//! One connection of a tool or a test: reads HTTP answers and WebSocket frames one by one.
//!
//! A blocking stream bounds every wait with its timeouts; with a stream that does not block, [`Ending::Late`] means that
//! nothing more is there yet. Not for load: every read is copied.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use protocol::frame::Opcode;

pub use crate::adapter::upgrade_request;
use crate::frame::Header;

/// Bytes that one read asks for.
const READ_LEN: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// Why no more answers and frames come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// A close frame with this code.
    Close(u16),
    /// End of stream.
    Eof,
    /// A reset, or another error of the connection.
    Reset,
    /// Nothing came in time.
    Late,
    /// Bytes that no server sends.
    Broken(String),
}

/// An answer over HTTP.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All of it.
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body.trim_ascii().escape_ascii())
    }
}

/// Sends one GET request on a connection of its own. `host` is the value of `Host`.
///
/// # Errors
/// When no answer came within `patience`.
pub fn get(address: SocketAddr, host: &str, path: &str, patience: Duration) -> Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Client::new(stream).get(host, path, "Connection: close\r\n").map_err(|ending| anyhow!("no answer: {ending:?}"))
}

/// The code of a close frame's payload; 1005 when it has none.
#[must_use]
pub fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// A connection.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    /// Received bytes; the first `taken` were returned.
    input: Vec<u8>,
    taken: usize,
}

impl<S> Client<S> {
    /// Of a connected stream.
    pub fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), taken: 0 }
    }

    /// The stream.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The same connection with its stream in another form.
    pub fn map_stream<T>(self, change: impl FnOnce(S) -> T) -> Client<T> {
        Client { stream: change(self.stream), input: self.input, taken: self.taken }
    }

    /// Bytes that were received and not returned yet.
    pub fn rest(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    /// So many of those count as returned.
    pub fn take(&mut self, len: usize) {
        self.taken += len.min(self.rest().len());
    }
}

impl<S: Write> Client<S> {
    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// When the connection has ended, or the peer takes too long.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends a GET request with further header fields, each ended by CR LF, and reads the answer.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn get(&mut self, host: &str, path: &str, fields: &str) -> Result<Answer, Ending> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        // In one write: one packet.
        self.send(request.as_bytes()).map_err(|_| Ending::Reset)?;
        self.answer()
    }
}

impl<S: Read> Client<S> {
    /// Reads the whole answer to a request. After a 101 come frames.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn answer(&mut self) -> Result<Answer, Ending> {
        let (status, head_len, body_len) = loop {
            match head(self.rest()).map_err(|error| Ending::Broken(error.to_string()))? {
                Some(head) => break head,
                None => self.read_more()?,
            }
        };
        self.taken += head_len;
        let body_len = match body_len {
            Some(len) => {
                while self.rest().len() < len {
                    self.read_more()?;
                }
                len
            }
            // The end of the stream ends the body (RFC 9112, section 6.3).
            None => loop {
                match self.read_more() {
                    Ok(()) => {}
                    Err(Ending::Eof) => break self.rest().len(),
                    Err(ending) => return Err(ending),
                }
            },
        };
        let body = self.rest()[..body_len].to_vec();
        self.taken += body_len;
        Ok(Answer { status, body })
    }

    /// Reads the next frame, which must be a whole message or a control frame: its first byte and its payload.
    ///
    /// # Errors
    /// When there is no whole frame.
    pub fn frame(&mut self) -> Result<(u8, &[u8]), Ending> {
        let (header, payload) = loop {
            if let Some(header) = Header::read(self.rest()).map_err(|why| Ending::Broken(why.into_owned()))? {
                if !header.fin || header.opcode == Opcode::Continuation {
                    return Err(Ending::Broken("a fragment".to_owned()));
                }
                let payload = usize::try_from(header.payload).map_err(|_| Ending::Broken("a huge frame".to_owned()))?;
                if self.rest().len() - header.len >= payload {
                    break (header, payload);
                }
            }
            self.read_more()?;
        };
        let (first, from) = (self.input[self.taken], self.taken + header.len);
        self.taken = from + payload;
        Ok((first, &self.input[from..self.taken]))
    }

    /// Reads frames until the connection ends, and returns how it did.
    pub fn ending(&mut self) -> Ending {
        const CLOSE: u8 = 0x80 | Opcode::Close as u8;
        loop {
            match self.frame() {
                Ok((CLOSE, payload)) => return Ending::Close(close_code(payload)),
                Ok(_) => {}
                Err(ending) => return ending,
            }
        }
    }

    /// Reads until the connection ends, whatever comes.
    pub fn read_to_end(&mut self) -> (Vec<u8>, Ending) {
        loop {
            if let Err(ending) = self.read_more() {
                return (self.input.split_off(self.taken), ending);
            }
        }
    }

    /// Reads what is there, at least a byte. It is in [`Self::rest`] then.
    ///
    /// # Errors
    /// When nothing came.
    pub fn read_more(&mut self) -> Result<(), Ending> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let len = self.input.len();
        self.input.resize(len + READ_LEN, 0);
        let read = loop {
            match self.stream.read(&mut self.input[len..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.input.truncate(len + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Ending::Eof),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Ending::Late),
            Err(_) => Err(Ending::Reset),
        }
    }
}

/// Reads an answer's head: its status, its length, and the length of the body if the head gives it.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, Option<usize>)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(len) = head.parse(bytes)? else { return Ok(None) };
    let status = head.code.context("no status")?;
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length =
        length.map(|header| std::str::from_utf8(header.value)?.trim().parse::<usize>().map_err(anyhow::Error::from));
    let body = if matches!(status, 100..200 | 204 | 304) { Some(0) } else { length.transpose()? };
    Ok(Some((status, len, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of which one byte can be read at a time.
    struct Bytes<'a>(&'a [u8]);

    impl Read for Bytes<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut out[..1])
        }
    }

    #[test]
    fn answers_and_frames_are_returned_when_whole() {
        let stream = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok\
                       HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi\x89\x00\x88\x02\x03\xf5";
        let mut client = Client::new(Bytes(stream));
        assert_eq!(format!("{:?}", client.answer().unwrap()), "200 ok");
        assert_eq!(client.answer().unwrap().status, 101);
        assert_eq!(client.frame(), Ok((0x81, &b"hi"[..])));
        assert_eq!(client.ending(), Ending::Close(1013));
        assert_eq!(client.frame(), Err(Ending::Eof));
        assert_eq!(close_code(b""), 1005);
    }

    #[test]
    fn without_a_length_the_end_of_the_stream_ends_the_body() {
        let mut client = Client::new(Bytes(b"HTTP/1.0 404 Not Found\r\n\r\nnothing here"));
        assert_eq!(format!("{:?}", client.answer().unwrap()), "404 nothing here");
    }

    #[test]
    fn what_no_server_sends_is_broken() {
        let answer = |bytes: &[u8]| Client::new(Bytes(bytes)).answer().unwrap_err();
        assert!(matches!(answer(b"SSH-2.0-OpenSSH_9.2\r\n"), Ending::Broken(_)));
        assert!(matches!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), Ending::Broken(_)));
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nno"), Ending::Eof);
        for frame in [&[0x82, 0x80][..], &[0x01, 0], &[0x80, 0]] {
            assert!(matches!(Client::new(Bytes(frame)).frame(), Err(Ending::Broken(_))), "{frame:?}");
        }
    }
}
