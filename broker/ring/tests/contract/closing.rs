//! The contract of a close, which is a join, and of the driver's own end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ring::{ConnId, Driver, Gather};

use crate::harness::{End, Harness, Options, Run, in_parts, pattern};
use crate::run;

crate::on_every_driver! {
    a_close_with_a_send_in_flight_reports_closed_only
    a_close_with_a_receive_in_flight_reports_closed_only
    a_close_of_everything_at_once_reports_closed_only
    a_close_with_a_question_under_way_reports_closed_only
    a_slot_is_reused_with_another_generation
    a_stale_id_is_ignored_and_counted
    a_dropped_driver_ends_its_connections
    a_thousand_connections_leave_nothing_behind
}

fn a_close_with_a_send_in_flight_reports_closed_only<H: Harness>() {
    for parts in [1, 4] {
        let mut run = run::<H>();
        let (conn, mut client) = run.pair();
        run.driver().send(conn, in_parts(&pattern(H::HUGE_BYTES), parts), 0);
        run.turn();
        run.events.clear();
        run.close(conn);
        run.settle();
        assert_eq!(run.events_of(conn), 0);
        assert!(run.world.read(&mut client).len() < H::HUGE_BYTES);
        run.client_end(&mut client);
    }
}

fn a_close_with_a_receive_in_flight_reports_closed_only<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.driver().receive(conn);
    run.turn();
    run.driver().close(conn);
    run.world.write(&mut client, b"too late");
    run.closed(conn);
    run.settle();
    assert_eq!(run.events_of(conn), 0);
    run.client_end(&mut client);
}

/// Every operation and the close reach the kernel in one turn.
fn a_close_of_everything_at_once_reports_closed_only<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"unread");
    run.events.clear();
    let driver = run.driver();
    driver.receive(conn);
    driver.send(conn, Gather::one(pattern(H::HUGE_BYTES).into()), 1);
    driver.receive_stop(conn);
    driver.shutdown(conn);
    driver.peer(conn);
    driver.close(conn);
    driver.close(conn);
    run.closed(conn);
    run.settle();
    assert_eq!(run.events_of(conn), 0);
    assert_eq!(run.driver().counters().stale, 1, "the second close");
    run.client_end(&mut client);
}

fn a_close_with_a_question_under_way_reports_closed_only<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.events.clear();
    run.driver().peer(conn);
    run.driver().close(conn);
    run.closed(conn);
    run.settle();
    assert_eq!(run.events_of(conn), 0);
    run.client_end(&mut client);
}

fn a_slot_is_reused_with_another_generation<H: Harness>() {
    let mut run = Run::<H>::new(Options { capacity: 1, ..Options::default() });
    let mut generations = Vec::new();
    for round in 0..5 {
        let (conn, mut client) = run.pair();
        assert_eq!(conn.slot, 0);
        generations.push(conn.generation);
        run.driver().receive(conn);
        run.close(conn);
        assert_eq!(run.client_end(&mut client), End::Stream, "round {round}");
    }
    generations.dedup();
    assert_eq!(generations.len(), 5);
}

fn a_stale_id_is_ignored_and_counted<H: Harness>() {
    let mut run = Run::<H>::new(Options { capacity: 1, ..Options::default() });
    let (old, _) = run.pair();
    run.close(old);
    let (new, mut client) = run.pair();
    assert_eq!(old.slot, new.slot);
    let elsewhere = ConnId { slot: 7_000_000, generation: 0 };
    for conn in [old, elsewhere] {
        let driver = run.driver();
        driver.receive(conn);
        driver.receive_stop(conn);
        driver.send(conn, Gather::one(Bytes::from_static(b"to nobody")), 0);
        driver.shutdown(conn);
        driver.install(conn);
        driver.peer(conn);
        driver.send_progress(conn);
        driver.unsent(conn);
        driver.close(conn);
    }
    run.settle();
    assert_eq!(run.driver().counters().stale, 18);
    assert_eq!(run.events_of(old) + run.events_of(new), 0);
    run.send_all(new, Gather::one(Bytes::from_static(b"you")), 0);
    assert_eq!(run.client_reads(&mut client, 3), b"you");
}

fn a_dropped_driver_ends_its_connections<H: Harness>() {
    let mut run = run::<H>();
    let mut pairs: Vec<_> = (0..10).map(|_| run.pair()).collect();
    let (_adopted, socket) = run.world.socket();
    for (at, (conn, _)) in pairs.iter().enumerate() {
        run.driver().receive(*conn);
        if at % 2 == 0 {
            run.driver().send(*conn, in_parts(&pattern(H::HUGE_BYTES), 1 + at), at);
        }
    }
    run.turn();
    run.driver().adopt(socket, 0);
    run.driver().close(pairs[0].0);
    run.driver().shutdown(pairs[1].0);
    run.events.clear();
    run.world.drop_driver();
    for (_, client) in &mut pairs {
        let begun = Instant::now();
        while run.world.end(client).is_none() {
            drop(run.world.read(client));
            assert!(begun.elapsed() < Duration::from_secs(5), "the connection is still open");
        }
    }
}

fn a_thousand_connections_leave_nothing_behind<H: Harness>() {
    let mut run = Run::<H>::new(Options { capacity: 8, ..Options::default() });
    for round in 0..125 {
        let mut pairs: Vec<_> = (0..8).map(|_| run.pair()).collect();
        for (at, (conn, client)) in pairs.iter_mut().enumerate() {
            assert!(conn.slot < 8);
            run.driver().receive(*conn);
            run.driver().send(*conn, Gather::one(Bytes::from_static(b"hi")), 0);
            match (at + round) % 4 {
                0 => run.world.write(client, b"ho"),
                1 => run.world.half_close(client),
                2 => run.world.reset(client),
                _ => {}
            }
            if (at + round) % 3 == 0 {
                run.turn();
            }
        }
        for (conn, _) in &pairs {
            run.driver().close(*conn);
        }
        for (conn, _) in &pairs {
            run.closed(*conn);
        }
        run.events.clear();
    }
    assert_eq!(run.driver().counters().stale, 0);
}
