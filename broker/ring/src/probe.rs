//! Which driver this host allows, and where it is not io_uring, why: one sentence that names the cause and the
//! change that would enable io_uring.
//!
//! The system calls answer with very few errors for very many causes. What surrounds the process distinguishes
//! them: the `Seccomp:` line of its status, the sysctls `kernel.io_uring_disabled` and `io_uring_group`, and the
//! kernel's version.

use std::fmt;
use std::fs;

use crate::uring::{self, SetupError};

/// The drivers for real sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// [`uring::UringDriver`].
    Uring,
    /// [`epoll::EpollDriver`](crate::epoll::EpollDriver).
    Epoll,
}

impl Io {
    /// As operators and programs read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why io_uring cannot be used. `Display` is one sentence: the cause, and what to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A seccomp filter answers.
    Seccomp {
        /// The first call that it refuses: `io_uring_setup` where it forbids all of them, as container engines do.
        call: &'static str,
        /// Its answer: `EPERM` is Docker's and containerd's, `ENOSYS` Podman's.
        answer: &'static str,
    },
    /// The sysctl `kernel.io_uring_disabled`.
    Sysctl {
        /// Its value, 1 or 2.
        value: u8,
        /// The sysctl `kernel.io_uring_group`: who may use io_uring all the same at 1. Negative: nobody.
        group: i64,
    },
    /// `EPERM` or `EACCES`, but neither by a seccomp filter nor by the sysctl.
    SecurityModule,
    /// The kernel is gVisor's.
    GVisor,
    /// A kernel that could have io_uring was built without it.
    NotBuilt {
        /// As `uname -r` prints it.
        release: String,
    },
    /// The kernel is older than what the driver is written for.
    KernelTooOld {
        /// As `uname -r` prints it.
        release: String,
    },
    /// The kernel has io_uring, but lacks something that the broker needs.
    MissingOperation {
        /// As `uname -r` prints it.
        release: String,
        /// What is missing.
        operation: &'static str,
    },
    /// `ENOMEM`: the limit of locked memory, or memory is out.
    Memory {
        /// The soft limit of locked memory (`RLIMIT_MEMLOCK`), in bytes.
        memlock: u64,
    },
    /// Anything else, in the driver's words.
    Other(String),
}

impl Cause {
    /// One word for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Seccomp { .. } => "seccomp",
            Self::Sysctl { .. } => "sysctl",
            Self::SecurityModule => "security_module",
            Self::GVisor => "gvisor",
            Self::NotBuilt { .. } => "not_built",
            Self::KernelTooOld { .. } => "kernel_too_old",
            Self::MissingOperation { .. } => "missing_operation",
            Self::Memory { .. } => "memory",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALLOW: &str = "start it with a profile that allows io_uring_setup, io_uring_enter and io_uring_register";
        match self {
            Self::Seccomp { call, answer } if *call != SETUP => {
                write!(f, "a seccomp profile allows {SETUP} but refuses {call} ({answer}): {ALLOW}")
            }
            Self::Seccomp { answer: answer @ "ENOSYS", .. } => {
                write!(f, "a seccomp profile hides io_uring ({answer}, as Podman's default profile does): {ALLOW}")
            }
            Self::Seccomp { answer, .. } => {
                write!(f, "a seccomp profile forbids io_uring ({answer}, as Docker's default profile does): {ALLOW}")
            }
            Self::Sysctl { value: 1, group } if *group < 0 => write!(
                f,
                "the sysctl kernel.io_uring_disabled=1 leaves io_uring to a group, and kernel.io_uring_group names \
                 none: have that name a group of this user, or run: sysctl -w kernel.io_uring_disabled=0"
            ),
            Self::Sysctl { value: 1, group } => write!(
                f,
                "the sysctl kernel.io_uring_disabled=1 leaves io_uring to the group {group} \
                 (kernel.io_uring_group): add this user to it, or run: sysctl -w kernel.io_uring_disabled=0"
            ),
            Self::Sysctl { value, .. } => write!(
                f,
                "the sysctl kernel.io_uring_disabled={value} switches io_uring off: \
                 run: sysctl -w kernel.io_uring_disabled=0"
            ),
            Self::SecurityModule => write!(
                f,
                "io_uring is refused although neither a seccomp filter nor kernel.io_uring_disabled forbids it: \
                 allow it in the policy of the security module (SELinux, AppArmor)"
            ),
            Self::GVisor => write!(
                f,
                "this sandbox is gVisor, whose kernel has no io_uring that serves: \
                 run the container with another runtime than runsc, such as runc"
            ),
            Self::NotBuilt { release } => {
                write!(f, "Linux {release} is built without io_uring: run a kernel with CONFIG_IO_URING=y")
            }
            Self::KernelTooOld { release } => {
                write!(f, "Linux {release} is too old for this io_uring driver: run Linux {NEEDED} or newer")
            }
            Self::MissingOperation { release, operation } => {
                write!(f, "the io_uring of Linux {release} lacks {operation}: run Linux {NEEDED} or newer")
            }
            Self::Memory { memlock } => write!(
                f,
                "the kernel has no memory for the rings within the limit of locked memory ({memlock} bytes): \
                 raise it (ulimit -l unlimited)"
            ),
            Self::Other(sentence) => f.write_str(sentence),
        }
    }
}

