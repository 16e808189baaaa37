//! Where a sandbox forbids system calls, by a seccomp filter of the test's own thread as container engines install
//! it: what the operator reads, and that the driver on epoll runs all the same.

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;

use ring::epoll::{self, EpollDriver};
use ring::sandbox::{EPOLL_PWAIT2, IO_URING, forbid, forbid_registering};
use ring::uring::{self, SetupError};
use ring::{Cause, Driver, Event, listen, probe};

#[test]
fn eperm_is_a_seccomp_profile() {
    let (error, cause) = probe_forbidden(libc::EPERM);
    assert!(matches!(error, SetupError::Forbidden), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("seccomp") && sentence.contains("io_uring_setup"), "{sentence}");
    assert_eq!(cause, Cause::Seccomp { call: "io_uring_setup", answer: "EPERM" });
}

#[test]
fn enosys_on_a_kernel_that_has_io_uring_is_a_sandbox() {
    let (error, cause) = probe_forbidden(libc::ENOSYS);
    assert!(matches!(error, SetupError::Missing { .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("hidden") && sentence.contains("io_uring_setup"), "{sentence}");
    assert_eq!(cause, Cause::Seccomp { call: "io_uring_setup", answer: "ENOSYS" });
}

#[test]
fn enomem_is_the_limit_of_locked_memory() {
    let (error, cause) = probe_forbidden(libc::ENOMEM);
    assert!(matches!(error, SetupError::Memory { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    assert!(matches!(cause, Cause::Memory { .. }), "{cause:?}");
}

/// A profile that lists some of the calls: what the driver meets only later is found before it is relied on.
#[test]
fn a_call_refused_alone_is_found_and_named() {
    for (errno, answer) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS"), (libc::EACCES, "EACCES")] {
        for (call, number) in
            [("io_uring_enter", libc::SYS_io_uring_enter), ("io_uring_register", libc::SYS_io_uring_register)]
        {
            let (error, cause) = probe_where(move || forbid(&[number], errno));
            assert!(error.to_string().contains(&format!("{call} is refused ({answer})")), "{error}");
            assert_eq!(cause, Cause::Seccomp { call, answer });
            let sentence = cause.to_string();
            assert!(sentence.contains(&format!("refuses {call} ({answer}): start it")), "{sentence}");
        }
    }
    for errno in [libc::EPERM, libc::ENOSYS] {
        let (_, cause) = probe_where(move || forbid(&[libc::SYS_io_uring_setup], errno));
        assert!(matches!(cause, Cause::Seccomp { call: "io_uring_setup", .. }), "{cause:?}");
    }
}

/// An answer that is no refusal is passed on with what was being done.
#[test]
fn another_answer_of_a_call_is_reported_as_it_is() {
    for (number, doing) in [
        (libc::SYS_io_uring_enter, "running the ring"),
        (libc::SYS_io_uring_register, "asking io_uring for its operations"),
    ] {
        let (_, cause) = probe_where(move || forbid(&[number], libc::EIO));
        assert!(matches!(cause, Cause::Other(_)) && cause.to_string().contains(doing), "{cause}");
    }
    let (_, cause) = probe_where(|| forbid(&[libc::SYS_io_uring_register], libc::ENOMEM));
    assert!(matches!(cause, Cause::Memory { .. }), "{cause:?}");
}

/// `IORING_REGISTER_*` of io_uring.h.
const PROBE: u32 = 8;
const RESTRICTIONS: u32 = 11;
const ENABLE_RINGS: u32 = 12;
const FILES2: u32 = 13;
const RING_FDS: u32 = 20;
const PBUF_RING: u32 = 22;

/// Profiles can look at arguments: each registration, refused alone, is found by the probe if the driver cannot do
/// without it. Without the others it runs.
#[test]
fn a_registration_refused_alone_is_found_if_it_is_needed() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for what in [PROBE, ENABLE_RINGS, FILES2, PBUF_RING] {
            let (error, cause) = probe_where(move || forbid_registering(what, errno));
            assert!(matches!(error, SetupError::Refused { call: "io_uring_register", .. }), "{what}: {error:?}");
            assert!(matches!(cause, Cause::Seccomp { call: "io_uring_register", .. }), "{what}: {cause:?}");
        }
        for what in [RESTRICTIONS, RING_FDS] {
            let probed = thread::spawn(move || {
                forbid_registering(what, errno).expect("a thread may restrict itself");
                probe().expect("the driver does without");
                uring::probe().expect("so it does again")
            });
            assert_eq!(probed.join().expect("the probes return").restricted, what != RESTRICTIONS);
        }
    }
}

/// Probes in a thread in which every call of io_uring answers `errno`.
fn probe_forbidden(errno: i32) -> (SetupError, Cause) {
    probe_where(move || forbid(&IO_URING, errno))
}

/// Probes in a thread that `restrict` has restricted. The filter ends with the thread.
fn probe_where(restrict: impl FnOnce() -> io::Result<()> + Send + 'static) -> (SetupError, Cause) {
    let probed = thread::spawn(move || {
        restrict().expect("a thread may restrict itself");
        (uring::probe().expect_err("io_uring is refused"), probe().expect_err("so it is again"))
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
                EpollDriver::new(epoll::Setup { listener: Some(listener.into()), ..epoll::Setup::default() }).unwrap();
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
            let [Event::Accepted { conn, .. }] = events[..] else { panic!("{events:?}") };
            driver.receive(conn);
            client.write_all(b"hello").unwrap();
            let events = turn(&mut driver, u64::MAX / 2);
            assert!(matches!(&events[..], [Event::Received { buf, .. }] if &**buf == b"hello"), "{events:?}");
        });
        restricted.join().expect("the driver runs");
    }
}
