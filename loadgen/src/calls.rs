//! `--scenario request-reply`: pairs of a connection that asks and one that answers, each pair one call at a time. What is
//! measured is a call: from the write of a request to the whole answer, as a program with a plain socket sees it.
//!
//! | `--url` | who is asked | how |
//! | --- | --- | --- |
//! | `ws://...` | Ringyard | `request`, `respond` and `reply` of `ringyard.v1`, both ends on WebSockets |
//! | `nats://...` | nats-server | requests over TCP, with an inbox per connection, as its clients make them |
//!
//! Not responsible for load: two threads a pair, blocking reads. Other scenarios have the rings. Every answer is compared with
//! its question.

pub mod wire;

use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use self::wire::{Peer, Wire};
use crate::options::{Options, Payload, Portion};
use crate::run::Interrupt;
use crate::stamp::Sizes;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pairs at most: each has two threads.
const PAIRS_MAX: u64 = 1000;

/// What a run observed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Calls {
    /// `request-reply`.
    pub scenario: &'static str,
    /// Where.
    pub url: String,
    /// Pairs of an asking and an answering connection.
    pub pairs: u64,
    /// Bytes of a question and of its answer.
    pub payload: u32,
    /// How long calls were counted.
    pub seconds: f64,
    /// Calls of all pairs.
    pub calls: u64,
    /// In a second.
    pub calls_per_second: f64,
    /// How long half of the calls took at most, in microseconds.
    pub p50_us: f64,
    /// How long 99 % took at most.
    pub p99_us: f64,
    /// How long the longest took.
    pub max_us: f64,
}

/// Runs the scenario.
///
/// # Errors
/// An option that it does not have, a server that cannot be reached, or a call that failed.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<Calls> {
    let pairs = options.clients.unwrap_or(1);
    ensure!((1..=PAIRS_MAX).contains(&pairs), "--scenario request-reply takes 1 to {PAIRS_MAX} pairs (--clients)");
    check_options(options)?;
    ensure!(options.fail_if.is_empty(), "--scenario request-reply has no --fail-if");
    let payload = match &options.payload {
        None => 128,
        Some(Payload(Sizes::Fixed(bytes))) => *bytes,
        Some(_) => bail!("--scenario request-reply needs a --payload of one size"),
    };
    let (wire, address) = server(&options.url)?;
    let ends = Arc::new(AtomicBool::new(false));
    let begins = Instant::now() + options.warmup;
    let mut threads = Vec::new();
    let mut answering = Vec::new();
    for pair in 0..pairs {
        let topic = format!("{}{}{pair}", options.topic_prefix, wire.separator());
        let mut responder = Peer::connect(wire, address, PATIENCE)?;
        responder.respond(&topic)?;
        answering.push(responder.stream().try_clone()?);
        thread::spawn(move || while responder.answer().is_ok() {});
        let mut asker = Peer::connect(wire, address, PATIENCE)?;
        asker.prepare(pair)?;
        let ends = Arc::clone(&ends);
        threads.push(thread::spawn(move || asking(&mut asker, &topic, payload, begins, &ends)));
    }
    while begins.elapsed() < options.duration {
        if interrupt.load(Ordering::Relaxed) || threads.iter().any(thread::JoinHandle::is_finished) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    ends.store(true, Ordering::Relaxed);
    let seconds = begins.elapsed().as_secs_f64();
    let mut all = Histogram::<u64>::new(3)?;
    for thread in threads {
        all.add(thread.join().map_err(|_| anyhow!("a thread panicked"))??)?;
    }
    for stream in answering {
        drop(stream.shutdown(Shutdown::Both));
    }
    let us = |nanos: u64| nanos as f64 / 1e3;
    Ok(Calls {
        scenario: "request-reply",
        url: options.url.clone(),
        pairs,
        payload,
        seconds,
        calls: all.len(),
        calls_per_second: all.len() as f64 / seconds.max(1e-9),
        p50_us: us(all.value_at_quantile(0.5)),
        p99_us: us(all.value_at_quantile(0.99)),
        max_us: us(all.max()),
    })
}

/// One pair's calls, from when they count, in nanoseconds.
fn asking(peer: &mut Peer, topic: &str, payload: u32, begins: Instant, ends: &AtomicBool) -> Result<Histogram<u64>> {
    let mut taken = Histogram::new(3)?;
    for number in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let question = question(number, payload as usize);
        let began = Instant::now();
        peer.call(topic, number, &question)?;
        if began >= begins {
            taken.record(began.elapsed().as_nanos() as u64)?;
        }
    }
    Ok(taken)
}

/// A text of so many bytes, different from call to call where there is room for a number.
fn question(number: u64, bytes: usize) -> String {
    let mut text = format!("{number:020}");
    text.truncate(bytes);
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
    text
}

