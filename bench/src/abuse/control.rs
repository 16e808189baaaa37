//! The control group: well-behaved subscribers, raw and over `ringyard.v1`, and their publisher, which must not notice
//! the attacks.
//!
//! One thread, one epoll. Latency counts from when a message was due, so that a late publisher hides no waiting. Every
//! subscriber must receive the messages 0, 1, 2, ... unchanged, and over `ringyard.v1` offsets without gaps.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loadgen::client::Client;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde::Deserialize;

use super::peer::{Address, Ending, Peer};
use super::phase::{Latencies, Phase};
use super::stream::Stream;
use super::wire::{self, PING, PONG, TEXT, describe, put_frame};

/// The control group's topic.
pub(super) const TOPIC: &str = "control/messages";
/// Between two messages.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long the last message may take.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Characters of filler behind a message's number.
const FILLER: usize = 400;

/// The running group.
pub(super) struct Control {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Outcome>>,
}

/// What the group saw.
pub(super) struct Outcome {
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) pings: u64,
    /// From when a message was due to its receipt.
    pub(super) latencies: Latencies,
    /// What must not happen, and how often it did.
    pub(super) violations: BTreeMap<String, u64>,
}

impl Control {
    /// Opens all connections, then publishes until [`Control::stop`].
    pub(super) fn start(address: &Address, raw: usize, v1: usize, phase: &Phase) -> Result<Self> {
        let group = Group::open(address, raw, v1, phase).context("the control group")?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || group.run(&stop)
        });
        Ok(Self { stop, thread })
    }

    /// Publishes no more, waits for what is on its way, and leaves.
    pub(super) fn stop(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the control group does not panic")
    }
}

struct Group {
    poll: Poll,
    /// Subscribers; the last is the publisher.
    members: Vec<Member>,
    begun: Instant,
    phase: Phase,
    outcome: Outcome,
}

struct Member {
    client: Client<Stream>,
    unsent: Vec<u8>,
    expected: Expected,
    gone: bool,
}

/// What a subscriber must receive next.
struct Expected {
    /// Whether messages come in the envelopes of `ringyard.v1`.
    v1: bool,
    number: u64,
    /// Known once a message came.
    offset: Option<u64>,
}

/// A message of `ringyard.v1`.
#[derive(Deserialize)]
struct Envelope<'a> {
    r#type: &'a str,
    topic: &'a str,
    offset: u64,
    data: &'a str,
}

