//! Start-up: what the driver needs of the kernel, what the kernel has, and what to change where it lacks
//! something. Every [`SetupError`] reads as one sentence for the operator.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode};

use super::UringDriver;
use crate::{Driver, Nanos, limits};

/// What a [`UringDriver`] is made of.
#[derive(Debug)]
pub struct Setup {
    /// A listening socket (see [`listen`](crate::listen)), if this driver accepts. Others may share it, to hand it over.
    pub listener: Option<Arc<OwnedFd>>,
    /// Another one, beside the first. Its connections are reported as such ([`Event::Accepted`](crate::Event::Accepted)).
    pub second: Option<Arc<OwnedFd>>,
    /// Connections at most: places in the direct-descriptor table, each 12 bytes once used.
    pub capacity: u32,
    /// Buffers that received bytes land in; a power of two up to 32,768.
    pub receive_buffers: u16,
    /// Size of each; the most that one `Received` carries.
    pub receive_buffer_bytes: u32,
    /// Operations that one system call submits at most; rounded up to a power of two. The completion
    /// queue has eight times as many places.
    pub submission_entries: u32,
    /// Whether this driver reaches out ([`Dial`](crate::Dial)). To one that does not, its own ring forbids it.
    pub dials: bool,
}

impl Default for Setup {
    /// 19,900 connections, 128 receive buffers of 4 KiB, 1,024 submission entries, no listener, no dials.
    fn default() -> Self {
        Self {
            listener: None,
            second: None,
            capacity: 19_900,
            receive_buffers: 128,
            receive_buffer_bytes: 4096,
            submission_entries: 1024,
            dials: false,
        }
    }
}

/// What the kernel has beyond what the driver needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionalFeatures {
    /// `IORING_OP_FIXED_FD_INSTALL` (Linux 6.8). Without it `Driver::install` reports `EOPNOTSUPP`.
    pub install: bool,
    /// A closed direct descriptor is released at once (Linux 6.13). Before, the socket lingers until older
    /// operations of the ring are over, so the driver shuts it down first: the peer sees the end at once. An
    /// installed socket is left alone; the owner of its descriptor ends it.
    pub prompt_close: bool,
    /// The ring forbids itself what the driver does not do (`IORING_REGISTER_RESTRICTIONS`, Linux 5.10).
    pub restricted: bool,
}

/// Why io_uring cannot be used. `Display` is one sentence that says what to change.
#[derive(Debug)]
pub enum SetupError {
    /// `ENOSYS`: a kernel without io_uring, or a sandbox that hides it.
    Missing {
        /// The kernel's release, as `uname -r` prints it.
        release: String,
    },
    /// `EPERM` with the sysctl `kernel.io_uring_disabled` at 1 or 2.
    Disabled {
        /// The sysctl's value.
        value: u8,
    },
    /// `EPERM` from a seccomp profile.
    Forbidden,
    /// `io_uring_setup` is allowed, but another call that the driver needs is refused.
    Refused {
        /// Which: `io_uring_enter` or `io_uring_register`.
        call: &'static str,
        /// The answer: `EPERM`, `EACCES` or `ENOSYS`.
        answer: &'static str,
    },
    /// A kernel that lacks something the driver cannot do without.
    KernelTooOld {
        /// The kernel's release, as `uname -r` prints it.
        release: String,
        /// What is missing.
        missing: &'static str,
    },
    /// `ENOMEM`: the rings and buffers exceed `RLIMIT_MEMLOCK`, or memory is out.
    Memory {
        /// The soft limit in bytes.
        memlock: u64,
    },
    /// More direct descriptors than `RLIMIT_NOFILE` allows.
    TableTooLarge {
        /// How many were asked for.
        capacity: u32,
        /// The soft limit.
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
            Self::Missing { release } if at_least(release, OLDEST) => write!(
                f,
                "io_uring is hidden from this process although Linux {release} has it: a container's seccomp \
                 profile (Podman) or a sandbox (gVisor) answers ENOSYS; allow io_uring_setup, io_uring_enter \
                 and io_uring_register in its profile"
            ),
            Self::Missing { release } => {
                write!(f, "Linux {release} has no io_uring: run Linux 6.1 or newer")
            }
            Self::Disabled { value: 1 } => write!(
                f,
                "io_uring is limited to one group by the sysctl kernel.io_uring_disabled=1: set it to 0 or add \
                 the user to the group kernel.io_uring_group"
            ),
            Self::Disabled { value } => write!(
                f,
                "io_uring is switched off by the sysctl kernel.io_uring_disabled={value}: set it to 0 \
                 (sysctl -w kernel.io_uring_disabled=0)"
            ),
            Self::Forbidden => write!(
                f,
                "io_uring is forbidden by a seccomp profile (Docker's default since version 25): start the \
                 container with a profile that allows io_uring_setup, io_uring_enter and io_uring_register"
            ),
            Self::Refused { call, answer } => write!(
                f,
                "{call} is refused ({answer}) although io_uring_setup is allowed, as by a seccomp profile that lists \
                 only some of the calls: allow io_uring_setup, io_uring_enter and io_uring_register in its profile"
            ),
            Self::KernelTooOld { release, missing } => {
                write!(f, "Linux {release} lacks {missing}: run Linux 6.1 or newer")
            }
            Self::Memory { memlock } => write!(
                f,
                "the kernel has no memory left for the rings within RLIMIT_MEMLOCK ({memlock} bytes): raise it \
                 (ulimit -l) or ask for fewer receive buffers and submission entries"
            ),
            Self::TableTooLarge { capacity, limit } => write!(
                f,
                "{capacity} connections per shard exceed the limit of {limit} open files: raise it \
                 (ulimit -n {capacity}) or ask for at most {limit}"
            ),
            Self::Invalid(what) => f.write_str(what),
            Self::Other { doing, error } => write!(f, "{doing} failed: {error}"),
        }
    }
}

