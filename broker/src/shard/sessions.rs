//! Sessions that outlive a connection, on both of their sides: the shard of the connection, and the session's home
//! ([`crate::presence`]).
//!
//! A connection has a session from the first command that needs one: `connect` with `session`, or `enter`. Its shard knows
//! which shard is the home ([`Attached`]) and no more; the home is sent every command about the session, in their order, and at
//! last that the connection has ended. A session without a secret ends with its connection; its home is the connection's own
//! shard.
//!
//! Cost: nothing for connections without a session. A message between shards for each command.

use std::sync::Arc;

use protocol::frame::close_code;
use protocol::v1::{CommandError, Connected, ErrorCode, Id, SessionAsked, Will};
use ring::{ConnId, Driver, Nanos};

use crate::access::permissions::Right;
use crate::access::principal::{Principal, PrincipalKind};
use crate::ids::ShardId;
use crate::message::options::Refusal;
use crate::observe::counters::Reason;
use crate::presence::members::Entry;
use crate::presence::sessions::{Asked, Ended};
use crate::presence::{Owner, secret::Secret};
use crate::session::SequencerAnswer;
use crate::shard::Shard;
use crate::shard::asked::{Entering, PresenceCommand, PresenceRequest, SessionCommand, SessionOpened, SessionRequest};
use crate::shard::permissions::SignIn;
use crate::shard::shared::{Delivery, Request};
use crate::shard::transport::connection::Flags;
use crate::shard::transport::held::HeldConnect;
use crate::topics::registry::TopicRef;

/// What the broker calls itself.
const SERVER: &str = concat!("ringyard/", env!("CARGO_PKG_VERSION"));
/// What a session takes at least, in bytes, for the question whether there is room.
const SESSION_BYTES: u64 = 1024;

/// What a connection's shard knows of its session.
#[derive(Debug)]
pub(super) struct Attached {
    home: ShardId,
    /// The name by which others see it, once the home has said so; until then that of the connection.
    pub(super) member: Option<Arc<str>>,
}

impl<D: Driver> Shard<D> {
    // ---- the connection's side

