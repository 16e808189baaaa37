//! What this kernel's io_uring offers, feature by feature, for operators who want to know what they have.
//!
//! Not responsible for whether the broker can run: [`probe`](crate::probe()) says that.

use io_uring::{IoUring, Probe, opcode};

use crate::probe::{Cause, cause_here, probe};
use crate::uring::{Setup, UringDriver, at_least};

/// A feature of io_uring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// As its documentation calls it.
    pub name: &'static str,
    /// Whether this kernel has it.
    pub there: bool,
    /// The first version of Linux that has it.
    pub since: &'static str,
}

/// The features that the driver uses or would use, in the order of their age.
///
/// # Errors
/// The [`Cause`] why the driver cannot run here at all. A small one is made, so that nothing is guessed.
pub fn offers() -> Result<Vec<Offer>, Cause> {
    probe()?;
    let setup = Setup { capacity: 1, receive_buffers: 1, submission_entries: 8, ..Setup::default() };
    let features = UringDriver::new(setup).map_err(cause_here)?.features();
    let zero_copy = IoUring::new(1).is_ok_and(|ring| {
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::SendZc::CODE)
    });
    let offer = |name, since, there| Offer { name, there, since };
    // The driver has all of these, or could not have been made.
    Ok(vec![
        offer("restrictions", "5.10", features.restricted),
        offer("buffer rings", "5.19", true),
        offer("direct descriptors", "5.19", true),
        offer("multishot accept", "5.19", true),
        offer("multishot receive", "6.0", true),
        offer("single issuer", "6.0", true),
        offer("zero-copy send", "6.0", zero_copy),
        offer("deferred task work", "6.1", true),
        offer("handing descriptors over", "6.8", features.install),
        offer("prompt close", "6.13", features.prompt_close),
    ])
}

/// Whether a kernel's release, such as `6.18.44-rc1`, is that version or newer. One that cannot be read is not.
#[must_use]
pub fn is_at_least(release: &str, major: u32, minor: u32) -> bool {
    at_least(release, (major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_offers_what_the_driver_needs() {
        let offers = offers().expect("the tests need io_uring");
        for offer in &offers {
            assert!(offer.there || ["prompt close", "zero-copy send"].contains(&offer.name), "{offer:?}");
            let (major, minor) = offer.since.split_once('.').unwrap();
            assert!(is_at_least(offer.since, major.parse().unwrap(), minor.parse().unwrap()));
        }
        let age = |offer: &Offer| offer.since.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
        assert!(offers.is_sorted_by_key(age));
    }
}
