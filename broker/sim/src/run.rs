//! A run: shards, network and clients take turns in seeded order, in one thread.
//!
//! | file | what it does |
//! | --- | --- |
//! | `run` | rounds: who acts when, how time passes |
//! | `finish` | how a run ends, and what must be true then |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker::access::address::AddressLease;
use broker::access::admission::Admission;
use broker::access::authority::Authority;
use broker::capacity::budget::{Held, Level};
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
/// More messages than this are not looked at after every step.
const KEPT_MANY: usize = 400;
/// Bytes that one shard may add to histories beyond their bound in a turn: its longest message, with all around it.
const HISTORY_SLACK: u64 = 256 << 10;

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
        let adopt = matches!(role, Role::Subscriber(_) | Role::Publisher(_) | Role::Bus(_) | Role::V1)
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
        if self.params.presence.is_some() && rng.percent(60) {
            return Role::V1;
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
        }
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

    /// What is charged is what the structures hold, and not more than there may be.
    fn check_budget(&mut self) -> Result<(), Violation> {
        let budget = &self.shared.budget;
        self.counted.budget_high += u64::from(budget.level() != Level::Calm);
        // Beyond the bound: one message, and a frugal send to each connection.
        let sends = self.clients.len() as u64 * (40 << 10);
        let most = budget.bytes_max().saturating_add(2 * self.params.limits.message_bytes_max + sends);
        if budget.used() > most {
            let held = Held::ALL.map(|held| (held.label(), budget.held(held)));
            let evidence = format!("{} of {}: {held:?}", budget.used(), budget.bytes_max());
            return Err(Violation::new("memory stays within its budget", evidence));
        }
        // Looking at everything takes long when much is remembered.
        if self.kept > KEPT_MANY && !self.round.is_multiple_of(32) {
            return Ok(());
        }
        let (mut messages, mut evicted) = (BTreeMap::new(), 0);
        for shard in self.shards.iter_mut().flatten() {
            let audit = shard.audit();
            audit.check().map_err(|evidence| Violation::new("what is charged is what is held", evidence))?;
            messages.extend(audit.messages);
            if audit.evicted > 0 {
                self.model.evicted();
            }
            evicted += audit.evicted;
        }
        self.kept = messages.len();
        self.counted.evicted = self.counted.evicted.max(evicted);
        let (usage, limits) = (&self.shared.history_usage, &self.params.limits);
        // State is never beyond its bounds, whichever shards it is on.
        let (entries, bytes) = (usage.state_entries(), usage.state_bytes());
        if entries > limits.keys_max as u64 || bytes > limits.history_bytes_max {
            let evidence =
                format!("{entries} of {} entries, {bytes} of {} bytes", limits.keys_max, limits.history_bytes_max);
            return Err(Violation::new("state stays within its bounds", evidence));
        }
        // Every shard may be so much beyond the bound before it waits for the others.
        let (bytes, most) = (usage.window_bytes() + usage.state_bytes(), self.params.limits.history_bytes_max);
        let beyond = (most / 16 + HISTORY_SLACK) * u64::from(self.params.shards);
        if bytes > most + beyond {
            let evidence = format!("{bytes} bytes, {most} may be, and {beyond} beyond that");
            return Err(Violation::new("histories stay within their bound", evidence));
        }
        let (held, charged) = (messages.values().sum::<u64>(), budget.held(Held::Messages));
        if held > charged {
            let evidence = format!("{held} bytes of messages in logs, {charged} charged");
            return Err(Violation::new("what is charged is what is held", evidence));
        }
        Ok(())
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
