//! The client's side against rustls's server, through memory: wherever the bytes are cut.

use rustls::server::ServerConnection;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::PrivateKeyDer;

use super::*;

struct Server {
    config: Arc<ServerConfig>,
    /// The certificate, which is its own authority.
    ca: tempfile::NamedTempFile,
}

fn server(versions: &[&'static SupportedProtocolVersion]) -> Server {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    fs::write(ca.path(), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    Server { config: Arc::new(config), ca }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Both ends, and what each has received.
struct Pair {
    client: Session,
    server: ServerConnection,
    at_client: Vec<u8>,
    at_server: Vec<u8>,
}

impl Pair {
    fn new(tls: &Tls, server: &Server) -> Self {
        let server = ServerConnection::new(Arc::clone(&server.config)).unwrap();
        Self { client: tls.session(&localhost()).unwrap(), server, at_client: Vec::new(), at_server: Vec::new() }
    }

    /// Moves bytes until there are no more; the client gets `piece` at a time.
    fn run(&mut self, piece: usize) -> Result<bool, String> {
        let mut open = true;
        loop {
            let mut to_server = Vec::new();
            self.client.output(&mut to_server);
            let mut rest = &to_server[..];
            while !rest.is_empty() {
                self.server.read_tls(&mut rest).unwrap();
                self.server.process_new_packets().map_err(|error| error.to_string())?;
                while let Ok(chunk) = self.server.reader().fill_buf() {
                    let len = chunk.len();
                    if len == 0 {
                        break;
                    }
                    self.at_server.extend_from_slice(chunk);
                    self.server.reader().consume(len);
                }
            }
            let mut to_client = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut to_client).unwrap();
            }
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(open);
            }
            for part in to_client.chunks(piece) {
                open &= self.client.receive(part, &mut self.at_client)?;
            }
        }
    }
}

#[test]
fn bytes_arrive_wherever_they_are_cut() {
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let server = server(versions);
        let tls = Tls::new(Some(server.ca.path()), false, false).unwrap();
        for piece in [1, 7, 1000, 100_000] {
            let mut pair = Pair::new(&tls, &server);
            // Before the handshake: kept until it is over.
            pair.client.seal(b"GET /");
            assert_eq!(pair.client.handshake(), None);
            assert!(pair.run(piece).unwrap());
            let expected = if versions[0].version == ProtocolVersion::TLSv1_3 { "TLS 1.3" } else { "TLS 1.2" };
            assert_eq!(pair.client.handshake(), Some(Handshake { version: expected, resumed: false }));
            assert_eq!((pair.client.handshake(), &pair.at_server[..]), (None, &b"GET /"[..]));
            // More than a record, and more than a read.
            let long: Vec<_> = (0..100_000_u32).map(|i| i as u8).collect();
            pair.server.writer().write_all(&long[..60_000]).unwrap();
            assert!(pair.run(piece).unwrap());
            pair.server.writer().write_all(&long[60_000..]).unwrap();
            pair.client.seal(&long);
            assert!(pair.run(piece).unwrap());
            assert!(pair.at_client == long && pair.at_server[5..] == long, "{piece}");
            pair.server.send_close_notify();
            assert!(!pair.run(piece).unwrap());
        }
    }
}

#[test]
fn handshakes_are_resumed_only_if_asked() {
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let server = server(versions);
        for resume in [true, false] {
            let tls = Tls::new(Some(server.ca.path()), false, resume).unwrap();
            for round in 0..3 {
                let mut pair = Pair::new(&tls, &server);
                pair.run(100_000).unwrap();
                assert_eq!(pair.client.handshake().unwrap().resumed, resume && round > 0, "{round}");
            }
        }
    }
}

#[test]
fn keys_are_updated_on_both_sides() {
    let server = server(&[&version::TLS13]);
    let tls = Tls::new(Some(server.ca.path()), false, false).unwrap();
    let mut pair = Pair::new(&tls, &server);
    assert!(pair.client.update_keys().is_err(), "there are none yet");
    pair.run(100_000).unwrap();
    for _ in 0..10 {
        pair.client.update_keys().unwrap();
        pair.server.refresh_traffic_keys().unwrap();
        pair.client.seal(b"x");
        pair.server.writer().write_all(b"y").unwrap();
        pair.run(3).unwrap();
    }
    assert_eq!((&pair.at_server[..], &pair.at_client[..]), (&b"xxxxxxxxxx"[..], &b"yyyyyyyyyy"[..]));
}

#[test]
fn only_known_authorities_are_trusted() {
    let (server, other) = (server(&[&version::TLS13]), server(&[&version::TLS13]));
    let fails = |tls: Tls| {
        let mut pair = Pair::new(&tls, &server);
        pair.run(100_000).unwrap_err()
    };
    assert!(fails(Tls::new(Some(other.ca.path()), false, false).unwrap()).contains("--tls-ca"));
    assert!(fails(Tls::new(None, false, false).unwrap()).contains("--tls-insecure"));
    let mut pair = Pair::new(&Tls::new(None, true, false).unwrap(), &server);
    assert!(pair.run(100_000).unwrap());

    let mut plain = Tls::new(None, true, false).unwrap().session(&localhost()).unwrap();
    let why = plain.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut Vec::new()).unwrap_err();
    assert!(why.contains("does not speak TLS"), "{why}");
}

#[test]
fn authorities_that_are_none_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = |text: &str| {
        fs::write(file.path(), text).unwrap();
        format!("{:#}", Tls::new(Some(file.path()), false, false).unwrap_err())
    };
    assert!(refused("").contains("contains no certificate"));
    assert!(refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("--tls-ca"));
    let missing = Tls::new(Some(Path::new("/nowhere/ca.pem")), false, false).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/ca.pem"));
}
