//! The real binary, started for a test on a free port and killed when the test ends. It runs on the driver that
//! RINGYARD_IO names, as every broker does; the checks run these tests once on each.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running broker. Dropping it kills the process.
pub(crate) struct Broker {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// Where its counters are: a listener of its own, or the public one.
    pub(crate) admin: SocketAddr,
}

impl Broker {
    /// Starts one with these arguments, and waits for its address.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(command(arguments).stdout(Stdio::piped()).spawn().expect("the binary runs"))
    }

    /// One that was started with its standard output piped; waits for its address.
    pub(crate) fn of(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let addresses = read_addresses(&mut lines);
        let [address, ..] = addresses[..] else {
            let status = child.wait();
            panic!("the broker ended before it named its address: {status:?}")
        };
        let admin = *addresses.get(1).unwrap_or(&address);
        // Nobody reads further lines; the pipe must not fill up.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, address, admin }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that starts a broker, with two shards and on free ports unless the arguments say otherwise.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringyard"));
    for (option, value) in
        [("--listen", "127.0.0.1:0"), ("--admin-listen", "127.0.0.1:0"), ("--shards", "2"), ("--log-level", "warn")]
    {
        if !arguments.contains(&option) {
            command.args([option, value]);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The addresses in the first line that names one: the public one, then the operators', if they have their own.
fn read_addresses(lines: &mut BufReader<ChildStdout>) -> Vec<SocketAddr> {
    for line in lines.lines().map_while(Result::ok) {
        let words = line.split([' ', '/', ',']);
        let addresses: Vec<SocketAddr> = words.filter_map(|word| word.parse().ok()).collect();
        if !addresses.is_empty() {
            return addresses;
        }
    }
    Vec::new()
}
