//! Signals. SIGTERM and SIGINT end the broker, SIGHUP has it read its settings again; all others that would end a process
//! without a handler are logged and have no effect.
//!
//! | signal | what it does |
//! | --- | --- |
//! | SIGTERM | a shutdown with `--drain-delay` and `--drain-window` |
//! | SIGINT | a shutdown at once |
//! | a second of these two | the end, without waiting for anything |
//! | SIGHUP | reads again what can be read again ([`reload`](crate::server::reload)) |
//! | SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGIO, SIGPWR | a line in the log |
//! | SIGPIPE, SIGXFSZ, real-time signals | nothing |
//! | SIGQUIT, SIGABRT and those of faults | the kernel's default: the end, with a core dump where that is set up |
//!
//! `main` holds signals back from its first statement on ([`ring::signals`]); they are delivered when all have their
//! handlers here. A SIGTERM that came during the start is a shutdown right after it.

use std::io;

use ring::signals::{HELD, deliver};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use tracing::info;

/// Which shutdown is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// With delay and window.
    Terminate,
    /// At once.
    Interrupt,
}

/// All signals that have a handler.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Tasks for all the others.
    others: Vec<AbortHandle>,
}

impl Signals {
    /// Handles signals from now on, those first that were held back until now: SIGHUP by `hang_up`. To be called in a
    /// runtime with local tasks.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub(crate) fn new(mut hang_up: impl FnMut() + 'static) -> io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        let mut signals = Self { terminate: signal(terminate)?, interrupt: signal(interrupt)?, others: Vec::new() };
        let mut hang_ups = signal(SignalKind::hangup())?;
        let hang_up = async move {
            while hang_ups.recv().await.is_some() {
                hang_up();
            }
        };
        signals.others.push(tokio::task::spawn_local(hang_up).abort_handle());
        let handled = [terminate, interrupt, SignalKind::hangup()];
        let others = HELD.map(SignalKind::from_raw).into_iter().filter(|kind| !handled.contains(kind));
        for kind in others {
            let task = tokio::task::spawn_local(ignore(kind, signal(kind)?));
            signals.others.push(task.abort_handle());
        }
        deliver();
        Ok(signals)
    }

    /// Waits for the next signal that ends the broker. Cancel safe.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.others.iter().for_each(AbortHandle::abort);
    }
}

/// Logs a signal each time it comes.
async fn ignore(kind: SignalKind, mut signal: Signal) {
    while signal.recv().await.is_some() {
        info!(signal = kind.as_raw_value(), "a signal that has no meaning here is ignored");
    }
}
