//! Start-up: what cannot work ends in one sentence that says what to change, and a status that is not 0.

use std::process::{Output, Stdio};

use crate::broker::{Broker, command};

fn run(arguments: &[&str]) -> Output {
    command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_port_in_use() {
    let broker = Broker::start(&[]);
    // SO_REUSEPORT must not let a second broker share the first one's port.
    let output = run(&["--listen", &broker.address.to_string()]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{error}");
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    assert!(error.contains(&broker.address.to_string()) && error.contains("in use"), "{error}");

    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(&["--listen", &other.local_addr().unwrap().to_string()]);
    assert!(!output.status.success());
    assert_eq!(text(&output.stderr).trim().lines().count(), 1);
}

#[test]
fn the_operators_port_in_use() {
    let broker = Broker::start(&[]);
    assert_ne!(broker.admin, broker.address);
    let output = run(&["--admin-listen", &broker.admin.to_string()]);
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), error.trim().lines().count()), (Some(1), 1), "{error}");
    for part in [&broker.admin.to_string(), "in use", "--admin-listen"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn bad_options() {
    for arguments in [
        &["--listen", "nonsense"][..],
        &["--io", "select"],
        &["--shards", "0"],
        &["--shards", "many"],
        &["--max-message", "lots"],
        &["--ping-interval", "soon"],
        &["--no-such-option"],
    ] {
        let output = run(arguments);
        let error = text(&output.stderr);
        assert!(!output.status.success() && output.status.code().is_some(), "{arguments:?}: {error}");
        assert!(error.contains(arguments[0]) && !error.contains("panicked"), "{arguments:?}: {error}");
    }
}

#[test]
fn too_few_descriptors() {
    const ARGUMENTS: &str = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --shards 2";
    let command = format!("ulimit -n 16; exec {} {ARGUMENTS}", env!("CARGO_BIN_EXE_ringyard"));
    let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    let error = text(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{error}");
    assert!(error.contains("descriptors") && !error.contains("panicked"), "{error}");
}

#[test]
fn help_and_version() {
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    assert!(output.status.success());
    for option in [
        "--listen",
        "--io",
        "--shards",
        "--allow-origin",
        "--max-message",
        "--max-frame",
        "--max-lag",
        "--max-topic",
        "--max-subscriptions",
        "--handshake-timeout",
        "--ping-interval",
        "--ping-timeout",
        "--shutdown-grace",
    ] {
        assert!(help.contains(option), "{option} is not in --help");
    }
    assert!(run(&["--version"]).status.success());
}
