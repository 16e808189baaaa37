//! Tokens, what operators did to their users, and when: so that every judgement of the broker can be judged.
//!
//! A client knows only that its token was judged between two moments. Where the token is the same all that time, one judgement
//! is right; where it ended or was revoked meanwhile, two are.

use super::past::Fate;
use super::{MessageId, Model, StreamId, Tick, Violation};
use crate::access::{Token, Verdicts};

/// A token of a run.
pub type TokenId = usize;

/// When something happened: by the order of things, and by the clock, in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Moment {
    /// By the order of things.
    pub tick: Tick,
    /// By the clock of the simulation.
    pub time: u64,
}

/// What an operator did to a user.
#[derive(Clone, Debug)]
struct Order {
    user: usize,
    /// Only to tokens from before this second.
    before_s: Option<u64>,
    at: Tick,
    /// When each shard had carried it out.
    done: Vec<Option<Tick>>,
}

/// What the model knows of access control.
#[derive(Clone, Default, Debug)]
pub(super) struct AccessHistory {
    leeway_ms: u64,
    tokens: Vec<Token>,
    /// Users, from before which second their tokens are refused, and since when.
    revoked: Vec<(usize, u64, Tick)>,
    closed: Vec<Order>,
    /// When each shard had its turns, in nanoseconds: it goes by the clock of the turn before.
    turns: Vec<Vec<u64>>,
}

const DENIED: &str = "what is not granted is neither delivered nor stored";

impl Model {
    /// The same with access control that accepts tokens for so long after their end.
    #[must_use]
    pub fn with_leeway(mut self, leeway_ms: u64) -> Self {
        self.access.leeway_ms = leeway_ms;
        self
    }

    /// Now.
    pub fn moment(&mut self) -> Moment {
        Moment { tick: self.tick(), time: self.past.time }
    }

    /// Now, by the clock of a shard, which may be behind.
    pub fn moment_on(&mut self, shard: usize) -> Moment {
        let turn = self.access.turns.get(shard).and_then(|turns| turns.last()).copied();
        Moment { tick: self.tick(), time: turn.unwrap_or(0) }
    }

    /// A shard has a turn.
    pub fn turned(&mut self, shard: usize) {
        let turns = &mut self.access.turns;
        turns.resize_with(turns.len().max(shard + 1), Vec::new);
        turns[shard].push(self.past.time);
    }

    /// When a shard had its last turn before a time, in nanoseconds.
    fn turn_before(&self, shard: usize, time: u64) -> Option<u64> {
        let turns = self.access.turns.get(shard)?;
        turns[..turns.partition_point(|turn| *turn < time)].last().copied()
    }

    /// A token is made.
    pub fn issued(&mut self, token: Token) -> TokenId {
        self.access.tokens.push(token);
        self.access.tokens.len() - 1
    }

    /// A token.
    #[must_use]
    pub fn token(&self, id: TokenId) -> &Token {
        &self.access.tokens[id]
    }

    /// As what a token may have been judged between two moments.
    #[must_use]
    pub fn verdicts(&self, id: TokenId, from: Moment, to: Moment) -> Verdicts {
        let revoked = (self.is_revoked(id, from.tick), self.is_revoked(id, to.tick));
        let time = crate::access::time_of_day;
        self.access.tokens[id].verdicts(self.access.leeway_ms, (time(from.time), time(to.time)), revoked)
    }

    // ---- operators

    /// Tokens of a user that were issued before a second are refused from now on.
    pub fn revoked(&mut self, user: usize, before_s: u64) {
        let now = self.tick();
        self.access.revoked.push((user, before_s, now));
    }

    /// Whether a token was revoked by then.
    #[must_use]
    pub fn is_revoked(&self, id: TokenId, by: Tick) -> bool {
        self.revoked_since(id).is_some_and(|since| since <= by)
    }

