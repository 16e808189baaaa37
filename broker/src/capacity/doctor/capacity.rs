//! Descriptors, memory, and how many clients fit.

use ring::Io;

use crate::capacity::connections::{CONNECTION_BYTES, descriptors_for};
use crate::capacity::doctor::report::{bytes, grouped, limit, many};
use crate::capacity::doctor::{Finding, Look};
use crate::capacity::memory::{BASE_BYTES, MEMORY_PERCENT, RECORD_BYTES, SHARD_BYTES};

/// A limit of descriptors below this is the default of a distribution rather than anybody's choice.
const DESCRIPTORS_FEW: u64 = 10_000;
/// What to raise it to, when nobody said how many clients there will be.
const DESCRIPTORS_ENOUGH: u64 = 100_100;
/// Files that stay free for everybody else on the machine.
const FILES_SPARE: u64 = 10_000;

impl Look<'_> {
    pub(crate) fn capacity(&self) -> Vec<Finding> {
        vec![self.descriptors(), self.nr_open(), self.file_max(), self.memory(), self.plan(), self.clients()]
    }

    /// The limit of descriptors that the clients asked for need.
    fn descriptors_needed(&self) -> u64 {
        match self.plan.asked {
            Some(asked) => descriptors_for(self.io, u64::from(asked.get()), self.plan.shards),
            None => DESCRIPTORS_ENOUGH,
        }
    }

    fn descriptors(&self) -> Finding {
        let name = "descriptors";
        let Some((soft, hard)) = self.machine.limit("Max open files") else {
            return Finding::warning(name, "their limit cannot be read", "mount /proc");
        };
        let needed = self.descriptors_needed();
        let advice = format!(
            "ulimit -n {needed} (containers: --ulimit nofile={needed}:{needed}; systemd: LimitNOFILE={needed})"
        );
        let shards = u64::from(self.plan.shards);
        let room = match &self.room {
            Ok(room) => room,
            Err(sentence) => {
                let (value, change) = sentence.split_once(": ").unwrap_or((sentence, &advice));
                let raises = change.contains("ulimit");
                return Finding::problem(name, value, if raises { &advice } else { change });
            }
        };
        let each = room.by_descriptors / shards;
        let how = if soft < hard { "raised from the soft limit at start" } else { "soft and hard limit" };
        let value = format!(
            "{} ({how}): {} for each shard, {} for {}",
            limit(hard),
            many(each, "connection"),
            grouped(room.by_descriptors),
            many(shards, "shard")
        );
        if hard < DESCRIPTORS_FEW && self.plan.asked.is_none() {
            return Finding::warning(name, value, advice);
        }
        Finding::ok(name, value)
    }

    /// No limit of descriptors may be above it.
    fn nr_open(&self) -> Finding {
        let name = "fs.nr_open";
        let Some(most) = self.machine.number("/proc/sys/fs/nr_open") else {
            return Finding::ok(name, "not known");
        };
        let needed = self.descriptors_needed().max(self.descriptors);
        if self.plan.asked.is_some() && needed > most {
            let value = format!("{}: no process may have the {} descriptors needed", limit(most), grouped(needed));
            return Finding::warning(name, value, format!("sysctl -w fs.nr_open={needed}"));
        }
        Finding::ok(name, limit(most))
    }

    /// Files that all processes of the machine may still open; every connection is one, whatever the driver.
    fn files_left(&self) -> Option<u64> {
        match self.machine.sysctl_numbers("fs.file-nr")[..] {
            [open, _, most] => Some(most.saturating_sub(open)),
            _ => None,
        }
    }

    fn file_max(&self) -> Finding {
        let name = "fs.file-max";
        let Some(left) = self.files_left() else { return Finding::ok(name, "not known") };
        let needed = self.connections() + FILES_SPARE;
        if left > u64::MAX / 4 {
            return Finding::ok(name, "no limit that matters");
        }
        if left >= needed {
            return Finding::ok(name, format!("the machine may open {} more files", grouped(left)));
        }
        let most = self.machine.number("/proc/sys/fs/file-max").unwrap_or(0);
        Finding::warning(
            name,
            format!("the machine may open {} more files, {} may be needed", grouped(left), grouped(needed)),
            format!("sysctl -w fs.file-max={}", most + needed - left),
        )
    }

    fn memory(&self) -> Finding {
        let name = "memory";
        let Some(memory) = self.memory else {
            return Finding::warning(name, "what is available cannot be read", "mount /proc");
        };
        let mut value = format!("{} available", bytes(memory.machine));
        if let Some(cgroup) = memory.cgroup {
            value.push_str(&format!(", the control group leaves {} of {}", bytes(cgroup.left()), bytes(cgroup.limit)));
        }
        let Some((fit, budget)) = self.most.and_then(|room| Some((room.by_memory?, room.memory.budget_bytes))) else {
            return Finding::ok(name, value);
        };
        value.push_str(&format!(
            ": beside {} for --max-memory about {} connections of {} KiB in {MEMORY_PERCENT} % of it",
            bytes(budget),
            grouped(fit),
            CONNECTION_BYTES >> 10
        ));
        if self.plan.asked.is_some_and(|asked| u64::from(asked.get()) > fit) {
            let others = self
                .room
                .as_ref()
                .map_or(0, |room| room.resident_bytes_max() - u64::from(room.connections_max) * RECORD_BYTES);
            let needed = (self.connections() * CONNECTION_BYTES + others) / MEMORY_PERCENT * 100;
            let advice =
                format!("--max-connections {}, or make {} available (containers: --memory)", fit.max(1), bytes(needed));
            return Finding::warning(name, value, advice);
        }
        Finding::ok(name, value)
    }

    /// What the process takes at most, part by part, and whether that is there.
    fn plan(&self) -> Finding {
        let name = "memory plan";
        let Some(room) = self.room.as_ref().ok().copied().or(self.most) else {
            return Finding::ok(name, "not known: there is no room for connections");
        };
        let (plan, resident) = (room.memory, room.resident_bytes_max());
        let value = format!(
            "{} bytes resident at most: {} the program, {} each of {}, {} bytes each of {} connections, {} held for clients (--max-memory) and {} that the allocator may take besides",
            grouped(resident),
            bytes(BASE_BYTES),
            bytes(SHARD_BYTES),
            many(u64::from(self.plan.shards), "shard"),
            RECORD_BYTES,
            grouped(u64::from(room.connections_max)),
            bytes(plan.budget_bytes),
            bytes(plan.held_bytes_max() - plan.budget_bytes)
        );
        let Some(memory) = self.memory else { return Finding::ok(name, value) };
        let others = resident - plan.held_bytes_max();
        if resident <= memory.available() {
            return Finding::ok(name, value);
        }
        // A third of what is held is the allocator's.
        let budget = memory.available().saturating_sub(others) / 3 * 2;
        let available = bytes(resident);
        let advice = match budget >> 20 {
            0..4 => format!("lower --max-connections, or make {available} available (containers: --memory)"),
            mib => format!("--max-memory {mib}m, or make {available} available (containers: --memory)"),
        };
        Finding::warning(name, format!("{value}: more than the {} available", bytes(memory.available())), advice)
    }

    fn clients(&self) -> Finding {
        let name = "clients that fit";
        let by_descriptors = self.most.map(|room| room.by_descriptors);
        let limits = [
            (if self.io == Io::Uring { "the shards' tables" } else { "descriptors" }, by_descriptors),
            ("memory", self.most.and_then(|room| room.by_memory)),
            ("fs.file-max", self.files_left().map(|left| left.saturating_sub(FILES_SPARE))),
            ("net.ipv4.tcp_mem", self.tcp_pages_max()),
            ("connection tracking", self.tracked().map(|share| share.left())),
        ];
        let mut limits: Vec<_> = limits.into_iter().filter_map(|(name, fit)| Some((fit?, name))).collect();
        limits.sort_unstable();
        let Some((fit, by)) = limits.first().copied() else { return Finding::ok(name, "not known") };
        let next = limits.get(1).map(|(fit, by)| format!("; next {by}, {}", limit(*fit))).unwrap_or_default();
        let value = format!("{}, by {by}{next}", grouped(fit));
        match self.plan.asked {
            Some(asked) if u64::from(asked.get()) > fit => Finding::warning(
                name,
                format!("{value}; --max-connections asks for {}", grouped(u64::from(asked.get()))),
                format!("do what the other lines say, or --max-connections {}", fit.max(1)),
            ),
            _ => Finding::ok(name, value),
        }
    }
}
