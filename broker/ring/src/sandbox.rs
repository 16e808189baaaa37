//! What a container's seccomp profile does, done to one thread and whatever it starts, so that tests can see how
//! the broker fares where system calls are forbidden (seccomp(2)).

use std::io;

/// All that io_uring needs.
pub const IO_URING: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
/// The wait with a precise deadline (Linux 5.11).
pub const EPOLL_PWAIT2: [libc::c_long; 1] = [libc::SYS_epoll_pwait2];

/// Has the calling thread's `calls`, and those of the threads and programs that it starts, fail with `errno` from
/// now on. Nothing undoes that.
///
/// # Errors
/// If the kernel has no seccomp filters.
pub fn forbid(calls: &[libc::c_long], errno: i32) -> io::Result<()> {
    // The number of the system call is the first field of `seccomp_data`.
    let mut filter = vec![step(LOAD, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        // Over the calls that remain, and the permission, to the refusal.
        let distance = (calls.len() - at) as u8;
        filter.push(step(IF_EQUAL, distance, *call as u32));
    }
    filter.push(step(ANSWER, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(ANSWER, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    install(&mut filter)
}

/// Has the calling thread, and what it starts, live without IPv6 from now on, as on a kernel started with
/// `ipv6.disable=1`: a socket of that family is refused with `EAFNOSUPPORT`. Nothing undoes that.
///
/// # Errors
/// If the kernel has no seccomp filters.
pub fn forbid_ipv6() -> io::Result<()> {
    /// Where the first argument begins in `seccomp_data`: its lower half, on the little-endian machines that there are.
    const FIRST_ARGUMENT: u32 = 16;
    install(&mut [
        step(LOAD, 0, 0),
        step(IF_EQUAL, 1, libc::SYS_socket as u32),
        step(ANSWER, 0, libc::SECCOMP_RET_ALLOW),
        step(LOAD, 0, FIRST_ARGUMENT),
        step(IF_EQUAL, 1, libc::AF_INET6 as u32),
        step(ANSWER, 0, libc::SECCOMP_RET_ALLOW),
        step(ANSWER, 0, libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
    ])
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

/// A step of a filter; `jt` steps are left out where the condition holds.
fn step(code: u32, jt: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf: 0, k }
}

fn install(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads the program, which lives through both calls, and copies it.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
}
