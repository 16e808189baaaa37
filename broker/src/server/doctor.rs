//! `ringyard doctor`: reads the configuration and the machine, and prints what [`crate::capacity::doctor`] finds.

use std::env;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::capacity::doctor::{self, Facts, Plan};
use crate::capacity::machine::Machine;
use crate::config::{self, Config};
use crate::server::output::say;
use crate::tls::server::expiry;

/// Says how the machine is; the exit status tells whether there is a problem.
#[must_use]
pub fn run(json: bool, config: &Result<Box<Config>, Vec<String>>) -> ExitCode {
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
            certificates: certificates(config),
            wrong: Vec::new(),
        },
        Err(wrong) => Plan {
            io: None,
            shards: cores.try_into().unwrap_or(u16::MAX),
            asked: None,
            memory_asked: None,
            memory_bytes_least: 0,
            certificates: Vec::new(),
            wrong: wrong.clone(),
        },
    }
}

/// The certificates that a start would read, and when each ends.
fn certificates(config: &Config) -> Vec<(String, Result<u64, String>)> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let tables = config.tls_tables.iter().filter(|_| config.tls_listen.is_some());
    tables.map(|table| (table.cert.display().to_string(), expiry(table, now_s))).collect()
}
