//! `ringyard-loadgen`: see the documentation of the library. Exit status 0: no errors; 1: something was lost, doubled,
//! reordered, corrupt, refused or closed, or a `--fail-if` condition was true; 2: the run could not take place.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadgen::command::main()
}
