//! The contract of [`ring::Dial`], case by case, over loopback TCP. The peers are ordinary blocking sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ring::{ConnId, Dial, Driver, Event, Gather, ReceiveEnd, limits, listen};

use crate::harness::{Harness, Options, Run, in_parts, pattern};

/// A peer that waits longer has found a fault.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener, and what was dialled to it.
struct Far {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Far {
    fn new() -> Self {
        Self::at("127.0.0.1:0")
    }

    fn at(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        Self { listener, addr }
    }

    fn peer(&self) -> TcpStream {
        let peer = self.listener.accept().unwrap().0;
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.set_write_timeout(Some(PATIENCE)).unwrap();
        peer
    }
}

fn start<H: Harness<Driver: Dial>>() -> Run<H> {
    Run::new(Options::default())
}

fn dialled<H: Harness<Driver: Dial>>(run: &mut Run<H>, of: u64) -> Result<ConnId, i32> {
    run.next("Dialled", |event| match event {
        Event::Dialled { token, result } if *token == of => Some(*result),
        _ => None,
    })
}

fn dial<H: Harness<Driver: Dial>>(run: &mut Run<H>, to: SocketAddr, source: Option<&str>) -> Result<ConnId, i32> {
    run.driver().dial(to, source.map(|source| source.parse().unwrap()), 7);
    dialled(run, 7)
}

fn pair<H: Harness<Driver: Dial>>(run: &mut Run<H>) -> (ConnId, TcpStream) {
    let far = Far::new();
    let conn = dial(run, far.addr, None).unwrap();
    (conn, far.peer())
}

/// Counts what is thrown away until it is `bytes`. Starts again whenever the discarding ended but may go on.
fn discarded<H: Harness<Driver: Dial>>(run: &mut Run<H>, of: ConnId, bytes: u64) {
    let mut count = 0;
    while count < bytes {
        let got = run.next("Discarded", |event| match event {
            Event::Discarded { conn, bytes } if *conn == of => Some(Ok(*bytes)),
            Event::ReceiveEnded { conn, end } if *conn == of => Some(Err(*end)),
            _ => None,
        });
        match got {
            Ok(0) => panic!("a Discarded has at least one byte"),
            Ok(more) => count += u64::from(more),
            Err(ReceiveEnd::Stopped | ReceiveEnd::NoBuffers) => run.driver().discard(of),
            Err(end) => panic!("{end:?} after {count} of {bytes} bytes"),
        }
    }
    assert_eq!(count, bytes);
}

fn receive_ended<H: Harness<Driver: Dial>>(run: &mut Run<H>, of: ConnId) -> ReceiveEnd {
    run.next("ReceiveEnded", |event| match event {
        Event::ReceiveEnded { conn, end } if *conn == of => Some(*end),
        _ => None,
    })
}

fn read_to_end(peer: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match peer.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection is still open: {error}"),
    }
    bytes
}

pub(crate) fn a_dialled_connection_is_like_an_accepted_one<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    let (conn, mut peer) = pair(&mut run);
    peer.write_all(b"hello").unwrap();
    assert_eq!(run.receive_exactly(conn, 5), b"hello");
    let bytes = pattern(100_000);
    for parts in [1, 3] {
        run.send_all(conn, in_parts(&bytes, parts), 0);
        let mut read = vec![0; bytes.len()];
        peer.read_exact(&mut read).unwrap();
        assert!(read == bytes);
    }
    run.driver().shutdown(conn);
    run.turn();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    peer.write_all(b"noted").unwrap();
    assert_eq!(run.receive_exactly(conn, 5), b"noted");
    run.close(conn);
    run.driver().close(conn);
    run.settle();
    assert_eq!(run.events_of(conn), 0);
    assert_eq!(run.driver().counters().stale, 1, "the second close");
}

pub(crate) fn a_dial_goes_out_by_ipv6<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    let far = Far::at("[::1]:0");
    let conn = dial(&mut run, far.addr, Some("[::1]:0")).unwrap();
    let mut peer = far.peer();
    run.send_all(conn, Gather::one(Bytes::from_static(b"six")), 0);
    run.close(conn);
    assert_eq!(read_to_end(&mut peer), b"six");
}

