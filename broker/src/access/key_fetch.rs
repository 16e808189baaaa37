//! Whether a fetch of keys is under way that a token waits for: what the fetching thread and those who check tokens say to
//! each other.
//!
//! | state | a token that names an unknown key |
//! | --- | --- |
//! | ready | has keys fetched, and waits |
//! | fetching, since less than [`WAIT_MS_MAX`] | waits; once nothing is fetched any more it is judged again |
//! | fetching for longer, or resting: keys were fetched just now | is refused; keys are fetched once more after the rest |
//!
//! So there is one fetch for all unknown keys of a cool-down, and nobody waits for more than [`WAIT_MS_MAX`]. Not responsible for
//! the cool-down and the fetch (`server/token_keys.rs`), nor for who waits and where: see [`Denial::awaits_key`]. Time is the
//! caller's, in milliseconds since 1970.
//!
//! [`Denial::awaits_key`]: crate::access::principal::Denial

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

/// How long a token waits for keys, at most.
pub const WAIT_MS_MAX: u64 = 5_000;
/// The state in which an unknown key is worth a fetch.
const READY: u64 = 0;
/// The state in which it is not.
const RESTING: u64 = u64::MAX;

/// See the file's head.
#[derive(Default, Debug)]
pub struct KeyFetch {
    /// [`READY`], [`RESTING`], or until when tokens wait for the fetch that one of them asked for.
    state: AtomicU64,
    /// A token has named an unknown key since the last fetch began.
    wanted: AtomicBool,
    fetcher: OnceLock<Thread>,
}

impl KeyFetch {
    // ---- those who check tokens

    /// A token names a key that nobody knows. Returns whether it is worth waiting for a fetch.
    pub(crate) fn ask(&self, now_ms: u64) -> bool {
        let until_ms = now_ms.saturating_add(WAIT_MS_MAX);
        let asked = self.state.compare_exchange(READY, until_ms, Ordering::AcqRel, Ordering::Acquire);
        let is_awaited = match asked {
            Ok(_) => true,
            Err(RESTING) => false,
            // The fetch is under way already.
            Err(until_ms) => return now_ms < until_ms,
        };
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.wake();
        }
        is_awaited
    }

    /// Whether those who wait should go on waiting.
    #[must_use]
    pub fn is_awaited(&self, now_ms: u64) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state != RESTING && now_ms < state
    }

    // ---- the fetching thread

    /// From now on `fetcher` is unparked when keys are wanted.
    pub fn set_fetcher(&self, fetcher: Thread) {
        // Of two, the first stays.
        let _ = self.fetcher.set(fetcher);
    }

    /// Has it look at its schedule.
    pub(crate) fn wake(&self) {
        if let Some(fetcher) = self.fetcher.get() {
            fetcher.unpark();
        }
    }

    /// Whether a token has named an unknown key.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Keys are fetched from now on, because they are wanted.
    pub fn begin(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// The fetch that tokens asked for is over, and its keys are in force.
    pub fn end(&self) {
        // Who asks in between waits, and then sees the new keys.
        self.wanted.store(false, Ordering::Release);
        self.state.store(RESTING, Ordering::Release);
    }

    /// The next unknown key is worth a fetch again.
    pub fn rested(&self) {
        // Otherwise tokens wait already.
        let _ = self.state.compare_exchange(RESTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_wait_for_one_fetch_and_not_for_long() {
        let fetch = KeyFetch::default();
        assert!(!fetch.is_awaited(1000) && !fetch.is_wanted());
        assert!(fetch.ask(1000) && fetch.is_wanted() && fetch.is_awaited(1000));
        fetch.begin();
        assert!(fetch.ask(1000 + WAIT_MS_MAX - 1), "it is under way");
        assert!(!fetch.is_wanted(), "and enough");
        assert!(!fetch.ask(1000 + WAIT_MS_MAX) && !fetch.is_awaited(1000 + WAIT_MS_MAX), "it takes too long");
        fetch.end();
        assert!(!fetch.is_awaited(2000) && !fetch.ask(2000), "keys were fetched just now");
        assert!(fetch.is_wanted(), "after the rest they are fetched once more");
        fetch.rested();
        fetch.begin();
        assert!(fetch.ask(13_000) && fetch.is_awaited(13_000));
        fetch.rested();
        assert!(fetch.is_awaited(13_000), "who waits goes on waiting");
    }
}
