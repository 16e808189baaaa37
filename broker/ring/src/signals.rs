//! Signals before anybody handles them: held back from the first statement of `main` until the runtime has its
//! handlers.
//!
//! A signal that arrives while a program starts would meet its default action: it ends the program without a word,
//! or, for process 1 of a container, is thrown away. A blocked signal does neither. It stays pending, for process 1
//! too, and arrives when it is unblocked. Threads inherit the mask of the thread that starts them: those that are
//! started while signals are held never see one, and their system calls are not interrupted.
//!
//! Not responsible for what a signal means. SIGPIPE is ignored by Rust's runtime: writing to a closed pipe is an
//! error, no end. SIGQUIT and the signals of faults keep their defaults, so that an operator can get a core dump.

use std::mem::MaybeUninit;
use std::ptr;

/// The signals that are held and later delivered: each would end a process that does not handle it.
pub const HELD: [i32; 9] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Blocks [`HELD`] for this thread and those that it starts; call it before there are others. Blocks for good what an
/// operator can do nothing with: real-time signals, and SIGXFSZ, without which a log file at its size limit is an
/// error of one write.
pub fn hold() {
    let mut set = set_of(&HELD);
    for signal in std::iter::once(libc::SIGXFSZ).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        add(&mut set, signal);
    }
    mask(libc::SIG_BLOCK, &set);
}

/// Lets [`HELD`] reach this thread, those first that came meanwhile. Call it when each has a handler, or when its
/// default action is right.
pub fn deliver() {
    mask(libc::SIG_UNBLOCK, &set_of(&HELD));
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` writes the whole set, which lives through the call.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    signals.iter().for_each(|signal| add(&mut set, *signal));
    set
}

fn add(set: &mut libc::sigset_t, signal: i32) {
    // SAFETY: the set is initialised and ours; a number that is no signal is refused and changes nothing.
    unsafe { libc::sigaddset(&raw mut *set, signal) };
}

fn mask(how: i32, set: &libc::sigset_t) {
    // SAFETY: the set is read during the call only, and the old mask is not asked for. It cannot fail: `how` is one of
    // the three that there are.
    unsafe { libc::pthread_sigmask(how, &raw const *set, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mask of this thread, as the kernel shows it.
    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    fn bit(signal: i32) -> u64 {
        1 << (signal - 1)
    }

    #[test]
    fn threads_started_meanwhile_never_see_what_is_held() {
        std::thread::spawn(|| {
            hold();
            let all = HELD.iter().fold(0, |all, signal| all | bit(*signal));
            assert_eq!(blocked() & all, all);
            let (begin, begun) = std::sync::mpsc::channel::<()>();
            let child = std::thread::spawn(move || {
                begun.recv().unwrap();
                blocked()
            });
            deliver();
            begin.send(()).unwrap();
            assert_eq!(blocked() & all, 0);
            assert_eq!(child.join().unwrap() & all, all);
            for kept in [libc::SIGQUIT, libc::SIGSEGV, libc::SIGABRT, libc::SIGCHLD] {
                assert_eq!(blocked() & bit(kept), 0, "{kept}");
            }
            assert_ne!(blocked() & bit(libc::SIGXFSZ), 0);
        })
        .join()
        .unwrap();
    }
}
