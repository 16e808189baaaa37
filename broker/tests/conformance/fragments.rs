//! Fragmentation: RFC 6455, section 5.4.

use crate::client::{BINARY, CLOSE, CONTINUATION, Client, FIN, PING, PONG, TEXT, masked};
use crate::tls;

/// A message comes back whole, whatever its fragments were, empty ones included.
#[test]
fn fragments_become_one_message() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for parts in [&["ab", "cd"][..], &["", "", ""], &["a", "", "b"], &["", "text"], &["a", "b", "c", "d", "e", "f"]] {
        for kind in [TEXT, BINARY] {
            for (at, part) in parts.iter().enumerate() {
                let opcode = if at == 0 { kind } else { CONTINUATION };
                let fin = if at + 1 == parts.len() { FIN } else { 0 };
                client.frame(fin | opcode, part.as_bytes());
            }
            client.expect(FIN | kind, parts.concat().as_bytes());
        }
    }
}

/// Fragments whose bytes arrive one by one.
#[test]
fn fragments_byte_by_byte() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    let stream = [masked(TEXT, b"one "), masked(CONTINUATION, b""), masked(FIN, b"message")].concat();
    for byte in stream {
        client.bytes(&[byte]);
    }
    client.expect(FIN | TEXT, b"one message");
}

/// A large message in 4096 fragments.
#[test]
fn very_many_fragments() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 253) as u8).collect();
    let chunks: Vec<_> = data.chunks(256).collect();
    let mut stream = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        let opcode = if at == 0 { BINARY } else { CONTINUATION };
        let fin = if at + 1 == chunks.len() { FIN } else { 0 };
        stream.extend(masked(fin | opcode, chunk));
    }
    client.bytes(&stream).expect(FIN | BINARY, &data);
}

/// Control frames may stand between fragments, and are answered there.
#[test]
fn a_ping_between_fragments() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    client.frame(TEXT, b"first ").frame(FIN | PING, b"between").expect(FIN | PONG, b"between");
    client.frame(CONTINUATION, b"second ").frame(FIN | PONG, b"unasked").frame(FIN | PING, b"");
    client.expect(FIN | PONG, b"");
    client.frame(FIN | CONTINUATION, b"third").expect(FIN | TEXT, b"first second third");
}

/// A close between fragments ends the connection; the message never was.
#[test]
fn a_close_between_fragments() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    client.frame(TEXT, b"first").frame(FIN | CLOSE, b"\x03\xe8").expect_close(1000);
}

/// A continuation continues something.
#[test]
fn a_continuation_of_nothing() {
    let broker = tls::start(&[]);
    Client::open(broker.address).frame(CONTINUATION, b"what?").expect_close(1002);
    Client::open(broker.address).frame(FIN | CONTINUATION, b"what?").expect_close(1002);
    let mut client = Client::open(broker.address);
    client.frame(TEXT, b"a").frame(FIN | CONTINUATION, b"b").expect(FIN | TEXT, b"ab");
    client.frame(FIN | CONTINUATION, b"c").expect_close(1002);
}

/// A new message begins only after the last one's end.
#[test]
fn a_message_within_a_message() {
    let broker = tls::start(&[]);
    for opcode in [TEXT, BINARY] {
        for fin in [0, FIN] {
            Client::open(broker.address).frame(TEXT, b"first").frame(fin | opcode, b"second").expect_close(1002);
        }
    }
}
