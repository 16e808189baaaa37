//! One TLS connection without its socket: ciphertext goes in and plaintext comes out ([`Stream::feed`]), plaintext goes in and
//! ciphertext comes out ([`Stream::seal`]).
//!
//! What the library wants to send by itself (its part of the handshake, tickets, alerts, answers to key updates) waits in
//! the library until [`Stream::output`] takes it, or goes before what is sealed. Renegotiation is refused, and so are more
//! than a few key updates in a row; both by the library.
//!
//! Cost: a record of up to 16 KiB is decrypted in place and copied once in each direction. Idle, a connection holds its
//! keys, about 4 KiB.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

use crate::tls::alerts::Alert;

/// What the library holds of plaintext that it cannot encrypt yet, and of ciphertext that nobody took, in bytes: each
/// record is taken at once, so it is never full.
const BUFFERED_MAX: usize = 64 << 10;
/// Type of a record that begins a handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// See the module's head.
#[derive(Debug)]
pub struct Stream {
    connection: Box<ServerConnection>,
    has_begun: bool,
    /// Whether the end of the handshake was reported.
    is_established: bool,
    has_closed: bool,
    /// Nothing is encrypted any more.
    has_failed: bool,
}

/// What came of bytes that were fed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Fed {
    /// The handshake is complete since then.
    pub established: Option<Handshake>,
    /// The peer sends nothing more (`close_notify`).
    pub has_ended: bool,
    /// A handshake's signature was made: the expensive part.
    pub has_signed: bool,
}

/// How a handshake went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// TLS 1.3, else 1.2.
    pub is_13: bool,
    /// By a ticket.
    pub is_resumed: bool,
}

/// Why a connection cannot go on. An alert for the peer may be there to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The first byte is that of no TLS record: HTTP without TLS, most likely.
    Cleartext,
    /// The peer sent an alert.
    Alert(Alert),
    /// Nothing in common: versions, cipher suites, groups.
    Incompatible,
    /// Anything else that the peer should not have sent.
    Violation,
}

impl Stream {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let mut connection = Box::new(ServerConnection::new(config)?);
        connection.set_buffer_limit(Some(BUFFERED_MAX));
        Ok(Self { connection, has_begun: false, is_established: false, has_closed: false, has_failed: false })
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes ciphertext, and adds what it says to `plain`.
    ///
    /// # Errors
    /// The connection cannot go on. What was decrypted before is in `plain`.
    pub fn feed(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<Fed, Failure> {
        let fed = self.take(bytes, plain);
        self.has_failed |= fed.is_err();
        fed
    }

    fn take(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<Fed, Failure> {
        if !self.has_begun
            && let Some(&first) = bytes.first()
        {
            if first != HANDSHAKE_RECORD {
                return Err(Failure::Cleartext);
            }
            self.has_begun = true;
        }
        let mut fed = Fed::default();
        while !bytes.is_empty() && !fed.has_ended {
            let wrote = self.connection.wants_write();
            let taken = self.connection.read_tls(&mut bytes).map_err(|_| Failure::Violation)?;
            let state = self.connection.process_new_packets().map_err(|error| failure(&error))?;
            fed.has_signed |= self.connection.is_handshaking() && !wrote && self.connection.wants_write();
            let ready = state.plaintext_bytes_to_read();
            if ready > 0 {
                let at = plain.len();
                plain.resize(at + ready, 0);
                self.connection.reader().read_exact(&mut plain[at..]).map_err(|_| Failure::Violation)?;
            }
            fed.has_ended = state.peer_has_closed();
            if taken == 0 {
                break;
            }
        }
        if !self.is_established && !self.connection.is_handshaking() {
            self.is_established = true;
            fed.established = Some(Handshake {
                is_13: self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
                is_resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            });
        }
        Ok(fed)
    }

    /// Whether the library has something to send by itself.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Adds what the library has to send by itself to `out`.
    pub fn output(&mut self, out: &mut BytesMut) {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut Writer(out)).is_err() {
                return;
            }
        }
    }

    /// Adds `parts` to `out` as ciphertext, behind what the library has to send by itself. The handshake must be over.
    pub fn seal(&mut self, parts: &[Bytes], out: &mut BytesMut) {
        debug_assert!(self.has_failed || !self.connection.is_handshaking(), "nothing is sealed before there are keys");
        let parts = if self.has_failed { &[] } else { parts };
        for part in parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                let Ok(taken @ 1..) = self.connection.writer().write(rest) else { return };
                rest = &rest[taken..];
                self.output(out);
            }
        }
        self.output(out);
    }

    /// Has the library say that nothing more is sent (`close_notify`), once. Returns whether that is to be sent now.
    pub fn close(&mut self) -> bool {
        if !std::mem::replace(&mut self.has_closed, true) && !self.has_failed {
            self.connection.send_close_notify();
        }
        self.has_output()
    }
}

struct Writer<'a>(&'a mut BytesMut);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::AlertReceived(description) => Failure::Alert(Alert::of(*description)),
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::Incompatible,
        _ => Failure::Violation,
    }
}
