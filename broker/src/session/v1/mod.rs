//! `ringyard.v1`: the session of a `/ws` connection.
//!
//! | file | what |
//! | --- | --- |
//! | `commands` | commands become actions, and answers are written |
//!
//! Commands of one connection are carried out in their order. Answers carry the command's id; those that wait for a
//! sequencer (subscribe, acknowledged publish) may come after later ones.
//!
//! Memory: this record, and what commands need while they are under way, which is freed with them. What is on the heap is
//! charged to the budget ([`SessionKind::charge`]).

mod commands;
#[cfg(test)]
mod tests;

use std::mem::size_of;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::v1::{
    CommandError, Connected, Id, LeaseLostReason, MemberParts, write_connected, write_goaway, write_held,
    write_history, write_lease_lost, write_leased, write_members, write_ok, write_published,
};
use rustc_hash::FxHashMap;

use crate::access::quota::NameShare;
use crate::capacity::budget::{Account, Charge, Held};
use crate::ids::{LogSlot, Seq};
use crate::message::Encoding;
use crate::message::options::Refusal;
use crate::session::subscription::{Begun, Released, Subscription};
use crate::session::subscriptions::{Sub, Subscriptions};
use crate::session::{Action, Codec, Ended, Incoming, PING, Pending, SequencerAnswer, SessionKind};
use crate::topics::keys::Keys;
use crate::topics::registry::TopicRef;
use crate::topics::rules::Throttle;

/// A ping as a message, in its frame.
const PING_MESSAGE: Bytes = Bytes::from_static(b"\x81\x0f{\"type\":\"ping\"}");

/// A connection whose commands are all answered keeps room for so many more.
const UNANSWERED_ROOM: usize = 64;

/// See the file's head.
#[derive(Default, Debug)]
pub(crate) struct V1Session {
    subscriptions: Subscriptions,
    /// Subscribe commands whose topics are not all in force.
    subscribing: Option<Box<PendingSubscribes>>,
    /// Commands that wait for a sequencer, by ticket.
    unanswered: FxHashMap<u64, Unanswered>,
    /// The topic of the last publish.
    last_publish: Option<TopicRef>,
    /// An unsubscribe that waits until what its subscriptions hold is sent.
    unsubscribing: Option<Box<Unsubscribing>>,
    /// Tickets are used again after four billion: those before are answered long since.
    next_ticket: u32,
    /// Whether its client wants pings as messages.
    pings_by_message: bool,
    /// The names that it began.
    names: NameShare,
    charge: Option<Charge>,
}

/// Subscribe commands whose topics are not all in force, by ticket.
#[derive(Default, Debug)]
struct PendingSubscribes {
    open: FxHashMap<u64, PendingSubscribe>,
    /// Subscriptions of all of them.
    subs: usize,
}

/// One of them.
#[derive(Debug)]
struct PendingSubscribe {
    id: Option<Id>,
    /// Subscriptions of which it is not known yet with what they begin.
    joining: usize,
    /// The command's subscriptions, in its order, and what they begin with.
    subs: Vec<(u32, Begun)>,
}

/// A command that a sequencer carries out.
#[derive(Debug)]
struct Unanswered {
    id: Option<Id>,
    /// Whether it is answered even if it succeeds.
    always: bool,
}

/// Subscriptions that end, checked.
#[derive(Debug)]
struct Unsubscribing {
    cause: EndCause,
    filters: Vec<String>,
}

/// Why they do.
#[derive(Debug)]
enum EndCause {
    /// This command said so.
    Command(Option<Id>),
    /// Nothing grants them any more.
    Forbidden,
}

impl SessionKind for V1Session {
    fn as_kind(&self) -> &(dyn SessionKind + 'static) {
        self
    }

    fn as_kind_mut(&mut self) -> &mut (dyn SessionKind + 'static) {
        self
    }

    fn takes_messages(&self) -> bool {
        true
    }

