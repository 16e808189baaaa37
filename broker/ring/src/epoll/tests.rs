//! What only this driver does: edges that must not be lost, shares, the limits of a process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use super::*;
use crate::ReceiveEnd;
use crate::testing::{accepted, collect, listener, turn};

fn driver(setup: Setup) -> (EpollDriver, SocketAddr) {
    let (listener, addr) = listener();
    let mut driver = EpollDriver::new(Setup { listener: Some(listener.into()), ..setup }).unwrap();
    driver.accept();
    (driver, addr)
}

/// Bytes received from `of`, until there are `count`.
fn received(driver: &mut EpollDriver, of: ConnId, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    driver.receive(of);
    while bytes.len() < count {
        let more = collect(driver, 1, |_, event| match event {
            Event::Received { conn, buf } if conn == of => Some(buf.to_vec()),
            _ => None,
        });
        bytes.extend(more.concat());
    }
    bytes
}

#[test]
fn a_burst_of_peers_is_accepted_in_shares() {
    let (mut driver, addr) = driver(Setup::default());
    let clients: Vec<_> = (0..200).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut shares = Vec::new();
    while shares.iter().sum::<usize>() < clients.len() {
        shares.push(turn(&mut driver).len());
    }
    assert_eq!(shares, [64, 64, 64, 8]);
    assert!(turn(&mut driver).is_empty());
}

/// One peer sends more than the buffers ever hold, eight send a byte each.
#[test]
fn endless_input_starves_nobody() {
    for receive_buffers in [1, 2, 5, 32] {
        let (mut driver, addr) = driver(Setup { receive_buffers, receive_buffer_bytes: 64, ..Setup::default() });
        let mut greedy = TcpStream::connect(addr).unwrap();
        let mut clients: Vec<_> = (0..8).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let conns = accepted(&mut driver, 9);
        greedy.write_all(&[0; 100_000]).unwrap();
        clients.iter_mut().for_each(|client| client.write_all(b"!").unwrap());
        conns.iter().for_each(|conn| driver.receive(*conn));
        let mut endless = 0;
        collect(&mut driver, 8, |driver, event| match event {
            Event::Received { conn, buf } if conn == conns[0] => {
                endless += buf.len();
                None
            }
            Event::Received { buf, .. } => (*buf == *b"!").then_some(()),
            Event::ReceiveEnded { conn, end } => {
                assert_eq!(end, ReceiveEnd::NoBuffers);
                driver.receive(conn);
                None
            }
            _ => None,
        });
        assert!(endless < 100_000 / 8, "{endless} bytes came first, with {receive_buffers} buffers");
    }
}

/// `recv` stops at the mark although there is more behind it (tcp(7), urgent data).
#[test]
fn bytes_behind_an_urgent_mark_are_received() {
    let (mut driver, addr) = driver(Setup::default());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = accepted(&mut driver, 1)[0];
    client.write_all(b"before").unwrap();
    // SAFETY: the kernel reads the one byte, which lives through the call.
    let sent = unsafe { libc::send(client.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    client.write_all(b"behind").unwrap();
    assert_eq!(received(&mut driver, conn, 12), b"beforebehind");
}

/// The registration belongs to the socket, not to the descriptor that is closed.
#[test]
fn an_installed_socket_is_no_longer_registered() {
    let (mut driver, addr) = driver(Setup::default());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = accepted(&mut driver, 1)[0];
    driver.install(conn);
    let socket = collect(&mut driver, 1, |_, event| match event {
        Event::Installed { result, .. } => Some(result.unwrap()),
        _ => None,
    });
    driver.close(conn);
    collect(&mut driver, 1, |_, event| matches!(event, Event::Closed { .. }).then_some(()));
    client.write_all(b"for somebody else").unwrap();
    let before = driver.counters();
    assert!(turn(&mut driver).is_empty());
    let after = driver.counters();
    assert_eq!((after.stale, after.enters), (before.stale, before.enters + 1), "one wait, and it found nothing");
    drop(socket);
}

/// Operations need no `epoll_ctl`, and bytes that fill no buffer no second `recv`.
#[test]
fn an_echo_costs_one_recv_and_one_send() {
    let (mut driver, addr) = driver(Setup::default());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = accepted(&mut driver, 1)[0];
    driver.receive(conn);
    assert!(turn(&mut driver).is_empty());
    for _ in 0..10 {
        let before = driver.counters().enters;
        client.write_all(b"echo").unwrap();
        let events = turn(&mut driver);
        assert!(matches!(&events[..], [Event::Received { buf, .. }] if &**buf == b"echo"), "{events:?}");
        drop(events);
        driver.send(conn, Gather::one(bytes::Bytes::from_static(b"echo")), 0);
        let events = turn(&mut driver);
        assert!(matches!(&events[..], [Event::Sent { result: Ok(4), .. }]), "{events:?}");
        client.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(driver.counters().enters - before, 4, "two waits, one recv, one send");
    }
}

#[test]
fn a_table_beyond_the_limit_is_refused_with_the_figure() {
    let Err(error) = EpollDriver::new(Setup { capacity: u32::MAX, ..Setup::default() }) else {
        panic!("no process may open that many");
    };
    assert!(error.to_string().contains("ulimit -n 4294967298"), "{error}");
}

#[test]
fn without_a_listener_accepting_ends_at_once() {
    let mut driver = EpollDriver::new(Setup::default()).unwrap();
    driver.accept();
    let events = turn(&mut driver);
    assert!(matches!(&events[..], [Event::AcceptEnded { end: AcceptEnd::Failed(libc::EBADF) }]), "{events:?}");
}
