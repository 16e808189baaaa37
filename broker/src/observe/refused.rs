//! What was refused most recently, for the log: of each cause with a value that an operator would look for, the first such
//! value since the log was last written.
//!
//! Not responsible for how often it happened (`counters`) nor for the line (`events`). Values come from strangers: they are
//! kept as [`printable`] shows them.
//!
//! Cost: a load per refusal; a lock and an allocation for the first of each cause in a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::observe::counters::Refused;

/// The longest value that is kept, in characters.
const SHOWN_MAX: usize = 100;

/// A stranger's text as a log line or an answer may show it: visible ASCII, cut to a hundred characters.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(SHOWN_MAX).collect()
}

/// See the file's head. Any thread may note a value, one takes them.
#[derive(Default, Debug)]
pub struct RefusedValues {
    host: Slot,
    origin: Slot,
}

#[derive(Default, Debug)]
struct Slot {
    is_full: AtomicBool,
    value: Mutex<String>,
}

impl RefusedValues {
    /// A request was refused for this value.
    pub fn note(&self, cause: Refused, value: &str) {
        let Some(slot) = self.slot(cause) else { return };
        if !slot.is_full.load(Ordering::Relaxed) {
            *slot.value.lock().unwrap_or_else(PoisonError::into_inner) = printable(value);
            slot.is_full.store(true, Ordering::Relaxed);
        }
    }

    /// The first value since the last call.
    pub fn take(&self, cause: Refused) -> Option<String> {
        let slot = self.slot(cause)?;
        let mut value = slot.value.lock().unwrap_or_else(PoisonError::into_inner);
        slot.is_full.swap(false, Ordering::Relaxed).then(|| std::mem::take(&mut *value))
    }

    fn slot(&self, cause: Refused) -> Option<&Slot> {
        match cause {
            Refused::Host => Some(&self.host),
            Refused::Origin => Some(&self.origin),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_cause_is_kept_until_it_is_taken() {
        let values = RefusedValues::default();
        assert_eq!(values.take(Refused::Origin), None);
        for origin in ["https://a.example", "https://b.example"] {
            values.note(Refused::Origin, origin);
        }
        values.note(Refused::Host, "c.example");
        values.note(Refused::Request, "nothing to look for");
        assert_eq!(values.take(Refused::Origin).as_deref(), Some("https://a.example"));
        assert_eq!(values.take(Refused::Origin), None);
        values.note(Refused::Origin, "https://d.example");
        assert_eq!(values.take(Refused::Origin).as_deref(), Some("https://d.example"));
        assert_eq!(values.take(Refused::Host).as_deref(), Some("c.example"));
        assert_eq!(values.take(Refused::Request), None);
    }

    #[test]
    fn a_value_is_shown_without_what_a_terminal_could_obey() {
        assert_eq!(printable("https://evil\u{1b}[31m\r\n\u{202e}x ä.example"), "https://evil[31mx.example");
        assert_eq!(printable(&"x".repeat(9000)).len(), 100);
    }
}
