//! Conflation: a subscriber gets the newest message of each key, not all of them. What must hold is that numbers rise and
//! that, after silence, the newest message of each key has arrived.
//!
//! Message `n` of a stream has the key `n mod keys`, so the newest message of each key follows from the number of messages
//! published. Memory: 8 bytes for each key.

/// A message whose key the client has one of that is not older.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backwards {
    /// The same.
    Again,
    /// A newer one.
    Older,
}

/// Nothing has come since when it matters.
const UNKNOWN: u64 = u64::MAX;

/// The number of the newest message of a key after `published` messages; nothing if there is none.
#[must_use]
pub fn newest(key: u32, published: u64, keys: u32) -> Option<u64> {
    let last = published.checked_sub(1)?;
    let distance = (last + u64::from(keys) - u64::from(key)) % u64::from(keys);
    last.checked_sub(distance)
}

/// What one client has of one stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newest {
    /// Earlier messages need not come.
    from: u64,
    /// By key: the number after the newest message that came; 0: none came.
    next: Box<[u64]>,
}

impl Newest {
    /// Of a client that has nothing yet. At least one key.
    #[must_use]
    pub fn new(keys: u32) -> Self {
        Self { from: 0, next: vec![0; keys.max(1) as usize].into() }
    }

    /// Of a client that begins late, or learns that messages are missing: what is before the next one need not come.
    pub fn forgive(&mut self) {
        self.from = UNKNOWN;
        self.next.fill(0);
    }

    /// A message came.
    ///
    /// # Errors
    /// The client has it, or a newer one of its key.
    pub fn heard(&mut self, number: u64) -> Result<(), Backwards> {
        if self.from == UNKNOWN {
            self.from = number;
        }
        let next = &mut self.next[(number % self.next.len() as u64) as usize];
        if number < *next {
            return Err(if number + 1 == *next { Backwards::Again } else { Backwards::Older });
        }
        *next = number + 1;
        Ok(())
    }

    /// Keys of which the newest of `published` messages has not come.
    #[must_use]
    pub fn stale(&self, published: u64) -> u64 {
        let keys = self.next.len() as u32;
        (0..keys)
            .zip(&self.next)
            .filter(|(key, next)| newest(*key, published, keys).is_some_and(|n| n >= self.from.max(**next)))
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newest_of_each_key() {
        assert_eq!([0, 1, 2].map(|key| newest(key, 0, 3)), [None, None, None]);
        assert_eq!([0, 1, 2].map(|key| newest(key, 2, 3)), [Some(0), Some(1), None]);
        assert_eq!([0, 1, 2].map(|key| newest(key, 7, 3)), [Some(6), Some(4), Some(5)]);
        assert_eq!(newest(0, 9, 1), Some(8));
    }

    #[test]
    fn an_older_message_of_a_key_is_not_enough() {
        let mut client = Newest::new(3);
        assert_eq!((client.stale(0), client.stale(2), client.stale(9)), (0, 2, 3));
        for number in [6, 4, 2] {
            assert_eq!(client.heard(number), Ok(()));
        }
        // 2 is the newest of its key after 5 messages, but not after 7.
        assert_eq!((client.stale(5), client.stale(7)), (0, 1));
        assert_eq!(client.heard(2), Err(Backwards::Again));
        assert_eq!(client.heard(3), Err(Backwards::Older));
        assert_eq!(client.heard(5), Ok(()));
        assert_eq!(client.stale(7), 0);
    }

    #[test]
    fn what_was_before_a_late_client_need_not_come() {
        let mut client = Newest::new(3);
        client.forgive();
        assert_eq!(client.stale(9), 0);
        assert_eq!(client.heard(7), Ok(()));
        // 6 is before the client's first message; 8 is not.
        assert_eq!((client.stale(8), client.stale(9), client.stale(10)), (0, 1, 2));
        client.forgive();
        assert_eq!(client.heard(9), Ok(()));
        assert_eq!((client.stale(10), client.stale(11)), (0, 1));
    }

    proptest! {
        /// A server that leaves out whatever a newer message of the same key replaces; or, dishonestly, one of the newest.
        #[test]
        fn what_may_be_left_out_and_what_may_not(
            keys in 1..20u32, published in 1..200u64, keep in prop::collection::vec(any::<bool>(), 200), lost in any::<prop::sample::Index>(),
        ) {
            let is_newest = |number: u64| newest((number % u64::from(keys)) as u32, published, keys) == Some(number);
            let (mut honest, mut dishonest) = (Newest::new(keys), Newest::new(keys));
            let all: Vec<u64> = (0..published).filter(|number| is_newest(*number)).collect();
            let lost = *lost.get(&all);
            for number in (0..published).filter(|number| is_newest(*number) || keep[*number as usize]) {
                prop_assert_eq!(honest.heard(number), Ok(()));
                if number != lost {
                    prop_assert_eq!(dishonest.heard(number), Ok(()));
                }
            }
            prop_assert_eq!(all.len() as u64, published.min(u64::from(keys)));
            prop_assert_eq!((honest.stale(published), dishonest.stale(published)), (0, 1));
        }
    }
}
