//! The two system calls that the `io-uring` crate does not have in the form needed here: `enter` by a
//! registered ring descriptor kept across calls, with a timeout.

use std::io;
use std::os::fd::RawFd;

/// How `io_uring_enter` names the ring.
#[derive(Clone, Copy)]
pub(super) struct RingName {
    fd: i32,
    flags: u32,
}

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;

/// `struct io_uring_rsrc_update` of the kernel.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct io_uring_getevents_arg` of the kernel.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    s: i64,
    ns: i64,
}

impl RingName {
    /// Registers the ring's descriptor for this thread, which spares each call the descriptor's look-up;
    /// where that is refused, the descriptor itself does.
    pub(super) fn register(ring: RawFd) -> Self {
        let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
        // SAFETY: the kernel reads and writes exactly one `io_uring_rsrc_update`, which lives through the call.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_RING_FDS, &raw mut update, 1) };
        if done == 1 {
            Self { fd: update.offset as i32, flags: ENTER_REGISTERED_RING }
        } else {
            Self { fd: ring, flags: 0 }
        }
    }

    /// Submits without waiting for or running anything else.
    pub(super) fn submit(self, to_submit: u32) -> io::Result<u32> {
        self.enter(to_submit, 0, 0, None)
    }

    /// Submits, runs what completed meanwhile, and returns.
    pub(super) fn submit_and_reap(self, to_submit: u32) -> io::Result<u32> {
        self.enter(to_submit, 0, ENTER_GETEVENTS, None)
    }

    /// Submits, and waits for one completion or until `timeout_ns` are over (`ETIME`).
    pub(super) fn submit_and_wait(self, to_submit: u32, timeout_ns: u64) -> io::Result<u32> {
        let timeout = Timespec { s: (timeout_ns / 1_000_000_000) as i64, ns: (timeout_ns % 1_000_000_000) as i64 };
        let arg = GetEventsArg { sigmask: 0, sigmask_bytes: 0, min_wait_us: 0, timeout: (&raw const timeout) as u64 };
        self.enter(to_submit, 1, ENTER_GETEVENTS | ENTER_EXT_ARG, Some(&arg))
    }

    fn enter(self, to_submit: u32, wait_for: u32, flags: u32, arg: Option<&GetEventsArg>) -> io::Result<u32> {
        let (arg_at, arg_bytes) = match arg {
            Some(arg) => (std::ptr::from_ref(arg), size_of::<GetEventsArg>()),
            None => (std::ptr::null(), 0),
        };
        // SAFETY: `arg_at` is null with size 0 or names a live argument, whose timeout lives in the caller's
        // frame. The submitted entries name only memory of this crate that is pinned until they complete.
        let done = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, self.fd, to_submit, wait_for, flags | self.flags, arg_at, arg_bytes)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as u32) }
    }
}
