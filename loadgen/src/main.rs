//! `ringyard-loadgen`: see the library's page. Exit status 0: all went well; 1: something was lost, doubled, reordered,
//! corrupt, refused or closed, or a `--fail-if` was true; 2: the run could not take place.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadgen::command::main()
}
