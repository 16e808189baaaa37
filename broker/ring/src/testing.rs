//! What the tests of the real drivers share: a listener of their own, and turns until something has happened.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::{ConnId, Driver, Event, listen};

/// On a free port of the loopback interface.
pub(crate) fn listener() -> (OwnedFd, SocketAddr) {
    let listener = listen::group("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap();
    let addr = listen::local_addr(&listener).unwrap();
    (listener, addr)
}

/// The events of one turn of at most ten milliseconds.
pub(crate) fn turn<D: Driver>(driver: &mut D) -> Vec<Event<D::Buf>> {
    let mut events = Vec::new();
    let deadline = driver.now() + 10_000_000;
    driver.turn(Some(deadline), &mut events).unwrap();
    events
}

/// Turns until `pick` has found `count` things.
pub(crate) fn collect<D: Driver, T>(
    driver: &mut D,
    count: usize,
    mut pick: impl FnMut(&mut D, Event<D::Buf>) -> Option<T>,
) -> Vec<T> {
    let mut found = Vec::new();
    for _ in 0..1_000 {
        if found.len() >= count {
            return found;
        }
        for event in turn(driver) {
            found.extend(pick(driver, event));
        }
    }
    panic!("{} of {count}", found.len());
}

/// The next connections.
pub(crate) fn accepted<D: Driver>(driver: &mut D, count: usize) -> Vec<ConnId> {
    collect(driver, count, |_, event| match event {
        Event::Accepted { conn, .. } => Some(conn),
        _ => None,
    })
}
