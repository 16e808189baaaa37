//! A client of the library against [`Stream`], with records cut in every way.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;

use crate::config::tls::{KeyExchange, TlsTable};
use crate::tls::certificates::Cause;
use crate::tls::in_force::Refused;
use crate::tls::server::Server;
use crate::tls::stream::{Failure, Fed, Handshake, Stream};

mod offers;

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// A pair in `directory`, as a table.
fn table(directory: &Path, file: &str, names: &[&str]) -> (TlsTable, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let cert = CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
    let paths = [directory.join(format!("{file}.pem")), directory.join(format!("{file}.key"))];
    std::fs::write(&paths[0], cert.pem()).unwrap();
    std::fs::write(&paths[1], key.serialize_pem()).unwrap();
    let [cert_path, key_path] = paths;
    (TlsTable { source: "a.toml:1".to_owned(), cert: cert_path, key: key_path, names }, cert.der().clone())
}

/// A server with one pair, for `a.example`.
fn server(only_13: bool, key_exchange: KeyExchange) -> (Server, CertificateDer<'static>) {
    let directory = tempfile::tempdir().unwrap();
    let (table, root) = table(directory.path(), "a", &["a.example"]);
    (Server::new(&[table], only_13, key_exchange).unwrap(), root)
}

fn client_config(
    roots: &[CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Arc::new(config.with_protocol_versions(versions).unwrap().with_root_certificates(store).with_no_client_auth())
}

fn client(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), name.to_owned().try_into().unwrap()).unwrap()
}

/// Both ends talk until neither has anything to say; what the client sends is cut as `cut` says.
fn talk(client: &mut ClientConnection, server: &mut Stream, cut: usize) -> Result<(Fed, Vec<u8>), Failure> {
    let (mut all, mut plain) = (Fed::default(), Vec::new());
    loop {
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent).unwrap();
        }
        for piece in sent.chunks(cut) {
            let fed = server.feed(piece, &mut plain)?;
            all.established = all.established.or(fed.established);
            all.has_signed |= fed.has_signed;
            all.has_ended |= fed.has_ended;
        }
        let mut out = BytesMut::new();
        server.output(&mut out);
        if sent.is_empty() && out.is_empty() {
            return Ok((all, plain));
        }
        give(client, &out);
    }
}

fn give(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let ready = client.process_new_packets().unwrap().plaintext_bytes_to_read();
        let at = plain.len();
        plain.resize(at + ready, 0);
        client.reader().read_exact(&mut plain[at..]).unwrap();
    }
    plain
}

#[test]
fn a_handshake_goes_on_at_every_cut_and_is_resumed_by_a_ticket() {
    let (server, root) = server(false, KeyExchange::Hybrid);
    for (versions, is_13) in [(BOTH, true), (OLD, false)] {
        let config = client_config(std::slice::from_ref(&root), versions);
        for (cut, is_resumed) in [(1, false), (7, true), (4096, true)] {
            let (mut client, mut stream) = (client(&config, "a.example"), server.begin().unwrap());
            client.writer().write_all(b"hello").unwrap();
            let (fed, plain) = talk(&mut client, &mut stream, cut).unwrap();
            assert_eq!(fed.established, Some(Handshake { is_13, is_resumed }), "{cut}");
            assert_eq!((plain.as_slice(), fed.has_ended), (&b"hello"[..], false));
            assert_eq!(client.protocol_version().map(u16::from), Some(if is_13 { 0x0304 } else { 0x0303 }));
        }
    }
}

#[test]
fn the_name_chooses_the_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (first, first_cert) = table(directory.path(), "a", &["a.example"]);
    let (second, second_cert) = table(directory.path(), "b", &["*.b.example", "c.example"]);
    let server = Server::new(&[first, second], false, KeyExchange::Classic).unwrap();
    let config = client_config(&[first_cert.clone(), second_cert.clone()], BOTH);
    for (name, cert) in [("a.example", &first_cert), ("x.b.example", &second_cert), ("C.example", &second_cert)] {
        let (mut client, mut stream) = (client(&config, name), server.begin().unwrap());
        talk(&mut client, &mut stream, 1000).unwrap();
        assert_eq!(client.peer_certificates().unwrap()[0], *cert, "{name}");
    }
    // Others get the first, and judge for themselves.
    for name in ["x.y.b.example", "b.example", "other.example"] {
        let (mut client, mut stream) = (client(&config, name), server.begin().unwrap());
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        stream.feed(&sent, &mut Vec::new()).unwrap();
        let mut out = BytesMut::new();
        stream.output(&mut out);
        let error = client.read_tls(&mut &out[..]).map(|_| client.process_new_packets().unwrap_err()).unwrap();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{name}: {error}");
    }
}

#[test]
fn an_old_client_is_refused_where_only_13_is_spoken() {
    let (server, root) = server(true, KeyExchange::Hybrid);
    let (mut client, mut stream) = (client(&client_config(&[root], OLD), "a.example"), server.begin().unwrap());
    assert_eq!(talk(&mut client, &mut stream, 100).unwrap_err(), Failure::Incompatible);
    assert!(stream.has_output(), "an alert says so");
}

