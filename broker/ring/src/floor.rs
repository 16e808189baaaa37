//! The measuring stick: what the kernel alone costs for a fan-out, with nothing around it.
//!
//! A round sends the same bytes once to every socket; the next one begins when every send of the former is
//! over. There is no parsing, no bookkeeping per connection, no event list: whatever the broker spends per
//! delivered message beyond [`FloorReport::cpu_ns_per_send`], in the same run on the same machine, is its
//! own. Not part of the broker's data path.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::Bytes;
use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::gather::Tail;
use crate::{Gather, clock};

/// How the bytes go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `send(2)`, one system call per send. The sockets should be blocking.
    Send2,
    /// io_uring, by descriptor.
    Uring,
    /// io_uring, by direct descriptor, as the broker does.
    UringDirect,
    /// The same in [`Method::PARTS`] ranges, as a `sendmsg`.
    UringVectored,
    /// io_uring, by direct descriptor, without a copy into the kernel where the kernel can do without
    /// (`SEND_ZC`). A send is over when the kernel lets go of the bytes.
    UringZeroCopy,
    /// The same from memory that the ring knows already (a registered buffer).
    UringZeroCopyRegistered,
}

impl Method {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Send2,
        Self::Uring,
        Self::UringDirect,
        Self::UringVectored,
        Self::UringZeroCopy,
        Self::UringZeroCopyRegistered,
    ];
    /// Ranges of a vectored send.
    pub const PARTS: usize = 4;
}

/// What was measured. Times cover the sends of the rounds: neither what lies between them, nor the making of the
/// ring, nor bringing a payload to where it is sent from.
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
            Method::Uring => Some(Ring::new(&[], method, batch)?),
            _ => Some(Ring::new(&sockets, method, batch)?),
        };
        Ok(Self { sockets, ring, report: FloorReport::default() })
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
        if let Some(ring) = &mut self.ring {
            ring.load(payload)?;
        }
        let (wall, cpu) = (clock::monotonic(), thread_cpu_ns());
        match &mut self.ring {
            Some(ring) => ring.round(&self.sockets, &mut self.report)?,
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

    /// The sockets, for another sender.
    #[must_use]
    pub fn into_sockets(self) -> Vec<OwnedFd> {
        self.sockets
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
    method: Method,
    /// Named by every send in flight; replaced only when there is none.
    payload: Option<Gather>,
    in_flight: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Ring {
    fn new(direct: &[OwnedFd], method: Method, batch: u32) -> io::Result<Self> {
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
        Ok(Self { ring, method, payload: None, in_flight: 0 })
    }

    /// Brings a payload to where it is sent from.
    fn load(&mut self, payload: &[u8]) -> io::Result<()> {
        assert_eq!(self.in_flight, 0, "an earlier round failed half-way");
        let is_loaded = |gather: &Gather| gather.len() == payload.len() && gather.parts().concat() == payload;
        if self.payload.as_ref().is_some_and(is_loaded) {
            return Ok(());
        }
        let was_registered = self.method == Method::UringZeroCopyRegistered && self.payload.is_some();
        if was_registered {
            self.ring.submitter().unregister_buffers()?;
        }
        let bytes = Bytes::copy_from_slice(payload);
        let gather = if self.method == Method::UringVectored {
            let part_bytes = bytes.len().div_ceil(Method::PARTS);
            let part = |at: usize| bytes.slice(at..bytes.len().min(at + part_bytes));
            Gather::many((0..bytes.len()).step_by(part_bytes).map(part).collect())
        } else {
            Gather::one(bytes)
        };
        let gather = self.payload.insert(gather);
        if self.method == Method::UringZeroCopyRegistered {
            let bytes = &gather.parts()[0];
            let buffer = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            // SAFETY: the kernel only reads the buffer, whose bytes are shared and never written to; they are
            // replaced only after they were unregistered, and outlive the ring otherwise.
            unsafe { self.ring.submitter().register_buffers(&[buffer]) }?;
        }
        Ok(())
    }

    fn round(&mut self, sockets: &[OwnedFd], report: &mut FloorReport) -> io::Result<()> {
        let batch = self.ring.submission().capacity();
        for (chunk, part) in sockets.chunks(batch).enumerate() {
            for (at, socket) in part.iter().enumerate() {
                let entry = self.entry(socket, (chunk * batch + at) as u32);
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

    fn entry(&self, socket: &OwnedFd, index: u32) -> squeue::Entry {
        let payload = self.payload.as_ref().expect("loaded before the round");
        let bytes = match payload.tail(0) {
            Tail::Contiguous(bytes) => bytes,
            Tail::Whole(message) => {
                return opcode::SendMsg::new(Fixed(index), message.as_ptr()).flags(FLAGS as u32).build();
            }
            Tail::Trimmed(_) => unreachable!("a payload is sent from its start"),
        };
        let (at, len) = (bytes.as_ptr(), bytes.len().min(i32::MAX as usize) as u32);
        let zero_copy = opcode::SendZc::new(Fixed(index), at, len).flags(FLAGS);
        match self.method {
            Method::Uring => opcode::Send::new(Fd(socket.as_raw_fd()), at, len).flags(FLAGS).build(),
            Method::UringZeroCopy => zero_copy.build(),
            Method::UringZeroCopyRegistered => zero_copy.buf_index(Some(0)).build(),
            Method::Send2 | Method::UringDirect | Method::UringVectored => {
                opcode::Send::new(Fixed(index), at, len).flags(FLAGS).build()
            }
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
        let len = self.payload.as_ref().map_or(0, Gather::len);
        for entry in self.ring.completion() {
            // A zero-copy send completes twice: when it is done, and when the kernel has let go of the bytes.
            if !cqueue::notif(entry.flags()) {
                outcome = outcome.and(count(report, len, i64::from(entry.result())));
            }
            self.in_flight -= usize::from(!cqueue::more(entry.flags()));
        }
        outcome
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // A failed measurement: the kernel may still read the payload until it has torn the ring down.
            mem::forget(self.payload.take());
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut clients: Vec<_> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut sockets: Vec<OwnedFd> = clients.iter().map(|_| listener.accept().unwrap().0.into()).collect();
        let payloads = [&b"tick"[..], b"tick", b"a longer one than before", b"x", b"tock"];
        for method in Method::ALL {
            let mut sender = Sender::new(sockets, method, 4).unwrap();
            for payload in payloads {
                sender.round(payload).unwrap();
            }
            let report = sender.take_report();
            assert_eq!((report.rounds, report.sends, report.short_sends), (5, 50, 0), "{method:?}");
            assert!(report.cpu_ns > 0 && report.cpu_ns <= process_cpu_ns());
            assert_eq!(sender.take_report(), FloorReport::default());
            sockets = sender.into_sockets();
        }
        drop(sockets);
        for client in &mut clients {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, payloads.concat().repeat(Method::ALL.len()));
        }
    }
}
