//! Which features of io_uring this kernel has, for operators who want to know.
//!
//! Not responsible for whether the broker can run: [`probe`](crate::probe()) says that.

use io_uring::{IoUring, Probe, opcode};

use crate::probe::{Cause, cause_here, probe};
use crate::uring::{Setup, UringDriver, at_least};

/// A feature of io_uring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// As its documentation calls it.
    pub name: &'static str,
    /// Whether this kernel has it.
    pub supported: bool,
    /// The first version of Linux that has it.
    pub since: &'static str,
}

/// The features that the driver uses or would use, in the order of their age.
///
/// # Errors
/// The [`Cause`] why the driver cannot run here at all. A small one is made, so that nothing is guessed.
pub fn features() -> Result<Vec<Feature>, Cause> {
    probe()?;
    let setup = Setup { capacity: 1, receive_buffers: 1, submission_entries: 8, ..Setup::default() };
    let optional = UringDriver::new(setup).map_err(cause_here)?.optional_features();
    let zero_copy = IoUring::new(1).is_ok_and(|ring| {
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::SendZc::CODE)
    });
    let feature = |name, since, supported| Feature { name, supported, since };
    // The driver has all of these, or could not have been made.
    Ok(vec![
        feature("restrictions", "5.10", optional.restricted),
        feature("buffer rings", "5.19", true),
        feature("direct descriptors", "5.19", true),
        feature("multishot receive", "6.0", true),
        feature("single issuer", "6.0", true),
        feature("zero-copy send", "6.0", zero_copy),
        feature("deferred task work", "6.1", true),
        feature("handing descriptors over", "6.8", optional.install),
        feature("prompt close", "6.13", optional.prompt_close),
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
    fn this_machine_has_what_the_driver_needs() {
        let features = features().expect("the tests need io_uring");
        for feature in &features {
            assert!(feature.supported || ["prompt close", "zero-copy send"].contains(&feature.name), "{feature:?}");
            let (major, minor) = feature.since.split_once('.').unwrap();
            assert!(is_at_least(feature.since, major.parse().unwrap(), minor.parse().unwrap()));
        }
        let age = |feature: &Feature| feature.since.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
        assert!(features.is_sorted_by_key(age));
    }
}