    /// A `connect`: who the client is, and which session it wants.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn connect(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        token: Option<&str>,
        session: Option<SessionAsked<'_>>,
        will: Option<Will<'_>>,
    ) -> Result<(), CommandError> {
        if session.is_some() && self.attached.contains_key(&id) {
            let reason = "the connection has a session already: another connection can have another".into();
            return Err(CommandError { id: command, code: ErrorCode::BadCommand, reason });
        }
        let was_identified = self.conns.get(id).is_some_and(|conn| !conn.flags.has(Flags::UNIDENTIFIED));
        if let Some(token) = token {
            match self.identify(id, command, token)? {
                SignIn::Done => {}
                SignIn::Ended => return Ok(()),
                SignIn::AwaitsKey => {
                    let held = HeldConnect::new(command, token, session, will, &self.account);
                    self.hold_connect(id, held);
                    return Ok(());
                }
            }
        }
        // Whatever else is refused, the token is in force.
        let will = self.check_will(id, command, will).inspect_err(|_| self.look_again_at(id))?;
        match session {
            Some(asked) => self.open_session(id, command, asked).inspect_err(|_| self.look_again_at(id))?,
            None => self.say_connected(id, command),
        }
        self.keep_will(id, will);
        if token.is_some() && was_identified {
            self.rights_changed(id);
        }
        Ok(())
    }

    fn say_connected(&mut self, id: ConnId, command: Option<Id>) {
        let (_, member) = self.client_names(id);
        let connected = self.connected(id, None, false, &member);
        let mut out = self.begin_answer();
        self.conns.get(id).expect("an open connection").session.write_connected(command, &connected, &mut out);
        self.answer(id, out);
    }

    fn open_session(&mut self, id: ConnId, command: Option<Id>, asked: SessionAsked<'_>) -> Result<(), CommandError> {
        self.check_memory(command, SESSION_BYTES, "sessions")?;
        let shards = self.shards();
        let resume = match asked {
            SessionAsked::New => None,
            SessionAsked::Resumed(text) => text.parse::<Secret>().ok().filter(|secret| secret.home().0 < shards),
        };
        let home = resume.map_or(self.id, Secret::home);
        let Some(fresh) = self.shared.secrets.draw(home) else {
            let reason = "the operating system gives no random bytes".into();
            return Err(CommandError { id: command, code: ErrorCode::Busy, reason });
        };
        let (user, member) = self.client_names(id);
        self.attached.insert(id, Attached { home, member: None });
        let asked = Asked { resume, fresh: Some(fresh), user, member };
        self.ask_home(id, command, SessionCommand::Open(asked));
        Ok(())
    }

    /// The client has its session: that is its answer.
    pub(super) fn on_session_opened(&mut self, opened: SessionOpened) {
        let SessionOpened { conn: id, ticket, secret, resumed, member } = opened;
        if let Some(attached) = self.attached.get_mut(&id) {
            attached.member = Some(Arc::clone(&member));
            self.tell_member(id);
        }
        let text = secret.map(|secret| secret.to_string());
        let connected = self.connected(id, text.as_deref(), resumed, &member);
        self.answer_command(id, ticket, Ok(SequencerAnswer::Connected(connected)));
    }

    fn connected<'a>(&self, id: ConnId, session: Option<&'a str>, resumed: bool, member: &'a str) -> Connected<'a> {
        let now_ms = self.shared.wall_clock.millis(self.now);
        let expires_ms = self.identities.principal(id).and_then(|principal| principal.expires_ms);
        let ping_ms = Some(self.limits.ping_interval.as_millis() as u64);
        let expires_ms = expires_ms.map(|expires_ms| expires_ms.saturating_sub(now_ms));
        Connected { session, resumed, member, expires_ms, ping_ms, server: SERVER }
    }

    /// The user or key that a client is, and the name by which others see it: that, or one of its connection's own.
    pub(super) fn client_names(&self, id: ConnId) -> (Option<Arc<str>>, Arc<str>) {
        let principal = self.identities.principal(id).filter(|principal| principal.kind != PrincipalKind::Anonymous);
        let user = principal.map(|principal| Arc::clone(&principal.name));
        let session = self.attached.get(&id).and_then(|attached| attached.member.clone());
        let drawn = || {
            let place = format!("{}/{}/{}", self.id, id.slot, id.generation);
            format!("~{:016x}", self.shared.registry.keys().hash_text(&place)).into()
        };
        let member = session.or_else(|| user.clone()).unwrap_or_else(drawn);
        (user, member)
    }

    /// A connection has a session from now on, if only one that ends with it.
    pub(super) fn attach_client(&mut self, id: ConnId) {
        if self.attached.contains_key(&id) {
            return;
        }
        let (user, member) = self.client_names(id);
        self.attached.insert(id, Attached { home: self.id, member: Some(Arc::clone(&member)) });
        self.tell_member(id);
        self.tell_home(id, 0, SessionCommand::Begin { user, member });
    }

    /// An `enter` or `update`.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn enter_topic(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        name: &str,
        info: Option<&[u8]>,
        is_update: bool,
    ) -> Result<(), CommandError> {
        self.check_right_for(id, command, Right::Enter, name)?;
        let info = self.member_info(id, command, name, info)?;
        self.check_memory(command, SESSION_BYTES, "members")?;
        self.admit(id, command, name)?;
        let topic = self.shared.registry.resolve(name);
        self.attach_client(id);
        let entering = Entering { topic, info, is_update };
        self.ask_home(id, command, SessionCommand::Enter(entering));
        Ok(())
    }

    /// A `leave`.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn leave_topic(&mut self, id: ConnId, command: Option<Id>, name: &str) -> Result<(), CommandError> {
        match self.shared.registry.find(name) {
            Some(topic) if self.attached.contains_key(&id) => {
                self.ask_home(id, command, SessionCommand::Leave { topic, is_answered: true });
                Ok(())
            }
            _ => Err(CommandError { id: command, code: ErrorCode::NotFound, reason: NOT_ENTERED.into() }),
        }
    }

    /// A client that unsubscribes a topic is present there no more.
    pub(super) fn leave_unsubscribed(&mut self, id: ConnId, keys: &[u32]) {
        if !self.attached.contains_key(&id) {
            return;
        }
        let session = &self.conns.get(id).expect("an open connection").session;
        let logs = keys.iter().filter_map(|&key| session.subscription(key)).map(|subscription| subscription.log);
        let topics: Vec<TopicRef> = logs.map(|log| self.fanout.logs[log].topic.clone()).collect();
        for topic in topics.into_iter().filter(|topic| !topic.wildcard) {
            self.tell_home(id, 0, SessionCommand::Leave { topic, is_answered: false });
        }
    }

    /// A `disconnect`: the session is over, and so is the connection.
    pub(super) fn disconnect(&mut self, id: ConnId, command: Option<Id>) {
        if self.attached.contains_key(&id) {
            self.tell_home(id, 0, SessionCommand::End);
            self.attached.remove(&id);
        }
        self.answer_ok(id, command);
        self.close_with(id, close_code::NORMAL.into(), "", Reason::ByClient);
    }

    /// The client's session goes on over another connection.
    pub(super) fn on_session_taken(&mut self, id: ConnId) {
        if self.attached.remove(&id).is_some() {
            self.close_with(id, close_code::SESSION_TAKEN.into(), GOES_ON, Reason::SessionTaken);
        }
    }

    /// A connection is no WebSocket any more.
    pub(super) fn drop_session(&mut self, id: ConnId) {
        if self.attached.contains_key(&id) {
            // At the end of the broker there is nobody to be notified.
            if !self.drain.is_under_way() {
                let reason = self.conns.get(id).and_then(|conn| conn.reason);
                let is_shutdown = reason == Some(Reason::Shutdown);
                self.tell_home(id, 0, SessionCommand::Drop { is_shutdown });
            }
            self.attached.remove(&id);
        }
    }

    /// What a client may do has changed.
    pub(super) fn restrict_session(&mut self, id: ConnId, who: &Arc<Principal>) {
        if self.attached.contains_key(&id) {
            self.tell_home(id, 0, SessionCommand::Restrict(Arc::clone(who)));
        }
    }

    pub(super) fn owner(&self, id: ConnId) -> Owner {
        Owner { shard: self.id, conn: id }
    }

    pub(super) fn ask_home(&mut self, id: ConnId, command: Option<Id>, asked: SessionCommand) {
        let ticket = self.expect_answer(id, command);
        self.tell_home(id, ticket, asked);
    }

    pub(super) fn tell_home(&mut self, id: ConnId, ticket: u64, asked: SessionCommand) {
        let home = self.attached[&id].home;
        let request = SessionRequest { owner: self.owner(id), ticket, asked };
        self.mailbox.request(home, Request::Session(Box::new(request)));
    }

    // ---- the home's side

    /// Something about a session whose home is here.
    pub(super) fn on_session_request(&mut self, request: SessionRequest) {
        let SessionRequest { owner, ticket, asked } = request;
        match asked {
            SessionCommand::Open(asked) => self.open_at_home(owner, ticket, asked),
            SessionCommand::Begin { user, member } => drop(self.sessions.begin(owner, user, member)),
            SessionCommand::Enter(entering) => self.enter_at_home(owner, ticket, entering),
            SessionCommand::Leave { topic, is_answered } => {
                let answer = is_answered.then_some((owner, ticket));
                match self.sessions.leave(owner, topic.id) {
                    Some(known) => self.ask_presence(topic, answer, PresenceCommand::Leave(known.session)),
                    None if is_answered => self.refuse_command(owner, ticket, Refusal::NotFound(NOT_ENTERED)),
                    None => {}
                }
            }
            SessionCommand::Restrict(who) => {
                let may = |topic: &str| who.has(Right::Enter, topic);
                let left = self.sessions.leave_unless(owner, may);
                self.leave_entered(left);
                self.restrict_leases(owner, &who);
            }
            SessionCommand::Lease(leasing) => self.lease_at_home(owner, ticket, leasing),
            SessionCommand::Will { will, is_answered } => {
                self.will_at_home(owner, will, is_answered.then_some(ticket));
            }
            SessionCommand::VoidWill => self.void_will_at_home(owner),
            SessionCommand::Drop { is_shutdown } => self.drop_at_home(owner, is_shutdown),
            SessionCommand::End => {
                let ended = self.sessions.end(owner);
                self.leave_entered(ended);
            }
        }
    }

    fn open_at_home(&mut self, owner: Owner, ticket: u64, asked: Asked) {
        let opened = self.sessions.open(owner, asked);
        if let Some((session, will)) = opened.will {
            self.publish_will(session, *will);
        }
        self.resume_leases(owner, opened.taken_from);
        if let Some(before) = opened.taken_from {
            self.mailbox.deliver(before.shard, Delivery::SessionTaken(before.conn));
        }
        self.leave_entered(opened.ended);
        let (secret, resumed, member) = (opened.secret, opened.resumed, opened.member);
        let opened = SessionOpened { conn: owner.conn, ticket, secret, resumed, member };
        self.mailbox.deliver(owner.shard, Delivery::Opened(Box::new(opened)));
    }

    fn enter_at_home(&mut self, owner: Owner, ticket: u64, entering: Entering) {
        let Entering { topic, info, is_update } = entering;
        let Some(known) = self.sessions.of(owner) else {
            return self.refuse_command(owner, ticket, Refusal::NotFound(GOES_ON));
        };
        if is_update && !self.sessions.has_entered(owner, topic.id) {
            return self.refuse_command(owner, ticket, Refusal::NotFound(NOT_ENTERED));
        }
        if !self.sessions.enter(owner, topic.clone(), self.limits.subscriptions_max) {
            let reason = "a client may enter as many topics as it may subscribe to; see --max-subscriptions";
            return self.refuse_command(owner, ticket, Refusal::Limit(reason));
        }
        let entry = Entry { session: known.session, member: known.member, info, is_update };
        self.ask_presence(topic, Some((owner, ticket)), PresenceCommand::Enter(entry));
    }

    /// A session is over, or has to leave some of its topics.
    pub(super) fn leave_entered(&mut self, ended: Option<Ended>) {
        let Some(Ended { session, entered, leases, will }) = ended else { return };
        if let Some(will) = will {
            self.publish_will(session, *will);
        }
        self.free_leases(session, leases);
        for topic in entered {
            self.ask_presence(topic, None, PresenceCommand::Leave(session));
        }
    }

    pub(super) fn ask_presence(&mut self, topic: TopicRef, answer: Option<(Owner, u64)>, asked: PresenceCommand) {
        let sequencer = topic.sequencer;
        let request = PresenceRequest { topic, answer, asked };
        self.mailbox.request(sequencer, Request::Presence(Box::new(request)));
    }

    /// Answers that a command was not carried out.
    pub(super) fn refuse_command(&mut self, owner: Owner, ticket: u64, refusal: Refusal) {
        let refused = Delivery::Refused { conn: owner.conn, ticket, refusal: Box::new(refusal) };
        self.mailbox.deliver(owner.shard, refused);
    }

    /// Ends sessions whose grace is over, and counts anew; called once a turn.
    pub(super) fn expire_sessions(&mut self) {
        while let Some((session, will)) = self.sessions.take_due_will(self.now) {
            self.publish_will(session, *will);
        }
        while let Some(ended) = self.sessions.take_due(self.now) {
            self.leave_entered(Some(ended));
        }
        self.count_again();
        self.expire_leases();
    }

    /// When this has something to do next.
    pub(super) fn next_session_deadline(&self) -> Option<Nanos> {
        [self.sessions.next_due(), self.counts.next_due(), self.next_lease_deadline()].into_iter().flatten().min()
    }
}

/// Why there is nothing to leave or to update.
pub(super) const NOT_ENTERED: &str = "the client has not entered this topic";
/// Why a connection has no session any more.
pub(super) const GOES_ON: &str = "the session goes on over another connection";
