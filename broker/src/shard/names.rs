//! How many names clients may begin: all together, and each by itself.
//!
//! A topic exists as long as somebody remembers it ([`home`](crate::topics::home)), so its name is memory that a client
//! can make grow with one short message. Two bounds: `--max-topics`, and the names' share of the budget, hold for all
//! ([`Links::admit_name`]); a [`NameShare`] holds for one client, so that the others find room. Names that exist already
//! cost nobody anything.

use ring::Nanos;

use super::link::Links;
use crate::budget::Budget;
use crate::topics::registry::name_bytes;

/// What a name means for the registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// It is registered.
    Known,
    /// It is not, and there is room for it: whoever registers it begins it.
    New,
}

/// Why no new name is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NamesFull {
    /// There are as many as `--max-topics` allows.
    Topics,
    /// They would take more memory than they may.
    Memory,
}

impl NamesFull {
    /// A clause for the client.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topics => "the broker has as many topics as --max-topics allows",
            Self::Memory => "the broker has no memory left for new topics; see --max-memory",
        }
    }
}

impl Links {
    /// Whether a client may use `name`, as a topic or a filter.
    ///
    /// # Errors
    /// It is new, and there is no room for it.
    pub fn admit_name(&self, name: &str, topics_max: usize) -> Result<Name, NamesFull> {
        if self.registry.contains(name) {
            return Ok(Name::Known);
        }
        if self.registry.len() >= topics_max {
            return Err(NamesFull::Topics);
        }
        let shards = self.inboxes.len() as u16;
        if !self.registry.has_bytes_for(name) || !self.budget.fits(name_bytes(name, shards)) {
            return Err(NamesFull::Memory);
        }
        Ok(Name::New)
    }
}

/// The most bytes that all names may take: half of the budget, so that messages find room beside them.
#[must_use]
pub(crate) fn names_bytes_max(budget: &Budget) -> u64 {
    budget.bytes_max() / 2
}

/// One client's share of the new names: so many at once, and from then on as many per window.
///
/// A schedule: every name takes the next place, a fraction of the window behind the one before; a place more than a
/// window ahead of the clock is one too many.
#[derive(Clone, Copy, Default, Debug)]
pub struct NameShare {
    /// The place of the last name.
    last: Nanos,
}

impl NameShare {
    /// Takes a place for a new name, of `names_max` in `window` nanoseconds. False: there is none.
    #[must_use]
    pub fn take(&mut self, now: Nanos, names_max: usize, window: Nanos) -> bool {
        let place = self.last.max(now) + (window / names_max.max(1) as u64).max(1);
        if place > now + window {
            return false;
        }
        self.last = place;
        true
    }

    /// Whether nothing would be lost with this share: all its places have passed.
    #[must_use]
    pub fn is_over(&self, now: Nanos) -> bool {
        self.last <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_share_is_taken_at_once_and_comes_back_over_the_window() {
        let mut share = NameShare::default();
        let taken = |share: &mut NameShare, now| (0..1000).filter(|_| share.take(now, 100, 60 * SECOND)).count();
        assert_eq!(taken(&mut share, 5 * SECOND), 100);
        assert_eq!(taken(&mut share, 5 * SECOND), 0);
        assert!(!share.is_over(5 * SECOND));
        assert_eq!(taken(&mut share, 35 * SECOND), 50);
        assert_eq!(taken(&mut share, 500 * SECOND), 100, "and no more than that after a long time");
        assert!(share.is_over(600 * SECOND));
    }

    #[test]
    fn names_have_half_of_the_budget_and_leave_the_rest_alone() {
        let links = Links::new(1, 1, 1).within(40_000);
        let mut names = Vec::new();
        let refusal = loop {
            let name = format!("t{}", names.len());
            match links.admit_name(&name, 1_000_000) {
                Ok(Name::New) => names.push(links.registry.resolve(&name)),
                other => break other,
            }
        };
        assert_eq!(refusal, Err(NamesFull::Memory));
        let used = links.budget.used();
        assert!((18_000..=20_000).contains(&used), "{used}");
        assert_eq!(links.admit_name("t0", 1), Ok(Name::Known));
        assert_eq!(links.admit_name("new", 1), Err(NamesFull::Topics));
    }
}
