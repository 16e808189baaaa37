//! What only the real driver does: other kernels, small queues, limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::*;
use crate::{ReceiveEnd, listen};

fn driver(setup: Setup) -> (UringDriver, SocketAddr) {
    let listener = listen::group("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap();
    let addr = listen::local_addr(&listener).unwrap();
    let mut driver = UringDriver::new(Setup { listener: Some(listener), ..setup }).unwrap();
    driver.accept();
    (driver, addr)
}

/// Turns until `pick` has found `count` things.
fn collect<T>(
    driver: &mut UringDriver,
    count: usize,
    mut pick: impl FnMut(&mut UringDriver, Event<Buf>) -> Option<T>,
) -> Vec<T> {
    let mut found = Vec::new();
    for _ in 0..1_000 {
        if found.len() >= count {
            return found;
        }
        let mut events = Vec::new();
        let deadline = driver.now() + 10_000_000;
        driver.turn(Some(deadline), &mut events).unwrap();
        for event in events {
            found.extend(pick(driver, event));
        }
    }
    panic!("{} of {count}", found.len());
}

fn accepted(driver: &mut UringDriver, count: usize) -> Vec<ConnId> {
    collect(driver, count, |_, event| match event {
        Event::Accepted { conn } => Some(conn),
        _ => None,
    })
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
