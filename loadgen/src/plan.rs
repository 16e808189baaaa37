//! The plan of a run: pure functions from the number of a client or publisher to its topics, streams, worker and source
//! address. So every process and worker knows them without communication.
//!
//! Client `i` subscribes to topics `i·k .. i·k + k` modulo the number of topics. Stream `s` goes to topic `s` modulo the
//! same, and publisher `p` of `P` writes the streams `p, p + P, ...`. Numbers count over all processes of a run; each
//! process does its [`Portion`] of them. Clients are assigned to workers in turn.
//!
//! Clients whose numbers are not below the number of clients are those that log in during a storm: the last worker has them
//! all, so that the others go on in time.
//!
//! Not responsible for what protocol and options allow (`checks`), nor for whether the machine can do it (`machine`).

mod checks;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};

use checks::{check_abilities, publishers, tls, uses, verifying, workers};

use crate::adapter::{Adapter, Duty, Names, Protocol, Topics, Uses};
use crate::clock::Clock;
use crate::machine::Machine;
use crate::options::{Options, Portion, Rate, Scenario};
use crate::stamp::{Payloads, STAMP_LEN, STREAMS_MAX, Sizes};
use crate::tls::Tls;
use crate::token::{Holder, Tokens};

/// Clients that look at every frame, unless `--verify` says otherwise.
const VERIFYING_MAX: u64 = 20_000;
/// Connections per source address on loopback: far fewer than there are ports, so that the kernel finds a free one at
/// once.
pub(crate) const PER_SOURCE: u64 = 1000;

/// The whole run. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) adapter: Adapter,
    pub(crate) payloads: Payloads,
    /// What is asked of the topics' histories.
    pub(crate) uses: Uses,
    pub(crate) clock: Clock,
    /// Of addresses that begin with `wss://`.
    pub(crate) tls: Option<Tls>,
    /// With which connections log in.
    pub(crate) tokens: Option<Tokens>,
    /// Clients of all processes.
    pub(crate) clients: u64,
    pub(crate) topics: u32,
    pub(crate) topics_per_client: u32,
    /// Of all processes.
    pub(crate) streams: u32,
    /// Connections that only publish, of all processes.
    pub(crate) publishers: u32,
    /// Share of the clients that look at every frame.
    pub(crate) verifying: f64,
    pub(crate) pacing: Pacing,
    pub(crate) workers: u32,
    /// Clients that log in during the storm.
    pub(crate) logins: u64,
    /// What they subscribe to: another topic, on which nothing is published.
    elsewhere: Option<Adapter>,
    /// First number and count of this process's clients.
    pub(crate) own_clients: (u64, u64),
    /// First number and count of this process's publishers.
    pub(crate) own_publishers: (u64, u64),
}

/// When messages are published.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pacing {
    /// Never.
    Idle,
    /// At fixed times; messages per second of all streams together.
    Open(f64),
    /// When fewer than this many bursts of a stream are on their way.
    Closed(u32),
}

/// What a worker's connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// A subscriber, by its number.
    Client(u64),
    /// A publisher, by its number.
    Publisher(u32),
}

impl Plan {
    /// Of completed and checked options.
    pub(crate) fn new(options: Options, machine: &Machine) -> Result<Self> {
        let is_own = matches!(options.scenario, Scenario::RequestReply | Scenario::PresenceCrowd);
        ensure!(!is_own, "--scenario {} has a program of its own", options.scenario.name());
        let topics = options.topics.expect("completed");
        let clients = options.clients.expect("completed");
        let payloads = Payloads::new(options.payload.clone().expect("completed").0);
        let names = Names { prefix: options.topic_prefix.clone(), count: topics };
        let protocol = options.protocol.expect("completed");
        let adapter = Adapter::new(protocol, &options.url, options.publish_url.as_deref(), &names, payloads.clone())?;
        check_abilities(&options, protocol)?;
        let (tls, clock) = (tls(&options, &adapter)?, Clock::new());
        let uses = uses(&options, protocol)?;
        let adapter = adapter.using(uses);
        let logins = options.access.logins.unwrap_or(0);
        let elsewhere = (logins > 0).then(|| elsewhere(&options, protocol)).transpose()?;
        let publishers = publishers(&options, protocol)?;
        let streams = match (options.idle, options.everyone_publishes) {
            (true, _) => 0,
            (_, true) => clients,
            _ => u64::from(publishers.max(topics)),
        };
        ensure!(streams < u64::from(STREAMS_MAX), "{streams} streams: at most {} are possible", STREAMS_MAX - 1);
        let verifying = verifying(&options, protocol)?;
        let pacing = match options.rate.expect("completed") {
            _ if options.idle => Pacing::Idle,
            Rate::PerSecond(rate) => Pacing::Open(rate),
            Rate::Max => Pacing::Closed(options.outstanding.expect("completed")),
        };
        let own_clients = options.share.part(clients);
        let own_publishers = options.share.part(u64::from(publishers));
        let plan = Self {
            adapter,
            payloads,
            uses,
            tokens: options.access.tokens(&clock)?,
            clock,
            tls,
            clients,
            topics,
            topics_per_client: options.topics_per_client.expect("completed"),
            streams: streams as u32,
            publishers,
            verifying,
            pacing,
            workers: workers(&options, machine, own_clients.1 + own_publishers.1)? + u32::from(logins > 0),
            elsewhere: elsewhere.map(|adapter| adapter.using(uses)),
            logins,
            own_clients,
            own_publishers,
            options,
        };
        plan.check_closed_loop()?;
        Ok(plan)
    }

