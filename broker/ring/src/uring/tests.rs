//! What only the real driver does: other kernels, small queues, limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ptr;
use std::sync::Arc;

use io_uring::types::{Fd, Fixed};
use io_uring::{opcode, squeue};

use super::tag::Kind;
use super::*;
use crate::testing::{accepted, collect, listener, turn};
use crate::{AcceptEnd, Dial, Driver, ReceiveEnd, listen};

fn driver(setup: Setup) -> (UringDriver, SocketAddr) {
    let (listener, addr) = listener();
    let mut driver = UringDriver::new(Setup { listener: Some(listener.into()), ..setup }).unwrap();
    driver.accept();
    (driver, addr)
}

#[test]
fn a_close_on_an_older_kernel_shuts_down_first() {
    let (mut driver, addr) = driver(Setup { capacity: 4, ..Setup::default() });
    driver.features.prompt_close = false;
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = accepted(&mut driver, 1)[0];
    driver.receive(conn);
    driver.close(conn);
    collect(&mut driver, 1, |_, event| matches!(event, Event::Closed { .. }).then_some(()));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// Before Linux 6.13 a close shuts down first; the descriptor that was made of the socket must not notice.
#[test]
fn a_close_on_an_older_kernel_leaves_an_installed_socket_alone() {
    let (mut driver, addr) = driver(Setup { capacity: 4, ..Setup::default() });
    driver.features.prompt_close = false;
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = accepted(&mut driver, 1)[0];
    driver.install(conn);
    let socket = collect(&mut driver, 1, |_, event| match event {
        Event::Installed { result, .. } => Some(result.unwrap()),
        _ => None,
    });
    driver.close(conn);
    collect(&mut driver, 1, |_, event| matches!(event, Event::Closed { .. }).then_some(()));
    let mut socket = TcpStream::from(socket.into_iter().next().unwrap());
    client.write_all(b"GET").unwrap();
    socket.set_nonblocking(false).unwrap();
    let mut bytes = [0; 3];
    socket.read_exact(&mut bytes).unwrap();
    socket.write_all(b"200").unwrap();
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"200");
}

#[test]
fn without_the_operation_install_says_so() {
    let (mut driver, addr) = driver(Setup::default());
    driver.features.install = false;
    let _client = TcpStream::connect(addr).unwrap();
    let conn = accepted(&mut driver, 1)[0];
    driver.install(conn);
    let errors = collect(&mut driver, 1, |_, event| match event {
        Event::Installed { result, .. } => Some(result.unwrap_err().raw_os_error()),
        _ => None,
    });
    assert_eq!(errors, [Some(libc::EOPNOTSUPP)]);
}

#[test]
fn a_table_beyond_the_limit_is_refused_with_the_figure() {
    let Err(error) = UringDriver::new(Setup { capacity: u32::MAX, ..Setup::default() }) else {
        panic!("no process may open that many");
    };
    assert!(error.to_string().contains("ulimit -n 4294967295"), "{error}");
}

/// 200 connections have bytes for a queue of 8 completions.
#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    let (mut driver, addr) = driver(Setup { submission_entries: 1, receive_buffers: 256, ..Setup::default() });
    let mut clients: Vec<_> = (0..200).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut conns = Vec::new();
    while conns.len() < clients.len() {
        conns.extend(accepted(&mut driver, 1));
        driver.accept();
    }
    for conn in &conns {
        driver.receive(*conn);
    }
    for round in 0..10u8 {
        for client in &mut clients {
            client.write_all(&[round]).unwrap();
        }
        let mut received = collect(&mut driver, clients.len(), |driver, event| match event {
            Event::Received { conn, buf } => {
                assert_eq!(&*buf, [round]);
                Some(conn)
            }
            Event::ReceiveEnded { conn, end } => {
                assert!(matches!(end, ReceiveEnd::Stopped | ReceiveEnd::NoBuffers), "{end:?}");
                driver.receive(conn);
                None
            }
            _ => None,
        });
        received.sort();
        received.dedup();
        assert_eq!(received.len(), clients.len());
    }
}

/// A thousand sends in one turn, for a queue of 4 operations and 32 completions.
#[test]
fn a_burst_of_sends_overflows_nothing() {
    let (mut driver, addr) = driver(Setup { submission_entries: 4, ..Setup::default() });
    let mut clients: Vec<_> = (0..1_000).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut conns = Vec::new();
    while conns.len() < clients.len() {
        conns.extend(accepted(&mut driver, 1));
        driver.accept();
    }
    let before = driver.counters();
    let gather = Gather::one(bytes::Bytes::from_static(b"tick"));
    for conn in &conns {
        driver.send(*conn, gather.clone(), 0);
    }
    let sent = collect(&mut driver, conns.len(), |_, event| match event {
        Event::Sent { result, .. } => Some(result),
        _ => None,
    });
    assert!(sent.iter().all(|result| *result == Ok(4)));
    for client in &mut clients {
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"tick");
    }
    let after = driver.counters();
    assert!(after.submission_full >= before.submission_full + 240);
    assert_eq!(after.completion_overflows, before.completion_overflows);
}

