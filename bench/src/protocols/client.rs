//! The clients of one run: all subscribers and publishers, in one process and on one clock. Publishing is open-loop: the next message does
//! not wait for the last one. A message counts if it was published in the measured time; bytes, requests and processor time are those of
//! that time.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use loadgen::usage::cpu_ns;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::protocol::Protocol;
use super::stamps::{Stamps, stamped};
use super::uses::{self, POLLS_PER_DEADLINE, Use};
use super::wire::{Incoming, Outgoing, Totals, Wire};

const TOPIC: &str = "bench/protocols";
/// How long connections may take to be ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// A connection for requests that was idle for longer may have been ended by the broker (`--http-idle-timeout`).
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Longer times count as this one, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// `bench protocols-client`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientOptions {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    server_pid: u32,
    #[arg(long)]
    protocol: Protocol,
    /// Which use.
    #[arg(long = "use")]
    wanted: String,
    #[arg(long)]
    warmup: f64,
    #[arg(long)]
    seconds: f64,
}

/// What one run measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Messages.
    pub(super) published: u64,
    /// Messages, of all subscribers.
    pub(super) delivered: u64,
    /// Messages that a subscriber did not get.
    pub(super) missing: u64,
    /// Of all clients, both directions, heads and frames included.
    pub(super) bytes: u64,
    /// Of all clients.
    pub(super) requests: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
    /// Processor time of the broker.
    pub(super) server_cpu_ns: u64,
    /// The clients' share of a core.
    pub(super) own_cpu: f64,
}

