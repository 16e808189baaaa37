//! What a connection of this shard may do: asked with each subscribe, publish, history and snapshot; and what becomes of it
//! when that changes.
//!
//! Not responsible for who a connection is (`identities`), nor for what is granted to whom (`access/authority.rs`).
//!
//! Cost: without access control one test of a flag per command. With it a publish to the topic of the publish before costs
//! no more, to another one at most one match per granted filter.

use std::sync::Arc;

use protocol::frame::close_code::{AUTH_TIMEOUT, BAD_TOKEN, FORBIDDEN, TOKEN_EXPIRED};
use protocol::frame::{CloseCode, Opcode};
use protocol::topic::is_for_operators;
use protocol::v1::{CommandError, ErrorCode, Id, write_refresh};
use ring::{ConnId, Driver, Nanos, nanos};

use crate::access::permissions::{Operation, Right};
use crate::access::principal::{Cause, Identified, Principal};
use crate::observe::counters::Reason;
use crate::session::Action;
use crate::shard::handover::Entry;
use crate::shard::identities::{Lifetime, Next, REFRESH_MS};
use crate::shard::shared::{INSPECTED_MAX, SignedIn, SignedInPart};
use crate::shard::transport::connection::{Flags, State};
use crate::shard::{NANOS_PER_MS, RETRY_NANOS, Shard};

/// Connections that one turn looks at after a change of rights.
const LOOKED_AT_PER_TURN: usize = 256;
/// Why a connection is closed whose token or key is good no longer.
const NO_LONGER: &str = "this client may not stay any longer";

/// What becomes of a connection whose `connect` brings a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SignIn {
    /// It is that token's.
    Done,
    /// It ends, and that is answered.
    Ended,
    /// The command is to be carried out again when keys were fetched.
    AwaitsKey,
}

impl<D: Driver> Shard<D> {
    // ---- asked

    /// Whose a connection is; `None`: it may do everything that clients may, for there is no access control.
    pub(super) fn who(&self, id: ConnId) -> Option<Arc<Principal>> {
        let authority = &self.shared.authority;
        let own = self.identities.principal(id).cloned();
        if !authority.is_on() {
            // Of operators alone something is known.
            return own;
        }
        let own = own.or_else(|| authority.anonymous());
        Some(own.unwrap_or_else(|| Arc::new(Principal::anonymous(Arc::default()))))
    }

    /// Whether a connection may do this.
    ///
    /// # Errors
    /// `forbidden`, with operation and topic.
    pub(super) fn check_permission(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        operation: Operation,
        name: &str,
    ) -> Result<(), CommandError> {
        match self.who(id) {
            Some(who) => self.check_of(&who, command, operation, name),
            None => self.check_open(command, name),
        }
    }

    /// Whether everybody may do something with a topic or filter where there is no access control.
    fn check_open(&mut self, command: Option<Id>, name: &str) -> Result<(), CommandError> {
        if is_for_operators(name) {
            return Err(self.forbidden(command, format!("{name:?} is for operators")));
        }
        Ok(())
    }

    fn check_of(
        &mut self,
        who: &Principal,
        command: Option<Id>,
        operation: Operation,
        name: &str,
    ) -> Result<(), CommandError> {
        if who.allows(operation, name) {
            return Ok(());
        }
        Err(self.forbidden(command, who.explain(operation, name, self.shared.authority.settings().explain)))
    }

    /// Whether a connection has this right for what it may subscribe to.
    ///
    /// # Errors
    /// As of [`Shard::check_permission`].
    pub(super) fn check_right_for(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        right: Right,
        name: &str,
    ) -> Result<(), CommandError> {
        let Some(who) = self.who(id) else { return self.check_open(command, name) };
        // Whoever has the right may subscribe: it is for what a grant of that covers.
        if who.has(right, name) {
            return Ok(());
        }
        self.check_of(&who, command, Operation::Subscribe, name)?;
        Err(self.forbidden(command, who.explain_right(right, name)))
    }

