//! Policies for slow subscribers, and throttles: the real broker keeps its own, and every promise of them broken by a small
//! broker is found.

mod broker;

use crate::history::real;
use crate::mini::{Done, run, with_each};
use broker::{Breach, Terms, broker};
use loadgen::outcome::{Answer, Errors};

/// 400 messages a second over 8 keys.
const LINE: &str = "--scenario conflate --clients 20 --keys 8 --rate 400 --duration 1 --drain-timeout 1";
const LATEST: Terms = Terms { slow_consumer: "latest", throttle_ms: 50 };

fn answers(done: &Done) -> &[Answer] {
    &done.outcome().terms.as_ref().unwrap_or_else(|| panic!("no terms in {done}")).answers
}

fn answer(slow_consumer: &str, throttle_ms: u64, subscriptions: u64) -> Answer {
    Answer { slow_consumer: slow_consumer.into(), throttle_ms, subscriptions }
}

/// The answers to all 20 subscriptions were not what the run needs, and it says so.
#[track_caller]
fn is_useless(done: &Done, why: &str) {
    let broken = &done.is_failed().errors.broken;
    assert!(broken.keys().all(|said| said.contains(why)) && broken.values().sum::<u64>() == 20, "{why}: {done}");
}

// ---- the real broker

#[test]
fn conflated_clients_get_the_newest_of_each_key() {
    let rule =
        |name: &str, more: &str| format!("[[topic]]\nmatch = \"{name}/#\"\nslow-consumer = \"latest\"\n{more}\n");
    let rules = [
        rule("plain", ""),
        rule("timed", "throttle = \"100ms\""),
        rule("keyed", "throttle = \"50ms\"\nhistory = \"keyed\""),
        rule("several", "throttle = \"50ms\""),
    ];
    let broker = real::Broker::start(&rules.concat());
    let line = LINE.replace("--clients 20", "");
    with_each(
        [
            ("plain/1", "", 0),
            ("timed/1", "", 100),
            ("timed/2", "--throttle 0.2", 250),
            ("keyed/1", "--keys 30 --payload 24..400", 50),
            ("several", "--topics 3 --topics-per-client 2 --slow-share 0.2", 50),
            ("timed/3", "--slow-share 0.3 --slow-rate 0 --verify 0.5", 100),
        ],
        |(topic, more, throttle_ms)| {
            let done = run(broker.address, &format!("{line} --topic-prefix {topic} {more}"));
            let outcome = done.is_good();
            let subscriptions = if topic == "several" { 40 } else { 20 };
            assert_eq!(answers(&done), [answer("latest", throttle_ms, subscriptions)], "{topic} {more}: {done}");
            let terms = outcome.terms.as_ref().unwrap();
            assert!(outcome.traffic.delivered_total > 100 && terms.deliveries > 20, "{topic} {more}: {done}");
            if throttle_ms > 0 {
                let most = 1000.0 / throttle_ms as f64 * 1.1 + 1.0;
                assert!(outcome.deliveries_per_subscription().unwrap() <= most, "{topic} {more}: {done}");
                assert!(terms.conflated > 0 || more.contains("30") || topic == "several", "{topic} {more}: {done}");
            }
        },
    );
}

#[test]
fn conflated_clients_may_come_and_go() {
    let broker = real::Broker::start("[[topic]]\nmatch = \"#\"\nslow-consumer = \"latest\"\nthrottle = \"50ms\"\n");
    with_each(["--churn 40", "--drops 40 --away 0.1 --verify all", "--storms 2", "--reconnect"], |more| {
        let prefix = more.replace([' ', '-', '.'], "");
        let done = run(broker.address, &format!("{LINE} --topic-prefix {prefix} --protocol v1 {more}"));
        let outcome = done.is_good();
        assert!(outcome.terms.as_ref().unwrap().conflated > 0, "{more}: {done}");
        assert_eq!(outcome.connect.reopened > 0, more != "--reconnect", "{more}: {done}");
    });
}

#[test]
fn slow_clients_are_judged_by_their_policy() {
    let rules = ["skip", "latest"].map(|policy| {
        format!("[[topic]]\nmatch = \"{policy}\"\nslow-consumer = \"{policy}\"\nmax-lag = \"1m\"\nhistory = \"none\"\n")
    });
    let broker = real::Broker::start(&rules.concat());
    let line = "--scenario slow-consumers --slow-share 0.2 --payload 16384 --rate 500 --duration 2 --protocol v1";
    with_each(["skip", "latest"], |policy| {
        let done = run(broker.address, &format!("{line} --topic-prefix {policy}"));
        let outcome = done.is_good();
        assert_eq!(answers(&done), [answer(policy, 0, 20)], "{done}");
        assert!(outcome.errors.shed.is_empty() && outcome.slow.as_ref().unwrap().closed.is_empty(), "{done}");
        let gaps = outcome.history.as_ref().map_or(0, |history| history.gaps);
        assert_eq!(gaps > 0, policy == "skip", "{done}");
        assert_eq!(outcome.terms.as_ref().unwrap().conflated > 0, policy == "latest", "{done}");
    });
}

