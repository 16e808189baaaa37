//! TLS for the client's side, without I/O (rustls): bytes of the socket come in, plain bytes and bytes for the socket come
//! out. The only file of the load generator that names rustls's types.
//!
//! [`Tls`] is what a run knows: whom it trusts, and tickets of earlier handshakes. [`Session`] is one connection.
//!
//! Not responsible for sockets and order of sends (`worker`). Invariant: what [`Session::seal`] and the handshake made is
//! taken by [`Session::output`] in the order in which it must be sent.
//!
//! Cost: everything received is decrypted, so nothing can be discarded in the kernel; a message is copied twice on each
//! way. A session needs about 8 KiB of memory.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, NamedGroup, ProtocolVersion,
    RootCertStore, SignatureScheme,
};
pub use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

/// Tickets that are kept: more than connections are opened at the same time.
const TICKETS_MAX: usize = 16 << 10;
/// How long tickets are gathered before a run.
const GATHER_MAX: Duration = Duration::from_secs(1);
/// How long a server may take to send a ticket after the handshake.
const TICKET_WAIT: Duration = Duration::from_millis(100);

/// What all connections of a run share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    tickets: Option<Arc<Tickets>>,
}

/// A handshake that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// `TLS 1.3`.
    pub version: &'static str,
    /// With a ticket of an earlier one.
    pub resumed: bool,
}

/// What the library speaks, ML-KEM with X25519 first: the library's own list has it last. A hello has a share for it and one
/// for X25519 alone, as browsers' hellos do.
#[must_use]
pub fn hybrid_first() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    provider
}

impl Tls {
    /// Trusts the authorities in the PEM file `ca`, or those that browsers trust; with `insecure`, everybody. `resume`:
    /// handshakes use tickets of earlier ones.
    ///
    /// # Errors
    /// When the file cannot be read or contains no certificate.
    pub fn new(ca: Option<&Path>, insecure: bool, resume: bool) -> Result<Self> {
        let provider = Arc::new(hybrid_first());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let mut config = if insecure {
            let anybody = Arc::new(Anybody(provider));
            builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
        } else {
            builder.with_root_certificates(roots(ca)?).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tickets = resume.then(|| Arc::new(Tickets::default()));
        config.resumption = match &tickets {
            Some(tickets) => Resumption::store(Arc::clone(tickets) as Arc<dyn ClientSessionStore>),
            None => Resumption::disabled(),
        };
        Ok(Self { config: Arc::new(config), tickets })
    }

    /// A connection to this server, whose handshake begins with the first [`Session::output`].
    ///
    /// # Errors
    /// When this configuration cannot speak to any server.
    pub fn session(&self, name: &ServerName<'static>) -> Result<Session> {
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name.clone())?;
        // What waits is bounded by its sender.
        connection.set_buffer_limit(None);
        Ok(Session { connection, is_reported: false })
    }

    /// Makes handshakes before a run, so that an error shows early and, where tickets are used, up to `wanted` of them
    /// are there. Ends after a second at the latest.
    ///
    /// # Errors
    /// When a handshake fails.
    pub fn prepare(&self, address: SocketAddr, name: &ServerName<'static>, wanted: usize) -> Result<()> {
        let begun = Instant::now();
        let gathering = |on| self.tickets.iter().for_each(|tickets| tickets.gathering.store(on, Ordering::Relaxed));
        // Full handshakes: some servers give less for a ticket than they take.
        gathering(true);
        let gathered = loop {
            let before = self.held();
            let done = self.handshake_once(address, name).with_context(|| format!("no TLS with {address}"));
            let held = self.held();
            if done.is_err() || held <= before || held >= wanted.min(TICKETS_MAX) || begun.elapsed() > GATHER_MAX {
                break done;
            }
        };
        gathering(false);
        gathered
    }

    fn held(&self) -> usize {
        self.tickets.as_ref().map_or(0, |tickets| lock(&tickets.tls13).len())
    }

