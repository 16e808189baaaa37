//! Limits of the kernel that `bench scale` raises while it runs, and puts back at its end: also after an error, a panic,
//! SIGINT, SIGTERM or SIGHUP. SIGKILL leaves them raised until the next boot, which does no harm.
//!
//! Not responsible for whether the limits suffice: the load generator checks that before it connects.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// What is raised now, in order.
static RAISED: Mutex<Vec<Change>> = Mutex::new(Vec::new());

/// Exit status after a signal.
const INTERRUPTED: i32 = 130;
/// Files and connections of everything else on this machine.
const SPARE: u64 = 100_000;

/// A limit that was changed.
#[derive(Debug)]
struct Change {
    path: PathBuf,
    before: String,
}

/// Puts the limits back when it is dropped.
#[derive(Debug)]
pub(crate) struct Raised(());

impl Raised {
    /// Raises what is too small for `clients` with both ends on this machine, and for `connections` in all, one run after
    /// the other. `proc` is where the kernel has its limits, as a rule `/proc`.
    ///
    /// # Errors
    /// When signals cannot be handled: then nothing is raised.
    pub(crate) fn new(proc: &Path, clients: u64, connections: u64) -> Result<Self> {
        ctrlc::set_handler(|| {
            // Held until the process has ended, so that nothing is raised after this.
            let mut raised = raised();
            put_back(&mut raised);
            std::process::exit(INTERRUPTED);
        })
        .context("handling SIGINT and SIGTERM")?;
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            put_back(&mut raised());
            hook(panic);
        }));
        for limit in limits(clients, connections) {
            limit.raise(proc);
        }
        Ok(Self(()))
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        put_back(&mut raised());
    }
}

fn raised() -> MutexGuard<'static, Vec<Change>> {
    RAISED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put_back(raised: &mut Vec<Change>) {
    for Change { path, before } in raised.drain(..).rev() {
        if let Err(error) = fs::write(&path, &before) {
            eprintln!("{} stays raised, it was {before}: {error}", path.display());
        }
    }
}

/// A limit, and what it must be.
struct Limit {
    /// Below `/proc/sys`.
    name: &'static str,
    /// The last number of the file must be at least this.
    least: u64,
    /// What to write otherwise.
    raised: String,
}

impl Limit {
    fn new(name: &'static str, least: u64) -> Self {
        Self { name, least, raised: least.to_string() }
    }

    fn raise(&self, proc: &Path) {
        let path = proc.join("sys").join(self.name);
        // A limit that this kernel does not have is none.
        let Ok(before) = fs::read_to_string(&path) else { return };
        let before = before.trim().to_owned();
        let most: Option<u64> = before.split_whitespace().last().and_then(|number| number.parse().ok());
        if most.is_none_or(|most| most >= self.least) {
            return;
        }
        let (name, wanted) = (self.name.replace('/', "."), &self.raised);
        let mut raised = raised();
        match fs::write(&path, wanted) {
            Ok(()) => {
                println!("{name}: {before} raised to {wanted} for this run");
                raised.push(Change { path, before });
            }
            Err(error) => {
                println!(
                    "{name} = {before} is too small and cannot be raised ({error}): sysctl -w {name}=\"{wanted}\""
                );
            }
        }
    }
}

fn limits(clients: u64, connections: u64) -> [Limit; 3] {
    let ends = clients * 2;
    [
        // Pages of all sockets' buffers (tcp(7)).
        Limit { name: "net/ipv4/tcp_mem", least: ends, raised: format!("{ends} {} {}", ends * 3 / 2, ends * 2) },
        // Open files of all processes, direct descriptors included (proc_sys_fs(5)).
        Limit::new("fs/file-max", ends + SPARE),
        // Present once something, such as a container's network, has loaded connection tracking. Loopback takes one entry
        // for both ends; those of an earlier row stay for two minutes.
        Limit::new("net/netfilter/nf_conntrack_max", connections + SPARE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_suffice_or_are_missing_stay() {
        let proc = tempfile::tempdir().unwrap();
        let path = proc.path().join("sys/net/ipv4/tcp_mem");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let of = |text: &str, clients| {
            fs::write(&path, text).unwrap();
            limits(clients, clients).iter().for_each(|limit| limit.raise(proc.path()));
            let now = fs::read_to_string(&path).unwrap();
            put_back(&mut raised());
            (now, fs::read_to_string(&path).unwrap())
        };
        assert_eq!(of("10 20 30\n", 15), ("10 20 30\n".to_owned(), "10 20 30\n".to_owned()));
        assert_eq!(of("10 20 30\n", 16), ("32 48 64".to_owned(), "10 20 30".to_owned()));
        assert!(!proc.path().join("sys/fs/file-max").exists());
    }
}
