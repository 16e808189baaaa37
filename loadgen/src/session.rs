//! One process's connections and the loop that serves them.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use crate::clock::{now_ns, own_cpu_ns};
use crate::connect::{Wanted, open};
use crate::options::Options;
use crate::publish::Publisher;
use crate::receive::{Connection, Receiver};
use crate::report::Errors;
use crate::target::Target;

/// Events one poll reports at most.
const EVENTS_MAX: usize = 4096;
/// The longest wait of one turn.
const TURN_MAX: Duration = Duration::from_millis(100);

/// Subscribers, and the publisher if there is one. Tokens: subscribers from 0, then publisher, timer, waker.
pub(crate) struct Session {
    pub(crate) poll: Poll,
    events: Events,
    receiver: Receiver,
    connections: Vec<Connection>,
    publisher: Option<Publisher>,
    publishing: bool,
    window: Window,
}

/// Counts at the begin of the measurement, then what was counted in it.
#[derive(Default)]
struct Window {
    at_ns: u64,
    cpu_ns: u64,
    delivered: u64,
    reads: u64,
}

/// What one process contributes to the report.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) seconds: f64,
    pub(crate) delivered: u64,
    pub(crate) reads: u64,
    pub(crate) pings: u64,
    /// Of one core; of the busiest process after a merge.
    pub(crate) cpu_share: f64,
    pub(crate) errors: Errors,
    pub(crate) latencies: Histogram<u64>,
}

impl Part {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.reads += other.reads;
        self.pings += other.pings;
        self.cpu_share = self.cpu_share.max(other.cpu_share);
        self.errors.add(&other.errors);
        self.latencies.add(&other.latencies).expect("the same bounds");
    }
}

impl Session {
    /// Opens `subscribers` connections as process number `process`.
    pub(crate) fn open(options: &Options, target: &Target, subscribers: usize, process: usize) -> Result<Self> {
        let mut poll = Poll::new()?;
        let mut receiver = Receiver::new(options.payload, subscribers);
        let wanted = Wanted { target, count: subscribers, concurrency: options.concurrency, process, first_token: 0 };
        let opened = open(&mut poll, &wanted)?;
        let mut connections: Vec<_> = opened.into_iter().map(|opened| receiver.adopt(opened)).collect();
        // What came while others were still being opened raised its edge then.
        connections.iter_mut().for_each(|connection| receiver.read(connection));
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            receiver,
            connections,
            publisher: None,
            publishing: false,
            window: Window::default(),
        })
    }

    /// Opens the publisher; from now on [`Session::run_for`] publishes.
    pub(crate) fn open_publisher(&mut self, options: &Options) -> Result<()> {
        let target = Target::parse(&options.publish_url())?;
        let token = self.connections.len();
        let wanted =
            Wanted { target: &target, count: 1, concurrency: 1, process: options.processes, first_token: token };
        let opened = open(&mut self.poll, &wanted)?.pop().expect("one");
        let connection = self.receiver.adopt(opened);
        self.publisher = Some(Publisher::new(connection, options, &self.poll, Token(token + 1))?);
        self.publishing = true;
        self.connections.iter_mut().for_each(|connection| self.receiver.read(connection));
        Ok(())
    }

    /// The token that is free for a waker.
    pub(crate) fn waker_token(&self) -> Token {
        Token(self.connections.len() + 2)
    }

    pub(crate) fn published(&self) -> u64 {
        self.publisher.as_ref().map_or(0, |publisher| publisher.published)
    }

    /// Serves all connections for this long.
    pub(crate) fn run_for(&mut self, time: Duration) -> Result<()> {
        let deadline = now_ns() + time.as_nanos() as u64;
        loop {
            let now = now_ns();
            if now >= deadline {
                return Ok(());
            }
            self.turn(Duration::from_nanos(deadline - now))?;
        }
    }

    /// Waits for events, `patience` at most, and handles them.
    pub(crate) fn turn(&mut self, patience: Duration) -> Result<()> {
        let hungry = self.pump()?;
        let patience = if hungry { Duration::ZERO } else { patience.min(TURN_MAX) };
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        let mut completed = self.receiver.tally.progress.completed;
        for event in &self.events {
            let index = event.token().0;
            if let Some(connection) = self.connections.get_mut(index) {
                self.receiver.read(connection);
                if completed != self.receiver.tally.progress.completed {
                    completed = self.receiver.tally.progress.completed;
                    if let (true, Some(publisher)) = (self.publishing, &mut self.publisher) {
                        publisher.pump(completed)?;
                    }
                }
            } else if let (true, Some(publisher)) = (index == self.connections.len(), &mut self.publisher) {
                self.receiver.read(&mut publisher.connection);
            }
        }
        Ok(())
    }

    fn pump(&mut self) -> Result<bool> {
        match &mut self.publisher {
            Some(publisher) if self.publishing => publisher.pump(self.receiver.tally.progress.completed),
            Some(publisher) => publisher.flush().map(|_| false),
            None => Ok(false),
        }
    }

    /// The measurement begins.
    pub(crate) fn begin(&mut self) {
        let tally = &mut self.receiver.tally;
        tally.measuring = true;
        self.window = Window { at_ns: now_ns(), cpu_ns: own_cpu_ns(), delivered: tally.delivered, reads: tally.reads };
    }

    /// The measurement ends, and so does publishing.
    pub(crate) fn end(&mut self) {
        let (begun, tally) = (&self.window, &mut self.receiver.tally);
        tally.measuring = false;
        self.window = Window {
            at_ns: now_ns() - begun.at_ns,
            cpu_ns: own_cpu_ns() - begun.cpu_ns,
            delivered: tally.delivered - begun.delivered,
            reads: tally.reads - begun.reads,
        };
        self.publishing = false;
    }

    /// Receives what is on its way of `published` messages, until nothing came for `patience`.
    pub(crate) fn finish(mut self, published: u64, patience: Duration) -> Result<Part> {
        let wanted = published * self.connections.len() as u64;
        let (mut delivered, mut since) = (self.receiver.tally.delivered, now_ns());
        while delivered < wanted && now_ns() - since < patience.as_nanos() as u64 {
            self.turn(TURN_MAX)?;
            if self.receiver.tally.delivered != delivered {
                (delivered, since) = (self.receiver.tally.delivered, now_ns());
            }
        }
        self.receiver.count_missing(&self.connections, published);
        let (window, tally) = (self.window, self.receiver.tally);
        Ok(Part {
            seconds: window.at_ns as f64 / 1e9,
            delivered: window.delivered,
            reads: window.reads,
            pings: tally.pings,
            cpu_share: window.cpu_ns as f64 / window.at_ns.max(1) as f64,
            errors: tally.errors,
            latencies: tally.latencies,
        })
    }
}