    fn check_closed_loop(&self) -> Result<()> {
        if !matches!(self.pacing, Pacing::Closed(_)) {
            return Ok(());
        }
        let per_topic = self.clients * u64::from(self.topics_per_client) / u64::from(self.topics);
        ensure!(per_topic > 0, "a closed loop needs a client on each of the {} topics", self.topics);
        let share = 1.0 / per_topic as f64;
        ensure!(
            self.verifying >= share,
            "a closed loop (--rate max) needs a verifying client on each topic: --verify {share:.4} or more"
        );
        Ok(())
    }

    /// When publishing begins, if that was said: monotonic nanoseconds.
    pub(crate) fn start_at(&self) -> Option<ring::Nanos> {
        self.options.start_at.map(|unix| self.clock.monotonic_of((unix * 1e9) as u64))
    }

    /// Whether clients come back with their positions.
    pub(crate) fn recovers(&self) -> bool {
        self.uses.positions
    }

    /// Whether clients connect only when publishing is over.
    pub(crate) fn late(&self) -> bool {
        self.options.scenario == Scenario::KeyedState
    }

    /// Connections of this process.
    pub(crate) fn connections(&self) -> u64 {
        self.own_clients.1 + self.own_publishers.1 + self.logins
    }

    /// Whether a connection is one of those that log in during the storm.
    pub(crate) fn is_login(&self, role: Role) -> bool {
        matches!(role, Role::Client(number) if number >= self.clients)
    }

    /// Whether a connection waits for a command before it connects.
    pub(crate) fn is_held(&self, role: Role) -> bool {
        self.is_login(role) || (self.late() && matches!(role, Role::Client(_)))
    }

    /// Whether a worker has those that log in, and nobody else.
    pub(crate) fn logs_in(&self, worker: u32) -> bool {
        self.logins > 0 && worker + 1 == self.workers
    }

    /// What a connection says to subscribe.
    pub(crate) fn adapter_of(&self, role: Role) -> &Adapter {
        self.elsewhere.as_ref().filter(|_| self.is_login(role)).unwrap_or(&self.adapter)
    }

