//! What one seed stands for: how many of whom, how small the limits are, and what goes wrong how often.

mod draws;

use std::num::NonZeroU32;
use std::time::Duration;

use broker::config::limits::Limits;
use ring::Random;
use ring::sim::{Chance, Faults};

use crate::access::{Access, USERS};
use crate::leases::{self, Leases};
use crate::presence::{self, Presence};
use crate::rules::{self, Policy, TopicRule};
use draws::{admission, mild, topics};

/// Seeds that tests pin for what they once showed: what came to the simulation later would make them other runs.
const PINNED: [u64; 29] = [
    0, 1, 2, 3, 4, 5, 6, 7, 11, 13, 14, 24, 25, 26, 28, 36, 45, 80, 90, 105, 108, 127, 188, 235, 255, 391, 415, 3543,
    16440,
];

/// Seeds that tests pin, and that would have access control: they go on without.
const UNGUARDED: [u64; 5] = [4, 14, 24, 409, 1079];
/// Seeds beside those that were named for what they showed before there were requests.
const WITHOUT_REQUESTS: [u64; 13] = [10, 12, 30, 142, 242, 409, 511, 1079, 1458, 1820, 3478, 5857, 7669];
/// The same before clients were present anywhere.
const WITHOUT_PRESENCE: [u64; 3] = [75, 441, 713];
/// The same before there were leases.
const WITHOUT_LEASES: [u64; 7] = [102, 121, 199, 596, 898, 1223, 1400];
/// The longest time that somebody waits for an answer, in milliseconds.
pub(crate) const REQUEST_MS_MAX: u64 = 5000;

/// A run, as its seed decides it.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where everything comes from.
    pub seed: u64,
    /// Shards, each with a driver of its own.
    pub shards: u16,
    /// Clients at a time.
    pub clients: usize,
    /// Clients over the whole run, those that replace others included.
    pub clients_total: usize,
    /// Topics that are published to.
    pub topics: Vec<String>,
    /// What each remembers, and how it is delivered.
    pub rules: Vec<TopicRule>,
    /// Rules for filters, which say how those are delivered.
    pub filters: Vec<(String, Policy)>,
    /// Whether topics differ in how they are delivered, and operators purge some.
    pub policies: bool,
    /// Whether nothing holds up the shards or the network, so that deliveries can be timed.
    pub steady: bool,
    /// Rounds before everything comes to rest: in each, every shard and every client may act once.
    pub rounds: usize,
    /// The broker's limits.
    pub limits: Limits,
    /// What the network does.
    pub faults: Faults,
    /// What one direction of a connection holds.
    pub socket_buffer_bytes: usize,
    /// Connections that fit in one driver.
    pub capacity: u32,
    /// Receive buffers of one driver, and their size.
    pub buffers: u32,
    /// In bytes.
    pub buffer_bytes: usize,
    /// One in how many messages is longer than 64 KiB; 0: none.
    pub huge_one_in: usize,
    /// Usual longest payload.
    pub payload_bytes_max: usize,
    /// In percent per round: a publisher has something to say.
    pub publish_percent: usize,
    /// The most messages it says at once.
    pub burst_max: usize,
    /// In percent: a client breaks rules.
    pub hostile_percent: usize,
    /// In percent: a client reads slowly, in pieces, or not at all.
    pub sluggish_percent: usize,
    /// In ten-thousandths per round: a client is torn down.
    pub churn: usize,
    /// In ten-thousandths per round and shard: its turns are withheld for a while.
    pub stall: usize,
    /// The longest while, in rounds.
    pub stall_max: usize,
    /// In ten-thousandths per round: the clock leaps.
    pub leap: usize,
    /// Whether the run ends in a shutdown with traffic under way.
    pub shutdown: bool,
    /// Over how long clients are told to go then.
    pub drain_window: Duration,
    /// WebSockets of all shards together.
    pub connections_max: u64,
    /// Memory held for clients.
    pub budget_bytes: u64,
    /// Who may do what, in a share of the seeds.
    pub access: Option<Access>,
    /// There, by how many milliseconds at most time passes at once now and then, so that tokens end; 0: it does not.
    pub stride_ms: usize,
    /// Whether some clients publish over HTTP. Not with the seeds of regressions, which go on to test what they did.
    pub posters: bool,
    /// Whether clients of `ringyard.v1` ask each other. In a share of the seeds: the others are the runs that they were.
    pub requests: bool,
    /// Sessions and presence, in a share of the seeds.
    pub presence: Option<Presence>,
    /// Leases and wills, in a share of those.
    pub leases: Option<Leases>,
    /// Whether some clients are streams of events, in a share of the seeds.
    pub streams: bool,
}

