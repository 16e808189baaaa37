//! The memory that is there for connections: of the machine, and within the limit of the control group.

use crate::capacity::machine::Machine;
use crate::capacity::machine::cgroup::{Share, Version};

/// A limit of version 1 from here on is none: it is how the kernel writes that.
const UNLIMITED: u64 = 1 << 62;

/// Memory in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// What the kernel could give without swapping (`MemAvailable`).
    pub machine: u64,
    /// What the control group leaves.
    pub cgroup: Option<CgroupMemory>,
}

/// The memory of a control group, its limit and what is in use of it. What the kernel only keeps of files, and could
/// give back at once, is not in use.
pub type CgroupMemory = Share;

impl Memory {
    /// What this process may still take.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.cgroup.map_or(self.machine, |cgroup| cgroup.left().min(self.machine))
    }
}

impl Machine {
    /// The memory that is there.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        let info = self.read("/proc/meminfo")?;
        let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(Memory { machine: kib * 1024, cgroup: self.cgroup_memory() })
    }

    fn cgroup_memory(&self) -> Option<CgroupMemory> {
        let shares = self.groups("memory").into_iter().filter_map(|(version, group)| {
            let (limit, used, files) = match version {
                Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
                Version::Two => ("memory.max", "memory.current", "inactive_file "),
            };
            let limit = self.number(&format!("{group}/{limit}")).filter(|limit| *limit < UNLIMITED)?;
            let used = self.number(&format!("{group}/{used}")).unwrap_or(0);
            let stat = self.read(&format!("{group}/memory.stat")).unwrap_or_default();
            let files = stat.lines().find_map(|line| line.strip_prefix(files)?.trim().parse::<u64>().ok());
            Some(Share { limit, used: used.saturating_sub(files.unwrap_or(0)) })
        });
        shares.min_by_key(|share| share.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::machine::fixture::Fixture;

    const MEMINFO: (&str, &str) =
        ("/proc/meminfo", "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    4000000 kB\n");

    #[test]
    fn the_machines_memory_is_what_the_kernel_says_is_available() {
        let memory = Fixture::new(&[MEMINFO]).machine().memory().unwrap();
        assert_eq!(memory, Memory { machine: 4_096_000_000, cgroup: None });
        assert_eq!(memory.available(), 4_096_000_000);
        assert_eq!(Fixture::new(&[]).machine().memory(), None);
    }

    #[test]
    fn a_cgroups_limit_counts_where_it_is_less() {
        let fixture = Fixture::new(&[
            MEMINFO,
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/memory.max", "1000000\n"),
            ("/sys/fs/cgroup/memory.current", "700000\n"),
            ("/sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 200000\n"),
        ]);
        let memory = fixture.machine().memory().unwrap();
        assert_eq!(memory.cgroup, Some(Share { limit: 1_000_000, used: 500_000 }));
        assert_eq!(memory.available(), 500_000);
        let roomy = Fixture::new(&[
            MEMINFO,
            ("/proc/self/cgroup", "4:memory:/x\n"),
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9000000000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(roomy.machine().memory().unwrap().available(), 4_096_000_000);
        assert_eq!(roomy.machine().memory().unwrap().cgroup, Some(Share { limit: 9_000_000_000, used: 0 }));
    }

    #[test]
    fn no_limit_is_none() {
        for files in [
            [("/proc/self/cgroup", "0::/a"), ("/sys/fs/cgroup/a/memory.max", "max\n")],
            [
                ("/proc/self/cgroup", "4:memory:/"),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        ] {
            let fixture = Fixture::new(&[&[MEMINFO][..], &files].concat());
            assert_eq!(fixture.machine().memory().unwrap().cgroup, None, "{files:?}");
        }
    }
}
