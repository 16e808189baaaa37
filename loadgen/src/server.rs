//! What the server used: processor time and memory from `/proc`, and its own counters from `/api/stats`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Sub;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Processor time of all threads of a process, in nanoseconds (`/proc/PID/task/*/schedstat`, first field).
///
/// # Errors
/// When there is no such process.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("no process {pid}"))? {
        // A thread may end meanwhile.
        let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        sum +=
            line.split(' ').next().and_then(|field| field.parse::<u64>().ok()).context("schedstat without a number")?;
    }
    Ok(sum)
}

/// What a process holds of memory, in bytes (`/proc/PID/smaps_rollup`).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Resident, shared pages counted whole.
    pub rss_bytes: u64,
    /// Resident, shared pages counted in parts.
    pub pss_bytes: u64,
    /// Resident and belonging to no file.
    pub anonymous_bytes: u64,
}

impl Memory {
    /// Of process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let text =
            fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(|| format!("no process {pid}"))?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            let kilobytes: u64 =
                line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name}{line}"))?;
            anyhow::Ok(kilobytes * 1024)
        };
        Ok(Self { rss_bytes: bytes("Rss:")?, pss_bytes: bytes("Pss:")?, anonymous_bytes: bytes("Anonymous:")? })
    }
}

/// The server's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Sends completed.
    pub sends: u64,
    /// Messages sent, each counted once per subscriber.
    pub messages_out: u64,
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { sends: self.sends - earlier.sends, messages_out: self.messages_out - earlier.messages_out }
    }
}

impl Counters {
    /// Asks the server; nothing when it has no such page.
    pub(crate) fn ask(server: SocketAddr) -> Option<Self> {
        let stats = get_json(server, "/api/stats").ok()?;
        let sums = stats.get("totals").unwrap_or(&stats);
        let number = |name: &str| sums.get(name)?.as_u64();
        Some(Self { sends: number("sends")?, messages_out: number("messages_out")? })
    }
}

fn get_json(server: SocketAddr, path: &str) -> Result<Value> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without end of head")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(serde_json::from_str(body)?)
}