impl Params {
    /// The parameters of a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Random::new(seed ^ 0x5249_4e47_5941_5244);
        let rng = &mut rng;
        let nasty = rng.below(4);
        let shards = rng.range(1, 4) as u16;
        let clients = if rng.one_in(4) { rng.range(20, 40) } else { rng.range(2, 20) };
        let many = rng.one_in(3);
        let topics = topics(if many { rng.range(8, 40) } else { rng.range(1, 4) });
        let lag_bytes_max = rng.pick(&[4 << 10, 16 << 10, 64 << 10, 1 << 20]);
        let huge_one_in = if lag_bytes_max > 64 << 10 && rng.one_in(2) { 60 } else { 0 };
        let payload_bytes_max = rng.pick(&[20, 120, 200, 1000, 3000]);
        let seconds = |rng: &mut Random, low, high| Duration::from_secs(rng.range(low, high) as u64);
        let limits = Limits {
            frame_bytes_max: 160 << 10,
            message_bytes_max: 200 << 10,
            subscriptions_max: rng.pick(&[4, 12, 1024]),
            lag_bytes_max,
            log_bytes_max: lag_bytes_max * rng.range(2, 8) as u64 + (1 << 18),
            outbox_bytes_max: rng.pick(&[1 << 10, 8 << 10, 256 << 10]),
            handshake_timeout: seconds(rng, 2, 10),
            ping_interval: seconds(rng, 5, 25),
            ping_timeout: seconds(rng, 3, 20),
            close_timeout: seconds(rng, 1, 5),
            topic_idle_timeout: seconds(rng, 2, 60),
            shutdown_grace: Duration::from_secs(30),
            hosts: vec!["broker.example".to_owned()],
            ..Limits::default()
        };
        let faults = match nasty {
            0 => Faults::NONE,
            1 => mild(rng),
            2 => Faults::ROUGH,
            _ => Faults { reset: Chance(rng.range(1, 60) as u16), ..Faults::HARSH },
        };
        let limits = admission(limits, seed);
        let queues = rng.one_in(16);
        let params = Self {
            seed,
            shards,
            clients,
            clients_total: clients + rng.range(0, clients * 2),
            rules: rules::draw(topics.len(), seed),
            filters: Vec::new(),
            policies: false,
            steady: false,
            access: None,
            stride_ms: 0,
            topics,
            rounds: rng.range(60, 300),
            limits,
            faults,
            socket_buffer_bytes: rng.pick(&[300, 2_000, 16 << 10, 64 << 10]),
            capacity: if rng.one_in(4) { rng.range(2, 8) as u32 } else { 256 },
            buffers: rng.pick(&[2, 8, 64]),
            buffer_bytes: rng.pick(&[16, 256, 4096]),
            huge_one_in,
            payload_bytes_max,
            publish_percent: rng.pick(&[2, 10, 40]),
            burst_max: rng.pick(&[1, 5, 30]),
            hostile_percent: rng.pick(&[0, 0, 10, 30]),
            sluggish_percent: rng.pick(&[0, 20, 50]),
            churn: rng.pick(&[0, 20, 100]),
            stall: rng.pick(&[0, 50, 300]),
            stall_max: rng.range(2, 40),
            leap: rng.pick(&[0, 0, 30, 100]),
            shutdown: rng.one_in(3),
            drain_window: if rng.one_in(2) {
                Duration::from_millis(rng.range(1, 8_000) as u64)
            } else {
                Duration::ZERO
            },
            budget_bytes: u64::MAX >> 1,
            posters: matches!(seed % 16, 0..=2 | 10 | 12 | 13),
            requests: false,
            presence: None,
            leases: None,
            streams: false,
            connections_max: if rng.one_in(8) { rng.range(1, clients) as u64 } else { u64::MAX },
        };
        let rate = if rng.one_in(8) { NonZeroU32::new(rng.range(1, 30) as u32) } else { None };
        let params = Self { limits: Limits { accept_rate_max: rate, ..params.limits.clone() }, ..params };
        let params = params.with_short_memory().with_short_history().with_short_logs();
        let params = if queues { params.with_full_queues() } else { params };
        params.with_policies().with_access().with_requests().with_presence().with_leases().with_streams()
    }

    /// Sometimes topics differ in how they are delivered. Drawn from a generator of its own, which shifts nothing else.
    fn with_policies(mut self) -> Self {
        let mut rng = Random::new(self.seed ^ 0x706f_6c69_6379);
        if PINNED.contains(&self.seed) || rng.one_in(2) {
            return self;
        }
        self.policies = true;
        self.steady = self.rounds < 700 && rng.one_in(3);
        self.filters = rules::with_policies(&self.topics, &mut self.rules, self.steady, &mut rng);
        // Somebody has to be slow.
        self.sluggish_percent = self.sluggish_percent.max(rng.pick(&[0, 30, 50]));
        if self.steady { self.held_up_by_nothing() } else { self }
    }

    /// Of five seeds, one has access control. Drawn from a generator of its own, which shifts nothing else.
    fn with_access(mut self) -> Self {
        if self.seed % 5 != 4 || UNGUARDED.contains(&self.seed) || self.steady {
            return self;
        }
        let mut rng = Random::new(self.seed ^ 0x0061_6363_6573_7321);
        for user in USERS {
            self.topics.push(format!("u/{user}/x"));
            self.rules.push(rng.pick(&self.rules.clone()));
        }
        self.access = Some(Access::draw(&mut rng));
        self.stride_ms = rng.pick(&[60, 600, 3_000]);
        // What is measured against the clock elsewhere must mind that it leaps.
        self.leap = self.leap.max(1);
        self.limits.auth_timeout = Duration::from_millis(rng.range(500, 6_000) as u64);
        self.hostile_percent = self.hostile_percent.min(10);
        self
    }

    /// Sometimes clients ask each other, where each may. Drawn from a generator of its own, which shifts nothing else.
    fn with_requests(self) -> Self {
        let mut rng = Random::new(self.seed ^ 0x7265_7175_6573_7473);
        let is_named = PINNED.contains(&self.seed) || WITHOUT_REQUESTS.contains(&self.seed);
        if is_named || self.access.is_some() || !rng.one_in(4) {
            return self;
        }
        let requests_max = rng.pick(&[2, 8, 64]);
        Self { requests: true, limits: Limits { requests_max, ..self.limits }, ..self }
    }

    /// Sometimes clients have sessions and are present. Drawn from a generator of its own, which shifts nothing else.
    fn with_presence(mut self) -> Self {
        let mut rng = Random::new(self.seed ^ 0x7072_6573_656e_6365);
        let is_named = [&PINNED[..], &WITHOUT_REQUESTS, &WITHOUT_PRESENCE].concat().contains(&self.seed);
        if is_named || self.access.is_some() || self.steady || !rng.one_in(3) {
            return self;
        }
        let presence = Presence::draw(&mut rng, self.topics.len(), !self.requests);
        self.limits = presence.limits(self.limits);
        self.presence = Some(presence);
        // Graces have to end, and clients to come back.
        self.stride_ms = rng.pick(&[0, 60, 600, 3_000]);
        self.leap = self.leap.max(1);
        self.churn = self.churn.max(rng.pick(&[30, 100, 200]));
        self.clients_total += 2 * self.clients;
        self
    }

    /// Most of those that have sessions have leases and wills too. Drawn from a generator of its own, which shifts nothing else.
    fn with_leases(mut self) -> Self {
        let mut rng = Random::new(self.seed ^ 0x006c_6561_7365_7321);
        if self.presence.is_none() || WITHOUT_LEASES.contains(&self.seed) || rng.one_in(4) {
            return self;
        }
        self.leases = Some(Leases::draw(&mut rng, &mut self.topics, &mut self.rules));
        // Where memory is short little is certain, and a shutdown leaves much open.
        if !rng.one_in(4) {
            self.budget_bytes = u64::MAX >> 1;
            self.limits.keys_max = 1_000_000;
            self.limits.history_bytes_max = 64 << 20;
        }
        self.shutdown = rng.one_in(4);
        self.drain_window = Duration::from_millis(rng.pick(&[0, 200, 2_000, 6_000]));
        self
    }

    /// Whether tokens say who somebody is, and everybody may do everything.
    pub(crate) fn has_users(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.has_users)
    }

    /// How many members a topic lists; 0 where nobody can be present.
    pub(crate) fn members_max(&self, topic: usize) -> usize {
        self.presence.as_ref().and_then(|presence| presence.members_max(topic)).unwrap_or(0) as usize
    }

    /// Whether sessions and members may be refused for want of room.
    pub(crate) fn is_short(&self) -> bool {
        self.budget_bytes < 1 << 40 || self.limits.keys_max < 10_000 || self.limits.history_bytes_max < 1 << 20
    }

    /// The longest time that something may go on by itself when nobody begins anything, in milliseconds.
    pub(crate) fn waits_max_ms(&self) -> u64 {
        let requests = if self.requests { REQUEST_MS_MAX + 200 } else { 0 };
        let leases = if self.leases.is_some() { leases::WAIT_MS_MAX + 200 } else { 0 };
        self.throttle_max_ms().max(requests).max(leases).max(if self.presence.is_some() {
            presence::WAITS_MS
        } else {
            0
        })
    }

    fn held_up_by_nothing(self) -> Self {
        let limits = Limits {
            lag_bytes_max: 1 << 20,
            log_bytes_max: 16 << 20,
            accept_rate_max: None,
            connections_per_address_max: None,
            ..self.limits
        };
        Self {
            rounds: self.rounds + 300,
            limits,
            faults: Faults::NONE,
            socket_buffer_bytes: 64 << 10,
            capacity: 256,
            buffers: 64,
            buffer_bytes: 4096,
            huge_one_in: 0,
            payload_bytes_max: self.payload_bytes_max.min(200),
            publish_percent: self.publish_percent.min(10),
            burst_max: self.burst_max.min(5),
            hostile_percent: 0,
            stall: 0,
            leap: 0,
            budget_bytes: u64::MAX >> 1,
            connections_max: u64::MAX,
            ..self
        }
    }

    /// The longest time that something waits for its subscribers' throttle, in milliseconds.
    pub(crate) fn throttle_max_ms(&self) -> u64 {
        // A client may ask for the longest.
        if self.policies { 5000 } else { 0 }
    }

    /// Sometimes memory is short, and messages may not take long. Drawn from a generator of its own, which shifts
    /// nothing else.
    fn with_short_memory(self) -> Self {
        let mut rng = Random::new(self.seed ^ 0x6d65_6d6f_7279);
        let budget_bytes = if rng.one_in(3) { rng.pick(&[512 << 10, 768 << 10, 1 << 20]) } else { u64::MAX >> 1 };
        let message_timeout = Duration::from_millis(rng.pick(&[1_000, 3_000, 30_000]));
        Self { budget_bytes, limits: Limits { message_timeout, ..self.limits }, ..self }
    }

    /// Sometimes there is little room for history. Drawn from a generator of its own, which shifts nothing else.
    fn with_short_history(self) -> Self {
        let mut rng = Random::new(self.seed ^ 0x7061_7374);
        let short = rng.one_in(3);
        let bytes: u64 = if short { rng.pick(&[4 << 10, 16 << 10, 64 << 10]) } else { 64 << 20 };
        let limits = Limits {
            history_bytes_max: bytes.min(self.budget_bytes / 4),
            keys_max: if rng.one_in(4) { rng.range(1, 8) } else { 1_000_000 },
            recovery_bytes_max: if rng.one_in(4) { rng.pick(&[1 << 10, 8 << 10]) } else { 4 << 20 },
            ..self.limits
        };
        Self { limits, ..self }
    }

    /// Sometimes all logs of a shard together may hold little. Drawn from a generator of its own, which shifts nothing else.
    fn with_short_logs(mut self) -> Self {
        let mut rng = Random::new(self.seed ^ 0x6c6f_6773);
        if !PINNED.contains(&self.seed) && rng.one_in(3) {
            let bytes = rng.pick(&[16 << 10, 64 << 10, 128 << 10]);
            if rng.one_in(2) {
                // Much is published, and somebody is slow.
                self.limits.lag_bytes_max = self.limits.lag_bytes_max.min(64 << 10);
                self.huge_one_in = 0;
                self.publish_percent = self.publish_percent.max(40);
                self.sluggish_percent = self.sluggish_percent.max(50);
                self.burst_max = self.burst_max.max(30);
                self.shards = self.shards.max(2);
            }
            self.limits.log_bytes_max = self.limits.lag_bytes_max.max(bytes);
        }
        self
    }

    /// One shard stands still for so long, while all others talk to it, that its queues fill.
    fn with_full_queues(self) -> Self {
        Self {
            shards: self.shards.max(2),
            clients: self.clients.max(12),
            clients_total: self.clients_total.max(16),
            rounds: 700,
            limits: Limits { lag_bytes_max: 4 << 20, log_bytes_max: 64 << 20, accept_rate_max: None, ..self.limits },
            connections_max: u64::MAX,
            budget_bytes: u64::MAX >> 1,
            capacity: 256,
            payload_bytes_max: 60,
            huge_one_in: 0,
            publish_percent: 80,
            burst_max: 2,
            hostile_percent: 0,
            sluggish_percent: 0,
            churn: 0,
            stall: 60,
            stall_max: 600,
            leap: 0,
            ..self
        }
    }
}

/// A topic of the run, or a filter that may match several.
pub(crate) fn filter(topics: &[String], rng: &mut Random) -> String {
    if rng.percent(60) {
        return rng.pick(topics);
    }
    rng.pick(&["#", "+", "a/#", "a/+", "+/+", "a/b/#", "+/b/+", "b/+", "x/#", "a/+/+"]).to_owned()
}