#[test]
fn what_the_scenario_needs_is_said() {
    let broker = real::Broker::start("[[topic]]\nmatch = \"latest\"\nslow-consumer = \"latest\"\n");
    is_useless(&run(broker.address, LINE), "needs a rule for it with slow-consumer = \"latest\"");
    run(broker.address, &format!("{LINE} --protocol raw")).is_refused("--protocol v1 does that");
    run(broker.address, "--throttle 1 --rate 10").is_refused("--protocol v1 does that");
    run(broker.address, &format!("{LINE} --publishers 2")).is_refused("--publishers with --scenario conflate");
    let several = "--topic-prefix latest --protocol v1 --publishers 2 --rate 10";
    is_useless(&run(broker.address, several), "checked with one publisher per topic");
}

// ---- dishonest ones

#[test]
fn broken_promises_of_conflation_are_found() {
    let kinds = |errors: &Errors| (errors.stale, errors.reordered, errors.doubled, errors.unthrottled);
    with_each(
        [Breach::None, Breach::LosesNewest, Breach::SendsOlder, Breach::SendsAgain, Breach::Unthrottled],
        |breach| {
            let done = run(broker(LATEST, breach), LINE);
            let outcome = if breach == Breach::None { done.is_good() } else { done.is_failed() };
            let errors = &outcome.errors;
            match breach {
                // One key at each client.
                Breach::LosesNewest => assert_eq!(kinds(errors), (20, 0, 0, 0), "{done}"),
                Breach::SendsOlder => assert_eq!(kinds(errors), (0, errors.total(), 0, 0), "{done}"),
                Breach::SendsAgain => assert_eq!(kinds(errors), (0, 0, errors.total(), 0), "{done}"),
                Breach::Unthrottled => assert_eq!(kinds(errors), (0, 0, 0, 20), "{done}"),
                _ => assert!(outcome.terms.as_ref().unwrap().conflated > 200, "{done}"),
            }
            assert_eq!(answers(&done), [answer("latest", 50, 20)], "{done}");
        },
    );
}

#[test]
fn a_hole_is_found_where_nothing_may_be_left_out() {
    let line = "--scenario slow-consumers --slow-share 0.2 --protocol v1 --rate 200 --drain-timeout 1";
    let terms = |slow_consumer| Terms { slow_consumer, throttle_ms: 0 };
    with_each(
        [("disconnect", Breach::Hole), ("skip", Breach::Hole), ("skip", Breach::Gaps), ("skip", Breach::None)],
        |(policy, breach)| {
            let done = run(broker(terms(policy), breach), line);
            if breach != Breach::Hole {
                done.is_good();
                return;
            }
            let outcome = done.is_failed();
            let errors = &outcome.errors;
            assert_eq!(
                (errors.lost, errors.total()),
                (outcome.traffic.published / 10 * 20, errors.lost),
                "{policy}: {done}"
            );
        },
    );
    // Conflation leaves out what it wants, if a newer message of the key comes.
    let done = run(broker(LATEST, Breach::Hole), &format!("{LINE} --keys 1 --rate 401"));
    assert!(done.outcome().errors.lost == 0 && done.outcome().errors.stale <= 20, "{done}");
}

#[test]
fn who_promised_to_keep_slow_clients_must_not_close_them() {
    let line = "--scenario slow-consumers --slow-share 0.2 --slow-rate 100000 --protocol v1 --rate 200";
    for (policy, shed) in [("disconnect", 4), ("skip", 0), ("latest", 0)] {
        let done = run(broker(Terms { slow_consumer: policy, throttle_ms: 0 }, Breach::Closes), line);
        let errors = &done.is_failed().errors;
        let closed = [&errors.closed, &errors.shed].map(|codes| codes.get(&1013).copied().unwrap_or(0));
        assert_eq!(closed, [20 - shed, shed], "{policy}: {done}");
    }
}

#[test]
fn answers_that_do_not_fit_are_said() {
    let terms = |slow_consumer, throttle_ms| Terms { slow_consumer, throttle_ms };
    let done = run(broker(terms("newest", 50), Breach::None), LINE);
    done.is_refused("an unknown slow_consumer: \"newest\"");
    for (terms, more, why) in [
        (terms("latest", 50), "--throttle 0.1", "a throttle of 100 ms was asked for, and 50 ms is the answer"),
        (terms("skip", 50), "", "needs a rule for it with slow-consumer"),
    ] {
        is_useless(&run(broker(terms, Breach::None), &format!("{LINE} {more}")), why);
    }
    // A throttle alone holds for every policy.
    let line = "--protocol v1 --rate 400 --duration 1 --throttle 0.05";
    for (breach, unthrottled) in [(Breach::None, 0), (Breach::Unthrottled, 20)] {
        let done = run(broker(terms("disconnect", 50), breach), line);
        let errors = &done.outcome().errors;
        assert_eq!((errors.unthrottled, errors.total()), (unthrottled, unthrottled), "{done}");
        assert_eq!(answers(&done), [answer("disconnect", 50, 20)], "{done}");
    }
}