    /// The connections of one worker, publishers first.
    pub(crate) fn roles_of(&self, worker: u32) -> impl Iterator<Item = Role> + use<'_> {
        let workers = u64::from(self.workers) - u64::from(self.logins > 0);
        let dealt = move |(first, count): (u64, u64)| {
            (first..first + count).filter(move |number| number % workers == u64::from(worker))
        };
        let publishers = dealt(self.own_publishers).map(|number| Role::Publisher(number as u32));
        let logins = if self.logs_in(worker) { self.clients..self.clients + self.logins } else { 0..0 };
        publishers.chain(dealt(self.own_clients).chain(logins).map(Role::Client))
    }

    /// What a connection is for.
    pub(crate) fn duty(&self, role: Role) -> Duty {
        match role {
            Role::Client(_) if self.is_login(role) => {
                Duty { subscribes: Topics { first: 0, step: 1, count: 1 }, publishes: Topics::default() }
            }
            Role::Client(client) => {
                let subscribes = self.topics_of(client);
                let publishes = if self.options.everyone_publishes { subscribes } else { Topics::default() };
                Duty { subscribes, publishes }
            }
            Role::Publisher(publisher) => {
                let count = self.streams_of(role).count().min(self.topics as usize) as u32;
                let step = self.publishers % self.topics;
                let publishes =
                    Topics { first: publisher % self.topics, step: if count == 1 { 1 } else { step }, count };
                Duty { subscribes: Topics::default(), publishes }
            }
        }
    }

    fn topics_of(&self, client: u64) -> Topics {
        let first = (client * u64::from(self.topics_per_client) % u64::from(self.topics)) as u32;
        Topics { first, step: 1, count: self.topics_per_client }
    }

    /// The streams that a connection writes.
    pub(crate) fn streams_of(&self, role: Role) -> impl Iterator<Item = u32> + use<> {
        let (first, step) = match role {
            Role::Client(client) if self.options.everyone_publishes => (client as u32, self.streams),
            Role::Client(_) => (self.streams, 1),
            Role::Publisher(publisher) => (publisher, self.publishers),
        };
        (first..self.streams).step_by(step.max(1) as usize)
    }

    /// With which a connection logs in.
    pub(crate) fn token(&self, role: Role) -> Option<Cow<'_, str>> {
        let holder = match role {
            // The server has seen all of these.
            Role::Client(number) if self.options.access.token_reuse => Holder::Client(number % self.clients),
            Role::Client(number) => Holder::Client(number),
            Role::Publisher(number) => Holder::Publisher(number),
        };
        self.tokens.as_ref().map(|tokens| tokens.of(holder))
    }

    /// The worker that writes a stream.
    pub(crate) fn writer(&self, stream: u32) -> u32 {
        let role = if self.publishers > 0 { stream % self.publishers } else { stream };
        role % self.workers
    }

    /// Closed loop: the index of the counter of a worker and a stream in `Shared::completed`.
    pub(crate) fn progress_at(&self, worker: u32, stream: u32) -> usize {
        worker as usize * self.streams as usize + stream as usize
    }

    /// The topic of a stream.
    pub(crate) fn topic_of(&self, stream: u32) -> u32 {
        stream % self.topics
    }

    /// The most streams on one topic.
    pub(crate) fn streams_per_topic(&self) -> u32 {
        self.streams.div_ceil(self.topics)
    }

    /// The index of a stream among those that a client with these topics receives; nothing if it does not receive it.
    pub(crate) fn place(&self, topics: &Topics, stream: u32) -> Option<usize> {
        if stream >= self.streams {
            return None;
        }
        let topic = self.topic_of(stream);
        let at = (topic + self.topics - topics.first) % self.topics;
        (at < topics.count).then(|| (stream / self.topics) as usize * topics.count as usize + at as usize)
    }

    /// The stream at a place.
    pub(crate) fn stream_at(&self, topics: &Topics, place: usize) -> u32 {
        let (round, at) = (place / topics.count as usize, place % topics.count as usize);
        round as u32 * self.topics + (topics.first + at as u32) % self.topics
    }

    /// Places of a client.
    pub(crate) fn places(&self, topics: &Topics) -> usize {
        self.streams_per_topic() as usize * topics.count as usize
    }

    /// Whether a client looks at every frame: evenly spread over each topic's subscribers.
    pub(crate) fn verifies(&self, client: u64) -> bool {
        if self.verifying >= 1.0 || client >= self.clients {
            return true;
        }
        let position = client * u64::from(self.topics_per_client);
        let (rank, topic) = (position / u64::from(self.topics), position % u64::from(self.topics));
        let offset = (topic as f64 * 0.618_033_988_749_895).fract();
        let upto = |rank: u64| (rank as f64 * self.verifying + offset).floor();
        upto(rank + 1) > upto(rank)
    }

    /// Whether a client reads late or never.
    pub(crate) fn is_slow(&self, client: u64) -> bool {
        let share = if client < self.clients { self.options.slow_share.unwrap_or(0.0) } else { 0.0 };
        ((client as f64 + 0.5) * 0.754_877_666_246_693).fract() < share
    }

    /// The source address of a connection; nothing: the kernel's choice.
    pub(crate) fn source(&self, role: Role) -> Option<SocketAddr> {
        let (number, target) = match role {
            Role::Client(client) => (client - self.own_clients.0, self.adapter.address()),
            Role::Publisher(number) => (self.own_clients.1 + u64::from(number), self.adapter.publish_address()),
        };
        let given = &self.options.source;
        if !given.is_empty() {
            return Some(SocketAddr::new(given[number as usize % given.len()], 0));
        }
        let IpAddr::V4(ip) = target.ip() else { return None };
        ip.is_loopback().then(|| SocketAddr::from((loopback(self.options.share, number), 0)))
    }

    /// Whether both ends of the connections are on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.adapter.address().ip().is_loopback()
    }
}

/// What those subscribe to who log in during a storm.
fn elsewhere(options: &Options, protocol: Protocol) -> Result<Adapter> {
    let names = Names { prefix: format!("{}-logins", options.topic_prefix), count: 1 };
    Adapter::new(protocol, &options.url, None, &names, Payloads::new(Sizes::Fixed(STAMP_LEN as u32)))
}

/// `127.x.y.z`: a block for each process, an address for each thousand connections. 127.0 is left to servers.
fn loopback(share: Portion, number: u64) -> Ipv4Addr {
    let group = number / PER_SOURCE;
    Ipv4Addr::new(127, share.index as u8, (group / 250 % 250) as u8, 1 + (group % 250) as u8)
}

#[cfg(test)]
mod tests;
