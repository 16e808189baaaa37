//! Waits for the reports of the workers, and handles them.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use crossbeam::channel::RecvTimeoutError;

use super::Run;
use super::rows::SECOND_NS;
use crate::clock::monotonic;
use crate::outcome::Phase;
use crate::worker::{Command, Report};

impl Run {
    pub(super) fn wait_until(&mut self, at: u64) -> Result<()> {
        while monotonic() < at && !self.is_over() {
            self.wait(at.min(self.next_row))?;
        }
        Ok(())
    }

    /// Takes one report, or asks for a row when that is due. Returns at `until` at the latest.
    pub(super) fn wait(&mut self, until: u64) -> Result<()> {
        let now = monotonic();
        if now >= self.next_row && !self.asked {
            self.ask();
        }
        // Short enough to notice a signal.
        let wait = Duration::from_nanos(until.saturating_sub(now).clamp(1_000, 50_000_000));
        match self.reports.recv_timeout(wait) {
            Ok(report) => self.on(report),
            Err(RecvTimeoutError::Timeout) => match self.threads.iter().position(JoinHandle::is_finished) {
                Some(worker) if self.reports.is_empty() => bail!("worker {worker} ended before its time"),
                _ => Ok(()),
            },
            Err(RecvTimeoutError::Disconnected) => bail!("all workers ended"),
        }
    }

    fn ask(&mut self) {
        self.asked = true;
        self.gathering.clear();
        self.send_all(&Command::Snapshot);
    }

    /// Makes a row now, whatever time it is.
    pub(super) fn row(&mut self) -> Result<()> {
        if !self.asked {
            self.ask();
        }
        while self.asked {
            self.wait(monotonic() + SECOND_NS)?;
        }
        Ok(())
    }

    fn on(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Complete(worker, at) => {
                self.incomplete.remove(&(worker as usize));
                let complete = self.incomplete.is_empty() && self.unstormed == 0;
                if let Some(since) = self.missing_since.take_if(|_| complete) {
                    self.storm_seconds.push(at.saturating_sub(since) as f64 / 1e9);
                }
            }
            Report::Incomplete(worker, at) => {
                // Subscriptions that come and go one by one are not a storm.
                let churns = self.plan.options.churn.is_some_and(|churn| churn > 0.0);
                let alone = churns || self.plan.recovers() || self.plan.late() || self.storm.is_some();
                if self.incomplete.is_empty() && self.phase != Phase::Connect && !alone {
                    self.missing_since = Some(at);
                }
                self.incomplete.insert(worker as usize);
            }
            Report::Stormed(worker) => {
                self.unstormed -= 1;
                self.incomplete.insert(worker as usize);
            }
            Report::Snapshot(snapshot) => {
                self.gathering.insert(snapshot.worker, snapshot);
                if self.gathering.len() == self.shared.commands.len() {
                    self.make_row();
                }
            }
            Report::Published(streams) => {
                self.published.extend(streams);
                self.published_workers += 1;
            }
            Report::Left => self.left_workers += 1,
            Report::Arrived(at) => {
                let (workers, last) = self.arrived_workers;
                self.arrived_workers = (workers + 1, last.max(at));
            }
            Report::Drained => self.drained_workers += 1,
            Report::Failed(worker, error) => bail!("worker {worker}: its ring failed: {error}"),
        }
        Ok(())
    }
}
