//! The closing handshake: RFC 6455, sections 5.5.1, 7.1 and 7.4.

use std::net::Shutdown;

use crate::client::{CLOSE, Client, FIN, PING, TEXT};
use crate::tls;

/// Section 5.5.1: the answer names the code it got.
#[test]
fn valid_codes_are_echoed() {
    let broker = tls::start(&[]);
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        Client::open(broker.address).frame(FIN | CLOSE, &code.to_be_bytes()).expect_close(code);
        let with_reason = [&code.to_be_bytes()[..], "bye – ".as_bytes(), &[b'x'; 100]].concat();
        Client::open(broker.address).frame(FIN | CLOSE, &with_reason).expect_close(code);
    }
}

/// Section 7.4: codes that never stand in a frame, or that nobody registered.
#[test]
fn invalid_codes() {
    let broker = tls::start(&[]);
    for code in [0u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        Client::open(broker.address).frame(FIN | CLOSE, &code.to_be_bytes()).expect_close(1002);
    }
}

/// Section 5.5.1: a close without a code is answered, with none or with 1000.
#[test]
fn a_close_without_code() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    let frame = client.frame(FIN | CLOSE, b"").next().expect("an answer");
    assert_eq!(frame.first, FIN | CLOSE);
    assert!(frame.payload.is_empty() || frame.payload == 1000u16.to_be_bytes(), "{frame:?}");
    client.expect_end();
}

/// Section 5.5.1: a body has a code of two bytes, or is empty.
#[test]
fn half_a_code() {
    let broker = tls::start(&[]);
    Client::open(broker.address).frame(FIN | CLOSE, b"\x03").expect_close(1002);
}

/// Section 5.5.1: a reason is UTF-8.
#[test]
fn a_reason_that_is_not_text() {
    let broker = tls::start(&[]);
    Client::open(broker.address).frame(FIN | CLOSE, b"\x03\xe8\xce\xba\xe1\xbd\xed\xa0\x80").expect_close(1007);
    Client::open(broker.address).frame(FIN | CLOSE, b"\x03\xe8\xc3").expect_close(1007);
}

/// Section 5.5: a reason has 123 bytes at most.
#[test]
fn the_longest_reason() {
    let broker = tls::start(&[]);
    let longest = [&b"\x03\xe8"[..], &[b'*'; 123]].concat();
    Client::open(broker.address).frame(FIN | CLOSE, &longest).expect_close(1000);
    let longer = [&longest[..], b"*"].concat();
    Client::open(broker.address).frame(FIN | CLOSE, &longer).expect_close(1002);
}

/// Section 5.5: a close is not fragmented.
#[test]
fn a_fragmented_close() {
    let broker = tls::start(&[]);
    Client::open(broker.address).frame(CLOSE, b"\x03\xe8").expect_close(1002);
}

/// Section 5.5.1: after a close nothing else counts: no message, no ping, no second close.
#[test]
fn what_follows_a_close_is_ignored() {
    let broker = tls::start(&[]);
    for (first, payload) in [(FIN | TEXT, &b"late"[..]), (FIN | PING, b"late"), (FIN | CLOSE, b"\x03\xe9"), (0xff, b"")]
    {
        let mut client = Client::open(broker.address);
        client.frame(FIN | CLOSE, b"\x03\xe8").frame(first, payload);
        client.expect_close(1000);
    }
}

/// Section 5.5.1: what was sent before the close was heard.
#[test]
fn what_precedes_a_close_counts() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    client.frame(FIN | TEXT, b"last words").expect(FIN | TEXT, b"last words");
    client.frame(FIN | CLOSE, b"\x03\xe8").expect_close(1000);
}

/// Section 7.1.1: the server ends the connection first, even when the client keeps its side open.
#[test]
fn the_server_ends_the_connection() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    client.frame(FIN | CLOSE, b"\x03\xe8").expect(FIN | CLOSE, b"\x03\xe8");
    client.expect_end();
}

/// Section 7.1.5: a client that just goes away, at any moment, harms nobody.
#[test]
fn clients_that_vanish() {
    let broker = tls::start(&[]);
    let mut witness = Client::open(broker.address);
    for bytes in [&b""[..], b"\x81", b"\x81\xfe\x01", b"\x81\x85\0\0\0\0he", b"\x01\x82\0\0\0\0he"] {
        let mut client = Client::open(broker.address);
        client.bytes(bytes).stream.shutdown(Shutdown::Both).unwrap();
        witness.expect_alive();
        let mut client = Client::open(broker.address);
        client.bytes(bytes).stream.shutdown(Shutdown::Write).unwrap();
        while client.next().is_some() {}
        witness.expect_alive();
    }
}
