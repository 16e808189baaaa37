//! What must be true of leases, whatever clients and connections do.
//!
//! The model knows each command, from when its client wrote it to when it was answered, what was lost, what watchers were shown,
//! and what was published under which number. From that follows when a session had a lease *for certain*, and when *possibly*
//! (`spans`); whatever the broker says has to lie between the two (`checks`):
//!
//! - a lease is given on only when it is free: given back, not renewed in time, or its session is over after its grace;
//! - numbers rise with each grant of a topic, and none is used twice;
//! - who is answered `held` was kept out by somebody; who waits is kept out all the while, gets it in turn (`queue`) and not too late;
//! - a lease that was lost is said to be lost, for the right reason, and a lease that is there is not;
//! - on exclusive topics nothing is published without the lease, nothing is refused with it, and the messages of two leases never
//!   mix;
//! - when all is quiet, watchers know who has what (`rest`).
//!
//! Everything about the past is judged at the end, when all is known that will be.

mod checks;
mod ends;
mod queue;
mod rest;
mod spans;

use std::collections::BTreeMap;

use super::presence::{At, Presence, SessionId};
use super::{MessageId, Violation};

pub use rest::Panel;

/// A command about a lease.
pub type LeaseId = usize;

/// The history so far.
#[derive(Default, Debug)]
pub struct Leases {
    commands: Vec<Command>,
    /// Whose each number of a topic is, and when it was heard of first.
    grants: BTreeMap<(usize, u64), Grant>,
    losses: Vec<Loss>,
    /// What watchers were shown.
    shown: Vec<Shown>,
    /// What was published on topics whose leases are taken, or was to be.
    published: BTreeMap<MessageId, Published>,
    /// Memory may be short: then leases may be refused, and watchers not learn.
    is_short: bool,
}

/// What a command asks for. Durations in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The lease, for so long, and to wait for it.
    Take {
        /// How long it lasts.
        ttl: u64,
        /// How long to wait for it.
        wait: u64,
    },
    /// To keep it.
    Renew {
        /// By which number the client has it.
        number: u64,
        /// How long it lasts from then on.
        ttl: u64,
    },
    /// To give it back.
    Release {
        /// By which number the client has it.
        number: u64,
    },
}

/// How it was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Got {
    /// It has the lease by this number.
    Granted(u64),
    /// It has given it back.
    Released,
    /// This member has it.
    Held(String),
    /// It does not have it.
    NotFound,
    /// It was not carried out for another reason.
    Refused,
}

#[derive(Debug)]
struct Command {
    session: SessionId,
    client: usize,
    topic: usize,
    ask: Ask,
    from: At,
    /// The earliest time that the broker may have taken it for then.
    since: u64,
    to: Option<At>,
    got: Option<Got>,
}

/// A lease by its number.
#[derive(Debug)]
struct Grant {
    session: SessionId,
    /// The command that was answered with it first.
    command: LeaseId,
    heard: At,
}

#[derive(Debug)]
struct Loss {
    client: usize,
    topic: usize,
    number: u64,
    reason: String,
    at: At,
}

#[derive(Debug)]
struct Shown {
    topic: usize,
    /// Who has it, by which number; `None`: it is free.
    holder: Option<(String, u64)>,
    /// By which number somebody had it, as the watcher was shown before.
    before: Option<u64>,
    at: At,
}

#[derive(Debug)]
struct Published {
    topic: usize,
    is_exclusive: bool,
    number: Option<u64>,
    from: At,
    /// When it was answered, and whether it was refused for want of the lease.
    answered: Option<(At, bool)>,
}

impl Command {
    fn ttl(&self) -> u64 {
        match self.ask {
            Ask::Take { ttl, .. } | Ask::Renew { ttl, .. } => ttl,
            Ask::Release { .. } => 0,
        }
    }

    fn wait(&self) -> u64 {
        if let Ask::Take { wait, .. } = self.ask { wait } else { 0 }
    }

    fn takes(&self) -> bool {
        matches!(self.ask, Ask::Take { .. })
    }

    fn granted(&self) -> Option<u64> {
        if let Some(Got::Granted(number)) = self.got { Some(number) } else { None }
    }
}

