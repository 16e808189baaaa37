//! A run: shards, network and clients take turns in seeded order, in one thread.
//!
//! | file | what it does |
//! | --- | --- |
//! | `run` | rounds: who acts when, how time passes |
//! | `budget` | what must be true of memory after each turn |
//! | `finish` | how a run ends, and what must be true then |

mod budget;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker::access::address::AddressLease;
use broker::access::admission::Admission;
use broker::access::authority::Authority;
use broker::capacity::budget::Held;
use broker::capacity::buffer::Buffer;
use broker::config::auth::AccessTables;
use broker::ids::{Epoch, ShardId};
use broker::observe::counters::{Distribution, Scale};
use broker::presence::secret::Secrets;
use broker::shard::handover::Adopt;
use broker::shard::shared::{ControlMessage, SharedState};
use broker::shard::{Shard, ShardSetup};
use broker::topics::keys::Keys;
use broker::topics::rules::Rules;
use ring::Random;
use ring::sim::{SimDriver, World};

use crate::access::{EPOCH_S, SecretFile};
use crate::client::events::Listening;
use crate::client::{Client, Role, Stage};
use crate::model::{Model, Violation};
use crate::operator::Operator;
use crate::params::{self, Params};
use crate::payload::Kind;
use crate::plane::{self, Plane};
use crate::presence::Presence;
use crate::report::{Coverage, Failure, Outcome};
use crate::trace::Trace;

const MILLIS: u64 = 1_000_000;
/// Runs one seed's parameters.
///
/// # Errors
/// The first property that did not hold.
pub fn run(params: &Params, verbose: bool) -> Result<Outcome, Failure> {
    let mut run = Run::new(params, verbose);
    let result = run.whole();
    for (shard, stats) in run.shared.stats.iter().enumerate() {
        run.trace.say(|| format!("shard {shard} counted {:?}", stats.snapshot()));
    }
    let coverage = run.coverage();
    match result {
        Ok(()) => Ok(Outcome { trace: run.trace.value(), coverage }),
        Err(violation) => Err(Failure { params: Box::new(params.clone()), round: run.round, violation }),
    }
}

/// Everything of one run.
pub(crate) struct Run<'a> {
    pub(crate) params: &'a Params,
    pub(crate) world: World,
    pub(crate) shared: Arc<SharedState>,
    /// `None`: ended.
    pub(crate) shards: Vec<Option<Shard<SimDriver>>>,
    /// Rounds for which a shard is withheld.
    pub(crate) stalled: Vec<usize>,
    /// When each had its last turn, the time that it goes by.
    stepped: Vec<u64>,
    pub(crate) clients: Vec<Client>,
    pub(crate) model: Model,
    pub(crate) plane: Plane,
    /// Where access control is on.
    pub(crate) operator: Option<Operator>,
    pub(crate) rng: Random,
    pub(crate) counted: Coverage,
    pub(crate) trace: Trace,
    pub(crate) round: u64,
    /// Whether clients and the control plane begin anything new.
    pub(crate) busy: bool,
    /// How many messages the last audit found.
    kept: usize,
    /// Whether the shards were told to shut down.
    pub(crate) going_down: bool,
}

impl<'a> Run<'a> {
    fn new(params: &'a Params, verbose: bool) -> Self {
        let world = World::new(params.seed, params.faults);
        world.set_socket_buffer(params.socket_buffer_bytes);
        let admission = Admission::new(params.connections_max, params.limits.accept_rate_max);
        let shared = SharedState::new(params.shards, params.seed, Epoch(params.seed << 20));
        let topics = params.topics.iter().zip(&params.rules).enumerate().map(|(index, (topic, rule))| {
            let rule = rule.table(topic);
            params.presence.as_ref().map_or(rule.clone(), |presence| presence.rule(index, rule))
        });
        let filters = params.filters.iter().map(|(filter, policy)| policy.rule(filter));
        let filters = filters.chain(params.presence.iter().map(Presence::watching));
        let rules =
            Rules::new(topics.chain(filters).collect(), Keys::from_seed(params.seed)).expect("one rule for each topic");
        let shared = shared.admitting(admission).within(params.budget_bytes).with_rules(rules);
        let (mut shared, operator) = match &params.access {
            Some(access) => guarded(shared, access.cache_bytes, |secret| access.tables(secret.path())),
            None if params.has_users() => guarded(shared, 0, Presence::tables),
            None => (shared, None),
        };
        shared.secrets = Secrets::seeded(params.seed);
        let shared = Arc::new(shared);
        let limits = Arc::new(params.limits.clone());
        let shard = |id| {
            let driver = world.driver(params.capacity, params.buffers, params.buffer_bytes);
            Some(Shard::new(driver, ShardSetup { id, shared: Arc::clone(&shared), limits: Arc::clone(&limits) }))
        };
        let shards = ShardId::all(params.shards).map(shard).collect();
        let mut run = Self {
            params,
            shards,
            stalled: vec![0; usize::from(params.shards)],
            stepped: vec![0; usize::from(params.shards)],
            clients: Vec::new(),
            model: Model::new(params.topics.clone())
                .ruled(params.rules.clone(), params.limits.recovery_bytes_max)
                .with_filters(params.filters.clone())
                .with_leeway(params.access.as_ref().map_or(0, |access| access.leeway_ms))
                .steady(params.steady),
            operator,
            plane: Plane::default(),
            rng: Random::new(params.seed),
            counted: Coverage::default(),
            trace: Trace::new(verbose),
            round: 0,
            busy: true,
            going_down: false,
            kept: 0,
            world,
            shared,
        };
        if let Some(presence) = &params.presence {
            let grace = presence.grace.as_nanos() as u64;
            run.model.presence.begin(grace, presence.sessions_max.is_some(), params.is_short());
            run.model.leases.begin(params.is_short());
        }
        run
    }

