//! A broker's server for one run: its folder and settings, its processes, and the wait until it is ready or has ended.
//!
//! Not responsible for the load (`load`).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use loadgen::client::{Client, Ending};
use rustix::process::{Pid, Signal, kill_process};

use super::peer::{self, Peer, Words};
use crate::process::bound;

/// From the start until the first answer.
const READY: Duration = Duration::from_secs(15);
/// From SIGTERM to SIGKILL.
const END_PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(10);

/// A server that answers. Its processes end, and its folder is removed, when it is dropped.
pub(super) struct Server {
    child: Child,
    directory: PathBuf,
    port: u16,
    /// Its processes when it became ready.
    pub(super) pids: Vec<u32>,
}

impl Server {
    /// Starts a peer in `directory`, which must not exist.
    pub(super) fn start(peer: &Peer, words: &Words, core: u32, directory: &Path) -> Result<Self> {
        let port = free_port()?;
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let words = peer.words(words).with("port", port).with("dir", directory.display());
        for file in &peer.files {
            let from = peer.here.join(file);
            let text = fs::read_to_string(&from).with_context(|| format!("reading {}", from.display()))?;
            fs::write(directory.join(file.file_name().context("a file without a name")?), words.put_into(&text))?;
        }
        let log = fs::File::create(log_of(directory))?;
        let mut command = peer.command.iter().map(|word| words.put_into(word));
        let program = command.next().context("no command")?;
        let program = peer::find(&program).with_context(|| format!("there is no {program}"))?;
        let child = bound(&program, Some(core))
            .args(command)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut server = Self { child, directory: directory.to_owned(), port, pids: Vec::new() };
        server.await_ready()?;
        server.pids = with_descendants(server.child.id());
        Ok(server)
    }

    pub(super) fn words(&self) -> Words {
        Words::default().with("port", self.port)
    }

    /// Why it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the server ended: {status}; {}", self.last_words()))
    }

    fn await_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < READY {
            if let Some(why) = self.ended() {
                bail!("{why}");
            }
            if answers(self.port) {
                return Ok(());
            }
            sleep(NAP);
        }
        bail!("no answer within {READY:?}; {}", self.last_words())
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let text = fs::read(log_of(&self.directory)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(3)..].join(" | ");
        if tail.is_empty() { "it said nothing".to_owned() } else { format!("it said: {tail}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its children may have changed since the start.
        let pids = with_descendants(self.child.id());
        signal(self.child.id(), Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < END_PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            sleep(NAP);
        }
        drop(self.child.kill());
        drop(self.child.wait());
        // Orphans among them are its children: no other process has these ids yet.
        pids.iter()
            .filter(|pid| **pid != self.child.id() && is_orphan(**pid))
            .for_each(|pid| signal(*pid, Signal::KILL));
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn log_of(directory: &Path) -> PathBuf {
    directory.join("output.log")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether a server reacts to a request at this port: with any answer, or by ending the connection.
fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok_and(|stream| {
        let answer = |stream| Client::new(stream).get(&address.to_string(), "/", "Connection: close\r\n");
        stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok() && !matches!(answer(stream), Err(Ending::Late))
    })
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may be gone already.
        let _gone = kill_process(pid, signal);
    }
}

/// A process and all that descend from it.
pub(super) fn with_descendants(root: u32) -> Vec<u32> {
    let parents: Vec<_> = processes().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(elder) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, parent)| *parent == elder).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The second field behind the name, which may contain anything (proc_pid_stat(5)).
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn is_orphan(pid: u32) -> bool {
    parent(pid) == Some(1)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A peer that is a shell script, described in `folder`.
    fn shell(folder: &Path, script: &str) -> Peer {
        fs::write(folder.join("settings"), "port {port} in {dir}\n").unwrap();
        let head = "[[peer]]\nname = \"x\"\ntitle = \"X\"\nprotocol = \"raw\"\nurl = \"ws://x/\"";
        let command = format!("files = [\"settings\"]\ncommand = [\"sh\", \"-c\", \"{script}\"]");
        let file = folder.join("peers.toml");
        fs::write(&file, format!("{head}\n{command}\n")).unwrap();
        peer::read(&file).unwrap().remove(0)
    }

    #[test]
    fn a_server_that_ends_at_once_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let peer = shell(folder.path(), "cat settings; echo no such luck >&2; exit 3");
        let run = folder.path().join("run");
        let error = Server::start(&peer, &Words::default(), 0, &run).err().unwrap().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such luck"), "{error}");
        assert!(error.contains("port ") && error.contains(run.to_str().unwrap()), "{error}");
        assert!(!run.exists());
    }

    #[test]
    fn families_end_together() {
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let begun = Instant::now();
        while with_descendants(child.id()).len() < 2 && begun.elapsed() < READY {
            sleep(NAP);
        }
        let family = with_descendants(child.id());
        assert_eq!(family.len(), 2);
        assert_eq!((family[0], parent(family[1])), (child.id(), Some(child.id())));
        family.iter().for_each(|pid| signal(*pid, Signal::KILL));
        child.wait().unwrap();
    }

    #[test]
    fn a_server_that_listens_and_reacts_answers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(answers(port));
        server.join().unwrap();
        assert!(!answers(port));
    }
}
