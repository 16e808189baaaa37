//! Runs the simulation: one seed, or many.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sim::report::replay;
use sim::{Coverage, Failure, Params};

const USAGE: &str = "\
usage: sim --seed N [-v]              run one seed; -v tells what happens
       sim --seeds N [--from M] [--jobs J]   run N seeds from M on (default 0)";

/// A series at least this long must have met every event.
const SERIES_MIN: u64 = 1000;

struct Options {
    from: u64,
    count: u64,
    jobs: usize,
    verbose: bool,
    one: bool,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    name_the_seed_of_a_panic();
    if options.one { one(&options) } else { many(&options) }
}

fn options() -> Option<Options> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { from: 0, count: 0, jobs, verbose: false, one: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next()?.parse::<u64>().ok();
        match arg.as_str() {
            "--seed" => (options.from, options.count, options.one) = (number()?, 1, true),
            "--seeds" => options.count = number()?,
            "--from" => options.from = number()?,
            "--jobs" => options.jobs = number()?.max(1) as usize,
            "-v" => options.verbose = true,
            _ => return None,
        }
    }
    (options.count > 0).then_some(options)
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn name_the_seed_of_a_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        let seed = SEED.get();
        eprintln!("in seed {seed}\n  {}\n{:#?}", replay(seed), Params::from_seed(seed));
    }));
}

fn one(options: &Options) -> ExitCode {
    SEED.set(options.from);
    let params = Params::from_seed(options.from);
    match sim::run(&params, options.verbose) {
        Ok(outcome) => {
            print!("{params:#?}\n{}", outcome.coverage);
            println!("trace {:016x}\n1 passed, 0 failed", outcome.trace);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn many(options: &Options) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let (coverage, failures) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(|| work(options, &next, &done))).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(200));
            eprint!("\r{} of {} seeds ", done.load(Ordering::Relaxed), options.count);
        }
        eprintln!();
        let mut sum = (Coverage::default(), Vec::new());
        for worker in workers {
            let (coverage, failures) = worker.join().expect("a panic has ended the process");
            sum.0 += coverage;
            sum.1.extend(failures);
        }
        sum
    });
    if let Some(first) = failures.first() {
        println!("{first}");
    }
    for failure in failures.iter().take(20) {
        println!("seed {}, round {}: {}", failure.params.seed, failure.round, failure.violation);
    }
    let seconds = began.elapsed().as_secs_f64();
    print!("met in {} seeds, {:.0} seeds/s:\n{coverage}", options.count, options.count as f64 / seconds);
    let missing = coverage.missing();
    let blind = options.count >= SERIES_MIN && !missing.is_empty();
    if blind {
        println!("never met: {missing:?}");
    }
    println!("{} passed, {} failed", options.count - failures.len() as u64, failures.len());
    if failures.is_empty() && !blind { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(options: &Options, next: &AtomicU64, done: &AtomicU64) -> (Coverage, Vec<Failure>) {
    let (mut coverage, mut failures) = (Coverage::default(), Vec::new());
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= options.count {
            return (coverage, failures);
        }
        let seed = options.from + at;
        SEED.set(seed);
        match sim::run(&Params::from_seed(seed), options.verbose) {
            Ok(outcome) => coverage += outcome.coverage,
            Err(failure) => failures.push(failure),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}
