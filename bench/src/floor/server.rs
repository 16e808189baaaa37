//! The floor beside the broker: a server that does nothing but send, measured by the same client with the same messages.
//!
//! It accepts every upgrade, reads the messages of its one publisher, and sends each to all sockets through a bare
//! io_uring ([`ring::floor`]), or, as a broker with a throttle does, once per interval what came in it. No topics, no
//! order, no limits, no other event. Only the processor time of the sends counts, not that of reading.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use loadgen::Outcome;
use protocol::frame::{Decoder, FrameLimits, HEADER_MAX, Item, MessageKind, Opcode, server_header};
use protocol::head::{Head, HeadLimits, write_switching_protocols};
use ring::floor::{Method, Sender};

use super::SENDS_PER_CALL;
use crate::process::{Cores, Server, run_client};

const LIMITS: FrameLimits = FrameLimits { frame_bytes_max: 1 << 30, message_bytes_max: 1 << 30 };

/// `bench floor-server`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Subscribers to wait for, before the publisher.
    #[arg(long)]
    clients: usize,
    /// Seconds of publishing that do not count.
    #[arg(long)]
    warmup: f64,
    /// Seconds between two sends to each socket; 0: every message is sent at once.
    #[arg(long, default_value_t = 0.0)]
    every: f64,
}

/// Seconds of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) warmup: f64,
    pub(crate) duration: f64,
}

impl Timing {
    /// As arguments of the load generator.
    pub(crate) fn arguments(self) -> String {
        format!("--warmup {} --duration {}", self.warmup, self.duration)
    }
}

/// One run of the load generator against the bare sender; the next message is published when all subscribers have the
/// last. Returns the report, and the sender's nanoseconds of processor time per send.
pub(crate) fn measure(cores: Cores, sockets: usize, bytes: usize, timing: Timing) -> Result<(Outcome, f64)> {
    let arguments = format!("--clients {sockets} --payload {bytes} --outstanding 1 {}", timing.arguments());
    measure_with(cores, sockets, timing.warmup, 0.0, &arguments)
}

/// The same with what the load generator is to do, and seconds between two sends to each socket.
pub(crate) fn measure_with(
    cores: Cores,
    sockets: usize,
    warmup: f64,
    every: f64,
    arguments: &str,
) -> Result<(Outcome, f64)> {
    let [clients, warmup, every] = [sockets.to_string(), warmup.to_string(), every.to_string()];
    let program = std::env::current_exe()?;
    let server = ["floor-server", "--clients", &clients, "--warmup", &warmup, "--every", &every];
    let server = Server::start(&program, cores.server, &server)?;
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
            Some((stream, Role::Subscriber)) => subscribers.push(stream.into()),
            Some((stream, Role::Publisher)) => publisher = Some(Publisher::new(stream)),
            None => {}
        }
    }
    let mut publisher = publisher.expect("it has come");
    // From now on the kernel refuses connections.
    drop(listener);
    let mut sender = Sender::new(subscribers, Method::UringDirect, SENDS_PER_CALL)?;
    let counts_from = Instant::now() + Duration::try_from_secs_f64(options.warmup)?;
    let mut warm = false;
    let mut send = |bytes: &[u8]| {
        if !warm && Instant::now() >= counts_from {
            warm = true;
            sender.take_report();
        }
        Ok(sender.round(bytes)?)
    };
    if options.every > 0.0 {
        send_every(Duration::try_from_secs_f64(options.every)?, &mut publisher, send)?;
    } else {
        while publisher.read(&mut send)? {}
    }
    let report = sender.take_report();
    ensure!(report.short_sends == 0, "a socket was full: the receiver does not keep up");
    ensure!(warm && report.sends > 0, "nothing was sent after the warm-up");
    println!("{}", report.cpu_ns_per_send());
    Ok(())
}

/// Sends, once per interval, everything that came in it, until the publisher leaves.
fn send_every(interval: Duration, publisher: &mut Publisher, mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let (mut waiting, mut due) = (Vec::new(), Instant::now() + interval);
    loop {
        // A timeout of zero would mean none.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        publisher.stream.set_read_timeout(Some(left))?;
        let open = publisher.read(|frame| {
            waiting.extend_from_slice(frame);
            Ok(())
        })?;
        if Instant::now() >= due {
            due += interval;
            if !waiting.is_empty() {
                send(&waiting)?;
                waiting.clear();
            }
        }
        if !open {
            return Ok(());
        }
    }
}

/// What a client is.
enum Role {
    Subscriber,
    Publisher,
}

/// Accepts the next upgrade; nothing when the client only looked whether the port is open.
fn accept(listener: &TcpListener) -> Result<Option<(TcpStream, Role)>> {
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
    let role = if head.starts_with(b"GET /pub/") { Role::Publisher } else { Role::Subscriber };
    Ok(Some((stream, role)))
}

/// The publisher's connection.
struct Publisher {
    stream: TcpStream,
    decoder: Decoder,
    input: Vec<u8>,
    /// The message that has begun.
    message: Vec<u8>,
}

impl Publisher {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(protocol::frame::Role::Server),
            input: vec![0; 64 << 10],
            message: Vec::new(),
        }
    }

    /// Reads once, and calls `send` with each message that is complete then, as a server's frame. False when the
    /// publisher has left.
    fn read(&mut self, mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let len = match self.stream.read(&mut self.input) {
            Ok(len) => len,
            // Nothing came in time.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(true),
            // The publisher may leave with a reset.
            Err(_) => return Ok(false),
        };
        let mut rest = &mut self.input[..len];
        while let Some(item) = self.decoder.next(&mut rest, &LIMITS).map_err(|error| anyhow!("{error:?}"))? {
            let (kind, payload, last) = match item {
                Item::Message { kind, payload } => (kind, payload, true),
                Item::Piece { kind, payload, last, .. } => (kind, payload, last),
                Item::Close(..) => return Ok(false),
                Item::Ping(_) | Item::Pong(_) => continue,
            };
            self.message.extend_from_slice(payload);
            if last {
                let opcode = if kind == MessageKind::Text { Opcode::Text } else { Opcode::Binary };
                let mut header = [0; HEADER_MAX];
                let header_len = server_header(opcode, self.message.len() as u64, &mut header);
                self.message.splice(..0, header[..header_len].iter().copied());
                send(&self.message)?;
                self.message.clear();
            }
        }
        Ok(len > 0)
    }
}
