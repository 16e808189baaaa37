//! `ringyard restart`: starts a successor of the running broker in the background, and waits until it has taken over.
//!
//! The successor is this program with the same options and `--take-over`. Its standard output leads to this process, by a
//! pair of sockets (systemd counts pipes as IPC, which the unit forbids): the line with its addresses says that it is ready. Where it fails, its standard error says why, and the running broker
//! goes on.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use crate::server::output::{complain, say};
use crate::server::takeover::successor;

/// Replaces the broker that listens at `address` by one with `options`.
pub fn run(address: SocketAddr, options: &[OsString]) -> ExitCode {
    match replace(address, options) {
        Ok(line) => say(&line),
        Err(sentence) => complain(&sentence, 1),
    }
}

fn replace(address: SocketAddr, options: &[OsString]) -> Result<String, String> {
    if !successor::has_predecessor(address) {
        return Err(format!(
            "no broker runs at {address} that could be restarted: start one, with --listen as it is there"
        ));
    }
    let program = env::current_exe().map_err(|error| format!("cannot find this program's file: {error}"))?;
    let mut successor = Command::new(&program);
    successor.args(options).env("RINGYARD_TAKE_OVER", "true");
    // A signal from this terminal is not meant for it.
    let failed = |error: io::Error| format!("cannot start {}: {error}", program.display());
    let (said, out) = UnixStream::pair().map_err(failed)?;
    successor.stdin(Stdio::null()).stdout(OwnedFd::from(out)).process_group(0);
    let mut process = successor.spawn().map_err(failed)?;
    // The other end is the successor's alone: that it has ended can be read here.
    drop(successor);
    let mut line = String::new();
    match BufReader::new(said).read_line(&mut line) {
        Ok(bytes) if bytes > 0 => Ok(format!("process {}: {line}", process.id())),
        _ => {
            let status = process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(format!("the successor did not start ({status}); the broker that runs goes on"))
        }
    }
}
