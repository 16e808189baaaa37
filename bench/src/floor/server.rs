//! The floor beside the broker: a broadcaster that does nothing but send, measured by the same client, in the same
//! loop and with the same messages.
//!
//! It answers every upgrade with the same head, takes frames from its one publisher, and sends each, unmasked,
//! to all sockets through a bare io_uring ([`ring::floor`]). No topics, no order, no limits, no other event.
//! Only the sends count: reading the publisher and making the ring do not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use loadgen::Outcome;
use protocol::head::{Head, HeadLimits, write_switching_protocols};
use ring::floor::{Method, Sender};

use crate::process::{Cores, Server, run_client};

/// Sends in one system call, as many as a turn of the broker has.
const SENDS_PER_CALL: u32 = 256;

/// `bench floor-server`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Subscribers to wait for, before the publisher.
    #[arg(long)]
    clients: usize,
    /// Seconds of publishing that do not count.
    #[arg(long)]
    warmup: f64,
}

/// Seconds of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) warmup: f64,
    pub(crate) duration: f64,
}

impl Timing {
    /// As the load generator takes it.
    pub(crate) fn arguments(self) -> String {
        format!("--warmup {} --duration {}", self.warmup, self.duration)
    }
}

/// One run of the load generator against the bare sender, the next message being published when all have the
/// last: its report, and the sender's nanoseconds of processor time per send.
pub(crate) fn measure(cores: Cores, sockets: usize, bytes: usize, timing: Timing) -> Result<(Outcome, f64)> {
    let (clients, warmup) = (sockets.to_string(), timing.warmup.to_string());
    let program = std::env::current_exe()?;
    let server = Server::start(&program, cores.server, &["floor-server", "--clients", &clients, "--warmup", &warmup])?;
    let arguments = format!("--clients {clients} --payload {bytes} --outstanding 1 {}", timing.arguments());
    println!("\n> floor: {arguments}");
    let report = run_client(&server, cores.client, &arguments.split_whitespace().collect::<Vec<_>>())?;
    let last = server.last_line()?;
    let nanos = last.parse().with_context(|| format!("the bare sender said {last:?}"))?;
    Ok((report, nanos))
}

/// The bare sender: one publisher, `clients` subscribers, until the publisher leaves. Its last line is the
/// processor time per send, in nanoseconds.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut subscribers = Vec::with_capacity(options.clients);
    let mut publisher = None;
    while subscribers.len() < options.clients || publisher.is_none() {
        match accept(&listener)? {
            Some((stream, Peer::Subscriber)) => subscribers.push(stream.into()),
            Some((stream, Peer::Publisher)) => publisher = Some(stream),
            None => {}
        }
    }
    let mut publisher = publisher.expect("it has come");
    // Whoever asks for anything else is refused by the kernel.
    drop(listener);
    let mut sender = Sender::new(subscribers, Method::UringDirect, SENDS_PER_CALL)?;
    let counts_from = Instant::now() + Duration::try_from_secs_f64(options.warmup)?;
    let (mut frame, mut warm) = (Vec::new(), false);
    while read_frame(&mut publisher, &mut frame)? {
        if !warm && Instant::now() >= counts_from {
            warm = true;
            sender.take_report();
        }
        sender.round(&frame)?;
    }
    let report = sender.take_report();
    ensure!(report.short_sends == 0, "a socket was full: the receiver does not keep up");
    ensure!(warm && report.sends > 0, "nothing was sent after the warm-up");
    println!("{}", report.cpu_ns_per_send());
    Ok(())
}

/// Who connected.
enum Peer {
    Subscriber,
    Publisher,
}

/// Whoever upgrades next; nothing of those who only looked whether somebody answers.
fn accept(listener: &TcpListener) -> Result<Option<(TcpStream, Peer)>> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            ensure!(head.is_empty(), "a client left before its upgrade");
            return Ok(None);
        }
        head.extend_from_slice(&chunk[..len]);
    }
    let Ok(Head::Upgrade(upgrade)) = protocol::head::parse(&head, &HeadLimits::default()) else {
        bail!("no upgrade: {}", String::from_utf8_lossy(&head));
    };
    let mut answer = Vec::new();
    write_switching_protocols(&mut answer, &upgrade.accept, None);
    stream.write_all(&answer)?;
    let publishes = head.starts_with(b"GET /pub/");
    Ok(Some((stream, if publishes { Peer::Publisher } else { Peer::Subscriber })))
}

/// Reads a client's frame and makes a server's frame of it: the same without mask (RFC 6455, section 5.2).
/// False at the end of the stream.
fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> Result<bool> {
    let mut start = [0; 2];
    if stream.read_exact(&mut start).is_err() {
        return Ok(false);
    }
    let extended_len = match start[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mut rest = [0; 12];
    stream.read_exact(&mut rest[..extended_len + 4])?;
    let (extended, mask) = rest[..extended_len + 4].split_at(extended_len);
    let len = match extended_len {
        0 => u64::from(start[1] & 0x7f),
        _ => extended.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
    };
    frame.clear();
    frame.extend([start[0], start[1] & 0x7f]);
    frame.extend_from_slice(extended);
    let header = frame.len();
    frame.resize(header + usize::try_from(len)?, 0);
    stream.read_exact(&mut frame[header..])?;
    frame[header..].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok(true)
}
