//! What a shard does as the sequencer of its topics: a publish becomes a message and is passed on, and operators learn how
//! far topics are.
//!
//! Not responsible for how requests come here and deliveries go on (`mailbox`), nor for offsets
//! ([`Sequencer`](crate::sequencer::Sequencer)). Cost per message: that of the sequencer, and a reference per shard that wants
//! it. Only for a publish that is answered the topic's subscriptions are counted.

use protocol::v1::PayloadKind;
use ring::Driver;

use crate::ids::{Epoch, TopicId};
use crate::message::Payload;
use crate::message::options::{PublishOptions, Refusal};
use crate::sequencer::Sequenced;
use crate::sequencer::purge::Purged;
use crate::shard::Shard;
use crate::shard::shared::{Delivery, INSPECTED_MAX, Origin, Published, TopicState};
use crate::topics::registry::TopicRef;

impl<D: Driver> Shard<D> {
    /// Gives a message its place, and passes it on to all who want it. A publisher that asked is answered.
    pub(super) fn sequence(
        &mut self,
        topic: TopicRef,
        payload: Payload,
        options: Option<Box<PublishOptions>>,
        origin: Origin,
    ) {
        let subscribers = match origin {
            Origin::Silent | Origin::Raw { .. } => 0,
            Origin::Connection { .. } | Origin::Http(_) => self.sequencer.subscriptions(&topic),
        };
        let Sequenced { message, epoch, offset, wanted } =
            match self.sequencer.publish(topic, payload, options, self.now) {
                Ok(sequenced) => sequenced,
                Err(refusal) => {
                    self.refuse_publish(origin, refusal);
                    return;
                }
            };
        let duplicate = message.is_none();
        let subscribers = if duplicate { 0 } else { subscribers };
        if let Some(message) = message {
            self.busiest.count(&message);
            self.mailbox.deliver_to(wanted, &message);
            self.stats().sequenced.add(1);
            self.answer_polls(message.topic_id, Some(&message));
        }
        match origin {
            Origin::Silent | Origin::Raw { .. } => {}
            Origin::Connection { shard, conn, ticket } => {
                self.mailbox
                    .deliver(shard, Delivery::Published { conn, ticket, epoch, offset, subscribers, duplicate });
            }
            // The request may have been given up meanwhile; its message counts all the same.
            Origin::Http(answer) => drop(answer.send(Ok(Published { epoch, offset, subscribers, duplicate }))),
        }
    }

    /// Publishes to a topic that is sequenced here what nobody waits for: a copy of it.
    pub(super) fn publish_here(
        &mut self,
        topic: TopicRef,
        kind: PayloadKind,
        data: &[u8],
        options: Option<Box<PublishOptions>>,
    ) -> Result<(), Refusal> {
        let payload = Payload::copy_of(kind, data, &self.account);
        let Sequenced { message, wanted, .. } = self.sequencer.publish(topic, payload, options, self.now)?;
        if let Some(message) = message {
            self.busiest.count(&message);
            self.mailbox.deliver_to(wanted, &message);
            self.stats().sequenced.add(1);
            self.answer_polls(message.topic_id, Some(&message));
        }
        Ok(())
    }

    /// Tells a publisher that its message was not taken.
    fn refuse_publish(&mut self, origin: Origin, refusal: Refusal) {
        match origin {
            Origin::Silent => {}
            Origin::Connection { shard, conn, ticket } => {
                self.mailbox.deliver(shard, Delivery::Refused { conn, ticket, refusal: Box::new(refusal) });
            }
            Origin::Raw { shard, conn } => {
                self.mailbox.deliver(shard, Delivery::Refused { conn, ticket: 0, refusal: Box::new(refusal) });
            }
            Origin::Http(answer) => drop(answer.send(Err(refusal))),
        }
    }

    /// Forgets what a topic remembers, and tells all who subscribe. The epoch that begins; `None`: the topic is not kept.
    pub(super) fn purge(&mut self, topic: &TopicRef) -> Option<Epoch> {
        let Purged { epoch, marker, wanted } = self.sequencer.purge(topic.id, self.now)?;
        self.mailbox.deliver_to(wanted, &marker);
        self.stats().purged.add(1);
        self.answer_polls(topic.id, None);
        Some(epoch)
    }

    /// What this shard knows of these topics.
    pub(super) fn inspect(&self, topics: &[TopicId]) -> Vec<TopicState> {
        let state = |&topic: &TopicId| {
            let log = self.fanout.logs.slot_of(topic).map(|slot| &self.fanout.logs[slot]);
            TopicState {
                position: self.sequencer.position(topic),
                waiting_bytes: log.map_or(0, |log| log.kept_bytes()),
                remembered: self.sequencer.remembered(topic),
                lease: self.lease_state(topic),
            }
        };
        topics.iter().take(INSPECTED_MAX).map(state).collect()
    }
}
