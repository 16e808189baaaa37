//! Runs over `wss://`: everything is found that is found without TLS, and handshakes are counted.

use rustls::version::{TLS12, TLS13};

use crate::mini::tls::{Front, front};
use crate::mini::{Done, Fault, broker, command, start, with_each};

fn run(front: &Front, host: &str, arguments: &str) -> Done {
    let mut command = command(&format!("wss://{host}:{}", front.address.port()));
    command.args(["--tls-ca", front.ca.path()]);
    start(command, arguments).wait()
}

#[test]
fn everything_is_delivered_over_tls() {
    with_each(
        [
            "",
            "--outstanding 4 --burst 10 --workers 3",
            "--rate 300 --payload 24..70000 --verify 0.25",
            "--rate 100 --verify 0.25",
            "--scenario chat --rate 200",
            "--scenario slow-consumers",
            "--scenario idle",
        ],
        |arguments| {
            let front = front(broker(Fault::None), &[&TLS13]);
            let done = run(&front, "127.0.0.1", arguments);
            let outcome = done.is_good();
            let tls = outcome.tls.as_ref().unwrap();
            let all = outcome.connect.opened + outcome.run.publishers;
            assert_eq!((tls.full, tls.resumed, tls.handshake.count), (all, 0, all), "{arguments}: {done}");
            assert_eq!(tls.versions, [("TLS 1.3".to_owned(), all)].into(), "{arguments}: {done}");
            assert!(outcome.traffic.delivered_total > 0 || arguments.contains("idle"), "{arguments}: {done}");
            assert!(outcome.admission.p50 > tls.handshake.p50 / 2, "the handshake belongs to it: {done}");
            assert!(done.stdout.contains("full handshakes, 0 resumed"), "{done}");
        },
    );
}

#[test]
fn handshakes_are_resumed_if_asked() {
    for version in [&TLS12, &TLS13] {
        let front = front(broker(Fault::None), &[version]);
        let done = run(&front, "localhost", "--scenario reconnect-storm --rate 100 --tls-resume on --concurrency 16");
        let outcome = done.is_good();
        let tls = outcome.tls.as_ref().unwrap();
        assert_eq!((tls.full, tls.resumed), (0, 20 * 4 + 1), "{done}");
        assert_eq!(outcome.connect.reopened, 60, "{done}");
    }
}

#[test]
fn faults_are_found_over_tls() {
    with_each(
        [Fault::Drop, Fault::Double, Fault::Swap, Fault::Damage, Fault::CloseOne, Fault::Nonsense, Fault::Restart],
        |fault| {
            let front = front(broker(fault), &[&TLS13]);
            let done = run(&front, "127.0.0.1", "--rate 500 --duration 0.8 --drain-timeout 1.5");
            let errors = &done.is_failed().errors;
            let found = match fault {
                Fault::Drop => errors.lost > 0,
                Fault::Double => errors.doubled > 0,
                Fault::Swap => errors.reordered > 0,
                Fault::Damage => errors.corrupt > 0,
                Fault::CloseOne => errors.closed.contains_key(&1011),
                Fault::Restart => errors.closed.contains_key(&1006),
                _ => errors.broken.values().sum::<u64>() > 0,
            };
            assert!(found, "{fault:?}: {errors:?} {done}");
        },
    );
}

#[test]
fn servers_that_are_not_trusted_are_refused() {
    let front = front(broker(Fault::None), &[&TLS13]);
    let url = |host: &str| command(&format!("wss://{host}:{}", front.address.port()));
    start(url("127.0.0.1"), "").wait().is_refused("--tls-ca FILE names its authority");
    let mut other = url("127.0.0.2");
    other.args(["--tls-ca", front.ca.path()]);
    // The front listens on 127.0.0.1 alone.
    start(other, "").wait().is_refused("nobody answers");
    let done = start(url("localhost"), "--tls-insecure").wait();
    done.is_good();
    assert!(done.stdout.contains("certificates were not checked"), "{done}");
    assert!(done.stderr.contains("certificates are not checked"), "{done}");
    let plain = start(command(&format!("wss://{}", broker(Fault::None))), "--tls-insecure").wait();
    assert_eq!(plain.status, Some(2), "{plain}");
    assert!(plain.stderr.contains("no TLS with"), "{plain}");
    start(command(&format!("ws://{}", front.address)), "--tls-insecure").wait().is_refused("begin with wss://");
}