    fn on_message<'a>(&mut self, message: Incoming<'a>, codec: Codec<'a, '_>) -> Action<'a> {
        self.on_command(message, codec)
    }

    fn on_error(&mut self, error: &CommandError, out: &mut BytesMut) -> Action<'static> {
        commands::write(error, out);
        Action::Answer
    }

    fn await_answer(&mut self, id: Option<Id>, always: bool, account: &Arc<Account>) -> Option<u64> {
        let (ticket, room) = (self.take_ticket(), self.unanswered.capacity());
        self.unanswered.insert(ticket, Unanswered { id, always });
        if self.unanswered.capacity() != room {
            self.charge(account);
        }
        Some(ticket)
    }

    fn on_answer(
        &mut self,
        ticket: u64,
        answer: Result<SequencerAnswer<'_>, Refusal>,
        account: &Arc<Account>,
        out: &mut BytesMut,
    ) -> Action<'static> {
        let Some(Unanswered { id, always }) = self.unanswered.remove(&ticket) else { return Action::Answer };
        if self.unanswered.is_empty() && self.unanswered.capacity() > UNANSWERED_ROOM {
            self.unanswered = FxHashMap::default();
            self.charge(account);
        }
        match answer {
            Err(refusal) => commands::write_refused(id.as_ref(), refusal, out),
            Ok(_) if !always => {}
            Ok(SequencerAnswer::Published { position, subscribers, duplicate }) => {
                write_published(out, id.as_ref(), position, subscribers, duplicate);
            }
            Ok(SequencerAnswer::Done) => write_ok(out, id.as_ref()),
            Ok(SequencerAnswer::Connected(connected)) => self.write_connected(id, &connected, out),
            Ok(SequencerAnswer::Members { count, members, more }) => {
                let parts = members.iter().map(|listed| MemberParts {
                    member: &listed.member,
                    info: listed.info.as_deref(),
                    connections: listed.connections,
                });
                write_members(out, id.as_ref(), count, parts, more);
            }
            Ok(SequencerAnswer::Leased { number, ttl_ms }) => write_leased(out, id.as_ref(), number, ttl_ms),
            Ok(SequencerAnswer::Held { by, ttl_ms }) => write_held(out, id.as_ref(), by, ttl_ms),
            Ok(SequencerAnswer::History { position, page }) => {
                let messages = page.messages.iter().map(|message| message.parts(false));
                write_history(out, id.as_ref(), position, page.recovered, messages, page.more);
            }
        }
        Action::Answer
    }

    fn answers_to_come(&self) -> Option<usize> {
        Some(self.unanswered.len())
    }

    fn write_connected(&mut self, id: Option<Id>, connected: &Connected<'_>, out: &mut BytesMut) {
        let ping_ms = connected.ping_ms.filter(|_| self.pings_by_message);
        write_connected(out, id.as_ref(), &Connected { ping_ms, ..*connected });
    }

    fn write_goaway(&self, retry_ms: u64, out: &mut BytesMut) {
        write_goaway(out, retry_ms);
    }

    fn write_lease_lost(&self, topic: &str, number: u64, reason: LeaseLostReason, out: &mut BytesMut) {
        write_lease_lost(out, topic, number, reason);
    }

    fn forget_topic(&mut self) {
        self.last_publish = None;
    }

    fn end_subscriptions(&mut self, keys: &[u32]) -> Option<Action<'static>> {
        if self.unsubscribing.is_some() || keys.iter().any(|&key| self.is_joining(key)) {
            return None;
        }
        let filters = keys.iter().map(|&key| self.subscriptions.sub(key).filter.to_string()).collect();
        self.unsubscribing = Some(Box::new(Unsubscribing { cause: EndCause::Forbidden, filters }));
        Some(Action::Unsubscribe { flush: self.subscriptions.overlapping() })
    }

    fn remember_topic(&mut self, topic: TopicRef) {
        self.last_publish = Some(topic);
    }

    fn name_share(&mut self) -> Option<&mut NameShare> {
        Some(&mut self.names)
    }

    fn add(&mut self, log: LogSlot, filter: Arc<str>, keys: Keys) -> u32 {
        self.subscriptions.add(log, filter, keys)
    }

    fn begin_subscribe(&mut self, id: Option<Id>, keys: Vec<u32>) {
        let ticket = self.take_ticket();
        for (place, &key) in (0..).zip(&keys) {
            let sub = self.subscriptions.sub_mut(key);
            (sub.ticket, sub.place) = (ticket, place);
        }
        let subscribing = self.subscribing.get_or_insert_default();
        subscribing.subs += keys.len();
        let subs: Vec<_> = keys.into_iter().map(|key| (key, Begun::default())).collect();
        subscribing.open.insert(ticket, PendingSubscribe { id, joining: subs.len(), subs });
    }

    fn go_live(&mut self, key: u32, index: u32, cursor: Seq) {
        self.subscriptions.go_live(key, index, cursor);
    }

    fn begin(&mut self, key: u32, begun: Begun, out: &mut BytesMut) -> Released {
        let Some(command) = self.begun(key, begun) else { return Released::None };
        self.write_subscribed(&command, out);
        for &(key, _) in &command.subs {
            self.subscriptions.sub_mut(key).subscription.held = false;
        }
        match command.subs[..] {
            [(key, _)] => Released::One(key),
            _ => Released::Many(command.subs.into_iter().map(|(key, _)| key).collect()),
        }
    }

    fn ping(&self) -> Bytes {
        if self.pings_by_message { PING_MESSAGE } else { PING }
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn wants_state(&self) -> bool {
        true
    }

    fn is_unsubscribing(&self) -> bool {
        self.unsubscribing.is_some()
    }

    fn finish_unsubscribe(&mut self, out: &mut BytesMut) -> Ended {
        let Some(command) = self.unsubscribing.take() else { return Ended::default() };
        let mut keys: Vec<u32> =
            command.filters.iter().filter_map(|filter| self.subscriptions.find_filter(filter)).collect();
        // A command may name a topic twice.
        keys.sort_unstable();
        keys.dedup();
        match command.cause {
            EndCause::Command(id) => {
                write_ok(out, id.as_ref());
                Ended { keys, forbidden: Vec::new() }
            }
            EndCause::Forbidden => Ended { keys, forbidden: command.filters },
        }
    }

    fn forget_pending(&mut self, keys: &[u32]) {
        self.subscriptions.forget_pending(keys);
    }

    fn remove(&mut self, key: u32) -> Option<Subscription> {
        self.subscriptions.remove(key).map(|sub| sub.subscription)
    }

    fn subscription(&self, key: u32) -> Option<&Subscription> {
        self.subscriptions.get(key).map(|sub| &sub.subscription)
    }

    fn subscription_mut(&mut self, key: u32) -> Option<&mut Subscription> {
        self.subscriptions.get_mut(key).map(|sub| &mut sub.subscription)
    }

    fn keys(&self) -> Vec<u32> {
        self.subscriptions.keys()
    }

    fn encoding(&self) -> Encoding {
        Encoding::Json
    }

    fn shares_sends(&self) -> bool {
        true
    }

    fn set_pending(&mut self, key: u32) {
        self.subscriptions.set_pending(key);
    }

    fn pending(&self) -> &[u32] {
        self.subscriptions.pending()
    }

    fn take_pending(&mut self) -> Pending {
        let (keys, overlapping) = (self.subscriptions.take_pending(), self.subscriptions.overlapping());
        match keys[..] {
            [] => Pending::None,
            [key] if !overlapping => Pending::One(key),
            _ => Pending::Many { keys, overlapping },
        }
    }

    fn sender_of(&self, topic: &str) -> Option<u32> {
        self.subscriptions.sender_of(topic)
    }

    fn bytes_for(&self, filter: &str) -> u64 {
        Subscriptions::bytes_of(filter)
    }

    fn charge(&mut self, account: &Arc<Account>) {
        let bytes = self.heap_bytes();
        match &mut self.charge {
            Some(charge) => charge.resize(bytes),
            None => self.charge = Some(Charge::new(account, Held::Subscriptions, bytes)),
        }
    }
}

