//! Starts a broker: driver, capacity, listeners, shards, control plane; in the order in which each may fail.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::listen::ListenError;
use ring::{Cause, Io};
use tracing::{error, info, warn};

use crate::access::admission::Admission;
use crate::access::authority::Authority;
use crate::access::keys::PublishKeys;
use crate::access::revocations::Revoked;
use crate::capacity::connections::Capacity;
use crate::capacity::machine::Machine;
use crate::capacity::memlock::{self, MemlockDeficit};
use crate::capacity::memory::MemoryPlan;
use crate::config::is_loopback;
use crate::config::limits::Limits;
use crate::config::{Config, Surroundings};
use crate::http::admin::AdminListener;
use crate::ids::Epoch;
use crate::server::announce::{announce, log_start, warn_of_strangers};
use crate::server::lifecycle::Started;
use crate::server::output::complain;
use crate::server::reload::Settings;
use crate::server::rules::from_tables;
use crate::server::shards::Shards;
use crate::server::takeover::predecessor::Estate;
use crate::server::takeover::successor::{self, Claim, Inheritance};
use crate::server::{lifecycle, log, notify, takeover, tls, token_keys};
use crate::shard::shared::SharedState;
use crate::topics::keys::Keys;

/// Most bytes of tokens that are remembered, so that their signatures need not be checked again.
const TOKEN_CACHE_BYTES_MAX: u64 = 32 << 20;

/// Runs a broker until a signal has ended it. Errors before the log has started are written to standard error.
#[must_use]
pub fn serve(config: Config, here: Surroundings) -> ExitCode {
    if let Err(sentence) = log::start(config.log) {
        return complain(&sentence, 1);
    }
    let status = match run(config, here) {
        Ok(()) => {
            info!("ended");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            error!("{sentence}");
            ExitCode::FAILURE
        }
    };
    log::finish();
    status
}

/// Starts everything, and runs until a signal has ended it.
fn run(config: Config, here: Surroundings) -> Result<(), String> {
    let keys = publish_keys(&config)?;
    let tls = tls::server(&config)?;
    let (io, fallback) = choose(config.io, config.shards)?;
    let (descriptors, _) = ring::limits::raise_descriptors();
    let memory = Machine::here().memory().map(|memory| memory.available());
    let plan = MemoryPlan::new(config.memory_bytes_max, config.memory_bytes_least(), config.shards, memory);
    let room = Capacity::new(io, config.connections_max, config.shards, descriptors, plan)?;
    if let Some(warning) = room.warning() {
        warn!("{warning}");
    }
    let Listening { listeners, tls_listeners, address, tls_address, admin, predecessor, revoked } = listen(&config)?;
    let operators = admin.address();
    let start_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let admission = Admission::new(room.connections_max.into(), config.limits.accept_rate_max);
    // The other half is always the control plane's.
    let admission = admission.keeping_http(u64::from(room.http_connections_max) / 2);
    let seed = random_seed();
    let names = Keys::from_seed(seed);
    let settings = Settings::new(&config, here, names);
    // In units of 256 ns, which fits: no broker has begun as many topics before.
    let shared =
        SharedState::new(config.shards, seed, Epoch(start_ns >> 8)).with_rules(from_tables(&config.topics, names));
    let shared = shared.admitting(admission).guarded_by(keys).within(plan.budget_bytes);
    let cache_bytes_max = TOKEN_CACHE_BYTES_MAX.min(plan.budget_bytes / 16);
    let authority = Arc::new(Authority::new(&config.access, shared.budget.of_plane(), cache_bytes_max)?);
    if authority.is_on() {
        token_keys::start(&authority)?;
    }
    takeover::refuse(&authority, &revoked);
    let estate = Estate::new(address, &listeners, &tls_listeners, admin.socket(), Arc::clone(&authority))
        .map_err(|error| format!("no descriptors are left for a successor: {error}"))?;
    let shared = Arc::new(shared.authorized_by(authority).with_tls(tls));
    // Before the first token comes; the control plane goes on with it.
    shared.wall_clock.set(SystemTime::now(), ring::monotonic());
    let mut limits = config.within(plan.budget_bytes);
    limits.sessions_max.get_or_insert(room.connections_max as usize);
    limits.connections_per_address_max = per_address(&limits, &config, room.connections_max);
    let limits = Arc::new(limits);
    let exposed = admin.exposed(address);
    let shards = Shards::start(listeners, tls_listeners, &room, &shared, &limits)?;
    let reported = Arc::clone(&limits);
    let started = Started { shared, limits, room, shards, admin, fallback, predecessor, estate, settings };
    lifecycle::run(started, || {
        announce(io, config.shards, (address, tls_address), operators);
        log_start(config.shards, (address, tls_address), operators, &room, &reported);
        warn_of_strangers(&[Some(address), tls_address], config.anonymous_rights(), exposed);
        notify::ready();
    })
}

/// All listeners, and the broker that they come from.
struct Listening {
    listeners: Vec<Arc<OwnedFd>>,
    /// Those of `--tls-listen`, as many or none.
    tls_listeners: Vec<Arc<OwnedFd>>,
    /// Where the shards listen.
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    admin: AdminListener,
    predecessor: Option<Claim>,
    /// Users that it refuses.
    revoked: Revoked,
}

