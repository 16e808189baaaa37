//! What a shard does as a sequencer about who is present at its topics: it keeps them ([`crate::presence::members`]) and publishes
//! what changes to the topics `$presence/{topic}` and `$count/{topic}`, which it sequences as well.
//!
//! A count is kept while some shard has joined `$count/{topic}` by this name. The topic itself need not be registered: filters
//! with wildcards match it all the same. Cost: once a second a look at each topic that is counted, or a search among the filters
//! for one that is not registered; nothing for subscribers of what is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::topic::{COUNT, PRESENCE};
use protocol::v1::{CommandError, Id, PayloadKind};
use ring::{ConnId, Driver, Nanos};

use crate::access::permissions::Right;
use crate::ids::TopicId;
use crate::message::options::{PublishOptions, Refusal};
use crate::presence::members::{Change, Entry, Listed, NotEntered};
use crate::session::SequencerAnswer;
use crate::shard::Shard;
use crate::shard::asked::{MembersAnswer, PresenceCommand, PresenceRequest};
use crate::shard::sessions::NOT_ENTERED;
use crate::shard::shared::{Delivery, INSPECTED_MAX, Present};
use crate::topics::registry::TopicRef;
use crate::topics::rules::Presence;

/// How often counts are published at most.
const COUNT_NANOS: Nanos = 1_000_000_000;
/// The answer where clients cannot enter.
pub(super) const OFF: &str = "the topic's rule does not say presence = true";

/// The topics that are counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By the topic that says the counts.
    topics: BTreeMap<TopicId, Counted>,
    due: Option<Nanos>,
}

/// One of them.
#[derive(Debug)]
struct Counted {
    /// The topic that says the counts.
    topic: TopicRef,
    /// Subscribers and members, as published last.
    last: Option<(u32, u64)>,
}

impl Counts {
    /// When they are looked at next.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.due
    }
}

impl<D: Driver> Shard<D> {
    // ---- for a connection

