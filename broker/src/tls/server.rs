//! What all TLS connections share: versions, key exchange, tickets, and the certificates in force.
//!
//! All shards share the keys of tickets (`tickets`): a client resumes on whichever it comes to, and not after a restart. There
//! is no early data.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use crate::config::tls::{KeyExchange, TlsTable};
use crate::tls::alerts::Alerts;
use crate::tls::certificates;
use crate::tls::in_force::{Change, InForce, Refused};
use crate::tls::stream::Stream;
use crate::tls::tickets::{Clock, Tickets};

/// The one protocol inside.
const ALPN: &[u8] = b"http/1.1";

static ALL_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static NEW_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// See the module's head.
#[derive(Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    pairs: Arc<InForce>,
    tickets: Arc<Tickets>,
    /// Those that clients have sent.
    pub alerts: Alerts,
}

impl Server {
    /// A server with the pairs of these tables, of which there must be one.
    ///
    /// # Errors
    /// A sentence about the first table whose pair is not good.
    pub fn new(tables: &[TlsTable], only_13: bool, exchange: KeyExchange) -> Result<Self, String> {
        let provider = provider(exchange);
        let pairs = tables.iter().map(|table| certificates::read(table, &provider, now_s()));
        let pairs = pairs.collect::<Result<Vec<_>, _>>().map_err(|fault| fault.sentence)?;
        let pairs = Arc::new(InForce::new(pairs));
        let versions = if only_13 { NEW_VERSIONS } else { ALL_VERSIONS };
        let failed = |error: rustls::Error| format!("TLS cannot be set up: {error}");
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .map_err(failed)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<InForce>::clone(&pairs));
        config.alpn_protocols = vec![ALPN.to_vec()];
        let tickets = Arc::new(Tickets::new(clock())?);
        config.ticketer = Arc::<Tickets>::clone(&tickets);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        config.ignore_client_order = true;
        // Each is a record of its own behind the handshake; browsers use one.
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), pairs, tickets, alerts: Alerts::default() })
    }

    /// Reads the files again, and puts those pairs in force that are good; a table whose files are bad keeps the pair that
    /// it had. Keys of tickets whose time is over go as well.
    pub fn read_again(&self, tables: &[TlsTable]) -> Change {
        self.tickets.rotate();
        self.pairs.read_again(tables, self.config.crypto_provider(), now_s())
    }

    /// The files of the certificates in force, and when each ends, in seconds since 1970.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, u64)> {
        self.pairs.expiries()
    }

    /// Tables whose files were bad at the last look.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        self.pairs.refused()
    }

    /// A new connection.
    ///
    /// # Errors
    /// The library cannot have one.
    pub fn begin(&self) -> Result<Stream, rustls::Error> {
        Stream::new(Arc::clone(&self.config))
    }
}

/// Time since now, whatever happens to the date.
fn clock() -> Clock {
    let begin = Instant::now();
    Box::new(move || begin.elapsed())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When the certificate of a table ends, in seconds since 1970.
///
/// # Errors
/// A sentence: its pair is not good.
pub fn expiry(table: &TlsTable, now_s: u64) -> Result<u64, String> {
    let pair = certificates::read(table, &provider(KeyExchange::Classic), now_s);
    pair.map(|pair| pair.expires_s).map_err(|fault| fault.sentence)
}

fn is_aes_128(suite: &SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// What the library speaks, in this order: AES-128 first, which costs least on processors with instructions for AES.
fn provider(exchange: KeyExchange) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    // Stable: all else stays as the library has it.
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite));
    let [x25519, p256, p384] = [kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    provider.kx_groups = match exchange {
        // The library's own list has it last.
        KeyExchange::Hybrid => vec![kx_group::X25519MLKEM768, x25519, p256, p384],
        KeyExchange::Classic => vec![x25519, p256, p384],
    };
    provider
}