impl std::error::Error for SetupError {}

/// Asks the kernel what it has, by making a small driver and running it for one turn, which submits a read and
/// waits for a millisecond at most. So every system call and every registration that a driver cannot do without is
/// made here once.
///
/// # Errors
/// If [`UringDriver::new`] could not succeed here, or what it makes could not run.
pub fn probe() -> Result<OptionalFeatures, SetupError> {
    const WAIT_NS: Nanos = 1_000_000;
    let mut driver =
        UringDriver::new(Setup { capacity: 1, receive_buffers: 1, submission_entries: 8, ..Setup::default() })?;
    let deadline = driver.now() + WAIT_NS;
    driver.turn(Some(deadline), &mut Vec::new()).map_err(failed("io_uring_enter", "running the ring"))?;
    Ok(driver.optional_features())
}

/// What a failed `call` means for a ring that was made. `doing` is what it was made for.
pub(super) fn failed(call: &'static str, doing: &'static str) -> impl Fn(io::Error) -> SetupError {
    move |error| match error.raw_os_error() {
        Some(libc::EPERM) => SetupError::Refused { call, answer: "EPERM" },
        Some(libc::EACCES) => SetupError::Refused { call, answer: "EACCES" },
        Some(libc::ENOSYS) => SetupError::Refused { call, answer: "ENOSYS" },
        Some(libc::ENOMEM) => SetupError::Memory { memlock: limits::locked_memory() },
        _ => SetupError::Other { doing, error },
    }
}

/// Refuses figures that make no sense before the kernel does.
pub(super) fn validate(setup: &Setup) -> Result<(), SetupError> {
    if setup.capacity == 0 {
        return Err(SetupError::Invalid("a driver needs room for at least one connection"));
    }
    if !setup.receive_buffers.is_power_of_two() || setup.receive_buffers > 1 << 15 {
        return Err(SetupError::Invalid("the number of receive buffers must be a power of two up to 32768"));
    }
    if setup.receive_buffer_bytes == 0 || setup.receive_buffer_bytes > 1 << 24 {
        return Err(SetupError::Invalid("a receive buffer must have between 1 byte and 16 MiB"));
    }
    if setup.submission_entries == 0 || setup.submission_entries > 1 << 15 {
        return Err(SetupError::Invalid("the number of submission entries must be between 1 and 32768"));
    }
    let limit = limits::descriptors();
    if u64::from(setup.capacity) > limit {
        return Err(SetupError::TableTooLarge { capacity: setup.capacity, limit });
    }
    Ok(())
}