    /// A `members`.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn ask_members(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        name: &str,
        limit: u32,
    ) -> Result<(), CommandError> {
        self.check_right_for(id, command, Right::Presence, name)?;
        self.admit(id, command, name)?;
        let topic = self.shared.registry.resolve(name);
        let ticket = self.expect_answer(id, command);
        self.ask_presence(topic, Some((self.owner(id), ticket)), PresenceCommand::List(limit));
        Ok(())
    }

    /// Who is there, as a client asked.
    pub(super) fn on_members(&mut self, answer: MembersAnswer) {
        let MembersAnswer { conn: id, ticket, found } = answer;
        let answer = found.as_ref().map(|(count, members)| {
            let more = members.len() as u64 != *count;
            SequencerAnswer::Members { count: *count, members, more }
        });
        self.answer_command(id, ticket, answer.map_err(|refusal| *refusal));
    }

    // ---- as a sequencer

    /// Something about the members of a topic.
    pub(super) fn on_presence_request(&mut self, request: PresenceRequest) {
        let PresenceRequest { topic, answer, asked } = request;
        let done = match asked {
            PresenceCommand::Enter(entry) => self.enter_member(&topic, entry),
            PresenceCommand::Leave(session) => match self.members.leave(topic.id, session) {
                Ok(changes) => {
                    self.publish_departure(&topic, changes);
                    Ok(())
                }
                Err(_) => Err(Refusal::NotFound(NOT_ENTERED)),
            },
            PresenceCommand::List(limit) => {
                if let Some((owner, ticket)) = answer {
                    let found = self.list_members(&topic, limit);
                    let answer = MembersAnswer { conn: owner.conn, ticket, found };
                    self.mailbox.deliver(owner.shard, Delivery::Members(Box::new(answer)));
                }
                return;
            }
        };
        match (answer, done) {
            (Some((owner, ticket)), Ok(())) => {
                self.mailbox.deliver(owner.shard, Delivery::Done { conn: owner.conn, ticket });
            }
            (Some((owner, ticket)), Err(refusal)) => self.refuse_command(owner, ticket, refusal),
            (None, _) => {}
        }
    }

    fn enter_member(&mut self, topic: &TopicRef, entry: Entry) -> Result<(), Refusal> {
        let Presence { members_max, .. } = self.presence_of(&topic.name).ok_or(Refusal::Unsupported(OFF))?;
        let now_ms = self.shared.wall_clock.millis(self.now);
        let session = entry.session;
        let was_there = self.members.has(topic.id, session);
        let member = Arc::clone(&entry.member);
        let said = self.members.info(topic.id, &member);
        let change = self.members.enter(topic, entry, members_max as usize, now_ms).map_err(|error| match error {
            NotEntered::NotThere => Refusal::NotFound(NOT_ENTERED),
            NotEntered::Full => Refusal::Limit(
                "the topic lists as many members as its rule allows (presence-members): enter without info to be counted",
            ),
        })?;
        let published = change.map_or(Ok(()), |change| self.publish_change(topic, change));
        if published.is_err() {
            // Nobody has learned of it.
            if !was_there {
                let _ = self.members.leave(topic.id, session);
            }
            self.members.put_back(topic.id, &member, said);
        }
        published
    }

    /// Says that a session has left. Where another member can be listed in its place, and there is no room for what would be said
    /// of it, it stays with those that are only counted.
    fn publish_departure(&mut self, topic: &TopicRef, changes: Vec<Change>) {
        let is_gone = changes.first().is_some_and(|change| change.value.is_none());
        for (at, change) in changes.into_iter().enumerate() {
            let member = Arc::clone(&change.member);
            if self.publish_change(topic, change).is_err() && is_gone && at > 0 {
                self.members.unlist(topic.id, &member);
            }
        }
    }

    fn list_members(&self, topic: &TopicRef, limit: u32) -> Result<(u64, Vec<Listed>), Refusal> {
        self.presence_of(&topic.name).ok_or(Refusal::Unsupported(OFF))?;
        let members = self.members.list(topic.id, limit as usize);
        Ok((self.members.count(topic.id), members))
    }

    /// Who is there, for operators.
    pub(super) fn present(&self, topic: TopicId) -> Present {
        Present { count: self.members.count(topic), listed: self.members.list(topic, INSPECTED_MAX) }
    }

    /// How clients may be present at a topic; `None`: they cannot.
    pub(super) fn presence_of(&self, name: &str) -> Option<Presence> {
        let rules = self.shared.registry.rules().current();
        rules.get(rules.rule_of(name)).presence
    }

    /// Says what has changed.
    fn publish_change(&mut self, of: &TopicRef, change: Change) -> Result<(), Refusal> {
        let Change { member, value } = change;
        let options = PublishOptions { key: Some((&*member).into()), removed: value.is_none(), ..Default::default() };
        self.publish_about(PRESENCE, of, value.as_deref().unwrap_or("null"), options)
    }

    /// Publishes a JSON value to the broker's topic with this prefix that is about another topic, and is sequenced where that is.
    pub(super) fn publish_about(
        &mut self,
        prefix: &str,
        of: &TopicRef,
        json: &str,
        options: PublishOptions,
    ) -> Result<(), Refusal> {
        let name = format!("{prefix}{}", of.name);
        self.shared.admit_name(&name, self.limits.topics_max).map_err(|full| Refusal::Limit(full.as_str()))?;
        self.publish_own(self.shared.registry.resolve(&name), json, options)
    }

    /// Publishes a JSON value to a topic of the broker that is sequenced here.
    fn publish_own(&mut self, topic: TopicRef, json: &str, options: PublishOptions) -> Result<(), Refusal> {
        self.publish_here(topic, PayloadKind::Json, json.as_bytes(), Some(Box::new(options)))
    }

    // ---- counts

    /// A shard is about to join a topic: if that says counts, they are kept from now on.
    pub(super) fn begin_count(&mut self, topic: &TopicRef) {
        if topic.wildcard || !topic.name.starts_with(COUNT) || self.counts.topics.contains_key(&topic.id) {
            return;
        }
        self.counts.topics.insert(topic.id, Counted { topic: topic.clone(), last: None });
        self.counts.due.get_or_insert(self.now + COUNT_NANOS);
        self.publish_count(topic.id);
    }

    /// A shard has left a topic: if that says counts, perhaps nobody reads them any more.
    pub(super) fn end_count(&mut self, topic: &TopicRef) {
        if !self.counts.topics.contains_key(&topic.id) || self.sequencer.is_joined(topic.id) {
            return;
        }
        self.counts.topics.remove(&topic.id);
        if self.counts.topics.is_empty() {
            self.counts.due = None;
        }
        // The next one begins with what holds then. Where it cannot be removed, it is replaced then.
        let options = PublishOptions { retain: true, removed: true, ..Default::default() };
        let _ = self.publish_own(topic.clone(), "null", options);
    }

    /// Once a second, what has changed.
    pub(super) fn count_again(&mut self) {
        if self.counts.due.is_none_or(|due| due > self.now) {
            return;
        }
        self.counts.due = Some(self.now + COUNT_NANOS);
        if self.drain.is_under_way() {
            return;
        }
        let topics: Vec<TopicId> = self.counts.topics.keys().copied().collect();
        topics.into_iter().for_each(|topic| self.publish_count(topic));
    }

    fn publish_count(&mut self, id: TopicId) {
        let counted = &self.counts.topics[&id];
        let (topic, last) = (counted.topic.clone(), counted.last);
        let name = topic.name.strip_prefix(COUNT).unwrap_or_default();
        let (subscribers, members) = match self.shared.registry.find(name) {
            Some(of) => (self.sequencer.subscriptions(&of), self.members.count(of.id)),
            None => (self.sequencer.subscriptions_by_filters(name), 0),
        };
        if last == Some((subscribers, members)) {
            return;
        }
        let json = format!("{{\"subscribers\":{subscribers},\"members\":{members}}}");
        let options = PublishOptions { retain: true, ..Default::default() };
        // Where state has no more room, the next second tries again.
        if self.publish_own(topic, &json, options).is_ok()
            && let Some(counted) = self.counts.topics.get_mut(&id)
        {
            counted.last = Some((subscribers, members));
        }
    }
}
