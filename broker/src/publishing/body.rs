//! How long the body of a publish may take, and the answers to one that takes too long, or more memory than there is.
//!
//! A body has to be complete within `--message-timeout`, and after the first [`GRACE`] it has to have come at
//! [`RATE_MIN`] on average.

use std::time::Duration;

use crate::config::limits::Limits;
use crate::observe::counters::Refused;
use crate::publishing::problem::Problem;

/// How long a body may come at any rate.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes a second, on average, after that.
const RATE_MIN: u64 = 1024;

/// How long after its beginning a body has to have brought more than `received` bytes.
pub(crate) fn due_after(received: usize, limits: &Limits) -> Duration {
    let at_rate = GRACE + Duration::from_millis(received as u64 * 1000 / RATE_MIN);
    at_rate.min(limits.message_timeout)
}

/// The answer to a body of more bytes than a message may have.
pub(crate) fn too_long(limits: &Limits) -> Problem {
    let sentence = format!("The message is longer than {} bytes (--max-message).", limits.message_bytes_max);
    Problem::new(413_u16, sentence)
}

/// The answer to a body that is not complete in time.
pub(crate) fn too_slow(limits: &Limits) -> Problem {
    let sentence = format!(
        "The body came too slowly: it has {:?} in all (--message-timeout), and 1 KiB/s on average after the first {GRACE:?}.",
        limits.message_timeout
    );
    Problem::new(408_u16, sentence).ending()
}

/// The answer to a body that ends before its time.
pub(crate) fn broken() -> Problem {
    Problem::bad("The request body ended early or is malformed.").ending()
}

/// The answer to a body that there is no memory for.
pub(crate) fn no_room() -> Problem {
    Problem::unavailable("The broker has no memory for so long a message now (--max-memory).").because(Refused::Memory)
}

/// The answer to a body that had to go for others.
pub(crate) fn given_up() -> Problem {
    Problem::unavailable("The broker gave this request up, because others needed its memory or its place.")
        .because(Refused::Overload)
        .ending()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_due_by_its_rate_and_in_all() {
        let limits = Limits::default();
        let millis = |received| due_after(received, &limits).as_millis();
        assert_eq!([0, 512, 1024, 10 << 10, 25 << 10, 1 << 20].map(millis), [5000, 5500, 6000, 15_000, 30_000, 30_000]);
    }
}
