//! Last wills: set by a connection, kept by the session's home ([`crate::presence::sessions`]), published at the topic's sequencer.
//!
//! A will needs permission to publish twice: when it is set, and when it is published. Then the rules of that moment count, and
//! whether the client's user was revoked; that its token has run out meanwhile does not void it, since a client that is closed for
//! that is one whose will is wanted. On an exclusive topic a will is published under the lease of its own session.
//!
//! At the shutdown of the broker nothing is published for clients that it asks to leave: they come back elsewhere. The will of one
//! that is lost during the window, before it was asked, is published.
//!
//! Cost: nothing without a will. With one, its copy for the life of the connection, and a message between shards at its end.

use protocol::v1::{CommandError, Id, Will as Asked};
use ring::{ConnId, Driver, Nanos, nanos};

use crate::access::permissions::Operation;
use crate::message::options::{LeaseClaim, PublishOptions, Refusal};
use crate::presence::will::Will;
use crate::presence::{Owner, SessionRef};
use crate::shard::asked::SessionCommand;
use crate::shard::lease_messages::WillRequest;
use crate::shard::sessions::GOES_ON;
use crate::shard::shared::{Delivery, Request};
use crate::shard::{NANOS_PER_MS, Shard};

/// What a will takes besides its payload, in bytes, for the question whether there is room.
const WILL_BYTES: u64 = 1024;

impl<D: Driver> Shard<D> {
    // ---- the connection's side

    /// A `will`.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn set_will(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        asked: Option<Asked<'_>>,
    ) -> Result<(), CommandError> {
        let will = self.check_will(id, command, asked)?;
        self.attach_client(id);
        self.ask_home(id, command, SessionCommand::Will { will, is_answered: true });
        Ok(())
    }

    /// The will of a `connect`, which is answered by itself.
    pub(super) fn keep_will(&mut self, id: ConnId, will: Option<Box<Will>>) {
        if will.is_some() {
            self.attach_client(id);
            self.tell_home(id, 0, SessionCommand::Will { will, is_answered: false });
        }
    }

    /// The user of a connection is about to be revoked: it says nothing any more.
    pub(super) fn void_will(&mut self, id: ConnId) {
        if self.attached.contains_key(&id) {
            self.tell_home(id, 0, SessionCommand::VoidWill);
        }
    }

    /// What is to be kept of a will.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn check_will(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        asked: Option<Asked<'_>>,
    ) -> Result<Option<Box<Will>>, CommandError> {
        let Some(Asked { topic: name, kind, data, options, delay_ms }) = asked else { return Ok(None) };
        self.check_right(id, command)?;
        self.check_permission(id, command, Operation::Publish, name)?;
        self.check_memory(command, WILL_BYTES + data.len() as u64, "wills")?;
        self.admit(id, command, name)?;
        Ok(Some(Box::new(Will {
            topic: self.shared.registry.resolve(name),
            kind,
            data: data.into(),
            options: PublishOptions::of(options),
            delay: Nanos::from(delay_ms) * NANOS_PER_MS,
            principal: self.identities.principal(id).cloned(),
        })))
    }

    // ---- the home's side

    /// A session has this will from now on, or none. `ticket`: a command waits for an answer.
    pub(super) fn will_at_home(&mut self, owner: Owner, will: Option<Box<Will>>, ticket: Option<u64>) {
        let is_set = self.sessions.set_will(owner, will);
        match ticket {
            Some(ticket) if is_set => {
                self.mailbox.deliver(owner.shard, Delivery::Done { conn: owner.conn, ticket });
            }
            Some(ticket) => self.refuse_command(owner, ticket, Refusal::NotFound(GOES_ON)),
            None => {}
        }
    }

    /// The client that set the will of a session may say nothing any more.
    pub(super) fn void_will_at_home(&mut self, owner: Owner) {
        if self.sessions.take_will(owner).is_some() {
            self.stats().wills_refused.add(1);
        }
    }

    /// A connection has ended, and not on purpose. `is_shutdown`: the broker has ended it.
    pub(super) fn drop_at_home(&mut self, owner: Owner, is_shutdown: bool) {
        // On an exclusive topic it is published while the session has the lease.
        if let Some((session, will)) = self.sessions.drop_will(owner, self.now, is_shutdown) {
            self.publish_will(session, *will);
        }
        let leases = self.sessions.leases_of(owner);
        match self.sessions.drop_owner(owner, self.now) {
            Some(ended) => self.leave_entered(Some(ended)),
            None => self.keep_leases(leases, self.now.saturating_add(nanos(self.limits.session_grace))),
        }
    }

    /// Has a will published, if it still may be.
    pub(super) fn publish_will(&mut self, session: SessionRef, will: Will) {
        if self.drain.is_under_way() {
            return;
        }
        let Some(needs_no_lease) = self.may_publish_will(&will) else {
            self.stats().wills_refused.add(1);
            return;
        };
        let Will { topic, kind, data, options, .. } = will;
        let options = if needs_no_lease { PublishOptions::exempt(options) } else { options };
        let sequencer = topic.sequencer;
        let request = WillRequest { session, topic, kind, data, options };
        self.mailbox.request(sequencer, Request::Will(Box::new(request)));
    }

    /// `None`: it may not be published now. Otherwise whether it needs no lease.
    fn may_publish_will(&self, will: &Will) -> Option<bool> {
        let authority = &self.shared.authority;
        if !authority.is_on() {
            return Some(false);
        }
        let principal = match &will.principal {
            None => authority.anonymous(),
            Some(principal) => authority.renew(principal, None).ok(),
        };
        let principal = principal.filter(|principal| principal.allows(Operation::Publish, &will.topic.name))?;
        Some(principal.permissions.needs_no_lease())
    }

    // ---- as a sequencer

    /// Publishes a will.
    pub(super) fn on_will_request(&mut self, request: WillRequest) {
        let WillRequest { session, topic, kind, data, options } = request;
        let mut options = options.map(|options| *options).unwrap_or_default();
        if options.lease == LeaseClaim::None {
            let current = self.leases.current(topic.id).filter(|current| current.session == session);
            options.lease = LeaseClaim::of(current.map(|current| current.number));
        }
        let options = (options != PublishOptions::default()).then(|| Box::new(options));
        match self.publish_here(topic, kind, &data, options) {
            Ok(()) => self.stats().wills_published.add(1),
            Err(_) => self.stats().wills_refused.add(1),
        }
    }
}
