//! What an operator asks the binary: `config`, `doctor` and `healthcheck`, with their exit statuses, and who holds of
//! flag, environment, file and default.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;

use ring::sandbox::{IO_URING, forbid};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::broker::Broker;

const ENOSYS: i32 = 38;

/// The binary without the environment of the checks.
fn ringyard(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringyard"));
    command.args(arguments).env_remove("RINGYARD_IO").stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file for one test, gone with it.
struct Kept(NamedTempFile);

impl Kept {
    fn new(text: &str) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Self(file)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

#[test]
fn a_flag_outdoes_the_environment_and_that_the_file_and_that_the_default() {
    let file = Kept::new("max-lag = '5m'\nmax-log = '6m'\nmax-topics = 7\n");
    let output = ringyard(&["config", "show", "--max-lag", "3m"])
        .envs([("RINGYARD_CONFIG", file.path()), ("RINGYARD_MAX_LAG", "4m"), ("RINGYARD_MAX_LOG", "8m")])
        .output()
        .unwrap();
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for line in [
        "max-lag = \"3m\" # flag",
        "max-log = \"8m\" # RINGYARD_MAX_LOG",
        &format!("max-topics = 7 # {}:3", file.path()),
        "max-headers = 64 # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let again = Kept::new(&shown);
    let output = ringyard(&["config", "check", again.path()]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "ok\n"), "{}", stderr(&output));
}

#[test]
fn a_wrong_file_ends_with_2_and_a_line_for_each_error() {
    let file = Kept::new("io = 'aio'\n\nmax_lag = '1m'\n");
    for arguments in [&["--config", file.path()][..], &["config", "check", file.path()]] {
        let output = ringyard(arguments).output().unwrap();
        let errors = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{errors}");
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(lines.len(), 2, "{errors}");
        assert!(lines[0].starts_with(&format!("ringyard: {}:1: ", file.path())) && lines[0].contains("io"), "{errors}");
        assert!(lines[1].contains(":3: ") && lines[1].contains("max-lag?"), "{errors}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let output = ringyard(&["config", "check"]).env("RINGYARD_MAX_FRAME", "2m").output().unwrap();
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--max-frame (2m, RINGYARD_MAX_FRAME)"), "{error}");
    let output = ringyard(&["config", "check"]).env("RINGYARD_SHARDS", "many").output().unwrap();
    assert!(stderr(&output).contains("invalid value 'many' for RINGYARD_SHARDS: "), "{}", stderr(&output));
}

/// Compose files pass what nobody set as an empty variable.
#[test]
fn an_empty_variable_says_nothing() {
    let variables = [("RINGYARD_ALLOW_ORIGIN", ""), ("RINGYARD_SHARDS", ""), ("RINGYARD_CONFIG", "")];
    let output = ringyard(&["config", "show"]).envs(variables).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).lines().any(|line| line == "allow-origin = [] # default"), "{}", stdout(&output));
}

#[test]
fn a_broker_takes_its_file() {
    let file = Kept::new("listen = '127.0.0.1:0'\nshards = 3\nadmin-listen = 'off'\n");
    let child = ringyard(&["--config", file.path()]).stdout(Stdio::piped()).spawn().unwrap();
    let broker = Broker::of(child);
    let answer = ringyard(&["healthcheck", "--url", &format!("http://{}", broker.address)]).output().unwrap();
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
}

#[test]
fn health_is_asked_for_where_the_settings_say() {
    let broker = Broker::start(&[]);
    let ask = |listen: &str| {
        let variables = [("RINGYARD_LISTEN", listen), ("RINGYARD_ADMIN_LISTEN", "off")];
        ringyard(&["healthcheck"]).envs(variables).output().unwrap()
    };
    let address = broker.address.to_string();
    let healthy = ask(&address);
    assert_eq!(healthy.status.code(), Some(0), "{}", stderr(&healthy));
    assert_eq!(stdout(&healthy), format!("healthy: http://{address}/healthz answers 200\n"));
    // What listens on every address is asked on loopback; the rules for listening are not this command's concern.
    assert_eq!(ask(&format!("0.0.0.0:{}", broker.address.port())).status.code(), Some(0));
    drop(broker);
    let dead = ask(&address);
    assert_eq!((dead.status.code(), stdout(&dead).as_str()), (Some(1), ""));
    assert_eq!(stderr(&dead).lines().count(), 1, "{}", stderr(&dead));
    assert!(stderr(&dead).contains("not healthy: "), "{}", stderr(&dead));
    assert_eq!(ringyard(&["healthcheck", "--url", "nowhere"]).output().unwrap().status.code(), Some(2));
}

fn doctor(mut command: Command) -> (Option<i32>, Vec<Value>) {
    let output = command.output().unwrap();
    let findings = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), findings)
}

#[track_caller]
fn of<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("nothing about {name}"))
}

#[test]
fn the_doctor_looks_at_this_machine() {
    let (status, findings) = doctor(ringyard(&["doctor", "--json", "--shards", "1", "--max-connections", "100"]));
    assert_eq!(status, Some(0), "{findings:?}");
    assert_eq!(
        (&of(&findings, "io_uring")["status"], &of(&findings, "driver")["status"]),
        (&"ok".into(), &"ok".into())
    );
    let features = of(&findings, "io_uring features")["value"].as_str().unwrap();
    assert!(features.starts_with("restrictions, ") && features.contains("multishot receive"), "{features}");
    assert!(of(&findings, "huge pages")["value"].as_str().unwrap().contains("none"));
    let screen = ringyard(&["doctor"]).output().unwrap();
    assert!(stdout(&screen).lines().any(|line| line.starts_with("ok") && line.contains("Linux ")));
}

#[test]
fn the_doctor_names_what_keeps_the_broker_from_starting() {
    let (status, findings) = doctor(ringyard(&["doctor", "--json", "--shards", "1", "--max-connections", "4000000"]));
    assert_eq!(status, Some(1));
    assert_eq!(of(&findings, "descriptors")["status"], "problem");
    let file = Kept::new("max_lag = 1\n");
    let (status, findings) = doctor(ringyard(&["doctor", "--json", "--config", file.path()]));
    assert_eq!(status, Some(1));
    assert!(of(&findings, "configuration")["value"].as_str().unwrap().contains("max-lag?"), "{findings:?}");
}

/// Podman's default profile, as the tests install it.
#[test]
fn the_doctor_names_the_profile_that_hides_io_uring() {
    let mut command = ringyard(&["doctor", "--json", "--shards", "1"]);
    let auto = thread::spawn(move || {
        forbid(&IO_URING, ENOSYS).expect("a thread may restrict itself and what it starts");
        let auto = doctor(command);
        command = ringyard(&["doctor", "--json", "--shards", "1", "--io", "uring"]);
        (auto, doctor(command))
    });
    let ((status, findings), (strict, problems)) = auto.join().unwrap();
    assert_eq!(status, Some(0), "{findings:?}");
    let finding = of(&findings, "io_uring");
    assert_eq!(finding["status"], "warning");
    assert!(finding["value"].as_str().unwrap().contains("ENOSYS"), "{finding}");
    assert!(finding["advice"].as_str().unwrap().contains("--security-opt seccomp="), "{finding}");
    assert!(of(&findings, "driver")["value"].as_str().unwrap().starts_with("epoll"));
    assert_eq!(of(&findings, "seccomp")["value"], "a filter is in force");
    assert_eq!((strict, &of(&problems, "io_uring")["status"]), (Some(1), &"problem".into()));
}
