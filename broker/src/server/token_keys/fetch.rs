//! One request for the keys of `keys-url`.
//!
//! It takes at most [`TIMEOUT`] in all, the name's resolution and the whole answer included, and an answer has at most 1 MiB.
//! Redirects are not followed, proxies are not used: only the configured address is asked. What an answer calls itself
//! (`content-type`) does not matter, what it is does: whoever reads it takes nothing but a JWK set.
//!
//! TLS is checked against the authorities in the file of `keys-ca-file`, or in the file that SSL_CERT_FILE names, or of the system, or,
//! where there are none, those that are built in (`webpki-roots`). The file is read for each request, so that it may change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::access::key_sources::{FILE_BYTES_MAX, KeysUrl};

/// How long one request may take, answer included.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Where Linux distributions keep their authorities.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An answer.
#[derive(Debug)]
pub struct Fetched {
    /// Its body.
    pub text: Vec<u8>,
    /// For how long it says that it holds.
    pub max_age: Option<Duration>,
}

/// Asks an address for keys. It takes at most `timeout`.
///
/// # Errors
/// What went wrong, as a sentence.
pub fn fetch(source: &KeysUrl, timeout: Duration) -> Result<Fetched, String> {
    let config = Agent::config_builder()
        .tls_config(tls(source)?)
        .https_only(source.is_https())
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .user_agent(concat!("ringyard/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut answer = Agent::new_with_config(config)
        .get(&source.url)
        .header("accept", "application/jwk-set+json, application/json")
        .call()
        .map_err(|error| format!("the request failed: {error}"))?;
    let status = answer.status();
    if status.is_redirection() {
        return Err(format!(
            "the answer is {status}, and redirects are not followed: give the address that it leads to"
        ));
    }
    if status != 200 {
        return Err(format!("the answer is {status}"));
    }
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let max_age = header("cache-control").and_then(max_age);
    let body = answer.body_mut().with_config().limit(FILE_BYTES_MAX).read_to_vec();
    let text =
        body.map_err(|error| format!("the answer cannot be read (at most 1 MiB, within {timeout:?}): {error}"))?;
    Ok(Fetched { text, max_age })
}

/// `max-age` of a Cache-Control header; zero with `no-store` and `no-cache` (RFC 9111 §5.2.2).
fn max_age(header: &str) -> Option<Duration> {
    let mut directives = header.split(',').map(|directive| directive.trim().to_ascii_lowercase());
    if directives.clone().any(|directive| matches!(&*directive, "no-store" | "no-cache")) {
        return Some(Duration::ZERO);
    }
    let seconds = directives.find_map(|directive| directive.strip_prefix("max-age=").map(str::to_owned))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

/// Whether the file with authorities can be used, if one is named.
///
/// # Errors
/// A sentence.
pub(super) fn check(source: &KeysUrl) -> Result<(), String> {
    tls(source).map(drop)
}

/// How TLS is done: rustls on aws-lc-rs.
fn tls(source: &KeysUrl) -> Result<TlsConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = TlsConfig::builder().provider(TlsProvider::Rustls).unversioned_rustls_crypto_provider(provider);
    let variable = std::env::var_os("SSL_CERT_FILE");
    let named = match (&source.ca_file, &variable) {
        _ if !source.is_https() => None,
        (Some(path), _) => Some(("keys-ca-file", path.as_path())),
        (None, Some(path)) => Some(("SSL_CERT_FILE", Path::new(path))),
        (None, None) => None,
    };
    Ok(builder.root_certs(roots(named, SYSTEM_ROOTS)?).build())
}

/// Whom to trust: the authorities in a file, or of the system, or those that are built in.
fn roots(named: Option<(&str, &Path)>, system: &[&str]) -> Result<RootCerts, String> {
    if let Some((name, path)) = named {
        return match certificates(path) {
            Some(certificates) => Ok(RootCerts::Specific(Arc::new(certificates))),
            None => Err(format!("{name}, {}, has no certificate that can be read", path.display())),
        };
    }
    let system = system.iter().find_map(|path| certificates(Path::new(path)));
    Ok(system.map_or(RootCerts::WebPki, |certificates| RootCerts::Specific(Arc::new(certificates))))
}

/// The certificates in a file, if it has some.
fn certificates(path: &Path) -> Option<Vec<Certificate<'static>>> {
    let read = CertificateDer::pem_file_iter(path).ok()?;
    let found: Vec<_> = read.flatten().map(|der| Certificate::from_der(&der).to_owned()).collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests;
