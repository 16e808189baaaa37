//! The binary `ringyard`: options, start, run, exit code. Everything it says to the operator is said here.

use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use broker::config::{self, Config, IoChoice, Stop, Task};
use broker::control::admin::Door;
use broker::control::locked::{self, Shortage};
use broker::control::memory::MemoryPlan;
use broker::control::room::Room;
use broker::control::shards::Shards;
use broker::control::{self, crash, log};
use broker::doctor::{self, Facts, Plan};
use broker::healthcheck;
use broker::limits::Limits;
use broker::machine::Machine;
use broker::shard::admission::Admission;
use broker::shard::link::Links;
use broker::topics::registry::ShardId;
use ring::{Cause, Io, signals};
use tracing::{error, field, info, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: a signal from now on is handled, however early it comes.
    signals::hold();
    crash::abort_on_panic();
    // Refused, it costs memory and nothing else.
    ring::limits::forgo_huge_pages();
    let task = match config::read(env::args_os()) {
        Ok(Task::Serve(config)) => return serve(*config),
        task => task,
    };
    // Whatever is no broker is ended by a signal as any program is.
    signals::deliver();
    match task {
        Ok(Task::Serve(_)) => unreachable!("served above"),
        Ok(Task::Doctor { json, config }) => examine(json, &config),
        Ok(Task::Healthcheck(urls)) => match healthcheck::check(&urls) {
            Ok(line) => say(&format!("{line}\n")),
            Err(sentence) => complain(&sentence, 1),
        },
        Err(Stop::Shown(text)) => say(&text),
        Err(Stop::Refused(sentences)) => complain(&sentences, 2),
    }
}

