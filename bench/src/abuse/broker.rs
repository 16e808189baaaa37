//! The broker under attack: its process, the memory and descriptors that it holds, its exit status and log.

use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::confine::Confinement;
use super::peer::Address;
use super::port::Port;
use crate::process::Server;

/// How long the broker may take to end after SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// The field of its start line with the most resident memory that it will need, in bytes.
const RESIDENT_MAX: &str = "resident_bytes_max=";

/// Where a broker runs.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    /// The only core it may use.
    pub(super) core: Option<u32>,
    /// What bounds its memory.
    pub(super) confinement: Option<&'a Confinement>,
    /// Its port with TLS.
    pub(super) port: Option<&'a Port>,
}

/// What the process holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) resident_kib: u64,
    /// The most that was ever resident.
    pub(super) peak_kib: u64,
    pub(super) descriptors: usize,
}

/// Topics remember as much as by default, but not for as long: what is left behind is to be seen soon.
const RULES: &str = "[[topic]]\nmatch = '#'\nhistory-ttl = '1s'\n";

/// A broker.
pub(super) struct Broker {
    server: Server,
    /// Where its clients connect.
    pub(super) clients: Address,
    /// Its port with TLS.
    pub(super) tls: Option<SocketAddr>,
}

impl Deref for Broker {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Broker {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Broker {
    /// Starts it. Its allocator returns memory at once, so that resident memory is what the broker holds.
    pub(super) fn start(program: &Path, arguments: &[String], place: Place<'_>) -> Result<Self> {
        let mut command = command(program, place);
        let tables = place.port.map(Port::tables).transpose()?.unwrap_or_default();
        let rules = std::env::temp_dir().join(format!("ringyard-abuse-{}.toml", std::process::id()));
        std::fs::write(&rules, [RULES, &tables].concat()).with_context(|| format!("{}", rules.display()))?;
        command.args(arguments).env("MIMALLOC_PURGE_DELAY", "0").env("RINGYARD_CONFIG", rules).stderr(Stdio::piped());
        command.args(place.port.map(Port::argument));
        let server = Server::spawn(program, &mut command)?;
        let clients = Port::for_clients(place.port, server.address)?;
        Ok(Self { server, clients, tls: place.port.map(|port| port.socket) })
    }

    pub(super) fn held(&self) -> Result<Held> {
        held(self.pid())
    }

    /// The most resident memory that it announced when it started, in bytes.
    pub(super) fn resident_max(&self) -> Option<u64> {
        announced(&self.log())
    }

    /// Ends it; returns its exit status, how long that took, and its standard error.
    pub(super) fn end(self) -> Result<(ExitStatus, Duration, String)> {
        self.server.end(END_PATIENCE)
    }
}

/// What a process holds.
pub(super) fn held(pid: u32) -> Result<Held> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the broker is gone")?;
    let kib = |name: &str| -> Result<u64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).context("the broker has ended")?;
        value.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name} is no number"))
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("the broker's descriptors")?.count();
    Ok(Held { resident_kib: kib("VmRSS:")?, peak_kib: kib("VmHWM:")?, descriptors })
}

/// The command that starts `program` in `place`. Programs in between replace themselves, so that the child's id is the
/// broker's.
fn command(program: &Path, place: Place<'_>) -> Command {
    let mut words = Vec::new();
    if let Some(confinement) = place.confinement {
        words.extend(confinement.prefix());
    }
    if let Some(core) = place.core {
        words.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
    }
    match words.split_first() {
        None => Command::new(program),
        Some((first, others)) => {
            let mut command = Command::new(first);
            command.args(others).arg(program);
            command
        }
    }
}

fn announced(said: &str) -> Option<u64> {
    let from = &said[said.find(RESIDENT_MAX)? + RESIDENT_MAX.len()..];
    from[..from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_line_names_the_most_resident_memory() {
        assert_eq!(announced("INFO started shards=2 resident_bytes_max=123456 pid=7\n"), Some(123_456));
        assert_eq!(announced("resident_bytes_max=5"), Some(5));
        assert_eq!(announced("resident_bytes_max=many"), None);
        assert_eq!(announced("started pid=7"), None);
    }

    #[test]
    fn a_process_reports_what_it_holds() {
        let held = held(std::process::id()).unwrap();
        assert!(held.resident_kib > 0 && held.peak_kib >= held.resident_kib && held.descriptors > 2, "{held:?}");
    }
}