#[test]
fn ml_kem_is_preferred_unless_the_setting_says_otherwise() {
    let mut sent = Vec::new();
    for (exchange, group) in
        [(KeyExchange::Hybrid, NamedGroup::X25519MLKEM768), (KeyExchange::Classic, NamedGroup::X25519)]
    {
        let (server, root) = server(false, exchange);
        // As browsers do, it sends a share for each of the two.
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(BOTH).unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let (mut client, mut stream) = (client(&config, "a.example"), server.begin().unwrap());
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        stream.feed(&hello, &mut Vec::new()).unwrap();
        let mut out = BytesMut::new();
        stream.output(&mut out);
        give(&mut client, &out);
        sent.push(out.len());
        talk(&mut client, &mut stream, 4096).unwrap();
        assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), group);
    }
    // A ciphertext of ML-KEM-768 (FIPS 203, table 3). Signatures differ in length by a few bytes.
    assert!((1088_usize - 16..1088 + 16).contains(&(sent[0] - sent[1])), "{sent:?}");
}

#[test]
fn the_server_chooses_the_cipher_suite() {
    let (server, root) = server(false, KeyExchange::Classic);
    for versions in [BOTH, OLD] {
        // This client prefers AES-256.
        let config = client_config(std::slice::from_ref(&root), versions);
        let (mut client, mut stream) = (client(&config, "a.example"), server.begin().unwrap());
        talk(&mut client, &mut stream, 4096).unwrap();
        let suite = format!("{:?}", client.negotiated_cipher_suite().unwrap().suite());
        assert!(suite.contains("AES_128_GCM"), "{suite}");
    }
}

#[test]
fn what_is_no_tls_is_recognised_by_its_first_byte() {
    let (server, _) = server(false, KeyExchange::Hybrid);
    let mut stream = server.begin().unwrap();
    assert_eq!(stream.feed(b"GET / HTTP/1.1\r\n\r\n", &mut Vec::new()), Err(Failure::Cleartext));
    let mut stream = server.begin().unwrap();
    assert_eq!(stream.feed(&[22, 3, 1, 0, 5, 9, 9, 9, 9, 9], &mut Vec::new()), Err(Failure::Violation));
}

#[test]
fn key_updates_are_answered_once_and_not_without_end() {
    let (server, root) = server(false, KeyExchange::Hybrid);
    let (mut client, mut stream) = (client(&client_config(&[root], BOTH), "a.example"), server.begin().unwrap());
    talk(&mut client, &mut stream, 4096).unwrap();
    let mut flood = Vec::new();
    for _ in 0..200 {
        client.refresh_traffic_keys().unwrap();
        while client.wants_write() {
            client.write_tls(&mut flood).unwrap();
        }
    }
    assert_eq!(stream.feed(&flood, &mut Vec::new()), Err(Failure::Violation));
    let mut out = BytesMut::new();
    stream.output(&mut out);
    assert!(out.len() < 200, "{} bytes answer a flood", out.len());
}

#[test]
fn a_close_is_announced_once_and_noticed() {
    let (server, root) = server(false, KeyExchange::Hybrid);
    let (mut client, mut stream) = (client(&client_config(&[root], BOTH), "a.example"), server.begin().unwrap());
    talk(&mut client, &mut stream, 4096).unwrap();
    client.writer().write_all(b"last").unwrap();
    client.send_close_notify();
    let (fed, plain) = talk(&mut client, &mut stream, 1).unwrap();
    assert_eq!((fed.has_ended, plain.as_slice()), (true, &b"last"[..]));
    assert!(stream.close());
    let mut out = BytesMut::new();
    stream.output(&mut out);
    assert!(!out.is_empty() && !stream.close(), "it is said once");
}

