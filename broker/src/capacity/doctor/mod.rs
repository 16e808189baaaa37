//! `ringyard doctor`: looks at the machine as the broker would with the same options, and says of each thing whether
//! it is as it should be, and if not, the command that mends it.
//!
//! | file | what it looks at |
//! | --- | --- |
//! | `kernel` | the kernel, io_uring and what forbids it, huge pages, clocks |
//! | `capacity` | descriptors, memory, how many clients fit |
//! | `network` | backlog, ports, TCP's memory, connection tracking |
//! | `certificates` | when the certificates of `[[tls]]` end |
//! | `share` | cores and threads that the control groups leave |
//! | `report` | findings as a screen or as JSON |
//!
//! Everything is read from a [`Machine`], so that tests can show it any; what only a system call tells comes in as
//! [`Facts`]. Nothing is changed, and nothing here decides what the broker does.
//!
//! A *problem* keeps the broker from starting, or from doing what was asked. A *warning* is what it can live with.

mod capacity;
mod certificates;
mod kernel;
mod network;
mod report;
mod share;
#[cfg(test)]
mod tests;

use std::num::{NonZeroU32, NonZeroUsize};
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::{Cause, Feature, Io};

use crate::capacity::connections::Capacity;
use crate::capacity::machine::{Machine, Memory};
use crate::capacity::memlock::{self, MemlockDeficit};
use crate::capacity::memory::MemoryPlan;

pub use report::{Finding, Report, Status};

/// What the broker is going to be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What moves the bytes; `None`: io_uring where it can be used, else epoll.
    pub io: Option<Io>,
    /// How many shards.
    pub shards: u16,
    /// `--max-connections`.
    pub asked: Option<NonZeroU32>,
    /// `--max-memory`.
    pub memory_asked: Option<u64>,
    /// Bytes that other settings need of it.
    pub memory_bytes_least: u64,
    /// The file of each certificate for `--tls-listen`, and when it ends, in seconds since 1970, or what is wrong with it.
    pub certificates: Vec<(String, Result<u64, String>)>,
    /// What is wrong with the configuration, a sentence each.
    pub wrong: Vec<String>,
}

/// What no file tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The features of io_uring, or why it cannot be used.
    pub io_uring: Result<Vec<Feature>, Cause>,
    /// Cores that the process may use at a time.
    pub cores: u64,
    /// Since 1970.
    pub now: Duration,
    /// Variables of the environment that look like a setting's, each with the name it should have.
    pub misnamed: Vec<(String, String)>,
}

impl Facts {
    /// Those of this process.
    #[must_use]
    pub fn here(misnamed: Vec<(String, String)>) -> Self {
        Self {
            io_uring: ring::features(),
            cores: available_parallelism().map_or(1, NonZeroUsize::get) as u64,
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            misnamed,
        }
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(machine: &Machine, plan: &Plan, facts: &Facts) -> Report {
    let look = Look::new(machine, plan, facts);
    let mut findings = configuration(plan, facts);
    findings.extend(certificates::look(plan, facts));
    findings.extend(look.kernel());
    findings.extend(look.capacity());
    findings.extend(look.share());
    findings.extend(look.network());
    Report(findings)
}

fn configuration(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let name = "configuration";
    let wrong = plan.wrong.iter().map(|sentence| Finding::problem(name, sentence, "ringyard config check"));
    let misnamed = facts.misnamed.iter().map(|(variable, meant)| {
        Finding::warning(name, format!("the variable {variable} says nothing"), format!("name it {meant}, or unset it"))
    });
    let findings: Vec<_> = wrong.chain(misnamed).collect();
    if findings.is_empty() {
        return vec![Finding::ok(name, "nothing is wrong with flags, environment and file")];
    }
    findings
}

/// What every examination starts from.
struct Look<'a> {
    machine: &'a Machine,
    plan: &'a Plan,
    facts: &'a Facts,
    /// The driver that would run.
    io: Io,
    /// Too little memory may be locked for the rings of all shards.
    memlock_deficit: Option<MemlockDeficit>,
    /// Descriptors that the process may have once the broker has raised its limit.
    descriptors: u64,
    memory: Option<Memory>,
    /// The room that the broker would find, or why it would not start.
    room: Result<Capacity, String>,
    /// The room that there is if nobody asks for more.
    most: Option<Capacity>,
}

impl<'a> Look<'a> {
    fn new(machine: &'a Machine, plan: &'a Plan, facts: &'a Facts) -> Self {
        let memlock_deficit = memlock::deficit(machine, plan.shards);
        let io = match plan.io {
            None if facts.io_uring.is_err() || memlock_deficit.is_some() => Io::Epoll,
            chosen => chosen.unwrap_or(Io::Uring),
        };
        let descriptors = machine.limit("Max open files").map_or(1024, |(_, hard)| hard);
        let memory = machine.memory();
        let available = memory.map(|memory| memory.available());
        let shared = MemoryPlan::new(plan.memory_asked, plan.memory_bytes_least, plan.shards, available);
        let room = Capacity::new(io, plan.asked, plan.shards, descriptors, shared);
        let most = Capacity::new(io, None, plan.shards, descriptors, shared).ok();
        Self { machine, plan, facts, io, memlock_deficit, descriptors, memory, room, most }
    }

    /// Connections that the machine has to be made for: those asked for, or those that the broker would allow.
    fn connections(&self) -> u64 {
        let asked = self.plan.asked.map(|asked| u64::from(asked.get()));
        asked.unwrap_or_else(|| self.room.as_ref().map_or(0, |room| u64::from(room.connections_max)))
    }
}