fn server(url: &str) -> Result<(Wire, SocketAddr)> {
    let (wire, rest) = match (url.strip_prefix("ws://"), url.strip_prefix("nats://")) {
        (Some(rest), _) => (Wire::V1, rest),
        (_, Some(rest)) => (Wire::Nats, rest),
        _ => bail!("--scenario request-reply needs a --url that begins with ws:// or nats://"),
    };
    Ok((wire, resolve(rest)?))
}

/// Refuses what no scenario with threads of its own has.
pub(crate) fn check_options(options: &Options) -> Result<()> {
    let name = options.scenario.name();
    ensure!(options.report.is_none(), "--scenario {name} has no --report");
    ensure!(options.share == Portion::default(), "--scenario {name} has no --share");
    Ok(())
}

/// The address of what comes behind `scheme://`.
pub(crate) fn resolve(rest: &str) -> Result<SocketAddr> {
    let host = rest.split('/').next().unwrap_or_default();
    let mut addresses = host.to_socket_addrs().with_context(|| format!("{host:?} is no HOST:PORT"))?;
    addresses.next().with_context(|| format!("{host:?} has no address"))
}

impl Calls {
    /// It for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Self { url, pairs, payload, seconds, calls, calls_per_second, p50_us, p99_us, max_us, .. } = self;
        format!(
            "request-reply at {url}: {pairs} pairs, {payload} bytes, {seconds:.1} s\n\
             {calls} calls, {calls_per_second:.0}/s\n\
             median {p50_us:.1} us, p99 {p99_us:.1} us, longest {max_us:.1} us\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::sync::Mutex;

    use super::*;
    use crate::calls::wire::tests::{options_of, serve_each};

    fn options(arguments: &str) -> Options {
        options_of("request-reply", arguments)
    }

    type Subjects = Arc<Mutex<BTreeMap<String, TcpStream>>>;

    /// As much of a NATS server as a call needs; what is published to an inbox is changed if `damages`.
    fn serve(stream: &TcpStream, subjects: &Subjects, damages: bool) -> std::io::Result<()> {
        let (mut out, mut input) = (stream.try_clone()?, BufReader::new(stream.try_clone()?));
        out.write_all(b"INFO {}\r\n")?;
        let mut line = String::new();
        while input.read_line(&mut line)? > 0 {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => out.write_all(b"PONG\r\n")?,
                ["SUB", subject, _] => {
                    subjects.lock().expect("a lock").insert(subject.to_owned(), stream.try_clone()?);
                }
                ["PUB", subject, .., len] => {
                    let mut payload = vec![0; len.parse::<usize>().expect("a length") + 2];
                    input.read_exact(&mut payload)?;
                    payload[0] ^= u8::from(damages && subject.starts_with("_INBOX"));
                    let reply =
                        words.get(2).filter(|_| words.len() == 4).map_or(String::new(), |inbox| format!("{inbox} "));
                    let head = format!("MSG {subject} 1 {reply}{len}\r\n");
                    let mut subjects = subjects.lock().expect("a lock");
                    let to = subjects.get_mut(subject).expect("a subscriber");
                    to.write_all(&[head.as_bytes(), &payload].concat())?;
                }
                _ => {}
            }
            line.clear();
        }
        Ok(())
    }

    fn server(damages: bool) -> SocketAddr {
        let subjects = Subjects::default();
        serve_each(move |_, stream| drop(serve(&stream, &subjects, damages)))
    }

    #[test]
    fn calls_are_counted_and_compared() {
        let run = |damages, more: &str| {
            let address = server(damages);
            run(&options(&format!("--url nats://{address} --duration 0.3 --warmup 0.05 {more}")), &Interrupt::default())
        };
        let calls = run(false, "--clients 3 --payload 30").expect("a run");
        assert_eq!((calls.pairs, calls.payload), (3, 30));
        assert!(calls.calls > 30 && calls.p50_us > 0.0 && calls.p99_us >= calls.p50_us, "{calls:?}");
        let error = run(true, "").expect_err("answers are wrong").to_string();
        assert!(error.starts_with("request 0 was answered with"), "{error}");
    }

    #[test]
    fn what_it_does_not_have_is_refused() {
        let refusal = |arguments| run(&options(arguments), &Interrupt::default()).expect_err(arguments).to_string();
        for (arguments, named) in [
            ("--report a.html", "--report"),
            ("--fail-if p99>1s", "--fail-if"),
            ("--payload 1..5", "--payload"),
            ("--clients 5000", "--clients"),
            ("--url wss://127.0.0.1:1", "--url"),
        ] {
            let refusal = refusal(arguments);
            assert!(refusal.contains(named), "{arguments}: {refusal}");
        }
    }
}
