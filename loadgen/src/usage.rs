//! What processes use: processor time and memory from `/proc`, and a Ringyard broker's own counters from `/api/stats`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::machine::meminfo;
use crate::outcome::Memory;

/// Processor time of all threads of a process, in nanoseconds (`/proc/PID/task/*/schedstat`, first field).
///
/// # Errors
/// When there is no such process.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("no process {pid}"))? {
        // A thread may end meanwhile.
        if let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) {
            sum += schedstat(&line).0;
        }
    }
    Ok(sum)
}

/// Processor time of the calling thread, and how long it waited for a core; nanoseconds.
pub(crate) fn thread() -> (u64, u64) {
    schedstat(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

fn schedstat(line: &str) -> (u64, u64) {
    let mut fields = line.split_whitespace().map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

/// What a process holds of memory (`/proc/PID/smaps_rollup`), and what the machine's sockets do.
///
/// # Errors
/// When there is no such process.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name}{line}"))?;
        anyhow::Ok(kilobytes * 1024)
    };
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let pages = sockets
        .lines()
        .find_map(|line| line.strip_prefix("TCP:")?.split_once("mem ")?.1.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Ok(Memory {
        anonymous: bytes("Anonymous:")?,
        pss: bytes("Pss:")?,
        tcp: pages * rustix::param::page_size() as u64,
        slab: meminfo("Slab").unwrap_or(0),
        available: meminfo("MemAvailable").unwrap_or(0),
    })
}

/// A process's anonymous memory, in bytes (`/proc/PID/status`, `RssAnon`): cheaper than [`memory`], which walks every page.
pub(crate) fn anonymous(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The server's processes.
#[derive(Debug)]
pub(crate) struct Server {
    pids: Vec<u32>,
    address: SocketAddr,
}

impl Server {
    /// Nothing when no process was named.
    ///
    /// # Errors
    /// When one is not there, or not to be looked at.
    pub(crate) fn new(pids: Vec<u32>, address: SocketAddr) -> Result<Option<Self>> {
        for pid in &pids {
            cpu_ns(*pid).and_then(|_| memory(*pid)).with_context(|| format!("--server-pid {pid}"))?;
        }
        Ok((!pids.is_empty()).then_some(Self { pids, address }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pids[0]
    }

    /// Of all its processes; of those that are gone, nothing.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.pids.iter().filter_map(|pid| cpu_ns(*pid).ok()).sum()
    }

    pub(crate) fn anonymous(&self) -> u64 {
        self.pids.iter().filter_map(|pid| anonymous(*pid)).sum()
    }

    /// Of all its processes; of those that are gone, nothing.
    pub(crate) fn memory(&self) -> Memory {
        self.pids.iter().filter_map(|pid| memory(*pid).ok()).fold(Memory::default(), |sum, one| Memory {
            anonymous: sum.anonymous + one.anonymous,
            pss: sum.pss + one.pss,
            ..one
        })
    }

    /// Sends and messages that a Ringyard broker counted; nothing when it is none.
    pub(crate) fn counters(&self) -> Option<(u64, u64)> {
        let stats = get_json(self.address, "/api/stats").ok()?;
        let sums = stats.get("totals").unwrap_or(&stats);
        let number = |name: &str| sums.get(name)?.as_u64();
        Some((number("sends")?, number("messages_out")?))
    }
}

fn get_json(server: SocketAddr, path: &str) -> Result<Value> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without end of head")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(serde_json::from_str(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        assert!(cpu_ns(pid).unwrap() > 0);
        let memory = memory(pid).unwrap();
        assert!(memory.anonymous > 0 && memory.pss >= memory.anonymous / 2);
        assert!(anonymous(pid).unwrap() > 0);
        assert!(cpu_ns(u32::MAX).is_err());
        let address = "127.0.0.1:1".parse().unwrap();
        let server = Server::new(vec![pid, pid], address).unwrap().unwrap();
        assert!(server.memory().anonymous >= memory.anonymous);
        assert!(Server::new(Vec::new(), address).unwrap().is_none());
        assert!(format!("{:#}", Server::new(vec![u32::MAX], address).unwrap_err()).contains("--server-pid 4294967295"));
        assert!(server.counters().is_none());
    }
}