impl Leases {
    /// `is_short`: memory may be.
    pub fn begin(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    /// A client is about to ask for something.
    pub fn asking(&mut self, client: usize, topic: usize, ask: Ask, presence: &mut Presence) -> LeaseId {
        let from = presence.mark();
        let session = presence.session_of(client).expect("a client with a session");
        let since = presence.slowest_at(from.0);
        self.commands.push(Command { session, client, topic, ask, from, since, to: None, got: None });
        self.commands.len() - 1
    }

    /// It was answered.
    ///
    /// # Errors
    /// A number that somebody else has had, or an answer to something else.
    pub fn answered(&mut self, id: LeaseId, got: Got, presence: &mut Presence) -> Result<(), Violation> {
        let now = presence.mark();
        let command = &mut self.commands[id];
        (command.to, command.got) = (Some(now), Some(got.clone()));
        presence.alive(command.client, command.from);
        let (session, topic, ask) = (command.session, command.topic, command.ask);
        let bad = |what: &str| {
            Err(Violation::new("a lease is answered as it was asked for", format!("{what}: {:?}", self.commands[id])))
        };
        match (ask, &got) {
            (Ask::Renew { number: asked, .. }, Got::Granted(number)) if asked != *number => bad("another number"),
            (Ask::Take { .. } | Ask::Renew { .. }, Got::Granted(number)) => {
                let grant = Grant { session, command: id, heard: now };
                let known = self.grants.entry((topic, *number)).or_insert(grant);
                match known.session == session {
                    true => Ok(()),
                    false => Err(Violation::new(NUMBERS, format!("{number}: {known:?}, {:?}", self.commands[id]))),
                }
            }
            (Ask::Release { .. }, Got::Released | Got::NotFound)
            | (Ask::Renew { .. }, Got::NotFound)
            | (Ask::Take { .. }, Got::Held(_))
            | (_, Got::Refused) => Ok(()),
            // Its session goes on elsewhere.
            (Ask::Take { .. }, Got::NotFound) if presence.is_contested(self.commands[id].client) => {
                self.commands[id].got = Some(Got::Refused);
                Ok(())
            }
            _ => bad("of another kind"),
        }
    }

    /// A client learned that it has lost a lease.
    ///
    /// # Errors
    /// It has not, as far as is known by now.
    pub fn lost(
        &mut self,
        client: usize,
        (topic, number): (usize, u64),
        reason: &str,
        presence: &mut Presence,
    ) -> Result<(), Violation> {
        let at = presence.mark();
        let session = presence.session_of(client);
        let is_its = self.grants.get(&(topic, number)).map_or_else(
            || {
                self.commands
                    .iter()
                    .any(|command| self.may_have_got(command, topic) && Some(command.session) == session)
            },
            |grant| Some(grant.session) == session,
        );
        let again = self.losses.iter().any(|loss| (loss.client, loss.topic, loss.number) == (client, topic, number));
        let loss = Loss { client, topic, number, reason: reason.to_owned(), at };
        let fits = match reason {
            "expired" => true,
            "taken" => presence.is_contested(client),
            _ => false,
        };
        if !is_its || again || !fits {
            return Err(Violation::new(LOST, format!("{loss:?}, its own {is_its}, again {again}")));
        }
        self.losses.push(loss);
        Ok(())
    }

    /// A command of which nobody knows what became of it.
    fn may_have_got(&self, command: &Command, topic: usize) -> bool {
        command.topic == topic && command.takes() && command.got.is_none()
    }

    /// A watcher was shown who has a lease; `before`: by which number somebody had it, as it had been shown.
    pub fn shown(&mut self, topic: usize, holder: Option<(&str, u64)>, before: Option<u64>, presence: &mut Presence) {
        let (at, holder) = (presence.mark(), holder.map(|(by, number)| (by.to_owned(), number)));
        self.shown.push(Shown { topic, holder, before, at });
    }

    /// Something is about to be published on a topic whose lease is taken, under this number.
    pub fn publishing(
        &mut self,
        id: MessageId,
        (topic, is_exclusive): (usize, bool),
        number: Option<u64>,
        presence: &mut Presence,
    ) {
        let published = Published { topic, is_exclusive, number, from: presence.mark(), answered: None };
        self.published.insert(id, published);
    }

    /// It was answered; `refused`: for want of the lease.
    pub fn publish_answered(&mut self, id: MessageId, client: usize, refused: bool, presence: &mut Presence) {
        if let Some(published) = self.published.get_mut(&id) {
            published.answered = Some((presence.mark(), refused));
            presence.alive(client, published.from);
        }
    }

    /// Whether somebody was given a lease by this number.
    #[must_use]
    pub fn is_known(&self, topic: usize, number: u64) -> bool {
        self.grants.contains_key(&(topic, number))
    }

    /// Some number that a client may have heard of.
    pub fn numbers(&self, topic: usize) -> impl DoubleEndedIterator<Item = u64> {
        self.grants.range((topic, 0)..(topic + 1, 0)).map(|(&(_, number), _)| number)
    }
}

const NUMBERS: &str = "the number of a lease rises with each grant, and is used once";
const LOST: &str = "a lease is said to be lost when it is, once, and why";
