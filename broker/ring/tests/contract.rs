//! The contract of [`ring::Driver`], case by case, on every driver: io_uring and epoll over loopback TCP, the
//! simulated network in calm, and the simulated network with faults. What tells how far a connection's output has got
//! lies in `progress`; the contract of [`ring::Dial`] lies in `dialling` and runs on those that dial.

mod dialling;
mod harness;
mod progress;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{Calm, End, Epoll, Harness, Options, Rough, Run, Uring, in_parts, pattern, with_seeds};
use ring::{AcceptEnd, ConnId, Driver, Event, Gather, ReceiveEnd};

macro_rules! on_every_driver {
    ($($case:ident)*) => {
        mod uring { $(#[test] fn $case() { super::$case::<crate::Uring>() })* }
        mod epoll { $(#[test] fn $case() { super::$case::<crate::Epoll>() })* }
        mod simulated { $(#[test] fn $case() { super::$case::<crate::Calm>() })* }
        mod simulated_rough {
            $(#[test] fn $case() { crate::with_seeds(super::$case::<crate::Rough>) })*
        }
    };
}
pub(crate) use on_every_driver;

on_every_driver! {
    bytes_are_received_in_order
    received_bytes_are_writable_in_place
    a_gather_of_many_parts_arrives_whole
    a_send_starts_anywhere_in_its_gather
    a_gather_is_shared_by_many_sends
    a_blocked_send_completes_when_the_peer_reads
    a_send_to_a_peer_that_reset_fails
    a_blocked_send_fails_when_the_peer_resets
    a_receive_stops_and_starts_again
    a_receive_that_stops_over_and_over_loses_nothing
    what_came_before_the_receive_is_received
    a_second_receive_is_no_second_receive
    the_end_of_the_stream_is_told
    the_end_of_the_stream_is_told_to_every_receive
    a_reset_is_told
    without_buffers_the_receive_ends_and_goes_on_later
    a_close_with_a_send_in_flight_reports_closed_only
    a_close_with_a_receive_in_flight_reports_closed_only
    a_close_of_everything_at_once_reports_closed_only
    a_slot_is_reused_with_another_generation
    a_stale_id_is_ignored_and_counted
    a_full_table_ends_accepting_until_a_close
    an_adopted_socket_is_a_connection
    a_full_table_adopts_nothing
    an_installed_socket_outlives_the_connection
    an_install_beside_a_receive_is_refused
    the_peers_address_is_told_beside_everything_else
    the_address_of_a_peer_that_is_gone_is_told_or_refused
    a_close_with_a_question_under_way_reports_closed_only
    a_shutdown_follows_what_was_sent
    a_shutdown_leaves_the_other_direction_open
    a_wake_up_is_reported_once
    a_wake_up_from_another_thread_ends_the_turn
    a_turn_ends_at_its_deadline
    more_operations_than_the_queue_holds_all_happen
    accepting_stops_and_starts_again
    a_second_send_panics
    a_send_of_nothing_panics
    buffers_outlive_the_driver
    a_dropped_driver_ends_its_connections
    a_thousand_connections_leave_nothing_behind
}

macro_rules! on_every_driver_that_dials {
    ($($case:ident)*) => {
        mod uring_dials { $(#[test] fn $case() { crate::dialling::$case::<crate::Uring>() })* }
        mod epoll_dials { $(#[test] fn $case() { crate::dialling::$case::<crate::Epoll>() })* }
    };
}

on_every_driver_that_dials! {
    a_dialled_connection_is_like_an_accepted_one
    a_dial_goes_out_by_ipv6
    a_dialled_socket_is_prompt_and_never_blocks
    a_refused_dial_leaves_nothing
    a_dial_goes_out_from_its_source
    a_source_of_somebody_else_is_refused
    a_full_table_dials_nothing
    one_receive_is_one_receive
    one_receive_without_buffers_says_so
    discards_count_every_byte
    discards_keep_up_with_a_flood
    a_discard_sees_the_end_of_the_stream
    a_discard_stops_and_a_receive_follows
    a_close_with_a_discard_in_flight_reports_closed_only
    a_stale_id_receives_nothing
    a_dropped_driver_ends_its_dials
    five_thousand_dials_all_stand
}

fn run<H: Harness>() -> Run<H> {
    Run::new(Options::default())
}

fn bytes_are_received_in_order<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let sent = pattern(100_000);
    let mut received = Vec::new();
    for chunk in sent.chunks(33_333) {
        run.world.write(&mut client, chunk);
        received.extend(run.receive_exactly(conn, chunk.len()));
    }
    assert!(received == sent);
}

fn received_bytes_are_writable_in_place<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"x");
    run.driver().receive(conn);
    let mut buf = loop {
        let got = run.next("Received", |event| match event {
            Event::Received { .. } => {
                let Event::Received { buf, .. } = std::mem::replace(event, Event::Woken) else { unreachable!() };
                Some(Some(buf))
            }
            Event::ReceiveEnded { .. } => Some(None),
            _ => None,
        });
        match got {
            Some(buf) => break buf,
            None => run.driver().receive(conn),
        }
    };
    buf[0] ^= 0x20;
    assert_eq!(&*buf, b"X");
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

fn a_receive_stops_and_starts_again<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.driver().receive(conn);
    run.turn();
    run.driver().receive_stop(conn);
    let end = run.next("ReceiveEnded", |event| match event {
        Event::ReceiveEnded { end, .. } => Some(*end),
        _ => None,
    });
    assert_eq!(end, ReceiveEnd::Stopped);
    run.driver().receive_stop(conn);
    run.world.write(&mut client, b"later");
    run.settle();
    assert_eq!(run.events_of(conn), 0, "nothing is received once the receive has ended");
    assert_eq!(run.receive_exactly(conn, 5), b"later");
}

fn a_receive_that_stops_over_and_over_loses_nothing<H: Harness>() {
    let mut run = Run::<H>::new(Options { buffers: 4, buffer_bytes: 256, ..Options::default() });
    let (conn, mut client) = run.pair();
    let sent = pattern(20_000);
    run.world.write(&mut client, &sent);
    let mut received = Vec::new();
    while received.len() < sent.len() {
        run.driver().receive(conn);
        run.turn();
        run.driver().receive_stop(conn);
        run.next("ReceiveEnded", |event| match event {
            Event::Received { buf, .. } => {
                received.extend_from_slice(buf);
                *event = Event::Woken;
                None
            }
            Event::ReceiveEnded { .. } => Some(()),
            _ => None,
        });
    }
    assert!(received == sent);
}

/// What makes a socket readable happens once, and long before anybody asks.
fn what_came_before_the_receive_is_received<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"early bird");
    run.settle();
    assert_eq!(run.receive_exactly(conn, 10), b"early bird");
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"hail and ");
    run.world.write(&mut client, b"farewell");
    run.world.half_close(&mut client);
    run.settle();
    assert_eq!(run.receive_exactly(conn, 17), b"hail and farewell");
    assert_eq!(run.receive_end(conn), ReceiveEnd::EndOfStream);
}

fn a_second_receive_is_no_second_receive<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.driver().receive(conn);
    run.driver().receive(conn);
    run.turn();
    run.driver().receive(conn);
    run.world.half_close(&mut client);
    assert_eq!(run.receive_end(conn), ReceiveEnd::EndOfStream);
    run.settle();
    assert_eq!(run.events_of(conn), 0);
}

fn the_end_of_the_stream_is_told<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"last words");
    run.world.half_close(&mut client);
    assert_eq!(run.receive_exactly(conn, 10), b"last words");
    assert_eq!(run.receive_end(conn), ReceiveEnd::EndOfStream);
    run.send_all(conn, Gather::one(Bytes::from_static(b"still here")), 0);
    assert_eq!(run.client_reads(&mut client, 10), b"still here");
}

fn the_end_of_the_stream_is_told_to_every_receive<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.half_close(&mut client);
    for _ in 0..3 {
        assert_eq!(run.receive_end(conn), ReceiveEnd::EndOfStream);
        run.settle();
    }
}

fn a_reset_is_told<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.driver().receive(conn);
    run.turn();
    run.world.reset(&mut client);
    assert_eq!(run.receive_end(conn), ReceiveEnd::Failed(libc::ECONNRESET));
    run.close(conn);
}