    /// A refusal that is counted.
    pub(super) fn forbidden(&mut self, command: Option<Id>, reason: String) -> CommandError {
        self.stats().commands_forbidden.add(1);
        CommandError { id: command, code: ErrorCode::Forbidden, reason: reason.into() }
    }

    // ---- who it is

    /// A connection that has just become a WebSocket begins like this.
    pub(super) fn begin_identity(&mut self, id: ConnId, entry: &Entry) {
        match entry {
            Entry::Anyone | Entry::Refused(..) => {}
            Entry::Known(principal) => self.set_principal(id, Arc::clone(principal)),
            Entry::Unknown => {
                let until = self.now + nanos(self.limits.auth_timeout);
                self.identities.expect(id, until);
                self.conns.get(id).expect("a connection being established").flags.set(Flags::UNIDENTIFIED);
            }
        }
    }

    /// The control plane judged a handshake some turns ago, and this shard may have seen a change of rights since.
    pub(super) fn renew_entry(&self, entry: Entry) -> Entry {
        let Entry::Known(principal) = &entry else { return entry };
        match self.shared.authority.renew(principal, None) {
            Ok(renewed) => Entry::Known(renewed),
            Err(_) => Entry::Refused(FORBIDDEN, NO_LONGER),
        }
    }

    /// The next turn looks whether a connection may still do what it does.
    pub(super) fn look_again_at(&mut self, id: ConnId) {
        if self.shared.authority.is_on() {
            self.identities.look_again_at([id]);
        }
    }

    /// As which member a connection appears to others, if they can know: that of its session, or the user of its token.
    pub(super) fn member_name(&self, id: ConnId) -> Option<Arc<str>> {
        let of_session = self.attached.get(&id).and_then(|attached| attached.member.clone());
        of_session.or_else(|| self.identities.principal(id)?.member_name())
    }

    fn set_principal(&mut self, id: ConnId, principal: Arc<Principal>) {
        let before = self.identities.principal(id);
        if principal.max_age_ms.is_some() && before.is_some_and(|before| before.max_age_ms.is_some()) {
            self.identities.replace(id, principal);
        } else {
            let lifetime = self.lifetime(&principal);
            let asks = self.conns.get(id).is_some_and(|conn| conn.session.answers_to_come().is_some());
            self.identities.set(id, principal, lifetime, asks);
        }
        if let Some(conn) = self.conns.get(id) {
            conn.flags.clear(Flags::UNIDENTIFIED);
        }
    }

    /// Until when a connection with this token may stay, on the driver's clock: until the token's end and the grace, or, if it came
    /// even later, for as long as it is taken. With a token that has no end the connection may last for `max-age`, from now on;
    /// another such token does not prolong that.
    fn lifetime(&self, principal: &Principal) -> Option<Lifetime> {
        let now_ms = self.shared.wall_clock.millis(self.now);
        let (left_ms, closed_in_ms) = match (principal.expires_ms, principal.max_age_ms) {
            (Some(ends_ms), _) => {
                let settings = self.shared.authority.settings();
                let left_until = |after_ms| ends_ms.saturating_add(after_ms).saturating_sub(now_ms);
                let closed_in_ms = match left_until(settings.grace_ms) {
                    0 => left_until(settings.leeway_ms),
                    left_ms => left_ms,
                };
                (left_until(0), closed_in_ms)
            }
            (None, Some(max_age_ms)) => (max_age_ms, max_age_ms),
            (None, None) => return None,
        };
        let at = |ms: u64| self.now.saturating_add(ms.saturating_mul(NANOS_PER_MS)).min(Nanos::MAX / 4);
        // A short token would be asked for again as soon as it came.
        let refresh = at(left_ms - REFRESH_MS.min(left_ms / 2));
        Some(Lifetime { refresh, ends: at(left_ms), closed: at(closed_in_ms) })
    }

