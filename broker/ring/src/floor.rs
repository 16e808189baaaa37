//! The measuring stick: what the kernel alone costs for a fan-out, with nothing around it.
//!
//! A round sends the same bytes once to every socket; the next one begins when every send of the former is
//! over. There is no parsing, no bookkeeping per connection, no event list: whatever the broker spends per
//! delivered message beyond [`FloorReport::cpu_ns_per_send`], in the same run on the same machine, is its
//! own. Not part of the broker's data path.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode, squeue};

use crate::clock;

/// How the bytes go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `send(2)`, one system call per send. The sockets should be blocking.
    Send2,
    /// io_uring, by descriptor.
    Uring,
    /// io_uring, by direct descriptor, as the broker does.
    UringDirect,
}

/// What is measured.
#[derive(Debug)]
pub struct FloorSetup {
    /// Connected stream sockets, whose peers read. Closed at the end.
    pub sockets: Vec<OwnedFd>,
    /// What each send carries; at least one byte.
    pub payload: Vec<u8>,
    /// Rounds at most.
    pub rounds: u32,
    /// No round begins after this.
    pub duration_ns_max: u64,
    /// Sleep between the end of a round and the next one.
    pub pause_ns: u64,
    /// How the bytes go out.
    pub method: Method,
    /// Sends per system call, for io_uring.
    pub batch: u32,
}

impl FloorSetup {
    /// One second of rounds without pauses, with direct descriptors, 256 sends per system call.
    #[must_use]
    pub fn new(sockets: Vec<OwnedFd>, payload: Vec<u8>) -> Self {
        Self {
            sockets,
            payload,
            rounds: u32::MAX,
            duration_ns_max: 1_000_000_000,
            pause_ns: 0,
            method: Method::UringDirect,
            batch: 256,
        }
    }
}

/// What was measured. Times cover the rounds and their pauses, not the making of the ring.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FloorReport {
    /// Rounds done.
    pub rounds: u64,
    /// Sends done.
    pub sends: u64,
    /// Sends that took fewer bytes than the payload has. The rest is not sent again.
    pub short_sends: u64,
    /// CPU time of the sending thread.
    pub cpu_ns: u64,
    /// Time on the clock.
    pub wall_ns: u64,
}

impl FloorReport {
    /// The figure to compare with.
    #[must_use]
    pub fn cpu_ns_per_send(&self) -> f64 {
        self.cpu_ns as f64 / self.sends.max(1) as f64
    }
}

/// CPU time of the calling thread.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock::read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of all threads of the process.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    clock::read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Measures on the calling thread.
///
/// # Errors
/// If the ring cannot be made or a send fails.
///
/// # Panics
/// If there is no socket or nothing to send.
pub fn run(setup: &FloorSetup) -> io::Result<FloorReport> {
    assert!(!setup.sockets.is_empty() && !setup.payload.is_empty(), "nothing to measure");
    match setup.method {
        Method::Send2 => rounds(setup, |report| send2_round(setup, report)),
        Method::Uring | Method::UringDirect => {
            let mut sender = UringSender::new(setup)?;
            rounds(setup, |report| sender.round(setup, report))
        }
    }
}

fn rounds(setup: &FloorSetup, mut round: impl FnMut(&mut FloorReport) -> io::Result<()>) -> io::Result<FloorReport> {
    let mut report = FloorReport::default();
    let (wall, cpu) = (clock::monotonic(), thread_cpu_ns());
    while report.rounds < u64::from(setup.rounds) && clock::monotonic() - wall < setup.duration_ns_max {
        if report.rounds > 0 && setup.pause_ns > 0 {
            thread::sleep(Duration::from_nanos(setup.pause_ns));
        }
        round(&mut report)?;
        report.rounds += 1;
    }
    report.cpu_ns = thread_cpu_ns() - cpu;
    report.wall_ns = clock::monotonic() - wall;
    Ok(report)
}

const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

