//! Text is UTF-8: RFC 6455, sections 5.6 and 8.1, and RFC 3629.

use crate::client::{CONTINUATION, Client, FIN, PING, PONG, TEXT};
use crate::tls;

/// First and last characters of every length, non-characters, combining ones.
const VALID: [&str; 10] = [
    "\0",
    "\u{7f}\u{80}",
    "\u{7ff}\u{800}",
    "\u{d7ff}\u{e000}",
    "\u{fffd}\u{fffe}\u{ffff}",
    "\u{10000}\u{10ffff}",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "日本語 한국어 עברית",
    "👩‍👩‍👧‍👦🇪🇺",
];

/// Stray, missing, overlong, surrogate and too large.
const INVALID: [&[u8]; 18] = [
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80",
    b"\xc3",
    b"\xc3(",
    b"\xe2\x82",
    b"\xe2(\xa1",
    b"\xf0\x9f\x98",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
];

/// Section 5.6: valid text, whole.
#[test]
fn valid_text() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for text in VALID {
        client.frame(FIN | TEXT, text.as_bytes()).expect(FIN | TEXT, text.as_bytes());
    }
}

/// Section 5.4: a fragment's border may stand within a character; a ping between them changes nothing.
#[test]
fn valid_text_cut_at_every_byte() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for text in VALID {
        let text = text.as_bytes();
        for cut in 0..=text.len() {
            client.frame(TEXT, &text[..cut]).frame(FIN | PING, b"").expect(FIN | PONG, b"");
            client.frame(FIN | CONTINUATION, &text[cut..]).expect(FIN | TEXT, text);
        }
        text.iter().enumerate().for_each(|(at, byte)| {
            client.frame(if at == 0 { TEXT } else { CONTINUATION }, &[*byte]);
        });
        client.frame(FIN | CONTINUATION, b"").expect(FIN | TEXT, text);
    }
}

/// Section 8.1: text that is not UTF-8 fails the connection with 1007.
#[test]
fn invalid_text() {
    let broker = tls::start(&[]);
    for bytes in INVALID {
        Client::open(broker.address).frame(FIN | TEXT, bytes).expect_close(1007);
        let within = [b"before ", bytes, b" after"].concat();
        Client::open(broker.address).frame(FIN | TEXT, &within).expect_close(1007);
        let late = [&[b'x'; 5000], bytes].concat();
        Client::open(broker.address).frame(FIN | TEXT, &late).expect_close(1007);
    }
}

/// Section 8.1: the same when a fragment's border hides it.
#[test]
fn invalid_text_cut_at_every_byte() {
    let broker = tls::start(&[]);
    for bytes in INVALID {
        for cut in 0..bytes.len() {
            let mut client = Client::open(broker.address);
            client.frame(TEXT, &bytes[..cut]).frame(FIN | CONTINUATION, &bytes[cut..]).expect_close(1007);
        }
    }
}

/// Section 8.1: failed as soon as it is certain, before the message is complete.
#[test]
fn invalid_text_fails_at_once() {
    let broker = tls::start(&[]);
    // The message's first fragment holds the fault; no second one is sent.
    Client::open(broker.address).frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80").expect_close(1007);
    // The frame announces 100 bytes and sends those up to the fault.
    let mut client = Client::open(broker.address);
    client.bytes(b"\x81\xe4\0\0\0\0fine so far \xf4\x90").expect_close(1007);
    // One byte at a time.
    let mut client = Client::open(broker.address);
    for byte in b"\x81\xe4\0\0\0\0\xf4\x90" {
        client.bytes(&[*byte]);
    }
    client.expect_close(1007);
}

/// Section 5.6: binary may hold anything.
#[test]
fn binary_is_not_looked_at() {
    let broker = tls::start(&[]);
    let mut client = Client::open(broker.address);
    for bytes in INVALID {
        client.frame(FIN | 0x2, bytes).expect(FIN | 0x2, bytes);
    }
}
