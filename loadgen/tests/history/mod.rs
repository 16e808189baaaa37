//! Topics with a history: each scenario against the real broker, and every promise of a history broken by a small one.

mod dishonest;
pub(crate) mod real;

use crate::mini::{Done, run, with_each};
use dishonest::Breach;
use loadgen::outcome::History;

fn history(done: &Done) -> &History {
    done.outcome().history.as_ref().unwrap_or_else(|| panic!("no history in {done}"))
}

// ---- the real broker

#[test]
fn clients_that_are_dropped_miss_nothing() {
    let broker = real::Broker::start("");
    with_each(["--protocol v1", "--protocol raw", "--topics 4 --topics-per-client 3 --publishers 8"], |arguments| {
        let prefix = arguments.replace([' ', '-'], "");
        let line =
            format!("--scenario recovery --topic-prefix {prefix} --drops 60 --away 0.1 --duration 1.5 --rate 400");
        let done = run(broker.address, &format!("{line} {arguments}"));
        done.is_good();
        let history = history(&done);
        assert!(history.drops > 10 && history.replayed > 50, "{done}");
        assert!(history.recovered + history.interrupted >= history.drops, "{done}");
        assert_eq!((history.not_recovered, history.holes, history.doubles, history.announced), (0, 0, 0, 0), "{done}");
        // Whoever is dropped catches up, unless dropped again before.
        assert_eq!(history.catch_up.count + history.interrupted, history.drops, "{done}");
        assert!(history.catch_up.p99 > 0, "{done}");
        assert!(done.stdout.contains("subscriptions recovered, 0 not"), "{done}");
    });
}

#[test]
fn a_window_that_is_too_small_says_so() {
    let broker = real::Broker::start("[[topic]]\nmatch = \"#\"\nhistory-messages = 3\n");
    with_each(["v1", "raw"], |protocol| {
        let line = "--scenario recovery --topics 2 --drops 60 --away 0.2 --duration 1.5 --rate 400";
        let done = run(broker.address, &format!("{line} --topic-prefix {protocol} --protocol {protocol}"));
        done.is_good();
        let history = history(&done);
        assert!(history.not_recovered > 10 && history.announced > 100, "{done}");
        assert_eq!((history.holes, history.doubles, history.withheld), (0, 0, 0), "{done}");
    });
}

#[test]
fn all_come_back_at_once() {
    let broker = real::Broker::start("");
    let pid = broker.child.id();
    with_each(["v1", "raw"], |protocol| {
        let line = format!("--topic-prefix {protocol} --protocol {protocol} --server-pid {pid} --topics 2 --rate 500");
        let done = run(broker.address, &format!("--scenario recovery --behind 40 {line}"));
        done.is_good();
        let history = history(&done);
        assert_eq!((history.recovered, history.not_recovered, history.drops), (20, 0, 0), "{done}");
        let [anew, behind] = &history.arrivals[..] else { panic!("{done}") };
        assert_eq!((anew.clients, anew.behind, anew.messages), (20, None, 0), "{done}");
        assert_eq!((behind.clients, behind.behind), (20, Some(40)), "{done}");
        assert_eq!(behind.messages, history.replayed, "{done}");
        // 20 clients, each 20 to 60 messages behind.
        assert!((400..=1200).contains(&behind.messages) && behind.bytes > 24 * behind.messages, "{done}");
        assert!(behind.server_cpu_ns.is_some() && done.stdout.contains("beyond handshakes"), "{done}");
    });
}

#[test]
fn newcomers_get_the_newest_of_each_key_and_topic() {
    let broker = real::Broker::start("[[topic]]\nmatch = \"keyed/#\"\nhistory = \"keyed\"\n");
    let line = "--scenario keyed-state --rate 1000 --duration 1";
    with_each(
        [
            ("--topic-prefix keyed/many --topics 3 --topics-per-client 2 --keys 70", 20 * 2 * 70),
            // Not every key has a message.
            ("--topic-prefix keyed/few --topics 2 --keys 4000 --payload 24..300", 20 * 550),
            ("--topic-prefix kept --retain --topics 90", 20 * 90),
        ],
        |(arguments, messages)| {
            let done = run(broker.address, &format!("{line} {arguments}"));
            let outcome = done.is_good();
            let history = history(&done);
            assert_eq!((history.states, history.catch_up.count), (20, 20), "{arguments}: {done}");
            assert_eq!(history.arrivals[0].messages, history.state_messages, "{arguments}: {done}");
            // A busy machine publishes less.
            let whole = outcome.traffic.published >= 1000;
            assert!(history.state_messages <= messages && (!whole || history.state_messages > messages / 2), "{done}");
        },
    );
    let done = run(broker.address, &format!("{line} --topic-prefix other --keys 10 --drain-timeout 0.5"));
    let broken = &done.is_failed().errors.broken;
    assert!(
        broken.keys().all(|why| why.contains("history = \"keyed\"")) && broken.values().sum::<u64>() == 20,
        "{done}"
    );
}

