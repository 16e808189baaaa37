//! What sessions want done is carried out: see [`crate::session`].
//!
//! An answer is queued before its action is carried out. An action that cannot be carried out is an error that the
//! session tells its client.

use bytes::BytesMut;
use protocol::frame::Opcode;
use protocol::v1::{CommandError, ErrorCode, Id, PayloadKind, Position, Start, Topics, write_ended, write_ok};
use ring::{ConnId, Driver, nanos};

use crate::access::permissions::{Operation, Right};
use crate::access::quota::Name;
use crate::capacity::budget::Held;
use crate::message::Payload;
use crate::message::options::{LeaseClaim, PublishOptions, Refusal};
use crate::session::{Action, Codec, Ended, Incoming, PublishData, SequencerAnswer, Target};
use crate::shard::Shard;
use crate::shard::fanout::log::Subscriber;
use crate::shard::recall::Wants;
use crate::shard::shared::{Origin, Published};
use crate::shard::transport::connection::{Flags, State};
use crate::shard::transport::held::HeldPublish;
use crate::topics::rules::Throttle;

impl<D: Driver> Shard<D> {
    /// A whole message of an open connection, whose bytes may be overwritten.
    pub(super) fn on_message(&mut self, id: ConnId, message: Incoming<'_>) {
        let mut parser = self.codec.parser.take().expect("one message at a time");
        let mut out = self.begin_answer();
        let conn = self.conns.get(id).expect("an open connection");
        let is_identified = !conn.flags.has(Flags::UNIDENTIFIED);
        let codec = Codec { parser: &mut parser, limits: &self.limits, is_identified, out: &mut out };
        let action = conn.session.on_message(message, codec);
        self.answer(id, out);
        self.carry_out(id, action);
        self.codec.parser = Some(parser);
    }

    pub(super) fn carry_out(&mut self, id: ConnId, action: Action<'_>) {
        let done = match action {
            Action::Answer => Ok(()),
            Action::Close { code, why, reason } => {
                self.close_with(id, code.into(), &why, reason);
                Ok(())
            }
            Action::Connect { id: command, token, session, will } => self.connect(id, command, token, session, will),
            Action::Disconnect { id: command } => {
                self.disconnect(id, command);
                Ok(())
            }
            Action::Enter { id: command, topic, info, is_update } => {
                self.enter_topic(id, command, topic, info, is_update)
            }
            Action::Leave { id: command, topic } => self.leave_topic(id, command, topic),
            Action::Members { id: command, topic, limit } => self.ask_members(id, command, topic, limit),
            Action::Publish { to, kind, data, options, id: command, ack } => {
                self.publish_for(id, to, kind, (data, options), command, ack)
            }
            Action::Subscribe { id: command, filters, start, state, throttle } => {
                self.subscribe(id, command, filters, (start, state), throttle)
            }
            Action::History { id: command, topic, query } => self.read_history(id, command, topic, query),
            Action::Snapshot { id: command, topic, up_to, kind, data, lease } => {
                let payload = Payload::copy_of(kind, data, &self.account);
                self.store_snapshot(id, command, topic, up_to, payload, LeaseClaim::of(lease))
            }
            Action::Call(call) => self.on_call_action(id, call),
            Action::Lease { id: command, topic, asked } => self.ask_lease(id, command, topic, asked),
            Action::Will { id: command, will } => self.set_will(id, command, will),
            Action::Unsubscribe { flush } => {
                let conn = self.conns.get(id).expect("an open connection");
                // What it is given of a topic's history comes before the answer, or not at all.
                if flush || conn.flags.has(Flags::BACKLOG) {
                    conn.flags.set(Flags::PAUSED);
                    self.flush(id);
                } else {
                    self.finish_unsubscribe(id);
                }
                Ok(())
            }
        };
        if let Err(error) = done {
            self.answer_error(id, &error);
        }
    }

    /// Has the session tell its client why an action was not carried out.
    pub(super) fn answer_error(&mut self, id: ConnId, error: &CommandError) {
        let mut out = self.begin_answer();
        let action = self.conns.get(id).expect("an open connection").session.on_error(error, &mut out);
        self.answer(id, out);
        self.carry_out(id, action);
    }

    // ---- answers

    pub(super) fn begin_answer(&mut self) -> BytesMut {
        let mut out = std::mem::take(&mut self.codec.scratch);
        out.clear();
        out
    }

    /// Answers that a command was carried out.
    pub(super) fn answer_ok(&mut self, id: ConnId, command: Option<Id>) {
        let mut out = self.begin_answer();
        write_ok(&mut out, command.as_ref());
        self.answer(id, out);
    }

    /// The session's number for a command whose answer comes from another shard, or later.
    pub(super) fn expect_answer(&mut self, id: ConnId, command: Option<Id>) -> u64 {
        let session = &mut self.conns.get(id).expect("an open connection").session;
        session.await_answer(command, true, &self.account).expect("a session with commands")
    }