    fn whole(&mut self) -> Result<(), Violation> {
        for _ in 0..self.params.rounds {
            self.turn_over()?;
            self.stall();
            self.round()?;
            self.pass_time();
        }
        self.finish()
    }

    /// New clients come as others go.
    fn turn_over(&mut self) -> Result<(), Violation> {
        let here = self.clients.iter().filter(|client| client.phase != crate::client::Phase::Over).count();
        if here >= self.params.clients || self.clients.len() >= self.params.clients_total || self.rng.one_in(3) {
            return Ok(());
        }
        let role = self.role();
        let adopts = if self.params.access.is_some() { 6 } else { 12 };
        let adopt =
            matches!(role, Role::Subscriber(_) | Role::Publisher(_) | Role::Bus(_) | Role::V1 | Role::Events(_))
                && self.rng.one_in(adopts);
        let shard = self.rng.below(self.shards.len());
        let judged = if adopt { self.judge_adopted(&role, shard) } else { None };
        let judged = judged.filter(|_| self.shared.admission.enter(self.world.now()).is_ok());
        let adopt = judged.is_some();
        let index = self.clients.len();
        let client = if let Some((entry, brings)) = judged {
            let (conn, socket) = self.world.socket();
            let upgrade = Box::new(plane::upgrade(&role, &self.params.topics, entry));
            let mut read = Buffer::new(self.shared.budget.of_plane(), Held::Http);
            let mut stage = self.stage().0;
            let mut client = Client::adopted((index, shard), conn, role, brings, &mut stage);
            read.extend(&client.first_words(&mut stage));
            let order = ControlMessage::Adopt(Adopt { socket, upgrade, read, lease: AddressLease::default() });
            assert!(
                self.shared.send_control(ShardId(shard as u16), order).is_ok(),
                "thousands of control messages wait"
            );
            client
        } else {
            let conn = self.world.connect(shard);
            Client::connect((index, shard), conn, role, &mut self.stage().0)
        };
        self.trace.say(|| format!("{} comes to shard {shard}, adopted: {adopt}", client.name()));
        self.clients.push(client);
        Ok(())
    }

    fn role(&mut self) -> Role {
        if self.params.posters && self.clients.len() % 4 == 1 {
            return Role::Poster;
        }
        let topics = &self.params.topics;
        let rng = &mut self.rng;
        if rng.percent(self.params.hostile_percent) {
            return match rng.below(3) {
                0 => Role::Slowloris,
                1 => Role::Http,
                _ => Role::Refused(Vec::new()),
            };
        }
        if let Some(leases) = self.params.leases.as_ref().filter(|_| rng.percent(12)) {
            return Role::Subscriber(topics[rng.pick(&leases.topics)].clone());
        }
        if self.params.presence.is_some() && rng.percent(60) {
            return Role::V1;
        }
        if self.params.streams && rng.percent(25) {
            let filter = params::filter(topics, rng);
            let more =
                if rng.one_in(4) { vec![params::filter(topics, rng), params::filter(topics, rng)] } else { Vec::new() };
            return Role::Events(Listening::draw(filter, more, rng.one_in(8)));
        }
        match rng.below(20) {
            0..=5 => Role::Subscriber(params::filter(topics, rng)),
            6..=9 => Role::Publisher(rng.below(topics.len())),
            10..=12 => Role::Bus(rng.below(topics.len())),
            13 if rng.one_in(3) => Role::Http,
            _ => Role::V1,
        }
    }

    fn stall(&mut self) {
        for shard in 0..self.stalled.len() {
            if self.stalled[shard] == 0 && self.rng.below(10_000) < self.params.stall {
                self.stalled[shard] = self.rng.range(1, self.params.stall_max);
                self.counted.stalls += 1;
            }
        }
    }

    fn pass_time(&mut self) {
        let millis = self.rng.range(0, 12) as u64;
        self.world.advance(millis * MILLIS);
        if self.params.stride_ms > 0 && self.rng.one_in(8) {
            self.world.advance(self.rng.range(1, self.params.stride_ms) as u64 * MILLIS);
        }
        if self.rng.below(10_000) < self.params.leap {
            let seconds = self.rng.range(1, 70) as u64;
            self.world.advance(seconds * 1000 * MILLIS);
            self.counted.leaps += 1;
        }
    }

