//! `bench floor`: what the kernel alone takes for a fan-out, by method, number of sockets and bytes per send.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | measures all cells of the table: one sender, in this process, on its core |
//! | `receivers` | the sockets' other ends, in another process on another core: they discard everything |
//! | `page` | the table, as a page and as JSON |
//! | `server` | the bare sender as a server for the load generator: the floor that the broker is compared with |
//!
//! A round sends one message to every socket, and the next begins when every byte of it was received: nothing waits in
//! queues, as in the broker's own figure. The methods take turns on the same sockets, a pass of some rounds each, so that
//! all see the same machine; a cell is the median of its passes. What counts is the processor time of the sending
//! thread, in which the kernel also does the protocol work of the receiving side (loopback).

mod page;
mod receivers;
mod server;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use ring::floor::{Method, Sender};
use ring::{limits, listen};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::median;
use crate::process::{CoreOptions, Cores};
use receivers::Receivers;

pub(crate) use receivers::{Options as ReceiverOptions, serve as receive};
pub(crate) use server::{Options as ServerOptions, Timing, measure, measure_with, serve};

/// Sends in one system call, as many as in a turn of the broker.
const SENDS_PER_CALL: u32 = 256;
/// Sends of a pass, unless `--rounds` says otherwise.
const SENDS_PER_PASS: usize = 10_000;
/// Descriptors that are no sockets of the matrix.
const OTHER_DESCRIPTORS: u64 = 64;

/// `bench floor`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Sockets to send to; as many as the process may open, at most.
    #[arg(long, value_delimiter = ',', default_value = "50,500,5000,20000")]
    sockets: Vec<usize>,
    /// Bytes per send.
    #[arg(long, value_delimiter = ',', default_value = "16,128,1024,4096,16384,65536")]
    bytes: Vec<usize>,
    /// Ways to send [default: all].
    #[arg(long, value_delimiter = ',')]
    methods: Vec<Way>,
    /// Rounds of one pass [default: as many as make 10,000 sends].
    #[arg(long)]
    rounds: Option<usize>,
    /// Passes of each cell.
    #[arg(long, alias = "laps", default_value_t = 5)]
    passes: usize,
    /// Few sockets, few bytes, short passes: shows that it works, keeps nothing.
    #[arg(long)]
    quick: bool,
    /// Prints the raw data instead of tables.
    #[arg(long)]
    json: bool,
    /// Where results are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
    #[command(flatten)]
    cores: CoreOptions,
}

/// A method of sending, under its name in the command line and the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// send(2), one system call each
    Send,
    /// io_uring with ordinary descriptors
    Uring,
    /// io_uring with direct descriptors
    Direct,
    /// io_uring, sendmsg of four ranges
    Vectored,
    /// io_uring, SEND_ZC
    ZeroCopy,
    /// io_uring, SEND_ZC of a registered buffer
    ZeroCopyRegistered,
}

impl Way {
    fn method(self) -> Method {
        match self {
            Self::Send => Method::Send2,
            Self::Uring => Method::Uring,
            Self::Direct => Method::UringDirect,
            Self::Vectored => Method::UringVectored,
            Self::ZeroCopy => Method::UringZeroCopy,
            Self::ZeroCopyRegistered => Method::UringZeroCopyRegistered,
        }
    }
}

/// One method, one number of sockets, one length.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cell {
    way: Way,
    sockets: usize,
    bytes: usize,
    /// Sends of one pass.
    sends: u64,
    /// Processor time per send of each pass, in nanoseconds.
    cpu_ns: Vec<f64>,
    /// Time on the clock per send of each pass, in nanoseconds.
    wall_ns: Vec<f64>,
}

impl Cell {
    fn median_cpu_ns(&self) -> f64 {
        median(self.cpu_ns.clone())
    }
}

/// All cells, and the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Matrix {
    machine: Machine,
    command: String,
    cells: Vec<Cell>,
}