/// The call that a profile which forbids io_uring refuses first.
const SETUP: &str = "io_uring_setup";
/// The oldest kernel that has everything.
const NEEDED: &str = "6.8";

/// Asks the kernel, by making and running a small driver, whether the broker can run on io_uring: with everything
/// that [`Driver`](crate::Driver) promises, `install` included.
///
/// # Errors
/// The [`Cause`].
pub fn probe() -> Result<(), Cause> {
    match uring::probe() {
        Ok(features) if features.install => Ok(()),
        Ok(_) => {
            let missing = SetupError::KernelTooOld { release: release(), missing: "IORING_OP_FIXED_FD_INSTALL" };
            Err(cause_here(missing))
        }
        Err(error) => Err(cause_here(error)),
    }
}

/// The likeliest cause of what the driver met on this host.
pub(crate) fn cause_here(error: SetupError) -> Cause {
    cause(error, &Surroundings::here())
}

/// What tells causes apart.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Surroundings {
    /// A seccomp filter is in force for this thread.
    filtered: bool,
    /// `kernel.io_uring_disabled`, since Linux 6.6.
    disabled: u8,
    /// `kernel.io_uring_group`.
    group: i64,
    /// This process may use io_uring although `disabled` is 1.
    exempt: bool,
    gvisor: bool,
}

impl Surroundings {
    fn here() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
        let group = number("/proc/sys/kernel/io_uring_group").unwrap_or(-1);
        // A filter is the thread's own; without /proc it is the likeliest of all causes.
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_else(|_| "Seccomp:\t2".to_owned());
        Self {
            filtered: field(&status, "Seccomp:") == Some("2"),
            disabled: number("/proc/sys/kernel/io_uring_disabled").map_or(0, |value| value as u8),
            group,
            exempt: is_exempt(&status, group),
            gvisor: is_gvisor(&fs::read_to_string("/proc/version").unwrap_or_default()),
        }
    }
}

/// The rest of a line of /proc/self/status.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// In the group, or with `CAP_SYS_ADMIN`.
fn is_exempt(status: &str, group: i64) -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let capabilities = field(status, "CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let groups = [field(status, "Gid:"), field(status, "Groups:")].into_iter().flatten();
    let mut groups = groups.flat_map(str::split_whitespace);
    capabilities.is_some_and(|mask| mask & CAP_SYS_ADMIN != 0) || groups.any(|id| id.parse() == Ok(group))
}

