//! Sessions and presence at the end: twice what watchers know is compared with what is true, before and after the graces of those
//! that have gone; then some come back too late.

use std::time::Duration;

use super::MILLIS;
use crate::model::{Judged, Violation};
use crate::run::Run;

impl Run<'_> {
    /// Everything has come to rest.
    pub(super) fn rest_present(&mut self) -> Result<(), Violation> {
        let Some(presence) = &self.params.presence else { return Ok(()) };
        self.check_present(false)?;
        self.outwait_graces(presence.grace)?;
        self.check_present(true)?;
        self.expect_wills();
        let past: Vec<_> = self.model.presence.past().collect();
        let (mut stage, clients) = self.stage();
        let mut past = past.into_iter().rev();
        let mut next = past.next();
        let mut late = 0;
        for client in clients {
            let Some(session) = next else { break };
            if client.return_late(session, &mut stage) {
                late += 1;
                next = past.next();
            }
        }
        self.counted.sessions_late += late;
        let ended = self.ended();
        self.come_to_rest(2 * MILLIS)?;
        if self.ended() != ended {
            self.outwait_graces(presence.grace)?;
        }
        self.check_present(true)?;
        self.model.presence.settle()?;
        self.settle_leases()
    }

    /// Rounds until each session whose connection has ended is over, also of those that end meanwhile.
    fn outwait_graces(&mut self, grace: Duration) -> Result<(), Violation> {
        let step = 400 * MILLIS;
        let steps = (grace + self.params.limits.close_timeout).as_nanos() as u64 / step + 3;
        let mut ended = None;
        while ended != Some(self.ended()) {
            ended = Some(self.ended());
            for _ in 0..steps {
                self.round()?;
                self.world.advance(step);
            }
            self.come_to_rest(2 * MILLIS)?;
        }
        Ok(())
    }

    /// Wills that are due must have been published.
    fn expect_wills(&mut self) {
        let here: Vec<bool> = self.clients.iter().map(|client| client.is_well()).collect();
        let is_short = self.params.is_short();
        self.counted.wills_due += self.model.expect_wills(|client| here[client], is_short);
    }

    /// Judges leases and wills.
    pub(super) fn settle_leases(&mut self) -> Result<(), Violation> {
        let Judged { turns, cancelled, before_next } = self.model.settle_leases()?;
        self.counted.leases_in_turn += turns;
        self.counted.wills_cancelled += cancelled;
        self.counted.wills_before_next += before_next;
        Ok(())
    }

    fn check_present(&mut self, graces_are_over: bool) -> Result<(), Violation> {
        let here: Vec<bool> = self.clients.iter().map(|client| client.is_well()).collect();
        // Before the last connection is accepted, or answered, less is certain.
        self.model.presence.rests(|client| here[client], graces_are_over)?;
        self.check_resumable(&here)?;
        let (stage, clients) = self.stage();
        let mut stage = stage;
        let subscribers: Vec<_> = (0..stage.params.topics.len())
            .map(|topic| {
                let name = &stage.params.topics[topic];
                let count = |is_well: bool| -> u64 {
                    let there = clients.iter().filter(|client| client.is_well() == is_well);
                    there.map(|client| client.subscribers(name, &stage)).sum()
                };
                let (least, more) = (count(true), count(false));
                (least, least + more)
            })
            .collect();
        clients.iter().filter(|client| client.is_well()).try_for_each(|client| {
            client.check_views(&|topic| subscribers[topic], &mut stage)?;
            client.check_panels(&mut stage)?;
            client.check_held(&mut stage)
        })
    }

    /// No more sessions can be resumed than may be.
    fn check_resumable(&self, here: &[bool]) -> Result<(), Violation> {
        let Some(most) = self.params.presence.as_ref().and_then(|presence| presence.sessions_max) else {
            return Ok(());
        };
        // Each shard has its part.
        let most = most.div_ceil(self.shards.len()) * self.shards.len();
        let found = self.model.presence.resumable(|client| here[client]);
        match found > most {
            true => Err(Violation::new("no more sessions can be resumed than may be", format!("{found} of {most}"))),
            false => Ok(()),
        }
    }
}
