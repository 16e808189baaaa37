//! The thread that keeps keys of tokens up to date: reads their files again when they change, and fetches `keys-url`.
//!
//! Files are read every 5 seconds. The address is asked at start and then as often as `Cache-Control: max-age` says, from
//! a minute to an hour, else every 5 minutes; after a failure every minute; and for a token with an
//! unknown key at once, but at most every 10 seconds. Whatever fails, the keys before stay, and the log says why, once for each
//! cause in a row.
//!
//! A request takes at most 10 seconds in all and an answer at most 1 MiB; redirects are not followed, proxies are not
//! used, only the configured address is asked. TLS is checked against the authorities in the file that SSL_CERT_FILE names, or of
//! the system, or, where there are none, of `webpki-roots`.
//!
//! Not responsible for what keys are ([`trusted_keys`](crate::access::trusted_keys)). It wakes every 5 seconds, on no shard.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tracing::{error, info};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::access::authority::Authority;
use crate::access::key_sources::FILE_BYTES_MAX;

/// How often files are looked at.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// How often keys are fetched, if the answer does not say.
const FETCH_EVERY: Duration = Duration::from_secs(5 * 60);
/// How often at most, but for unknown keys, and after a failure.
const FETCH_LEAST: Duration = Duration::from_secs(60);
/// How often at least.
const FETCH_MOST: Duration = Duration::from_secs(3600);
/// How often at most for unknown keys.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// How long one request may take, answer included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where Linux distributions keep their authorities.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Starts the thread. It ends within 5 seconds when the authority is gone.
///
/// # Errors
/// A sentence: there is no thread to be had.
pub fn start(authority: &Arc<Authority>) -> Result<(), String> {
    let kept = Arc::downgrade(authority);
    let thread = thread::Builder::new().name("token-keys".to_owned()).spawn(move || run(&kept));
    let thread = thread.map_err(|error| format!("no thread for the keys of tokens: {error}"))?;
    authority.set_fetcher(thread.thread().clone());
    Ok(())
}

fn run(authority: &Weak<Authority>) {
    let mut schedule = Schedule::new(Instant::now());
    while let Some(authority) = authority.upgrade() {
        if schedule.look_at_files(Instant::now()) {
            log_files(&authority);
        }
        if let Some(url) = authority.keys_url() {
            let is_wanted = authority.wants_keys();
            if schedule.fetch(Instant::now(), is_wanted, &url) {
                authority.take_wanted();
                let fetched = fetch(&url).and_then(|fetched| take(&authority, &fetched).map(|()| fetched.max_age));
                schedule.fetched(Instant::now(), fetched);
            }
        }
        let rest = schedule.rest(Instant::now(), authority.wants_keys());
        drop(authority);
        thread::park_timeout(rest);
    }
}

/// Reads files again that have changed, and says so.
fn log_files(authority: &Authority) {
    match authority.reload(None) {
        Ok(notices) => {
            for notice in notices {
                if notice.is_error { error!("{}", notice.text) } else { info!("{}", notice.text) }
            }
        }
        Err(sentence) => error!("{sentence}"),
    }
}

fn take(authority: &Authority, fetched: &Fetched) -> Result<(), String> {
    if authority.take_fetched(&fetched.text)? {
        info!(keys = authority.trusted_keys(), "the keys of keys-url have changed");
    }
    Ok(())
}

/// When to do what. Time is the caller's.
#[derive(Debug)]
struct Schedule {
    next_files: Instant,
    next_fetch: Instant,
    /// When keys were asked for last.
    last_fetch: Option<Instant>,
    /// From where.
    url: String,
    /// What the log said last.
    said: Option<String>,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { next_files: now + FILES_EVERY, next_fetch: now, last_fetch: None, url: String::new(), said: None }
    }

    fn look_at_files(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_files;
        if is_due {
            self.next_files = now + FILES_EVERY;
        }
        is_due
    }

    /// Whether to fetch now, from an address that may have changed.
    fn fetch(&mut self, now: Instant, is_wanted: bool, url: &str) -> bool {
        let is_new = self.url != url;
        let is_cool = self.last_fetch.is_none_or(|last| now >= last + COOL_DOWN);
        let is_due = is_new || now >= self.next_fetch || is_wanted && is_cool;
        if is_due {
            self.last_fetch = Some(now);
            url.clone_into(&mut self.url);
        }
        is_due
    }

    /// Plans the next request after one that gave the time for which its answer holds, or failed.
    fn fetched(&mut self, now: Instant, result: Result<Option<Duration>, String>) {
        self.next_fetch = now
            + match result {
                Ok(max_age) => {
                    self.said = None;
                    max_age.unwrap_or(FETCH_EVERY).clamp(FETCH_LEAST, FETCH_MOST)
                }
                Err(why) => {
                    if self.said.as_ref() != Some(&why) {
                        error!(url = self.url, "keys-url gave no keys, and the keys before stay: {why}");
                        self.said = Some(why);
                    }
                    FETCH_LEAST
                }
            };
    }

    /// How long there is nothing to do.
    fn rest(&self, now: Instant, is_wanted: bool) -> Duration {
        let mut next = self.next_files;
        if !self.url.is_empty() {
            next = next.min(self.next_fetch);
            next = self.last_fetch.filter(|_| is_wanted).map_or(next, |last| next.min(last + COOL_DOWN));
        }
        next.saturating_duration_since(now)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Fetched {
    /// Its body.
    pub text: Vec<u8>,
    /// For how long it says that it holds.
    pub max_age: Option<Duration>,
}

/// Asks an address for keys.
///
/// # Errors
/// What went wrong, as a sentence.
pub fn fetch(url: &str) -> Result<Fetched, String> {
    let config = Agent::config_builder()
        .tls_config(tls()?)
        .https_only(url.starts_with("https:"))
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("ringyard/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut answer = Agent::new_with_config(config)
        .get(url)
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
    let text = body.map_err(|error| format!("the answer cannot be read (at most 1 MiB, within 10 s): {error}"))?;
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

/// How TLS is done: rustls on aws-lc-rs.
fn tls() -> Result<TlsConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = TlsConfig::builder().provider(TlsProvider::Rustls).unversioned_rustls_crypto_provider(provider);
    Ok(builder.root_certs(roots(std::env::var_os("SSL_CERT_FILE").as_deref().map(Path::new))?).build())
}

/// Whom to trust: the authorities in a file, or of the system, or those that are built in.
fn roots(named: Option<&Path>) -> Result<RootCerts, String> {
    if let Some(path) = named {
        return match certificates(path) {
            Some(certificates) => Ok(RootCerts::Specific(Arc::new(certificates))),
            None => Err(format!("SSL_CERT_FILE, {}, has no certificate that can be read", path.display())),
        };
    }
    let system = SYSTEM_ROOTS.iter().find_map(|path| certificates(Path::new(path)));
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
