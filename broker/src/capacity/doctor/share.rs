//! The share of the machine that the control groups leave to the broker: cores and threads.

use crate::capacity::doctor::report::{grouped, many};
use crate::capacity::doctor::{Finding, Look};

/// Threads besides the shards': the control plane's, those that resolve names, and the kernel's for io_uring.
const THREADS_BESIDES: u64 = 8;

impl Look<'_> {
    pub(crate) fn share(&self) -> Vec<Finding> {
        vec![self.cores(), self.threads()]
    }

    fn cores(&self) -> Finding {
        let (shards, cores) = (u64::from(self.plan.shards), self.facts.cores);
        let quota = self.machine.cpu_quota_milli();
        let mut value = format!("{} on {}", many(shards, "shard"), many(cores, "core"));
        if let Some(milli) = quota {
            value.push_str(&format!(", the control group's share {}.{:02}", milli / 1000, milli % 1000 / 10));
        }
        let useful = quota.map_or(cores, |milli| milli.div_ceil(1000).clamp(1, cores));
        // More shards than cores hold more connections, where descriptors are few.
        let table = self.most.map_or(1, |room| (room.by_descriptors / shards).max(1));
        let needed = self.plan.asked.map_or(1, |asked| u64::from(asked.get()).div_ceil(table));
        if shards > useful.max(needed) {
            return Finding::warning(
                "cores",
                format!("{value}: some shards wait for others"),
                format!("--shards {}, or more cores (containers: --cpus {shards})", useful.max(needed)),
            );
        }
        Finding::ok("cores", value)
    }

    fn threads(&self) -> Finding {
        let needed = u64::from(self.plan.shards) + THREADS_BESIDES;
        match self.machine.pids() {
            None => Finding::ok("threads", "the control group sets no limit"),
            Some(share) if share.left() >= needed => {
                Finding::ok("threads", format!("the control group leaves {}", grouped(share.left())))
            }
            Some(share) => Finding::problem(
                "threads",
                format!("the control group leaves {}, {needed} are needed", share.left()),
                format!("raise pids.max to {} (containers: --pids-limit {0})", share.used + 2 * needed),
            ),
        }
    }
}
