//! Servers and clients as child processes, each on its own core. They end with their owner.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use loadgen::Outcome;
use loadgen::crowd::Crowd;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

/// The broker: the one given, or `ringyard` beside this program.
pub(crate) fn broker(given: Option<&Path>) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("ringyard");
    let broker = given.map_or(beside, Path::to_owned);
    ensure!(broker.exists(), "no broker at {}: build it with cargo build --release", broker.display());
    Ok(broker)
}

/// The cores of a measurement: server and client never share one.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct CoreOptions {
    /// The server's core, or the sender's
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: u32,
    /// The client's core, or the receivers'
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: u32,
}

/// The cores of server and client; `None`: the kernel chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: Option<u32>,
    pub(crate) client: Option<u32>,
}

/// A server that has printed its address. It is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The operators' address; the same when there is no other.
    pub(crate) operators: SocketAddr,
    /// Reads all further lines, so that the pipe does not fill up; returns the last.
    lines: Option<JoinHandle<Option<String>>>,
    /// Standard error so far, if it is a pipe, and the thread that reads it.
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts `program` and waits for the first line with an address of this machine.
    pub(crate) fn start(program: &Path, core: Option<u32>, arguments: &[&str]) -> Result<Self> {
        Self::spawn(program, bound(program, core).args(arguments))
    }

    /// The same with a command that starts `program`.
    pub(crate) fn spawn(program: &Path, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let log = Arc::new(Mutex::new(String::new()));
        let log_reader = child.stderr.take().map(|errors| {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                    *lock(&log) += &(String::from_utf8_lossy(&line).into_owned() + "\n");
                }
            })
        });
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut printed = lines.by_ref().map_while(Result::ok).map(|line| addresses(&line).collect::<Vec<_>>());
        let printed = printed.find(|printed| !printed.is_empty()).unwrap_or_default();
        let (Some(&address), Some(&operators)) = (printed.first(), printed.last()) else {
            drop(child.kill());
            let status = child.wait()?;
            log_reader.into_iter().for_each(|reader| reader.join().expect("a reader does not panic"));
            bail!("{} ended without an address: {status}: {}", program.display(), lock(&log));
        };
        let lines = Some(thread::spawn(move || lines.map_while(Result::ok).last()));
        Ok(Self { child, address, operators, lines, log, log_reader })
    }

    /// The server's last line, after it has ended by itself.
    pub(crate) fn last_line(mut self) -> Result<String> {
        let line = self.lines.take().expect("taken once").join().expect("a reader does not panic");
        let status = self.child.wait()?;
        ensure!(status.success(), "the server failed: {status}");
        line.context("the server printed nothing before it ended")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error so far.
    pub(crate) fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it with SIGTERM; returns its exit status, how long that took, and its standard error.
    pub(crate) fn end(mut self, patience: Duration) -> Result<(ExitStatus, Duration, String)> {
        if self.ended()?.is_none() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process has an id")?;
            kill_process(pid, Signal::TERM)?;
        }
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.ended()? {
                break status;
            }
            ensure!(begun.elapsed() < patience, "the server did not end within {patience:?} of SIGTERM");
            thread::sleep(Duration::from_millis(20));
        };
        let took = begun.elapsed();
        self.log_reader.take().into_iter().for_each(|reader| reader.join().expect("a reader does not panic"));
        Ok((status, took, self.log()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lock(log: &Mutex<String>) -> MutexGuard<'_, String> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the load generator against `server` and returns its report. A run with errors is an error, because its figures
/// mean nothing.
pub(crate) fn run_client(server: &Server, core: Option<u32>, arguments: &[&str]) -> Result<Outcome> {
    let outcome: Outcome = results_of(server, core, arguments)?;
    if let Some(end) = outcome.stalled.as_ref().or(outcome.ended.as_ref()) {
        bail!("{end}");
    }
    ensure!(outcome.good(), "messages went wrong: {:?}", outcome.errors);
    Ok(outcome)
}

/// The same with the scenario `presence-crowd`, whose report is another one, judged by the caller.
pub(crate) fn run_crowd(server: &Server, core: Option<u32>, arguments: &[&str]) -> Result<Crowd> {
    results_of(server, core, arguments)
}

/// What the load generator writes as JSON.
fn results_of<T: DeserializeOwned>(server: &Server, core: Option<u32>, arguments: &[&str]) -> Result<T> {
    let json = tempfile::NamedTempFile::new()?;
    let status = bound(&std::env::current_exe()?, core)
        .args(["client", "--quiet"])
        .args(["--url", &format!("ws://{}/sub/bench", server.address)])
        .args(["--server-pid", &server.pid().to_string(), "--json"])
        .arg(json.path())
        .args(arguments)
        .status()
        .context("starting the load generator")?;
    // It has printed its report, or the reason why there is none.
    ensure!(matches!(status.code(), Some(0 | 1 | 3)), "the load generator failed: {status}");
    Ok(serde_json::from_str(&std::fs::read_to_string(json.path())?)?)
}

/// A command that runs on this core, and gets SIGTERM when the thread that starts it ends.
pub(crate) fn bound(program: &Path, core: Option<u32>) -> Command {
    // Both replace themselves by the program that they start, so that the child's id is the program's.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(core) = core {
        command.args(["taskset", "-c", &core.to_string()]);
    }
    command.arg(program);
    command
}

/// The addresses of this machine in a line of text, in order, but for that of the broker's port with TLS.
fn addresses(line: &str) -> impl Iterator<Item = SocketAddr> {
    let line = line.split(", TLS: ").next().unwrap_or_default();
    line.match_indices("127.0.0.1:").filter_map(|(at, _)| {
        let from = &line[at..];
        let end = from.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(from.len());
        from[..end].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_a_line_are_found() {
        let line = "2 shards on io_uring, http://127.0.0.1:4711/, operators: http://127.0.0.1:4712/metrics";
        assert_eq!(addresses(line).map(|address| address.port()).collect::<Vec<_>>(), [4711, 4712]);
        assert_eq!(addresses(&format!("{line}, TLS: https://127.0.0.1:4713/")).count(), 2);
        assert_eq!(addresses("http://[::1]:80/ and 127.0.0.1:x").count(), 0);
    }
}
