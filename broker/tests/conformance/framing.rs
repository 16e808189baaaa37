//! Sizes and ways of cutting: RFC 6455, sections 5.2 and 5.6.

use crate::client::{BINARY, Client, FIN, TEXT, masked};
use crate::tls;

/// Where the form of the length changes, and one large enough for several buffers.
const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 20];

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// Section 5.6: text comes back as text.
#[test]
fn text_of_every_size() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for size in SIZES {
        let text = vec![b'*'; size];
        client.frame(FIN | TEXT, &text).expect(FIN | TEXT, &text);
    }
}

/// Section 5.6: binary comes back as binary, every byte value included.
#[test]
fn binary_of_every_size() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for size in SIZES {
        let data = pattern(size);
        client.frame(FIN | BINARY, &data).expect(FIN | BINARY, &data);
    }
}

/// Section 5.2: frames mean the same however TCP cuts them.
#[test]
fn frames_byte_by_byte() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for size in [0, 1, 125, 126, 300] {
        for byte in masked(FIN | BINARY, &pattern(size)) {
            client.bytes(&[byte]);
        }
        client.expect(FIN | BINARY, &pattern(size));
    }
}

/// Section 5.2: many frames in one segment are many messages.
#[test]
fn many_frames_at_once() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    let stream: Vec<u8> = (0..1000).flat_map(|at| masked(FIN | BINARY, &pattern(at % 200))).collect();
    client.bytes(&stream);
    for at in 0..1000 {
        client.expect(FIN | BINARY, &pattern(at % 200));
    }
}

/// Section 5.3: any key unmasks, a key of zeros included, wherever the payload begins.
#[test]
fn every_masking_key() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for key in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0x80, 0, 0, 1]] {
        for len in 0..70 {
            let payload = pattern(len);
            let mut frame = vec![FIN | BINARY, 0x80 | len as u8];
            frame.extend(key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            client.bytes(&frame).expect(FIN | BINARY, &payload);
        }
    }
}
