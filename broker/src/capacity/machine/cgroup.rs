//! The control groups of this process, version 1 and 2: what share of the machine a container may have.
//!
//! A process is bounded by its group and by every group above it. In a container with a namespace of its own the
//! path is `/`; without one the path is the host's, and only its end can be seen. So each step of the path is tried,
//! from the process's own group to the mount itself.

use crate::capacity::machine::Machine;

/// What this process and its neighbours in the group may have of something, and what they have now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// At most.
    pub limit: u64,
    /// Now.
    pub used: u64,
}

impl Share {
    /// What is left.
    #[must_use]
    pub fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// Which of the two interfaces a group has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    One,
    Two,
}

impl Machine {
    /// The folders of this process's groups of one controller, its own first.
    pub(crate) fn groups(&self, controller: &str) -> Vec<(Version, String)> {
        let mut groups = Vec::new();
        for line in self.read("/proc/self/cgroup").unwrap_or_default().lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let (version, mounts): (_, &[String]) = match controllers {
                "" => (Version::Two, &["/sys/fs/cgroup".to_owned(), "/sys/fs/cgroup/unified".to_owned()]),
                _ if controllers.split(',').any(|name| name == controller) => {
                    (Version::One, &[format!("/sys/fs/cgroup/{controller}")])
                }
                _ => continue,
            };
            for mount in mounts {
                let mut path = path.trim_end_matches('/');
                loop {
                    groups.push((version, format!("{mount}{path}")));
                    let Some(end) = path.rfind('/') else { break };
                    path = &path[..end];
                }
            }
        }
        groups
    }

    /// Cores that the process may use at a time, in thousandths, if its groups limit that.
    #[must_use]
    pub fn cpu_quota_milli(&self) -> Option<u64> {
        let quotas = self.groups("cpu").into_iter().filter_map(|(version, group)| {
            let (quota, period): (u64, u64) = match version {
                Version::Two => {
                    let text = self.read(&format!("{group}/cpu.max"))?;
                    let (quota, period) = text.split_once(' ')?;
                    (quota.parse().ok()?, period.parse().ok()?)
                }
                // -1, no quota, is no u64.
                Version::One => (
                    self.number(&format!("{group}/cpu.cfs_quota_us"))?,
                    self.number(&format!("{group}/cpu.cfs_period_us"))?,
                ),
            };
            (quota * 1000).checked_div(period)
        });
        quotas.min()
    }

    /// Threads that the process's groups may have, if they limit that.
    #[must_use]
    pub fn pids(&self) -> Option<Share> {
        let shares = self.groups("pids").into_iter().filter_map(|(_, group)| {
            let limit = self.number(&format!("{group}/pids.max"))?;
            Some(Share { limit, used: self.number(&format!("{group}/pids.current")).unwrap_or(0) })
        });
        shares.min_by_key(|share| share.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::machine::fixture::Fixture;

    #[test]
    fn the_tightest_group_on_the_way_up_holds() {
        let fixture = Fixture::new(&[
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/a/b/pids.max", "max\n"),
            ("/sys/fs/cgroup/a/pids.max", "100\n"),
            ("/sys/fs/cgroup/a/pids.current", "60\n"),
            ("/sys/fs/cgroup/pids.max", "1000\n"),
        ]);
        assert_eq!(fixture.machine().cpu_quota_milli(), Some(1500));
        assert_eq!(fixture.machine().pids(), Some(Share { limit: 100, used: 60 }));
    }

    #[test]
    fn version_1_has_its_own_files() {
        let fixture = Fixture::new(&[
            ("/proc/self/cgroup", "4:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n8:pids:/docker/x\n0::/\n"),
            // Seen from inside: the host's path is not there.
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/pids/docker/x/pids.max", "9000\n"),
        ]);
        assert_eq!(fixture.machine().cpu_quota_milli(), Some(500));
        assert_eq!(fixture.machine().pids(), Some(Share { limit: 9000, used: 0 }));
    }

    #[test]
    fn without_limits_there_are_none() {
        for files in [
            &[][..],
            &[("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/cpu.max", "max 100000\n")],
            &[("/proc/self/cgroup", "2:cpu:/\n"), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")],
        ] {
            let fixture = Fixture::new(files);
            assert_eq!((fixture.machine().cpu_quota_milli(), fixture.machine().pids()), (None, None), "{files:?}");
        }
    }
}
