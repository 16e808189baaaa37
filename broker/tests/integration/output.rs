//! Output that cannot be written: a full disk, a pipe whose reader is gone. It is no success, and never a crash.

use std::fs::{File, OpenOptions};
use std::process::{Command, Output, Stdio};

const PRINTING: [&[&str]; 9] = [
    &["--help"],
    &["doctor", "--help"],
    &["--version"],
    &["config", "example"],
    &["config", "show"],
    &["config", "check"],
    &["key", "new", "back-end"],
    &["doctor", "--shards", "1"],
    &["doctor", "--json", "--shards", "1"],
];

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("Linux has it")
}

fn run(arguments: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringyard"));
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr).output().unwrap()
}

#[test]
fn on_a_full_disk_it_is_1_and_a_sentence() {
    for arguments in PRINTING {
        let output = run(arguments, full(), Stdio::piped());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.starts_with("ringyard: standard output cannot be written: "), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert_eq!(run(arguments, full(), full()).status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn where_the_reader_is_gone_it_is_1_and_quiet() {
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(arguments, writer, Stdio::piped());
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]), "{arguments:?}");
    }
}

#[test]
fn a_complaint_that_cannot_be_written_leaves_its_status() {
    for (arguments, status) in [
        (&["--no-such-option"][..], 2),
        (&["--max-head", "1"], 2),
        (&["config", "check", "--max-lag", "1k"], 2),
        (&["healthcheck", "--url", "http://127.0.0.1:1"], 1),
        (&["--listen", "192.0.2.1:1", "--allow-anonymous"], 1),
    ] {
        assert_eq!(run(arguments, Stdio::null(), full()).status.code(), Some(status), "{arguments:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run(arguments, Stdio::null(), writer).status.code(), Some(status), "{arguments:?}");
    }
}
