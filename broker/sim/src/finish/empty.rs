//! What is left when all clients are gone.

use std::collections::BTreeMap;

use broker::capacity::budget::Held;

use super::MILLIS;
use crate::model::Violation;
use crate::run::Run;

impl Run<'_> {
    /// Time passes until everything is forgotten that may be.
    pub(super) fn grow_old(&mut self) -> Result<(), Violation> {
        for _ in 0..50 {
            self.round()?;
            self.world.advance(20_000 * MILLIS);
        }
        self.come_to_rest(2 * MILLIS)
    }

    /// What is left when all clients are gone, and all is forgotten that is too old: what topics remember by their rules.
    fn check_remembered(&mut self) -> Result<(), Violation> {
        let property = "nothing stays behind but what rules say";
        let (mut topics, mut messages) = (0, BTreeMap::new());
        for (shard, running) in self.shards.iter_mut().enumerate() {
            let audit = running.as_mut().expect("no shard has ended").audit();
            let kept = self.shared.stats[shard].snapshot().topics;
            if kept != audit.remembering {
                let evidence = format!("shard {shard}: {kept} topics, {} remember something", audit.remembering);
                return Err(Violation::new(property, evidence));
            }
            if audit.responders > 0 {
                return Err(Violation::new(property, format!("shard {shard}: {} responders", audit.responders)));
            }
            if audit.sessions + audit.present > 0 {
                let evidence = format!("shard {shard}: {} sessions, {} present", audit.sessions, audit.present);
                return Err(Violation::new(property, evidence));
            }
            topics += kept;
            messages.extend(audit.messages);
        }
        if self.shared.registry.len() as u64 != topics {
            let evidence = format!("{topics} topics, {} names", self.shared.registry.len());
            return Err(Violation::new(property, evidence));
        }
        let endless = self.params.rules.iter().any(|rule| rule.is_window() && rule.ttl == 0);
        if !endless && self.shared.history_usage.window_bytes() > 0 {
            let evidence = format!("{} bytes of windows", self.shared.history_usage.window_bytes());
            return Err(Violation::new(property, evidence));
        }
        let budget = &self.shared.budget;
        let (found, charged) = (messages.values().sum::<u64>(), budget.held(Held::Messages));
        // A message may hold frames besides, until it is forgotten.
        if found > charged || (found == 0 && charged > 0) {
            return Err(Violation::new(property, format!("{found} bytes of messages, {charged} charged")));
        }
        self.counted.remembering += topics;
        self.shards.iter_mut().for_each(|shard| *shard = None);
        Ok(())
    }

    pub(super) fn check_empty(&mut self) -> Result<(), Violation> {
        let property = "nothing stays behind";
        for (shard, stats) in self.shared.stats.iter().enumerate() {
            let stats = stats.snapshot();
            let gauges = [
                ("connections", stats.connections),
                ("subscriptions", stats.subscriptions),
                ("logs", stats.logs),
                ("log_bytes", stats.log_bytes),
                ("responders", stats.responders),
                ("requests_waiting", stats.requests_waiting),
            ];
            if let Some((gauge, value)) = gauges.iter().find(|(_, value)| *value != 0) {
                return Err(Violation::new(property, format!("shard {shard}: {gauge} is {value}")));
            }
            self.check_reasons()?;
            if stats.accepted + stats.adopted != stats.closed {
                let evidence = format!(
                    "shard {shard}: {} accepted, {} adopted, {} closed",
                    stats.accepted, stats.adopted, stats.closed
                );
                return Err(Violation::new(property, evidence));
            }
        }
        if !self.shared.addresses.is_empty() {
            let evidence = format!("{} addresses count as connected", self.shared.addresses.len());
            return Err(Violation::new(property, evidence));
        }
        if self.shared.admission.http() != 0 {
            return Err(Violation::new(property, format!("{} HTTP connections", self.shared.admission.http())));
        }
        if self.shared.admission.open() != 0 {
            return Err(Violation::new(property, format!("{} WebSockets count as open", self.shared.admission.open())));
        }
        self.check_remembered()?;
        // Tokens that were seen are forgotten with the rules before.
        if let Some(access) = &self.params.access {
            self.read_again(access);
        }
        if self.shared.budget.used() != self.operator.as_ref().map_or(0, |operator| operator.held) {
            let held = Held::ALL.map(|held| (held.label(), self.shared.budget.held(held)));
            return Err(Violation::new(property, format!("bytes are charged: {held:?}")));
        }
        if !self.shared.registry.is_empty() {
            return Err(Violation::new(property, format!("{} names in the registry", self.shared.registry.len())));
        }
        Ok(())
    }
}
