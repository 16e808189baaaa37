//! The PROXY protocol's header: against an independent reader, and whole against in pieces.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::Index;
use protocol::proxy::{BadHeader, HEADER_LEN_MAX, Proxied, SIGNATURE, parse};

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

/// Every byte that may stand for family and transport, with every command.
#[test]
fn each_combination_is_answered_as_the_specification_says() {
    let (v4, v6) = (address("203.0.113.7:40001"), address("[2001:db8::7]:40001"));
    let bodies = [(addresses(v4, address("10.0.0.1:443")), v4), (addresses(v6, address("[2001:db8::1]:443")), v6)];
    for byte in 0..=u8::MAX {
        let (family, transport) = (byte >> 4, byte & 0x0f);
        for (body, client) in &bodies {
            let local = header(0x20, byte, body);
            assert_eq!(parse(&local), Ok(Some(Proxied { header_len: local.len(), client: None })), "{byte:#04x}");
            let bytes = header(0x21, byte, body);
            let said = parse(&bytes);
            let whole = |client| Ok(Some(Proxied { header_len: bytes.len(), client }));
            match (family, transport) {
                // Whatever is longer than the addresses is an extension.
                (1, 1 | 2) if client.is_ipv4() => assert_eq!(said, whole(Some(*client)), "{byte:#04x}"),
                (2, 1 | 2) if client.is_ipv6() => assert_eq!(said, whole(Some(*client)), "{byte:#04x}"),
                (1, 1 | 2) => assert!(matches!(said, Ok(Some(Proxied { client: Some(_), .. }))), "{byte:#04x}"),
                (2, 1 | 2) => assert_eq!(said, Err(BadHeader::Length), "{byte:#04x}"),
                (0..=3, 0..=2) => assert_eq!(said, whole(None), "{byte:#04x}"),
                _ => assert_eq!(said, Err(BadHeader::Family), "{byte:#04x}"),
            }
        }
    }
    for command in (0..=u8::MAX).filter(|command| ![0x20, 0x21].contains(command)) {
        assert_eq!(parse(&header(command, 0x11, &bodies[0].0)), Err(BadHeader::Command), "{command:#04x}");
    }
}

/// A combination that is not implemented is skipped by its length, whatever that is.
#[test]
fn a_socket_of_this_machine_names_nobody() {
    for (family, len) in [(0x31, 216), (0x32, 216), (0x31, 0), (0x31, 300), (0x00, 12), (0x10, 3), (0x01, 65_535)] {
        let mut bytes = header(0x21, family, &vec![b'/'; len]);
        let header_len = bytes.len();
        bytes.extend(b"GET /");
        assert_eq!(parse(&bytes), Ok(Some(Proxied { header_len, client: None })), "{family:#04x} {len}");
    }
}

#[test]
fn extensions_of_every_type_and_length_are_skipped() {
    let client = address("[2001:db8::7]:40001");
    for (kind, len) in (0..=u8::MAX).zip([0u16, 1, 4, 255, 256, 65_000].into_iter().cycle()) {
        let mut body = addresses(client, address("[2001:db8::1]:443"));
        body.push(kind);
        body.extend(len.to_be_bytes());
        body.resize(body.len() + usize::from(len), 0xff);
        let bytes = header(0x21, 0x21, &body);
        assert!(bytes.len() <= HEADER_LEN_MAX);
        assert_eq!(parse(&bytes), Ok(Some(Proxied { header_len: bytes.len(), client: Some(client) })), "{kind}");
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Ok(None), "{kind}");
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
        (14, BadHeader::Family, header(0x21, 0x13, &v4)),
        (14, BadHeader::Family, header(0x21, 0x41, &v4)),
        (14, BadHeader::Family, header(0x21, 0x03, b"")),
        (16, BadHeader::Length, header(0x21, 0x11, &v4[..11])),
        (16, BadHeader::Length, header(0x21, 0x12, &v4[..11])),
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
        (Command::Local, ..) | (_, Protocol::Unspecified, _) => None,
        (_, _, Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
        (_, _, Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
        (_, _, Addresses::Unspecified | Addresses::Unix(_)) => None,
    };
    Some(Proxied { header_len: header.len(), client })
}

prop_compose! {
    /// Near a header: often one, often one byte off.
    fn nearly_a_header()(
        command in prop::sample::select(vec![0x20u8, 0x21, 0x21, 0x21, 0x22, 0x11]),
        family in prop::sample::select(vec![0x00u8, 0x11, 0x11, 0x21, 0x21, 0x12, 0x22, 0x31, 0x01, 0x10, 0x50]),
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
    /// Where ours takes a client's header, both read the same; what ours refuses, theirs refuses too. Where nobody is
    /// named, ours skips addresses that theirs finds too short.
    #[test]
    fn agrees_with_ppp(bytes in nearly_a_header()) {
        let theirs = judged_by_ppp(&bytes);
        match parse(&bytes) {
            Ok(Some(proxied)) if proxied.client.is_none() => prop_assert_eq!(theirs.unwrap_or(proxied), proxied),
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