pub(crate) fn a_dialled_socket_is_prompt_and_never_blocks<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    for source in [None, Some("127.0.0.1:0")] {
        let far = Far::new();
        let conn = dial(&mut run, far.addr, source).unwrap();
        let mut peer = far.peer();
        run.driver().install(conn);
        let socket = run.next("Installed", |event| match event {
            Event::Installed { .. } => {
                let Event::Installed { result, .. } = std::mem::replace(event, Event::Woken) else { unreachable!() };
                Some(result.expect("this kernel installs"))
            }
            _ => None,
        });
        run.close(conn);
        let mut socket = TcpStream::from(socket);
        assert!(socket.nodelay().unwrap());
        assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        socket.write_all(b"still here").unwrap();
        drop(socket);
        assert_eq!(read_to_end(&mut peer), b"still here");
    }
}

pub(crate) fn a_refused_dial_leaves_nothing<H: Harness<Driver: Dial>>() {
    let mut run = Run::<H>::new(Options { capacity: 1, ..Options::default() });
    let nobody = Far::new().addr;
    for source in [None, Some("127.0.0.2:0")] {
        for _ in 0..5 {
            assert_eq!(dial(&mut run, nobody, source), Err(libc::ECONNREFUSED));
        }
    }
    let (conn, mut peer) = pair(&mut run);
    run.close(conn);
    assert_eq!(read_to_end(&mut peer), b"");
    run.settle();
    assert!(run.events.is_empty(), "a failed dial is reported once and closes nothing");
    assert_eq!(run.driver().counters().stale, 0);
}

pub(crate) fn a_dial_goes_out_from_its_source<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    let far = Far::new();
    let free_port = Far::at("127.0.0.9:0").addr;
    for source in ["127.0.0.8:0".parse().unwrap(), "127.7.7.7:0".parse().unwrap(), free_port] {
        run.driver().dial(far.addr, Some(source), 1);
        dialled(&mut run, 1).unwrap();
        let from = far.peer().peer_addr().unwrap();
        assert_eq!(from.ip(), source.ip());
        assert!(source.port() == 0 || from.port() == source.port());
    }
}

pub(crate) fn a_source_of_somebody_else_is_refused<H: Harness<Driver: Dial>>() {
    let mut run = Run::<H>::new(Options { capacity: 1, ..Options::default() });
    let far = Far::new();
    assert_eq!(dial(&mut run, far.addr, Some("192.0.2.1:0")), Err(libc::EADDRNOTAVAIL));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    assert_eq!(dial(&mut run, far.addr, Some(&taken.to_string())), Err(libc::EADDRINUSE));
    assert!(dial(&mut run, far.addr, Some("127.0.0.1:0")).is_ok(), "the only place is free again");
}

pub(crate) fn a_full_table_dials_nothing<H: Harness<Driver: Dial>>() {
    let mut run = Run::<H>::new(Options { capacity: 3, ..Options::default() });
    let far = Far::new();
    for token in 0..5 {
        run.driver().dial(far.addr, None, token);
    }
    let results: Vec<_> = (0..5).map(|token| dialled(&mut run, token)).collect();
    let refused = results.iter().filter(|result| **result == Err(libc::ENFILE)).count();
    assert_eq!(refused, 2, "{results:?}");
    let mut conns: Vec<_> = results.into_iter().flatten().collect();
    let closed = conns.pop().unwrap();
    run.close(closed);
    let conn = dial(&mut run, far.addr, None).expect("a place is free");
    assert_eq!((conn.slot, conn.generation), (closed.slot, closed.generation + 1));
    conns.push(conn);
    assert_eq!(conns.len(), 3);
}

