//! `ringyard.v1`: commands of `/ws` connections, and their answers.
//!
//! Commands of one connection are carried out in their order. Answers carry the command's id; those that
//! wait for another shard (subscribe, acknowledged publish) may come after later ones.

use bytes::BytesMut;
use protocol::frame::Opcode;
use protocol::topic;
use protocol::v1::{
    Command, CommandError, ErrorCode, Id, PayloadKind, Position, Subscribed, Topics, write_error, write_ok, write_pong,
    write_published, write_subscribed,
};
use ring::{ConnId, Driver};

use crate::access::quota::Name;
use crate::capacity::budget::Held;
use crate::message::Payload;
use crate::session::v1::{Deferred, HeldPublish, PendingSubscribe, V1Session};
use crate::shard::Shard;
use crate::shard::fanout::log::Subscriber;
use crate::shard::shared::{Origin, Published};
use crate::shard::transport::connection::Flags;

/// A connection whose publishes are all acknowledged keeps room for so many more.
const ACKNOWLEDGED_ROOM: usize = 64;

impl<D: Driver> Shard<D> {
    /// One command's text, which is overwritten.
    pub(super) fn on_command(&mut self, id: ConnId, text: &mut [u8]) {
        let mut parser = self.parser.take().expect("one command at a time");
        let done = match parser.parse(text, self.limits.topic_bytes_max) {
            Ok(command) => self.execute(id, command),
            Err(error) => Err(error),
        };
        self.parser = Some(parser);
        if let Err(error) = done {
            self.answer(id, |out| write_error(out, error.id.as_ref(), error.code, &error.reason));
        }
    }

    fn execute(&mut self, id: ConnId, command: Command<'_>) -> Result<(), CommandError> {
        match command {
            Command::Connect { id: name } => self.answer(id, |out| write_ok(out, name.as_ref())),
            Command::Ping { id: name } => self.answer(id, |out| write_pong(out, name.as_ref())),
            Command::Subscribe { id: name, topics } => return self.subscribe(id, name, topics),
            Command::Unsubscribe { id: name, topics } => return self.unsubscribe(id, name, topics),
            Command::Publish { id: name, topic, kind, data, ack } => {
                return self
                    .publish_command(id, name.filter(|_| ack), topic, kind, data)
                    .map_err(|error| with_id(error, name));
            }
        }
        Ok(())
    }

    // ---- subscribe: all of a command's topics, or none

