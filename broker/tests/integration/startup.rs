//! Start-up: what cannot work ends in one sentence that says what to change, and a status that is not 0.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Output, Stdio};

use crate::broker::{Broker, command};
use crate::upgrade::head;

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

/// The kernel takes what a ring had apart a little later than its process.
#[test]
fn a_port_of_a_broker_that_was_killed_is_free_at_once() {
    let mut broker = Broker::start(&[]);
    let address = broker.address.to_string();
    for round in 0..8 {
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let mut client = TcpStream::connect(&address).unwrap();
                client.write_all(head(broker.address, "/sub/t").as_bytes()).unwrap();
                client.read_exact(&mut [0; 12]).unwrap();
                client
            })
            .collect();
        broker.child.kill().unwrap();
        broker.child.wait().unwrap();
        broker = Broker::start(&["--listen", &address]);
        assert_eq!(broker.address.to_string(), address, "round {round}");
        drop(clients);
    }
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
