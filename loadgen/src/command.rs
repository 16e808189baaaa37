//! The program: its arguments, the files that it writes, and its exit status.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;

use crate::options::{Options, Scenario};
use crate::outcome::Outcome;
use crate::results;
use crate::run::{Interrupt, run};
use crate::threshold::{self, Threshold};
use crate::verdict::Verdict;
use crate::{calls, crowd};

/// Many WebSocket clients, from one machine or several; every message checked
#[derive(Parser)]
#[command(name = "ringyard-loadgen", version, args_override_self = true, args_conflicts_with_subcommands = true)]
#[command(disable_help_subcommand = true, after_help = EXIT_STATUS)]
struct Command {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

/// At the end of `--help`.
const EXIT_STATUS: &str = "\
Exit status: 0 without errors; 1 if messages were lost, duplicated, reordered or corrupt, an answer about recovery was \
untrue, a newcomer's state was stale, clients were refused or closed, \
or a --fail-if condition is true; 2 if the run could not take place; 3 if the server took no more clients \
(--stall-timeout); 130 after Ctrl-C or SIGTERM, with the results so far.";

#[derive(Subcommand)]
enum What {
    /// Combine the results of several processes that were started with --share
    Merge(Merge),
}

#[derive(Args)]
struct Merge {
    /// Files that --json wrote
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write the results here as JSON; `-`: to standard output, the text goes to standard error then
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write an HTML report with plots here
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Exit with status 1 when this is true: `p99>50ms`, `delivered<100000`
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Threshold>,
}

/// What `main` does, for other programs that contain the load generator.
#[must_use]
pub fn main() -> ExitCode {
    execute(std::env::args().collect())
}

/// The same with these arguments, the program's name first.
#[must_use]
pub fn execute(arguments: Vec<String>) -> ExitCode {
    match parse(arguments).and_then(|command| match command.what {
        Some(What::Merge(merge)) => merge_files(&merge),
        None => measure(command.options),
    }) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            if let Some(error) = error.downcast_ref::<clap::Error>() {
                return answer(error);
            }
            // `eprintln!` would panic where standard error is full or closed.
            drop(writeln!(std::io::stderr(), "ringyard-loadgen: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Prints help or an error of the command line. Help that cannot be written is a failure.
fn answer(error: &clap::Error) -> ExitCode {
    let written = error.print();
    match (error.use_stderr(), written) {
        (true, _) => ExitCode::from(2),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(error)) => {
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                drop(writeln!(std::io::stderr(), "ringyard-loadgen: standard output cannot be written: {error}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Parses the command line, after the options of the file of `--config`.
fn parse(arguments: Vec<String>) -> Result<Command> {
    let command = Command::try_parse_from(&arguments)?;
    let Some(file) = &command.options.config else { return Ok(command) };
    let mut all = vec![arguments[0].clone()];
    all.extend(Options::arguments_of(file)?);
    // Alone first, so that the error names the file.
    if let Err(error) = Command::try_parse_from(&all) {
        let text = error.to_string();
        let sentence = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        bail!("{}: {sentence}", file.display());
    }
    all.extend(arguments.into_iter().skip(1));
    let matches = Command::command().try_get_matches_from(all)?;
    Ok(Command::from_arg_matches(&matches)?)
}

fn measure(options: Options) -> Result<u8> {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    // The first signal ends the run and prints its results, the second ends the program.
    drop(ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
    }));
    match options.scenario {
        Scenario::RequestReply => {
            let calls = calls::run(&options, &interrupt)?;
            write_own(&options, &calls, &calls.table())?;
            return Ok(0);
        }
        Scenario::PresenceCrowd => {
            let crowd = crowd::run(&options, &interrupt)?;
            write_own(&options, &crowd, &crowd.table())?;
            return Ok(if crowd.failures.is_empty() { 0 } else { FAILED });
        }
        _ => {}
    }
    let (json, report) = (options.json.clone(), options.report.clone());
    // Files that cannot be written are an error before the run, not after it.
    let mut new = Vec::new();
    for file in [&json, &report].into_iter().flatten().filter(|file| !is_stdout(file)) {
        let is_new = !file.exists();
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .with_context(|| format!("writing {}", file.display()))?;
        new.extend(is_new.then_some(file));
    }
    let thresholds = options.clone().completed().fail_if;
    let outcome = match run(options, &interrupt) {
        Ok(outcome) => outcome,
        Err(error) => {
            // They stay empty.
            new.iter().for_each(|file| drop(fs::remove_file(file)));
            if interrupt.load(Ordering::Relaxed) {
                drop(writeln!(std::io::stderr(), "ringyard-loadgen: {error:#}"));
                return Ok(INTERRUPTED);
            }
            return Err(error);
        }
    };
    write_results(outcome, &thresholds, json.as_deref(), report.as_deref())
}

/// Prints what a scenario with threads of its own observed, and writes it where `--json` says.
fn write_own(options: &Options, observed: &impl Serialize, table: &str) -> Result<()> {
    let json = serde_json::to_string_pretty(observed)? + "\n";
    let mut stdout = std::io::stdout();
    match &options.json {
        Some(path) if is_stdout(path) => stdout.write_all(json.as_bytes())?,
        Some(path) => {
            fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
            stdout.write_all(table.as_bytes())?;
        }
        None => stdout.write_all(table.as_bytes())?,
    }
    Ok(())
}

fn merge_files(merge: &Merge) -> Result<u8> {
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no outcome of a run", file.display()))
    };
    let parts = merge.files.iter().map(read).collect::<Result<Vec<Outcome>>>()?;
    write_results(crate::merge::merge(parts)?, &merge.fail_if, merge.json.as_deref(), merge.report.as_deref())
}

fn write_results(
    mut outcome: Outcome,
    thresholds: &[Threshold],
    json: Option<&Path>,
    report: Option<&Path>,
) -> Result<u8> {
    threshold::check_all(thresholds, &mut outcome);
    // The files first: they are what is left if standard output cannot be written.
    let mut files = Vec::new();
    let mut put = |path: &Path, kind: &str, text: &str| {
        files.push(format!("{} ({kind})", path.display()));
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    };
    let text = json.map(|_| serde_json::to_string_pretty(&outcome)).transpose()?;
    if let Some((path, text)) = json.filter(|path| !is_stdout(path)).zip(text.as_ref()) {
        put(path, "JSON", text)?;
    }
    if let Some(path) = report {
        put(path, "HTML", &results::page(&outcome))?;
    }
    let table = results::table(&outcome, &files);
    let written = match text.filter(|_| json.is_some_and(is_stdout)) {
        Some(text) => {
            drop(std::io::stderr().write_all(table.as_bytes()));
            std::io::stdout().write_all((text + "\n").as_bytes())
        }
        None => std::io::stdout().write_all(table.as_bytes()),
    };
    // A reader may close the pipe early; otherwise a result that cannot be written is a failure.
    if let Err(error) = written.and_then(|()| std::io::stdout().flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        drop(writeln!(std::io::stderr(), "ringyard-loadgen: standard output cannot be written: {error}"));
        return Ok(FAILED);
    }
    Ok(status(&outcome))
}

/// Exit status of a run in which something went wrong, or a `--fail-if` condition was true.
const FAILED: u8 = 1;
/// Of a run that ended while connecting, because the server took no more clients.
const STALLED: u8 = 3;
/// Of a run that a signal ended: 128 and the number of SIGINT, for SIGTERM too.
const INTERRUPTED: u8 = 130;

fn status(outcome: &Outcome) -> u8 {
    match () {
        () if outcome.interrupted => INTERRUPTED,
        () if outcome.stalled.is_some() => STALLED,
        () if Verdict::of(outcome).failed() => FAILED,
        () => 0,
    }
}

/// `--json -`.
fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_status() {
        let mut outcome = Outcome { parts: 1, ..Outcome::default() };
        assert_eq!(status(&outcome), 0);
        outcome.errors.lost = 1;
        assert_eq!(status(&outcome), 1);
        outcome.stalled = Some("the server took 5 of 9 clients".into());
        assert_eq!(status(&outcome), 3);
        outcome.interrupted = true;
        assert_eq!(status(&outcome), 130);
    }
}
