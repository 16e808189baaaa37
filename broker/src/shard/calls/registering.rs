//! `respond`: a connection serves a filter. Every shard's index learns of it, and the command is answered when all know: from
//! then on every request finds this responder. All learn of an end in the same way, behind what began.

use std::sync::Arc;

use bytes::BytesMut;
use protocol::frame::Opcode;
use protocol::v1::{CommandError, ErrorCode, Id, write_ended};
use ring::{ConnId, Driver};

use crate::access::permissions::Operation;
use crate::access::principal::Principal;
use crate::ids::ShardId;
use crate::shard::Shard;
use crate::shard::calls::answering::Serving;
use crate::shard::calls::parcels::{Called, Failure, Outcome, Registration};
use crate::shard::calls::responders::Responders;
use crate::shard::shared::{Delivery, Request};

/// A `respond` command that waits until every shard knows.
#[derive(Debug)]
pub(super) struct Registering {
    conn: ConnId,
    command: Option<Id>,
    /// Shards that have not said so yet.
    left: u16,
}

impl<D: Driver> Shard<D> {
    /// A client serves a filter, or does so no longer.
    pub(in crate::shard) fn respond(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        filter: &str,
        end: bool,
    ) -> Result<(), CommandError> {
        if end {
            let serving = self.calls.serving.get_mut(&id);
            if !serving.is_some_and(|serving| serving.filters.remove(filter)) {
                let reason = format!("this connection does not respond to {filter:?}").into();
                return Err(CommandError { id: command, code: ErrorCode::NotFound, reason });
            }
            self.calls.served -= 1;
        } else {
            self.check_right(id, command)?;
            self.check_permission(id, command, Operation::Respond, filter)?;
            self.check_room_for(id, command, filter)?;
            let serving = self.calls.serving.entry(id).or_default();
            self.calls.served += usize::from(serving.filters.insert(filter.into()));
        }
        let ticket = self.calls.next_registering;
        self.calls.next_registering += 1;
        self.calls.registering.insert(ticket, Registering { conn: id, command, left: self.shards() });
        self.tell_all(id, &filter.into(), end, Some(ticket));
        self.calls.recharge();
        Ok(())
    }

    /// Whether a connection may serve one more filter, if it is one more.
    fn check_room_for(&self, id: ConnId, command: Option<Id>, filter: &str) -> Result<(), CommandError> {
        let serving = self.calls.serving.get(&id);
        if serving.is_some_and(|serving| serving.filters.contains(filter)) {
            return Ok(());
        }
        let most = self.limits.subscriptions_max;
        if serving.is_some_and(|serving| serving.filters.len() >= most) {
            let reason = format!("a connection may respond to {most} filters; see --max-subscriptions").into();
            return Err(CommandError { id: command, code: ErrorCode::Limit, reason });
        }
        self.check_memory(command, Responders::bytes_for(filter) * u64::from(self.shards()), "responders")
    }

    /// Tells every shard, this one too, that a connection serves a filter, or does so no longer.
    fn tell_all(&mut self, id: ConnId, filter: &Arc<str>, end: bool, ticket: Option<u64>) {
        let member = if end { None } else { self.member_name(id) };
        for shard in ShardId::all(self.shards()) {
            let (filter, member) = (Arc::clone(filter), member.clone());
            let registration = Registration { shard: self.id, conn: id, filter, member, end, ticket };
            self.mailbox.request(shard, Request::Respond(Box::new(registration)));
        }
    }

    /// A connection of some shard serves a filter, or does so no longer.
    pub(in crate::shard) fn on_registration(&mut self, registration: Registration) {
        let Registration { shard, conn, filter, member, end, ticket } = registration;
        if end {
            self.calls.responders.remove(&filter, (shard, conn));
        } else {
            self.calls.responders.add(&filter, (shard, conn), member);
        }
        self.calls.recharge();
        if let Some(ticket) = ticket {
            self.mailbox.deliver(shard, Delivery::Registered { ticket });
        }
    }

    /// A shard knows what a connection of this one serves.
    pub(in crate::shard) fn on_registered(&mut self, ticket: u64) {
        let Some(registering) = self.calls.registering.get_mut(&ticket) else { return };
        registering.left -= 1;
        if registering.left > 0 {
            return;
        }
        let Registering { conn, command, .. } = self.calls.registering.remove(&ticket).expect("found above");
        self.calls.recharge();
        if self.conns.get(conn).is_some() {
            self.answer_ok(conn, command);
        }
    }

    /// A connection is known as another member than before.
    pub(in crate::shard) fn tell_member(&mut self, id: ConnId) {
        let Some(serving) = self.calls.serving.get(&id) else { return };
        let filters: Vec<_> = serving.filters.iter().cloned().collect();
        for filter in filters {
            self.tell_all(id, &filter, false, None);
        }
    }

    /// Ends what a connection serves and nothing grants any more.
    pub(in crate::shard) fn end_forbidden_responders(&mut self, id: ConnId, who: &Principal) {
        let Some(serving) = self.calls.serving.get_mut(&id) else { return };
        let is_lost = |filter: &Arc<str>| !who.allows(Operation::Respond, filter);
        let lost: Vec<_> = serving.filters.extract_if(.., is_lost).collect();
        self.calls.served -= lost.len();
        for filter in lost {
            self.tell_all(id, &filter, true, None);
            let mut out = BytesMut::new();
            write_ended(&mut out, &filter, ErrorCode::Forbidden, true);
            self.queue_frame(id, Opcode::Text, &out);
        }
    }

    /// A connection that served something ends.
    pub(super) fn serve_no_longer(&mut self, id: ConnId) {
        let Some(Serving { filters, waiting, .. }) = self.calls.serving.remove(&id) else { return };
        self.calls.served -= filters.len();
        for filter in &filters {
            self.tell_all(id, filter, true, None);
        }
        for waiting in waiting {
            self.calls.waiting_due.remove(&(waiting.deadline, id, waiting.reply));
            let called = Called { number: waiting.number, outcome: Outcome::Failed(Failure::Lost) };
            self.mailbox.deliver(waiting.asker, Delivery::Called(Box::new(called)));
        }
        self.calls.recharge();
    }
}
