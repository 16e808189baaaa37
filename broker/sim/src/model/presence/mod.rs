//! What must be true of sessions and of who is present where, whatever clients and connections do.
//!
//! The model knows of each session who went on over which connection, and what was asked in its name, each from when the client
//! wrote it to when it was answered. From that follows when a session was there *for certain*, and when *possibly*
//! (`certain`); whatever the broker says has to lie between the two (`checks`):
//!
//! - a member is said to be gone, or begins anew, only if there was a moment at which none of its sessions was there for certain:
//!   an update is not a departure, and a session that may come back within its grace is waited for;
//! - what a member says of itself is what one of its sessions said, and nothing older comes behind something newer;
//! - `members` answers with a state between asked and answered;
//! - when all is quiet, watchers and counts say what is true, and a session has one connection;
//! - a session that is over is not taken, one that is there for certain is not refused.
//!
//! Everything about the past is judged at the end, when all is known that will be.

mod certain;
mod checks;
mod rest;

use std::collections::BTreeMap;

use super::Violation;

pub use certain::At;
pub use checks::Answered;
pub use rest::{Counted, Shown, Viewed};

/// A session, in the order of their openings.
pub type SessionId = usize;
/// Something that was asked in the name of a session.
pub type DeedId = usize;

/// The history so far.
#[derive(Default, Debug)]
pub struct Presence {
    /// How long a session waits for its client, in nanoseconds.
    grace: u64,
    /// A session that waits may have to make room for another.
    is_scarce: bool,
    /// State may be refused for want of room: then less is certain.
    is_short: bool,
    clock: u64,
    /// The clock of the shard that is most behind, by the time: a shard goes by the end of its last turn.
    behind: Vec<(u64, u64)>,
    tick: u64,
    /// When all was quiet last.
    rested: At,
    guests: BTreeMap<usize, Guest>,
    sessions: Vec<Session>,
    deeds: Vec<Deed>,
    departures: Vec<Departure>,
    answers: Vec<Answered>,
    refusals: Vec<Refusal>,
}

/// A client that has said `connect`.
#[derive(Default, Debug)]
struct Guest {
    session: Option<SessionId>,
    /// The shard that it is on.
    shard: usize,
    /// When it wrote the last command that was answered: until then it was connected.
    alive: At,
}

#[derive(Debug)]
struct Session {
    member: String,
    user: Option<usize>,
    secret: Option<String>,
    owners: Vec<Owner>,
    claims: Vec<Claim>,
    /// Its client was about to end it.
    ending: Option<At>,
    /// And was answered.
    ended: bool,
    /// It is over since this moment, for certain.
    over: Option<At>,
}

/// A connection that it went on over.
#[derive(Debug)]
struct Owner {
    client: usize,
    asked: At,
}

/// Somebody asked for it.
#[derive(Debug)]
struct Claim {
    client: usize,
    asked: At,
    heard: Option<At>,
}

/// What a client asks in the name of its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// To be a member, and whether it says something of itself.
    Enter(bool),
    /// To say something else.
    Update,
    /// To be none any more.
    Leave,
    /// The same, by an unsubscribe.
    Unsubscribe,
}

#[derive(Debug)]
struct Deed {
    session: SessionId,
    client: usize,
    topic: usize,
    act: Act,
    from: At,
    to: Option<At>,
    failed: bool,
}

/// That a member was said to be gone, or to be there anew.
#[derive(Debug)]
struct Departure {
    watcher: usize,
    topic: usize,
    member: String,
    from: At,
    to: At,
    what: String,
}

/// A session was not given, or a command found nobody.
#[derive(Debug)]
struct Refusal {
    session: SessionId,
    client: usize,
    topic: Option<usize>,
    from: At,
    to: At,
}

impl Deed {
    fn enters(&self) -> bool {
        matches!(self.act, Act::Enter(_)) && !self.failed
    }

    fn says(&self) -> bool {
        matches!(self.act, Act::Enter(true) | Act::Update) && !self.failed
    }

    fn leaves(&self) -> bool {
        matches!(self.act, Act::Leave | Act::Unsubscribe) && !self.failed
    }
}

impl Presence {
    /// With this grace, in nanoseconds.
    pub fn begin(&mut self, grace: u64, is_scarce: bool, is_short: bool) {
        (self.grace, self.is_scarce, self.is_short) = (grace, is_scarce, is_short);
    }

