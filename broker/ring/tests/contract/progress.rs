//! How far a connection's output has got: [`ring::Driver::send_progress`] and [`ring::Driver::unsent`], on every
//! driver. What counts is the stream at the client: no byte is missing, and none comes twice, wherever the sends
//! were ended.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ring::{ConnId, Driver, Event, Gather};

use crate::harness::{End, Harness, Run, in_parts, pattern};
use crate::run;

crate::on_every_driver! {
    the_progress_of_a_full_socket_is_zero
    the_progress_of_a_long_send_is_zero_when_the_socket_is_full
    progress_is_what_the_peer_made_room_for
    a_stream_that_is_asked_about_at_every_moment_stays_whole
    a_question_beside_a_send_that_completes_is_answered_once
    a_question_without_a_send_is_none
    a_question_after_a_shutdown_cuts_nothing
    a_question_about_a_broken_connection_is_answered
    a_close_with_both_questions_under_way_reports_closed_only
    a_dropped_driver_ends_its_questions
    unsent_bytes_are_reported_beside_everything_else
    unsent_bytes_become_fewer_as_the_peer_reads
}

/// As long a send as is one operation until it is whole, on real sockets (512 KiB).
fn piece_bytes<H: Harness>() -> usize {
    H::HUGE_BYTES / 48
}

/// Sends in flight, one after the other, of a stream that repeats one piece.
struct Output {
    piece: Gather,
    /// Where in the piece the next send begins.
    from: usize,
    /// Everything that the driver said it took.
    sent: Vec<u8>,
    bytes: Vec<u8>,
}

impl Output {
    fn new(bytes: usize, parts: usize) -> Self {
        let bytes = pattern(bytes);
        Self { piece: in_parts(&bytes, parts), from: 0, sent: Vec::new(), bytes }
    }

    fn send<H: Harness>(&self, run: &mut Run<H>, conn: ConnId) {
        run.driver().send(conn, self.piece.clone(), self.from);
    }

    /// The end of the send that is in flight: how much it took, of how much.
    fn ended(&mut self, result: Result<usize, i32>) -> (usize, usize) {
        let (taken, of) = (result.expect("the send succeeds"), self.bytes.len() - self.from);
        self.sent.extend_from_slice(&self.bytes[self.from..][..taken]);
        self.from = (self.from + taken) % self.bytes.len();
        (taken, of)
    }

    /// Sends, and asks at once.
    fn send_and_ask<H: Harness>(&mut self, run: &mut Run<H>, conn: ConnId) -> (usize, usize) {
        self.send(run, conn);
        run.driver().send_progress(conn);
        self.ended(run.sent(conn))
    }

    /// Sends until the socket takes nothing. Says whether a send ended with some of its bytes.
    fn fill<H: Harness>(&mut self, run: &mut Run<H>, conn: ConnId) -> bool {
        let mut some = false;
        loop {
            match self.send_and_ask(run, conn) {
                (0, _) => return some,
                (taken, of) => some |= taken < of,
            }
            assert!(self.sent.len() < 4 * H::HUGE_BYTES, "a socket that is never full");
        }
    }

    /// Reads all that was sent and compares.
    fn arrives<H: Harness>(&self, run: &mut Run<H>, client: &mut H::Client, mut read: Vec<u8>) {
        let rest = run.client_reads(client, self.sent.len() - read.len());
        read.extend(rest);
        assert!(read == self.sent, "the stream is whole");
        run.settle();
        assert!(run.world.read(client).is_empty(), "nothing came that the driver did not report");
    }
}

fn the_progress_of_a_full_socket_is_zero<H: Harness>() {
    let mut some = false;
    for parts in [1, 3] {
        let mut run = run::<H>();
        let (conn, mut client) = run.pair();
        let mut output = Output::new(piece_bytes::<H>(), parts);
        some |= output.fill(&mut run, conn);
        assert_eq!(run.events_of(conn), 0);
        output.arrives(&mut run, &mut client, Vec::new());
        // The connection is as good as before.
        let (taken, _) = output.send_and_ask(&mut run, conn);
        assert!(taken > 0);
        output.arrives(&mut run, &mut client, output.sent[..output.sent.len() - taken].to_vec());
    }
    assert!(some, "the last send that the socket had room for was taken in part");
}

fn the_progress_of_a_long_send_is_zero_when_the_socket_is_full<H: Harness>() {
    for parts in [1, 3] {
        let mut run = run::<H>();
        let (conn, mut client) = run.pair();
        let mut output = Output::new(H::HUGE_BYTES, parts);
        assert!(output.fill(&mut run, conn), "no socket takes so much");
        output.arrives(&mut run, &mut client, Vec::new());
    }
}

