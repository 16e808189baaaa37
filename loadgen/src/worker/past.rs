//! Clients that come back with their positions, and newcomers that begin with a topic's state: what each of them has,
//! and whether what comes is what a history promises (`history` has the rules).
//!
//! A [`Member`] is a subscriber of a run with `--drops`, `--behind` or `--scenario keyed-state`, and one whose subscription
//! came with a policy for slow consumers or a throttle (`terms`). Of others only gaps, resets and state are understood:
//! [`Excuses`] says which holes the server announced.
//!
//! Cost of a message: none for who has no member and no excuse.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ring::{Dial, Nanos};

use super::client::{Client, State, UNKNOWN};
use super::terms::Subscription;
use super::{Report, Worker};
use crate::adapter::Position;
use crate::history::Sequence;
use crate::plan::{Plan, Role};

/// Between two checks whether all have arrived.
const LOOK_NS: Nanos = 20_000_000;

/// What one subscriber has, over all of its connections.
pub(super) struct Member {
    /// By topic, in the order of its duty.
    pub(super) subscriptions: Box<[Subscription]>,
    /// Where it must get to: place and number. Empty: it has caught up.
    pub(super) behind: Vec<(u32, u64)>,
    /// When the connection under way was begun.
    pub(super) since: Nanos,
    /// The connection under way goes on after a position.
    pub(super) resumes: bool,
    /// The client goes on with the numbers that it expected, although it begins anew: it has all there are.
    keeps_numbers: bool,
    /// Topics, or filters, whose state has not ended.
    pub(super) states: u32,
}

impl Member {
    pub(super) fn new(plan: &Plan, role: Role) -> Self {
        let topics = plan.duty(role).subscribes.count;
        let states = match (plan.late(), plan.uses.filter) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => topics,
        };
        Self {
            subscriptions: vec![Subscription::new(plan); topics as usize].into(),
            behind: Vec::new(),
            since: 0,
            resumes: false,
            keeps_numbers: false,
            states,
        }
    }

    /// The connection under way has not brought everything yet that the one before it missed.
    fn catches_up(&self) -> bool {
        self.resumes || !self.behind.is_empty()
    }

    fn has_arrived(&self) -> bool {
        self.behind.is_empty() && self.states == 0
    }

    fn sequences(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.subscriptions.iter_mut().map(|subscription| &mut subscription.sequence)
    }
}

/// Holes that the server announced, by client and place: so many numbers may be missing.
#[derive(Default)]
pub(super) struct Excuses(HashMap<(u32, u32), u64>);

impl Excuses {
    /// `messages` more may be missing; `u64::MAX`: as many as are, before the next message.
    pub(super) fn add(&mut self, at: u32, place: u32, messages: u64) {
        let known = self.0.entry((at, place)).or_default();
        *known = known.saturating_add(messages);
    }

    /// A message came behind a hole of so many, or behind none. Returns how many of them were announced.
    #[inline]
    pub(super) fn take(&mut self, at: u32, place: u32, hole: u64) -> u64 {
        if self.0.is_empty() { 0 } else { self.take_some(at, place, hole) }
    }

    #[cold]
    fn take_some(&mut self, at: u32, place: u32, hole: u64) -> u64 {
        let Some(known) = self.0.get_mut(&(at, place)) else { return 0 };
        let taken = hole.min(*known);
        *known = if *known == u64::MAX { 0 } else { *known - taken };
        if *known == 0 {
            self.0.remove(&(at, place));
        }
        taken
    }

    /// How many may be missing at the end.
    pub(super) fn left(&self, at: u32, place: u32) -> u64 {
        self.0.get(&(at, place)).copied().unwrap_or(0)
    }
}

/// The members of a worker, and who of them is away.
#[derive(Default)]
pub(super) struct Past {
    /// By client; empty in a run that has none. Where not all are members, a connection is one as long as it lasts.
    members: Vec<Option<Box<Member>>>,
    nobody: Option<Box<Member>>,
    /// All subscribers are members from the beginning.
    all: bool,
    pub(super) excuses: Excuses,
    /// Clients that are not to connect yet.
    held: VecDeque<u32>,
    /// Clients whose connections end are held.
    holding: bool,
    /// Drops that are due, a fraction included.
    drops: f64,
    /// When all began to arrive; nothing: not now.
    arriving: Option<Nanos>,
}

