//! Servers of keys for tests: what they answer is up to the test, over http or https.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

use crate::access::key_sources::KeysUrl;

/// What a server talks through.
pub(super) trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// A key source without a file of authorities.
pub(super) fn source(url: &str) -> KeysUrl {
    KeysUrl { url: url.to_owned(), ca_file: None }
}

/// A server that answers each request with what `answer` writes; its address, and the head of each request.
pub(super) fn serve(answer: impl Fn(&mut dyn Wire) + Send + 'static) -> (KeysUrl, mpsc::Receiver<String>) {
    let (port, requests) = listen(None, answer);
    (source(&format!("http://127.0.0.1:{port}/jwks")), requests)
}

/// The same over https, as `localhost`, with a certificate of this authority.
pub(super) fn serve_tls(
    authority: &PrivateAuthority,
    answer: impl Fn(&mut dyn Wire) + Send + 'static,
) -> (KeysUrl, mpsc::Receiver<String>) {
    let (port, requests) = listen(Some(authority.server()), answer);
    (KeysUrl { url: format!("https://localhost:{port}/jwks"), ca_file: Some(authority.file()) }, requests)
}

/// A server with one answer for all.
pub(super) fn answering(status: &str, headers: &str, body: &[u8]) -> (KeysUrl, mpsc::Receiver<String>) {
    let answer = with_body(status, headers, body);
    serve(move |stream| _ = stream.write_all(&answer))
}

/// An answer.
pub(super) fn with_body(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn listen(
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(&mut dyn Wire) + Send + 'static,
) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            stream.set_write_timeout(Some(Duration::from_secs(30))).expect("a socket");
            let mut wire: Box<dyn Wire> = match &tls {
                None => Box::new(stream),
                Some(config) => {
                    Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config)).expect("a server"), stream))
                }
            };
            let head = head(&mut *wire);
            if head.is_some_and(|head| sender.send(head).is_err()) {
                return;
            }
            answer(&mut *wire);
        }
    });
    (port, requests)
}

/// The head of a request; `None`: there is none, as behind a failed TLS handshake.
fn head(wire: &mut dyn Wire) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match wire.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A certification authority that nobody else trusts, with its certificate in a file.
pub(super) struct PrivateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl PrivateAuthority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, folder }
    }

    /// The file with its certificate.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server called `localhost`.
    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).expect("a pair"))
    }
}
