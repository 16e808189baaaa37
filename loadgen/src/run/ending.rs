//! What ends a run before its time: a signal, a server that takes no more clients, a server that has ended, and clients that
//! have all lost their connections. Times are monotonic nanoseconds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Run;
use crate::clock::monotonic;
use crate::format::{count, seconds};
use crate::options::Rate;
use crate::outcome::Phase;
use crate::usage::Server;
use crate::worker::Command;

/// A process that ends closes its connections first. So long after the last of them it is looked for again.
const END_OF_PROCESS: Duration = Duration::from_millis(100);

impl Run {
    pub(super) fn stopped(&mut self) -> bool {
        self.interrupted |= self.interrupt.load(Ordering::Relaxed);
        self.interrupted
    }

    /// Whether a signal came while draining: then the drain ends early.
    pub(super) fn stopped_twice(&mut self) -> bool {
        !self.interrupted && self.stopped()
    }

    /// From the first connect to the last connection that became open.
    pub(super) fn connect_seconds(&self) -> f64 {
        self.shared.opened_at.load(Ordering::Relaxed).saturating_sub(self.started) as f64 / 1e9
    }

    /// Gives up the missing clients when none was connected for `--stall-timeout`.
    pub(super) fn check_progress(&mut self) {
        let options = &self.plan.options;
        let limit = options.stall_timeout.as_secs_f64();
        // A slow ramp leaves pauses.
        let pause = match options.ramp {
            Some(Rate::PerSecond(rate)) => f64::from(options.share.of) / rate,
            _ => 0.0,
        };
        let since = self.shared.opened_at.load(Ordering::Relaxed).max(self.started);
        let quiet = monotonic().saturating_sub(since) as f64 / 1e9;
        if limit > 0.0 && self.stalled.is_none() && !self.incomplete.is_empty() && quiet > limit + pause {
            self.stalled = Some(format!("no new client in {}", seconds(quiet)));
            self.send_all(&Command::GiveUp);
        }
    }

    /// How many clients the server took, when it took no more.
    pub(super) fn stall_in_words(&self) -> Option<String> {
        let why = self.stalled.as_ref()?;
        let (opened, asked) = (count(self.last.counts.opened), count(self.plan.own_clients.1));
        Some(format!("the server took {opened} of {asked} clients: {why}"))
    }

    /// Whether there is nothing left to measure, after a signal too.
    pub(super) fn is_over(&mut self) -> bool {
        if matches!(self.phase, Phase::WarmUp | Phase::Measure) && self.ended.is_none() {
            self.check_server();
            self.check_clients();
        }
        self.stopped() || self.ended.is_some()
    }

    fn check_server(&mut self) {
        if self.server_ended_at.is_some() || !self.server.as_ref().is_some_and(Server::has_ended) {
            return;
        }
        let now = monotonic();
        self.server_ended_at = Some(now);
        if !self.plan.options.reconnect {
            self.ended = Some((now, format!("the server ended {} after the start", self.since_start(now))));
        }
    }

    fn check_clients(&mut self) {
        if self.ended.is_some() || self.shared.remaining.load(Ordering::Acquire) > 0 || self.plan.own_clients.1 == 0 {
            return;
        }
        let at = self.shared.left_at.load(Ordering::Relaxed);
        if self.server.is_some() {
            std::thread::sleep(END_OF_PROCESS);
            self.check_server();
        }
        let why = match self.server_ended_at {
            Some(_) => format!("the server ended {} after the start", self.since_start(at)),
            None => format!("the last client lost its connection {} after the start", self.since_start(at)),
        };
        self.ended = Some((at, why));
    }

    fn since_start(&self, at: u64) -> String {
        seconds(at.saturating_sub(self.started) as f64 / 1e9)
    }
}
