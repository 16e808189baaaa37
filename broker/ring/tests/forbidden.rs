//! What the operator reads where a sandbox forbids io_uring: the two answers that container engines give, made
//! here by a seccomp filter of the test's own thread (seccomp(2)).

use std::thread;

use ring::uring::{SetupError, probe};

#[test]
fn eperm_is_a_seccomp_profile() {
    let error = probe_forbidden(libc::EPERM);
    assert!(matches!(error, SetupError::Forbidden), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("seccomp") && sentence.contains("io_uring_setup"), "{sentence}");
}

#[test]
fn enosys_on_a_kernel_that_has_io_uring_is_a_sandbox() {
    let error = probe_forbidden(libc::ENOSYS);
    assert!(matches!(error, SetupError::Missing { .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("hidden") && sentence.contains("io_uring_setup"), "{sentence}");
}

#[test]
fn enomem_is_the_limit_of_locked_memory() {
    let error = probe_forbidden(libc::ENOMEM);
    assert!(matches!(error, SetupError::Memory { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
}

/// Probes in a thread whose `io_uring_setup` answers `errno`. The filter ends with the thread.
fn probe_forbidden(errno: i32) -> SetupError {
    let probed = thread::spawn(move || {
        forbid(libc::SYS_io_uring_setup, errno);
        probe()
    });
    probed.join().expect("the probe returns").expect_err("io_uring_setup answers with an error")
}

/// Has the calling thread's `call` fail with `errno` from now on.
fn forbid(call: i64, errno: i32) {
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The number of the system call is the first field of `seccomp_data`.
        step(load, 0, 0, 0),
        step(equal, 0, 1, call as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads the program, which lives through both calls, and copies it.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(installed, "a thread may restrict itself: {}", std::io::Error::last_os_error());
}
