//! Who waits for a lease, and since when for certain: the first gets it.
//!
//! That a command waits is not answered. But a client's commands about one topic are carried out in their order: once a later one
//! is answered, the earlier one waits. One that asks again keeps its place, and its older command is answered with `held`.
//!
//! A command without an answer may have got the lease all the same: its answer was still on its way when the connection ended. Then
//! there is a number that no client was answered with.

use super::super::Violation;
use super::super::presence::{At, Presence};
use super::spans::Times;
use super::{Command, Got, Leases};

impl Leases {
    /// Since when a command has waited for certain.
    pub(super) fn queued(&self, command: &Command) -> Option<At> {
        if command.wait() == 0 {
            return None;
        }
        let of = |other: &&Command| other.client == command.client && other.topic == command.topic;
        let later = self.commands.iter().filter(of).filter(|other| other.from > command.from);
        let seen = later.filter(|other| other.got != Some(Got::Refused)).filter_map(|other| other.to).min();
        // The one before it whose place it has.
        let before = self.commands.iter().filter(of).filter(|other| other.from < command.from && other.wait() > 0);
        let place = before.filter_map(|other| {
            let to = other.to.filter(|to| to.0 < other.since + other.wait())?;
            let is_held = matches!(other.got, Some(Got::Held(_)));
            let is_next = !self.commands.iter().filter(of).any(|between| {
                between.takes() && between.wait() > 0 && between.from > other.from && between.from < command.from
            });
            (is_held && is_next && to > command.from).then_some(to)
        });
        let place = place.min();
        seen.into_iter().chain(place).min().filter(|queued| command.to.is_none_or(|to| *queued < to))
    }

    /// Until when a command waited for certain; one that got it did until then, whenever that was.
    fn waits_until(&self, command: &Command, presence: &Presence) -> At {
        if command.granted().is_some() {
            return At::NEVER;
        }
        let over = At(command.since + command.wait(), 0);
        let alive = presence.alive_until(command.client);
        command.to.unwrap_or(At::NEVER).min(over).min(alive)
    }

    /// Whether a command may have got the lease before it was given by this number: by one that was given after it asked, that no
    /// client was answered with, and that watchers were not shown as another's.
    fn may_have_got_before(&self, command: &Command, number: u64, presence: &Presence) -> bool {
        let topic = command.topic;
        if !self.may_have_got(command, topic) {
            return false;
        }
        let of_topic = self.shown.iter().filter(|shown| shown.topic == topic);
        let shown = of_topic.filter_map(|shown| shown.holder.as_ref().map(|(by, number)| (by, *number, shown.at)));
        let heard = self.grants.range((topic, 0)..(topic, number)).map(|(&(_, known), grant)| (known, grant.heard));
        let known = heard.chain(shown.clone().map(|(_, known, at)| (known, at)));
        let given = known.filter(|&(_, at)| at < command.from).map(|(known, _)| known).max().unwrap_or(0);
        let member = presence.member_of(command.session);
        let is_anothers = |other: u64| shown.clone().any(|(by, shown, _)| shown == other && by != member);
        (given + 1..number).rev().any(|other| !self.grants.contains_key(&(topic, other)) && !is_anothers(other))
    }

    /// From when on a command may have waited: it may have the place of one before it.
    fn came(&self, command: &Command) -> At {
        let mut came = command.from;
        let before = self.commands.iter().rev().filter(|other| {
            other.session == command.session && other.topic == command.topic && other.from < command.from
        });
        for other in before.filter(|other| other.wait() > 0) {
            if other.to.is_none_or(|to| to > came) {
                came = other.from;
            }
        }
        came
    }

    /// Nobody who came later got it while somebody waited. Returns how often somebody got it before who came later.
    pub(super) fn check_queues(&self, times: &Times<'_>) -> Result<u64, Violation> {
        let (presence, mut turns) = (times.presence, 0);
        let waiting = self.commands.iter().filter_map(|command| Some((command, self.queued(command)?)));
        for (first, queued) in waiting.filter(|(first, _)| !presence.is_contested(first.client)) {
            let until = self.waits_until(first, presence);
            for (&(_, number), grant) in self.grants.range((first.topic, 0)..(first.topic + 1, 0)) {
                let came = self.came(&self.commands[grant.command]).min(times.had(first.topic, number).begin);
                let came_later = grant.session != first.session && came > queued;
                if !came_later {
                    continue;
                }
                let is_before = first.granted().is_none_or(|own| number < own);
                if is_before && grant.heard < until && !self.may_have_got_before(first, number, presence) {
                    let evidence = format!(
                        "{number} went to {:?}, although since {queued:?} there waited {first:?}",
                        self.commands[grant.command]
                    );
                    return Err(Violation::new("who waits first gets the lease first", evidence));
                }
                turns += u64::from(first.granted().is_some() && !is_before);
            }
        }
        Ok(turns)
    }
}
