//! All clients at once, after publishing has ended: newcomers, which get the state, and clients that come back, each with a
//! position of its own. Nothing else happens meanwhile, so that the server's processor time is theirs alone.

use std::time::Duration;

use anyhow::Result;

use super::Run;
use crate::clock::monotonic;
use crate::outcome::Arrival;
use crate::usage::Server;
use crate::worker::Command;

/// After the last publication, or the last connection's end: what the server still does for it is not the arrivals'.
const SETTLE: Duration = Duration::from_secs(1);

impl Run {
    /// Clients that have waited for this connect.
    pub(super) fn newcomers(&mut self) -> Result<()> {
        if self.interrupted || self.ended.is_some() {
            return Ok(());
        }
        self.arrive(None)
    }

    /// All clients drop their connections and come back: without a position, to know what that costs, then with one.
    pub(super) fn come_back(&mut self) -> Result<()> {
        let Some(behind) = self.plan.options.behind.filter(|behind| *behind > 0) else { return Ok(()) };
        for behind in [None, Some(behind)] {
            if self.interrupted || self.ended.is_some() {
                return Ok(());
            }
            self.left_workers = 0;
            self.send_all(&Command::Leave);
            while self.left_workers < self.shared.commands.len() && !self.stopped_twice() {
                self.wait(self.next_row)?;
            }
            self.arrive(behind)?;
        }
        Ok(())
    }

    fn arrive(&mut self, behind: Option<u64>) -> Result<()> {
        self.wait_until(monotonic() + SETTLE.as_nanos() as u64)?;
        self.row()?;
        let (from, began) = (self.last.clone(), monotonic());
        let cpu = |run: &Self| run.server.as_ref().map(Server::cpu_ns);
        let server_from = cpu(self);
        self.arrived_workers = (0, began);
        self.send_all(&Command::Arrive { behind });
        while self.arrived_workers.0 < self.shared.commands.len() && !self.stopped_twice() {
            self.wait(self.next_row)?;
        }
        let server_to = cpu(self);
        self.row()?;
        let (counts, to) = (from.counts, self.last.counts);
        self.arrivals.push(Arrival {
            clients: to.opened - counts.opened,
            behind,
            seconds: self.arrived_workers.1.saturating_sub(began) as f64 / 1e9,
            messages: to.messages - counts.messages,
            bytes: to.bytes - counts.bytes,
            server_cpu_ns: server_from.zip(server_to).map(|(from, to)| to.saturating_sub(from)),
            own_cpu_ns: self.last.own_cpu_ns - from.own_cpu_ns,
        });
        Ok(())
    }
}
