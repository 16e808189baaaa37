//! Start-up: what an [`EpollDriver`](super::EpollDriver) is made of, and what to change where that cannot be
//! had.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::limits;

/// What an [`EpollDriver`](super::EpollDriver) is made of.
#[derive(Debug)]
pub struct Setup {
    /// A listening socket (see [`listen`](crate::listen)), if this driver accepts. Others may share it, to hand it over.
    pub listener: Option<Arc<OwnedFd>>,
    /// Another one, beside the first. Its connections are reported as such ([`Event::Accepted`](crate::Event::Accepted)).
    pub second: Option<Arc<OwnedFd>>,
    /// Connections at most, each 16 bytes once used, and a descriptor of the process.
    pub capacity: u32,
    /// Buffers that received bytes land in.
    pub receive_buffers: u16,
    /// Size of each; the most that one `Received` carries.
    pub receive_buffer_bytes: u32,
}

impl Default for Setup {
    /// 900 connections, 128 receive buffers of 4 KiB, no listener.
    fn default() -> Self {
        Self { listener: None, second: None, capacity: 900, receive_buffers: 128, receive_buffer_bytes: 4096 }
    }
}

/// Why there is no driver. `Display` is one sentence that says what to change.
#[derive(Debug)]
pub enum SetupError {
    /// More connections than the process may have descriptors.
    TooManyConnections {
        /// How many were asked for.
        capacity: u32,
        /// The soft limit of descriptors (`RLIMIT_NOFILE`).
        limit: u64,
    },
    /// `EMFILE`: the process has as many descriptors as it may.
    NoDescriptor {
        /// The soft limit of descriptors.
        limit: u64,
    },
    /// A figure of [`Setup`] makes no sense.
    Invalid(&'static str),
    /// Anything else.
    Other {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyConnections { capacity, limit } => write!(
                f,
                "{capacity} connections on epoll need as many open files, of which the process may have {limit}: \
                 raise that limit (ulimit -n {}) or ask for at most {}",
                u64::from(*capacity) + OWN_DESCRIPTORS,
                limit.saturating_sub(OWN_DESCRIPTORS)
            ),
            Self::NoDescriptor { limit } => write!(
                f,
                "the process has as many open files as its limit of {limit} allows: raise it (ulimit -n) or ask \
                 for fewer shards"
            ),
            Self::Invalid(what) => f.write_str(what),
            Self::Other { doing, error } => write!(f, "{doing} failed: {error}"),
        }
    }
}

impl std::error::Error for SetupError {}

/// Listener, epoll, eventfd.
const OWN_DESCRIPTORS: u64 = 3;

/// Refuses figures that make no sense, or that the process's limit can never hold. Whether several drivers
/// share that limit, only who makes them knows.
pub(super) fn validate(setup: &Setup) -> Result<(), SetupError> {
    if setup.capacity == 0 {
        return Err(SetupError::Invalid("a driver needs room for at least one connection"));
    }
    if setup.receive_buffers == 0 {
        return Err(SetupError::Invalid("a driver needs at least one receive buffer"));
    }
    if setup.receive_buffer_bytes == 0 || setup.receive_buffer_bytes > 1 << 24 {
        return Err(SetupError::Invalid("a receive buffer must have between 1 byte and 16 MiB"));
    }
    let limit = limits::descriptors();
    if u64::from(setup.capacity) + OWN_DESCRIPTORS > limit {
        return Err(SetupError::TooManyConnections { capacity: setup.capacity, limit });
    }
    Ok(())
}

pub(super) fn failed(doing: &'static str) -> impl Fn(io::Error) -> SetupError {
    move |error| match error.raw_os_error() {
        Some(libc::EMFILE) => SetupError::NoDescriptor { limit: limits::descriptors() },
        _ => SetupError::Other { doing, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_one_sentence_that_says_what_to_change() {
        for error in
            [SetupError::TooManyConnections { capacity: 30_000, limit: 20_000 }, SetupError::NoDescriptor { limit: 64 }]
        {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n') && !sentence.contains("  "), "{sentence}");
            assert!(sentence.contains("ulimit -n"), "{sentence}");
        }
    }

    #[test]
    fn figures_without_sense_are_refused() {
        for setup in [
            Setup { capacity: 0, ..Setup::default() },
            Setup { receive_buffers: 0, ..Setup::default() },
            Setup { receive_buffer_bytes: 0, ..Setup::default() },
            Setup { capacity: u32::MAX, ..Setup::default() },
        ] {
            assert!(validate(&setup).is_err(), "{setup:?}");
        }
        validate(&Setup::default()).expect("the defaults make sense");
    }
}
