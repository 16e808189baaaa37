//! The measuring stick: what the kernel alone costs for a fan-out, with nothing around it.
//!
//! A round sends the same bytes once to every socket; the next one begins when every send of the former is
//! over. There is no parsing, no bookkeeping per connection, no event list: whatever the broker spends per
//! delivered message beyond [`FloorReport::cpu_ns_per_send`], in the same run on the same machine, is its
//! own. Not part of the broker's data path.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

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

/// What was measured. Times cover the rounds, neither what lies between them nor the making of the ring.
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

/// A bare sender: sockets, a ring, nothing else. Stays on the thread that made it.
#[derive(Debug)]
pub struct Sender {
    sockets: Vec<OwnedFd>,
    method: Method,
    ring: Option<Ring>,
    report: FloorReport,
}

impl Sender {
    /// A sender to connected stream sockets, whose peers read; `batch` sends go into one system call of
    /// io_uring.
    ///
    /// # Errors
    /// If the ring cannot be made.
    ///
    /// # Panics
    /// If there is no socket.
    pub fn new(sockets: Vec<OwnedFd>, method: Method, batch: u32) -> io::Result<Self> {
        assert!(!sockets.is_empty(), "nobody to send to");
        let ring = match method {
            Method::Send2 => None,
            Method::Uring => Some(Ring::new(&[], batch)?),
            Method::UringDirect => Some(Ring::new(&sockets, batch)?),
        };
        Ok(Self { sockets, method, ring, report: FloorReport::default() })
    }

    /// Sends `payload` to every socket, once, and waits until every send is over.
    ///
    /// # Errors
    /// If a send fails.
    ///
    /// # Panics
    /// If there is nothing to send.
    pub fn round(&mut self, payload: &[u8]) -> io::Result<()> {
        assert!(!payload.is_empty(), "nothing to send");
        let (wall, cpu) = (clock::monotonic(), thread_cpu_ns());
        match &mut self.ring {
            Some(ring) => ring.round(&self.sockets, self.method, payload, &mut self.report)?,
            None => send2_round(&self.sockets, payload, &mut self.report)?,
        }
        self.report.rounds += 1;
        self.report.cpu_ns += thread_cpu_ns() - cpu;
        self.report.wall_ns += clock::monotonic() - wall;
        Ok(())
    }

    /// What was measured since it was last asked for.
    pub fn take_report(&mut self) -> FloorReport {
        mem::take(&mut self.report)
    }
}

const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

fn count(report: &mut FloorReport, len: usize, result: i64) -> io::Result<()> {
    if result <= 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    report.sends += 1;
    report.short_sends += u64::from((result as usize) < len);
    Ok(())
}

fn send2_round(sockets: &[OwnedFd], payload: &[u8], report: &mut FloorReport) -> io::Result<()> {
    for socket in sockets {
        let (bytes, len) = (payload.as_ptr().cast(), payload.len());
        // SAFETY: the kernel reads the payload, which lives through the call.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes, len, FLAGS) };
        let result = if sent < 0 {
            -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
        } else {
            sent as i64
        };
        count(report, payload.len(), result)?;
    }
    Ok(())
}

struct Ring {
    ring: IoUring,
    /// Named by every send in flight; replaced only when there is none.
    payload: Box<[u8]>,
    in_flight: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Ring {
    fn new(direct: &[OwnedFd], batch: u32) -> io::Result<Self> {
        let batch = batch.clamp(1, 1 << 15).next_power_of_two();
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_submit_all()
            .setup_coop_taskrun()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(batch.saturating_mul(8))
            .build(batch)?;
        if !direct.is_empty() {
            let fds: Vec<_> = direct.iter().map(AsRawFd::as_raw_fd).collect();
            ring.submitter().register_files(&fds)?;
        }
        Ok(Self { ring, payload: Box::default(), in_flight: 0 })
    }

    fn round(
        &mut self,
        sockets: &[OwnedFd],
        method: Method,
        payload: &[u8],
        report: &mut FloorReport,
    ) -> io::Result<()> {
        assert_eq!(self.in_flight, 0, "an earlier round failed half-way");
        self.payload = payload.into();
        let batch = self.ring.submission().capacity();
        for (chunk, part) in sockets.chunks(batch).enumerate() {
            for (at, socket) in part.iter().enumerate() {
                let entry = self.entry(method, socket, (chunk * batch + at) as u32);
                // SAFETY: the entry names the payload, which is released only when nothing is in flight.
                unsafe { self.ring.submission().push(&entry) }.expect("the last chunk was submitted");
                self.in_flight += 1;
            }
            while !self.ring.submission().is_empty() {
                self.enter(0)?;
                self.reap(report)?;
            }
        }
        while self.in_flight > 0 {
            self.enter(1)?;
            self.reap(report)?;
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

    fn reap(&mut self, report: &mut FloorReport) -> io::Result<()> {
        let mut outcome = Ok(());
        for entry in self.ring.completion() {
            self.in_flight -= 1;
            outcome = outcome.and(count(report, self.payload.len(), i64::from(entry.result())));
        }
        outcome
    }
}

impl Drop for Ring {
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
            let mut sender = Sender::new(sockets, method, 4).unwrap();
            for _ in 0..7 {
                sender.round(b"tick").unwrap();
            }
            let report = sender.take_report();
            assert_eq!((report.rounds, report.sends, report.short_sends), (7, 70, 0));
            assert!(report.cpu_ns > 0 && report.cpu_ns <= process_cpu_ns());
            assert_eq!(sender.take_report(), FloorReport::default());
            drop(sender);
            for client in &mut clients {
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, b"tick".repeat(7));
            }
        }
    }
}
