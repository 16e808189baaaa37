//! Tickets, by which clients resume: what the library wants to remember of a session, encrypted under a key that only this
//! process has (RFC 5077 §4, RFC 8446 §4.6.1).
//!
//! There are two keys at most: the newest makes tickets for 12 hours, and opens them for 12 hours more. Then it is gone, and
//! nobody can read a session's secret from its ticket any more. Keys are looked at whenever a ticket is made or opened, and
//! with the files of certificates ([`Tickets::rotate`]).
//!
//! A ticket is the name of its key (16 bytes), a random nonce (12 bytes), and AES-256-GCM of the session with the key's name
//! as additional data. Random nonces are safe for 2^32 tickets of a key (NIST SP 800-38D §8.3): 99,000 a second.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand::fill;
use rustls::server::ProducesTickets;

/// How long a key makes tickets, and how long it opens them afterwards.
const PERIOD: Duration = Duration::from_secs(12 * 3600);
const NAME_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// Time since some moment.
pub(super) type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// See the module's head.
pub(super) struct Tickets {
    clock: Clock,
    keys: ArcSwap<Keys>,
}

#[derive(Clone)]
struct Keys {
    newest: Arc<Key>,
    before: Option<Arc<Key>>,
}

struct Key {
    name: [u8; NAME_LEN],
    key: RandomizedNonceKey,
    /// When it was made.
    since: Duration,
}

impl Tickets {
    /// With a first key.
    ///
    /// # Errors
    /// A sentence: the system has no random bytes.
    pub(super) fn new(clock: Clock) -> Result<Self, String> {
        let newest =
            Key::new(clock()).ok_or("TLS cannot be set up: there are no random bytes for the key of tickets")?;
        Ok(Self { clock, keys: ArcSwap::from_pointee(Keys { newest: Arc::new(newest), before: None }) })
    }

    /// Removes keys whose time is over.
    pub(super) fn rotate(&self) {
        // Without random bytes for a new key no tickets are made; the next look tries again.
        drop(self.keys());
    }

    /// The keys that hold now.
    fn keys(&self) -> Option<Arc<Keys>> {
        let now = (self.clock)();
        let keys = self.keys.load_full();
        if keys.age(now) < PERIOD {
            return Some(keys);
        }
        let key = Arc::new(Key::new(now)?);
        // Several shards may come here at once: the first one's key is taken.
        self.keys.rcu(|keys| {
            let age = keys.age(now);
            if age < PERIOD {
                return Keys::clone(keys);
            }
            let before = (age < 2 * PERIOD).then(|| Arc::clone(&keys.newest));
            Keys { newest: Arc::clone(&key), before }
        });
        Some(self.keys.load_full())
    }
}

impl Keys {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.newest.since)
    }
}

impl Key {
    fn new(since: Duration) -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME_LEN], [0; KEY_LEN]);
        fill(&mut name).ok()?;
        fill(&mut secret).ok()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &secret).ok()?;
        Some(Self { name, key, since })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys()?;
        let Key { name, key, .. } = &*keys.newest;
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys()?;
        let known = std::iter::once(&keys.newest).chain(&keys.before).find(|known| known.name == *name)?;
        let mut sealed = sealed.to_vec();
        let plain = known.key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    const HOUR: u64 = 3600;

    /// Tickets and their clock, in seconds.
    fn tickets() -> (Tickets, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(1000));
        let clock = Arc::clone(&now);
        (Tickets::new(Box::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)))).unwrap(), now)
    }

    fn key_of(ticket: &[u8]) -> &[u8] {
        &ticket[..NAME_LEN]
    }

    #[test]
    fn a_key_makes_tickets_for_twelve_hours_and_opens_them_for_twelve_more() {
        let (tickets, now) = tickets();
        let first = tickets.encrypt(b"first").unwrap();
        assert_eq!(tickets.lifetime(), 12 * 3600, "that is what clients hear");
        now.fetch_add(12 * HOUR - 1, Ordering::Relaxed);
        let second = tickets.encrypt(b"second").unwrap();
        assert_eq!(key_of(&second), key_of(&first), "the key is the same until its time is over");
        assert_ne!(second, tickets.encrypt(b"second").unwrap(), "no nonce is used twice");
        now.fetch_add(1, Ordering::Relaxed);
        let third = tickets.encrypt(b"third").unwrap();
        assert_ne!(key_of(&third), key_of(&first));
        for (ticket, plain) in [(&first, &b"first"[..]), (&second, b"second"), (&third, b"third")] {
            assert_eq!(tickets.decrypt(ticket).as_deref(), Some(plain));
        }
        now.fetch_add(12 * HOUR - 1, Ordering::Relaxed);
        assert!(tickets.decrypt(&second).is_some(), "as long as was promised at least");
        now.fetch_add(1, Ordering::Relaxed);
        assert!(tickets.decrypt(&second).is_none() && tickets.decrypt(&first).is_none(), "its key is gone");
        assert!(tickets.decrypt(&third).is_some());
        let keys = tickets.keys.load();
        assert_eq!(keys.before.as_ref().map(|key| &key.name[..]), Some(key_of(&third)), "there are two keys");
    }

    #[test]
    fn after_a_long_silence_no_old_key_is_left() {
        let (tickets, now) = tickets();
        let old = tickets.encrypt(b"old").unwrap();
        now.fetch_add(24 * HOUR, Ordering::Relaxed);
        tickets.rotate();
        assert!(tickets.keys.load().before.is_none());
        assert!(tickets.decrypt(&old).is_none());
    }

    #[test]
    fn a_ticket_that_was_changed_or_cut_is_none() {
        let (tickets, _) = tickets();
        let ticket = tickets.encrypt(b"a session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(tickets.decrypt(&changed).is_none(), "byte {at}");
            assert!(tickets.decrypt(&ticket[..at]).is_none(), "{at} bytes");
        }
        assert!(super::tests::tickets().0.decrypt(&ticket).is_none(), "another process has other keys");
    }

    #[test]
    fn shards_that_come_at_once_agree_on_a_key() {
        let (tickets, now) = tickets();
        now.fetch_add(13 * HOUR, Ordering::Relaxed);
        let made: Vec<_> = thread::scope(|scope| {
            let shards: Vec<_> = (0..8).map(|_| scope.spawn(|| tickets.encrypt(b"x").unwrap())).collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).collect()
        });
        assert!(made.iter().all(|ticket| tickets.decrypt(ticket).is_some()));
        assert!(made.windows(2).all(|pair| key_of(&pair[0]) == key_of(&pair[1])));
    }
}