#[test]
fn what_a_protocol_has_no_history_for_is_refused() {
    let broker = real::Broker::start("");
    run(broker.address, "--scenario recovery --protocol mqtt").is_refused("cannot begin after a position");
    run(broker.address, "--scenario keyed-state --protocol raw").is_refused("--protocol v1 does that");
    run(broker.address, "--scenario recovery --verify 0.5").is_refused("--verify");
}

#[test]
fn a_server_that_takes_no_publishers_ends_a_run_of_newcomers() {
    let arguments = "--scenario keyed-state --keys 5 --publishers 3 --stall-timeout 1";
    let done = run(dishonest::broker(Breach::Full), arguments);
    assert_eq!(done.status, Some(3), "{done}");
    assert!(done.outcome().stalled.is_some() && done.outcome().errors.publishers.values().sum::<u64>() == 2, "{done}");
}

// ---- dishonest ones

#[test]
fn broken_promises_of_recovery_are_noticed() {
    let line = "--scenario recovery --topics 1 --drops 60 --away 0.1 --duration 1 --rate 300 --drain-timeout 1";
    with_each(
        [Breach::Hole, Breach::Double, Breach::Elsewhere, Breach::Nothing, Breach::Denied, Breach::Epoch],
        |breach| {
            let done = run(dishonest::broker(breach), line);
            let errors = &done.is_failed().errors;
            let history = history(&done);
            match breach {
                Breach::Hole | Breach::Nothing => {
                    assert!(errors.lost > 0 && errors.untrue > 0 && errors.doubled == 0, "{breach:?}: {done}");
                    // A hole at the very end has no offset behind it.
                    assert!((1..=errors.lost).contains(&history.holes), "{breach:?}: {done}");
                }
                Breach::Double => {
                    assert!(errors.doubled > 0 && errors.lost == 0 && errors.untrue == 0, "{done}");
                    assert_eq!(history.doubles, errors.doubled, "{done}");
                }
                Breach::Elsewhere | Breach::Epoch => {
                    assert!(errors.untrue > 0, "{breach:?}: {done}");
                    assert_eq!(errors.lost > 0, breach == Breach::Elsewhere, "{breach:?}: {done}");
                }
                _ => assert!(errors.untrue > 0 && errors.total() == errors.untrue, "{done}"),
            }
            assert!(done.stdout.contains("untrue: answers about recovery") || breach == Breach::Double, "{done}");
        },
    );
}

#[test]
fn what_is_announced_is_no_error() {
    let line = "--scenario recovery --topics 1 --drops 60 --away 0.1 --duration 1 --rate 300";
    with_each([Breach::None, Breach::Announced, Breach::Gaps, Breach::Reset], |breach| {
        let done = run(dishonest::broker(breach), line);
        done.is_good();
        let history = history(&done);
        assert_eq!((history.holes, history.doubles), (0, 0), "{breach:?}: {done}");
        // A position of an earlier epoch is not recovered either.
        let anew = matches!(breach, Breach::Announced | Breach::Reset);
        assert_eq!(history.not_recovered > 0, anew, "{breach:?}: {done}");
        assert_eq!(history.gaps > 0, breach == Breach::Gaps, "{breach:?}: {done}");
        assert_eq!(history.resets > 0, breach == Breach::Reset, "{breach:?}: {done}");
        let missing = matches!(breach, Breach::Announced | Breach::Gaps);
        assert_eq!(history.announced > 0, missing, "{breach:?}: {done}");
    });
    // Every scenario understands gaps, resets and state, in an open and a closed loop.
    with_each(
        [("--rate 300", Breach::Gaps), ("--outstanding 2", Breach::Gaps), ("--rate 300", Breach::Reset)],
        |(how, breach)| {
            let done = run(dishonest::broker(breach), &format!("--protocol v1 {how}"));
            done.is_good();
            assert!(history(&done).gaps + history(&done).resets > 0, "{how}: {done}");
        },
    );
}

#[test]
fn broken_promises_of_state_are_noticed() {
    let line = "--scenario keyed-state --keys 30 --rate 300 --drain-timeout 1";
    with_each([Breach::None, Breach::Stale, Breach::Lacking, Breach::Endless], |breach| {
        let done = run(dishonest::broker(breach), line);
        let errors = &done.outcome().errors;
        match breach {
            Breach::None => assert!(done.is_good().errors.none(), "{done}"),
            Breach::Endless => {
                assert_eq!((errors.stale, errors.broken.values().sum::<u64>(), errors.total()), (0, 20, 20), "{done}");
            }
            // One key of each client.
            _ => assert_eq!((errors.stale, errors.total()), (20, 20), "{breach:?}: {done}"),
        }
        assert_eq!(done.status, Some(i32::from(breach != Breach::None)), "{done}");
    });
}
