//! `ringyard restart`: starts a successor of the running broker in the background, and waits until it has taken over.
//!
//! The successor is this program with the same options and `--take-over`. Its standard output is a pipe to this process:
//! the line with its addresses says that it is ready. Where it fails, its standard error says why, and the running broker
//! goes on.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
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
    successor.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut successor = successor.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let mut line = String::new();
    let out = successor.stdout.take().expect("a pipe");
    match BufReader::new(out).read_line(&mut line) {
        Ok(bytes) if bytes > 0 => Ok(format!("process {}: {line}", successor.id())),
        _ => {
            let status = successor.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(format!("the successor did not start ({status}); the broker that runs goes on"))
        }
    }
}