/// A ring as the driver wants it: not enabled yet, so that it can be restricted before.
pub(super) fn build_ring(entries: u32) -> Result<IoUring, SetupError> {
    let mut builder = IoUring::builder();
    builder
        .setup_clamp()
        .setup_submit_all()
        .setup_coop_taskrun()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_r_disabled()
        .setup_cqsize(entries.saturating_mul(8));
    builder.build(entries).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => SetupError::Missing { release: kernel_release() },
        Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
            0 => SetupError::Forbidden,
            value => SetupError::Disabled { value },
        },
        Some(libc::ENOMEM) => SetupError::Memory { memlock: limits::locked_memory() },
        Some(libc::EINVAL) => too_old("IORING_SETUP_DEFER_TASKRUN"),
        _ => SetupError::Other { doing: "io_uring_setup", error },
    })
}

/// What `ring`'s kernel has; whether the ring can be restricted shows when it is.
pub(super) fn optional_features(ring: &IoUring) -> Result<OptionalFeatures, SetupError> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(failed("io_uring_register", "asking io_uring for its operations"))?;
    for (code, name) in NEEDED {
        if !probe.is_supported(code) {
            return Err(too_old(name));
        }
    }
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
        return Err(too_old("IORING_FEAT_EXT_ARG"));
    }
    Ok(OptionalFeatures {
        install: probe.is_supported(opcode::FixedFdInstall::CODE),
        prompt_close: at_least(&kernel_release(), (6, 13)),
        restricted: false,
    })
}

const OLDEST: (u32, u32) = (6, 1);

const NEEDED: [(u8, &str); 9] = [
    (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT"),
    (opcode::RecvMulti::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
    (opcode::AsyncCancel2::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::Shutdown::CODE, "IORING_OP_SHUTDOWN"),
    (opcode::Close::CODE, "IORING_OP_CLOSE"),
    (opcode::FilesUpdate::CODE, "IORING_OP_FILES_UPDATE"),
    (opcode::Read::CODE, "IORING_OP_READ"),
];

fn too_old(missing: &'static str) -> SetupError {
    SetupError::KernelTooOld { release: kernel_release(), missing }
}

fn disabled_by_sysctl() -> u8 {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    value.trim().parse().unwrap_or(0)
}

fn kernel_release() -> String {
    // SAFETY: `utsname` is plain bytes, for which zero is a valid value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `uname` fills the structure it is given, which lives through the call.
    unsafe { libc::uname(&raw mut name) };
    // SAFETY: `release` is an array inside `name`, NUL-terminated by `uname` (or by the zeroes from above).
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    release.to_string_lossy().into_owned()
}

/// Whether a release like `6.18.44-rc1` is `major.minor` or newer. One that cannot be read is not.
pub(crate) fn at_least(release: &str, (major, minor): (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(a)), Some(Ok(b))) => (a, b) >= (major, minor),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        assert!(at_least("6.18.44-cloud", (6, 13)));
        assert!(at_least("10.0", (6, 13)));
        assert!(!at_least("6.1.0-44-amd64", (6, 13)));
        assert!(at_least("6.1.0-44-amd64", OLDEST));
        assert!(!at_least("5.15", OLDEST));
        assert!(!at_least("?", OLDEST));
    }

    #[test]
    fn every_error_is_one_sentence_that_says_what_to_change() {
        let errors = [
            SetupError::Missing { release: "6.18.1".into() },
            SetupError::Missing { release: "4.19".into() },
            SetupError::Disabled { value: 1 },
            SetupError::Disabled { value: 2 },
            SetupError::Forbidden,
            SetupError::Refused { call: "io_uring_enter", answer: "EPERM" },
            SetupError::KernelTooOld { release: "5.15".into(), missing: "IORING_OP_SEND" },
            SetupError::Memory { memlock: 65_536 },
            SetupError::TableTooLarge { capacity: 30_000, limit: 20_000 },
        ];
        for error in errors {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n') && !sentence.contains("  "), "{sentence}");
            let advises = ["run", "allow", "set", "allows", "raise"].iter().any(|verb| sentence.contains(verb));
            assert!(advises, "{sentence}");
        }
    }

    #[test]
    fn this_machine_is_probed() {
        probe().expect("the tests need io_uring");
    }
}
