//! What the server agrees to of what clients offer beside versions and ciphers: the protocol inside, early data,
//! renegotiation.

use ::aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error};

use super::*;

/// Types of records, and the version that those of TLS 1.2 have.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const TLS_12: [u8; 2] = [3, 3];

#[test]
fn the_protocol_inside_is_http_1_1_or_none() {
    let (server, root) = server(false, KeyExchange::Classic);
    for versions in [BOTH, OLD] {
        let offer = |protocols: &[&[u8]]| {
            let mut config = Arc::unwrap_or_clone(client_config(std::slice::from_ref(&root), versions));
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            (client(&Arc::new(config), "a.example"), server.begin().unwrap())
        };
        for protocols in [&[&b"h2"[..], b"http/1.1"][..], &[b"http/1.1"]] {
            let (mut client, mut stream) = offer(protocols);
            talk(&mut client, &mut stream, 4096).unwrap();
            assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
        let (mut client, mut stream) = offer(&[]);
        talk(&mut client, &mut stream, 4096).unwrap();
        assert_eq!(client.alpn_protocol(), None, "who offers none gets HTTP/1.1 all the same");

        let (mut client, mut stream) = offer(&[b"h2", b"http/1.0"]);
        assert_eq!(talk(&mut client, &mut stream, 4096).unwrap_err(), Failure::Incompatible);
        let mut out = BytesMut::new();
        stream.output(&mut out);
        client.read_tls(&mut &out[..]).unwrap();
        let error = client.process_new_packets().unwrap_err();
        assert_eq!(error, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
    }
}

/// A request that anyone may send again must not be taken as one of the client's: RFC 8446 §8.
#[test]
fn early_data_is_not_offered_to_those_who_come_again() {
    let (server, root) = server(false, KeyExchange::Classic);
    let mut config = Arc::unwrap_or_clone(client_config(&[root], BOTH));
    config.enable_early_data = true;
    let config = Arc::new(config);
    for is_resumed in [false, true] {
        let (mut client, mut stream) = (client(&config, "a.example"), server.begin().unwrap());
        assert!(client.early_data().is_none(), "a ticket allows it");
        let (fed, _) = talk(&mut client, &mut stream, 4096).unwrap();
        assert_eq!(fed.established, Some(Handshake { is_13: true, is_resumed }));
        assert!(!client.is_early_data_accepted());
    }
}

/// The keys with which a client of TLS 1.2 goes on sending, once its library has given them away.
struct Keys {
    key: LessSafeKey,
    salt: [u8; 4],
    number: u64,
}

impl Keys {
    /// A record as RFC 5288 §3 has it.
    fn record(&mut self, kind: u8, plain: &[u8]) -> Vec<u8> {
        let number = self.number.to_be_bytes();
        self.number += 1;
        let nonce: [u8; 12] = [&self.salt[..], &number].concat().try_into().unwrap();
        let len = (plain.len() as u16).to_be_bytes();
        let head = [&number[..], &[kind], &TLS_12, &len].concat();
        let mut sealed = plain.to_vec();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), &mut sealed).unwrap();
        let len = ((number.len() + sealed.len()) as u16).to_be_bytes();
        [&[kind][..], &TLS_12, &len, &number, &sealed].concat()
    }
}

/// A connection of TLS 1.2 whose handshake is over.
fn established() -> (Keys, Stream, Vec<u8>) {
    let (server, root) = server(false, KeyExchange::Classic);
    let mut config = Arc::unwrap_or_clone(client_config(&[root], OLD));
    config.enable_secret_extraction = true;
    let config = Arc::new(config);
    let (mut client, mut stream) = (client(&config, "a.example"), server.begin().unwrap());
    talk(&mut client, &mut stream, 4096).unwrap();
    // Any hello will do; this one has a record's head of five bytes before it.
    let mut hello = Vec::new();
    self::client(&config, "a.example").write_tls(&mut hello).unwrap();
    let secrets = client.dangerous_extract_secrets().unwrap();
    let (number, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else { panic!("another cipher") };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let salt = *iv.as_ref().first_chunk().unwrap();
    (Keys { key, salt, number }, stream, hello.split_off(5))
}

/// The first one is answered by a warning (RFC 5246 §7.2.2) and nothing else; who asks again is ended. What was sent
/// between them is read.
#[test]
fn renegotiation_is_refused_once_and_ends_who_asks_again() {
    let (mut keys, mut stream, hello) = established();
    let mut plain = Vec::new();
    let fed = stream.feed(&keys.record(HANDSHAKE, &hello), &mut plain).unwrap();
    assert!(!fed.has_signed && fed.established.is_none() && !stream.is_handshaking());
    let mut out = BytesMut::new();
    stream.output(&mut out);
    assert_eq!(out[0], ALERT);
    assert_eq!(out.len(), 5 + 8 + 2 + 16, "one alert and nothing else");
    stream.feed(&keys.record(23, b"still here"), &mut plain).unwrap();
    assert_eq!(plain, b"still here");
    assert_eq!(stream.feed(&keys.record(HANDSHAKE, &hello), &mut plain), Err(Failure::Violation));
}
