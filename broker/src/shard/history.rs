//! The commands `history` and `snapshot`, on their way to a topic's sequencer and back; what a shard does as the sequencer
//! that is asked; and the bound over what all sequencers remember.

use protocol::v1::{CommandError, HistoryQuery, Id, Position};
use ring::{ConnId, Driver};

use crate::access::permissions::{Operation, Right};
use crate::message::Payload;
use crate::message::options::LeaseClaim;
use crate::sequencer::history::recall::{self, Place};
use crate::session::SequencerAnswer;
use crate::shard::Shard;
use crate::shard::asked::{Asked, Found, HistoryAnswer, HistoryRequest, RecallAnswer, RecallRequest, SnapshotRequest};
use crate::shard::shared::{Delivery, Request};

impl<D: Driver> Shard<D> {
    // ---- for a connection

    /// A client reads what a topic remembers.
    pub(super) fn read_history(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        topic: &str,
        query: HistoryQuery,
    ) -> Result<(), CommandError> {
        self.check_right_for(id, command, Right::History, topic)?;
        self.admit(id, command, topic)?;
        let topic = self.shared.registry.resolve(topic);
        let ticket = self.expect_answer(id, command);
        let query = recall::HistoryQuery {
            since: query.since.map(Place::from),
            before: query.before.map(Place::from),
            limit: query.limit,
            reverse: query.reverse,
        };
        let sequencer = topic.sequencer;
        let request = HistoryRequest { topic, shard: self.id, conn: id, ticket, query };
        self.mailbox.request(sequencer, Request::History(Box::new(request)));
        Ok(())
    }

    /// A client replaces a topic's snapshot, for which it needs the right to publish.
    pub(super) fn store_snapshot(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        topic: &str,
        up_to: Position,
        payload: Payload,
        lease: LeaseClaim,
    ) -> Result<(), CommandError> {
        self.check_right(id, command)?;
        self.check_permission(id, command, Operation::Publish, topic)?;
        self.admit(id, command, topic)?;
        let topic = self.shared.registry.resolve(topic);
        let ticket = self.expect_answer(id, command);
        let sequencer = topic.sequencer;
        let lease = if self.needs_no_lease(id) { LeaseClaim::Exempt } else { lease };
        let request = SnapshotRequest { topic, up_to: up_to.into(), payload, lease, shard: self.id, conn: id, ticket };
        self.mailbox.request(sequencer, Request::Snapshot(Box::new(request)));
        Ok(())
    }

    /// A sequencer answered `history`.
    pub(super) fn on_history(&mut self, answer: HistoryAnswer) {
        let HistoryAnswer { conn: id, ticket, found } = answer;
        let answer = found.as_ref().map(|(epoch, next, page)| {
            let position = Position { epoch: epoch.0, offset: next.0 - 1 };
            SequencerAnswer::History { position, page }
        });
        self.answer_command(id, ticket, answer.map_err(|refusal| *refusal));
    }

    // ---- as a sequencer

    /// Answers what a new subscription is given.
    pub(super) fn find_recalled(&mut self, request: RecallRequest) {
        let RecallRequest { topic, shard, conn, sub, number, asked } = request;
        let found = match asked {
            Asked::Topic(recall) => {
                let (epoch, _, recalled) = self.sequencer.recall(topic, recall, self.now);
                Found::Topic(epoch, recalled)
            }
            Asked::Walk(place) => Found::Walk(self.id, self.sequencer.walk(&topic.name, &place, self.now)),
        };
        self.mailbox.deliver(shard, Delivery::Recalled(Box::new(RecallAnswer { conn, sub, number, found })));
    }

    /// Answers `history`.
    pub(super) fn find_history(&mut self, request: HistoryRequest) {
        let HistoryRequest { topic, shard, conn, ticket, query } = request;
        let found = self.sequencer.page(topic, &query, self.now);
        self.mailbox.deliver(shard, Delivery::History(Box::new(HistoryAnswer { conn, ticket, found })));
    }

    /// Replaces a snapshot.
    pub(super) fn replace_snapshot(&mut self, request: SnapshotRequest) {
        let SnapshotRequest { topic, up_to, payload, lease, shard, conn, ticket } = request;
        let answer = match self.sequencer.snapshot(topic, up_to, payload, lease, self.now) {
            Ok(()) => Delivery::Done { conn, ticket },
            Err(refusal) => Delivery::Refused { conn, ticket, refusal: Box::new(refusal) },
        };
        self.mailbox.deliver(shard, answer);
    }

    /// Keeps all histories together within their bound; called once a turn.
    pub(super) fn bound_histories(&mut self) {
        self.recalls.expire(self.now);
        self.polls.forget_gone(self.now);
        if let Some(other) = self.sequencer.keep_within(&self.shared.history_usage, self.id) {
            self.shared.inboxes[usize::from(other)].wake();
        }
    }
}