fn without_buffers_the_receive_ends_and_goes_on_later<H: Harness>() {
    let mut run = Run::<H>::new(Options { buffers: 4, buffer_bytes: 256, ..Options::default() });
    let (conn, mut client) = run.pair();
    let sent = pattern(10_000);
    run.world.write(&mut client, &sent);
    run.driver().receive(conn);
    let mut received = Vec::new();
    while received.len() < sent.len() {
        run.until("the receive's end", |run| {
            run.events.iter().any(|event| matches!(event, Event::ReceiveEnded { .. }))
                || received.len() + run.events_of_bytes() == sent.len()
        });
        for event in std::mem::take(&mut run.events) {
            match event {
                Event::Received { buf, .. } => received.extend_from_slice(&buf),
                Event::ReceiveEnded { end, .. } => {
                    assert!(matches!(end, ReceiveEnd::NoBuffers | ReceiveEnd::Stopped), "{end:?}");
                }
                _ => {}
            }
        }
        run.driver().receive(conn);
    }
    assert!(received == sent);
    assert!(run.driver().counters().no_buffers > 0);
}

impl<H: Harness> Run<H> {
    fn events_of_bytes(&self) -> usize {
        let len = |event: &Event<<H::Driver as Driver>::Buf>| match event {
            Event::Received { buf, .. } => buf.len(),
            _ => 0,
        };
        self.events.iter().map(len).sum()
    }
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
        driver.send(conn, Gather::one(Bytes::from_static(b"to whom?")), 0);
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

fn accept_end<H: Harness>(run: &mut Run<H>) -> AcceptEnd {
    run.next("AcceptEnded", |event| match event {
        Event::AcceptEnded { end } => Some(*end),
        _ => None,
    })
}

fn a_full_table_ends_accepting_until_a_close<H: Harness>() {
    let mut run = Run::<H>::new(Options { capacity: 2, ..Options::default() });
    let (first, _one) = run.pair();
    let (_, _two) = run.pair();
    while accept_end(&mut run) != AcceptEnd::TableFull {
        run.driver().accept();
    }
    run.driver().accept();
    assert_eq!(accept_end(&mut run), AcceptEnd::TableFull, "nothing was closed");
    let mut waiting = run.world.connect();
    run.close(first);
    let conn = run.accepted();
    run.send_all(conn, Gather::one(Bytes::from_static(b"welcome")), 0);
    assert_eq!(run.client_reads(&mut waiting, 7), b"welcome");
}

fn adopted<H: Harness>(run: &mut Run<H>, socket: std::os::fd::OwnedFd, asked: u64) -> Result<ConnId, i32> {
    run.driver().adopt(socket, asked);
    run.next("Adopted", |event| match event {
        Event::Adopted { token, result } if *token == asked => Some(*result),
        _ => None,
    })
}

fn an_adopted_socket_is_a_connection<H: Harness>() {
    let mut run = run::<H>();
    let (accepted, _other) = run.pair();
    let (mut client, socket) = run.world.socket();
    let conn = adopted(&mut run, socket, 77).unwrap();
    assert_ne!(conn.slot, accepted.slot);
    run.world.write(&mut client, b"hello");
    assert_eq!(run.receive_exactly(conn, 5), b"hello");
    run.send_all(conn, Gather::one(Bytes::from_static(b"world")), 0);
    assert_eq!(run.client_reads(&mut client, 5), b"world");
    run.close(conn);
    assert_eq!(run.client_end(&mut client), End::Stream, "no descriptor is left");
}

fn a_full_table_adopts_nothing<H: Harness>() {
    let mut run = Run::<H>::new(Options { capacity: 1, ..Options::default() });
    let (conn, _other) = run.pair();
    let (mut client, socket) = run.world.socket();
    assert_eq!(adopted(&mut run, socket, 1), Err(libc::ENFILE));
    run.client_end(&mut client);
    run.close(conn);
    let (_client, socket) = run.world.socket();
    assert!(adopted(&mut run, socket, 2).is_ok());
}

fn installed<H: Harness>(run: &mut Run<H>, conn: ConnId) -> Result<std::os::fd::OwnedFd, Option<i32>> {
    run.driver().install(conn);
    run.next("Installed", |event| match event {
        Event::Installed { .. } => {
            let Event::Installed { conn: of, result } = std::mem::replace(event, Event::Woken) else { unreachable!() };
            assert_eq!(of, conn);
            Some(result.map_err(|error| error.raw_os_error()))
        }
        _ => None,
    })
}

fn an_installed_socket_outlives_the_connection<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(run.receive_exactly(conn, 18), b"GET / HTTP/1.1\r\n\r\n");
    run.driver().receive_stop(conn);
    run.next("ReceiveEnded", |event| matches!(event, Event::ReceiveEnded { .. }).then_some(()));
    let socket = installed(&mut run, conn).expect("this kernel installs");
    run.close(conn);
    run.world.socket_write(&socket, b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(run.client_reads(&mut client, 19), b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(run.world.end(&mut client), None);
    // And back again.
    let conn = adopted(&mut run, socket, 3).unwrap();
    run.close(conn);
    assert_eq!(run.client_end(&mut client), End::Stream);
}

fn an_install_beside_a_receive_is_refused<H: Harness>() {
    let mut run = run::<H>();
    let (conn, _client) = run.pair();
    run.driver().receive(conn);
    assert_eq!(installed(&mut run, conn).unwrap_err(), Some(libc::EBUSY));
}

fn peer<H: Harness>(run: &mut Run<H>, of: ConnId) -> Result<SocketAddr, i32> {
    run.driver().peer(of);
    run.next("Peer", |event| match event {
        Event::Peer { conn, result } if *conn == of => Some(*result),
        _ => None,
    })
}

/// Of one that was accepted and of one that was adopted, as often as it is asked for, each time once.
fn the_peers_address_is_told_beside_everything_else<H: Harness>() {
    let mut run = run::<H>();
    let (accepted, mut client) = run.pair();
    let (other, socket) = run.world.socket();
    let adopted = adopted(&mut run, socket, 1).unwrap();
    let (here, there) = (run.world.address(&client), run.world.address(&other));
    run.driver().receive(accepted);
    run.driver().send(accepted, Gather::one(Bytes::from_static(b"!")), 0);
    run.driver().peer(accepted);
    assert_eq!(peer(&mut run, accepted), Ok(here));
    assert_eq!(peer(&mut run, adopted), Ok(there));
    assert_eq!(peer(&mut run, accepted), Ok(here));
    run.settle();
    let more = run.events.iter().filter(|event| matches!(event, Event::Peer { .. })).count();
    assert_eq!(more, 0, "a question while one is under way is the same question");
    assert_eq!(run.client_reads(&mut client, 1), b"!");
    // It does not stand in the way of handing the connection on.
    run.driver().peer(adopted);
    assert!(installed(&mut run, adopted).is_ok());
}

fn the_address_of_a_peer_that_is_gone_is_told_or_refused<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let address = run.world.address(&client);
    run.world.reset(&mut client);
    run.receive_end(conn);
    let told = peer(&mut run, conn);
    assert!(told == Ok(address) || told == Err(libc::ENOTCONN), "{told:?}");
    run.close(conn);
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

fn accepting_stops_and_starts_again<H: Harness>() {
    let mut run = run::<H>();
    let (_, _first) = run.pair();
    run.driver().accept_stop();
    assert_eq!(accept_end(&mut run), AcceptEnd::Stopped);
    run.driver().accept_stop();
    let mut second = run.world.connect();
    run.settle();
    assert!(run.events.is_empty(), "nobody is accepted");
    let conn = run.accepted();
    run.send_all(conn, Gather::one(Bytes::from_static(b"at last")), 0);
    assert_eq!(run.client_reads(&mut second, 7), b"at last");
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

fn buffers_outlive_the_driver<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let sent = pattern(3_000);
    run.world.write(&mut client, &sent);
    run.driver().receive(conn);
    run.until("all bytes", |run| {
        if run.events.iter().any(|event| matches!(event, Event::ReceiveEnded { .. })) {
            run.events.retain(|event| !matches!(event, Event::ReceiveEnded { .. }));
            run.driver().receive(conn);
        }
        run.events_of_bytes() == sent.len()
    });
    run.world.drop_driver();
    let mut received = Vec::new();
    for event in run.events {
        if let Event::Received { mut buf, .. } = event {
            received.extend_from_slice(&buf);
            buf.fill(0);
        }
    }
    assert!(received == sent);
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