    /// A `connect` brings a token: the first, or another one.
    ///
    /// # Errors
    /// The token is refused. If the connection has nothing else to stand on, it ends with that.
    pub(super) fn identify(&mut self, id: ConnId, command: Option<Id>, token: &str) -> Result<SignIn, CommandError> {
        if !self.shared.authority.is_on() {
            let reason = "this broker takes no tokens: it has no access control".into();
            return Err(CommandError { id: command, code: ErrorCode::Unsupported, reason });
        }
        let now_ms = self.shared.wall_clock.millis(self.now);
        let Identified { result, cost } = self.shared.authority.identify(token.as_bytes(), now_ms);
        self.input.work.charge_verification(cost);
        let is_unidentified = self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::UNIDENTIFIED));
        let principal = match result {
            Ok(principal) => principal,
            Err(denial) if denial.awaits_key => return Ok(SignIn::AwaitsKey),
            Err(denial) => {
                let reason = "the token is not a good one".into();
                let error = CommandError { id: command, code: ErrorCode::BadToken, reason };
                if is_unidentified {
                    self.fail_with(id, &error, if denial.is_expired() { TOKEN_EXPIRED } else { BAD_TOKEN });
                    return Ok(SignIn::Ended);
                }
                return Err(error);
            }
        };
        let before = self.identities.principal(id);
        if before.is_some_and(|before| !before.is_same(&principal)) {
            let reason = "the token is of another user: connect anew with it".to_owned();
            let error = self.forbidden(command, reason);
            self.fail_with(id, &error, FORBIDDEN);
            return Ok(SignIn::Ended);
        }
        self.set_principal(id, principal);
        self.tell_member(id);
        Ok(SignIn::Done)
    }

    /// Answers with an error, and closes.
    fn fail_with(&mut self, id: ConnId, error: &CommandError, code: CloseCode) {
        let mut out = self.begin_answer();
        let conn = self.conns.get(id).expect("an open connection");
        // What it would do about the error is of no use: the connection ends.
        let _ = conn.session.on_error(error, &mut out);
        self.answer(id, out);
        self.close_for_access(id, code, &error.reason);
    }

    fn close_for_access(&mut self, id: ConnId, code: CloseCode, why: &str) {
        let reason = if code == TOKEN_EXPIRED { Reason::Expired } else { Reason::Access };
        self.close_with(id, code.into(), why, reason);
    }

    // ---- due

    /// Asks for tokens that end soon, closes those whose time is over, and goes on with what changes of rights mean.
    pub(super) fn expire_identities(&mut self) {
        if !self.shared.authority.is_on() {
            return;
        }
        while let Some((id, next)) = self.identities.take_due(self.now) {
            match next {
                Next::Timeout => {
                    self.shared.authority.count(Cause::Missing);
                    self.close_for_access(id, AUTH_TIMEOUT, "no token came in time; see --auth-timeout");
                }
                Next::Refresh { ends, .. } => self.ask_for_token(id, ends),
                Next::End => self.close_for_access(id, TOKEN_EXPIRED, "the token has ended"),
            }
        }
        let generation = self.shared.authority.generation();
        if generation != self.identities.generation {
            self.identities.generation = generation;
            let ids = self.conns.ids();
            self.identities.look_again_at(ids);
        }
        for _ in 0..self.identities.changed().min(LOOKED_AT_PER_TURN) {
            let Some(id) = self.identities.take_changed() else { return };
            self.look_again(id);
        }
    }

    /// When this has something to do next.
    pub(super) fn next_identity_deadline(&self) -> Option<Nanos> {
        let changed = (self.identities.changed() > 0).then_some(self.now + RETRY_NANOS);
        changed.into_iter().chain(self.identities.next_due()).min()
    }

    fn ask_for_token(&mut self, id: ConnId, ends: Nanos) {
        let mut out = self.begin_answer();
        write_refresh(&mut out, ends.saturating_sub(self.now) / 1_000_000);
        self.queue_frame(id, Opcode::Text, &out);
        self.codec.scratch = out;
    }

    // ---- changed

    /// Rules, keys or revocations changed: is this connection still who it was, and what may it do?
    fn look_again(&mut self, id: ConnId) {
        if self.conns.get(id).is_none_or(|conn| conn.state != State::Open || conn.flags.has(Flags::UNIDENTIFIED)) {
            return;
        }
        let renewed = match self.identities.principal(id).cloned() {
            // When its token is over, that is due by itself, after the grace.
            Some(principal) => match self.shared.authority.renew(&principal, None) {
                // The `connect` that waits may bring a token of a key that is trusted now. Then this looks again.
                Err(denial) if denial.cause == Cause::UnknownKey && self.holds_connect(id) => return,
                renewed => renewed.ok(),
            },
            None => self.shared.authority.anonymous(),
        };
        let Some(principal) = renewed else {
            return self.close_for_access(id, FORBIDDEN, NO_LONGER);
        };
        self.identities.replace(id, principal);
        self.rights_changed(id);
    }

    /// Ends what a connection has and nothing grants any more.
    pub(super) fn rights_changed(&mut self, id: ConnId) {
        let Some(who) = self.who(id) else { return };
        self.restrict_session(id, &who);
        let Some(conn) = self.conns.get(id) else { return };
        conn.session.forget_topic();
        self.end_forbidden_responders(id, &who);
        let Some(conn) = self.conns.get(id) else { return };
        if let Some(publisher) = conn.session.publisher()
            && !who.allows(Operation::Publish, &publisher.topic().name)
        {
            return self.close_for_access(id, FORBIDDEN, "nothing grants this any more");
        }
        let logs = &self.fanout.logs;
        let is_granted = |filter: &str| who.allows(Operation::Subscribe, filter);
        let lost: Vec<u32> = conn
            .session
            .keys()
            .into_iter()
            .filter(|&key| {
                conn.session
                    .subscription(key)
                    .is_some_and(|subscription| !is_granted(&logs[subscription.log].topic.name))
            })
            .collect();
        if lost.is_empty() {
            return;
        }
        match conn.session.end_subscriptions(&lost) {
            // It is confirmed first: the next look finds it again.
            None => self.identities.look_again_at([id]),
            Some(Action::Close { .. }) => self.close_for_access(id, FORBIDDEN, "nothing grants this any more"),
            Some(action) => self.carry_out(id, action),
        }
    }

    // ---- operators

    /// The connections of users and keys, or of one of them. Linear in them.
    pub(super) fn signed_in(&mut self, user: Option<&str>) -> SignedInPart {
        let is_meant = |principal: &Principal| user.is_none_or(|user| *principal.name == *user);
        let mut found: Vec<_> =
            self.identities.iter().filter(|(_, principal)| is_meant(principal)).map(|(id, _)| id).collect();
        let total = found.len() as u64;
        found.sort_unstable();
        found.truncate(INSPECTED_MAX);
        let connections = found.into_iter().filter_map(|conn| {
            let principal = Some(Arc::clone(self.identities.principal(conn)?));
            let subscriptions = self.conns.get(conn)?.session.subscriptions().count();
            Some(SignedIn { conn, principal, subscriptions })
        });
        SignedInPart { connections: connections.collect(), total }
    }

    /// Closes every connection of a user, or only those whose tokens were issued before `issued_before_s`, because they are about to be
    /// revoked: these leave no will. Returns how many.
    /// Linear in connections with a token.
    pub(super) fn close_user(&mut self, user: &str, issued_before_s: Option<u64>) -> u64 {
        let ids: Vec<ConnId> = self.identities.of_user(user, issued_before_s).collect();
        let mut closed = 0;
        for id in ids {
            if self.conns.get(id).is_some_and(|conn| conn.state == State::Open) {
                closed += 1;
                if issued_before_s.is_some() {
                    self.void_will(id);
                }
                self.close_for_access(id, FORBIDDEN, "closed by an operator");
            }
        }
        closed
    }
}
