//! The contract of a receive: order, ends, buffers that run out.

use bytes::Bytes;
use ring::{Driver, Event, Gather, ReceiveEnd};

use crate::harness::{Harness, Options, Run, pattern};
use crate::run;

crate::on_every_driver! {
    bytes_are_received_in_order
    received_bytes_are_writable_in_place
    a_receive_stops_and_starts_again
    a_receive_that_stops_over_and_over_loses_nothing
    what_came_before_the_receive_is_received
    a_second_receive_is_no_second_receive
    the_end_of_the_stream_is_reported
    the_end_of_the_stream_is_reported_to_every_receive
    a_reset_is_reported
    without_buffers_the_receive_ends_and_goes_on_later
    buffers_outlive_the_driver
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

fn the_end_of_the_stream_is_reported<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"last words");
    run.world.half_close(&mut client);
    assert_eq!(run.receive_exactly(conn, 10), b"last words");
    assert_eq!(run.receive_end(conn), ReceiveEnd::EndOfStream);
    run.send_all(conn, Gather::one(Bytes::from_static(b"still here")), 0);
    assert_eq!(run.client_reads(&mut client, 10), b"still here");
}

fn the_end_of_the_stream_is_reported_to_every_receive<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.half_close(&mut client);
    for _ in 0..3 {
        assert_eq!(run.receive_end(conn), ReceiveEnd::EndOfStream);
        run.settle();
    }
}

fn a_reset_is_reported<H: Harness>() {
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

impl<H: Harness> Run<H> {
    fn events_of_bytes(&self) -> usize {
        let len = |event: &Event<<H::Driver as Driver>::Buf>| match event {
            Event::Received { buf, .. } => buf.len(),
            _ => 0,
        };
        self.events.iter().map(len).sum()
    }
}