    fn subscribe(&mut self, id: ConnId, name: Option<Id>, topics: Topics<'_>) -> Result<(), CommandError> {
        let limit = self.limits.subscriptions_max;
        if self.v1(id).len() + topics.iter().len() > limit {
            let reason = format!("a connection may have {limit} subscriptions; see --max-subscriptions");
            return Err(error(name, ErrorCode::Limit, reason));
        }
        let needed: u64 = topics.iter().map(V1Session::bytes_of).sum();
        if !self.has_memory_for_subscriptions(needed) {
            let reason = "the broker has no memory left for more subscriptions; see --max-memory";
            return Err(error(name, ErrorCode::Limit, reason.to_owned()));
        }
        let mut keys = Vec::with_capacity(topics.iter().len());
        let mut refused = None;
        for filter in topics.iter() {
            if self.v1(id).find_filter(filter).is_some() {
                refused = Some(error(name, ErrorCode::AlreadySubscribed, format!("already subscribed to {filter:?}")));
                break;
            }
            if let Err(full) = self.admit(id, name, filter) {
                refused = Some(full);
                break;
            }
            let slot = self.enter_log(filter);
            let filter = self.log(slot).topic.name.clone();
            let hashing = self.shared.registry.keys();
            keys.push((slot, self.v1(id).add(slot, filter, hashing)));
            self.stats().subscriptions.add(1);
        }
        if let Some(error) = refused {
            let keys: Vec<u32> = keys.into_iter().map(|(_, key)| key).collect();
            self.unsubscribe_keys(id, &keys);
            return Err(error);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let subs = keys.iter().map(|&(_, key)| key).collect();
        self.v1(id).begin_subscribe(ticket, PendingSubscribe { id: name, joining: keys.len(), subs });
        self.charge_subscriptions(id);
        for (slot, key) in keys {
            self.attach(slot, Subscriber { conn: id, sub: key });
        }
        Ok(())
    }

    /// A subscription has come into force: answers its command, if it was the last of it.
    pub(super) fn answer_subscribe(&mut self, subscriber: Subscriber) {
        let v1 = self.v1(subscriber.conn);
        let Some(ticket) = v1.joined(subscriber.sub) else { return };
        let subs: Vec<_> = ticket.subs.iter().map(|&key| (v1.sub(key).filter.clone(), v1.sub(key).position)).collect();
        let topics = subs.iter().map(|(topic, position)| Subscribed { topic, position: *position });
        self.answer(subscriber.conn, |out| write_subscribed(out, ticket.id.as_ref(), topics));
    }

    // ---- unsubscribe: all of a command's topics, or none

    fn unsubscribe(&mut self, id: ConnId, name: Option<Id>, topics: Topics<'_>) -> Result<(), CommandError> {
        let v1 = self.v1(id);
        for filter in topics.iter() {
            match v1.find_filter(filter) {
                None => return Err(error(name, ErrorCode::NotSubscribed, format!("not subscribed to {filter:?}"))),
                // In force or not: its command's answer names it.
                Some(key) if v1.is_joining(key) => {
                    let reason = format!("the subscription to {filter:?} is not confirmed yet");
                    return Err(error(name, ErrorCode::Busy, reason));
                }
                Some(_) => {}
            }
        }
        let filters = topics.iter().map(str::to_owned).collect();
        v1.deferred = Some(Box::new(Deferred { id: name, filters }));
        if self.v1(id).overlapping {
            // What the ending subscriptions hold for the others goes out first.
            let conn = self.conns.get(id).expect("an open connection");
            conn.flags.set(Flags::PAUSED);
            self.flush(id);
        } else {
            self.finish_unsubscribe(id);
        }
        Ok(())
    }

    /// Marks every subscription that holds something, so that the next send takes it all.
    pub(super) fn gather_all(&mut self, id: ConnId) {
        let v1 = self.conns.get(id).and_then(|conn| conn.v1.as_mut()).expect("a /ws connection");
        for key in v1.keys() {
            let sub = v1.sub_mut(key);
            let log = self.logs[sub.log as usize].as_ref().expect("a log with a subscriber");
            if sub.order.is_some() && !sub.dirty && sub.cursor < log.head() {
                sub.dirty = true;
                v1.dirty.push(key);
            }
        }
    }

    /// Carries out the unsubscribe that waited, and goes on with the input behind it.
    pub(super) fn finish_unsubscribe(&mut self, id: ConnId) {
        let Some(deferred) = self.v1(id).deferred.take() else { return };
        let Deferred { id: name, filters } = *deferred;
        let v1 = self.v1(id);
        let mut keys: Vec<u32> = filters.iter().filter_map(|filter| v1.find_filter(filter)).collect();
        // A command may name a topic twice.
        keys.sort_unstable();
        keys.dedup();
        self.unsubscribe_keys(id, &keys);
        self.answer(id, |out| write_ok(out, name.as_ref()));
        self.list_paused(id);
    }

    // ---- publish

    fn publish_command(
        &mut self,
        id: ConnId,
        ack: Option<Id>,
        name: &str,
        kind: PayloadKind,
        data: &[u8],
    ) -> Result<(), CommandError> {
        if topic::is_reserved(name) {
            let reason = "topics that begin with '$' are the broker's own";
            return Err(error(None, ErrorCode::Forbidden, reason.to_owned()));
        }
        // JSON is written anew, and may be longer than it came (`1e15`); base64 is decoded, and is shorter.
        let len_max = self.limits.message_bytes_max;
        if data.len() as u64 > len_max {
            let reason =
                format!("the message would be delivered with {} bytes; --max-message is {len_max}", data.len());
            return Err(error(None, ErrorCode::TooBig, reason));
        }
        if !self.may_publish(id) {
            self.stats().commands_limited.add(1);
            let reason = "publishing faster than --max-publish-rate allows; the message was not published";
            return Err(error(None, ErrorCode::Limit, reason.to_owned()));
        }
        // No reference but the connection's own may be about when that is given back.
        let known = self.v1(id).last_publish.as_ref().filter(|last| *last.name == *name).cloned();
        let topic = match known {
            Some(topic) => topic,
            None => {
                self.admit(id, None, name)?;
                let topic = self.shared.registry.resolve(name);
                self.v1(id).last_publish = Some(topic.clone());
                topic
            }
        };
        let origin = match ack {
            None => Origin::Silent,
            Some(name) => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                let v1 = self.v1(id);
                let room = v1.unacknowledged.capacity();
                v1.unacknowledged.insert(ticket, name);
                if v1.unacknowledged.capacity() != room {
                    self.charge_subscriptions(id);
                }
                Origin::Connection { shard: self.id, conn: id, ticket }
            }
        };
        let payload = Payload::copy_of(kind, data, &self.account);
        if topic.is_congested() {
            // Nothing behind it is looked at before it is published.
            self.v1(id).held = Some(Box::new(HeldPublish { topic, payload, origin }));
            self.conns.get(id).expect("a publisher").flags.set(Flags::PAUSED);
            self.list_paused(id);
        } else {
            self.publish(topic, payload, origin);
        }
        Ok(())
    }

