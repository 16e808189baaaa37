//! The same tests over TLS: with `RINGYARD_CONFORMANCE_TLS=1` every broker of this suite gets a port with TLS, and every
//! client uses it. The certificate is made once for the process. A run that is meant to be over TLS includes the ignored
//! test, which fails where the variable is not heard.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;

use crate::broker::Broker;
use crate::client::Client;

/// What brokers and clients of this process share.
struct Identity {
    /// The broker's configuration file.
    configuration: PathBuf,
    client: Arc<ClientConfig>,
}

/// Nothing when the suite runs without TLS.
fn identity() -> Option<&'static Identity> {
    static IDENTITY: OnceLock<Option<Identity>> = OnceLock::new();
    IDENTITY.get_or_init(|| (std::env::var("RINGYARD_CONFORMANCE_TLS").as_deref() == Ok("1")).then(make)).as_ref()
}

fn make() -> Identity {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("conformance-tls-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let [cert, key, configuration] = ["cert.pem", "key.pem", "ringyard.toml"].map(|name| folder.join(name));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&configuration, format!("[[tls]]\ncert = {cert:?}\nkey = {key:?}\n")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Identity { configuration, client: Arc::new(client) }
}

/// Starts a broker; its address is that of the port with TLS if the suite runs over TLS.
pub(crate) fn start(arguments: &[&str]) -> Broker {
    let Some(identity) = identity() else { return Broker::start(arguments) };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = port.to_string();
    let own = ["--tls-listen", &listen, "--config", identity.configuration.to_str().unwrap()];
    let mut broker = Broker::start(&[arguments, &own].concat());
    broker.address = port;
    broker
}

/// A connection to a broker of this suite.
pub(crate) enum Stream {
    Plain(TcpStream),
    Secure(Box<Secure>),
}

/// What cannot be sent any more is forgotten, so that what the server said before is still read.
pub(crate) struct Secure {
    connection: ClientConnection,
    socket: TcpStream,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, server: SocketAddr) -> Self {
        let Some(identity) = identity() else { return Self::Plain(socket) };
        let name = ServerName::from(server.ip());
        let mut connection = ClientConnection::new(Arc::clone(&identity.client), name).unwrap();
        connection.set_buffer_limit(None);
        Self::Secure(Box::new(Secure { connection, socket }))
    }

    /// Ends directions of the TCP connection, of TLS without a word about it.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.shutdown(how),
            Self::Secure(secure) => secure.socket.shutdown(how),
        }
    }
}

impl Secure {
    fn send(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out)?;
        }
        self.socket.write_all(&out)
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let secure = match self {
            Self::Plain(socket) => return socket.read(bytes),
            Self::Secure(secure) => secure,
        };
        loop {
            match secure.connection.reader().read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // After the close frames, the end of TCP is an end too: browsers do not wait for more either.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            secure.connection.read_tls(&mut secure.socket)?;
            secure.connection.process_new_packets().map_err(io::Error::other)?;
            let _ = secure.send();
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(secure) => {
                secure.connection.writer().write_all(bytes)?;
                secure.send()?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Else a renamed variable would have the suite pass without TLS.
#[test]
#[ignore = "holds with RINGYARD_CONFORMANCE_TLS=1 only, and is included there"]
fn this_run_is_over_tls() {
    let broker = start(&[]);
    let mut client = Client::open(broker.address);
    client.expect_alive();
    let Stream::Secure(secure) = &client.stream else { panic!("RINGYARD_CONFORMANCE_TLS=1 is not set") };
    assert!(secure.connection.negotiated_cipher_suite().is_some() && !secure.connection.is_handshaking());
    // The same port without TLS has nothing to offer.
    let mut plain = TcpStream::connect(broker.address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