/// gVisor calls itself Linux 4.4.0 or 4.19.0-gvisor, and all its releases claim to be built at the same moment.
fn is_gvisor(version: &str) -> bool {
    version.contains("gvisor") || version.contains("#1 SMP Sun Jan 10 15:06:54 PST 2016")
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

/// The likeliest cause of what the driver met. What must be changed first comes first.
fn cause(error: SetupError, at: &Surroundings) -> Cause {
    if at.gvisor {
        return Cause::GVisor;
    }
    match error {
        SetupError::Missing { .. } if at.filtered => Cause::Seccomp { call: SETUP, answer: "ENOSYS" },
        SetupError::Missing { release } if uring::at_least(&release, (5, 1)) => Cause::NotBuilt { release },
        SetupError::Missing { release } => Cause::KernelTooOld { release },
        SetupError::Disabled { .. } | SetupError::Forbidden => match at.disabled {
            1 if !at.exempt => Cause::Sysctl { value: 1, group: at.group },
            value @ 2.. => Cause::Sysctl { value, group: at.group },
            _ if at.filtered => Cause::Seccomp { call: SETUP, answer: "EPERM" },
            _ => Cause::SecurityModule,
        },
        SetupError::Refused { call, answer } if at.filtered => Cause::Seccomp { call, answer },
        SetupError::Refused { answer: "EPERM" | "EACCES", .. } => Cause::SecurityModule,
        SetupError::KernelTooOld { release, .. } if !uring::at_least(&release, (6, 1)) => {
            Cause::KernelTooOld { release }
        }
        SetupError::KernelTooOld { release, missing } => Cause::MissingOperation { release, operation: missing },
        SetupError::Memory { memlock } => Cause::Memory { memlock },
        other => Cause::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Surroundings = Surroundings { filtered: false, disabled: 0, group: -1, exempt: false, gvisor: false };

    fn missing(release: &str) -> SetupError {
        SetupError::Missing { release: release.to_owned() }
    }

    fn refused(answer: &'static str) -> SetupError {
        SetupError::Refused { call: "io_uring_enter", answer }
    }

    fn lacks(release: &str) -> SetupError {
        SetupError::KernelTooOld { release: release.to_owned(), missing: "IORING_OP_FIXED_FD_INSTALL" }
    }

    /// One row per cause: the driver's error, the surroundings, and words of the sentence.
    #[test]
    fn causes_are_distinguished() {
        let filtered = Surroundings { filtered: true, ..OPEN };
        let one = Surroundings { disabled: 1, ..filtered.clone() };
        let two = Surroundings { disabled: 2, exempt: true, ..filtered.clone() };
        let gvisor = Surroundings { gvisor: true, ..OPEN };
        let rows: [(SetupError, Surroundings, &[&str]); 19] = [
            (SetupError::Forbidden, filtered.clone(), &["seccomp", "EPERM", "Docker", "allows io_uring_setup"]),
            (missing("6.18.1"), filtered.clone(), &["seccomp", "ENOSYS", "Podman", "allows io_uring_setup"]),
            (SetupError::Disabled { value: 2 }, OPEN, &["security module"]),
            (SetupError::Disabled { value: 2 }, two.clone(), &["io_uring_disabled=2", "sysctl -w"]),
            (SetupError::Forbidden, two, &["io_uring_disabled=2", "sysctl -w"]),
            (SetupError::Disabled { value: 1 }, one.clone(), &["io_uring_disabled=1", "names none", "sysctl -w"]),
            (
                SetupError::Disabled { value: 1 },
                Surroundings { group: 998, ..one.clone() },
                &["io_uring_disabled=1", "the group 998", "add this user"],
            ),
            // The sysctl would let it through; the filter does not.
            (SetupError::Disabled { value: 1 }, Surroundings { exempt: true, ..one }, &["seccomp", "EPERM"]),
            (SetupError::Forbidden, OPEN, &["security module", "allow it"]),
            (missing("4.4.0"), gvisor.clone(), &["gVisor", "runc"]),
            (SetupError::Invalid("whatever its io_uring answers"), gvisor, &["gVisor", "runc"]),
            (missing("6.18.1"), OPEN, &["6.18.1", "CONFIG_IO_URING"]),
            (missing("4.19.0"), OPEN, &["4.19.0", "too old", "6.8"]),
            (lacks("5.15.0"), filtered.clone(), &["5.15.0", "too old", "6.8"]),
            (lacks("6.1.0-44-amd64"), filtered.clone(), &["6.1.0-44-amd64", "IORING_OP_FIXED_FD_INSTALL", "6.8"]),
            (
                refused("ENOSYS"),
                filtered.clone(),
                &["seccomp", "refuses io_uring_enter (ENOSYS)", "allows io_uring_setup"],
            ),
            (refused("EPERM"), OPEN, &["security module"]),
            (refused("ENOSYS"), OPEN, &["io_uring_enter is refused (ENOSYS)"]),
            (SetupError::Memory { memlock: 65_536 }, OPEN, &["65536 bytes", "ulimit -l"]),
        ];
        for (error, at, words) in rows {
            let sentence = cause(error, &at).to_string();
            for word in words {
                assert!(sentence.contains(word), "{word}: {sentence}");
            }
            assert!(!sentence.contains('\n') && !sentence.contains("  "), "{sentence}");
            // `: ` parts the cause from the change.
            assert!(sentence.contains(": "), "{sentence}");
        }
    }

    #[test]
    fn a_status_tells_filters_groups_and_capabilities() {
        let status = "Name:\tringyard\nGid:\t100\t100\t100\t100\nGroups:\t4 998 \nCapEff:\t0000000000000000\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Seccomp:"), Some("2"));
        for (group, exempt) in [(998, true), (4, true), (100, true), (5, false), (-1, false)] {
            assert_eq!(is_exempt(status, group), exempt, "{group}");
        }
        assert!(is_exempt("CapEff:\t000001ffffffffff\n", -1));
        assert!(!is_exempt("CapEff:\t00000000a80425fb\n", -1), "Docker's default capabilities");
    }

    #[test]
    fn gvisor_is_recognised() {
        for version in [
            "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n",
            "Linux version 4.19.0-gvisor #1 SMP Sun Jan 10 15:06:54 PST 2016\n",
        ] {
            assert!(is_gvisor(version), "{version}");
        }
        assert!(!is_gvisor("Linux version 6.18.44 (gcc 14.2.0) #1 SMP PREEMPT_DYNAMIC Sun Jan 10 2026\n"));
    }

    #[test]
    fn this_machine_allows_io_uring() {
        probe().expect("the tests need io_uring");
    }
}
