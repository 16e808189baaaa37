//! The secret under which names that clients choose are hashed.
//!
//! Whoever knows how a table hashes can choose names that all fall in one place of it, and turn each look-up into a
//! search. SipHash-1-3 is a keyed hash made against that: without the key, collisions cannot be computed. The key
//! comes from one seed: random in a broker (`main`), given in a simulation, so that a seed replays a run on every
//! machine.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher13;

/// The key of every table whose keys are text of clients.
#[derive(Clone, Copy)]
pub struct Keys(u64, u64);

impl Keys {
    /// The key that belongs to `seed`.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let half = |number: u64| {
            let mut hasher = SipHasher13::new_with_keys(seed, number);
            hasher.write_u64(number);
            hasher.finish()
        };
        Self(half(1), half(2))
    }

    /// The hash of one text.
    #[must_use]
    pub fn hash_text(self, text: &str) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish()
    }
}

impl BuildHasher for Keys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Keeps the key out of logs.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_hashes_again_and_another_seed_gives_others() {
        let [first, again, other] = [7, 7, 8].map(|seed| Keys::from_seed(seed).hash_text("chat/7"));
        assert_eq!(first, again);
        assert_ne!(first, other);
        // The simulation's seeds mean the same on every machine.
        assert_eq!(Keys::from_seed(1).hash_text("a"), Keys::from_seed(1).hash_text("a"));
        assert_eq!(format!("{:?}", Keys::from_seed(7)), "Keys");
    }
}
