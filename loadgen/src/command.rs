//! The program: its arguments, the files that it writes, and its exit status.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::options::Options;
use crate::outcome::Outcome;
use crate::results;
use crate::run::{Interrupt, run};
use crate::threshold::{self, Threshold};
use crate::verdict::Verdict;

/// Many WebSocket clients, from one machine or several; every message checked
#[derive(Parser)]
#[command(name = "ringyard-loadgen", version, args_override_self = true, args_conflicts_with_subcommands = true)]
#[command(disable_help_subcommand = true)]
struct Command {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum What {
    /// Merges the results of several processes that were started with --share
    Merge(Merge),
}

#[derive(Args)]
struct Merge {
    /// What --json wrote
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write the outcome here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots here
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Exit with 1 when this is so: `p99>50ms`, `delivered<100000`
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
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
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

fn measure(options: Options) -> Result<bool> {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    // The first signal ends the run and prints its results, the second ends the program.
    drop(ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    }));
    let (json, report) = (options.json.clone(), options.report.clone());
    // Files that cannot be written are an error before the run, not after it.
    let mut new = Vec::new();
    for file in [&json, &report].into_iter().flatten() {
        let is_new = !file.exists();
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .with_context(|| format!("writing {}", file.display()))?;
        new.extend(is_new.then_some(file));
    }
    let thresholds = options.fail_if.clone();
    let outcome = run(options, &interrupt).inspect_err(|_| {
        // They stay empty.
        new.iter().for_each(|file| drop(fs::remove_file(file)));
    })?;
    write_results(outcome, &thresholds, json.as_deref(), report.as_deref())
}

fn merge_files(merge: &Merge) -> Result<bool> {
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
) -> Result<bool> {
    threshold::check_all(thresholds, &mut outcome);
    // The files first: they are what is left if standard output cannot be written.
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&outcome)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = report {
        fs::write(path, results::page(&outcome)).with_context(|| format!("writing {}", path.display()))?;
    }
    // A reader may close the pipe early; otherwise a table that cannot be written is a failure.
    if let Err(error) = std::io::stdout().write_all(results::table(&outcome).as_bytes())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        drop(writeln!(std::io::stderr(), "ringyard-loadgen: standard output cannot be written: {error}"));
        return Ok(false);
    }
    Ok(Verdict::of(&outcome).failures.is_empty())
}
