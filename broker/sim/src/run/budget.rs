//! What must be true of memory after every turn of a shard.

use std::collections::BTreeMap;

use broker::capacity::budget::{Held, Level};

use super::Run;
use crate::model::Violation;

/// More messages than this are not looked at after every step.
const KEPT_MANY: usize = 400;
/// Bytes that the publishers of one shard may add to the logs of another before they wait: what they publish in a turn.
const LOG_SLACK: u64 = 32 << 10;
/// Bytes that one shard may add to histories beyond their bound in a turn: its longest message, with all around it.
const HISTORY_SLACK: u64 = 256 << 10;

impl Run<'_> {
    /// What is charged is what the structures hold, and not more than there may be.
    pub(super) fn check_budget(&mut self) -> Result<(), Violation> {
        let budget = &self.shared.budget;
        self.counted.budget_high += u64::from(budget.level() != Level::Calm);
        // Beyond the bound: one message, and a frugal send to each connection.
        let sends = self.clients.len() as u64 * (40 << 10);
        let most = budget.bytes_max().saturating_add(2 * self.params.limits.message_bytes_max + sends);
        if budget.used() > most {
            let held = Held::ALL.map(|held| (held.label(), budget.held(held)));
            let evidence = format!("{} of {}: {held:?}", budget.used(), budget.bytes_max());
            return Err(Violation::new("memory stays within its budget", evidence));
        }
        // Looking at everything takes long when much is remembered.
        if self.kept > KEPT_MANY && !self.round.is_multiple_of(32) {
            return Ok(());
        }
        let (mut messages, mut evicted) = (BTreeMap::new(), 0);
        let log_max = self.params.limits.log_bytes_max;
        let longest = if self.params.huge_one_in > 0 { self.params.limits.message_bytes_max } else { 0 };
        let most = log_max + longest + LOG_SLACK.min(log_max) * u64::from(self.params.shards);
        for shard in self.shards.iter_mut().flatten() {
            let audit = shard.audit();
            self.counted.logs_high += u64::from(audit.logged_bytes >= log_max / 8 * 7);
            if audit.logged_bytes > most {
                let evidence = format!("{} bytes in the logs of a shard, {log_max} may be", audit.logged_bytes);
                return Err(Violation::new("a shard's logs stay within their bound", evidence));
            }
            audit.check().map_err(|evidence| Violation::new("what is charged is what is held", evidence))?;
            messages.extend(audit.messages);
            if audit.evicted > 0 {
                self.model.evicted();
            }
            evicted += audit.evicted;
        }
        self.kept = messages.len();
        self.counted.evicted = self.counted.evicted.max(evicted);
        let (usage, limits) = (&self.shared.history_usage, &self.params.limits);
        // State is never beyond its bounds, whichever shards it is on.
        let (entries, bytes) = (usage.state_entries(), usage.state_bytes());
        if entries > limits.keys_max as u64 || bytes > limits.history_bytes_max {
            let evidence =
                format!("{entries} of {} entries, {bytes} of {} bytes", limits.keys_max, limits.history_bytes_max);
            return Err(Violation::new("state stays within its bounds", evidence));
        }
        // Every shard may be so much beyond the bound before it waits for the others.
        let (bytes, most) = (usage.window_bytes() + usage.state_bytes(), self.params.limits.history_bytes_max);
        let beyond = (most / 16 + HISTORY_SLACK) * u64::from(self.params.shards);
        if bytes > most + beyond {
            let evidence = format!("{bytes} bytes, {most} may be, and {beyond} beyond that");
            return Err(Violation::new("histories stay within their bound", evidence));
        }
        let (held, charged) = (messages.values().sum::<u64>(), budget.held(Held::Messages));
        if held > charged {
            let evidence = format!("{held} bytes of messages in logs, {charged} charged");
            return Err(Violation::new("what is charged is what is held", evidence));
        }
        Ok(())
    }
}