/// Measures, prints, keeps.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let (sockets, bytes, passes) = if options.quick {
        (vec![50, 500], vec![128, 16_384], 1)
    } else {
        (options.sockets.clone(), options.bytes.clone(), options.passes)
    };
    ensure!(passes > 0 && options.rounds != Some(0), "nothing to measure");
    ensure!(sockets.iter().chain(&bytes).all(|figure| *figure > 0), "--sockets and --bytes must be at least 1");
    let ways = if options.methods.is_empty() { Way::value_variants() } else { &options.methods };
    let (descriptors, _) = limits::raise_descriptors();
    let sockets_max = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS))?;
    // Before this thread is bound to a core: it counts the cores that this thread may use.
    let machine = Machine::this();
    pin(options.cores.server_core)?;
    let mut cells = Vec::new();
    for sockets in sockets {
        let mut field = Field::open(sockets.min(sockets_max), options.cores.client_core)?;
        for &bytes in &bytes {
            let rounds = options.rounds.unwrap_or(SENDS_PER_PASS.div_ceil(field.sockets.len()));
            let row = field.row(ways, bytes, passes, if options.quick { 1 } else { rounds })?;
            if !options.json {
                page::print_row(&row);
            }
            cells.extend(row);
        }
    }
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let matrix = Matrix { machine, command: format!("bench {command}"), cells };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&matrix)?);
    } else {
        println!("\n{}", page::tables(&matrix));
    }
    if !options.quick {
        page::keep(&options.results, &matrix)?;
    }
    Ok(true)
}

/// Processor time, in nanoseconds, of sending each of `sockets` the same `bytes` bytes, in sends of at most `send_bytes`.
pub(crate) fn time_of_copies(cores: Cores, sockets: usize, bytes: usize, send_bytes: usize) -> Result<f64> {
    let (Some(server), Some(client)) = (cores.server, cores.client) else { bail!("both need a core") };
    // On a thread of its own: it stays bound to its core.
    let sender = std::thread::spawn(move || {
        pin(server)?;
        let mut field = Field::open(sockets, client)?;
        let mut sender = Sender::new(std::mem::take(&mut field.sockets), Method::UringDirect, SENDS_PER_CALL)?;
        let all: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        for part in all.chunks(send_bytes) {
            field.receivers.expect((sockets * part.len()) as u64)?;
            sender.round(part)?;
            field.receivers.wait_until_ready()?;
        }
        let report = sender.take_report();
        ensure!(report.short_sends == 0, "a blocking send was short");
        Ok(report.cpu_ns_per_send() * report.sends as f64)
    });
    sender.join().expect("the sender does not panic")
}

/// Moves this thread to a core.
fn pin(core: u32) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core as usize);
    sched_setaffinity(None, &cores).with_context(|| format!("there is no core {core}"))
}

/// Connected sockets, and the process that holds their other ends.
struct Field {
    sockets: Vec<OwnedFd>,
    receivers: Receivers,
}

impl Field {
    fn open(count: usize, core: u32) -> Result<Self> {
        let listener = listen::tcp("127.0.0.1:0".parse()?, listen::BACKLOG, false)?;
        let addr = listen::local_addr(&listener)?;
        let mut receivers = Receivers::start(core, addr, count)?;
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(false)?;
        let accepted = (0..count).map(|_| Ok(listener.accept()?.0.into()));
        let sockets = accepted.collect::<Result<_>>()?;
        receivers.wait_until_ready()?;
        Ok(Self { sockets, receivers })
    }

    /// Passes of every way in turn, after one that does not count.
    fn row(&mut self, ways: &[Way], bytes: usize, passes: usize, rounds: usize) -> Result<Vec<Cell>> {
        let sockets = self.sockets.len();
        let cell = |way: &Way| Cell { way: *way, sockets, bytes, sends: 0, cpu_ns: Vec::new(), wall_ns: Vec::new() };
        let mut row: Vec<_> = ways.iter().map(cell).collect();
        for cell in &mut row {
            self.pass(cell, 1)?;
        }
        for cell in &mut row {
            (cell.cpu_ns, cell.wall_ns) = (Vec::new(), Vec::new());
        }
        for _ in 0..passes {
            for cell in &mut row {
                self.pass(cell, rounds)?;
            }
        }
        Ok(row)
    }

    fn pass(&mut self, cell: &mut Cell, rounds: usize) -> Result<()> {
        let payload: Vec<u8> = (0..cell.bytes).map(|at| at as u8).collect();
        let sockets = std::mem::take(&mut self.sockets);
        let mut sender = Sender::new(sockets, cell.way.method(), SENDS_PER_CALL)?;
        for _ in 0..rounds {
            self.receivers.expect(cell.sockets as u64 * cell.bytes as u64)?;
            sender.round(&payload).with_context(|| format!("{:?}, {} bytes", cell.way, cell.bytes))?;
            self.receivers.wait_until_ready()?;
        }
        let report = sender.take_report();
        ensure!(report.short_sends == 0, "a blocking send was short");
        self.sockets = sender.into_sockets();
        cell.sends = report.sends;
        cell.cpu_ns.push(report.cpu_ns_per_send());
        cell.wall_ns.push(report.wall_ns as f64 / report.sends as f64);
        Ok(())
    }
}
