//! The broker under siege: its process, what that process holds, and what it leaves behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::read_address;

/// How long the broker may take to end when asked to.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// A broker, pinned to no core.
pub(super) struct Broker {
    child: Child,
    pub(super) address: SocketAddr,
    stderr: Option<JoinHandle<String>>,
}

/// What the process holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) resident_kib: u64,
    pub(super) descriptors: usize,
}

impl Broker {
    /// Its allocator gives memory back at once: what is resident is what the broker holds.
    pub(super) fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut errors = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut said = Vec::new();
            // What was read before an error is kept.
            drop(errors.read_to_end(&mut said));
            String::from_utf8_lossy(&said).into_owned()
        });
        let Some(address) = read_address(&mut lines) else {
            drop(child.kill());
            bail!("{} ended without an address: {}", program.display(), child.wait()?);
        };
        // Reads on, so that the pipe does not fill up.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(Self { child, address, stderr: Some(stderr) })
    }

    pub(super) fn held(&self) -> Result<Held> {
        let pid = self.child.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the broker is gone")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the broker has ended")?;
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("the broker's descriptors")?.count();
        Ok(Held { resident_kib, descriptors })
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to end; how it did, after which time, and all it said on standard error.
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
        let said = self.stderr.take().expect("taken once").join().expect("a reader does not panic");
        Ok((status, took, said))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
