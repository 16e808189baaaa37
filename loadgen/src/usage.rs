//! Processor time and memory of processes, from `/proc`, and a Ringyard broker's own counters, from `/api/stats`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::adapter::without_scheme;
use crate::client;
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

/// The memory of a process (`/proc/PID/smaps_rollup`) and of the machine's sockets.
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

/// Where a broker has its counters: `http://host:port`, with `/api/stats` if no path is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatsUrl {
    address: SocketAddr,
    /// As the user wrote it: the value of `Host`.
    host: String,
    path: String,
}

impl FromStr for StatsUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: it must be http://HOST:PORT, with or without a path");
        let rest = without_scheme(text, "http").ok_or_else(wrong)?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.len() > 1 { path } else { PATH };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let address = host.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong)?;
        Ok(Self { address, host: host.to_owned(), path: path.to_owned() })
    }
}

/// Where a broker's counters are.
const PATH: &str = "/api/stats";

/// The server's processes.
#[derive(Debug)]
pub(crate) struct Server {
    pids: Vec<u32>,
    stats: StatsUrl,
    /// What was last seen of each process: a process that has ended tells nothing any more.
    seen: RefCell<BTreeMap<u32, Seen>>,
}

/// What was last seen of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    cpu_ns: u64,
    memory: Memory,
}

