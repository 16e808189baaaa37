//! The binary `ringyard`: reads its arguments and runs what they ask for.

use std::env;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::available_parallelism;

use broker::capacity::memory::BUDGET_BYTES_TOP;
use broker::config::{self, Stop, Surroundings, Task};
use broker::server::output::{complain, say};
use broker::server::{crash, credentials, doctor, healthcheck, restart, rules, start};
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
        Ok(Task::Serve(config)) => return start::serve(*config, here),
        task => task,
    };
    // Whatever is no broker is ended by a signal as any program is.
    signals::deliver();
    match task {
        Ok(Task::Serve(_)) => unreachable!("served above"),
        Ok(Task::Doctor { json, config }) => doctor::run(json, &config),
        Ok(Task::Topic { topic, tables }) => say(&rules::explain(&topic, &tables)),
        Ok(Task::NewKey(key)) => credentials::new_key(&key),
        Ok(Task::CheckToken(token, tables)) => credentials::check_token(&token, &tables),
        Ok(Task::Check(tables)) => credentials::check_tables(&tables),
        Ok(Task::Restart { listen, options }) => restart::run(listen, &options),
        Ok(Task::Healthcheck(urls)) => match healthcheck::check(&urls) {
            Ok(line) => say(&format!("{line}\n")),
            Err(sentence) => complain(&sentence, 1),
        },
        Err(Stop::Shown(text)) => say(&text),
        Err(Stop::Refused(sentences)) => complain(&sentences, 2),
    }
}
