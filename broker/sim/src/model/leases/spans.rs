//! Between when and when a session had a lease, for certain and possibly.

use std::collections::BTreeMap;

use super::super::presence::{At, Presence, SessionId};
use super::{Ask, Command, Got, Grant, Leases};

/// From a moment to another, the latter not included.
pub(super) type Span = (At, At);

/// When sessions had leases, worked out from all that is known.
#[derive(Debug)]
pub(super) struct Times<'a> {
    pub(super) presence: &'a Presence,
    leases: BTreeMap<(usize, u64), Had>,
    /// Topic, session, and when it may have had a lease whose number nobody heard of.
    unheard: Vec<(usize, SessionId, Span)>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Had {
    pub(super) session: SessionId,
    /// From when on it may have had it.
    pub(super) begin: At,
    /// Until when it had it for certain.
    pub(super) certain: At,
    /// Until when it may have had it.
    pub(super) possible: At,
}

impl<'a> Times<'a> {
    pub(super) fn of(leases: &Leases, presence: &'a Presence) -> Self {
        let had = |(&(topic, number), grant): (&(usize, u64), &Grant)| {
            let had = Had {
                session: grant.session,
                begin: leases.possible_begin(topic, number, grant),
                certain: leases.certain_end(topic, number, presence),
                possible: leases.possible_end(topic, number, presence),
            };
            ((topic, number), had)
        };
        let unheard = leases.commands.iter().filter(|command| leases.may_have_got(command, command.topic));
        let unheard = unheard.map(|command| {
            let over = presence.over(command.session).unwrap_or(At::NEVER);
            (command.topic, command.session, (command.from, over))
        });
        Self { presence, leases: leases.grants.iter().map(had).collect(), unheard: unheard.collect() }
    }

    pub(super) fn had(&self, topic: usize, number: u64) -> Had {
        self.leases[&(topic, number)]
    }

    /// Those of a topic, by their numbers.
    pub(super) fn on(&self, topic: usize) -> impl Iterator<Item = (u64, &Had)> {
        self.leases.range((topic, 0)..(topic + 1, 0)).map(|(&(_, number), had)| (number, had))
    }

    /// When sessions other than this may have had the lease of a topic, of those whose member has this name, if one is given.
    pub(super) fn others(&self, topic: usize, but: SessionId, by: Option<&str>) -> Vec<Span> {
        let fits = |session: SessionId| session != but && by.is_none_or(|by| self.presence.member_of(session) == by);
        let known = self.on(topic).filter(|(_, had)| fits(had.session)).map(|(_, had)| (had.begin, had.possible));
        let unheard = self.unheard.iter().filter(|&&(of, session, _)| of == topic && fits(session));
        let mut spans: Vec<Span> =
            known.chain(unheard.map(|&(_, _, span)| span)).filter(|(from, to)| from < to).collect();
        spans.sort();
        spans
    }
}

