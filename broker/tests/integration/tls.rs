//! The port of `--tls-listen`, by the TLS library's own client with real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client};

use crate::broker::{Broker, command};
use crate::http::PATIENCE;

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A broker with a certificate for `localhost`.
pub(crate) struct Served {
    pub(crate) broker: Broker,
    /// The port with TLS.
    pub(crate) address: SocketAddr,
    /// Of a client that trusts it.
    config: Arc<ClientConfig>,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) directory: TempDir,
}

/// Writes a pair for `localhost`, and returns its certificate.
pub(crate) fn write_pair(directory: &Path, name: &str) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(directory.join(format!("{name}.pem")), cert.pem()).unwrap();
    std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A file with these settings and a table for the pair `a`, then more tables.
fn write_file(directory: &Path, settings: &str, tables: &str) {
    let path = |name: &str| directory.join(name).display().to_string();
    let table = format!("[[tls]]\ncert = '{}'\nkey = '{}'\nnames = ['localhost']\n", path("a.pem"), path("a.key"));
    std::fs::write(directory.join("ringyard.toml"), [settings, &table, tables].concat()).unwrap();
}

pub(crate) fn trusting(root: CertificateDer<'static>) -> Arc<ClientConfig> {
    Arc::new(client_config(root, rustls::ALL_VERSIONS, aws_lc_rs::default_provider()))
}

/// A client that trusts `root` and speaks these versions.
pub(crate) fn client_config(
    root: CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    provider: CryptoProvider,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

pub(crate) fn serve(options: &[&str]) -> Served {
    serve_with(options, "", "")
}

/// With more settings and tables in the file.
pub(crate) fn serve_with(options: &[&str], settings: &str, tables: &str) -> Served {
    serve_at(free_address(), options, settings, tables)
}

/// With the port for TLS at this address.
pub(crate) fn serve_at(address: SocketAddr, options: &[&str], settings: &str, tables: &str) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let root = write_pair(directory.path(), "a");
    write_file(directory.path(), settings, tables);
    let (listen, file) = (address.to_string(), directory.path().join("ringyard.toml").display().to_string());
    let arguments = [&["--config", &file, "--tls-listen", &listen], options].concat();
    Served { broker: Broker::start(&arguments), address, config: trusting(root.clone()), root, directory }
}

impl Served {
    pub(crate) fn connect(&self) -> Tls {
        connect_to(self.address, &self.config)
    }

    pub(crate) fn open(&self, path: &str) -> WebSocket<Tls> {
        open_on(self.connect(), path)
    }

    /// One request on a connection of its own; the whole answer.
    fn ask(&self, request: &str) -> String {
        ask_on(&mut self.connect(), request)
    }

    pub(crate) fn metric(&self, sample: &str) -> Option<f64> {
        metric(&self.broker, sample)
    }
}

/// A socket with limits for every wait.
pub(crate) fn socket_to(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The handshake is made with the first byte that is read or written.
pub(crate) fn connect_to(address: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let connection = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, socket_to(address))
}

