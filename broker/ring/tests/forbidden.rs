//! Where a sandbox forbids system calls, by a seccomp filter of the test's own thread as container engines install
//! it: what the operator reads, and that the driver on epoll runs all the same.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use ring::epoll::{self, EpollDriver};
use ring::sandbox::{EPOLL_PWAIT2, IO_URING, forbid};
use ring::uring::{self, SetupError};
use ring::{Cause, Driver, Event, listen, probe};

#[test]
fn eperm_is_a_seccomp_profile() {
    let (error, cause) = probe_forbidden(libc::EPERM);
    assert!(matches!(error, SetupError::Forbidden), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("seccomp") && sentence.contains("io_uring_setup"), "{sentence}");
    assert_eq!(cause, Cause::Seccomp { answer: "EPERM" });
}

#[test]
fn enosys_on_a_kernel_that_has_io_uring_is_a_sandbox() {
    let (error, cause) = probe_forbidden(libc::ENOSYS);
    assert!(matches!(error, SetupError::Missing { .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("hidden") && sentence.contains("io_uring_setup"), "{sentence}");
    assert_eq!(cause, Cause::Seccomp { answer: "ENOSYS" });
}

#[test]
fn enomem_is_the_limit_of_locked_memory() {
    let (error, cause) = probe_forbidden(libc::ENOMEM);
    assert!(matches!(error, SetupError::Memory { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    assert!(matches!(cause, Cause::Memory { .. }), "{cause:?}");
}

/// Probes in a thread whose `io_uring_setup` answers `errno`. The filter ends with the thread.
fn probe_forbidden(errno: i32) -> (SetupError, Cause) {
    let probed = thread::spawn(move || {
        forbid(&IO_URING, errno).expect("a thread may restrict itself");
        (uring::probe().expect_err("io_uring_setup answers with an error"), probe().expect_err("so it does again"))
    });
    probed.join().expect("the probes return")
}

/// gVisor has no `epoll_pwait2`, nor has a seccomp profile from before it.
#[test]
fn without_epoll_pwait2_turns_end_at_events_and_deadlines_all_the_same() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let restricted = thread::spawn(move || {
            forbid(&EPOLL_PWAIT2, errno).expect("a thread may restrict itself");
            let listener = listen::group("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap();
            let addr = listen::local_addr(&listener).unwrap();
            let mut driver =
                EpollDriver::new(epoll::Setup { listener: Some(listener), ..epoll::Setup::default() }).unwrap();
            let turn = |driver: &mut EpollDriver, wait_ns: u64| {
                let (mut events, deadline) = (Vec::new(), driver.now() + wait_ns);
                driver.turn(Some(deadline), &mut events).unwrap();
                assert!(!events.is_empty() || driver.now() >= deadline);
                events
            };
            for wait_ns in [1, 300_000, 2_500_000] {
                assert!(turn(&mut driver, wait_ns).is_empty());
            }
            let waker = driver.waker();
            let other = thread::spawn(move || waker.wake());
            let events = turn(&mut driver, u64::MAX / 2);
            assert!(matches!(&events[..], [Event::Woken]), "{events:?}");
            other.join().unwrap();
            driver.accept();
            let mut client = TcpStream::connect(addr).unwrap();
            let events = turn(&mut driver, u64::MAX / 2);
            let [Event::Accepted { conn }] = events[..] else { panic!("{events:?}") };
            driver.receive(conn);
            client.write_all(b"hello").unwrap();
            let events = turn(&mut driver, u64::MAX / 2);
            assert!(matches!(&events[..], [Event::Received { buf, .. }] if &**buf == b"hello"), "{events:?}");
        });
        restricted.join().expect("the driver runs");
    }
}
