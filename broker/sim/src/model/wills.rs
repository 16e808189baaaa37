//! What must be true of last wills:
//!
//! - a will is published only when the connection that set it may have ended, and not by `disconnect`, nor by the broker's own
//!   shutdown; and only the one that was set last;
//! - one with a delay not before that, or the end of its session, and not if the session went on before;
//! - one that is due is published, once: subscribers are owed it;
//! - what is published under the next lease comes behind the will of its holder before.
//!
//! A will is a message like others, which nobody acknowledges; when somebody gets it, it is out.

use std::collections::BTreeMap;

use super::presence::{At, Presence};
use super::{MessageId, Violation};

/// A command that sets or takes back a will.
pub type WillId = usize;

/// The history so far.
#[derive(Default, Debug)]
pub struct Wills {
    commands: Vec<Command>,
    of_message: BTreeMap<MessageId, WillId>,
    clients: BTreeMap<usize, Fate>,
}

#[derive(Debug)]
struct Command {
    client: usize,
    /// `None`: there is to be none.
    will: Option<Will>,
    from: At,
    to: Option<At>,
    failed: bool,
}

#[derive(Debug)]
struct Will {
    message: MessageId,
    /// In nanoseconds.
    delay: u64,
    /// When somebody got it first.
    seen: Option<At>,
}

/// What is known of the end of a connection.
#[derive(Default, Debug)]
struct Fate {
    /// It was about to say `disconnect`, or another command took its session.
    disconnecting: bool,
    disconnected: bool,
    /// It was closed because its session went on elsewhere.
    taken: bool,
    /// It was closed by the broker's shutdown.
    drained: bool,
}

impl Wills {
    /// A client is about to set a will, or to take it back.
    pub fn setting(&mut self, client: usize, will: Option<(MessageId, u64)>, presence: &mut Presence) -> WillId {
        let id = self.commands.len();
        self.of_message.extend(will.map(|(message, _)| (message, id)));
        let will = will.map(|(message, delay)| Will { message, delay, seen: None });
        self.commands.push(Command { client, will, from: presence.mark(), to: None, failed: false });
        id
    }

    /// It was answered. `failed`: nothing has changed.
    pub fn answered(&mut self, id: WillId, failed: bool, presence: &mut Presence) {
        let command = &mut self.commands[id];
        (command.to, command.failed) = (Some(presence.mark()), failed);
        presence.alive(command.client, command.from);
    }

    /// A client is about to say `disconnect`.
    pub fn disconnecting(&mut self, client: usize) {
        self.clients.entry(client).or_default().disconnecting = true;
    }

    /// That was answered.
    pub fn disconnected(&mut self, client: usize) {
        self.clients.entry(client).or_default().disconnected = true;
    }

    /// A client was closed because its session went on elsewhere.
    pub fn taken(&mut self, client: usize) {
        self.clients.entry(client).or_default().taken = true;
    }

    /// A client was closed because the broker shuts down.
    ///
    /// Returns how many wills it had, at most one.
    pub fn drained(&mut self, client: usize) -> u64 {
        self.clients.entry(client).or_default().drained = true;
        let last = self.commands.iter().rfind(|command| command.client == client && !command.failed);
        u64::from(last.is_some_and(|last| last.will.is_some() && last.to.is_some()))
    }

    /// Whether a message is a will.
    #[must_use]
    pub fn is_will(&self, message: MessageId) -> bool {
        self.of_message.contains_key(&message)
    }

    /// Whose will a message is.
    pub(super) fn client_of(&self, message: MessageId) -> Option<usize> {
        self.of_message.get(&message).map(|&id| self.commands[id].client)
    }

    /// Somebody got a will, perhaps not as the first. Returns its delay if it was the first.
    pub fn came(&mut self, message: MessageId, presence: &mut Presence) -> Option<u64> {
        let will = self.commands[*self.of_message.get(&message)?].will.as_mut()?;
        let is_first = will.seen.is_none();
        will.seen.get_or_insert_with(|| presence.mark());
        is_first.then_some(will.delay)
    }