/// Runs it, and prints a [`Sample`] as JSON.
pub(crate) fn run(options: &ClientOptions) -> Result<()> {
    let wanted = uses::all().into_iter().find(|wanted| wanted.key == options.wanted);
    let wanted = wanted.ok_or_else(|| anyhow!("there is no use {}", options.wanted))?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let sample = LocalSet::new().block_on(&runtime, measure(options, wanted))?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

/// What all tasks share.
struct Run {
    address: SocketAddr,
    wanted: Use,
    totals: Rc<Totals>,
    begun: Instant,
    /// The measured time, in microseconds since `begun`.
    from: Cell<u64>,
    to: Cell<u64>,
    /// Subscribers that are ready.
    ready: Cell<usize>,
    delivered: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
    failure: RefCell<Option<anyhow::Error>>,
}

impl Run {
    fn micros(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Bytes that a subscriber received; `stamps` are its own.
    fn take(&self, stamps: &mut Stamps, bytes: &[u8]) {
        let now = self.micros();
        stamps.take(bytes, |at| {
            if (self.from.get()..self.to.get()).contains(&at) {
                self.delivered.set(self.delivered.get() + 1);
                self.latencies.borrow_mut().saturating_record(now.saturating_sub(at).max(1));
            }
        });
    }

    fn count_ready(&self) {
        self.ready.set(self.ready.get() + 1);
    }

    /// Keeps the first failure of a task.
    fn check(&self, result: Result<()>) {
        if let Err(error) = result {
            self.failure.borrow_mut().get_or_insert(error);
        }
    }
}

async fn measure(options: &ClientOptions, wanted: Use) -> Result<Sample> {
    let run = Rc::new(Run {
        address: options.address,
        wanted,
        totals: Rc::new(Totals::default()),
        begun: Instant::now(),
        from: Cell::new(u64::MAX),
        to: Cell::new(u64::MAX),
        ready: Cell::new(0),
        delivered: Cell::new(0),
        latencies: RefCell::new(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?),
        failure: RefCell::new(None),
    });
    let publishers = begin(&run, options.protocol).await?;
    let begun = Instant::now();
    while run.ready.get() < run.wanted.subscribers {
        ensure!(begun.elapsed() < READY_MAX, "{} of {} were ready", run.ready.get(), run.wanted.subscribers);
        fail(&run)?;
        sleep(Duration::from_millis(5)).await;
    }
    let first = Instant::now();
    let [from, to] = [options.warmup, options.warmup + options.seconds].map(|at| first + Duration::from_secs_f64(at));
    let published = Rc::new(Cell::new(0));
    let publishing = tokio::task::spawn_local(publish(Rc::clone(&run), publishers, to, Rc::clone(&published)));
    sleep_until(from).await;
    run.from.set(run.micros());
    published.set(0);
    let before =
        (run.totals.bytes.get(), run.totals.requests.get(), cpu_ns(options.server_pid)?, cpu_ns(std::process::id())?);
    sleep_until(to).await;
    run.to.set(run.micros());
    let after =
        (run.totals.bytes.get(), run.totals.requests.get(), cpu_ns(options.server_pid)?, cpu_ns(std::process::id())?);
    publishing.await?;
    // What was published last may be on its way.
    sleep(Duration::from_millis(2 * u64::from(run.wanted.deadline_ms) + 500)).await;
    fail(&run)?;
    let latencies = run.latencies.borrow();
    let (published, delivered) = (published.get(), run.delivered.get());
    Ok(Sample {
        published,
        delivered,
        missing: (published * run.wanted.subscribers as u64).saturating_sub(delivered),
        bytes: after.0 - before.0,
        requests: after.1 - before.1,
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        max_us: latencies.max(),
        server_cpu_ns: after.2 - before.2,
        own_cpu: (after.3 - before.3) as f64 / 1e9 / options.seconds,
    })
}

fn fail(run: &Run) -> Result<()> {
    run.failure.borrow_mut().take().map_or(Ok(()), Err)
}

/// Publishes until the end, the publishers in turn.
async fn publish(run: Rc<Run>, publishers: Vec<UnboundedSender<String>>, to: Instant, published: Rc<Cell<u64>>) {
    let first = Instant::now();
    for (count, publisher) in (0u32..).zip(publishers.iter().cycle()) {
        let due = first + Duration::from_secs(1) * count / run.wanted.rate;
        if due >= to {
            return;
        }
        sleep_until(due).await;
        let at = run.micros();
        // One whose task failed has said so.
        let _ = publisher.send(stamped(run.wanted.bytes, at));
        if at < run.to.get() {
            published.set(published.get() + 1);
        }
    }
}

/// Connects everybody. Returns what the publishers are given their texts by.
async fn begin(run: &Rc<Run>, protocol: Protocol) -> Result<Vec<UnboundedSender<String>>> {
    let mut publishers = Vec::new();
    for index in 0..run.wanted.subscribers {
        let publishes = run.wanted.everybody_publishes.then(|| {
            let (sender, texts) = mpsc::unbounded_channel();
            publishers.push(sender);
            texts
        });
        let subscriber = Wire::connect(run.address, Rc::clone(&run.totals)).await?;
        spawn_subscriber(run, protocol, index, subscriber, publishes).await?;
    }
    if !run.wanted.everybody_publishes {
        let (sender, texts) = mpsc::unbounded_channel();
        publishers.push(sender);
        match protocol {
            Protocol::Raw | Protocol::V1 => {
                let mut wire = Wire::connect(run.address, Rc::clone(&run.totals)).await?;
                let (path, subprotocol) = socket_of(protocol, "pub");
                wire.upgrade(&path, subprotocol).await?;
                let (incoming, outgoing) = wire.split();
                spawn(run, discard(incoming));
                spawn(run, send_texts(protocol, outgoing, texts));
            }
            _ => spawn(run, post_texts(Rc::clone(run), texts)),
        }
    }
    Ok(publishers)
}

async fn spawn_subscriber(
    run: &Rc<Run>,
    protocol: Protocol,
    index: usize,
    mut wire: Wire,
    publishes: Option<UnboundedReceiver<String>>,
) -> Result<()> {
    if let Protocol::Raw | Protocol::V1 = protocol {
        let (path, subprotocol) = socket_of(protocol, if publishes.is_some() { "bus" } else { "sub" });
        wire.upgrade(&path, subprotocol).await?;
        let (incoming, mut outgoing) = wire.split();
        if protocol == Protocol::V1 {
            outgoing.text(&format!(r#"{{"type":"subscribe","id":1,"topic":"{TOPIC}"}}"#)).await?;
        }
        spawn(run, socket(Rc::clone(run), protocol, incoming));
        match publishes {
            Some(texts) => spawn(run, send_texts(protocol, outgoing, texts)),
            // The connection lasts as long as this half.
            None => spawn(run, hold(outgoing)),
        }
        return Ok(());
    }
    if let Some(texts) = publishes {
        spawn(run, post_texts(Rc::clone(run), texts));
    }
    match protocol {
        Protocol::Sse => spawn(run, events(Rc::clone(run), wire)),
        Protocol::LongPoll => spawn(run, poll(Rc::clone(run), wire, "25s", Duration::ZERO, Duration::ZERO)),
        _ => {
            let pause = Duration::from_millis(u64::from(run.wanted.deadline_ms / POLLS_PER_DEADLINE));
            let phase = pause * u32::try_from(index)? / u32::try_from(run.wanted.subscribers)?;
            spawn(run, poll(Rc::clone(run), wire, "0s", pause, phase));
        }
    }
    Ok(())
}

fn spawn(run: &Rc<Run>, task: impl Future<Output = Result<()>> + 'static) {
    let run = Rc::clone(run);
    tokio::task::spawn_local(async move { run.check(task.await) });
}

/// Path and sub-protocol of a WebSocket; `what` is what a raw one does.
fn socket_of(protocol: Protocol, what: &str) -> (String, Option<&'static str>) {
    if protocol == Protocol::V1 { ("/ws".to_owned(), Some("ringyard.v1")) } else { (format!("/{what}/{TOPIC}"), None) }
}

/// Asks for what came after the last answer, again and again: every `pause`, beginning with `phase`.
async fn poll(run: Rc<Run>, mut wire: Wire, wait: &str, pause: Duration, phase: Duration) -> Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        epoch: String,
        offset: u64,
        recovered: Option<bool>,
    }
    let path = format!("/sub/{TOPIC}");
    let mut answer: Answer = serde_json::from_slice(&wire.get(&path).await?)?;
    run.count_ready();
    let mut stamps = Stamps::default();
    let mut due = Instant::now() + phase;
    loop {
        sleep_until(due).await;
        due = (due + pause).max(Instant::now());
        let query = format!("{path}?since={}:{}&wait={wait}&limit=1000", answer.epoch, answer.offset);
        let body = wire.get(&query).await?;
        run.take(&mut stamps, &body);
        answer = serde_json::from_slice(&body)?;
        ensure!(answer.recovered == Some(true), "the topic has forgotten what a poll asked for");
    }
}

/// Reads a stream of events.
async fn events(run: Rc<Run>, mut wire: Wire) -> Result<()> {
    wire.ask(&format!("/sub/{TOPIC}"), "Accept: text/event-stream\r\n").await?;
    let head = wire.head().await?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "no stream: {head}");
    let mut stamps = Stamps::default();
    // The first event says that the subscription is in force.
    run.take(&mut stamps, &wire.some().await?);
    run.count_ready();
    loop {
        let bytes = wire.some().await?;
        run.take(&mut stamps, &bytes);
    }
}

/// Reads a WebSocket. One with `ringyard.v1` is ready with the answer to its command.
async fn socket(run: Rc<Run>, protocol: Protocol, mut incoming: Incoming) -> Result<()> {
    let mut stamps = Stamps::default();
    if protocol == Protocol::V1 {
        run.take(&mut stamps, &incoming.some().await?);
    }
    run.count_ready();
    loop {
        let bytes = incoming.some().await?;
        run.take(&mut stamps, &bytes);
    }
}

/// Reads what nobody wants.
async fn discard(mut incoming: Incoming) -> Result<()> {
    loop {
        incoming.some().await?;
    }
}

async fn hold(outgoing: Outgoing) -> Result<()> {
    let _outgoing = outgoing;
    std::future::pending().await
}

async fn send_texts(protocol: Protocol, mut outgoing: Outgoing, mut texts: UnboundedReceiver<String>) -> Result<()> {
    while let Some(text) = texts.recv().await {
        let command = match protocol {
            Protocol::V1 => format!(r#"{{"type":"publish","topic":"{TOPIC}","data":"{text}"}}"#),
            _ => text,
        };
        outgoing.text(&command).await?;
    }
    // All was published; the connection stays until the run ends.
    hold(outgoing).await
}

/// Posts each text, as a page does: over the last connection, or over another one if that has not been used for long.
async fn post_texts(run: Rc<Run>, mut texts: UnboundedReceiver<String>) -> Result<()> {
    let mut last: Option<(Wire, Instant)> = None;
    while let Some(text) = texts.recv().await {
        let mut wire = match last.take().filter(|(_, used)| used.elapsed() < IDLE_MAX) {
            Some((wire, _)) => wire,
            None => Wire::connect(run.address, Rc::clone(&run.totals)).await?,
        };
        wire.post(&format!("/pub/{TOPIC}"), &text).await?;
        last = Some((wire, Instant::now()));
    }
    Ok(())
}