/// A listener for both families calls an IPv4 peer by a mapped address; a socket of the other family, adopted, is
/// called by its own.
#[test]
fn peers_of_both_families_are_named() {
    for (listens, families) in [("127.0.0.1:0", "4"), ("[::1]:0", "6"), ("[::]:0", "46")] {
        let listener = listen::group(listens.parse().unwrap(), 1).unwrap().pop().unwrap();
        let port = listen::local_addr(&listener).unwrap().port();
        let mut driver = UringDriver::new(Setup { listener: Some(listener.into()), ..Setup::default() }).unwrap();
        let adopts = |driver: &mut UringDriver, listens: &str| {
            let listener = std::net::TcpListener::bind(listens).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            driver.adopt(listener.accept().unwrap().0.into(), 0);
            let conn = collect(driver, 1, |_, event| match event {
                Event::Adopted { result, .. } => Some(result.unwrap()),
                _ => None,
            });
            (conn[0], client.local_addr().unwrap(), client)
        };
        let mut cases = vec![adopts(&mut driver, "127.0.0.1:0"), adopts(&mut driver, "[::1]:0")];
        for family in families.chars() {
            let host = if family == '4' { "127.0.0.1" } else { "::1" };
            let client = TcpStream::connect((host, port)).unwrap();
            driver.accept();
            let conn = accepted(&mut driver, 1)[0];
            let mut address = client.local_addr().unwrap();
            if let (std::net::IpAddr::V4(ip), "[::]:0") = (address.ip(), listens) {
                address.set_ip(ip.to_ipv6_mapped().into());
            }
            cases.push((conn, address, client));
        }
        for (conn, address, _client) in &cases {
            driver.peer(*conn);
            let names = collect(&mut driver, 1, |_, event| match event {
                Event::Peer { result, .. } => Some(result),
                _ => None,
            });
            assert_eq!(names, [Ok(*address)], "{listens}");
        }
    }
}

/// The completion of one operation, pushed past the driver's own calls.
fn completion_of(driver: &mut UringDriver, entry: squeue::Entry) -> i32 {
    driver.push_uncounted(&entry.user_data(tag::of_index(Kind::Ignored, 7)));
    driver.enter(Some(clock::monotonic() + 1_000_000_000)).unwrap();
    let results: Vec<i32> = driver
        .ring
        .completion()
        .filter(|entry| entry.user_data() == tag::of_index(Kind::Ignored, 7))
        .map(|entry| entry.result())
        .collect();
    assert_eq!(results.len(), 1);
    results[0]
}

#[test]
fn what_the_driver_does_not_do_its_ring_forbids() {
    for dials in [false, true] {
        let mut driver = UringDriver::new(Setup { dials, ..Setup::default() }).unwrap();
        assert!(driver.optional_features().restricted);
        let forbidden = [
            opcode::Nop::new().build(),
            opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/etc/hostname".as_ptr()).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            // Allowed by itself, but not with this flag.
            opcode::Read::new(Fd(-1), ptr::null_mut(), 0).build().flags(squeue::Flags::ASYNC),
        ];
        for entry in forbidden {
            let name = format!("{entry:?}");
            assert_eq!(completion_of(&mut driver, entry), -libc::EACCES, "{name}");
        }
        let read = opcode::Read::new(Fd(-1), ptr::null_mut(), 0).build();
        assert_eq!(completion_of(&mut driver, read), -libc::EBADF, "a read is allowed, of what there is");
        let connect = opcode::Connect::new(Fixed(0), ptr::null(), 0).build();
        assert_eq!(completion_of(&mut driver, connect) == -libc::EACCES, !dials);
        // Nor can the ring be changed any more.
        let error = driver.ring.submitter().unregister_eventfd().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }
}

/// To a driver that was not made for it, a dial is forbidden by its ring like anything else.
#[test]
fn a_driver_that_does_not_dial_cannot() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut driver = UringDriver::new(Setup::default()).unwrap();
    driver.dial(listener.local_addr().unwrap(), None, 3);
    let results = collect(&mut driver, 1, |_, event| match event {
        Event::Dialled { result, .. } => Some(result),
        _ => None,
    });
    assert_eq!(results, [Err(libc::EACCES)]);
}

/// The kernel notifies one of two who accept from the same listener, the first that began to wait. If that one stops
/// before it has looked, the other has to begin anew.
#[test]
fn a_connection_that_comes_while_another_stops_is_found_by_accepting_anew() {
    let (listener, addr) = listener();
    let listener = Arc::new(listener);
    let driver = || {
        let setup = Setup { listener: Some(Arc::clone(&listener)), ..Setup::default() };
        let mut driver = UringDriver::new(setup).unwrap();
        driver.accept();
        assert!(turn(&mut driver).is_empty());
        driver
    };
    let (mut leaving, mut staying) = (driver(), driver());
    let _client = TcpStream::connect(addr).unwrap();
    leaving.accept_stop();
    let ended = |_: &mut UringDriver, event| match event {
        Event::AcceptEnded { end } => Some(end),
        _ => None,
    };
    assert_eq!(collect(&mut leaving, 1, ended), [AcceptEnd::Stopped]);
    assert!(turn(&mut staying).is_empty(), "it is not notified");
    staying.accept_stop();
    assert_eq!(collect(&mut staying, 1, ended), [AcceptEnd::Stopped]);
    staying.accept();
    accepted(&mut staying, 1);
}