    /// The commands of the same client behind one.
    fn behind(&self, id: WillId) -> impl Iterator<Item = &Command> {
        let client = self.commands[id].client;
        self.commands[id + 1..].iter().filter(move |command| command.client == client && !command.failed)
    }

    fn fate(&self, client: usize) -> &Fate {
        const NONE: &Fate = &Fate { disconnecting: false, disconnected: false, taken: false, drained: false };
        self.clients.get(&client).unwrap_or(NONE)
    }

    // ---- the end

    /// Judges those that somebody got. Returns how many others did not come because their clients came back, for certain.
    ///
    /// # Errors
    /// One of them should not have been published.
    pub fn settle(&self, presence: &Presence) -> Result<u64, Violation> {
        let mut cancelled = 0;
        for (id, command) in self.commands.iter().enumerate() {
            let Some(will) = &command.will else { continue };
            match will.seen {
                Some(seen) => self.check_seen(id, will, seen, presence)?,
                None => cancelled += u64::from(self.went_on(command, will, presence).is_some()),
            }
        }
        Ok(cancelled)
    }

    fn check_seen(&self, id: WillId, will: &Will, seen: At, presence: &Presence) -> Result<(), Violation> {
        let command = &self.commands[id];
        let (client, fate) = (command.client, self.fate(command.client));
        let alive = presence.alive_until(client).max(command.from);
        let bad = |property| Err(Violation::new(property, format!("{command:?}, alive until {alive:?}, {fate:?}")));
        if command.failed || self.behind(id).any(|later| later.to.is_some()) {
            return bad("the last will of a client is published, and no other");
        }
        if fate.disconnected {
            return bad("no will is published after `disconnect`");
        }
        let is_contested = presence.is_contested(client);
        if fate.drained && !is_contested {
            return bad("no will is published because the broker shuts down");
        }
        if !is_contested && seen < alive {
            return bad("a will is published when its connection has ended");
        }
        let waits = presence.session_of(client).map_or(0, |session| presence.waits(session));
        if !is_contested && seen.0 < presence.slowest_at(alive.0).saturating_add(will.delay.min(waits)) {
            return bad("a will waits for its delay");
        }
        if self.went_on(command, will, presence).is_some() {
            return bad("a will with a delay is not published once the session goes on");
        }
        Ok(())
    }

    /// When it was certain that the session went on before a will with a delay was due.
    fn went_on(&self, command: &Command, will: &Will, presence: &Presence) -> Option<At> {
        let (client, set) = (command.client, command.to.filter(|_| will.delay > 0)?);
        let alive = presence.alive_until(client);
        let waits = presence.waits(presence.session_of(client)?);
        let due = presence.slowest_at(alive.0).saturating_add(will.delay.min(waits));
        let taken = self.fate(client).taken;
        // Who asked for the session later than that got it later.
        let later = presence.claims_beside(client).filter(|(asked, _)| *asked > set);
        later.filter_map(|(_, heard)| heard).find(|heard| heard.0 < due || taken)
    }

    /// The wills that must have been published: all is quiet, `is_connected` are those that are there, and all others who had a session
    /// has it no longer. Each with whether it waited.
    pub fn due(&self, is_connected: impl Fn(usize) -> bool, presence: &Presence) -> Vec<(MessageId, usize, bool)> {
        let due = |(id, command): (WillId, &Command)| {
            let (will, client) = (command.will.as_ref()?, command.client);
            let fate = self.fate(client);
            let in_force = command.to.is_some() && !command.failed && self.behind(id).next().is_none();
            let on_purpose = fate.disconnecting || fate.drained;
            // With a delay, others may have gone on with the session in time.
            let may_go_on = will.delay > 0 && presence.is_contested(client);
            let is_over = !is_connected(client) || fate.taken;
            let had_session = presence.session_of(client).is_some();
            (in_force && !on_purpose && !may_go_on && is_over && had_session).then_some((
                will.message,
                client,
                will.delay > 0,
            ))
        };
        self.commands.iter().enumerate().filter_map(due).collect()
    }
}