impl Past {
    pub(super) fn new(plan: &Plan, clients: &[Client]) -> Self {
        let all = plan.recovers() || plan.late();
        let held = (0..).zip(clients).filter(|(_, client)| plan.is_held(client.role)).map(|(at, _)| at).collect();
        if !all && !plan.adapter.abilities().state {
            return Self { held, ..Self::default() };
        }
        let member =
            |client: &Client| (all && client.is_subscriber()).then(|| Box::new(Member::new(plan, client.role)));
        Self { members: clients.iter().map(member).collect(), held, all, ..Self::default() }
    }

    pub(super) fn holds(&self) -> usize {
        self.held.len()
    }

    pub(super) fn member(&mut self, at: u32) -> Option<&mut Member> {
        self.members.get_mut(at as usize)?.as_deref_mut()
    }

    /// What a client has, and the holes that were announced.
    pub(super) fn of(&mut self, at: u32) -> (&mut Option<Box<Member>>, &mut Excuses) {
        (self.members.get_mut(at as usize).unwrap_or(&mut self.nobody), &mut self.excuses)
    }

    pub(super) fn member_of(&self, at: u32) -> Option<&Member> {
        self.members.get(at as usize)?.as_deref()
    }

    /// The subscriptions of a connection have ended. Only who comes back with a position, or for its state, is remembered.
    pub(super) fn forget(&mut self, at: u32) {
        if !self.all
            && let Some(member) = self.members.get_mut(at as usize)
        {
            *member = None;
        }
    }

    /// A connection of this client is begun.
    pub(super) fn dialled(&mut self, at: u32, now: Nanos) {
        self.forget(at);
        if let Some(member) = self.member(at) {
            member.since = now;
            member.behind.clear();
            let resumes = member.sequences().any(|sequence| sequence.position().is_some());
            member.resumes = resumes;
        }
    }

    /// What the client asks to go on from.
    pub(super) fn since(&mut self, at: u32) -> Vec<Option<Position>> {
        self.member(at).map_or(Vec::new(), |member| member.sequences().map(|sequence| sequence.position()).collect())
    }

    /// Whether the client goes on with the numbers that it expected.
    pub(super) fn keeps_numbers(&mut self, at: u32) -> bool {
        self.member(at).is_some_and(|member| member.resumes || member.keeps_numbers)
    }

    /// A connection has ended that is to be opened again; returns whether the client is held.
    pub(super) fn closed(&mut self, at: u32) -> bool {
        if self.holding {
            self.held.push_back(at);
        }
        self.holding
    }

    /// The newcomers whose state is not whole: those without its end, and keys of which the newest message is missing.
    pub(super) fn unfinished(
        &mut self,
        plan: &Plan,
        at: u32,
        role: Role,
        published: impl Fn(u32) -> u64,
    ) -> (bool, u64) {
        let topics = plan.duty(role).subscribes;
        let Some(member) = self.member(at) else { return (false, 0) };
        let streams = topics.iter(plan.topics).zip(&member.subscriptions);
        (member.states > 0, streams.map(|(topic, subscription)| subscription.stale(published(topic))).sum())
    }
}

impl<D: Dial> Worker<D> {
    /// Drops connections at random, each of which comes back.
    pub(super) fn drop_some(&mut self, now: Nanos, seconds: f64) {
        self.past.drops += self.drops_per_second(now) * seconds;
        let mut tries = 0;
        while self.past.drops >= 1.0 && tries < 2 * self.clients.len() {
            tries += 1;
            let at = self.random.usize(..self.clients.len());
            let client = &mut self.clients[at];
            if client.state == State::Open && client.is_subscriber() && !client.slow {
                self.past.drops -= 1.0;
                self.tally.history.drops += 1;
                let interrupted = self.past.member_of(at as u32).is_some_and(Member::catches_up);
                self.tally.history.interrupted += u64::from(interrupted);
                self.close(at as u32, true);
            }
        }
        self.past.drops = self.past.drops.min(1000.0);
    }

