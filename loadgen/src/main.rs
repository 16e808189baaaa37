//! `ringyard-loadgen`: see the library's page. Exit status 1 when a message was lost, doubled, out of order
//! or damaged, or a subscriber was closed.

use std::process::ExitCode;

use clap::Parser;

/// Many WebSocket subscribers, one publisher; every message is checked.
#[derive(Parser)]
#[command(name = "ringyard-loadgen", version, args_override_self = true)]
struct Command {
    #[command(flatten)]
    options: loadgen::Options,
}

fn main() -> ExitCode {
    match loadgen::run(&Command::parse().options) {
        Ok(report) if report.errors.none() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringyard-loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}
