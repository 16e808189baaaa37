//! The plan of a run: pure functions from the number of a client or publisher to its topics, streams, worker and source
//! address. So every process and worker knows them without communication.
//!
//! Client `i` subscribes to topics `i·k .. i·k + k` modulo the number of topics. Stream `s` goes to topic `s` modulo the
//! same, and publisher `p` of `P` writes the streams `p, p + P, ...`. Numbers count over all processes of a run; each
//! process does its [`Portion`] of them. Clients are assigned to workers in turn.
//!
//! Not responsible for whether the machine can do it (`machine`).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};

use crate::adapter::{Adapter, Duty, Names, Protocol, Topics, Uses};
use crate::clock::Clock;
use crate::machine::Machine;
use crate::options::{AccessOptions, Options, Portion, Rate, Scenario, Switch};
use crate::stamp::{Payloads, STREAMS_MAX};
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
            workers: workers(&options, machine, own_clients.1 + own_publishers.1)?,
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
        self.own_clients.1 + self.own_publishers.1
    }

    /// The connections of one worker, publishers first.
    pub(crate) fn roles_of(&self, worker: u32) -> impl Iterator<Item = Role> + use<'_> {
        let dealt = move |(first, count): (u64, u64)| {
            (first..first + count).filter(move |number| number % u64::from(self.workers) == u64::from(worker))
        };
        let publishers = dealt(self.own_publishers).map(|number| Role::Publisher(number as u32));
        publishers.chain(dealt(self.own_clients).map(Role::Client))
    }

    /// What a connection is for.
    pub(crate) fn duty(&self, role: Role) -> Duty {
        match role {
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
        if self.verifying >= 1.0 {
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
        let share = self.options.slow_share.unwrap_or(0.0);
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

/// Connections that only publish: as many as were asked for, or the fewest that can publish on all topics.
fn publishers(options: &Options, protocol: Protocol) -> Result<u32> {
    let (topics, can) = (options.topics.unwrap_or(1), protocol.abilities());
    if options.idle || options.everyone_publishes {
        return Ok(0);
    }
    let least = topics.div_ceil(can.publications_max.max(1));
    let publishers = options.publishers.unwrap_or(least);
    ensure!(
        publishers >= least,
        "--publishers {publishers}: with {}, {topics} topics need {least} publishing connections",
        protocol.name()
    );
    Ok(publishers)
}

/// Refuses options that the protocol cannot serve.
fn check_abilities(options: &Options, protocol: Protocol) -> Result<()> {
    let (can, protocol) = (protocol.abilities(), protocol.name());
    let per_client = options.topics_per_client.unwrap_or(1);
    ensure!(
        per_client <= can.subscriptions_max,
        "--topics-per-client {per_client}: with {protocol}, a connection holds at most {}",
        can.subscriptions_max
    );
    ensure!(
        !options.everyone_publishes || can.both,
        "--everyone-publishes (or --scenario chat): with {protocol}, a connection cannot do both"
    );
    ensure!(
        can.churn || !options.everyone_publishes || options.churn.is_none_or(|churn| churn == 0.0),
        "--churn: with {protocol}, whole connections come and go, and would lose what they have just published: not \
         together with --everyone-publishes (or --scenario chat)"
    );
    Ok(())
}

/// What connections to `wss://` need; nothing when there are none.
fn tls(options: &Options, adapter: &Adapter) -> Result<Option<Tls>> {
    let AccessOptions { tls_ca, tls_insecure, tls_resume, .. } = &options.access;
    let subscribes = Duty { subscribes: Topics { count: 1, ..Topics::default() }, ..Duty::default() };
    let secure = adapter.server_name(&subscribes).or(adapter.server_name(&Duty::default())).is_some();
    let resume = *tls_resume == Switch::On;
    ensure!(
        secure || !(tls_ca.is_some() || *tls_insecure || resume),
        "--tls-ca, --tls-insecure and --tls-resume are for addresses that begin with wss://"
    );
    secure.then(|| Tls::new(tls_ca.as_deref(), *tls_insecure, resume)).transpose()
}

/// What is asked of the topics' histories.
fn uses(options: &Options, protocol: Protocol) -> Result<Uses> {
    let (can, name) = (protocol.abilities(), protocol.name());
    let state = options.scenario == Scenario::KeyedState;
    ensure!(
        can.history || !options.recovers(),
        "--drops and --behind (or --scenario recovery): with {name}, a subscription cannot begin after a position"
    );
    ensure!(
        can.state || !(state || options.retain || options.keys.is_some()),
        "--keys and --retain (or --scenario keyed-state): with {name}, messages have no key; --protocol v1 does that"
    );
    let conflate = options.scenario == Scenario::Conflate;
    ensure!(
        can.state || !(conflate || options.throttle.is_some()),
        "--throttle and --scenario conflate: with {name}, a server does not say how it delivers; --protocol v1 does that"
    );
    Ok(Uses {
        positions: options.recovers(),
        keys: options.keys.unwrap_or(0),
        retain: options.retain,
        filter: state && options.retain,
        throttle_ms: options.throttle.map(|throttle| throttle.as_millis() as u32),
        token_by: options.access.carried(protocol)?,
    })
}

/// The share of the clients that look at every frame.
fn verifying(options: &Options, protocol: Protocol) -> Result<f64> {
    // Where messages are left out, bytes tell nothing of anybody: then only the sample is checked.
    let discard = protocol.abilities().discard || options.scenario == Scenario::Conflate;
    let verifying = match options.verify {
        Some(share) => share.0,
        None if discard && !options.recovers() => (VERIFYING_MAX as f64 / options.clients.unwrap_or(1) as f64).min(1.0),
        None => 1.0,
    };
    ensure!(
        verifying >= 1.0 || !options.recovers(),
        "--verify: clients that come back with their positions have to look at every frame"
    );
    ensure!(
        discard || verifying >= 1.0,
        "--verify: with {}, the number of bytes does not tell what arrived, so every client has to look at every frame",
        protocol.name()
    );
    Ok(verifying)
}

fn workers(options: &Options, machine: &Machine, connections: u64) -> Result<u32> {
    let least = machine.workers_for(connections);
    let Some(workers) = options.workers else {
        return Ok(u64::from(machine.cores).max(least).min(connections.max(1)) as u32);
    };
    ensure!(
        u64::from(workers) >= least || options.force,
        "--workers {workers}: {connections} connections need at least {least} rings of {} descriptors",
        machine.descriptors_per_ring()
    );
    Ok(workers)
}

/// `127.x.y.z`: a block for each process, an address for each thousand connections. 127.0 is left to servers.
fn loopback(share: Portion, number: u64) -> Ipv4Addr {
    let group = number / PER_SOURCE;
    Ipv4Addr::new(127, share.index as u8, (group / 250 % 250) as u8, 1 + (group % 250) as u8)
}

#[cfg(test)]
mod tests;
