//! `ringyard-loadgen`: see the documentation of the library. Exit status 0: no errors; 1: something was lost,
//! duplicated, reordered, corrupt, untrue, stale, refused or closed, or a `--fail-if` condition was true; 2: the run could
//! not take place; 3: the server took no more clients; 130: interrupted by a signal.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadgen::command::main()
}
