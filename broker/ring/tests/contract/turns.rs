//! The contract of a turn: what ends it, and that no operation is lost on its way into one.

use std::time::{Duration, Instant};

use ring::{Driver, Event, Gather};

use crate::harness::{Harness, Options, Run, pattern};
use crate::run;

crate::on_every_driver! {
    a_wake_up_is_reported_once
    a_wake_up_from_another_thread_ends_the_turn
    a_turn_ends_at_its_deadline
    more_operations_than_the_queue_holds_all_happen
}

fn woken<H: Harness>(run: &Run<H>) -> usize {
    run.events.iter().filter(|event| matches!(event, Event::Woken)).count()
}

fn a_wake_up_is_reported_once<H: Harness>() {
    let mut run = run::<H>();
    let waker = run.driver().waker();
    for round in 1..4 {
        waker.wake();
        waker.clone().wake();
        run.settle();
        assert_eq!(woken(&run), round);
    }
}

fn a_wake_up_from_another_thread_ends_the_turn<H: Harness>() {
    let mut run = run::<H>();
    // The simulated driver spins here, so it does so only for a moment.
    let rounds = if H::WAITS { 200 } else { 5 };
    for round in 1..rounds {
        let waker = run.driver().waker();
        let other = std::thread::spawn(move || waker.wake());
        let begun = Instant::now();
        while woken(&run) < round {
            let deadline = run.driver().now() + 5_000_000_000;
            run.world.driver().turn(Some(deadline), &mut run.events).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(4), "the turn was not woken");
        }
        other.join().unwrap();
    }
    run.settle();
    assert_eq!(woken(&run), rounds - 1);
}

fn a_turn_ends_at_its_deadline<H: Harness>() {
    let mut run = run::<H>();
    run.turn();
    let begun = Instant::now();
    run.world.driver().turn(None, &mut run.events).unwrap();
    let now = run.driver().now();
    run.world.driver().turn(Some(now), &mut run.events).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(20), "a deadline in the past waits for nothing");
    let deadline = run.driver().now() + 50_000_000;
    run.world.driver().turn(Some(deadline), &mut run.events).unwrap();
    assert!(run.events.is_empty());
    if H::WAITS {
        assert!(run.driver().now() >= deadline);
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

fn more_operations_than_the_queue_holds_all_happen<H: Harness>() {
    const CONNS: usize = 60;
    let mut run = Run::<H>::new(Options { submission_entries: 8, buffers: 64, ..Options::default() });
    let mut pairs: Vec<_> = (0..CONNS).map(|_| run.pair()).collect();
    let bytes = pattern(100);
    let gather = Gather::one(bytes.clone().into());
    for round in 0..5 {
        for (conn, client) in &mut pairs {
            run.world.write(client, b"?");
            run.driver().receive(*conn);
            run.driver().send(*conn, gather.clone(), 0);
        }
        for (conn, client) in &mut pairs {
            let sent = run.sent(*conn).unwrap();
            if sent < bytes.len() {
                run.send_all(*conn, gather.clone(), sent);
            }
            assert!(run.client_reads(client, bytes.len()) == bytes, "round {round}");
            assert_eq!(run.receive_exactly(*conn, 1), b"?", "round {round}");
        }
    }
    for (conn, _) in &pairs {
        run.driver().close(*conn);
    }
    for (conn, _) in &pairs {
        run.closed(*conn);
    }
    if H::QUEUES {
        assert!(run.driver().counters().submission_full > 0);
    }
}
