//! Well-behaved clients beside the control group: each does one thing over and over, and must be served during every
//! attack.
//!
//! | client | must |
//! | --- | --- |
//! | pairs | receive their own messages on topics of their own |
//! | probes | get 200 from /healthz and /readyz on the public port, each on a connection of its own |
//! | posts | be published; 503 only while attackers hold all places, for a bounded time |
//! | pieces | receive their own message, which they send in fragments |
//! | new topics | create one with a publish, acknowledged with its first offset |
//!
//! A thread each. Latency counts from the first byte sent to the whole answer. After a failure a client connects again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::peer::{Address, Answer, Peer};
use super::phase::{Latencies, Phase};
use super::wire::{BINARY, TEXT, describe, frame, post};

/// Pairs, each a connection that publishes to a topic of its own and subscribes to it.
const PAIRS: usize = 4;
/// Between a pair's answer and its next message.
const PAIR_INTERVAL: Duration = Duration::from_millis(10);
/// Between two of the others.
const INTERVAL: Duration = Duration::from_millis(100);
/// Between the fragments of a message.
const PIECE_INTERVAL: Duration = Duration::from_millis(5);
const PIECE_LEN: usize = 5000;
const PIECES: usize = 4;

/// The running bystanders.
pub(super) struct Bystanders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Service>>,
}

/// What one of them measured.
pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) latencies: Latencies,
    /// What must not happen, and how often it did.
    pub(super) violations: BTreeMap<String, u64>,
}

/// One thing that is done over and over.
type Act = Box<dyn FnMut() -> Result<()> + Send>;

impl Bystanders {
    /// Starts them all. `refused_max`: how long an HTTP publish may be answered 503.
    pub(super) fn start(address: &Address, refused_max: Duration, phase: &Phase) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pairs = (0..PAIRS).map(|number| ("pairs", PAIR_INTERVAL, pair(address, number)));
        let others: [(&'static str, Duration, Act); 4] = [
            ("probes", INTERVAL, probes(address)),
            ("posts", INTERVAL, posts(address, refused_max)),
            ("pieces", INTERVAL, pieces(address)),
            ("new topics", INTERVAL, new_topics(address)),
        ];
        let threads = pairs.chain(others).map(|(name, interval, act)| {
            let (phase, stop) = (phase.clone(), Arc::clone(&stop));
            thread::spawn(move || serve(name, interval, act, &phase, &stop))
        });
        Self { threads: threads.collect(), stop }
    }

    /// Ends them; returns what they measured, clients of one name together.
    pub(super) fn stop(self) -> Vec<Service> {
        self.stop.store(true, Ordering::Relaxed);
        let mut services: Vec<Service> = Vec::new();
        for thread in self.threads {
            let service = thread.join().expect("a bystander does not panic");
            match services.last_mut().filter(|last| last.name == service.name) {
                Some(last) => last.add(service),
                None => services.push(service),
            }
        }
        services
    }
}

impl Service {
    fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies);
        other.violations.into_iter().for_each(|(what, n)| *self.violations.entry(what).or_default() += n);
    }
}

fn serve(name: &'static str, interval: Duration, mut act: Act, phase: &Phase, stop: &AtomicBool) -> Service {
    let mut service = Service { name, latencies: Latencies::new(), violations: BTreeMap::new() };
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match act() {
            Ok(()) => service.latencies.record(phase, begun.elapsed()),
            Err(error) => *service.violations.entry(format!("{error:#}")).or_default() += 1,
        }
        thread::sleep(interval);
    }
    service
}

fn pair(address: &Address, pair: usize) -> Act {
    let address = address.clone();
    let (mut peer, mut number, mut connection) = (None, 0_u64, 0);
    Box::new(move || {
        number += 1;
        // Each connection has a topic of its own: late messages of the last do not come to the next.
        let open = || {
            connection += 1;
            Peer::open(&address, &format!("/bus/bystander/pair/{pair}/{connection}"))
        };
        let text = format!("pair {pair}, message {number}");
        kept(&mut peer, open, |peer| {
            peer.send(&frame(TEXT, text.as_bytes()))?;
            expect(peer, TEXT, text.as_bytes())
        })
    })
}