pub(crate) fn one_receive_is_one_receive<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    let (conn, mut peer) = pair(&mut run);
    for round in 0..3 {
        run.driver().receive_once(conn);
        run.driver().receive_once(conn);
        run.driver().receive(conn);
        run.turn();
        peer.write_all(b"once").unwrap();
        let bytes = run.next("Received", |event| match event {
            Event::Received { conn: of, buf } if *of == conn => Some(buf.to_vec()),
            _ => None,
        });
        assert_eq!(bytes, b"once");
        assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::Stopped);
        peer.write_all(b"again").unwrap();
        run.settle();
        assert_eq!(run.events_of(conn), 0, "nothing is received in round {round} once the receive has ended");
        assert_eq!(run.receive_exactly(conn, 5), b"again");
        run.driver().receive_stop(conn);
        assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::Stopped);
    }
    assert_eq!(run.driver().counters().multishots_ended, 0);
    run.driver().receive_once(conn);
    run.turn();
    run.driver().receive_stop(conn);
    assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::Stopped);
    peer.shutdown(Shutdown::Write).unwrap();
    run.driver().receive_once(conn);
    assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::EndOfStream);
}

pub(crate) fn one_receive_without_buffers_says_so<H: Harness<Driver: Dial>>() {
    let mut run = Run::<H>::new(Options { buffers: 1, buffer_bytes: 16, ..Options::default() });
    let (conn, mut peer) = pair(&mut run);
    peer.write_all(&pattern(20)).unwrap();
    run.driver().receive_once(conn);
    assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::Stopped);
    run.driver().receive_once(conn);
    assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::NoBuffers, "the first buffer is still lent out");
    run.events.clear();
    run.turn();
    assert_eq!(run.receive_exactly(conn, 4), &pattern(20)[16..]);
}

pub(crate) fn discards_count_every_byte<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    let (conn, mut peer) = pair(&mut run);
    run.driver().discard(conn);
    run.driver().discard(conn);
    run.driver().receive(conn);
    for len in [1, 2, 15, 16, 17, 100, 2_047, 2_048, 2_049, 4_096, 65_535, 65_536, 65_537, 200_000] {
        let bytes = pattern(len);
        let writing = std::thread::scope(|scope| {
            let writing = scope.spawn(|| peer.write_all(&bytes));
            discarded(&mut run, conn, len as u64);
            writing.join().unwrap()
        });
        writing.unwrap();
    }
    run.settle();
    assert_eq!(run.events_of(conn), 0);
}

pub(crate) fn discards_keep_up_with_a_flood<H: Harness<Driver: Dial>>() {
    const PEERS: u64 = 8;
    const BYTES: usize = 32 << 20;
    let mut run = start::<H>();
    let pairs: Vec<_> = (0..PEERS).map(|_| pair(&mut run)).collect();
    let (conns, mut peers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    for conn in &conns {
        run.driver().discard(*conn);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = pattern(1 << 20);
            for _ in 0..BYTES / chunk.len() {
                for peer in &mut peers {
                    peer.write_all(&chunk).unwrap();
                }
            }
        });
        let (mut count, begun) = (0, Instant::now());
        while count < PEERS * BYTES as u64 {
            run.turn();
            assert!(begun.elapsed() < Duration::from_secs(30), "{count} bytes came");
            for event in std::mem::take(&mut run.events) {
                match event {
                    Event::Discarded { bytes, .. } => count += u64::from(bytes),
                    Event::ReceiveEnded { conn, end: ReceiveEnd::Stopped | ReceiveEnd::NoBuffers } => {
                        run.driver().discard(conn);
                    }
                    _ => panic!("nothing else happens"),
                }
            }
        }
        assert_eq!(count, PEERS * BYTES as u64);
    });
}

pub(crate) fn a_discard_sees_the_end_of_the_stream<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    let (conn, mut peer) = pair(&mut run);
    run.driver().discard(conn);
    peer.write_all(b"goodbye").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    discarded(&mut run, conn, 7);
    assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::EndOfStream);
    run.send_all(conn, Gather::one(Bytes::from_static(b"still here")), 0);
    run.close(conn);
    assert_eq!(read_to_end(&mut peer), b"still here");
}

pub(crate) fn a_discard_stops_and_a_receive_follows<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    let (conn, mut peer) = pair(&mut run);
    for _ in 0..3 {
        run.driver().discard(conn);
        peer.write_all(b"noise").unwrap();
        discarded(&mut run, conn, 5);
        run.driver().receive_stop(conn);
        assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::Stopped);
        peer.write_all(b"signal").unwrap();
        assert_eq!(run.receive_exactly(conn, 6), b"signal");
        run.driver().receive_stop(conn);
        assert_eq!(receive_ended(&mut run, conn), ReceiveEnd::Stopped);
    }
}

