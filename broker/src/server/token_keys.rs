//! The thread that keeps keys of tokens up to date: reads their files again when they change, and fetches `keys-url`.
//!
//! Files are read every 5 seconds. The address is asked at start and then as often as `Cache-Control: max-age` says, from
//! a minute to an hour, else every 5 minutes; after a failure every minute; and for a token with an
//! unknown key at once, but at most every 10 seconds for all of them; those tokens wait for the answer
//! ([`key_fetch`](crate::access::key_fetch)). Whatever fails, the keys before stay, and the log says why, once for each cause in
//! a row.
//!
//! The broker's start waits for the first answer, as long as one request may take: whoever comes back to a broker that has just
//! started, with a good token, would be refused for good otherwise.
//!
//! Not responsible for what keys are ([`trusted_keys`](crate::access::trusted_keys)), nor for requests ([`mod@fetch`]). It
//! wakes every 5 seconds, on no shard.

pub mod fetch;

use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::access::authority::Authority;
use crate::access::key_sources::KeysUrl;
use crate::server::token_keys::fetch::{Fetched, TIMEOUT, fetch};

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
/// How much longer than a request the start waits.
const MARGIN: Duration = Duration::from_secs(1);

/// Starts the thread, and waits until it has asked for keys once. It ends within 5 seconds when the authority is gone.
///
/// # Errors
/// A sentence: there is no thread to be had, or no certificate in the file of `keys-ca-file`.
pub fn start(authority: &Arc<Authority>) -> Result<(), String> {
    check(authority)?;
    let kept = Arc::downgrade(authority);
    let (first, has_asked) = mpsc::channel();
    let thread = thread::Builder::new().name("token-keys".to_owned()).spawn(move || run(&kept, first));
    let thread = thread.map_err(|error| format!("no thread for the keys of tokens: {error}"))?;
    authority.key_fetch().set_fetcher(thread.thread().clone());
    if authority.keys_url().is_some() {
        // Without an answer the log has said why, and everything else goes on.
        let _ = has_asked.recv_timeout(TIMEOUT + MARGIN);
    }
    Ok(())
}

/// Whether the file of `keys-ca-file` can be used.
///
/// # Errors
/// A sentence.
pub fn check(authority: &Authority) -> Result<(), String> {
    authority.keys_url().map_or(Ok(()), |source| fetch::check(&source))
}

fn run(authority: &Weak<Authority>, first: mpsc::Sender<()>) {
    let (mut schedule, mut first) = (Schedule::new(Instant::now()), Some(first));
    while let Some(authority) = authority.upgrade() {
        schedule.turn(&authority, Instant::now, TIMEOUT);
        drop(first.take());
        let rest = schedule.rest(Instant::now(), authority.key_fetch().is_wanted());
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
    /// When keys were asked for last because a token named an unknown one, and the next such token has to wait for the end of
    /// the cool-down.
    last_wanted: Option<Instant>,
    /// From where.
    source: Option<KeysUrl>,
    /// What the log said last.
    said: Option<String>,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { next_files: now + FILES_EVERY, next_fetch: now, last_wanted: None, source: None, said: None }
    }

    /// Does what is due. A request takes so long at most.
    fn turn(&mut self, authority: &Authority, now: impl Fn() -> Instant, timeout: Duration) {
        if self.look_at_files(now()) {
            log_files(authority);
        }
        let (Some(source), key_fetch) = (authority.keys_url(), authority.key_fetch()) else { return };
        if self.cool_down(now()) {
            key_fetch.rested();
        }
        let is_wanted = key_fetch.is_wanted();
        if self.fetch(now(), is_wanted, &source) {
            if is_wanted {
                key_fetch.begin();
            }
            let fetched = fetch(&source, timeout);
            let taken = fetched.and_then(|fetched| take(authority, &fetched).map(|()| fetched.max_age));
            if is_wanted {
                key_fetch.end();
            }
            self.fetched(now(), taken);
        }
    }

    fn look_at_files(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_files;
        if is_due {
            self.next_files = now + FILES_EVERY;
        }
        is_due
    }

    /// Whether the cool-down ends now.
    fn cool_down(&mut self, now: Instant) -> bool {
        self.last_wanted.take_if(|last| now >= *last + COOL_DOWN).is_some()
    }

    /// Whether to fetch now, from an address that may have changed.
    fn fetch(&mut self, now: Instant, is_wanted: bool, source: &KeysUrl) -> bool {
        let is_new = self.source.as_ref() != Some(source);
        let is_due = is_new || now >= self.next_fetch || is_wanted && self.last_wanted.is_none();
        if is_due {
            self.last_wanted = if is_wanted { Some(now) } else { self.last_wanted };
            self.source = Some(source.clone());
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
                        let url = self.source.as_ref().map_or("", |source| &source.url);
                        error!(url, "keys-url gave no keys, and the keys before stay: {why}");
                        self.said = Some(why);
                    }
                    FETCH_LEAST
                }
            };
    }

    /// How long there is nothing to do.
    fn rest(&self, now: Instant, is_wanted: bool) -> Duration {
        let mut next = self.next_files;
        if self.source.is_some() {
            next = next.min(self.next_fetch);
            next = match self.last_wanted {
                Some(last) => next.min(last + COOL_DOWN),
                None if is_wanted => now,
                None => next,
            };
        }
        next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
