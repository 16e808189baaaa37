//! The kernel's clocks, in nanoseconds.

use crate::Nanos;

/// `CLOCK_MONOTONIC`: the clock of every driver on real sockets.
#[must_use]
pub fn monotonic() -> Nanos {
    read(libc::CLOCK_MONOTONIC)
}

/// Reads one clock; about 20 ns for `CLOCK_MONOTONIC`, a system call for the CPU clocks.
pub(crate) fn read(clock: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, which lives through the call; the clocks used here always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as Nanos * 1_000_000_000 + time.tv_nsec as Nanos
}