/// A peer that reads a little at a time; the send is asked about while it waits.
fn progress_is_what_the_peer_made_room_for<H: Harness>() {
    for parts in [1, 3] {
        let mut run = run::<H>();
        let (conn, mut client) = run.pair();
        let mut output = Output::new(piece_bytes::<H>(), parts);
        output.fill(&mut run, conn);
        let (full, mut read) = (output.sent.len(), Vec::new());
        let (mut rounds, mut some) = (0, 0);
        while some < 3 {
            output.send(&mut run, conn);
            let wanted = read.len() + piece_bytes::<H>() / 3;
            run.until("the client's reading", |run| {
                read.extend(run.world.read_some(&mut client, wanted - read.len()));
                read.len() == wanted || read.len() == output.sent.len()
            });
            run.driver().send_progress(conn);
            let (taken, of) = output.ended(run.sent(conn));
            some += usize::from(0 < taken && taken < of);
            rounds += 1;
            assert!(rounds < 1_000, "no progress of a send in {rounds} rounds");
        }
        assert!(output.sent.len() > full);
        output.arrives(&mut run, &mut client, read);
    }
}

/// Sends of all lengths, from anywhere in their gather, questions and reading in an order that one number decides.
fn a_stream_that_is_asked_about_at_every_moment_stays_whole<H: Harness>() {
    for round in 0..if H::WAITS { 6 } else { 2 } {
        let mut run = run::<H>();
        let (conn, mut client) = run.pair();
        let mut state: u64 = 0x2545_f491_4f6c_dd1d ^ round;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let piece = piece_bytes::<H>();
        // Longer than the longest that is one operation, too.
        let mut output = Output::new(piece + piece / 2 * (round as usize % 2), 1 + below(7));
        let (mut read, mut in_flight, mut zeros, mut some) = (Vec::new(), false, 0, 0);
        while output.sent.len() < H::HUGE_BYTES {
            if !in_flight {
                in_flight = true;
                output.send(&mut run, conn);
            }
            match below(8) {
                0 | 1 => run.turn(),
                2 => run.world.driver().turn(None, &mut run.events).unwrap(),
                3 => read.extend(run.world.read_some(&mut client, below(piece))),
                _ => run.driver().send_progress(conn),
            }
            let sent = run.events.iter().position(|event| matches!(event, Event::Sent { .. }));
            if let Some(at) = sent {
                let Event::Sent { result, from, .. } = run.events.remove(at) else { unreachable!() };
                assert_eq!(from, output.from);
                let (taken, of) = output.ended(result);
                zeros += usize::from(taken == 0);
                some += usize::from(0 < taken && taken < of);
                in_flight = false;
            }
        }
        if in_flight {
            run.driver().send_progress(conn);
            output.ended(run.sent(conn));
        }
        assert!(zeros > 0 && some > 0, "{zeros} questions were answered with 0, {some} with some of the bytes");
        output.arrives(&mut run, &mut client, read);
    }
}

/// The socket has room, so the send is over when the question reaches it, or nearly so.
fn a_question_beside_a_send_that_completes_is_answered_once<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let gather = in_parts(&pattern(900), 2);
    for round in 0..60 {
        run.driver().send(conn, gather.clone(), 0);
        if round % 3 == 1 {
            run.turn();
        }
        run.driver().send_progress(conn);
        run.driver().send_progress(conn);
        if round % 3 == 2 {
            run.turn();
            run.driver().send_progress(conn);
        }
        let sent = run.sent(conn).unwrap();
        // Not asked about: the questions from before do not reach it.
        if sent < gather.len() {
            run.send_all(conn, gather.clone(), sent);
        }
        run.driver().send(conn, gather.clone(), 0);
        let sent = run.sent(conn).unwrap();
        assert!(sent > 0);
        if sent < gather.len() {
            run.send_all(conn, gather.clone(), sent);
        }
        run.client_reads(&mut client, 2 * gather.len());
    }
    run.settle();
    assert_eq!(run.events_of(conn), 0);
}

fn a_question_without_a_send_is_none<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.settle();
    run.events.clear();
    run.driver().send_progress(conn);
    run.settle();
    assert_eq!(run.events_of(conn), 0);
    run.send_all(conn, Gather::one(Bytes::from_static(b"one")), 0);
    run.driver().send_progress(conn);
    run.driver().send(conn, Gather::one(Bytes::from_static(b"two")), 0);
    let sent = run.sent(conn).unwrap();
    assert!(sent > 0, "the question came before the send");
    if sent < 3 {
        run.send_all(conn, Gather::one(Bytes::from_static(b"two")), sent);
    }
    run.settle();
    assert_eq!(run.events_of(conn), 0);
    assert_eq!(run.client_reads(&mut client, 6), b"onetwo");
}