    fn revoked_since(&self, id: TokenId) -> Option<Tick> {
        let claims = &self.access.tokens[id].claims;
        let is_meant =
            |&&(user, before_s, _): &&(usize, u64, Tick)| user == claims.user && claims.issued_ms / 1000 < before_s;
        self.access.revoked.iter().find(is_meant).map(|&(.., since)| since)
    }

    /// Shards are told to close the connections of a user. Returns the order's number.
    pub fn closing(&mut self, user: usize, before_s: Option<u64>, shards: usize) -> usize {
        let at = self.tick();
        self.access.closed.push(Order { user, before_s, at, done: vec![None; shards] });
        self.access.closed.len() - 1
    }

    /// A shard has.
    pub fn closed(&mut self, order: usize, shard: usize) {
        let now = self.tick();
        self.access.closed[order].done[shard] = Some(now);
    }

    fn orders_about(&self, id: TokenId) -> impl Iterator<Item = &Order> {
        let claims = &self.access.tokens[id].claims;
        self.access.closed.iter().filter(|order| {
            let is_old = order.before_s.is_none_or(|before_s| claims.issued_ms / 1000 < before_s);
            order.user == claims.user && is_old
        })
    }

    /// Whether an operator may have closed a connection with this token that began then.
    #[must_use]
    pub fn may_be_closed(&self, id: TokenId, shard: usize, began: Moment) -> bool {
        self.orders_about(id).any(|order| order.done[shard].is_none_or(|done| done > began.tick))
    }

    /// Whether an operator must have closed a connection that was known to have this token then.
    #[must_use]
    pub fn must_be_closed(&self, id: TokenId, shard: usize, known: Moment) -> bool {
        self.orders_about(id).any(|order| order.at > known.tick && order.done[shard].is_some())
    }

    // ---- subscriptions

    /// Whether a client asks for the newest messages of what it subscribes to.
    #[must_use]
    pub fn asks_for_last(&self, stream: StreamId, filter: &str) -> bool {
        self.streams[stream].asks_for_last(filter)
    }

    /// Whether a subscription of a client is in force.
    #[must_use]
    pub fn has(&self, stream: StreamId, filter: &str) -> bool {
        self.streams[stream].has(filter)
    }

    /// The subscriptions of a client that are in force.
    pub fn confirmed_filters(&self, stream: StreamId) -> impl Iterator<Item = &str> {
        self.streams[stream].filters()
    }

    // ---- messages

    /// A publish was answered as one that is not granted, or that its publisher may not make.
    ///
    /// # Errors
    /// It was published all the same.
    pub fn denied(&mut self, id: MessageId) -> Result<(), Violation> {
        let message = &mut self.messages[id as usize];
        message.fate = Fate::Refused;
        if message.accepted {
            return Err(Violation::new(DENIED, self.describe(id)));
        }
        Ok(())
    }

    /// At the end: of what was refused nothing has a place.
    pub(super) fn check_denied(&self) -> Result<(), Violation> {
        let stored =
            |id: &MessageId| self.messages[*id as usize].fate == Fate::Refused && self.orders.place_of(*id).is_some();
        match (0..self.messages.len() as MessageId).find(stored) {
            Some(id) => Err(Violation::new(DENIED, self.describe(id))),
            None => Ok(()),
        }
    }

    /// A shard took something from the user of a token, who may stay until a time in nanoseconds, or sent something.
    ///
    /// # Errors
    /// It was published only when that token was revoked, or the shard knew that its time was over.
    pub fn check_entitled(
        &self,
        (token, until): (TokenId, u64),
        shard: usize,
        message: MessageId,
    ) -> Result<(), Violation> {
        let Some(written) = self.messages[message as usize].written else { return Ok(()) };
        let written_at = self.messages[message as usize].written_at;
        let revoked = self.revoked_since(token).is_some_and(|since| since < written);
        if !revoked && self.turn_before(shard, written_at).is_none_or(|turn| turn <= until) {
            return Ok(());
        }
        let evidence = format!("{}: revoked {revoked}, written at {written_at}, until {until}", self.describe(message));
        Err(Violation::new("whose token is revoked or over publishes and gets nothing more", evidence))
    }
}
