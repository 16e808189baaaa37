//! What must be true of leases when all is quiet: what watchers and holders know is what is true.

use super::super::Violation;
use super::super::presence::{At, Presence};
use super::spans::Times;
use super::{LOST, Leases};

/// What a watcher of `$lease/{topic}` knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Panel {
    /// The name of who has it.
    pub by: String,
    /// By which number.
    pub number: u64,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

impl Leases {
    /// Compares what a watcher knows with what is true.
    ///
    /// # Errors
    /// It is not.
    pub fn check_panel(
        &self,
        topic: usize,
        panel: Option<&Panel>,
        (now, epoch_ms): (At, u64),
        presence: &Presence,
    ) -> Result<(), Violation> {
        if self.is_short {
            return Ok(());
        }
        let bad = |what: String| {
            Err(Violation::new("a watcher ends with who has the lease", format!("topic {topic}, {panel:?}: {what}")))
        };
        let times = Times::of(self, presence);
        let holder = times.on(topic).find(|(_, had)| had.certain > now);
        match (panel, holder) {
            (None, Some(holder)) => bad(format!("{holder:?} has it")),
            (Some(panel), Some((number, _))) if panel.number != number => bad(format!("{number} is had")),
            (Some(panel), Some((number, _))) if self.is_connected(topic, number, now, presence) => {
                let ms = |nanos: u64| epoch_ms + nanos / 1_000_000;
                let least = ms(self.lasts(topic, number).0);
                let last = self.kept_by(topic, number);
                let most = last.and_then(|command| Some(command.to?.0 + command.ttl())).unwrap_or(u64::MAX >> 1);
                let most = ms(most);
                let fits = panel.until_ms >= least && panel.until_ms <= most + 1;
                if fits { Ok(()) } else { bad(format!("it lasts from {least} to {most}")) }
            }
            (Some(panel), None) => {
                let may = match self.grants.get(&(topic, panel.number)) {
                    Some(_) => times.had(topic, panel.number).possible > now,
                    None => self
                        .commands
                        .iter()
                        .any(|command| self.may_have_got(command, topic) && presence.over(command.session).is_none()),
                };
                if may { Ok(()) } else { bad("it is free".to_owned()) }
            }
            _ => Ok(()),
        }
    }

    /// Whether the connection that was given a lease is there, and has had its session all the time.
    fn is_connected(&self, topic: usize, number: u64, now: At, presence: &Presence) -> bool {
        let grant = &self.grants[&(topic, number)];
        let client = self.commands[grant.command].client;
        presence.is_alone(grant.session) && presence.alive_until(client).0 == now.0
    }

    /// A client that is there, and knows of a lease that was not said to be lost, still has it.
    ///
    /// # Errors
    /// It has not.
    pub fn check_holder(
        &self,
        client: usize,
        (topic, number): (usize, u64),
        now: At,
        presence: &Presence,
    ) -> Result<(), Violation> {
        if presence.is_contested(client) || !self.grants.contains_key(&(topic, number)) {
            return Ok(());
        }
        let until = Times::of(self, presence).had(topic, number).possible;
        match until < now {
            true => {
                let evidence =
                    format!("client {client} did not learn: {number} of topic {topic} is over since {until:?}");
                Err(Violation::new(LOST, evidence))
            }
            false => Ok(()),
        }
    }
}
