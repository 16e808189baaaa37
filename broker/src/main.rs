//! The binary `ringyard`: reads its arguments and runs what they ask for.

use std::env;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::available_parallelism;

use broker::capacity::doctor::{self, Facts, Plan};
use broker::capacity::machine::Machine;
use broker::capacity::memory::BUDGET_BYTES_TOP;
use broker::config::{self, Config, Stop, Surroundings, Task};
use broker::server::output::{complain, say};
use broker::server::{crash, healthcheck, start};
use ring::signals;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: a signal from now on is handled, however early it comes.
    signals::hold();
    crash::abort_on_panic();
    // Refused, it costs memory and nothing else.
    ring::limits::forgo_huge_pages();
    let here = Surroundings {
        cores: available_parallelism().map_or(1, NonZeroUsize::get) as u64,
        memory_bytes_default_max: BUDGET_BYTES_TOP,
    };
    let task = match config::read(env::args_os(), |name| env::var_os(name), &here) {
        Ok(Task::Serve(config)) => return start::serve(*config),
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

/// Says how the machine is; the exit status tells whether there is a problem.
fn examine(json: bool, config: &Result<Box<Config>, Vec<String>>) -> ExitCode {
    let variables = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let facts = Facts::here(config::suggestions_for(variables));
    let report = doctor::examine(&Machine::here(), &plan(config, facts.cores), &facts);
    let printed = say(&if json { report.json() } else { report.to_string() });
    if report.has_problem() { ExitCode::FAILURE } else { printed }
}

/// What the doctor examines: the configuration, or the defaults where that is wrong.
fn plan(config: &Result<Box<Config>, Vec<String>>, cores: u64) -> Plan {
    match config {
        Ok(config) => Plan {
            io: config.io,
            shards: config.shards,
            asked: config.connections_max,
            memory_asked: config.memory_bytes_max,
            memory_bytes_least: config.memory_bytes_least(),
            wrong: Vec::new(),
        },
        Err(wrong) => Plan {
            io: None,
            shards: cores.try_into().unwrap_or(u16::MAX),
            asked: None,
            memory_asked: None,
            memory_bytes_least: 0,
            wrong: wrong.clone(),
        },
    }
}