/// The broker's life; from here on everything is said in the log.
fn serve(config: Config) -> ExitCode {
    if let Err(sentence) = log::start(config.log) {
        return complain(&sentence, 1);
    }
    let status = match run(config) {
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
fn run(config: Config) -> Result<(), String> {
    let (io, fallback) = choose(config.io, config.shards)?;
    let (descriptors, _) = ring::limits::raise_descriptors();
    let memory = Machine::here().memory().map(|memory| memory.available());
    let plan = MemoryPlan::new(config.memory_bytes_max, config.memory_bytes_least(), config.shards, memory);
    let room = Room::new(io, config.connections_max, config.shards, descriptors, plan)?;
    if let Some(warning) = room.warning() {
        warn!("{warning}");
    }
    let listeners = ring::listen::group(config.listen, usize::from(config.shards))
        .map_err(|error| format!("cannot listen as --listen says: {error}"))?;
    let address = ring::listen::local_addr(&listeners[0])
        .map_err(|error| format!("the address of the listener cannot be read: {error}"))?;
    let door = Door::open(config.admin)?;
    let operators = door.address();
    let start_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let admission = Admission::new(room.connections_max.into(), config.limits.accept_rate_max);
    let links = Links::new(config.shards, random_seed(), start_ns).admitting(admission).within(plan.budget_bytes);
    let links = Arc::new(links);
    let mut limits = config.within(plan.budget_bytes);
    limits.connections_per_address_max = per_address(&limits, config.listen.ip(), room.connections_max);
    let limits = Arc::new(limits);
    let exposed = door.exposed(address);
    let shards = Shards::start(listeners, &room, &links, &limits)?;
    let told = Arc::clone(&limits);
    control::run(links, limits, room, shards, door, fallback, || {
        announce(io, config.shards, address, operators);
        log_start(config.shards, address, operators, &room, &told);
        warn_of_strangers(address, exposed);
    })
}

/// A number from the operating system's randomness: what clients must not guess is derived from it.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Most connections of one address: a quarter of all there is room for, unless an option says otherwise. Where only
/// loopback connects, which is exempt, and no proxy speaks for others, nobody has to be asked for an address.
fn per_address(limits: &Limits, listen: IpAddr, connections: u32) -> Option<NonZeroU32> {
    if listen.to_canonical().is_loopback() && limits.trusted_proxies.is_empty() {
        return None;
    }
    limits.connections_per_address_max.or(NonZeroU32::new((connections / 4).max(64)))
}

/// Says how the machine is; the exit status tells whether there is a problem.
fn examine(json: bool, config: &Result<Box<Config>, Vec<String>>) -> ExitCode {
    let facts = Facts::here();
    let report = doctor::examine(&Machine::here(), &Plan::new(config, &facts), &facts);
    let said = say(&if json { report.json() } else { report.to_string() });
    if report.has_problem() { ExitCode::FAILURE } else { said }
}

/// The driver that all shards and the control plane run on, and why, where it is not the one that was hoped for.
fn choose(choice: IoChoice, shards: ShardId) -> Result<(Io, Option<Cause>), String> {
    if choice == IoChoice::Epoll {
        return Ok((Io::Epoll, None));
    }
    let probed = match locked::shortage(&Machine::here(), shards) {
        // Where it is a must, the rings themselves have the last word.
        Some(Shortage { limit, .. }) if choice == IoChoice::Auto => {
            ring::probe().and(Err(Cause::Memory { memlock: limit }))
        }
        _ => ring::probe(),
    };
    match (probed, choice) {
        (Ok(()), _) => Ok((Io::Uring, None)),
        (Err(cause), IoChoice::Uring) => Err(format!("{cause}; or run on epoll (--io epoll)")),
        (Err(cause), _) => {
            warn!(
                cause = cause.name(),
                "running on epoll, where every connection is a descriptor of the process: {cause}"
            );
            Ok((Io::Epoll, Some(cause)))
        }
    }
}

/// Where to find it, on standard output: the public address comes first, the operators' next. On a thread of its own:
/// standard output may be a pipe that is full and that nobody reads.
fn announce(io: Io, shards: u16, address: SocketAddr, operators: Option<SocketAddr>) {
    let plural = if shards == 1 { "" } else { "s" };
    let page = healthcheck::from_here(address);
    let operators =
        operators.map_or_else(String::new, |at| format!(", operators: http://{}/metrics", healthcheck::from_here(at)));
    let text = format!(
        "ringyard {}: {shards} shard{plural} on {io}, http://{page}/{operators}\n\
         Open that page in two tabs, or try: curl -d 'hello' http://{page}/pub/demo\n",
        env!("CARGO_PKG_VERSION")
    );
    let write = move || drop(write_out(&text));
    if thread::Builder::new().name("announce".to_owned()).spawn(write).is_err() {
        warn!("the addresses cannot be written to standard output: no thread can be started");
    }
}

/// What runs, and within which limits.
fn log_start(shards: u16, address: SocketAddr, operators: Option<SocketAddr>, room: &Room, limits: &Limits) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        driver = room.io.name(),
        shards,
        listen = %address,
        admin = operators.map(field::display),
        connections_max = room.connections_max,
        connections_per_address_max = limits.connections_per_address_max,
        accept_rate_max = limits.accept_rate_max,
        publish_rate_max = limits.publish_rate_max,
        message_bytes_max = limits.message_bytes_max,
        topics_max = limits.topics_max,
        memory_bytes_max = room.memory.budget_bytes,
        resident_bytes_max = room.resident_bytes_max(),
        pid = process::id(),
        "started"
    );
}

/// Which addresses other machines may reach, and what they find there.
fn warn_of_strangers(address: SocketAddr, exposed: Option<SocketAddr>) {
    if !address.ip().to_canonical().is_loopback() {
        warn!(
            listen = %address,
            "{address} can be reached from other machines, and there is no authentication yet: whoever reaches it may \
             publish and subscribe"
        );
    }
    if let Some(exposed) = exposed {
        warn!(
            admin = %exposed,
            "{exposed} can be reached from other machines, and what is for operators is there, as --admin-listen says: \
             whoever reaches it may read counters and versions"
        );
    }
}

/// To standard output. What cannot be written, to a full disk for example, is no success; where whoever read it has
/// gone (`| head`), nothing more is said of that.
fn say(text: &str) -> ExitCode {
    match write_out(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => complain(&format!("standard output cannot be written: {error}"), 1),
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// To standard error, a line for each sentence. Where that cannot be written, the exit status says it alone.
fn complain(sentences: &str, code: u8) -> ExitCode {
    let mut err = io::stderr().lock();
    for sentence in sentences.lines() {
        let _ = writeln!(err, "ringyard: {sentence}");
    }
    ExitCode::from(code)
}