fn count(setup: &FloorSetup, report: &mut FloorReport, result: i64) -> io::Result<()> {
    if result <= 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    report.sends += 1;
    report.short_sends += u64::from((result as usize) < setup.payload.len());
    Ok(())
}

fn send2_round(setup: &FloorSetup, report: &mut FloorReport) -> io::Result<()> {
    for socket in &setup.sockets {
        let (bytes, len) = (setup.payload.as_ptr().cast(), setup.payload.len());
        // SAFETY: the kernel reads the payload, which lives through the call.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes, len, FLAGS) };
        let result = if sent < 0 {
            -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
        } else {
            sent as i64
        };
        count(setup, report, result)?;
    }
    Ok(())
}

struct UringSender {
    ring: IoUring,
    /// Named by every send in flight.
    payload: Box<[u8]>,
    in_flight: usize,
}

impl UringSender {
    fn new(setup: &FloorSetup) -> io::Result<Self> {
        let batch = setup.batch.clamp(1, 1 << 15).next_power_of_two();
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_submit_all()
            .setup_coop_taskrun()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(batch.saturating_mul(8))
            .build(batch)?;
        if setup.method == Method::UringDirect {
            let fds: Vec<_> = setup.sockets.iter().map(AsRawFd::as_raw_fd).collect();
            ring.submitter().register_files(&fds)?;
        }
        Ok(Self { ring, payload: setup.payload.as_slice().into(), in_flight: 0 })
    }

    fn round(&mut self, setup: &FloorSetup, report: &mut FloorReport) -> io::Result<()> {
        let batch = self.ring.submission().capacity();
        for (chunk, sockets) in setup.sockets.chunks(batch).enumerate() {
            for (at, socket) in sockets.iter().enumerate() {
                let entry = self.entry(setup.method, socket, (chunk * batch + at) as u32);
                // SAFETY: the entry names the payload, which is released only when nothing is in flight.
                unsafe { self.ring.submission().push(&entry) }.expect("the last chunk was submitted");
                self.in_flight += 1;
            }
            while !self.ring.submission().is_empty() {
                self.enter(0)?;
                self.reap(setup, report)?;
            }
        }
        while self.in_flight > 0 {
            self.enter(1)?;
            self.reap(setup, report)?;
        }
        Ok(())
    }

    fn entry(&self, method: Method, socket: &OwnedFd, index: u32) -> squeue::Entry {
        let (bytes, len) = (self.payload.as_ptr(), self.payload.len().min(i32::MAX as usize) as u32);
        match method {
            Method::UringDirect => opcode::Send::new(Fixed(index), bytes, len).flags(FLAGS).build(),
            _ => opcode::Send::new(Fd(socket.as_raw_fd()), bytes, len).flags(FLAGS).build(),
        }
    }

    fn enter(&self, wait_for: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wait_for) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn reap(&mut self, setup: &FloorSetup, report: &mut FloorReport) -> io::Result<()> {
        let mut outcome = Ok(());
        for entry in self.ring.completion() {
            self.in_flight -= 1;
            outcome = outcome.and(count(setup, report, i64::from(entry.result())));
        }
        outcome
    }
}

impl Drop for UringSender {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // A failed measurement: the kernel may still read the payload until it has torn the ring down.
            mem::forget(mem::take(&mut self.payload));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn every_method_sends_every_byte() {
        for method in [Method::Send2, Method::Uring, Method::UringDirect] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let mut clients: Vec<_> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
            let sockets = clients.iter().map(|_| listener.accept().unwrap().0.into()).collect();
            let setup = FloorSetup { rounds: 7, method, batch: 4, ..FloorSetup::new(sockets, b"tick".to_vec()) };
            let report = run(&setup).unwrap();
            assert_eq!((report.rounds, report.sends, report.short_sends), (7, 70, 0));
            assert!(report.cpu_ns > 0 && report.cpu_ns <= process_cpu_ns());
            drop(setup);
            for client in &mut clients {
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, b"tick".repeat(7));
            }
        }
    }
}
