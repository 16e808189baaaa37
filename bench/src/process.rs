//! Servers and clients as child processes, each on its own core. They end with their owner.

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail, ensure};
use loadgen::Outcome;

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

/// A server that has printed its address.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Reads all further lines, so that the pipe does not fill up; returns the last.
    reader: Option<JoinHandle<Option<String>>>,
}

impl Server {
    /// Starts `program` and waits for the first line with an address of this machine.
    pub(crate) fn start(program: &Path, core: Option<u32>, arguments: &[&str]) -> Result<Self> {
        let mut child = bound(program, core)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let Some(address) = read_address(&mut lines) else {
            drop(child.kill());
            bail!("{} ended without an address: {}", program.display(), child.wait()?);
        };
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).last());
        Ok(Self { child, address, reader: Some(reader) })
    }

    /// The server's last line, after it has ended by itself.
    pub(crate) fn last_line(mut self) -> Result<String> {
        let reader = self.reader.take().expect("taken once");
        let line = reader.join().expect("a reader does not panic");
        let status = self.child.wait()?;
        ensure!(status.success(), "the server failed: {status}");
        line.context("the server printed nothing before it ended")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs the load generator against `server` and returns its report. A run with errors is an error, because its figures
/// mean nothing.
pub(crate) fn run_client(server: &Server, core: Option<u32>, arguments: &[&str]) -> Result<Outcome> {
    let json = tempfile::NamedTempFile::new()?;
    let status = bound(&std::env::current_exe()?, core)
        .args(["client", "--quiet"])
        .args(["--url", &format!("ws://{}/sub/bench", server.address)])
        .args(["--server-pid", &server.pid().to_string(), "--json"])
        .arg(json.path())
        .args(arguments)
        .status()
        .context("starting the load generator")?;
    ensure!(status.code().is_some_and(|code| code < 2), "the load generator failed: {status}");
    let outcome: Outcome = serde_json::from_str(&std::fs::read_to_string(json.path())?)?;
    ensure!(outcome.good(), "messages went wrong: {:?}", outcome.errors);
    Ok(outcome)
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

/// The first address of this machine that a server prints.
pub(crate) fn read_address(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<SocketAddr> {
    lines.map_while(Result::ok).find_map(|line| addresses(&line).next())
}

/// The addresses of this machine in a line of text, in order.
pub(crate) fn addresses(line: &str) -> impl Iterator<Item = SocketAddr> {
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
        assert_eq!(addresses("http://[::1]:80/ and 127.0.0.1:x").count(), 0);
    }
}
