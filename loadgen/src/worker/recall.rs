//! What a history adds to the messages of a client: answers about recovery, gaps, resets and state, judged by the rules of
//! `history`. The stamps of the messages are checked besides, in `receive`: a message that is missing without having been
//! announced counts as lost there.

use std::sync::atomic::Ordering;

use super::client::UNKNOWN;
use super::receive::{Order, Visitor};
use crate::adapter::{Begin, Envelope, Position, Protocol, SlowConsumer, Visit};
use crate::history::{Answer, Begun, Fault};
use crate::stamp::Stamp;

impl Visitor<'_> {
    /// The index of a topic among those of the client.
    pub(super) fn index(&self, topic: u32) -> Option<usize> {
        let at = (topic + self.plan.topics - self.topics.first % self.plan.topics) % self.plan.topics;
        (at < self.topics.count).then_some(at as usize)
    }

    /// So many messages of a topic were announced not to come; nothing: nobody knows how many.
    fn excuse(&mut self, topic: u32, messages: Option<u64>) {
        let Some(first) = self.index(topic) else { return };
        if let Some(member) = self.member.as_deref_mut().filter(|_| !self.plan.late())
            && let Some(newest) = &mut member.subscriptions[first].newest
        {
            newest.forgive();
        }
        // Of several streams nobody knows whose messages they are.
        let known = messages.filter(|_| self.plan.streams_per_topic() == 1);
        for place in (first..self.plan.places(&self.topics)).step_by(self.topics.count as usize) {
            self.excuses.add(self.at, place as u32, known.unwrap_or(u64::MAX));
        }
    }

    fn untrue(&mut self) {
        self.tally.errors.untrue += 1;
        self.tally.counts.errors += 1;
    }

    // ---- where subscriptions begin

    pub(super) fn on_begun(&mut self, topic: u32, begin: Begin) {
        if self.plan.late() && self.plan.uses.keys > 0 && !begin.keyed {
            let why = "the topic is not keyed: the server needs a rule for it with history = \"keyed\"";
            return self.broken(why);
        }
        let Some(index) = self.index(topic) else { return };
        self.on_terms(index, &begin);
        let Some(member) = self.member.as_deref_mut() else { return };
        let sequence = &mut member.subscriptions[index].sequence;
        // A raw connection's first message says it by being the position that was asked for.
        let implied = sequence.position().filter(|_| self.plan.options.protocol == Some(Protocol::Raw));
        let recovered = begin.recovered.or_else(|| implied.map(|position| position == begin.after));
        let answer = Answer { after: begin.after, recovered, available_from: begin.available_from };
        let answered = sequence.answered(answer);
        let counts = &mut self.tally.history;
        match answered {
            Ok(Begun::Anew) => {}
            Ok(Begun::Recovered) => counts.recovered += 1,
            Ok(Begun::NotRecovered { missed, withheld }) => {
                counts.not_recovered += 1;
                counts.withheld += u64::from(withheld);
                counts.announced += missed.unwrap_or(0);
                self.excuse(topic, None);
            }
            Err(_) => self.untrue(),
        }
    }

    /// The client is subscribed: from here on it catches up with what was published before.
    pub(super) fn on_ready(&mut self) {
        let Some(member) = self.member.as_deref_mut().filter(|member| member.resumes) else { return };
        member.resumes = false;
        for (place, next) in self.client.nexts.all().iter().enumerate() {
            let stream = self.plan.stream_at(&self.topics, place);
            let Some(published) = self.shared.published.get(stream as usize) else { continue };
            let published = published.load(Ordering::Acquire);
            if *next != UNKNOWN && *next < published && self.excuses.left(self.at, place as u32) == 0 {
                member.behind.push((place as u32, published));
            }
        }
        if member.behind.is_empty() {
            self.tally.catch_up.saturating_record(self.now.saturating_sub(member.since).max(1));
        }
    }

    /// Whether a message was published before the client came back. Then its latency is the client's absence.
    pub(super) fn is_replay(&mut self, place: usize, seq: u64) -> bool {
        let Some(member) = self.member.as_deref_mut().filter(|member| !member.behind.is_empty()) else { return false };
        let Some(at) = member.behind.iter().position(|(behind, _)| *behind as usize == place) else { return false };
        let (_, until) = member.behind[at];
        if seq + 1 >= until {
            member.behind.swap_remove(at);
            if member.behind.is_empty() {
                self.tally.catch_up.saturating_record(self.now.saturating_sub(member.since).max(1));
            }
        }
        let replayed = seq < until;
        self.tally.history.replayed += u64::from(replayed);
        replayed
    }

    // ---- offsets

    /// What is wrong with a message's offset.
    pub(super) fn offset(&mut self, stream: u32, envelope: &Envelope) -> Option<Fault> {
        self.member.as_ref()?;
        let index = self.index(self.plan.topic_of(stream))?;
        let subscription = &mut self.member.as_deref_mut()?.subscriptions[index];
        let sequence = &mut subscription.sequence;
        match envelope.offset {
            0 => {
                sequence.counted();
                None
            }
            offset if subscription.policy == SlowConsumer::Latest => sequence.rises(offset).err(),
            offset => sequence.message(offset, envelope.prev).err(),
        }
    }

    /// Counts what is wrong with a message's offset or, where it has none, with its number.
    pub(super) fn judge(&mut self, fault: Option<Fault>, order: &Order, seq: u64, numbered: bool) {
        let in_order = match order {
            Order::First => true,
            Order::Next { from } => *from == seq,
            Order::Late | Order::Doubled => false,
        };
        let counts = &mut self.tally.history;
        match fault {
            Some(Fault::Missing { messages, after_recovery }) => {
                counts.holes += messages;
                if after_recovery {
                    self.untrue();
                }
            }
            Some(Fault::Doubled) => counts.doubles += 1,
            Some(Fault::Untrue) => self.untrue(),
            None if numbered || self.member.is_none() => return,
            None => {
                counts.doubles += u64::from(matches!(order, Order::Doubled));
                return;
            }
        }
        // What the numbers show too counts as lost or doubled.
        if in_order {
            self.tally.errors.misnumbered += 1;
            self.tally.counts.errors += 1;
        }
    }

    // ---- what is announced

    pub(super) fn on_gap(&mut self, topic: u32, from: u64, to: u64) {
        let length = to.saturating_sub(from).saturating_add(1);
        self.tally.history.gaps += 1;
        let index = self.index(topic);
        match (index, self.member.as_deref_mut()) {
            (Some(index), Some(member)) if member.subscriptions[index].policy == SlowConsumer::Latest => {
                self.tally.history.announced += member.subscriptions[index].sequence.rises_over(from, to);
            }
            (Some(index), Some(member)) => match member.subscriptions[index].sequence.gap(from, to) {
                Ok(messages) => self.tally.history.announced += messages,
                Err(fault) => {
                    self.tally.errors.misnumbered += 1;
                    self.tally.counts.errors += 1;
                    if let Fault::Missing { messages, .. } = fault {
                        self.tally.history.holes += messages;
                    }
                }
            },
            _ => self.tally.history.announced += length,
        }
        self.excuse(topic, Some(length));
    }

    pub(super) fn on_reset(&mut self, topic: u32, position: Position) {
        self.tally.history.resets += 1;
        if let (Some(index), Some(member)) = (self.index(topic), self.member.as_deref_mut()) {
            member.subscriptions[index].sequence.reset(position);
        }
        self.excuse(topic, None);
    }

    // ---- state

    pub(super) fn state(&mut self, stamp: Stamp) {
        self.read.messages += 1;
        self.tally.counts.messages += 1;
        self.tally.history.state_messages += 1;
        // The state of a topic may be older than the run; that of a newcomer, which comes after publishing, is all there is.
        if self.plan.late() || stamp.sent_ns >= self.began_ns {
            self.hear(stamp);
        }
    }

    /// A message of whatever kind, where the newest of each key has to come: it is the newest of its key so far.
    pub(super) fn hear(&mut self, stamp: Stamp) {
        if self.member.is_none() {
            return;
        }
        let Some(index) = self.index(self.plan.topic_of(stamp.stream)) else { return };
        let Some(member) = self.member.as_deref_mut() else { return };
        let Some(newest) = &mut member.subscriptions[index].newest else { return };
        if newest.heard(stamp.seq).is_err() {
            self.tally.errors.doubled += 1;
            self.tally.counts.errors += 1;
        }
    }

    pub(super) fn on_state_end(&mut self) {
        let Some(member) = self.member.as_deref_mut().filter(|member| member.states > 0) else { return };
        member.states -= 1;
        if member.states == 0 {
            self.tally.history.states += 1;
            self.tally.catch_up.saturating_record(self.now.saturating_sub(member.since).max(1));
        }
    }
}