/// The last send before the end of the stream goes out as if nobody had asked.
fn a_question_after_a_shutdown_cuts_nothing<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let mut output = Output::new(piece_bytes::<H>(), 2);
    output.fill(&mut run, conn);
    output.send(&mut run, conn);
    run.driver().shutdown(conn);
    run.driver().send_progress(conn);
    run.settle();
    run.driver().send_progress(conn);
    run.settle();
    // The buffers of a real socket may have grown meanwhile.
    assert!(H::WAITS || run.events_of(conn) == 0, "the socket is full, and the send waits");
    let mut read = Vec::new();
    run.until("the client's end", |run| {
        read.extend(run.world.read(&mut client));
        run.world.end(&mut client).is_some()
    });
    let (taken, of) = output.ended(run.sent(conn));
    assert!(if H::WAITS { taken == of } else { taken > 0 }, "{taken} of {of}");
    assert!(read == output.sent);
    assert_eq!(run.world.end(&mut client), Some(End::Stream));
}

fn a_question_about_a_broken_connection_is_answered<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let mut output = Output::new(piece_bytes::<H>(), 1);
    output.fill(&mut run, conn);
    output.send(&mut run, conn);
    run.turn();
    run.world.reset(&mut client);
    let error = (0..10).find_map(|_| {
        run.driver().send_progress(conn);
        let result = run.sent(conn);
        output.send(&mut run, conn);
        result.err()
    });
    assert!(matches!(error, Some(libc::EPIPE | libc::ECONNRESET)), "{error:?}");
    // What the send queue of a broken connection holds is not specified, but there is an answer.
    let _answer: Result<usize, i32> = unsent(&mut run, conn);
    run.close(conn);
}

fn a_close_with_both_questions_under_way_reports_closed_only<H: Harness>() {
    for turns in 0..3 {
        let mut run = run::<H>();
        let (conn, mut client) = run.pair();
        run.driver().send(conn, Gather::one(pattern(H::HUGE_BYTES).into()), 0);
        if turns > 0 {
            run.turn();
        }
        run.events.clear();
        let driver = run.driver();
        driver.unsent(conn);
        // In the third round the send was short, as the socket is full, so there is none to ask about.
        driver.send_progress(conn);
        if turns > 1 {
            run.turn();
            run.events.clear();
        }
        run.close(conn);
        run.settle();
        assert_eq!(run.events_of(conn), 0);
        run.client_end(&mut client);
        assert_eq!(run.driver().counters().stale, 0);
    }
}

fn a_dropped_driver_ends_its_questions<H: Harness>() {
    let mut run = run::<H>();
    let mut pairs: Vec<_> = (0..6).map(|_| run.pair()).collect();
    for (conn, _) in &pairs {
        let mut output = Output::new(piece_bytes::<H>(), 1);
        output.fill(&mut run, *conn);
        output.send(&mut run, *conn);
    }
    run.turn();
    for (conn, _) in &pairs {
        run.driver().send_progress(*conn);
        run.driver().unsent(*conn);
    }
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

fn unsent<H: Harness>(run: &mut Run<H>, of: ConnId) -> Result<usize, i32> {
    run.driver().unsent(of);
    run.next("Unsent", |event| match event {
        Event::Unsent { conn, result } if *conn == of => Some(*result),
        _ => None,
    })
}

/// Each question is answered once, and two are one while the first is under way.
fn unsent_bytes_are_reported_beside_everything_else<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    assert_eq!(unsent(&mut run, conn), Ok(0));
    run.driver().receive(conn);
    run.driver().unsent(conn);
    run.driver().peer(conn);
    assert_eq!(unsent(&mut run, conn), Ok(0));
    run.settle();
    let more = run.events.iter().filter(|event| matches!(event, Event::Unsent { .. })).count();
    assert_eq!(more, 0);
    run.send_all(conn, Gather::one(Bytes::from_static(b"!")), 0);
    assert_eq!(run.client_reads(&mut client, 1), b"!");
    run.until("the acknowledgement", |run| unsent(run, conn) == Ok(0));
}

fn unsent_bytes_become_fewer_as_the_peer_reads<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let mut output = Output::new(H::HUGE_BYTES, 1);
    output.fill(&mut run, conn);
    run.settle();
    let full = unsent(&mut run, conn).unwrap();
    assert!(0 < full && full <= output.sent.len(), "{full} of {}", output.sent.len());
    let again = unsent(&mut run, conn).unwrap();
    assert!(0 < again && again <= full, "nobody reads: {again} of {full}");
    // What the kernel did not take of a send is not in the socket's queue.
    output.send(&mut run, conn);
    run.settle();
    let waiting = unsent(&mut run, conn).unwrap();
    run.driver().send_progress(conn);
    let (taken, of) = output.ended(run.sent(conn));
    assert!(taken < of && waiting <= full + taken, "{waiting} after {full} and {taken} of {of}");
    let mut read = Vec::new();
    run.until("the half of it", |run| {
        read.extend(run.world.read_some(&mut client, piece_bytes::<H>()));
        unsent(run, conn).unwrap() <= full / 2
    });
    assert!(read.len() < output.sent.len());
    read.extend(run.client_reads(&mut client, output.sent.len() - read.len()));
    run.until("the acknowledgement of all", |run| unsent(run, conn) == Ok(0));
    assert!(read == output.sent);
}