    /// Publishes what waited for its topic. Returns false if it still has to.
    pub(super) fn publish_held(&mut self, id: ConnId) -> bool {
        let Some(v1) = self.conns.get(id).and_then(|conn| conn.v1.as_mut()) else { return true };
        if v1.held.as_ref().is_some_and(|held| held.topic.is_congested()) {
            return false;
        }
        if let Some(held) = v1.held.take() {
            let HeldPublish { topic, payload, origin } = *held;
            self.publish(topic, payload, origin);
        }
        true
    }

    /// A sequencer sequenced a publish that asked for an acknowledgement.
    pub(super) fn on_published(&mut self, id: ConnId, ticket: u64, published: Published) {
        let Some(v1) = self.conns.get(id).and_then(|conn| conn.v1.as_mut()) else { return };
        if let Some(name) = v1.unacknowledged.remove(&ticket) {
            if v1.unacknowledged.is_empty() && v1.unacknowledged.capacity() > ACKNOWLEDGED_ROOM {
                v1.unacknowledged = Default::default();
                self.charge_subscriptions(id);
            }
            self.answer(id, |out| write_published(out, Some(&name), published.epoch, published.offset));
        }
    }

    // ---- helpers

    /// Whether there is room for a topic or filter, and this connection may begin one more if it is new.
    fn admit(&mut self, conn: ConnId, id: Option<Id>, name: &str) -> Result<(), CommandError> {
        match self.shared.admit_name(name, self.limits.topics_max) {
            Ok(Name::Known) => Ok(()),
            Ok(Name::New) => {
                let (now, names_max) = (self.now, self.limits.topics_per_connection_max);
                let window = crate::shard::nanos(self.limits.topic_idle_timeout);
                let left = self.shared.names_left(self.limits.topics_max);
                let bytes = self.shared.name_bytes(name);
                if self.v1(conn).names.take(now, names_max, window, bytes, left) {
                    return Ok(());
                }
                let reason = format!(
                    "this connection has begun as many topics within --topic-idle-timeout as there is room for: {}; \
                     see --max-topics-per-connection",
                    names_max.min(left.names)
                );
                Err(error(id, ErrorCode::Limit, reason))
            }
            Err(full) => Err(error(id, ErrorCode::Limit, full.as_str().to_owned())),
        }
    }

    /// Whether subscriptions may take so many bytes more: their share of the budget is theirs, if the rest leaves it.
    fn has_memory_for_subscriptions(&self, bytes: u64) -> bool {
        let budget = &self.shared.budget;
        budget.fits(bytes)
            && budget.held(Held::Subscriptions).saturating_add(bytes) <= budget.share(Held::Subscriptions)
    }

    fn answer(&mut self, id: ConnId, write: impl FnOnce(&mut BytesMut)) {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        write(&mut text);
        self.queue_frame(id, Opcode::Text, &text);
        self.scratch = text;
    }

    fn v1(&mut self, id: ConnId) -> &mut V1Session {
        self.conns.get(id).and_then(|conn| conn.v1.as_deref_mut()).expect("a /ws connection")
    }
}

fn error(id: Option<Id>, code: ErrorCode, reason: String) -> CommandError {
    CommandError { id, code, reason: reason.into() }
}

fn with_id(error: CommandError, id: Option<Id>) -> CommandError {
    CommandError { id, ..error }
}

/// Where a topic stands when a subscription to it begins; a filter stands nowhere.
pub(super) fn position(log: &crate::shard::fanout::log::Log) -> Option<Position> {
    (!log.topic.wildcard).then_some(Position { epoch: log.epoch, offset: log.next_offset })
}