    /// Every shard and every client may act once. Returns whether any client did anything.
    pub(crate) fn round(&mut self) -> Result<bool, Violation> {
        self.round += 1;
        self.counted.rounds += 1;
        self.model.clock(self.world.now());
        self.model.presence.clock(self.world.now());
        self.trace.clock(self.world.now() / MILLIS);
        let mut order: Vec<_> = (0..self.shards.len()).collect();
        self.rng.shuffle(&mut order);
        for shard in order {
            if self.stalled[shard] > 0 {
                self.stalled[shard] -= 1;
                continue;
            }
            self.step(shard)?;
            self.stepped[shard] = self.world.now();
        }
        let running = self.shards.iter().zip(&self.stepped).filter(|(shard, _)| shard.is_some());
        self.model.presence.shards_are_at(running.map(|(_, stepped)| *stepped).min().unwrap_or(self.world.now()));
        plane::serve(&self.shared, &self.world, &mut self.counted, &self.trace)?;
        self.plane.answers(self.going_down, &mut self.model, &mut self.counted)?;
        if self.busy && self.rng.percent(self.params.publish_percent / 2) {
            self.publish_http();
        }
        if self.busy && !self.going_down && self.params.policies && !self.params.steady && self.rng.one_in(60) {
            let topic = self.rng.below(self.params.topics.len());
            self.trace.say(|| format!("{:?} is to be purged", self.params.topics[topic]));
            self.plane.purge(topic, &self.shared, &self.params.topics, &mut self.model);
        }
        self.operate()?;
        let (mut stage, clients) = self.stage();
        let mut active = false;
        for client in clients {
            active |= client.act(&mut stage)?;
        }
        Ok(active)
    }

    fn step(&mut self, shard: usize) -> Result<(), Violation> {
        let Some(running) = &mut self.shards[shard] else { return Ok(()) };
        if self.params.access.is_some() {
            self.model.turned(shard);
        }
        let goes_on = running.step().map_err(|error| Violation::new("a turn succeeds", error.to_string()))?;
        if !goes_on {
            self.trace.say(|| format!("shard {shard} ended"));
            self.shards[shard] = None;
        }
        self.check_budget()
    }

    pub(crate) fn publish_http(&mut self) {
        let topic = self.rng.below(self.params.topics.len());
        let kind = self.rng.pick(&[Kind::Text, Kind::Binary]);
        let len = crate::client::length(&mut self.stage().0);
        self.counted.published += 1;
        self.plane.publish(topic, kind, len, &self.shared, &self.params.topics, &mut self.model);
    }

    pub(crate) fn stage(&mut self) -> (Stage<'_>, &mut Vec<Client>) {
        let Self { params, world, model, rng, counted, trace, busy, clients, .. } = self;
        (Stage { world, params, model, rng, coverage: counted, trace, busy: *busy }, clients)
    }

    /// What the run met, with what the shards counted.
    fn coverage(&self) -> Coverage {
        let mut coverage = self.counted;
        for stats in &self.shared.stats {
            let mut delivery = Distribution::new(Scale::TIME);
            stats.delivery.add_to(&mut delivery);
            coverage.timed_sends += delivery.count();
            let stats = stats.snapshot();
            coverage.short_sends += stats.sends_short;
            coverage.no_buffers += stats.no_buffers;
            coverage.ended_multishots += stats.multishots_ended;
            coverage.slow_drops += stats.dropped_slow;
            coverage.memory_drops += stats.dropped_memory;
            coverage.given_up += stats.given_up;
            coverage.skips += stats.skips;
            coverage.conflated += stats.messages_conflated;
            coverage.purges += stats.purged;
            coverage.ping_timeouts += stats.dropped_ping_timeout;
            coverage.pauses += stats.pauses;
            coverage.full_queues += stats.queues_full;
            coverage.adopted += stats.adopted;
            coverage.bad_proxies += stats.dropped_proxy_header;
            coverage.over_total += stats.refused_connections;
            coverage.over_rate += stats.refused_accept_rate;
        }
        coverage.guarded += u64::from(self.params.access.is_some());
        coverage
    }
}

/// The same with access control, by a time of day that is the simulation's.
fn guarded(
    shared: SharedState,
    cache_bytes: u64,
    tables: impl Fn(&SecretFile) -> AccessTables,
) -> (SharedState, Option<Operator>) {
    let secret = SecretFile::new();
    let account = Arc::clone(shared.budget.of_plane());
    let authority = Authority::new(&tables(&secret), &account, cache_bytes).expect("good tables");
    let shared = shared.authorized_by(Arc::new(authority));
    shared.wall_clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_S), 0);
    let held = shared.budget.used();
    (shared, Some(Operator::new(secret, held)))
}
