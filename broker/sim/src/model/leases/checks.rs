//! What was said of leases, against what can have been: judged at the end.

use super::super::order::Position;
use super::super::presence::{At, Presence};
use super::super::{MessageId, Violation};
use super::spans::{Times, covers};
use super::{Ask, Command, Got, LOST, Leases, NUMBERS, Published};

const FREE: &str = "a lease is given on only when it is free";
const HELD: &str = "who does not get a lease is kept out by somebody";
const THERE: &str = "a lease is there exactly while it was not given back, lost or over";
const EXCLUSIVE: &str = "an exclusive topic is published to under its current lease";

impl Leases {
    /// Judges what is past. Returns how often somebody who waited was before somebody else.
    ///
    /// # Errors
    /// Something that cannot have been.
    pub fn settle(&self, presence: &Presence) -> Result<u64, Violation> {
        let times = &Times::of(self, presence);
        self.check_grants(times)?;
        self.commands.iter().try_for_each(|command| self.check_command(command, times))?;
        self.check_losses()?;
        self.check_shown(presence)?;
        self.published.values().try_for_each(|published| self.check_published(published, times))?;
        self.check_queues(times)
    }

    fn check_grants(&self, times: &Times<'_>) -> Result<(), Violation> {
        for (&(topic, number), grant) in &self.grants {
            let later = || self.grants.range((topic, number + 1)..(topic + 1, 0));
            if let Some((&(_, other), before)) = later().find(|(_, later)| later.heard < times.had(topic, number).begin)
            {
                let evidence = format!("{number} of topic {topic} is later than {other}: {grant:?}, {before:?}");
                return Err(Violation::new(NUMBERS, evidence));
            }
            let until = times.had(topic, number).certain;
            if let Some(over) = self.superseded(topic, number)
                && over < until
            {
                let next = later().next();
                let first = &self.commands[grant.command];
                let evidence = format!(
                    "{number} of topic {topic} was had until {until:?}, and is over at {over:?}, by {next:?}: {first:?}"
                );
                return Err(Violation::new(FREE, evidence));
            }
        }
        Ok(())
    }

    fn check_command(&self, command: &Command, times: &Times<'_>) -> Result<(), Violation> {
        let (Some(to), Some(got)) = (command.to, &command.got) else { return Ok(()) };
        match (command.ask, got) {
            (Ask::Take { .. }, Got::Held(by)) => self.check_held(command, to, by, times),
            (_, Got::Granted(number)) => self.check_granted(command, *number, times),
            (Ask::Release { number }, Got::Released) => self.check_there(command, number, times),
            (Ask::Renew { number, .. } | Ask::Release { number }, Got::NotFound) => {
                self.check_missing(command, to, number, times)
            }
            _ => Ok(()),
        }
    }

    /// Somebody else had it; for one that waits, all the while.
    fn check_held(&self, command: &Command, to: At, by: &str, times: &Times<'_>) -> Result<(), Violation> {
        let Command { session, topic, from, .. } = *command;
        let over = At(command.since + command.wait(), from.1);
        let bad = |what: &str| {
            let others = times.others(topic, session, None);
            Err(Violation::new(HELD, format!("{what}: {command:?}, others had it {others:?}")))
        };
        let is_asked_again = self.asks_again(command, to);
        let undisturbed = !is_asked_again && !times.presence.is_contested(command.client);
        if undisturbed && to < over {
            return bad("it did not wait");
        }
        let span = if undisturbed { (over, to) } else { (from, to) };
        let met = times.others(topic, session, Some(by));
        if !met.iter().any(|&(begins, ends)| begins <= span.1 && ends >= span.0) {
            return bad("nobody of this name had it");
        }
        if let Some(queued) = self.queued(command).filter(|_| undisturbed)
            && queued < over
            && !covers(&times.others(topic, session, None), (queued, over))
        {
            return bad("nobody had it meanwhile");
        }
        Ok(())
    }

    /// Whether the client asked again while it waited.
    pub(super) fn asks_again(&self, command: &Command, to: At) -> bool {
        self.commands.iter().any(|other| {
            other.client == command.client
                && other.topic == command.topic
                && other.takes()
                && other.from > command.from
                && other.from < to
                && other.wait() > 0
        })
    }