    pub(super) fn drops_per_second(&self, now: Nanos) -> f64 {
        let within = self.times.is_some_and(|times| (times.begin..times.end).contains(&now));
        let share = self.clients.len() as f64 / self.plan.connections().max(1) as f64;
        if within { self.plan.options.drops.unwrap_or(0.0) * share } else { 0.0 }
    }

    /// How long a client that was dropped stays away.
    pub(super) fn absence(&mut self) -> Nanos {
        if self.plan.options.drops.is_none_or(|drops| drops == 0.0) {
            return 0;
        }
        (self.plan.options.away.as_nanos() as f64 * (0.5 + self.random.f64())) as Nanos
    }

    /// All subscribers close their connections, and are held.
    pub(super) fn leave_all(&mut self) {
        self.past.holding = true;
        for at in 0..self.clients.len() as u32 {
            let client = &self.clients[at as usize];
            if client.state == State::Open && client.is_subscriber() {
                self.close(at, true);
            }
        }
    }

    /// All who are held connect. With `behind`, each goes on after a place of its own, about so many messages back; without,
    /// it begins anew.
    pub(super) fn arrive_all(&mut self, behind: Option<u64>) {
        self.past.holding = false;
        let newcomers = self.plan.late() || self.plan.logins > 0;
        for at in std::mem::take(&mut self.past.held) {
            self.incomplete += usize::from(newcomers);
            let places = behind.map(|behind| behind / 2 + self.random.u64(0..=behind));
            let client = &mut self.clients[at as usize];
            if let Some(member) = self.past.member(at) {
                member.keeps_numbers = !newcomers;
                match places {
                    None => member.sequences().for_each(Sequence::forget),
                    Some(back) => {
                        let next = client.nexts.at(0);
                        let back = if *next == UNKNOWN { 0 } else { back.min(*next) };
                        *next -= back;
                        member.sequences().for_each(|sequence| sequence.step_back(back));
                    }
                }
            }
            self.waiting.push_back(at);
        }
        self.reported_complete = false;
        let now = self.driver.now();
        self.heard_at = now;
        self.past.arriving = Some(now);
    }

    /// Checks whether all have left, or arrived; returns when to check again.
    pub(super) fn arrivals_due(&mut self, now: Nanos) -> Nanos {
        if self.past.holding {
            let closing = self.clients.iter().any(|client| client.state == State::Closing && client.is_subscriber());
            if closing || self.past.arriving.is_some() {
                return now + LOOK_NS;
            }
            self.past.arriving = Some(now);
            self.report(Report::Left);
            return Nanos::MAX;
        }
        let Some(began) = self.past.arriving else { return Nanos::MAX };
        let quiet = now.saturating_sub(self.heard_at.max(self.opened_at).max(began));
        let all = self.incomplete == 0
            && (0..).zip(&self.clients).all(|(at, client): (usize, _)| {
                let member = self.past.members.get(at).and_then(Option::as_ref);
                client.state != State::Open || member.is_none_or(|member| member.has_arrived())
            });
        // Handshakes of a storm of logins go on side by side, so that the first may take as long as any may.
        let options = &self.plan.options;
        let handshake = if self.plan.logins > 0 { options.connect_timeout } else { Duration::ZERO };
        if all || quiet > options.drain_timeout.max(handshake).as_nanos() as u64 {
            self.past.arriving = None;
            self.report(Report::Arrived(self.heard_at.max(self.opened_at)));
            return Nanos::MAX;
        }
        now + LOOK_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_announced_holes_are_excused() {
        let mut excuses = Excuses::default();
        assert_eq!(excuses.take(1, 0, 5), 0);
        excuses.add(1, 0, 3);
        assert_eq!((excuses.take(2, 0, 5), excuses.take(1, 1, 5), excuses.take(1, 0, 0)), (0, 0, 0));
        assert_eq!((excuses.take(1, 0, 5), excuses.take(1, 0, 5)), (3, 0), "two of five were not announced");
        excuses.add(1, 0, u64::MAX);
        excuses.add(1, 0, 3);
        assert_eq!((excuses.left(1, 0), excuses.take(1, 0, 100), excuses.left(1, 0)), (u64::MAX, 100, 0));
        // What was announced without a number holds up to the next message.
        excuses.add(1, 0, u64::MAX);
        assert_eq!((excuses.take(1, 0, 0), excuses.take(1, 0, 1)), (0, 0));
    }
}
