//! What is said before a run that cannot take place.

use std::net::SocketAddr;
use std::process::Command;

use crate::mini::{Done, Fault, File, broker, command, run, start, start_without_json, with_each};

#[test]
fn what_cannot_be_is_said_before_the_run() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    run(nobody, "").is_refused(&format!("nobody answers at {nobody}"));
    let address = broker(Fault::None);
    with_each(
        [
            ("--url http://127.0.0.1:1", "ws://"),
            ("--payload 10", "--payload"),
            ("--storms 1", "--storms needs --rate"),
            ("--share 1/2", "--share needs --rate"),
            ("--clients 40000 --source 127.0.0.1", "--source"),
            ("--clients 4000000000", "enough for --clients"),
            ("--server-pid 4294967295", "--server-pid 4294967295"),
            ("--duration 1e12", "--duration"),
            ("--duration 0", "--duration must be above 0"),
            ("--scenario chat --churn 5", "--churn"),
            ("--topics 5 --clients 2", "closed loop"),
            ("--json /nowhere/at/all.json", "writing /nowhere/at/all.json"),
            ("--protocol v1 --rate 1", "subprotocol"),
        ],
        |(arguments, sentence)| {
            // The last of several is what counts.
            let done = run_without_json(address, arguments);
            assert!(done.status == Some(2) && done.stderr.contains(sentence), "{arguments}: {sentence}: {done}");
        },
    );
}

#[test]
fn too_few_descriptors_are_said_before_the_run() {
    let limited = |descriptors: u64, arguments: &str| {
        let inner = command(&format!("ws://{}", broker(Fault::None)));
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={descriptors}:{descriptors}")).arg(inner.get_program()).args(inner.get_args());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        start(command, arguments).wait()
    };
    limited(200, "--clients 9000 --rate 10").is_refused("descriptors");
    limited(200, "--clients 500 --rate 10 --workers 1").is_refused("rings");
    // More rings than cores are no burden.
    let done = limited(400, "--clients 600 --rate 10");
    assert!(done.is_good().run.workers >= 3, "{done}");
}

#[test]
fn earlier_results_survive_a_run_that_does_not_take_place() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [old, new] = [File::with("json", "earlier"), File::new("json")];
    for file in [&old, &new] {
        let done = run_without_json(nobody, &format!("--json {}", file.path()));
        assert_eq!(done.status, Some(2), "{done}");
    }
    assert_eq!(std::fs::read_to_string(&old.path).unwrap(), "earlier");
    assert!(!new.path.exists());
}

#[test]
fn a_file_of_options_is_read_and_its_mistakes_are_named() {
    let address = broker(Fault::None);
    let with = |text: &str, arguments: &str| {
        let file = File::with("toml", text);
        let done = run(address, &format!("--config {} {arguments}", file.path()));
        (done, file)
    };
    let (done, _file) = with("scenario = \"chat\"\ntopics = 4\nrate = 100\npayload = \"64,128\"\n", "--topics 5");
    let outcome = done.is_good();
    assert_eq!((&outcome.run.scenario[..], outcome.run.topics), ("chat", 5), "the command line wins: {done}");
    assert_eq!(outcome.run.payload, "64,128");
    with_each(
        [
            ("clinets = 5", "--clinets"),
            ("clients = \"many\"", "--clients"),
            ("rate = -1", "--rate"),
            ("clients = { a = 1 }", "clients"),
            ("config = \"other\"", "config"),
            ("scenario = \"chaos\"", "--scenario"),
            ("clients = ", "no TOML"),
        ],
        |(text, key)| {
            let (done, file) = with(text, "");
            assert!(done.status == Some(2) && done.outcome.is_none(), "{text}: {done}");
            assert!(done.stderr.contains(key) && done.stderr.contains(file.path()), "{text}: {done}");
        },
    );
    let done = run(address, "--config /nowhere.toml");
    assert!(done.status == Some(2) && done.stderr.contains("/nowhere.toml"), "{done}");
}

/// Without a JSON file of the test's own.
fn run_without_json(address: SocketAddr, arguments: &str) -> Done {
    start_without_json(command(&format!("ws://{address}")), arguments).wait()
}