    /// It is so late.
    pub fn clock(&mut self, nanos: u64) {
        self.clock = nanos;
    }

    /// Shards go by this time or a later one from now on.
    pub fn shards_are_at(&mut self, nanos: u64) {
        if self.behind.last().is_none_or(|&(time, _)| time < self.clock) {
            self.behind.push((self.clock, nanos));
        }
    }

    /// Now, and never again.
    pub fn mark(&mut self) -> At {
        self.tick += 1;
        At(self.clock, self.tick)
    }

    // ---- sessions

    /// A client is about to ask for a session, perhaps for one that there was. Returns when.
    pub fn connecting(&mut self, client: usize, shard: usize, resumes: Option<SessionId>) -> At {
        let asked = self.mark();
        self.guests.entry(client).or_default().shard = shard;
        if let Some(session) = resumes {
            self.sessions[session].claims.push(Claim { client, asked, heard: None });
        }
        asked
    }

    /// It has a session of its own, with or without a secret.
    ///
    /// # Errors
    /// Somebody else has the secret.
    pub fn opened(
        &mut self,
        client: usize,
        asked: At,
        member: &str,
        user: Option<usize>,
        secret: Option<&str>,
    ) -> Result<SessionId, Violation> {
        self.alive(client, asked);
        if secret.is_some_and(|secret| self.session_with(secret).is_some()) {
            return Err(Violation::new("a new session has a new secret", format!("client {client}, {member}")));
        }
        let session = self.sessions.len();
        self.sessions.push(Session {
            member: member.to_owned(),
            user,
            secret: secret.map(str::to_owned),
            owners: vec![Owner { client, asked }],
            claims: Vec::new(),
            ending: None,
            ended: false,
            over: None,
        });
        self.guests.entry(client).or_default().session = Some(session);
        Ok(session)
    }

    /// It has the session that it asked for.
    ///
    /// # Errors
    /// It should not have.
    pub fn resumed(
        &mut self,
        client: usize,
        id: SessionId,
        asked: At,
        (member, user): (&str, Option<usize>),
    ) -> Result<(), Violation> {
        let heard = self.mark();
        self.alive(client, asked);
        let session = &mut self.sessions[id];
        let bad = |property, session: &Session| {
            Err(Violation::new(property, format!("client {client} resumed {id} at {asked:?}: {session:?}")))
        };
        if session.member != member || session.user != user {
            return bad("a session is its client's", session);
        }
        if session.over.is_some_and(|over| over < asked) {
            return bad("a session that is over is not taken", session);
        }
        let claim = session.claims.iter_mut().rfind(|claim| claim.client == client).expect("it asked for it");
        claim.heard = Some(heard);
        session.owners.push(Owner { client, asked });
        self.guests.entry(client).or_default().session = Some(id);
        Ok(())
    }

    /// It has not got the session that it asked for.
    pub fn not_resumed(&mut self, client: usize, id: SessionId, asked: At, user: Option<usize>) {
        let heard = self.mark();
        let session = &mut self.sessions[id];
        session.claims.retain(|claim| claim.client != client);
        if session.user == user {
            self.refusals.push(Refusal { session: id, client, topic: None, from: asked, to: heard });
        }
        for deed in self.deeds.iter_mut().filter(|deed| deed.session == id && deed.client == client) {
            deed.failed = true;
        }
    }

    /// It was refused any session for want of room.
    pub fn withdrawn(&mut self, client: usize, session: SessionId) {
        self.sessions[session].claims.retain(|claim| claim.client != client);
    }

    /// A client was connected at this moment.
    pub fn alive(&mut self, client: usize, at: At) {
        let guest = self.guests.entry(client).or_default();
        guest.alive = guest.alive.max(at);
    }

    /// A client is about to end its session.
    pub fn disconnecting(&mut self, client: usize) {
        let now = self.mark();
        if let Some(session) = self.session_of(client) {
            self.sessions[session].ending.get_or_insert(now);
        }
    }

    /// It was answered.
    pub fn disconnected(&mut self, client: usize) {
        if let Some(id) = self.session_of(client) {
            let session = &mut self.sessions[id];
            session.ended |= session.claims.iter().all(|claim| claim.client == client);
        }
    }

