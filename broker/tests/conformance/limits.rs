//! Too much: RFC 6455, sections 7.4.1 (1009) and 10.4.

use crate::client::{BINARY, CONTINUATION, Client, FIN, TEXT};
use crate::tls;

const SMALL: [&str; 4] = ["--max-message", "1000", "--max-frame", "600"];

/// A frame at the limit passes, one byte more does not, and the header alone is enough to say so.
#[test]
fn frames() {
    let broker = tls::start(&SMALL);
    let mut client = Client::open(broker.address);
    client.frame(FIN | BINARY, &[7; 600]).expect(FIN | BINARY, &[7; 600]);
    client.frame(FIN | BINARY, &[7; 601]).expect_close(1009);
    Client::open(broker.address).bytes(b"\x82\xfe\x02\x59\0\0\0\0").expect_close(1009);
    Client::open(broker.address).bytes(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0").expect_close(1009);
}

/// A message at the limit passes over any number of fragments, one byte more does not.
#[test]
fn messages() {
    let broker = tls::start(&SMALL);
    let mut client = Client::open(broker.address);
    for _ in 0..2 {
        client.frame(TEXT, &[b'a'; 500]).frame(CONTINUATION, &[b'b'; 499]).frame(FIN | CONTINUATION, b"c");
        let whole = [&[b'a'; 500][..], &[b'b'; 499], b"c"].concat();
        client.expect(FIN | TEXT, &whole);
    }
    client.frame(TEXT, &[b'a'; 500]).frame(CONTINUATION, &[b'b'; 500]).frame(FIN | CONTINUATION, b"c");
    client.expect_close(1009);
}

/// The default lets a mebibyte through, and not a byte more.
#[test]
fn defaults() {
    let broker = tls::start(&[]);
    let data = vec![1; 1 << 20];
    Client::open(broker.address).frame(FIN | BINARY, &data).expect(FIN | BINARY, &data);
    Client::open(broker.address).bytes(b"\x82\xff\0\0\0\0\0\x10\0\x01\0\0\0\0").expect_close(1009);
}
