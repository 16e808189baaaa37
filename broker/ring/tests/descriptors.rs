//! Where connections are ordinary descriptors: what a driver on epoll does at the process's limit. That limit is
//! the whole process's, so this file has one test.

use std::fs::File;
use std::net::TcpStream;

use ring::epoll::{EpollDriver, Setup, SetupError};
use ring::{AcceptEnd, Driver, Event, listen};

const LIMIT: u64 = 64;

#[test]
fn without_a_descriptor_the_table_is_full_and_no_peer_is_lost() {
    let listener = listen::group("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap();
    let addr = listen::local_addr(&listener).unwrap();
    let mut driver = made(Some(listener), 16).unwrap();
    lower_the_limit();
    let error = made(None, 64).err().expect("64 and its own are more than 64");
    assert!(matches!(error, SetupError::TooManyConnections { capacity: 64, limit: LIMIT }), "{error:?}");

    let client = TcpStream::connect(addr).unwrap();
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let error = made(None, 8).err().expect("no descriptor is left");
    assert!(matches!(error, SetupError::NoDescriptor { limit: LIMIT }), "{error:?}");

    for _ in 0..3 {
        let events = accepting(&mut driver);
        assert!(matches!(&events[..], [Event::AcceptEnded { end: AcceptEnd::TableFull }]), "{events:?}");
    }
    drop(hoard.pop());
    let events = accepting(&mut driver);
    assert!(matches!(&events[..], [Event::Accepted { .. }, ..]), "{events:?}");
    drop(client);
}

fn made(listener: Option<std::os::fd::OwnedFd>, capacity: u32) -> Result<EpollDriver, SetupError> {
    EpollDriver::new(Setup { listener: listener.map(Into::into), capacity, ..Setup::default() })
}

fn accepting(driver: &mut EpollDriver) -> Vec<Event<ring::epoll::Buf>> {
    driver.accept();
    let mut events = Vec::new();
    let deadline = driver.now() + 1_000_000_000;
    driver.turn(Some(deadline), &mut events).unwrap();
    events
}

fn lower_the_limit() {
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the kernel reads one `rlimit`, which lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}
