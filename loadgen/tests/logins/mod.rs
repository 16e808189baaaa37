//! Tokens, and storms of logins, against a small broker that wants tokens.

mod broker;

use std::net::SocketAddr;
use std::time::Duration;

use broker::{SECRET, broker};

use crate::mini::{Done, File, command, start};

fn run(address: SocketAddr, secret: &str, arguments: &str) -> Done {
    let secret = File::with("secret", secret);
    let mut command = command(&format!("ws://{address}"));
    command.args(["--protocol", "v1", "--token-secret-file", secret.path()]);
    start(command, arguments).wait()
}

#[test]
fn everybody_logs_in_as_another_user_wherever_the_token_stands() {
    for place in ["connect", "subprotocol", "header"] {
        let (address, broker) = broker(Duration::ZERO);
        let topics = r##"{"subscribe":["#"]}"##;
        let done = run(
            address,
            SECRET,
            &format!("--rate 100 --token-by {place} --token-user-prefix u --token-topics {topics}"),
        );
        assert!(done.is_good().traffic.delivered_total > 0, "{done}");
        let seen = broker.seen.lock().unwrap();
        assert_eq!(seen.places, [(place, 21)].into());
        assert!(seen.users.len() == 21 && seen.users.contains_key("u19") && seen.users.contains_key("upublisher-0"));
        assert_eq!(seen.topics["subscribe"][0], "#");
    }
}

#[test]
fn a_client_that_comes_back_has_the_token_that_it_had() {
    let (address, broker) = broker(Duration::ZERO);
    let done = run(address, SECRET, "--scenario reconnect-storm --storms 1 --rate 100");
    done.is_good();
    let seen = broker.seen.lock().unwrap();
    assert_eq!(seen.users.len(), 21);
    assert!(seen.users.iter().all(|(user, logins)| *logins == if user.contains("publisher") { 1 } else { 2 }));
}

#[test]
fn tokens_of_a_file_are_spread() {
    let (address, _) = broker(Duration::ZERO);
    let file = File::with("tokens", "a.b.c\nd.e.f\n");
    let mut command = command(&format!("ws://{address}"));
    command.args(["--protocol", "v1", "--token-file", file.path()]);
    let done = start(command, "--connect-timeout 2").wait();
    done.is_refused("bad-token: no");
    // Who does not log in learns it too.
    start(crate::mini::command(&format!("ws://{address}")), "--protocol v1")
        .wait()
        .is_refused("unauthorized: no token");
}

#[test]
fn a_storm_is_judged_by_the_deliveries_meanwhile() {
    let (address, broker) = broker(Duration::ZERO);
    let storm = "--scenario login-storm --logins 200 --rate 200 --fail-if login_ratio>1000000";
    let done = run(address, SECRET, storm);
    let logins = done.is_good().logins.clone().unwrap();
    assert_eq!((logins.opened, logins.took.count, logins.reused), (200, 200, false), "{done}");
    assert!(logins.calm.count > 500 && logins.seconds > 0.0 && logins.took.p50 > 0, "{done}");
    assert_eq!(broker.seen.lock().unwrap().users.len(), 221);
    assert_eq!(done.outcome().connect.opened, 20, "those that log in later are not among them: {done}");
    assert!(done.stdout.contains("200 logins in ") && done.stdout.contains("deliveries before: p50"), "{done}");
    assert!(done.outcome().passed[0].contains("login_ratio was "), "{done}");

    // The server has seen these tokens.
    let done = run(address, SECRET, &format!("{storm} --token-reuse"));
    assert!(done.is_good().logins.as_ref().unwrap().reused, "{done}");
    assert_eq!(broker.seen.lock().unwrap().users.len(), 221);
}

#[test]
fn a_server_that_is_busy_with_logins_is_found_out() {
    // 100 ms for 20 logins: everything that is due meanwhile comes late.
    let (address, _) = broker(Duration::from_millis(5));
    let done = run(address, SECRET, "--scenario login-storm --logins 100 --rate 200");
    assert_eq!(done.status, Some(1), "{done}");
    let outcome = done.outcome();
    assert!(outcome.good() && outcome.logins.as_ref().unwrap().ratio().unwrap() > 2.0, "{done}");
    assert!(done.stdout.contains("FAILED: login_ratio>2: login_ratio was "), "{done}");
}

#[test]
fn what_cannot_be_is_refused() {
    let (address, _) = broker(Duration::ZERO);
    let refused = |arguments: &str, sentence: &str| {
        start(command(&format!("ws://{address}")), arguments).wait().is_refused(sentence);
    };
    refused("--scenario login-storm", "--token-secret-file");
    refused("--token a.b.c --token-by connect", "--token-by connect: raw has no such place");
    refused("--token a,b", "--token: a token has no ','");
    refused("--token a --logins 5", "--logins and --token-reuse are for --scenario login-storm");
    refused("--scenario login-storm --token a --rate max", "--scenario login-storm needs --rate");
    run(address, "short", "").is_refused("has 5 bytes");
    run(address, SECRET, "--token-topics []").is_refused("--token-topics is an object");
}