#[test]
fn a_bad_pair_is_refused_with_its_cause_and_the_one_before_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (good, cert) = table(directory.path(), "a", &["a.example"]);
    let server = Server::new(std::slice::from_ref(&good), false, KeyExchange::Hybrid).unwrap();
    let (other, other_cert) = table(directory.path(), "b", &["a.example"]);
    let mixed = TlsTable { key: other.key.clone(), ..good.clone() };
    let missing = TlsTable { cert: directory.path().join("none.pem"), ..good.clone() };
    let swapped = TlsTable { cert: good.key.clone(), key: good.cert.clone(), ..good.clone() };
    std::fs::write(directory.path().join("empty.pem"), "").unwrap();
    let empty = TlsTable { cert: directory.path().join("empty.pem"), ..good.clone() };
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = KeyPair::generate().unwrap();
    std::fs::write(directory.path().join("old.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let old = TlsTable { cert: directory.path().join("old.pem"), ..good.clone() };
    for (table, cause, says) in [
        (mixed, Cause::Mismatch, "must be a pair"),
        (missing, Cause::Unreadable, "cannot be read"),
        (swapped, Cause::Malformed, "no certificate"),
        (empty, Cause::Malformed, "no certificate"),
        (old, Cause::Expired, "ended on Mon, 01 Jan 2001 00:00:00 GMT"),
    ] {
        let tables = std::slice::from_ref(&table);
        let change = server.read_again(tables);
        let [Refused { file, fault, is_kept: true }] = &change.refused[..] else { panic!("{change:?}") };
        assert!(fault.sentence.contains(says) && fault.sentence.starts_with("a.toml:1: [[tls]]: "), "{fault:?}");
        assert_eq!((file, fault.cause, change.taken.len()), (&table.cert, cause, 0));
        assert!(server.read_again(tables).refused.is_empty(), "{cause:?}: it is complained of once");
        assert_eq!(server.refused(), change.refused);
        assert_eq!(served(&server, "a.example", &cert), cert, "{cause:?}");
        assert!(Server::new(tables, false, KeyExchange::Hybrid).is_err());
    }
    let change = server.read_again(std::slice::from_ref(&good));
    assert_eq!((change.taken.len(), server.refused().len()), (0, 0), "it has never left");
    let change = server.read_again(&[other]);
    assert_eq!((change.taken.len(), change.refused.len()), (1, 0));
    assert_eq!(served(&server, "a.example", &other_cert), other_cert);
}

#[test]
fn each_table_is_judged_alone() {
    let directory = tempfile::tempdir().unwrap();
    let make = |file: &str, name: &str| table(directory.path(), file, &[name]);
    let ((a, a_cert), (b, _)) = (make("a", "a.example"), make("b", "b.example"));
    let server = Server::new(&[a.clone(), b.clone()], false, KeyExchange::Classic).unwrap();
    // The first table goes bad, the second is renewed, and a third comes that is bad.
    std::fs::write(&a.key, "nothing").unwrap();
    let (_, b_cert) = make("b", "b.example");
    let c = TlsTable { cert: directory.path().join("c.pem"), names: vec!["c.example".to_owned()], ..b.clone() };
    let change = server.read_again(&[a.clone(), b.clone(), c.clone()]);
    let refused: Vec<_> = change.refused.iter().map(|bad| (&bad.file, bad.is_kept)).collect();
    assert_eq!(refused, [(&a.cert, true), (&c.cert, false)]);
    assert_eq!(change.taken.iter().map(|pair| &pair.file).collect::<Vec<_>>(), [&b.cert]);
    assert_eq!(served(&server, "a.example", &a_cert), a_cert);
    assert_eq!(served(&server, "b.example", &b_cert), b_cert);
    // The first table moves to a file that is not there: its names still have their certificate.
    let moved = TlsTable { cert: directory.path().join("none.pem"), ..a.clone() };
    server.read_again(&[moved, b.clone()]);
    assert_eq!(served(&server, "a.example", &a_cert), a_cert);
    // The second table is gone, and the first is mended.
    let (_, a_new) = make("a", "a.example");
    let change = server.read_again(std::slice::from_ref(&a));
    assert_eq!((change.taken.len(), server.refused().len()), (1, 0));
    assert_eq!(served(&server, "a.example", &a_new), a_new);
    // When no table is good and none had a pair, those in force stay.
    let change = server.read_again(std::slice::from_ref(&c));
    assert_eq!((change.taken.len(), change.refused[0].is_kept), (0, false));
    assert_eq!(served(&server, "a.example", &a_new), a_new);
}

/// The certificate that a client gets for `name` in a handshake; it trusts `root`.
fn served(server: &Server, name: &str, root: &CertificateDer<'static>) -> CertificateDer<'static> {
    let (mut client, mut stream) =
        (client(&client_config(std::slice::from_ref(root), BOTH), name), server.begin().unwrap());
    talk(&mut client, &mut stream, 4096).unwrap();
    client.peer_certificates().unwrap()[0].clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_sent_arrives_however_it_is_cut(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 0..6),
        cuts in proptest::collection::vec(1_usize..20_000, 1..40),
    ) {
        let (server, root) = server(false, KeyExchange::Classic);
        let (mut client, mut stream) = (client(&client_config(&[root], BOTH), "a.example"), server.begin().unwrap());
        talk(&mut client, &mut stream, 4096).unwrap();
        let parts: Vec<_> = parts.into_iter().map(Bytes::from).collect();
        let whole: Vec<u8> = parts.concat();
        let mut out = BytesMut::new();
        stream.seal(&parts, &mut out);
        prop_assert_eq!(&give(&mut client, &out), &whole);
        let (mut sent, mut rest) = (Vec::new(), &whole[..]);
        while !rest.is_empty() {
            let taken = client.writer().write(rest).unwrap();
            rest = &rest[taken..];
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
        }
        let (mut plain, mut rest) = (Vec::new(), &sent[..]);
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            stream.feed(piece, &mut plain).unwrap();
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(plain, whole);
    }
}
