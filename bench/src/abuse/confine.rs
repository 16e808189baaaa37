//! A limit of the broker's memory that the kernel enforces: a control group of version 2 or 1, or, where neither can be
//! created, a limit of its address space.
//!
//! Not responsible for the broker's own limits, which must fit. The group is removed at the end. Units: bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Attempts to remove the group, [`RETRY`] apart: the kernel releases its last process a little later.
const REMOVALS_MAX: u32 = 100;
const RETRY: Duration = Duration::from_millis(20);

/// The limit.
pub(super) enum Confinement {
    /// A control group, of which the broker is the only process.
    Group(Group),
    /// `RLIMIT_AS`.
    AddressSpace(u64),
}

/// A control group.
pub(super) struct Group {
    folder: PathBuf,
    version: &'static Version,
}

/// What differs between the versions of control groups.
struct Version {
    name: &'static str,
    /// Usual mount points; the group of this process is below.
    mounts: &'static [&'static str],
    /// The beginning of its line in /proc/self/cgroup, after the hierarchy's number.
    controller: &'static str,
    limit: &'static str,
    peak: &'static str,
    events: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        name: "a control group of version 2 (memory.max)",
        mounts: &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
        controller: ":",
        limit: "memory.max",
        peak: "memory.peak",
        events: "memory.events",
    },
    Version {
        name: "a control group of version 1 (memory.limit_in_bytes)",
        mounts: &["/sys/fs/cgroup/memory"],
        controller: "memory:",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
        events: "memory.oom_control",
    },
];

impl Confinement {
    /// The first that can be made here, with room for `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = format!("ringyard-abuse-{}", std::process::id());
        for version in &VERSIONS {
            let below = own_group(&own, version.controller);
            for mount in version.mounts {
                for parent in [Path::new(mount).join(below), PathBuf::from(mount)] {
                    if let Some(group) = Group::make(parent.join(&name), version, bytes) {
                        return Self::Group(group);
                    }
                }
            }
        }
        Self::AddressSpace(bytes)
    }

    /// A description.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Group(group) => group.version.name,
            Self::AddressSpace(_) => "RLIMIT_AS, for no control group can be made here",
        }
    }

    /// The words before a command that run it within the limit.
    pub(super) fn prefix(&self) -> Vec<String> {
        match self {
            Self::Group(group) => {
                let script = r#"echo $$ > "$1/cgroup.procs" && shift && exec "$@""#;
                ["sh", "-c", script, "sh", &group.folder.to_string_lossy()].map(str::to_owned).to_vec()
            }
            Self::AddressSpace(bytes) => vec!["prlimit".to_owned(), format!("--as={bytes}")],
        }
    }

    /// The most memory that the group used, including the kernel's share.
    pub(super) fn peak(&self) -> Option<u64> {
        let Self::Group(group) = self else { return None };
        fs::read_to_string(group.folder.join(group.version.peak)).ok()?.trim().parse().ok()
    }

    /// Processes that the kernel killed for want of memory.
    pub(super) fn kills(&self) -> u64 {
        let Self::Group(group) = self else { return 0 };
        let events = fs::read_to_string(group.folder.join(group.version.events)).unwrap_or_default();
        events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Group {
    fn make(folder: PathBuf, version: &'static Version, bytes: u64) -> Option<Self> {
        fs::create_dir(&folder).ok()?;
        let group = Self { folder, version };
        // The file exists only with the memory controller: a plain folder is no group.
        let limit = group.folder.join(version.limit);
        let limited = limit.exists() && fs::write(limit, bytes.to_string()).is_ok();
        limited.then_some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVALS_MAX {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(RETRY);
        }
        eprintln!("bench: {} could not be removed", self.folder.display());
    }
}

/// The path of the own group below the mount, from the text of /proc/self/cgroup (cgroups(7)).
fn own_group<'a>(own: &'a str, controller: &str) -> &'a str {
    let lines = own.lines().filter_map(|line| line.split_once(':'));
    let path = lines.filter_map(|(_, rest)| rest.strip_prefix(controller)).next();
    path.unwrap_or_default().trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_both_versions() {
        let own = "5:memory:/user/one\n3:cpu,cpuacct:/\n0::/system.slice/a\n";
        assert_eq!(own_group(own, VERSIONS[0].controller), "system.slice/a");
        assert_eq!(own_group(own, VERSIONS[1].controller), "user/one");
        assert_eq!(own_group("", VERSIONS[1].controller), "");
    }

    #[test]
    fn a_folder_without_the_controller_is_no_group_and_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("group");
        assert!(Group::make(folder.clone(), &VERSIONS[0], 1 << 20).is_none());
        assert!(!folder.exists());
    }
}
