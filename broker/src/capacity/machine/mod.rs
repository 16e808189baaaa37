//! What the kernel tells of the machine and of this process's share of it, in /proc and /sys.
//!
//! Everything is read below a root that tests replace by a folder of their own. What cannot be read is `None`:
//! containers hide some of it, and older kernels have less.
//!
//! Not responsible for what the figures mean: [`connections`](crate::capacity::connections) and
//! [`doctor`](crate::capacity::doctor) know that.

mod cgroup;
#[cfg(test)]
pub(crate) mod fixture;
mod memory;

use std::fs;
use std::path::PathBuf;

pub use cgroup::Share;
pub use memory::{CgroupMemory, Memory};

/// A machine, as /proc and /sys show it to this process.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        Self::at("/")
    }

    /// The one whose `proc` and `sys` are below `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The content of the file at `path`, which begins with `/`, without white space around it.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()?;
        Some(text.trim().to_owned())
    }

    /// The number that the file at `path` begins with.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.split_whitespace().next()?.parse().ok()
    }

    /// A sysctl, such as `net.core.somaxconn`, as text.
    #[must_use]
    pub fn sysctl(&self, name: &str) -> Option<String> {
        self.read(&format!("/proc/sys/{}", name.replace('.', "/")))
    }

    /// All numbers of a sysctl.
    #[must_use]
    pub fn sysctl_numbers(&self, name: &str) -> Vec<u64> {
        self.sysctl(name).unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok()).collect()
    }

    /// A line of /proc/self/status, without its name.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<String> {
        let status = self.read("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// A line of /proc/self/limits: soft and hard, `u64::MAX` for unlimited.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<(u64, u64)> {
        let limits = self.read("/proc/self/limits")?;
        let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
        let mut words = rest.split_whitespace();
        Some((number(words.next()?)?, number(words.next()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::machine::fixture::Fixture;

    #[test]
    fn files_lines_and_limits_are_read() {
        let fixture = Fixture::new(&[
            ("/proc/sys/net/core/somaxconn", "4096\n"),
            ("/proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n"),
            ("/proc/self/status", "Name:\tringyard\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            (
                "/proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max open files            1024                 524288               files     \n\
                 Max locked memory         unlimited            unlimited            bytes     \n",
            ),
        ]);
        let machine = fixture.machine();
        assert_eq!(machine.sysctl("net.core.somaxconn").as_deref(), Some("4096"));
        assert_eq!(machine.number("/proc/sys/net/core/somaxconn"), Some(4096));
        assert_eq!(machine.sysctl_numbers("net.ipv4.tcp_mem"), [1, 2, 3]);
        assert_eq!(machine.status("Seccomp").as_deref(), Some("2"));
        assert_eq!(machine.status("Nothing"), None);
        assert_eq!(machine.limit("Max open files"), Some((1024, 524_288)));
        assert_eq!(machine.limit("Max locked memory"), Some((u64::MAX, u64::MAX)));
        assert_eq!(machine.number("/proc/sys/fs/file-max"), None);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::here();
        assert!(machine.limit("Max open files").is_some_and(|(soft, hard)| 0 < soft && soft <= hard));
        assert!(machine.memory().is_some_and(|memory| memory.available() > 0));
    }
}