impl Group {
    fn open(address: &Address, raw: usize, v1: usize, phase: &Phase) -> Result<Self> {
        let mut peers = Vec::with_capacity(raw + v1 + 1);
        for _ in 0..raw {
            peers.push((Peer::open(address, &format!("/sub/{TOPIC}"))?, false));
        }
        for _ in 0..v1 {
            let mut peer = Peer::open(address, "/ws")?;
            let command = format!(r#"{{"type":"subscribe","id":1,"topic":"{TOPIC}"}}"#);
            peer.send(&wire::frame(TEXT, command.as_bytes()))?;
            let answer = peer.frame();
            ensure!(
                matches!(answer, Ok((TEXT, payload)) if payload.starts_with(br#"{"type":"ok""#)),
                "not subscribed: {answer:?}"
            );
            peers.push((peer, true));
        }
        peers.push((Peer::open(address, &format!("/pub/{TOPIC}"))?, false));

        let poll = Poll::new()?;
        let mut members = Vec::with_capacity(peers.len());
        for (token, (peer, v1)) in peers.into_iter().enumerate() {
            let mut client = peer.into_nonblocking()?;
            poll.registry().register(&mut SourceFd(&client.stream().as_raw_fd()), Token(token), Interest::READABLE)?;
            let expected = Expected { v1, number: 0, offset: None };
            members.push(Member { client, unsent: Vec::new(), expected, gone: false });
        }
        let outcome =
            Outcome { published: 0, delivered: 0, pings: 0, latencies: Latencies::new(), violations: BTreeMap::new() };
        Ok(Self { poll, members, begun: Instant::now(), phase: phase.clone(), outcome })
    }

    fn run(mut self, stop: &AtomicBool) -> Result<Outcome> {
        self.begun = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.publish();
            self.turn()?;
        }
        let stopped = Instant::now();
        while !self.all_have_all() && stopped.elapsed() < DRAIN_MAX {
            let publisher = self.members.last_mut().expect("there is always one");
            publisher.flush(&mut self.outcome);
            self.turn()?;
        }
        let published = self.outcome.published;
        let waiting = self.subscribers().filter(|member| !member.gone);
        let missing: u64 = waiting.map(|member| published - member.expected.number).sum();
        if missing > 0 {
            self.outcome.violations.insert("messages that never came".to_owned(), missing);
        }
        Ok(self.outcome)
    }

    fn subscribers(&self) -> impl Iterator<Item = &Member> {
        self.members[..self.members.len() - 1].iter()
    }

    fn all_have_all(&self) -> bool {
        self.subscribers().all(|member| member.gone || member.expected.number == self.outcome.published)
    }

    /// Publishes what is due.
    fn publish(&mut self) {
        let publisher = self.members.last_mut().expect("there is always one");
        while self.begun + INTERVAL * self.outcome.published as u32 <= Instant::now() {
            put_frame(&mut publisher.unsent, TEXT, message(self.outcome.published).as_bytes());
            self.outcome.published += 1;
        }
        publisher.flush(&mut self.outcome);
    }

    fn turn(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(512);
        match self.poll.poll(&mut events, Some(Duration::from_millis(2))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &events {
            self.members[event.token().0].read(self.begun, &self.phase, &mut self.outcome);
        }
        Ok(())
    }
}

impl Member {
    fn read(&mut self, begun: Instant, phase: &Phase, outcome: &mut Outcome) {
        while !self.gone {
            match self.client.frame() {
                Ok((TEXT, payload)) => self.expected.take(payload, begun, phase, outcome),
                Ok((PING, payload)) => {
                    outcome.pings += 1;
                    put_frame(&mut self.unsent, PONG, payload);
                }
                Ok((first, payload)) => {
                    let how = describe(first, payload);
                    self.lose(&how, outcome);
                }
                Err(Ending::Late) => break,
                Err(ending) => self.lose(&format!("{ending:?}"), outcome),
            }
        }
        self.flush(outcome);
    }

    fn flush(&mut self, outcome: &mut Outcome) {
        while !self.unsent.is_empty() && !self.gone {
            match self.client.stream().write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(&error.to_string(), outcome),
            }
        }
        // What waits in the stream itself; an error shows with the next read or write.
        drop(self.client.stream().flush());
    }

    fn lose(&mut self, how: &str, outcome: &mut Outcome) {
        self.gone = true;
        *outcome.violations.entry(format!("connections lost: {how}")).or_default() += 1;
    }
}

impl Expected {
    fn take(&mut self, payload: &[u8], begun: Instant, phase: &Phase, outcome: &mut Outcome) {
        let data = if self.v1 { self.open_envelope(payload) } else { std::str::from_utf8(payload).ok() };
        let seq = data.and_then(|data| data.split(' ').next()?.parse().ok());
        let due = |seq: u64| begun + INTERVAL * seq as u32;
        let what = match seq {
            Some(seq) if data != Some(&message(seq)) => "damaged messages",
            Some(seq) if seq == self.number => {
                self.number += 1;
                outcome.delivered += 1;
                outcome.latencies.record(phase, Instant::now().saturating_duration_since(due(seq)));
                return;
            }
            Some(seq) if seq > self.number => {
                *outcome.violations.entry("lost messages".to_owned()).or_default() += seq - self.number;
                self.number = seq + 1;
                return;
            }
            Some(_) => "messages that came again or late",
            None => "messages that nobody sent",
        };
        *outcome.violations.entry(what.to_owned()).or_default() += 1;
    }

    /// The data of a message with the right topic and the next offset.
    fn open_envelope<'a>(&mut self, payload: &'a [u8]) -> Option<&'a str> {
        let Envelope { r#type, topic, offset, data } = serde_json::from_slice(payload).ok()?;
        let good = r#type == "message" && topic == TOPIC && self.offset.is_none_or(|next| next == offset);
        self.offset = Some(offset + 1);
        good.then_some(data)
    }
}

/// The message with this number: the number and a filler that depends on it.
fn message(seq: u64) -> String {
    let letter = char::from(b'a' + (seq % 23) as u8);
    format!("{seq} {}", letter.to_string().repeat(FILLER))
}
