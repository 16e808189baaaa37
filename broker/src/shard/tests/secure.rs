//! TLS on a shard, on simulated connections: how little a storm of handshakes holds up.

use std::io::Write;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;

use super::*;
use crate::config::tls::{KeyExchange, TlsTable};
use crate::tls::server::Server;

/// Clients that begin a handshake at once.
const STORM: usize = 200;
/// Signatures of one turn: the second one begins when a part of the turn's input is left.
const SIGNATURES_PER_TURN: usize = 2;

/// A server with a certificate for `a.example`, and how clients speak to it.
fn server() -> (Server, Arc<ClientConfig>) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let table = TlsTable { source: "a.toml:1".to_owned(), cert: cert_file, key: key_file, names: Vec::new() };
    let server = Server::new(&[table], false, KeyExchange::Hybrid).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    (server, Arc::new(config))
}

/// A client of the port with TLS.
struct Secure {
    id: ClientId,
    connection: ClientConnection,
    /// The server has answered its hello, with a signature.
    is_answered: bool,
}

impl Secure {
    fn begin(stage: &Stage, config: &Arc<ClientConfig>) -> Self {
        let id = stage.world.connect_second(0);
        let mut connection = ClientConnection::new(Arc::clone(config), "a.example".try_into().unwrap()).unwrap();
        let head = b"GET /sub/chat/8 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        connection.writer().write_all(head).unwrap();
        let mut client = Self { id, connection, is_answered: false };
        client.flush(stage);
        client
    }

    fn flush(&mut self, stage: &Stage) {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).unwrap();
        }
        assert_eq!(stage.world.client_write(self.id, &out), out.len());
    }

    fn go_on(&mut self, stage: &Stage) {
        let bytes = stage.world.client_read(self.id, 1 << 20);
        self.is_answered |= !bytes.is_empty();
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).unwrap();
            self.connection.process_new_packets().unwrap();
        }
        self.flush(stage);
    }
}

/// Of a storm of TLS handshakes a turn makes only a few, and what is published meanwhile is delivered in between, turn by
/// turn.
#[test]
fn a_storm_of_tls_handshakes_does_not_hold_up_deliveries() {
    let (server, config) = server();
    let shared = SharedState::new(1, 1, Epoch(1)).within(64 << 20).with_tls(Some(Arc::new(server)));
    let mut stage = Stage::of(shared, 64 << 20, Limits::default());
    let (reader, publisher) = (stage.open("/ws"), stage.open("/ws"));
    let answers = stage.ask(reader, &json!({"type": "subscribe", "id": 1, "topic": "chat/7"}));
    assert_eq!(answers[0]["type"], "ok");
    let mut storm: Vec<_> = (0..STORM).map(|_| Secure::begin(&stage, &config)).collect();
    let command = json!({"type": "publish", "topic": "chat/7", "data": "now"}).to_string();
    let published = frame(TEXT, command.as_bytes());

    let (mut answered, mut turns, mut waits, mut waited) = (0, 0, 0, Vec::new());
    while stage.shared.stats[0].upgraded.get() < STORM as u64 + 2 {
        turns += 1;
        assert!(turns < 4 * STORM, "{answered} of {STORM} hellos were answered");
        if waits == 0 {
            assert_eq!(stage.world.client_write(publisher, &published), published.len());
        }
        stage.turns(1);
        waits += 1;
        if stage.world.client_unread(reader) > 0 {
            drop(stage.world.client_read(reader, 1 << 20));
            waited.push(waits);
            waits = 0;
        }
        storm.iter_mut().for_each(|client| client.go_on(&stage));
        // Answers go out in the turn of their signature or the next.
        answered = storm.iter().filter(|client| client.is_answered).count();
        assert!(answered <= SIGNATURES_PER_TURN * (turns + 1), "{answered} signatures in {turns} turns");
    }
    assert_eq!(stage.shared.stats[0].tls_13_full.get(), STORM as u64);
    let longest = waited.iter().max().unwrap();
    assert!(*longest <= 4 && waited.len() >= STORM / 8, "{waited:?}");
}
