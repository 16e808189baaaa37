//! The contract of a send and of what ends the sending direction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use ring::{Driver, Event, Gather};

use crate::harness::{End, Harness, Run, in_parts, pattern};
use crate::run;

crate::on_every_driver! {
    a_gather_of_many_parts_arrives_whole
    a_send_starts_anywhere_in_its_gather
    a_gather_is_shared_by_many_sends
    a_blocked_send_completes_when_the_peer_reads
    a_send_to_a_peer_that_reset_fails
    a_blocked_send_fails_when_the_peer_resets
    a_shutdown_follows_what_was_sent
    a_shutdown_leaves_the_other_direction_open
    a_second_send_panics
    a_send_of_nothing_panics
}

fn a_gather_of_many_parts_arrives_whole<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let bytes = pattern(40_000);
    for parts in [1, 2, 7, Gather::PARTS_MAX] {
        run.send_all(conn, in_parts(&bytes, parts), 0);
        assert!(run.client_reads(&mut client, bytes.len()) == bytes);
    }
}

fn a_send_starts_anywhere_in_its_gather<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let bytes = pattern(30);
    for from in 0..bytes.len() {
        for parts in [1, 3] {
            run.send_all(conn, in_parts(&bytes, parts), from);
            assert_eq!(run.client_reads(&mut client, bytes.len() - from), &bytes[from..]);
        }
    }
}

fn a_gather_is_shared_by_many_sends<H: Harness>() {
    let mut run = run::<H>();
    let mut pairs: Vec<_> = (0..40).map(|_| run.pair()).collect();
    let bytes = pattern(5_000);
    let gather = in_parts(&bytes, 5);
    for (conn, _) in &pairs {
        run.driver().send(*conn, gather.clone(), 0);
    }
    for (conn, client) in &mut pairs {
        let sent = run.sent(*conn).unwrap();
        if sent < bytes.len() {
            run.send_all(*conn, gather.clone(), sent);
        }
        assert!(run.client_reads(client, bytes.len()) == bytes);
    }
}

fn a_blocked_send_completes_when_the_peer_reads<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let bytes = pattern(H::HUGE_BYTES);
    let gather = in_parts(&bytes, 3);
    let (mut from, mut read) = (0, Vec::new());
    run.driver().send(conn, gather.clone(), 0);
    run.settle();
    let sent = |run: &mut Run<H>| {
        let at = run.events.iter().position(|event| matches!(event, Event::Sent { .. }))?;
        match run.events.remove(at) {
            Event::Sent { result, .. } => Some(result.unwrap()),
            _ => unreachable!(),
        }
    };
    // Short sends are allowed, but sooner or later one stays in flight.
    while let Some(n) = sent(&mut run) {
        from += n;
        assert!(from < bytes.len(), "nobody has read yet");
        run.driver().send(conn, gather.clone(), from);
        run.settle();
    }
    run.until("the whole gather", |run| {
        read.extend(run.world.read(&mut client));
        if let Some(n) = sent(run) {
            from += n;
            if from < gather.len() {
                run.driver().send(conn, gather.clone(), from);
            }
        }
        read.len() == bytes.len()
    });
    assert!(read == bytes);
    run.until("the last Sent", |run| {
        from += sent(run).unwrap_or(0);
        from == bytes.len()
    });
}

fn a_send_to_a_peer_that_reset_fails<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.reset(&mut client);
    let gather = Gather::one(Bytes::from_static(b"anyone there?"));
    let error = (0..10).find_map(|_| {
        run.driver().send(conn, gather.clone(), 0);
        run.sent(conn).err()
    });
    assert!(matches!(error, Some(libc::EPIPE | libc::ECONNRESET)), "{error:?}");
}

fn a_blocked_send_fails_when_the_peer_resets<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let gather = Gather::one(pattern(H::HUGE_BYTES).into());
    run.driver().send(conn, gather.clone(), 0);
    run.settle();
    run.world.reset(&mut client);
    let error = (0..10).find_map(|_| {
        let result = run.sent(conn);
        run.driver().send(conn, gather.clone(), 0);
        result.err()
    });
    assert!(matches!(error, Some(libc::EPIPE | libc::ECONNRESET)), "{error:?}");
}

fn a_shutdown_follows_what_was_sent<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let bytes = pattern(H::HUGE_BYTES);
    run.driver().send(conn, Gather::one(bytes.clone().into()), 0);
    run.driver().shutdown(conn);
    let mut read = Vec::new();
    run.until("the client's end", |run| {
        read.extend(run.world.read(&mut client));
        run.world.end(&mut client).is_some()
    });
    let sent = run.sent(conn).unwrap();
    assert!(read == bytes[..sent]);
    assert_eq!(run.world.end(&mut client), Some(End::Stream));
}

fn a_shutdown_leaves_the_other_direction_open<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.driver().shutdown(conn);
    assert_eq!(run.client_end(&mut client), End::Stream);
    run.world.write(&mut client, b"noted");
    assert_eq!(run.receive_exactly(conn, 5), b"noted");
    run.driver().send(conn, Gather::one(Bytes::from_static(b"no")), 0);
    assert_eq!(run.sent(conn), Err(libc::EPIPE));
}

fn a_second_send_panics<H: Harness>() {
    let mut run = run::<H>();
    let (conn, _client) = run.pair();
    let gather = Gather::one(pattern(H::HUGE_BYTES).into());
    run.driver().send(conn, gather.clone(), 0);
    let second = catch_unwind(AssertUnwindSafe(|| run.driver().send(conn, gather.clone(), 0)));
    assert!(second.is_err());
    run.close(conn);
}

fn a_send_of_nothing_panics<H: Harness>() {
    let mut run = run::<H>();
    let (conn, _client) = run.pair();
    let gather = Gather::one(Bytes::from_static(b"abc"));
    let past_the_end = catch_unwind(AssertUnwindSafe(|| run.driver().send(conn, gather.clone(), 3)));
    assert!(past_the_end.is_err());
}