pub(crate) fn a_close_with_a_discard_in_flight_reports_closed_only<H: Harness<Driver: Dial>>() {
    let mut run = start::<H>();
    for written in [0, 1, 300_000] {
        let (conn, mut peer) = pair(&mut run);
        peer.write_all(&pattern(written)).unwrap();
        run.driver().discard(conn);
        run.turn();
        run.events.clear();
        run.driver().close(conn);
        run.closed(conn);
        run.settle();
        assert_eq!(run.events_of(conn), 0);
        assert_eq!(read_to_end(&mut peer), b"");
    }
}

pub(crate) fn a_stale_id_receives_nothing<H: Harness<Driver: Dial>>() {
    let mut run = Run::<H>::new(Options { capacity: 1, ..Options::default() });
    let (old, _) = pair(&mut run);
    run.close(old);
    let (new, mut peer) = pair(&mut run);
    let elsewhere = ConnId { slot: 7_000_000, generation: 0 };
    for conn in [old, elsewhere] {
        run.driver().receive_once(conn);
        run.driver().discard(conn);
    }
    peer.write_all(b"you").unwrap();
    run.settle();
    assert_eq!(run.driver().counters().stale, 4);
    assert_eq!(run.events_of(old) + run.events_of(new), 0);
    assert_eq!(run.receive_exactly(new, 3), b"you");
}

/// Most of these dials are still under way: the listener's queue is full.
pub(crate) fn a_dropped_driver_ends_its_dials<H: Harness<Driver: Dial>>() {
    for turns in 0..4 {
        let mut run = start::<H>();
        let listener = listen::tcp("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let addr = listen::local_addr(&listener).unwrap();
        for token in 0..20 {
            run.driver().dial(addr, (token % 2 == 0).then(|| "127.0.0.3:0".parse().unwrap()), token);
        }
        for _ in 0..turns {
            run.turn();
        }
        let begun = Instant::now();
        run.world.drop_driver();
        assert!(begun.elapsed() < Duration::from_secs(1), "the driver waited for its dials");
        let listener = TcpListener::from(listener);
        while let Ok((mut peer, _)) = listener.accept() {
            peer.set_nonblocking(false).unwrap();
            assert_eq!(read_to_end(&mut peer), b"");
        }
    }
}

pub(crate) fn five_thousand_dials_all_stand<H: Harness<Driver: Dial>>() {
    const DIALS: u64 = 5_000;
    const AT_ONCE: u64 = 100;
    limits::raise_descriptors();
    let mut run = Run::<H>::new(Options { capacity: DIALS as u32, ..Options::default() });
    let far = Far::new();
    // In another order: the connection that the listener accepts first need not be the dial that is reported first.
    let (mut conns, mut peers) = (Vec::new(), Vec::new());
    for first in (0..DIALS).step_by(AT_ONCE as usize) {
        for token in first..first + AT_ONCE {
            let source = SocketAddr::from(([127, 0, 1, (token % 4) as u8 + 1], 0));
            run.driver().dial(far.addr, (token % 5 > 0).then_some(source), token);
        }
        for token in first..first + AT_ONCE {
            let conn = dialled(&mut run, token).unwrap();
            run.driver().send(conn, Gather::one(Bytes::copy_from_slice(&token.to_be_bytes())), 0);
            run.driver().discard(conn);
            conns.push(conn);
            peers.push(far.peer());
        }
    }
    for conn in &conns {
        assert_eq!(run.sent(*conn), Ok(8));
    }
    assert!(run.events.is_empty(), "nothing else has happened");
    let mut tokens: Vec<_> = peers
        .iter_mut()
        .map(|peer| {
            let mut token = [0; 8];
            peer.read_exact(&mut token).unwrap();
            peer.write_all(&token).unwrap();
            u64::from_be_bytes(token)
        })
        .collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..DIALS));
    for conn in &conns {
        discarded(&mut run, *conn, 8);
        run.driver().close(*conn);
    }
    for conn in &conns {
        run.closed(*conn);
    }
    for peer in &mut peers {
        assert_eq!(read_to_end(peer), b"");
    }
    assert_eq!(run.driver().counters().stale, 0);
}
