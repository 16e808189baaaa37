//! The binary `ringyard`: reads its arguments and runs what they ask for.

use std::env;
use std::process::ExitCode;

use broker::capacity::doctor::{self, Facts, Plan};
use broker::capacity::machine::Machine;
use broker::config::{self, Config, Stop, Task};
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
    let task = match config::read(env::args_os()) {
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
    let facts = Facts::here();
    let report = doctor::examine(&Machine::here(), &Plan::new(config, &facts), &facts);
    let said = say(&if json { report.json() } else { report.to_string() });
    if report.has_problem() { ExitCode::FAILURE } else { said }
}