impl Server {
    /// Nothing without processes. The counters are at `address` unless `stats` says otherwise.
    ///
    /// # Errors
    /// When a process does not exist or cannot be read, or `stats` gives no counters.
    pub(crate) fn new(pids: Vec<u32>, stats: Option<StatsUrl>, address: SocketAddr) -> Result<Option<Self>> {
        for pid in &pids {
            cpu_ns(*pid).and_then(|_| memory(*pid)).with_context(|| format!("--server-pid {pid}"))?;
        }
        if let Some(stats) = &stats {
            get_json(stats).with_context(|| format!("--server-stats: no counters at {}{}", stats.host, stats.path))?;
        }
        let stats = stats.unwrap_or_else(|| StatsUrl { address, host: address.to_string(), path: PATH.to_owned() });
        Ok((!pids.is_empty()).then_some(Self { pids, stats, seen: RefCell::default() }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pids[0]
    }

    /// Of all its processes; of one that has ended what it had used when it was last looked at.
    pub(crate) fn cpu_ns(&self) -> u64 {
        let mut seen = self.seen.borrow_mut();
        let mut of = |pid: u32| {
            let seen = seen.entry(pid).or_default();
            // A thread that ends takes its time along.
            seen.cpu_ns = seen.cpu_ns.max(cpu_ns(pid).unwrap_or(0));
            seen.cpu_ns
        };
        self.pids.iter().map(|pid| of(*pid)).sum()
    }

    /// Of all its processes that still run; nothing if none does.
    pub(crate) fn anonymous(&self) -> Option<u64> {
        self.pids.iter().filter_map(|pid| anonymous(*pid)).reduce(|sum, one| sum + one)
    }

    /// Whether none of its processes runs any more.
    pub(crate) fn has_ended(&self) -> bool {
        let mut seen = self.seen.borrow_mut();
        let ended = |pid: u32| match fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| status(&text))
        {
            Some((runs, cpu_ns)) => {
                let seen = seen.entry(pid).or_default();
                seen.cpu_ns = seen.cpu_ns.max(cpu_ns);
                !runs
            }
            None => true,
        };
        // Each is looked at: `all` would stop at the first that runs.
        self.pids.iter().copied().map(ended).filter(|ended| !ended).count() == 0
    }

    /// Of all its processes; of one that has ended what it had when it was last looked at.
    pub(crate) fn memory(&self) -> Memory {
        let mut seen = self.seen.borrow_mut();
        let mut of = |pid: u32| {
            let seen = seen.entry(pid).or_default();
            seen.memory = memory(pid).unwrap_or(seen.memory);
            seen.memory
        };
        self.pids.iter().map(|pid| of(*pid)).fold(Memory::default(), |sum, one| Memory {
            anonymous: sum.anonymous + one.anonymous,
            pss: sum.pss + one.pss,
            ..one
        })
    }

    /// Sends and messages that a Ringyard broker counted; nothing from other servers.
    pub(crate) fn counters(&self) -> Option<(u64, u64)> {
        let stats = get_json(&self.stats).ok()?;
        let sums = stats.get("totals").unwrap_or(&stats);
        let number = |name: &str| sums.get(name)?.as_u64();
        Some((number("sends")?, number("messages_out")?))
    }
}

/// Whether a process runs, and its processor time in nanoseconds, of `/proc/PID/stat`: to 10 ms, but still there when it
/// has ended and its parent has not waited for it.
fn status(stat: &str) -> Option<(bool, u64)> {
    // The name, in parentheses, may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let runs = !matches!(fields.next()?, "Z" | "X");
    let mut ticks = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
    let ticks = ticks.next()? + ticks.next()?;
    Some((runs, ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

fn get_json(StatsUrl { address, host, path }: &StatsUrl) -> Result<Value> {
    let answer = client::get(*address, host, path, Duration::from_secs(1))?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(serde_json::from_slice(&answer.body)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

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
        let server = Server::new(vec![pid, pid], None, address).unwrap().unwrap();
        assert!(server.memory().anonymous >= memory.anonymous);
        assert!(Server::new(Vec::new(), None, address).unwrap().is_none());
        let error = Server::new(vec![u32::MAX], None, address).unwrap_err();
        assert!(format!("{error:#}").contains("--server-pid 4294967295"));
        assert!(server.counters().is_none());
        let nobody = "http://127.0.0.1:1".parse().unwrap();
        let error = Server::new(vec![pid], Some(nobody), address).unwrap_err();
        assert!(format!("{error:#}").contains("--server-stats: no counters at 127.0.0.1:1/api/stats"), "{error:#}");
    }

    #[test]
    fn counters_are_asked_for_where_they_are() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answering = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut peer, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                let len = peer.read(&mut head).unwrap();
                assert!(head[..len].starts_with(b"GET /api/stats HTTP/1.1\r\n"));
                peer.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"totals\":{\"sends\":3,\"messages_out\":7}}").unwrap();
            }
        });
        let stats = format!("http://{host}/").parse().unwrap();
        let elsewhere = "127.0.0.1:1".parse().unwrap();
        let server = Server::new(vec![std::process::id()], Some(stats), elsewhere).unwrap().unwrap();
        assert_eq!(server.counters(), Some((3, 7)));
        answering.join().unwrap();
    }

    #[test]
    fn a_process_that_has_ended_keeps_what_it_used() {
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let server = Server::new(vec![child.id()], None, "127.0.0.1:1".parse().unwrap()).unwrap().unwrap();
        while server.cpu_ns() < 30_000_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (memory, used) = (server.memory(), server.cpu_ns());
        assert!(!server.has_ended() && server.anonymous().is_some());
        child.kill().unwrap();
        // Until its parent asks, it is a zombie.
        while !server.has_ended() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(server.cpu_ns() >= used && server.anonymous().is_none());
        child.wait().unwrap();
        assert!(server.has_ended() && server.cpu_ns() >= used && server.memory().pss == memory.pss);
        assert_eq!(status("7 (a) b) Z 1 2 3 4 5 6 7 8 9 10 150 50 0"), Some((false, 2_000_000_000)));
    }

    #[test]
    fn where_counters_are() {
        let url = |text: &str| text.parse::<StatsUrl>().map(|url| (url.address.to_string(), url.path));
        let expected = |path: &str| Ok(("127.0.0.1:8081".to_owned(), path.to_owned()));
        assert_eq!(url("http://127.0.0.1:8081"), expected("/api/stats"));
        assert_eq!(url("http://127.0.0.1:8081/"), expected("/api/stats"));
        assert_eq!(url("http://127.0.0.1:8081/behind/a/proxy"), expected("/behind/a/proxy"));
        assert_eq!(url("HTTP://127.0.0.1:8081"), expected("/api/stats"));
        for wrong in ["127.0.0.1:8081", "https://127.0.0.1:8081", "http://127.0.0.1", "http://", "http://a b:1"] {
            assert!(url(wrong).unwrap_err().contains("http://HOST:PORT"), "{wrong}");
        }
    }
}
