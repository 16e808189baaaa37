//! Frames that nobody may send: RFC 6455, sections 5.1 and 5.2.

use crate::client::{BINARY, CLOSE, Client, FIN, PING, TEXT};
use crate::tls;

/// Section 5.2: a reserved bit without an extension that gives it a meaning fails the connection.
#[test]
fn reserved_bits() {
    let broker = tls::start(&[]);
    for bits in 1..8 {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            Client::open(broker.address).frame(FIN | bits << 4 | opcode, b"").expect_close(1002);
            Client::open(broker.address).frame(FIN | bits << 4 | opcode, b"\x03\xe8payload").expect_close(1002);
        }
    }
}

/// Section 5.2: what came before the bad frame is still delivered.
#[test]
fn messages_before_a_bad_frame_count() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    client.frame(FIN | TEXT, b"good").expect(FIN | TEXT, b"good");
    client.frame(FIN | 0x40 | TEXT, b"bad").expect_close(1002);
}

/// Section 5.2: reserved opcodes, data and control.
#[test]
fn reserved_opcodes() {
    let broker = tls::start(&[]);
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        Client::open(broker.address).frame(FIN | opcode, b"").expect_close(1002);
        Client::open(broker.address).frame(FIN | opcode, b"payload").expect_close(1002);
    }
}

/// Section 5.1: a server fails a connection on which a frame is not masked.
#[test]
fn unmasked_frames() {
    let broker = tls::start(&[]);
    for bytes in [&b"\x81\x05hello"[..], b"\x82\x00", b"\x89\x00", b"\x88\x02\x03\xe8"] {
        Client::open(broker.address).bytes(bytes).expect_close(1002);
    }
}

/// Section 5.2: the highest bit of a length of 64 bits is 0.
#[test]
fn a_length_with_its_highest_bit_set() {
    let broker = tls::start(&[]);
    Client::open(broker.address).bytes(b"\x82\xff\x80\0\0\0\0\0\0\x01\0\0\0\0").expect_close(1002);
}

/// Section 5.2: the shortest form of a length is the only one.
#[test]
fn a_length_in_a_longer_form_than_needed() {
    let broker = tls::start(&[]);
    for bytes in [
        &b"\x82\xfe\x00\x05\0\0\0\0hello"[..],
        b"\x82\xfe\x00\x7d\0\0\0\0",
        b"\x82\xff\0\0\0\0\0\0\x00\x05\0\0\0\0hello",
        b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0",
    ] {
        Client::open(broker.address).bytes(bytes).expect_close(1002);
    }
}
