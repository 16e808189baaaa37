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
    let step = |code: u32, jt, k| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let answer = |what| step(libc::BPF_RET | libc::BPF_K, 0, what);
    // The number of the system call is the first field of `seccomp_data`.
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        // Over the calls that remain, and the permission, to the refusal.
        let distance = (calls.len() - at) as u8;
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, distance, *call as u32));
    }
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
