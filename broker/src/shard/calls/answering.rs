//! The responder's side of a request: it is given to a connection of this shard, unless that has too much to do, and stays
//! with it until it is answered, its time is over, or the connection ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::frame::Opcode;
use protocol::topic::matches;
use protocol::v1::{CommandError, ErrorCode, Id, Reply, RequestParts, write_request};
use ring::{ConnId, Driver, Nanos};

use crate::ids::ShardId;
use crate::message::Payload;
use crate::shard::calls::parcels::{Answer, Call, Called, Failure, Outcome};
use crate::shard::shared::Delivery;
use crate::shard::transport::connection::{Flags, State};
use crate::shard::{NANOS_PER_MS, Shard};

/// Requests that wait for one responder's answers at most.
const WAITING_MAX: usize = 16;
/// For how long a responder may take nothing of what it is sent, in nanoseconds.
const BLOCKED_NANOS: Nanos = 1_000_000_000;

/// What a connection serves, and what it has to answer.
#[derive(Default, Debug)]
pub(super) struct Serving {
    pub(super) filters: BTreeSet<Arc<str>>,
    /// At most [`WAITING_MAX`], oldest first.
    pub(super) waiting: Vec<Waiting>,
    /// The number that the next request gets: each is given once in the connection's life.
    next_reply: u64,
}

impl Serving {
    /// Whether it serves a topic, by another filter than the one that it was chosen for, which it serves no longer.
    fn serves(&self, topic: &str) -> bool {
        self.filters.iter().any(|filter| matches(filter, topic))
    }
}

/// A request that a connection has to answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) reply: u64,
    /// Who waits for the answer, and under which number.
    pub(super) asker: ShardId,
    pub(super) number: u64,
    pub(super) deadline: Nanos,
}

/// Why a responder does not take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Declined {
    /// It is not there any more, or does not serve the filter any more.
    Gone,
    /// It has too much to do.
    Busy,
}

impl<D: Driver> Shard<D> {
    /// A request has come for a connection of this shard.
    pub(in crate::shard) fn on_call(&mut self, mut call: Box<Call>) {
        if call.deadline <= self.now {
            // The asking shard's own clock says so.
            return;
        }
        match self.take_call(&call) {
            Ok(()) => {}
            Err(declined) => {
                call.tried.push((self.id, call.conn));
                call.is_busy |= declined == Declined::Busy;
                let (asker, number) = (call.asker, call.number);
                let called = Called { number, outcome: Outcome::Bounced(call) };
                self.mailbox.deliver(asker, Delivery::Called(Box::new(called)));
            }
        }
    }

    fn take_call(&mut self, call: &Call) -> Result<(), Declined> {
        let id = call.conn;
        let is_open = |flags: Flags, state| state == State::Open && !flags.has(Flags::LEAVING);
        let conn = self.conns.get(id).filter(|conn| is_open(conn.flags, conn.state)).ok_or(Declined::Gone)?;
        let is_blocked = conn.flags.has(Flags::SENDING) && conn.send_age(self.now) > BLOCKED_NANOS;
        let serving = self.calls.serving.get_mut(&id).ok_or(Declined::Gone)?;
        if !serving.filters.contains(&call.filter) && !serving.serves(&call.topic) {
            return Err(Declined::Gone);
        }
        if is_blocked || serving.waiting.len() >= WAITING_MAX {
            return Err(Declined::Busy);
        }
        let reply = serving.next_reply;
        serving.next_reply += 1;
        let Call { asker, number, deadline, .. } = *call;
        serving.waiting.push(Waiting { reply, asker, number, deadline });
        self.calls.waiting_due.insert((deadline, id, reply));
        self.calls.recharge();
        let mut out = self.begin_answer();
        let parts = RequestParts {
            topic: &call.topic,
            kind: call.payload.kind(),
            payload: call.payload.bytes(),
            reply,
            from: call.from.as_deref(),
            // The clock of this turn may be a little behind.
            timeout_ms: ((deadline - self.now) / NANOS_PER_MS).min(call.timeout_ms.into()),
        };
        write_request(&mut out, &parts);
        self.queue_frame(id, Opcode::Text, &out);
        self.codec.scratch = out;
        Ok(())
    }

    /// A client answers a request.
    pub(in crate::shard) fn reply(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        reply: u64,
        answer: Reply<'_>,
    ) -> Result<(), CommandError> {
        // Its time may have passed within this turn.
        let now = self.now;
        let waiting = self.take_waiting(id, reply).filter(|waiting| waiting.deadline > now);
        let Some(Waiting { asker, number, .. }) = waiting else {
            let reason = format!("no request with the number {reply} waits for a reply of this connection");
            return Err(CommandError { id: command, code: ErrorCode::NotFound, reason: reason.into() });
        };
        let outcome = match answer {
            Reply::Data { kind, data } => {
                let payload = Payload::copy_of(kind, data, &self.account);
                Outcome::Answered(Answer { payload, from: self.member_name(id) })
            }
            Reply::Error { code, reason } => {
                Outcome::Failed(Failure::Responder { code: code.into(), reason: reason.into() })
            }
        };
        self.mailbox.deliver(asker, Delivery::Called(Box::new(Called { number, outcome })));
        if command.is_some() {
            self.answer_ok(id, command);
        }
        Ok(())
    }

    /// A connection need not answer this request any more.
    fn take_waiting(&mut self, id: ConnId, reply: u64) -> Option<Waiting> {
        let serving = self.calls.serving.get_mut(&id)?;
        let at = serving.waiting.iter().position(|waiting| waiting.reply == reply)?;
        let waiting = serving.waiting.remove(at);
        if serving.waiting.is_empty() {
            serving.waiting = Vec::new();
        }
        self.calls.waiting_due.remove(&(waiting.deadline, id, reply));
        self.calls.recharge();
        Some(waiting)
    }

    /// Forgets the requests whose time is over: a later reply finds nothing.
    pub(super) fn expire_waiting(&mut self) {
        while let Some(&(due, id, reply)) = self.calls.waiting_due.first()
            && due <= self.now
        {
            self.take_waiting(id, reply).expect("what is due waits");
        }
    }
}