    /// The answer to the command with this number.
    pub(super) fn answer_command(&mut self, id: ConnId, ticket: u64, answer: Result<SequencerAnswer<'_>, Refusal>) {
        let mut out = self.begin_answer();
        if let Some(conn) = self.conns.get(id) {
            conn.session.on_answer(ticket, answer, &self.account, &mut out);
        }
        self.answer(id, out);
    }

    /// Queues what was written, if anything was, as the session frames answers.
    pub(super) fn answer(&mut self, id: ConnId, out: BytesMut) {
        if !out.is_empty() {
            self.queue_answer(id, &out);
        }
        self.codec.scratch = out;
    }

    // ---- subscribe: all of a command's topics, or none

    /// Whether a connection may subscribe to all of these, and to what they remember.
    fn check_subscribe(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        filters: Topics<'_>,
        start: Start<'_>,
    ) -> Result<(), CommandError> {
        for filter in filters.iter() {
            match start {
                Start::Last(_) => self.check_right_for(id, command, Right::History, filter)?,
                Start::Now | Start::Since(_) => self.check_permission(id, command, Operation::Subscribe, filter)?,
            }
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        filters: Topics<'_>,
        (start, state): (Start<'_>, bool),
        throttle: Throttle,
    ) -> Result<(), CommandError> {
        self.check_subscribe(id, command, filters, start)?;
        let session = &self.conns.get(id).expect("an open connection").session;
        let needed: u64 = filters.iter().map(|filter| session.bytes_for(filter)).sum();
        self.check_memory(command, needed, "subscriptions")?;
        let who = self.who(id);
        let has_history = |filter: &str| who.as_ref().is_none_or(|who| who.has(Right::History, filter));
        let mut entered = Vec::with_capacity(filters.iter().len());
        for filter in filters.iter() {
            if let Err(error) = self.admit(id, command, filter) {
                let keys: Vec<u32> = entered.into_iter().map(|(_, key)| key).collect();
                self.unsubscribe_keys(id, &keys);
                return Err(error);
            }
            let (slot, sub) = self.enter_subscription(id, filter, throttle);
            let wants = Wants::new(start, filter, state);
            let wants = if has_history(filter) { wants } else { wants.without_history() };
            if wants != Wants::NEWCOMER {
                self.recalls.expect(Subscriber { conn: id, sub }, wants);
            }
            entered.push((slot, sub));
        }
        let keys = entered.iter().map(|&(_, key)| key).collect();
        self.conns.get(id).expect("an open connection").session.begin_subscribe(command, keys);
        self.charge_session(id);
        for (slot, sub) in entered {
            self.attach(slot, Subscriber { conn: id, sub });
        }
        Ok(())
    }

    /// Whether subscriptions, and all that is charged with them, may take so many bytes more for `what`: their share of the budget is
    /// theirs, if the rest leaves it.
    pub(super) fn check_memory(&self, command: Option<Id>, bytes: u64, what: &str) -> Result<(), CommandError> {
        let budget = &self.shared.budget;
        let held = budget.held(Held::Subscriptions).saturating_add(bytes);
        if budget.fits(bytes) && held <= budget.share(Held::Subscriptions) {
            return Ok(());
        }
        Err(limit(command, format!("the broker has no memory left for more {what}; see --max-memory")))
    }

    /// Carries out the unsubscribe that waited, and goes on with the input behind it.
    pub(super) fn finish_unsubscribe(&mut self, id: ConnId) {
        let mut out = self.begin_answer();
        let conn = self.conns.get(id).expect("an open connection");
        let Ended { keys, forbidden } = conn.session.finish_unsubscribe(&mut out);
        self.leave_unsubscribed(id, &keys);
        self.unsubscribe_keys(id, &keys);
        for filter in forbidden {
            out.clear();
            write_ended(&mut out, &filter, ErrorCode::Forbidden, false);
            self.queue_frame(id, Opcode::Text, &out);
            out.clear();
        }
        self.answer(id, out);
        self.list_paused(id);
    }

    // ---- publish

    fn publish_for(
        &mut self,
        id: ConnId,
        to: Target<'_>,
        kind: PayloadKind,
        (data, options): (PublishData<'_>, Option<Box<PublishOptions>>),
        command: Option<Id>,
        ack: bool,
    ) -> Result<(), CommandError> {
        self.check_right(id, command)?;
        if !self.may_publish(id) {
            let has_answers = self.conns.get(id).is_some_and(|conn| conn.session.answers_to_come().is_some());
            self.stats().commands_limited.add(u64::from(has_answers));
            let reason = "publishing faster than --max-publish-rate allows; the message was not published";
            return Err(limit(command, reason.to_owned()));
        }
        let topic = match to {
            Target::Known(topic) => topic,
            Target::Named(name) => {
                self.check_permission(id, command, Operation::Publish, name)?;
                self.admit(id, command, name)?;
                let topic = self.shared.registry.resolve(name);
                self.conns.get(id).expect("a publisher").session.remember_topic(topic.clone());
                topic
            }
        };
        let has_key = self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::PUBLISHER));
        let options = options.map(|options| Box::new(PublishOptions { is_key_holder: has_key, ..*options }));
        // What may be refused is answered then in any case.
        let may_refuse = topic.may_refuse(self.shared.registry.rules());
        let is_answered = ack || options.is_some() || may_refuse;
        let options = if may_refuse && self.needs_no_lease(id) { PublishOptions::exempt(options) } else { options };
        let origin = if is_answered { self.origin(id, command, ack) } else { Origin::Silent };
        let payload = data.into_payload(kind, &self.account);
        if topic.is_congested() {
            let conn = self.conns.get(id).expect("a publisher");
            conn.flags.set(Flags::PAUSED);
            conn.extra(&self.account).held = Some(Box::new(HeldPublish { topic, payload, options, origin }));
            self.list_paused(id);
        } else {
            self.publish(topic, payload, options, origin);
        }
        Ok(())
    }

    /// Whether this connection may publish at all.
    pub(super) fn check_right(&mut self, id: ConnId, command: Option<Id>) -> Result<(), CommandError> {
        if self.limits.client_publish || self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::PUBLISHER)) {
            return Ok(());
        }
        self.stats().commands_forbidden.add(1);
        let reason = "clients of this broker only subscribe (--client-publish off), unless they connect with a key of \
                      --publish-key";
        Err(CommandError { id: command, code: ErrorCode::Forbidden, reason: reason.into() })
    }

    /// Whom the answer to this command goes to; not `always`: only if it fails.
    fn origin(&mut self, id: ConnId, command: Option<Id>, always: bool) -> Origin {
        let ticket = self.conns.get(id).expect("a publisher").session.await_answer(command, always, &self.account);
        match ticket {
            Some(ticket) => Origin::Connection { shard: self.id, conn: id, ticket },
            None => Origin::Raw { shard: self.id, conn: id },
        }
    }

    /// Publishes what waited for its topic. Returns false if it still has to.
    pub(super) fn publish_held(&mut self, id: ConnId) -> bool {
        let Some(extra) = self.conns.get(id).and_then(|conn| conn.extra.as_mut()) else { return true };
        if extra.held.as_ref().is_some_and(|held| held.topic.is_congested()) {
            return false;
        }
        if let Some(held) = extra.held.take() {
            let HeldPublish { topic, payload, options, origin } = *held;
            self.publish(topic, payload, options, origin);
        }
        true
    }

    /// A sequencer sequenced a publish that is answered, or refused it.
    pub(super) fn on_published(&mut self, id: ConnId, ticket: u64, published: Result<Published, Refusal>) {
        if self.conns.get(id).is_some_and(|conn| conn.state == State::Http) {
            self.answer_published(id, published);
            return;
        }
        let mut out = self.begin_answer();
        let mut action = Action::Answer;
        if let Some(conn) = self.conns.get(id) {
            let published = published.map(|Published { epoch, offset, subscribers, duplicate }| {
                let position = Position { epoch: epoch.0, offset: offset.0 };
                SequencerAnswer::Published { position, subscribers, duplicate }
            });
            action = conn.session.on_answer(ticket, published, &self.account, &mut out);
        }
        self.answer(id, out);
        self.carry_out(id, action);
    }

    // ---- names

    /// Whether there is room for a topic or filter, and this connection may begin one more if it is new.
    pub(super) fn admit(&mut self, conn: ConnId, command: Option<Id>, name: &str) -> Result<(), CommandError> {
        match self.shared.admit_name(name, self.limits.topics_max) {
            Ok(Name::Known) => Ok(()),
            Ok(Name::New) => {
                let (now, names_max) = (self.now, self.limits.topics_per_connection_max);
                let window = nanos(self.limits.topic_idle_timeout);
                let left = self.shared.names_left(self.limits.topics_max);
                let bytes = self.shared.name_bytes(name);
                let session = &mut self.conns.get(conn).expect("an open connection").session;
                if session.name_share().is_none_or(|share| share.take(now, names_max, window, bytes, left)) {
                    return Ok(());
                }
                let reason = format!(
                    "this connection has begun as many topics within --topic-idle-timeout as there is room for: {}; \
                     see --max-topics-per-connection",
                    names_max.min(left.names)
                );
                Err(limit(command, reason))
            }
            Err(full) => Err(limit(command, full.as_str().to_owned())),
        }
    }
}

fn limit(id: Option<Id>, reason: String) -> CommandError {
    CommandError { id, code: ErrorCode::Limit, reason: reason.into() }
}
