//! The broker under attack: its process, the memory and descriptors that it holds, its exit status and log.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::confine::Confinement;
use crate::process::addresses;

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
}

/// A broker.
pub(super) struct Broker {
    child: Child,
    pub(super) address: SocketAddr,
    /// The operators' address; the public one when there is no other.
    pub(super) operators: SocketAddr,
    /// Its standard error so far, and the thread that reads it.
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// What the process holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) resident_kib: u64,
    /// The most that was ever resident.
    pub(super) peak_kib: u64,
    pub(super) descriptors: usize,
}

impl Broker {
    /// Starts it. Its allocator returns memory at once, so that resident memory is what the broker holds.
    pub(super) fn start(program: &Path, arguments: &[String], place: Place<'_>) -> Result<Self> {
        let mut child = command(program, place)
            .args(arguments)
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let errors = BufReader::new(child.stderr.take().expect("piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let reader = thread::spawn({
            let said = Arc::clone(&said);
            move || {
                for line in errors.split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&format!("{line}\n"));
                }
            }
        });
        let mut named = lines.by_ref().map_while(Result::ok).map(|line| addresses(&line).collect::<Vec<_>>());
        let Some(named) = named.find(|named| !named.is_empty()) else {
            drop(child.kill());
            let status = child.wait()?;
            reader.join().expect("a reader does not panic");
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("{} ended without an address: {status}: {said}", program.display());
        };
        // Reads on, so that the pipe does not fill up.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let (address, operators) = (named[0], *named.last().expect("not empty"));
        Ok(Self { child, address, operators, said, reader: Some(reader) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn held(&self) -> Result<Held> {
        held(self.pid())
    }

    /// The most resident memory that it announced when it started, in bytes.
    pub(super) fn resident_max(&self) -> Option<u64> {
        announced(&self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it with SIGTERM; returns its exit status, how long that took, and its standard error.
    pub(super) fn end(mut self) -> Result<(ExitStatus, Duration, String)> {
        if self.ended()?.is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
            kill_process(pid, Signal::TERM)?;
        }
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.ended()? {
                break status;
            }
            if begun.elapsed() > END_PATIENCE {
                bail!("the broker did not end within {END_PATIENCE:?} of SIGTERM");
            }
            thread::sleep(Duration::from_millis(20));
        };
        let took = begun.elapsed();
        self.reader.take().expect("taken once").join().expect("a reader does not panic");
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((status, took, said))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
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
