//! The PROXY protocol, version 2: what a proxy in front says of the client whose connection it passes on.
//!
//! Comes before anything else on a connection, and only from a peer that is trusted to say it; that is the caller's
//! decision. The header is binary: a signature, version and command, family and transport, length, two addresses, then
//! extensions (TLVs). Specification: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2.
//!
//! | command | family, transport | what it says |
//! | --- | --- | --- |
//! | LOCAL (0) | any at all | the proxy speaks for itself; the rest of the header is skipped |
//! | PROXY (1) | AF_INET (1) or AF_INET6 (2) with STREAM (1) or DGRAM (2) | the client's address. DGRAM is a client of QUIC, whose requests the proxy passes on over TCP |
//! | PROXY | AF_UNIX (3), AF_UNSPEC (0), or transport UNSPEC (0) | nobody: a combination that a receiver does not implement counts as unspecified, whatever its length |
//! | PROXY | a family above 3, a transport above 2 | refused, as the specification demands |
//! | any other | | refused, and so is any version but 2; version 1 is a line of text |
//!
//! Every length that two bytes can say is taken, up to [`HEADER_LEN_MAX`] with its beginning. Extensions are skipped
//! unread, of every type and length; the checksum (`PP2_TYPE_CRC32C`) is one of them. Lengths are bytes. Nothing
//! allocates.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What every header begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const FIXED_LEN: usize = 16;

/// The longest header.
pub const HEADER_LEN_MAX: usize = FIXED_LEN + u16::MAX as usize;

/// A whole header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proxied {
    /// Where the header ends and the client's own bytes begin.
    pub header_len: usize,
    /// The client; `None` where the proxy speaks for itself (a health check) or does not know.
    pub client: Option<SocketAddr>,
}

/// Why what a connection begins with is no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadHeader {
    /// It does not begin with the signature.
    Signature,
    /// Another version than 2, or a command that is neither LOCAL nor PROXY.
    Command,
    /// A family or a transport that version 2 does not have.
    Family,
    /// Too short for the addresses of its family.
    Length,
}

impl core::fmt::Display for BadHeader {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Signature => "it does not begin with a PROXY protocol header of version 2",
            Self::Command => "its PROXY protocol header has another version than 2 or an unknown command",
            Self::Family => "its PROXY protocol header has a family or a transport that version 2 does not have",
            Self::Length => "its PROXY protocol header is too short for its addresses",
        })
    }
}

impl core::error::Error for BadHeader {}

/// Looks at everything received so far; `None`: the header is not complete. It has [`HEADER_LEN_MAX`] bytes at most.
///
/// # Errors
/// The bytes cannot become a header, however they go on.
pub fn parse(bytes: &[u8]) -> Result<Option<Proxied>, BadHeader> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(BadHeader::Signature);
    }
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(BadHeader::Command),
    };
    let family = match (command, bytes.get(13)) {
        (_, None) => return Ok(None),
        // A receiver ignores the family of its own proxy's connection.
        (Command::Local, _) => Family::Unspecified,
        (Command::Proxy, Some(byte)) => match (byte >> 4, byte & 0x0f) {
            (1, 1 | 2) => Family::V4,
            (2, 1 | 2) => Family::V6,
            (0..=3, 0..=2) => Family::Unspecified,
            _ => return Err(BadHeader::Family),
        },
    };
    let Some(&[high, low]) = bytes.get(14..FIXED_LEN) else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len < family.addresses_len() {
        return Err(BadHeader::Length);
    }
    let header_len = FIXED_LEN + len;
    let Some(addresses) = bytes.get(FIXED_LEN..header_len) else { return Ok(None) };
    Ok(Some(Proxied { header_len, client: family.client(addresses) }))
}

#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    V4,
    V6,
}

impl Family {
    /// Two addresses and two ports.
    fn addresses_len(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
        }
    }

    /// The first of the two addresses, with its port.
    fn client(self, addresses: &[u8]) -> Option<SocketAddr> {
        let port = |at: usize| Some(u16::from_be_bytes(*addresses.get(at..)?.first_chunk()?));
        match self {
            Self::Unspecified => None,
            Self::V4 => Some((Ipv4Addr::from(*addresses.first_chunk::<4>()?), port(8)?).into()),
            Self::V6 => Some((Ipv6Addr::from(*addresses.first_chunk::<16>()?), port(32)?).into()),
        }
    }
}