impl Leases {
    /// The commands that have got, kept or renewed a lease by its number.
    pub(super) fn keeping(&self, topic: usize, number: u64) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(move |command| command.topic == topic && command.granted() == Some(number))
    }

    /// The commands of a session by which it may have got or renewed the lease of a topic: nobody answered them.
    pub(super) fn unheard(&self, session: SessionId, topic: usize) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(move |command| {
            let is_its = command.session == session && command.topic == topic && command.got.is_none();
            is_its && !matches!(command.ask, Ask::Release { .. })
        })
    }

    /// The command by which a lease lasts as long as it does: the last one. All were carried out before it was over.
    pub(super) fn kept_by(&self, topic: usize, number: u64) -> Option<&Command> {
        self.keeping(topic, number).max_by_key(|command| command.from)
    }

    /// Until when a lease had not run out for certain, if nothing else ended it.
    pub(super) fn lasts(&self, topic: usize, number: u64) -> At {
        let Some(last) = self.kept_by(topic, number) else { return At::default() };
        // One that was not answered may have been carried out.
        let unheard = self.unheard(last.session, topic).filter(|command| command.from > last.from);
        let ends = unheard.chain([last]).map(|command| command.since + command.ttl());
        At(ends.min().unwrap_or(0), 0)
    }

    /// When its session was about to give a lease back.
    fn giving_back(&self, topic: usize, number: u64) -> At {
        let gives = |command: &&Command| {
            command.topic == topic && command.ask == Ask::Release { number } && command.got != Some(Got::NotFound)
        };
        self.commands.iter().filter(gives).map(|command| command.from).min().unwrap_or(At::NEVER)
    }

    /// Until when a session had a lease for certain.
    fn certain_end(&self, topic: usize, number: u64, presence: &Presence) -> At {
        let session = self.grants[&(topic, number)].session;
        let kept = presence.kept_until(session);
        self.lasts(topic, number).min(kept).min(self.giving_back(topic, number))
    }

    /// From when on a session may have had a lease: it may have got it by a command that was not answered, or whose answer another
    /// connection of the session was ahead of.
    fn possible_begin(&self, topic: usize, number: u64, grant: &Grant) -> At {
        let unheard = self.commands.iter().filter(|command| {
            command.session == grant.session && self.may_have_got(command, topic) && command.from < grant.heard
        });
        let taking = self.keeping(topic, number).filter(|command| command.takes());
        let first = self.commands[grant.command].from;
        unheard.chain(taking).map(|command| command.from).fold(first, At::min)
    }

    /// When a lease ran out, if its client was connected and nobody else went on with its session.
    fn runs_out(&self, topic: usize, number: u64, presence: &Presence) -> Option<At> {
        let grant = &self.grants[&(topic, number)];
        let client = self.commands[grant.command].client;
        if !presence.is_alone(grant.session) || self.unheard(grant.session, topic).next().is_some() {
            return None;
        }
        let last = self.kept_by(topic, number).and_then(|command| Some(command.to?.0 + command.ttl()))?;
        let over = presence.all_are_past(last)?;
        (presence.alive_until(client).0 >= over).then_some(At(over, u64::MAX))
    }

    /// Until when a session may have had a lease.
    fn possible_end(&self, topic: usize, number: u64, presence: &Presence) -> At {
        let grant = &self.grants[&(topic, number)];
        let gone = |command: &&Command| {
            let of = command.topic == topic && command.session == grant.session;
            let is_over = match command.ask {
                Ask::Release { number: asked } => {
                    asked == number && matches!(command.got, Some(Got::Released | Got::NotFound))
                }
                Ask::Renew { number: asked, .. } => asked == number && command.got == Some(Got::NotFound),
                Ask::Take { .. } => false,
            };
            // Before the client knew its number it could not ask so.
            of && is_over && command.from > grant.heard
        };
        let ends = [
            presence.over(grant.session),
            self.runs_out(topic, number, presence),
            self.commands.iter().filter(gone).filter_map(|command| command.to).min(),
            self.losses
                .iter()
                .find(|loss| (loss.topic, loss.number) == (topic, number) && loss.reason == "expired")
                .map(|loss| loss.at),
            self.superseded(topic, number),
        ];
        ends.into_iter().flatten().min().unwrap_or(At::NEVER)
    }

    /// When it was known that a lease is over, because there is another one or none.
    pub(super) fn superseded(&self, topic: usize, number: u64) -> Option<At> {
        let next = self.grants.range((topic, number + 1)..(topic + 1, 0)).map(|(_, grant)| grant.heard).min();
        let shown = self.shown.iter().filter(|shown| {
            let later = shown.holder.as_ref().is_some_and(|(_, later)| *later > number);
            let free = shown.holder.is_none() && shown.before.is_some_and(|before| before >= number);
            shown.topic == topic && (later || free)
        });
        next.into_iter().chain(shown.map(|shown| shown.at)).min()
    }
}

/// Whether spans, in order, leave no moment out between two.
pub(super) fn covers(spans: &[Span], (from, to): Span) -> bool {
    let mut reached = from;
    for &(begins, ends) in spans {
        if begins > reached {
            break;
        }
        reached = reached.max(ends);
    }
    reached >= to
}
