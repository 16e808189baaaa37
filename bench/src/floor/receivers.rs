//! `bench floor-receivers`: opens many connections, and discards and counts what they receive. Each line of its standard
//! input is a number of bytes; it answers with a line when so many have come.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ring::uring::{Setup, UringDriver};
use ring::{Dial, Driver, Event, ReceiveEnd};

use crate::process::bound;

/// Connections being opened at the same time.
const DIALS_MAX: usize = 256;
/// Connections from one source address: far fewer than it has ports, because the kernel searches for a free one.
const DIALS_PER_SOURCE: usize = 5_000;
/// Nothing takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// `bench floor-receivers`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The sender, on loopback.
    #[arg(long)]
    to: SocketAddr,
    /// Connections.
    #[arg(long)]
    sockets: usize,
}

/// The other process.
pub(super) struct Receivers {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Receivers {
    pub(super) fn start(core: u32, to: SocketAddr, sockets: usize) -> Result<Self> {
        let mut child = bound(&std::env::current_exe()?, Some(core))
            .args(["floor-receivers", "--to", &to.to_string(), "--sockets", &sockets.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the receivers")?;
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Self { child, orders, answers })
    }

    /// Announces so many bytes.
    pub(super) fn expect(&mut self, bytes: u64) -> Result<()> {
        writeln!(self.orders, "{bytes}").context("the receivers are gone")
    }

    /// Waits until they are connected, or have received what was announced.
    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the receivers are gone");
        Ok(())
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The receivers' process.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let mut driver =
        UringDriver::new(Setup { capacity: u32::try_from(options.sockets)?, dials: true, ..Setup::default() })?;
    dial_all(&mut driver, options)?;
    println!("ready");
    for line in stdin().lock().lines() {
        discard(&mut driver, line?.parse()?)?;
        println!("all");
        stdout().flush()?;
    }
    Ok(())
}

fn dial_all(driver: &mut UringDriver, options: &Options) -> Result<()> {
    let (mut begun, mut connected) = (0, 0);
    let mut events = Vec::new();
    while connected < options.sockets {
        while begun < options.sockets && begun - connected < DIALS_MAX {
            let host = u8::try_from(begun / DIALS_PER_SOURCE % 250)? + 1;
            let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, host)), 0);
            driver.dial(options.to, Some(source), 0);
            begun += 1;
        }
        turn(driver, &mut events)?;
        for event in events.drain(..) {
            if let Event::Dialled { result, .. } = event {
                let conn = result.map_err(std::io::Error::from_raw_os_error).context("dialling the sender")?;
                driver.discard(conn);
                connected += 1;
            }
        }
    }
    Ok(())
}

fn discard(driver: &mut UringDriver, expected: u64) -> Result<()> {
    let (mut count, begun) = (0, Instant::now());
    let mut events = Vec::new();
    while count < expected {
        turn(driver, &mut events)?;
        for event in events.drain(..) {
            match event {
                Event::Discarded { bytes, .. } => count += u64::from(bytes),
                Event::ReceiveEnded { conn, end: ReceiveEnd::Stopped | ReceiveEnd::NoBuffers } => driver.discard(conn),
                Event::ReceiveEnded { end, .. } => bail!("a connection ended: {end:?}"),
                _ => {}
            }
        }
        ensure!(begun.elapsed() < PATIENCE, "{count} of {expected} bytes came");
    }
    ensure!(count == expected, "{count} bytes came, not {expected}");
    Ok(())
}

fn turn(driver: &mut UringDriver, events: &mut Vec<Event<<UringDriver as Driver>::Buf>>) -> Result<()> {
    let deadline = driver.now() + 100_000_000;
    driver.turn(Some(deadline), events).context("io_uring_enter")
}
