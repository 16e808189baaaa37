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
    let mut filter = vec![load(CALL)];
    for (at, call) in calls.iter().enumerate() {
        // Over the calls that remain, and the permission, to the refusal.
        filter.push(jump_if(*call as u32, calls.len() - at));
    }
    install(filter, errno)
}

/// Has `io_uring_register` fail for one of the things that it registers (`IORING_REGISTER_*`, io_uring.h), like
/// [`forbid`].
///
/// # Errors
/// As [`forbid`].
pub fn forbid_registering(what: u32, errno: i32) -> io::Result<()> {
    let is_register = jump_if(libc::SYS_io_uring_register as u32, 1);
    let over_all = libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JA) as u16, jt: 0, jf: 0, k: 2 };
    install(vec![load(CALL), is_register, over_all, load(SECOND_ARGUMENT), jump_if(what, 1)], errno)
}

/// Where the number of the system call is in `seccomp_data`.
const CALL: u32 = 0;
/// The lower half of its second argument, on little-endian processors.
const SECOND_ARGUMENT: u32 = 24;

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

/// Goes on `distance` steps behind the next one if the loaded value is `value`.
fn jump_if(value: u32, distance: usize) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ) as u16, jt: distance as u8, jf: 0, k: value }
}

/// Installs `filter`, behind which come the permission and then the refusal.
fn install(mut filter: Vec<libc::sock_filter>, errno: i32) -> io::Result<()> {
    let answer = |what| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: what };
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter.push(answer(libc::SECCOMP_RET_ERRNO | errno as u32));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads the program, which lives through both calls, and copies it.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
}
