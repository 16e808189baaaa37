//! Pings and pongs: RFC 6455, sections 5.5, 5.5.2 and 5.5.3.

use crate::client::{Client, FIN, PING, PONG, TEXT, masked};
use crate::tls;

/// Section 5.5.3: a pong carries what the ping carried.
#[test]
fn pings_are_answered_with_their_payload() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for payload in [&b""[..], b"hello", &[0, 0xff, 0xfe, 0x80], &[0xab; 125]] {
        client.frame(FIN | PING, payload).expect(FIN | PONG, payload);
    }
    client.expect_alive();
}

/// Section 5.5: a control frame has 125 bytes at most.
#[test]
fn a_ping_of_126_bytes_is_an_error() {
    let broker = tls::start(&[]);
    Client::open(broker.address).frame(FIN | PING, &[0; 126]).expect_close(1002);
}

/// Section 5.5: the same for a pong, of a length of 16 and of 64 bits.
#[test]
fn a_long_pong_is_an_error() {
    let broker = tls::start(&[]);
    Client::open(broker.address).frame(FIN | PONG, &[0; 126]).expect_close(1002);
    Client::open(broker.address).frame(FIN | PONG, &[0; 65536]).expect_close(1002);
}

/// Section 5.5: control frames are not fragmented.
#[test]
fn a_fragmented_ping_is_an_error() {
    let broker = tls::start(&[]);
    Client::open(broker.address).frame(PING, b"part").expect_close(1002);
    Client::open(broker.address).frame(PONG, b"part").expect_close(1002);
}

/// Section 5.5.3: an unasked pong is no question.
#[test]
fn unasked_pongs_are_ignored() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    client.frame(FIN | PONG, b"").frame(FIN | PONG, b"unasked").expect_alive();
    client.frame(FIN | PING, b"asked").expect(FIN | PONG, b"asked");
}

/// Section 5.5.2: pings byte by byte, and many at once, are all answered, in order.
#[test]
fn many_pings() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for byte in masked(FIN | PING, b"slowly") {
        client.bytes(&[byte]);
    }
    client.expect(FIN | PONG, b"slowly");
    let stream: Vec<u8> = (0..100u8).flat_map(|at| masked(FIN | PING, &[at; 20])).collect();
    client.bytes(&stream);
    for at in 0..100 {
        client.expect(FIN | PONG, &[at; 20]);
    }
}

/// Section 5.5: control frames do not disturb messages around them.
#[test]
fn pings_between_messages() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for _ in 0..50 {
        client.frame(FIN | PING, b"p").expect(FIN | PONG, b"p");
        client.frame(FIN | TEXT, b"t").expect(FIN | TEXT, b"t");
    }
}