fn probes(address: &Address) -> Act {
    let address = address.clone();
    Box::new(move || {
        for path in ["/healthz", "/readyz"] {
            match Peer::connect(&address)?.get("broker", path, "Connection: close\r\n") {
                Ok(Answer { status: 200, .. }) => {}
                Ok(Answer { status, .. }) => bail!("{path} answered {status}"),
                Err(ending) => bail!("{path} ended with {ending:?}"),
            }
        }
        Ok(())
    })
}

fn posts(address: &Address, refused_max: Duration) -> Act {
    let address = address.clone();
    let request = post("bystander/post", "Connection: close\r\n", b"hello");
    Box::new(move || {
        let begun = Instant::now();
        loop {
            let mut peer = Peer::connect(&address)?;
            peer.send(&request)?;
            match peer.answer() {
                Ok(Answer { status: 200, .. }) => return Ok(()),
                Ok(Answer { status: 503, .. }) if begun.elapsed() < refused_max => thread::sleep(INTERVAL),
                Ok(Answer { status: 503, .. }) => bail!("answered 503 for more than {refused_max:?}"),
                Ok(Answer { status, .. }) => bail!("answered {status}"),
                Err(ending) => bail!("ended with {ending:?}"),
            }
        }
    })
}

fn pieces(address: &Address) -> Act {
    let address = address.clone();
    let (mut peer, mut connection) = (None, 0);
    let whole: Vec<u8> = (0..PIECE_LEN * PIECES).map(|at| at as u8).collect();
    Box::new(move || {
        let open = || {
            connection += 1;
            Peer::open(&address, &format!("/bus/bystander/pieces/{connection}"))
        };
        kept(&mut peer, open, |peer| {
            for (number, piece) in whole.chunks(PIECE_LEN).enumerate() {
                // The first frame names the kind, the last has FIN (RFC 6455, section 5.4).
                let opcode = if number == 0 { BINARY & 0x0f } else { 0 };
                let fin = if number + 1 == PIECES { 0x80 } else { 0 };
                peer.send(&frame(fin | opcode, piece))?;
                thread::sleep(PIECE_INTERVAL);
            }
            expect(peer, BINARY, &whole)
        })
    })
}

fn new_topics(address: &Address) -> Act {
    let address = address.clone();
    let (mut peer, mut number) = (None, 0_u64);
    Box::new(move || {
        number += 1;
        kept(
            &mut peer,
            || Peer::open(&address, "/ws"),
            |peer| {
                let command =
                    format!(r#"{{"type":"publish","id":{number},"topic":"bystander/new/{number}","data":0}}"#);
                peer.send(&frame(TEXT, command.as_bytes()))?;
                let answer: serde_json::Value = serde_json::from_slice(&message(peer)?.1)?;
                let good = answer["type"] == "ok" && answer["id"] == number && answer["offset"] == 1;
                ensure!(good, "answered {} {} {}", answer["type"], answer["code"], answer["reason"]);
                Ok(())
            },
        )
    })
}

/// Does `act` on a connection that is kept until something fails.
fn kept(
    kept: &mut Option<Peer>,
    open: impl FnOnce() -> Result<Peer>,
    act: impl FnOnce(&mut Peer) -> Result<()>,
) -> Result<()> {
    let mut peer = match kept.take() {
        Some(peer) => peer,
        None => open()?,
    };
    act(&mut peer)?;
    *kept = Some(peer);
    Ok(())
}

/// The next message must be this.
fn expect(peer: &mut Peer, first: u8, payload: &[u8]) -> Result<()> {
    let (came, bytes) = message(peer)?;
    ensure!(came == first && bytes == payload, "another message came than the one that was sent");
    Ok(())
}

/// The next message.
fn message(peer: &mut Peer) -> Result<(u8, Vec<u8>)> {
    match peer.message() {
        Ok((first @ (TEXT | BINARY), payload)) => Ok((first, payload)),
        Ok((first, payload)) => bail!("{}", describe(first, &payload)),
        Err(ending) => bail!("ended with {ending:?}"),
    }
}
