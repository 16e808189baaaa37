//! The kernel, whether it lets the broker use io_uring, and how it treats memory and time.

use ring::{Cause, Io, is_at_least};

use crate::capacity::doctor::report::{bytes, many};
use crate::capacity::doctor::{Finding, Look};
use crate::capacity::memlock::{self, MemlockDeficit};

/// The first version of Linux whose io_uring has all that the broker needs.
const ENOUGH: (u32, u32) = (6, 8);
/// A clock that shows less than this, 2025-01-01, was not set.
const CLOCK_LEAST_SECS: u64 = 1_735_689_600;
/// Clocks that take a device access, microseconds, to read; a shard reads its clock every turn.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "pit"];

impl Look<'_> {
    pub(crate) fn kernel(&self) -> Vec<Finding> {
        let mut findings = vec![self.version(), self.io_uring()];
        findings.extend(self.features());
        findings.extend([
            self.driver(),
            self.seccomp(),
            self.switched_off(),
            self.memlock(),
            self.huge_pages(),
            self.clock_source(),
            self.clock(),
        ]);
        findings
    }

    fn version(&self) -> Finding {
        let Some(release) = self.machine.sysctl("kernel.osrelease") else {
            return Finding::warning("kernel", "its version cannot be read", "mount /proc");
        };
        let value = format!("Linux {release}");
        if is_at_least(&release, ENOUGH.0, ENOUGH.1) || self.plan.io == Some(Io::Epoll) {
            return Finding::ok("kernel", value);
        }
        let (major, minor) = ENOUGH;
        Finding::warning(
            "kernel",
            format!("{value} is too old for this io_uring driver"),
            format!("run Linux {major}.{minor} or newer"),
        )
    }

    fn io_uring(&self) -> Finding {
        let name = "io_uring";
        let cause = match &self.facts.io_uring {
            Ok(_) => return Finding::ok(name, "can be used"),
            Err(cause) => cause,
        };
        let sentence = cause.to_string();
        // The cause, and what to change.
        let (value, change) = sentence.split_once(": ").unwrap_or((&sentence, "see the kernel's log (dmesg)"));
        let advice = match cause {
            Cause::Seccomp { .. } => format!(
                "{change}: --security-opt seccomp=seccomp.json (docker run, podman run; the file is deploy/seccomp.json)"
            ),
            _ => change.to_owned(),
        };
        match self.plan.io {
            Some(Io::Epoll) => Finding::ok(name, format!("not needed with --io epoll ({value})")),
            None => Finding::warning(name, value, advice),
            Some(Io::Uring) => Finding::problem(name, value, advice),
        }
    }

    fn features(&self) -> Option<Finding> {
        let features = self.facts.io_uring.as_ref().ok()?;
        let supported: Vec<_> =
            features.iter().filter(|feature| feature.supported).map(|feature| feature.name).collect();
        let missing: Vec<_> = features
            .iter()
            .filter(|feature| !feature.supported)
            .map(|feature| format!("{} (Linux {})", feature.name, feature.since))
            .collect();
        let mut value = supported.join(", ");
        if !missing.is_empty() {
            value.push_str(&format!("; not here: {}", missing.join(", ")));
        }
        Some(Finding::ok("io_uring features", value))
    }

    fn driver(&self) -> Finding {
        let choice = match self.plan.io {
            None => "auto",
            Some(Io::Uring) => "uring",
            Some(Io::Epoll) => "epoll",
        };
        if self.plan.io == Some(Io::Uring) && self.facts.io_uring.is_err() {
            return Finding::problem("driver", "none: the broker does not start with --io uring", "--io auto");
        }
        Finding::ok("driver", format!("{}, by --io {choice}", self.io))
    }

    fn seccomp(&self) -> Finding {
        let value = match self.machine.status("Seccomp").as_deref() {
            Some("0") => "no filter",
            Some("1") => "strict",
            Some("2") => "a filter is in force",
            _ => "not known",
        };
        Finding::ok("seccomp", value)
    }

    fn switched_off(&self) -> Finding {
        let name = "kernel.io_uring_disabled";
        let Some(value) = self.machine.sysctl(name) else {
            return Finding::ok(name, "is not there: nothing is switched off by it");
        };
        let meaning = match value.as_str() {
            "0" => "everybody may use io_uring",
            "1" => "only a group may use io_uring",
            _ => "nobody may use io_uring",
        };
        let value = format!("{value}: {meaning}");
        if value.starts_with('0') || self.facts.io_uring.is_ok() || self.plan.io == Some(Io::Epoll) {
            return Finding::ok(name, value);
        }
        Finding::warning(name, value, "sysctl -w kernel.io_uring_disabled=0")
    }

    /// The kernel counts rings and their buffers as locked memory of the user, unless it is privileged.
    fn memlock(&self) -> Finding {
        const ADVICE: &str = "ulimit -l unlimited (containers: --ulimit memlock=-1:-1; systemd: LimitMEMLOCK=infinity)";
        let name = "memlock";
        let Some((soft, hard)) = self.machine.limit("Max locked memory") else {
            return Finding::ok(name, "not known");
        };
        let value = format!("{} (hard limit {})", bytes(soft), bytes(hard));
        if self.plan.io != Some(Io::Epoll) && matches!(self.facts.io_uring, Err(Cause::Memory { .. })) {
            return Finding::warning(name, format!("{value}: too little for a ring"), ADVICE);
        }
        if memlock::is_exempt(self.machine) {
            return Finding::ok(name, format!("{value}, which CAP_IPC_LOCK lifts"));
        }
        let Some(MemlockDeficit { needed, .. }) = self.memlock_deficit else { return Finding::ok(name, value) };
        let value =
            format!("{value}: the rings of {} need about {}", many(self.plan.shards.into(), "shard"), bytes(needed));
        match self.plan.io {
            Some(Io::Epoll) => Finding::ok(name, value),
            None => Finding::warning(name, value, ADVICE),
            Some(Io::Uring) => Finding::problem(name, value, ADVICE),
        }
    }

    fn huge_pages(&self) -> Finding {
        let name = "huge pages";
        let enabled = self.machine.read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        match self.machine.status("THP_enabled").as_deref() {
            Some("0") => Finding::ok(name, "the broker gets none, as it should be"),
            _ if enabled.contains("[always]") => Finding::warning(
                name,
                "the broker cannot decline transparent huge pages: it may take more memory",
                "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            ),
            _ => Finding::ok(name, "none unless asked for"),
        }
    }

    fn clock_source(&self) -> Finding {
        let folder = "/sys/devices/system/clocksource/clocksource0";
        match self.machine.read(&format!("{folder}/current_clocksource")) {
            Some(source) if SLOW_CLOCKS.contains(&source.as_str()) => {
                let others = self.machine.read(&format!("{folder}/available_clocksource")).unwrap_or_default();
                let better = others.split_whitespace().find(|other| !SLOW_CLOCKS.contains(other)).unwrap_or("tsc");
                Finding::warning(
                    "clock source",
                    format!("{source}, which is slow to read"),
                    format!("echo {better} > {folder}/current_clocksource"),
                )
            }
            Some(source) => Finding::ok("clock source", source),
            None => Finding::ok("clock source", "not known"),
        }
    }

    fn clock(&self) -> Finding {
        let secs = self.facts.now.as_secs();
        if secs < CLOCK_LEAST_SECS {
            return Finding::warning(
                "time",
                format!("the clock shows {secs} s since 1970: epochs of topics, taken from it, could come twice"),
                "timedatectl set-ntp true",
            );
        }
        Finding::ok("time", "the clock is set")
    }
}