    /// A connection was closed because its session went on elsewhere. Whether somebody had asked for that.
    #[must_use]
    pub fn may_be_taken(&self, client: usize) -> bool {
        let claims = |session: SessionId| self.sessions[session].claims.iter().any(|claim| claim.client != client);
        // Before it heard of its session, it may have had one that another asked for.
        self.session_of(client).map_or(
            self.sessions.iter().any(|session| session.claims.iter().any(|claim| claim.client == client)),
            claims,
        )
    }

    /// The session of a client, or the one that it is about to get.
    #[must_use]
    pub fn session_of(&self, client: usize) -> Option<SessionId> {
        let known = self.guests.get(&client).and_then(|guest| guest.session);
        let asks = |session: &Session| session.claims.iter().any(|claim| claim.client == client);
        known.or_else(|| self.sessions.iter().position(asks))
    }

    /// A session by what it is resumed with.
    #[must_use]
    pub fn session_with(&self, secret: &str) -> Option<SessionId> {
        self.sessions.iter().position(|session| session.secret.as_deref() == Some(secret))
    }

    /// The secrets that there are, newest last.
    pub fn secrets(&self) -> impl DoubleEndedIterator<Item = (SessionId, &str)> {
        let secrets = self.sessions.iter().enumerate();
        secrets.filter_map(|(id, session)| session.secret.as_deref().map(|secret| (id, secret)))
    }

    /// Whether the last connection of a session was on another shard than this.
    #[must_use]
    pub fn moves(&self, session: SessionId, shard: usize) -> bool {
        let last = self.sessions[session].owners.last().and_then(|owner| self.guests.get(&owner.client));
        last.is_some_and(|guest| guest.shard != shard)
    }

    /// Whose a session is, if it is of a token's user.
    #[must_use]
    pub fn user_of(&self, session: SessionId) -> Option<usize> {
        self.sessions[session].user
    }

    // ---- deeds

    /// A client is about to ask this in the name of its session.
    pub fn doing(&mut self, client: usize, topic: usize, act: Act) -> DeedId {
        let from = self.mark();
        let session = self.session_of(client).expect("a client with a session");
        self.deeds.push(Deed { session, client, topic, act, from, to: None, failed: false });
        self.deeds.len() - 1
    }

    /// It was done.
    ///
    /// # Errors
    /// It could not have been.
    pub fn done(&mut self, id: DeedId) -> Result<(), Violation> {
        let now = self.mark();
        let Deed { session, client, topic, act, from, .. } = self.deeds[id];
        self.deeds[id].to = Some(now);
        self.alive(client, from);
        let was_there = self.deeds.iter().any(|deed| deed.session == session && deed.topic == topic && deed.enters());
        if !was_there && act != Act::Unsubscribe {
            let evidence = format!("client {client}: {:?}", self.deeds[id]);
            return Err(Violation::new("only who has entered updates and leaves", evidence));
        }
        Ok(())
    }

    /// It was not. `was_missed`: because the client was said not to be there.
    pub fn failed(&mut self, id: DeedId, was_missed: bool) {
        let now = self.mark();
        let Deed { session, client, topic, from, .. } = self.deeds[id];
        (self.deeds[id].to, self.deeds[id].failed) = (Some(now), true);
        self.alive(client, from);
        if was_missed {
            self.refusals.push(Refusal { session, client, topic: Some(topic), from, to: now });
        }
    }

    /// An unsubscribe of this topic was answered.
    pub fn unsubscribed(&mut self, client: usize, topic: usize) {
        let now = self.mark();
        let is_it =
            |deed: &&mut Deed| (deed.client, deed.topic, deed.act, deed.to) == (client, topic, Act::Unsubscribe, None);
        self.deeds.iter_mut().filter(is_it).for_each(|deed| deed.to = Some(now));
    }

    /// Whether another client may have taken the session of this one.
    #[must_use]
    pub fn is_contested(&self, client: usize) -> bool {
        self.session_of(client).is_some_and(|id| self.sessions[id].claims.iter().any(|claim| claim.client != client))
    }

    /// Whether everybody who may be at a topic could be listed there.
    #[must_use]
    pub fn may_be_full(&self, topic: usize, members_max: usize) -> bool {
        let mut members: Vec<_> = self.deeds.iter().filter(|deed| deed.topic == topic && deed.enters()).collect();
        members.sort_by_key(|deed| &self.sessions[deed.session].member);
        members.dedup_by_key(|deed| &self.sessions[deed.session].member);
        members.len() > members_max
    }
}
