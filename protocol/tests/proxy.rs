//! The PROXY protocol's header: against an independent reader, and whole against in pieces.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::Index;
use protocol::proxy::{BadHeader, Proxied, SIGNATURE, parse};

fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn addresses(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [client, server] {
        match address {
            SocketAddr::V4(address) => bytes.extend(address.ip().octets()),
            SocketAddr::V6(address) => bytes.extend(address.ip().octets()),
        }
    }
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(server.port().to_be_bytes());
    bytes
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn the_client_is_the_source_address() {
    let cases = [(0x11, "203.0.113.7:40001", "10.0.0.1:443"), (0x21, "[2001:db8::7]:40001", "[2001:db8::1]:443")];
    for (family, client, server) in cases {
        let mut bytes = header(0x21, family, &addresses(address(client), address(server)));
        let header_len = bytes.len();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(parse(&bytes), Ok(Some(Proxied { header_len, client: Some(address(client)) })));
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_names_nobody() {
    let v4 = addresses(address("203.0.113.7:1"), address("10.0.0.1:2"));
    for (command, family, body) in [(0x20, 0x00, &[][..]), (0x20, 0x11, &v4), (0x20, 0x31, b"xyz"), (0x21, 0x00, b"")] {
        let bytes = header(command, family, body);
        assert_eq!(parse(&bytes), Ok(Some(Proxied { header_len: bytes.len(), client: None })));
    }
}

#[test]
fn extensions_are_skipped() {
    let client = address("203.0.113.7:40001");
    let mut body = addresses(client, address("10.0.0.1:443"));
    body.extend(b"\x01\x00\x02h2");
    body.resize(usize::from(u16::MAX), 0x04);
    let bytes = header(0x21, 0x11, &body);
    assert_eq!(bytes.len(), 65_551);
    assert_eq!(parse(&bytes), Ok(Some(Proxied { header_len: bytes.len(), client: Some(client) })));
}

#[test]
fn what_is_no_header_is_known_at_the_first_wrong_byte() {
    assert_eq!(parse(b"G"), Err(BadHeader::Signature));
    assert_eq!(parse(b"\r\n\r\n\0\r\nQUIX"), Err(BadHeader::Signature));
    assert_eq!(parse(b"PROXY TCP4 203.0.113.7 10.0.0.1 40001 443\r\n"), Err(BadHeader::Signature));
    let v4 = addresses(address("203.0.113.7:1"), address("10.0.0.1:2"));
    let cases = [
        (13, BadHeader::Command, header(0x11, 0x11, &v4)),
        (13, BadHeader::Command, header(0x31, 0x11, &v4)),
        (13, BadHeader::Command, header(0x22, 0x11, &v4)),
        (14, BadHeader::Family, header(0x21, 0x12, &v4)),
        (14, BadHeader::Family, header(0x21, 0x31, &[0; 216])),
        (14, BadHeader::Family, header(0x21, 0x41, &v4)),
        (16, BadHeader::Length, header(0x21, 0x11, &v4[..11])),
        (16, BadHeader::Length, header(0x21, 0x21, &[0; 35])),
    ];
    for (at, bad, bytes) in cases {
        assert_eq!(parse(&bytes[..at - 1]), Ok(None), "{bad:?}");
        assert_eq!(parse(&bytes[..at]), Err(bad));
        assert!(!bad.to_string().is_empty());
    }
}

/// What the crate `ppp` makes of whole bytes, in our terms.
fn judged_by_ppp(bytes: &[u8]) -> Option<Proxied> {
    use ppp::v2::{Addresses, Command, Header, Protocol};
    let header = Header::try_from(bytes).ok()?;
    let client = match (header.command, header.protocol, header.addresses) {
        (Command::Local, ..) | (_, Protocol::Unspecified, Addresses::Unspecified) => None,
        (_, Protocol::Stream, Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
        (_, Protocol::Stream, Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
        _ => return None,
    };
    Some(Proxied { header_len: header.len(), client })
}

prop_compose! {
    /// Near a header: often one, often one byte off.
    fn nearly_a_header()(
        command in prop::sample::select(vec![0x20u8, 0x21, 0x21, 0x21, 0x22, 0x11]),
        family in prop::sample::select(vec![0x00u8, 0x11, 0x11, 0x21, 0x21, 0x12, 0x31, 0x01, 0x50]),
        body in prop::collection::vec(any::<u8>(), 0..60),
        tail in prop::collection::vec(any::<u8>(), 0..20),
        broken in prop::option::weighted(0.2, (any::<Index>(), any::<u8>())),
    ) -> Vec<u8> {
        let mut bytes = header(command, family, &body);
        if let Some((at, byte)) = broken {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        bytes
    }
}

proptest! {
    /// Where ours takes a client's header, both read the same; what ours refuses is nothing that theirs takes for a TCP
    /// connection's. Of a proxy's own connection ours ignores more than theirs does.
    #[test]
    fn agrees_with_ppp(bytes in nearly_a_header()) {
        let theirs = judged_by_ppp(&bytes);
        match parse(&bytes) {
            Ok(Some(proxied)) if bytes[12] == 0x20 => prop_assert_eq!(theirs.unwrap_or(proxied), proxied),
            Ok(Some(proxied)) => prop_assert_eq!(theirs, Some(proxied)),
            Ok(None) | Err(_) => prop_assert_eq!(theirs, None),
        }
    }

    /// Every prefix says that more is to come or what the whole says, and never changes its mind.
    #[test]
    fn pieces_come_to_the_same(bytes in nearly_a_header()) {
        let whole = parse(&bytes);
        let mut decided = None;
        for len in 0..=bytes.len() {
            match (parse(&bytes[..len]), decided) {
                (Ok(None), None) => {}
                (verdict, None) => decided = Some(verdict),
                (verdict, Some(before)) => prop_assert_eq!(verdict, before),
            }
        }
        prop_assert_eq!(decided.unwrap_or(Ok(None)), whole);
    }

    #[test]
    fn anything_at_all_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some(proxied)) = parse(&bytes) {
            prop_assert!(proxied.header_len <= bytes.len());
        }
    }
}