impl V1Session {
    fn take_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        ticket.into()
    }

    /// What a subscription begins with is known: its command, if that waits for no other.
    fn begun(&mut self, key: u32, begun: Begun) -> Option<PendingSubscribe> {
        if begun.throttle > Throttle::NONE {
            self.subscriptions.set_throttled();
        }
        let &Sub { ticket, place, .. } = self.subscriptions.sub(key);
        let subscribing = self.subscribing.as_mut().expect("a subscription comes with a command");
        let command = subscribing.open.get_mut(&ticket).expect("a subscription begins once");
        command.subs[place as usize].1 = begun;
        command.joining -= 1;
        if command.joining > 0 {
            return None;
        }
        let command = subscribing.open.remove(&ticket)?;
        subscribing.subs -= command.subs.len();
        if subscribing.open.is_empty() {
            self.subscribing = None;
        }
        Some(command)
    }

    /// Whether the command that a subscription came with is not answered yet.
    fn is_joining(&self, key: u32) -> bool {
        let ticket = self.subscriptions.sub(key).ticket;
        self.subscribing.as_ref().is_some_and(|subscribing| subscribing.open.contains_key(&ticket))
    }

    fn heap_bytes(&self) -> u64 {
        let subscribing = self.subscribing.as_ref().map_or(0, |subscribing| {
            let open = 2 * subscribing.open.capacity() * size_of::<(u64, PendingSubscribe)>();
            size_of::<PendingSubscribes>() + open + subscribing.subs * size_of::<(u32, Begun)>()
        });
        let unanswered = 2 * self.unanswered.capacity() * size_of::<(u64, Unanswered)>();
        self.subscriptions.heap_bytes() + (unanswered + subscribing) as u64
    }
}
