//! The files of the `[[tls]]` tables: read, checked, and chosen by the name that a client asks for.
//!
//! A pair is good if it parses, the key is the certificate's, and the certificate has not ended. Not responsible for who
//! trusts it: that is the clients' affair.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::tls::TlsTable;
use crate::tls::expiry::not_after;

/// One table's pair, good when it was read.
#[derive(Clone, Debug)]
pub struct Pair {
    /// `cert` of the table.
    pub file: PathBuf,
    /// When the certificate ends, in seconds since 1970.
    pub expires_s: u64,
    /// `names` of the table, in lower case.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

/// Reads one table's files.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn read(table: &TlsTable, provider: &CryptoProvider, now_s: u64) -> Result<Pair, String> {
    let (cert, key) = (table.cert.display(), table.key.display());
    let pem = fs::read(&table.cert).map_err(|error| format!("{cert} cannot be read: {error}"))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{cert} is not PEM: {error}"))?;
    let first = chain.first().ok_or_else(|| format!("{cert} has no certificate (BEGIN CERTIFICATE)"))?;
    let expires_s = not_after(first).map_err(|why| format!("{cert} has no good certificate: {why}"))?;
    if expires_s <= now_s {
        return Err(format!("the certificate in {cert} ended {} s ago: renew it", now_s - expires_s));
    }
    let pem = fs::read(&table.key).map_err(|error| format!("{key} cannot be read: {error}"))?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| format!("{key} has no private key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{key} is not the key of the certificate in {cert}: they must be a pair")
        }
        error => format!("{cert} and {key} cannot be used: {error}"),
    })?;
    let names = table.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    Ok(Pair { file: table.cert.clone(), expires_s, names, key: Arc::new(certified) })
}

impl Pair {
    /// Whether both have the same certificates for the same names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.names == other.names && self.key.cert == other.key.cert
    }
}

/// The pair for a client that asks for `name`: one that names it, else one with a wildcard for it, else the first.
pub(super) fn choose(pairs: &[Pair], name: Option<&str>) -> Option<Arc<CertifiedKey>> {
    let chosen = name.and_then(|name| {
        let name = name.to_ascii_lowercase();
        // A wildcard stands for one label (RFC 9525 §6.3).
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let covers = |pattern: &String| pattern.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == parent);
        let exact = pairs.iter().find(|pair| pair.names.contains(&name));
        exact.or_else(|| pairs.iter().find(|pair| pair.names.iter().any(covers)))
    });
    chosen.or(pairs.first()).map(|pair| Arc::clone(&pair.key))
}