/// Listens, on the sockets of the broker that this one takes over from, if there is one.
fn listen(config: &Config) -> Result<Listening, String> {
    let shards = usize::from(config.shards);
    let refused = |error: ListenError| format!("cannot listen as --listen says: {error}");
    let inherited = if config.take_over { successor::claim(config.listen)? } else { None };
    if config.take_over && inherited.is_none() {
        info!(listen = %config.listen, "no broker runs there to take over from: starting as usual");
    }
    let mut revoked = Revoked::default();
    let (listeners, tls_inherited, operators, predecessor) = match inherited {
        None => (ring::listen::group(config.listen, shards).map_err(refused)?, Vec::new(), None, None),
        Some(Inheritance { shards: inherited, .. }) if inherited.len() > shards => {
            // Closing one would reset the connections that wait in its queue.
            return Err(format!(
                "cannot take over with --shards {shards}: the running broker has {}, and each has a queue of its own; \
                 start with as many, or stop that one first",
                inherited.len()
            ));
        }
        Some(Inheritance { claim, shards: inherited, tls, operators, revoked: revoked_before }) => {
            revoked = revoked_before;
            (ring::listen::widen(inherited, config.listen, shards).map_err(refused)?, tls, operators, Some(claim))
        }
    };
    let address = ring::listen::local_addr(&listeners[0])
        .map_err(|error| format!("the address of the listener cannot be read: {error}"))?;
    let (tls_listeners, tls_address) = listen_with_tls(config.tls_listen, tls_inherited, shards)?;
    let admin = AdminListener::open(config.admin, operators)?;
    let listeners = listeners.into_iter().map(Arc::new).collect();
    Ok(Listening { listeners, tls_listeners, address, tls_address, admin, predecessor, revoked })
}

/// The listeners of `--tls-listen`, of which some may be `inherited`, and where they are.
fn listen_with_tls(
    asked: Option<SocketAddr>,
    inherited: Vec<OwnedFd>,
    shards: usize,
) -> Result<(Vec<Arc<OwnedFd>>, Option<SocketAddr>), String> {
    let Some(asked) = asked else { return Ok((Vec::new(), None)) };
    let refused = |error: ListenError| format!("cannot listen as --tls-listen says: {error}");
    let at = |listener: &OwnedFd| ring::listen::local_addr(listener).ok();
    let is_there = |at: SocketAddr| at == asked || asked.port() == 0 && at.ip() == asked.ip();
    let listeners = if inherited.first().and_then(at).is_some_and(is_there) {
        ring::listen::widen(inherited, asked, shards)
    } else {
        ring::listen::group(asked, shards)
    };
    let listeners = listeners.map_err(refused)?;
    let address = at(&listeners[0]);
    Ok((listeners.into_iter().map(Arc::new).collect(), address))
}

/// The keys to publish with, if there are any; warns of what an operator should change.
fn publish_keys(config: &Config) -> Result<PublishKeys, String> {
    let Some(path) = &config.publish_key else {
        if !config.limits.client_publish {
            warn!("nobody may publish: --client-publish is off, and no --publish-key names a file with keys");
        }
        return Ok(PublishKeys::default());
    };
    let (keys, loaded) = PublishKeys::load(path)?;
    if let Some(warning) = loaded.warning {
        warn!("{warning}");
    }
    Ok(keys)
}

/// A number from the operating system's randomness: what clients must not guess is derived from it.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Most connections of one address: a quarter of all there is room for, unless an option says otherwise. Where only
/// loopback connects, which is exempt, and no proxy speaks for others, nobody has to be asked for an address.
fn per_address(limits: &Limits, config: &Config, connections: u32) -> Option<NonZeroU32> {
    let is_near = |address: &SocketAddr| is_loopback(address.ip());
    if is_near(&config.listen) && config.tls_listen.iter().all(is_near) && limits.trusted_proxies.is_empty() {
        return None;
    }
    limits.connections_per_address_max.or(NonZeroU32::new((connections / 4).max(64)))
}

/// The driver that all shards and the control plane run on, and why, where it is not the one that was hoped for.
fn choose(choice: Option<Io>, shards: u16) -> Result<(Io, Option<Cause>), String> {
    if choice == Some(Io::Epoll) {
        return Ok((Io::Epoll, None));
    }
    let probed = match memlock::deficit(&Machine::here(), shards) {
        // Where it is a must, the rings themselves have the last word.
        Some(MemlockDeficit { limit, .. }) if choice.is_none() => {
            ring::probe().and(Err(Cause::Memory { memlock: limit }))
        }
        _ => ring::probe(),
    };
    match (probed, choice) {
        (Ok(()), _) => Ok((Io::Uring, None)),
        (Err(cause), Some(Io::Uring)) => Err(format!("{cause}; or run on epoll (--io epoll)")),
        (Err(cause), _) => {
            warn!(
                cause = cause.name(),
                "running on epoll, where every connection is a descriptor of the process: {cause}"
            );
            Ok((Io::Epoll, Some(cause)))
        }
    }
}