    /// A lease that was over is not renewed, and not given again by the same number; nobody gets one after its wait.
    fn check_granted(&self, command: &Command, number: u64, times: &Times<'_>) -> Result<(), Violation> {
        let topic = command.topic;
        let grant = &self.grants[&(topic, number)];
        if command.from > grant.heard {
            self.check_there(command, number, times)?;
            let before = self.keeping(topic, number).filter(|other| other.from < command.from);
            let before = before.max_by_key(|other| other.from);
            let unknown = self.unheard(command.session, topic).next().is_some();
            let over = before.and_then(|other| Some(other.to?.0 + other.ttl())).unwrap_or(u64::MAX);
            if command.since > over && !unknown && times.presence.is_alone(command.session) {
                return Err(Violation::new(THERE, format!("it was over at {over}: {command:?}")));
            }
        }
        let waited = self.queued(command).map(|queued| queued.0 + command.wait());
        let mut before = times.on(topic).filter(|(other, had)| *other < number && had.session != command.session);
        if let Some(waited) = waited
            && let Some((had, _)) = before.find(|(_, had)| times.presence.slowest_at(had.certain.0) > waited)
        {
            return Err(Violation::new(HELD, format!("{had} lasted until its wait was over: {command:?}")));
        }
        Ok(())
    }

    fn check_there(&self, command: &Command, number: u64, times: &Times<'_>) -> Result<(), Violation> {
        let Some(grant) = self.grants.get(&(command.topic, number)) else {
            let knows = self
                .commands
                .iter()
                .any(|other| other.session == command.session && self.may_have_got(other, command.topic));
            return match knows {
                true => Ok(()),
                false => Err(Violation::new(THERE, format!("nobody was given it: {command:?}"))),
            };
        };
        let until = times.had(command.topic, number).possible;
        if grant.session != command.session || until < command.from {
            return Err(Violation::new(THERE, format!("over at {until:?}: {command:?}, {grant:?}")));
        }
        Ok(())
    }

    fn check_missing(&self, command: &Command, to: At, number: u64, times: &Times<'_>) -> Result<(), Violation> {
        let Some(grant) = self.grants.get(&(command.topic, number)) else { return Ok(()) };
        let is_its = grant.session == command.session && !times.presence.is_contested(command.client);
        if is_its && grant.heard < command.from && times.had(command.topic, number).certain > to {
            return Err(Violation::new(THERE, format!("it was there: {command:?}, {grant:?}")));
        }
        Ok(())
    }

    fn check_losses(&self) -> Result<(), Violation> {
        for loss in self.losses.iter().filter(|loss| loss.reason == "expired") {
            let lasts = self.lasts(loss.topic, loss.number);
            if lasts > loss.at {
                return Err(Violation::new(LOST, format!("it lasted until {lasts:?}: {loss:?}")));
            }
        }
        Ok(())
    }

    /// Watchers are shown numbers that somebody of that name may have.
    fn check_shown(&self, presence: &Presence) -> Result<(), Violation> {
        for shown in &self.shown {
            let Some((by, number)) = &shown.holder else { continue };
            let of = |session| presence.member_of(session) == by;
            let fits = match self.grants.get(&(shown.topic, *number)) {
                Some(grant) => of(grant.session),
                None => self.commands.iter().any(|command| {
                    self.may_have_got(command, shown.topic) && of(command.session) && command.from < shown.at
                }),
            };
            if !fits || shown.before.is_some_and(|before| before > *number) {
                return Err(Violation::new("watchers are shown who has a lease", format!("{shown:?}")));
            }
        }
        Ok(())
    }

    // ---- exclusive topics

    fn check_published(&self, published: &Published, times: &Times<'_>) -> Result<(), Violation> {
        let Published { topic, number, from, answered, is_exclusive } = *published;
        let Some((to, refused)) = answered.filter(|_| is_exclusive) else { return Ok(()) };
        let bad = |what: String| Err(Violation::new(EXCLUSIVE, format!("{what}: {published:?}")));
        let grant = number.and_then(|number| Some((number, self.grants.get(&(topic, number))?)));
        match (refused, grant) {
            (true, Some((number, grant))) => {
                let until = times.had(topic, number).certain;
                if grant.heard < from && until > to { bad(format!("it was had until {until:?}")) } else { Ok(()) }
            }
            (true, None) => Ok(()),
            (false, None) => {
                let unheard = self.commands.iter().any(|command| self.may_have_got(command, topic));
                if number.is_some() && unheard { Ok(()) } else { bad("under no lease".to_owned()) }
            }
            (false, Some((number, _))) => {
                let until = times.had(topic, number).possible;
                if until < from { bad(format!("it was over at {until:?}")) } else { Ok(()) }
            }
        }
    }

    /// The messages of an exclusive topic, in their order: those of two leases never mix.
    pub(in crate::model) fn check_order(&self, placed: &[(Position, MessageId)]) -> Result<(), Violation> {
        let known = placed.iter().filter_map(|&(place, id)| Some((place, id, self.published.get(&id)?.number?)));
        let known: Vec<_> = known.collect();
        match known.windows(2).find(|pair| pair[0].0.epoch == pair[1].0.epoch && pair[0].2 > pair[1].2) {
            Some(pair) => {
                let evidence = format!("{:?} comes before {:?}", pair[0], pair[1]);
                Err(Violation::new("messages of two leases never mix", evidence))
            }
            None => Ok(()),
        }
    }
}