    fn handshake_once(&self, address: SocketAddr, name: &ServerName<'static>) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let mut session = self.session(name)?;
        let (mut out, mut plain, mut input) = (Vec::new(), Vec::new(), vec![0; 16 << 10]);
        let before = self.held();
        loop {
            out.clear();
            session.output(&mut out);
            stream.write_all(&out)?;
            if session.handshake().is_some() {
                stream.set_read_timeout(Some(TICKET_WAIT))?;
            }
            if session.is_reported && (self.tickets.is_none() || self.held() > before) {
                break;
            }
            match std::io::Read::read(&mut stream, &mut input) {
                Ok(0) if session.is_reported => break,
                Ok(0) => return Err(anyhow!("closed during the handshake")),
                Ok(len) => session.receive(&input[..len], &mut plain).map(drop).map_err(|why| anyhow!(why))?,
                Err(error) if session.is_reported && is_late(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        session.close();
        out.clear();
        session.output(&mut out);
        // A server that closed first has what it wants.
        drop(stream.write_all(&out));
        Ok(())
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let text = fs::read(file).with_context(|| format!("--tls-ca: reading {}", file.display()))?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.with_context(|| format!("--tls-ca: {} is no PEM file", file.display()))?;
        roots.add(certificate).with_context(|| format!("--tls-ca: a certificate in {}", file.display()))?;
    }
    ensure!(!roots.is_empty(), "--tls-ca: {} contains no certificate", file.display());
    Ok(roots)
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    connection: ClientConnection,
    /// [`Session::handshake`] has returned it.
    is_reported: bool,
}

impl Session {
    /// Takes bytes of the socket and appends what they contain. Returns false when the server has ended the stream.
    ///
    /// # Errors
    /// When this is no TLS, or the handshake failed: a sentence. Nothing more can be received then.
    pub fn receive(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        let mut open = true;
        while !bytes.is_empty() && open {
            self.connection.read_tls(&mut bytes).map_err(|error| error.to_string())?;
            let state = self.connection.process_new_packets().map_err(in_words)?;
            open = !state.peer_has_closed();
            let mut reader = self.connection.reader();
            while let Ok(chunk) = reader.fill_buf() {
                let len = chunk.len();
                if len == 0 {
                    break;
                }
                plain.extend_from_slice(chunk);
                reader.consume(len);
            }
        }
        Ok(open)
    }

    /// Encrypts; before the end of the handshake, keeps it until then.
    pub fn seal(&mut self, plain: &[u8]) {
        self.connection.writer().write_all(plain).expect("a buffer without a limit");
    }

    /// Appends what has to be sent: handshake, what was sealed, alerts, answers to key updates.
    pub fn output(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(out).expect("memory takes everything");
        }
    }

    /// The handshake, once, when it is over.
    pub fn handshake(&mut self) -> Option<Handshake> {
        if self.is_reported || self.connection.is_handshaking() {
            return None;
        }
        self.is_reported = true;
        let version = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS 1.2",
        };
        Some(Handshake { version, resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed) })
    }

    /// Ends the stream (`close_notify`).
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Replaces the keys with which this side encrypts (RFC 8446, section 4.6.3), and asks the server to do the same.
    ///
    /// # Errors
    /// Before the end of the handshake, and with TLS 1.2.
    pub fn update_keys(&mut self) -> Result<(), String> {
        self.connection.refresh_traffic_keys().map_err(|error| error.to_string())
    }
}

fn in_words(error: Error) -> String {
    match error {
        Error::InvalidCertificate(why) => format!(
            "the server's certificate is refused ({why}): --tls-ca FILE names its authority, --tls-insecure does not check"
        ),
        Error::InvalidMessage(_) => format!("the server does not speak TLS here ({error})"),
        _ => error.to_string(),
    }
}

/// Tickets of one server, oldest first. A browser uses a ticket once (RFC 8446, appendix C.4), and so do we.
#[derive(Debug, Default)]
struct Tickets {
    tls13: Mutex<VecDeque<Tls13ClientSessionValue>>,
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    group: Mutex<Option<NamedGroup>>,
    /// None is given away.
    gathering: AtomicBool,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        *lock(&self.group) = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        *lock(&self.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        *lock(&self.tls12) = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        lock(&self.tls12).clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *lock(&self.tls12) = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut tickets = lock(&self.tls13);
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The newest: it lives longest.
        if self.gathering.load(Ordering::Relaxed) { None } else { lock(&self.tls13).pop_back() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Trusts every certificate, but has its owner prove that it has the key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