/// One request whose answer ends the connection; the whole answer.
pub(crate) fn ask_on(stream: &mut Tls, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the end is announced");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The value of a sample, if there is one.
pub(crate) fn metric(broker: &Broker, sample: &str) -> Option<f64> {
    let mut socket = TcpStream::connect(broker.admin).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

/// Sends SIGHUP.
pub(crate) fn hang_up(broker: &Broker) {
    let pid = broker.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
}

pub(crate) fn open_on(stream: Tls, path: &str) -> WebSocket<Tls> {
    client(format!("wss://localhost{path}"), stream).unwrap_or_else(|error| panic!("{path}: {error}")).0
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_published_arrives_encrypted_and_plain_whatever_its_length() {
    let served = serve(&[]);
    let mut secure = served.open("/bus/a");
    let mut plain =
        client(format!("ws://{}/sub/a", served.broker.address), TcpStream::connect(served.broker.address).unwrap());
    let plain = &mut plain.as_mut().unwrap().0;
    for len in [0, 1, 125, 126, 4096, 16_384, 16_385, 100_000, 1 << 20] {
        let message = Message::binary((0..len).map(|at: u32| at as u8).collect::<Vec<_>>());
        secure.send(message.clone()).unwrap();
        assert_eq!(secure.read().unwrap(), message, "{len}");
        assert_eq!(plain.read().unwrap(), message, "{len}");
    }
    assert_eq!(served.metric("ringyard_tls_handshakes_total{version=\"1.3\",resumed=\"false\"}"), Some(1.0));
}

#[test]
fn requests_are_answered_by_shard_and_control_plane() {
    let served = serve(&[]);
    let answer =
        served.ask("POST /pub/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let page = served.ask("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("</html>"), "{page}");
    let lines = "{\"topic\":\"b\",\"data\":1}\n".repeat(5000);
    let head = "POST /pub HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n";
    let batch = served.ask(&format!("{head}Content-Length: {}\r\n\r\n{lines}", lines.len()));
    assert!(batch.starts_with("HTTP/1.1 200"), "{batch}");
}

#[test]
fn a_stream_of_events_arrives_encrypted() {
    let served = serve(&[]);
    for before in ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut stream = served.connect();
        stream.write_all(before.as_bytes()).unwrap();
        stream.write_all(b"GET /sub/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").unwrap();
        let mut heard = String::new();
        let mut read_to = |wanted: &str| {
            while !heard.contains(wanted) {
                let mut bytes = [0; 4096];
                let len = stream.read(&mut bytes).unwrap();
                assert!(len > 0, "the end before {wanted}: {heard}");
                heard.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
            }
        };
        read_to("event: position");
        let head = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 6\r\n\r\n";
        assert!(served.ask(&format!("{head}secret")).starts_with("HTTP/1.1 200"));
        read_to("data: secret\n\n");
    }
}

#[test]
fn a_websocket_may_follow_a_request_of_the_control_plane() {
    let served = serve(&[]);
    let mut stream = served.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let mut socket = open_on(stream, "/bus/a");
    let message = Message::binary(vec![7; 300_000]);
    socket.send(message.clone()).unwrap();
    assert_eq!(socket.read().unwrap(), message);
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

#[test]
fn http_without_tls_gets_a_sentence() {
    let served = serve(&[]);
    let mut socket = socket_to(served.address);
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("This port speaks TLS"), "{answer}");
    assert_eq!(served.metric("ringyard_tls_failures_total{cause=\"cleartext\"}"), Some(1.0));
}

/// A client that does not trust the certificate says so, and the operator sees it.
#[test]
fn what_clients_say_when_they_give_up_is_counted_by_name() {
    let mut served = serve(&[]);
    let mut other = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    other.distinguished_name.push(DnType::CommonName, "somebody else");
    served.config = trusting(other.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone());
    let mut stream = served.connect();
    assert!(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_err(), "it is another certificate");
    // The alert is on its way; the end of the broker's side says that it has come.
    while stream.conn.wants_write() && stream.conn.write_tls(&mut stream.sock).is_ok() {}
    while stream.sock.read(&mut [0; 1024]).is_ok_and(|len| len > 0) {}
    let alerts = |name: &str| served.metric(&format!("ringyard_tls_alerts_total{{alert=\"{name}\"}}"));
    let all = ["unknown_ca", "bad_certificate", "certificate_unknown", "handshake_failure", "other"].map(alerts);
    assert_eq!(all, [1.0, 0.0, 0.0, 0.0, 0.0].map(Some));
    assert_eq!(served.metric("ringyard_tls_failures_total{cause=\"alert\"}"), Some(1.0));
}

#[test]
fn a_slow_handshake_has_the_deadline_of_a_request_head() {
    let served = serve(&["--handshake-timeout", "300ms"]);
    let mut socket = socket_to(served.address);
    socket.write_all(&[22, 3, 1]).unwrap();
    let begin = Instant::now();
    assert_eq!(socket.read(&mut [0; 64]).unwrap_or(0), 0, "nothing can be said yet");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_client_that_reads_nothing_is_dropped_and_holds_nobody_up() {
    let served = serve(&["--max-lag", "1m", "--max-message", "64k"]);
    let idle = served.open("/sub/a");
    let mut reader = served.open("/bus/a");
    for number in 0..400_u32 {
        let message = Message::binary([&number.to_be_bytes()[..], &[0; 32_000]].concat());
        reader.send(message.clone()).unwrap();
        assert_eq!(reader.read().unwrap(), message);
    }
    until("the idle one is dropped", || {
        served.metric("ringyard_closed_total{reason=\"slow\"}").is_some_and(|count| count > 0.0)
    });
    drop(idle);
}

#[test]
fn without_a_good_pair_there_is_no_start() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "a");
    std::fs::write(directory.path().join("a.key"), "no key").unwrap();
    write_file(directory.path(), "", "");
    let file = directory.path().join("ringyard.toml").display().to_string();
    let refused = |arguments: &[&str]| {
        let output = command(arguments).stdout(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["--config", &file, "--tls-listen", "127.0.0.1:0"]);
    assert!(said.contains("a.key has no private key") && said.contains("--tls-listen"), "{said}");
    let said = refused(&["--tls-listen", "127.0.0.1:0"]);
    assert!(said.contains("needs a certificate"), "{said}");
    let said = refused(&["--tls-only"]);
    assert!(said.contains("needs --tls-listen"), "{said}");
}

/// A connection that the control plane has answered one request on.
fn bridged(served: &Served) -> Tls {
    let mut stream = served.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length").parse().unwrap();
    stream.read_exact(&mut vec![0; len]).unwrap();
    stream
}

/// A WebSocket for a client that a proxy names; else the status.
fn open_for(stream: Tls, named: &str) -> Result<WebSocket<Tls>, u16> {
    let mut request = "wss://localhost/bus/a".into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", named.parse().unwrap());
    match client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
        Err(other) => panic!("{named}: {other}"),
    }
}

#[test]
fn a_trusted_proxy_says_whose_connections_are_bridged() {
    let served = serve(&["--trusted-proxy", "127.0.0.0/8", "--max-connections-per-address", "2"]);
    let _first = open_for(bridged(&served), "203.0.113.7").expect("the first");
    let _second = open_for(served.connect(), "9.9.9.9, 203.0.113.7").expect("the second, which its shard answers");
    assert_eq!(open_for(bridged(&served), "203.0.113.7").err(), Some(429));
    assert_eq!(open_for(served.connect(), "203.0.113.7").err(), Some(429));
    let _other = open_for(bridged(&served), "203.0.113.8").expect("another client");
    assert_eq!(served.metric("ringyard_refused_total{reason=\"address\"}"), Some(2.0));

    let untrusting = serve(&["--trusted-proxy", "203.0.113.0/24", "--max-connections-per-address", "1"]);
    let open = || open_for(bridged(&untrusting), "198.51.100.7").expect("what it says does not count");
    let _sockets = [open(), open()];
}

#[test]
fn an_operator_of_this_machine_is_one_over_tls_too() {
    let operators = crate::access::key_table("api = ['topics']");
    let status = |served: &Served, path: &str, fields: &str| {
        let answer =
            served.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"));
        answer["HTTP/1.1 ".len()..][..3].to_owned()
    };
    let near = serve_with(&["--admin-listen", "public"], "", &operators);
    assert_eq!(status(&near, "/api/topics", ""), "200");
    let behind = serve_with(&["--admin-listen", "public", "--trusted-proxy", "127.0.0.0/8"], "", &operators);
    assert_eq!(status(&behind, "/api/topics", "X-Forwarded-For: 203.0.113.7\r\n"), "401");
    assert_eq!(status(&behind, "/api/topics", ""), "401", "whoever the proxy speaks for");
    let bearer = format!("Authorization: Bearer {}\r\n", crate::access::KEY);
    assert_eq!(status(&behind, "/api/topics", &bearer), "200");
}
