//! The files of the `[[tls]]` tables: read and checked.
//!
//! A pair is good if it parses, the key is the certificate's, and the certificate has not ended. Not responsible for who
//! trusts it: that is the clients' affair.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

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
    pub(super) names: Vec<String>,
    pub(super) key: Arc<CertifiedKey>,
}

/// What is wrong with a table's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The kind of fault.
    pub cause: Cause,
    /// Names the table, the file, and what is wrong with it. It is the same at every look.
    pub sentence: String,
}

/// Kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A file is not there, or may not be read.
    Unreadable,
    /// A file does not hold what it should.
    Malformed,
    /// The key is not the certificate's.
    Mismatch,
    /// The certificate has ended.
    Expired,
}

impl Cause {
    /// As metrics show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::Mismatch => "mismatch",
            Self::Expired => "expired",
        }
    }
}

/// Reads one table's files.
///
/// # Errors
/// What is wrong with them.
pub fn read(table: &TlsTable, provider: &CryptoProvider, now_s: u64) -> Result<Pair, Fault> {
    read_files(table, provider, now_s)
        .map_err(|(cause, what)| Fault { cause, sentence: format!("{}: [[tls]]: {what}", table.source) })
}

fn read_files(table: &TlsTable, provider: &CryptoProvider, now_s: u64) -> Result<Pair, (Cause, String)> {
    let (cert, key) = (table.cert.display(), table.key.display());
    let malformed = |sentence: String| (Cause::Malformed, sentence);
    let unreadable = |error| (Cause::Unreadable, format!("{cert} cannot be read: {error}"));
    let pem = fs::read(&table.cert).map_err(unreadable)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(format!("{cert} is not PEM: {error}")))?;
    let first = chain.first().ok_or_else(|| malformed(format!("{cert} has no certificate (BEGIN CERTIFICATE)")))?;
    let expires_s = not_after(first).map_err(|why| malformed(format!("{cert} has no good certificate: {why}")))?;
    if expires_s <= now_s {
        let end = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(expires_s));
        return Err((Cause::Expired, format!("the certificate in {cert} ended on {end}: renew it")));
    }
    let pem = fs::read(&table.key).map_err(|error| (Cause::Unreadable, format!("{key} cannot be read: {error}")))?;
    let private =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| malformed(format!("{key} has no private key: {error}")))?;
    let certified = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            (Cause::Mismatch, format!("{key} is not the key of the certificate in {cert}: they must be a pair"))
        }
        error => malformed(format!("{cert} and {key} cannot be used: {error}")),
    })?;
    Ok(Pair { file: table.cert.clone(), expires_s, names: lower(&table.names), key: Arc::new(certified) })
}

/// Names as they are compared.
pub(super) fn lower(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}

impl Pair {
    /// Whether both have the same certificates for the same names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.file == other.file && self.names == other.names && self.key.cert == other.key.cert
    }
}
