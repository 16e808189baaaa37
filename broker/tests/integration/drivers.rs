//! Which driver a broker runs on: the one asked for, or epoll where a sandbox forbids io_uring, as container
//! engines do by a seccomp filter. The tests forbid it themselves.

use std::io::Read;
use std::process::{Child, Stdio};
use std::thread;

use ring::sandbox::{IO_URING, forbid};

use crate::broker::{Broker, command};
use crate::http::{post, request};
use crate::shutdown::{exit, signal};
use crate::ws::{open, open_v1};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Starts a broker, both its outputs piped, that cannot use io_uring: the kernel says `errno`.
fn spawn_forbidden(errno: i32, arguments: &[&str]) -> Child {
    spawn_without(&IO_URING, errno, arguments)
}

/// The same, where only some of the calls are refused.
fn spawn_without(calls: &'static [i64], errno: i32, arguments: &[&str]) -> Child {
    let mut command = command(arguments);
    command.env_remove("RINGYARD_IO").stdout(Stdio::piped()).stderr(Stdio::piped());
    let forbidden = thread::spawn(move || {
        forbid(calls, errno).expect("a thread may restrict itself and what it starts");
        command.spawn().expect("the binary runs")
    });
    forbidden.join().unwrap()
}

/// A broker on epoll that would be on io_uring if a filter let it.
pub(crate) fn on_epoll_by_force() -> Broker {
    Broker::of(spawn_forbidden(EPERM, &["--io", "auto"]))
}

fn all_of(stream: &mut Option<impl Read>) -> String {
    let mut text = String::new();
    stream.take().expect("piped").read_to_string(&mut text).unwrap();
    text
}

/// The driver as `/healthz` and `/api/stats` name it.
async fn driver(broker: &Broker) -> String {
    let health = request(broker.address, "GET /healthz HTTP/1.1", b"").await.json();
    let stats = request(broker.admin, "GET /api/stats HTTP/1.1", b"").await.json();
    assert_eq!(stats["driver"], health["driver"]);
    health["driver"].as_str().expect("a name").to_owned()
}

/// Publishes over HTTP and over a WebSocket; raw and `ringyard.v1` subscribers get both.
async fn serves(broker: &Broker) {
    let mut raw = open(broker.address, "/sub/a").await;
    let mut v1 = open_v1(broker.address).await;
    v1.subscribe(&["a"]).await;
    assert_eq!(post(broker.address, "a", b"over HTTP").await, 1);
    open(broker.address, "/pub/a").await.send("over a WebSocket").await;
    for text in ["over HTTP", "over a WebSocket"] {
        assert_eq!(raw.text().await, text);
        assert_eq!(v1.json().await["data"], text);
    }
}

#[tokio::test]
async fn the_driver_asked_for_is_the_one_that_runs() {
    for (asked, name) in [("uring", "io_uring"), ("epoll", "epoll")] {
        let broker = Broker::start(&["--io", asked]);
        assert_eq!(driver(&broker).await, name);
        serves(&broker).await;
    }
}

/// Proves that the checks run all tests on the driver that they mean to.
#[tokio::test]
async fn the_environment_decides_unless_an_option_does() {
    let expected = match std::env::var("RINGYARD_IO").as_deref() {
        Ok("epoll") => "epoll",
        _ => "io_uring",
    };
    assert_eq!(driver(&Broker::start(&[])).await, expected);
}

#[tokio::test]
async fn where_io_uring_is_forbidden_it_is_epoll_with_one_warning() {
    for (errno, engine) in [(EPERM, "Docker"), (ENOSYS, "Podman")] {
        let mut child = spawn_forbidden(errno, &["--io", "auto", "--log-level", "warn"]);
        let mut stderr = child.stderr.take();
        let mut broker = Broker::of(child);
        assert_eq!(driver(&broker).await, "epoll");
        serves(&broker).await;
        signal(&broker, "TERM");
        assert_eq!(exit(&mut broker).await.code(), Some(0));
        let warning = all_of(&mut stderr);
        assert_eq!(warning.lines().count(), 1, "{warning}");
        for word in ["WARN", "epoll", "seccomp", engine, "allows io_uring_setup"] {
            assert!(warning.contains(word), "{word}: {warning}");
        }
    }
}

/// A profile that lists io_uring_setup and forgets another call: found before the shards start.
#[tokio::test]
async fn where_one_call_of_io_uring_is_refused_it_is_epoll_and_the_warning_names_it() {
    for (call, name) in [(&IO_URING[1..2], "io_uring_enter"), (&IO_URING[2..], "io_uring_register")] {
        for (errno, answer) in [(EPERM, "EPERM"), (ENOSYS, "ENOSYS")] {
            let mut child = spawn_without(call, errno, &["--io", "auto", "--log-level", "warn"]);
            let mut stderr = child.stderr.take();
            let mut broker = Broker::of(child);
            assert_eq!(driver(&broker).await, "epoll");
            serves(&broker).await;
            signal(&broker, "TERM");
            assert_eq!(exit(&mut broker).await.code(), Some(0));
            let warning = all_of(&mut stderr);
            assert_eq!(warning.lines().count(), 1, "{warning}");
            assert!(warning.contains(&format!("refuses {name} ({answer})")), "{warning}");
        }
    }
}

/// A probe's one small ring fits, those of all shards do not.
#[tokio::test]
async fn where_too_little_memory_may_be_locked_it_is_epoll_with_one_warning() {
    let binary = env!("CARGO_BIN_EXE_ringyard");
    // Root may lock what it likes, unless it gives that up.
    let start = format!(
        "ulimit -l 256; set -- {binary} --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --shards 2 --log-level warn; \
         [ \"$(id -u)\" != 0 ] || set -- setpriv --bounding-set -ipc_lock \"$@\"; exec \"$@\""
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &start]).env_remove("RINGYARD_IO").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take();
    let mut broker = Broker::of(child);
    assert_eq!(driver(&broker).await, "epoll");
    serves(&broker).await;
    signal(&broker, "TERM");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
    let warning = all_of(&mut stderr);
    assert_eq!(warning.lines().count(), 1, "{warning}");
    assert!(warning.contains("262144 bytes") && warning.contains("ulimit -l"), "{warning}");
}

#[test]
fn where_io_uring_is_forbidden_and_nothing_else_will_do_there_is_no_start() {
    for errno in [EPERM, ENOSYS] {
        let mut child = spawn_forbidden(errno, &["--io", "uring"]);
        let (said, complaint) = (all_of(&mut child.stdout), all_of(&mut child.stderr));
        assert_eq!(child.wait().unwrap().code(), Some(1), "{complaint}");
        assert_eq!((said.as_str(), complaint.lines().count()), ("", 1), "{complaint}");
        for word in ["seccomp", "allows io_uring_setup", "--io epoll"] {
            assert!(complaint.contains(word), "{word}: {complaint}");
        }
    }
}

/// On epoll every connection is a descriptor of the process, so that is what the figures are about.
#[test]
fn more_connections_than_descriptors_are_refused_with_the_figure() {
    let arguments = ["--io", "epoll", "--max-connections", "2000000"];
    let output = command(&arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("per shard") && complaint.contains("ulimit -n 20"), "{complaint}");
}
