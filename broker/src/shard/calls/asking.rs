//! The asking side of a request: it is accepted, sent to one responder after the other until one takes it, and answered once.

use std::sync::Arc;

use protocol::v1::{CommandError, ErrorCode, Id, write_answered, write_error, write_responder_error};
use ring::{ConnId, Driver, Nanos};
use tokio::sync::oneshot;

use crate::access::permissions::Right;
use crate::message::Payload;
use crate::session::calls::Ask;
use crate::shard::calls::parcels::{Answer, Call, Called, Failure, Outcome, Question};
use crate::shard::shared::Request;
use crate::shard::{NANOS_PER_MS, Shard};

/// Responders that are asked in turn at most: a request does not visit thousands that have too much to do.
const TRIES_MAX: usize = 64;

const OVERLOADED: &str = "everybody who serves this topic has too much to do; try again";
const TOO_MANY: &str = "this connection waits for as many answers as it may; see --max-requests";

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    asker: Asker,
    deadline: Nanos,
}

/// Who waits.
#[derive(Debug)]
enum Asker {
    /// A connection with this command.
    Connection(ConnId, Option<Id>),
    /// A request that the control plane answers.
    Http(oneshot::Sender<Result<Answer, Failure>>),
}

impl Asked {
    /// The connection that waits, if one does.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.asker {
            Asker::Connection(conn, _) => Some(conn),
            Asker::Http(_) => None,
        }
    }
}

impl<D: Driver> Shard<D> {
    /// A client asks whoever serves a topic.
    pub(in crate::shard) fn ask_responder(&mut self, id: ConnId, ask: Ask<'_>) -> Result<(), CommandError> {
        let Ask { id: command, topic, kind, data, timeout_ms, to } = ask;
        let error = |code, reason: &'static str| Err(CommandError { id: command, code, reason: reason.into() });
        self.check_right(id, command)?;
        self.check_right_for(id, command, Right::Request, topic)?;
        if !self.may_publish(id) {
            self.stats().commands_limited.add(1);
            let reason = "asking faster than --max-publish-rate allows; nobody got the request";
            return error(ErrorCode::Limit, reason);
        }
        if self.calls.asking.get(&id).is_some_and(|asking| asking.len() >= self.limits.requests_max) {
            self.stats().requests_busy.add(1);
            return error(ErrorCode::Busy, TOO_MANY);
        }
        let (payload, from) = (Payload::copy_of(kind, data, &self.account), self.member_name(id));
        let number = self.note_asker(Asker::Connection(id, command), timeout_ms);
        self.calls.asking.entry(id).or_default().push(number);
        self.begin_call((number, timeout_ms), topic.into(), payload, (from, to.map(Into::into)));
        Ok(())
    }

    /// Somebody asks over HTTP.
    pub(in crate::shard) fn ask_for_http(&mut self, question: Question) {
        let Question { topic, payload, from, to, timeout_ms, answer } = question;
        if self.drain.is_under_way() {
            // Who asked may be gone.
            let _ = answer.send(Err(Failure::Draining));
            return;
        }
        let number = self.note_asker(Asker::Http(answer), timeout_ms);
        self.begin_call((number, timeout_ms), topic, payload, (from, to));
    }

    /// Notes who waits, and until when.
    fn note_asker(&mut self, asker: Asker, timeout_ms: u32) -> u64 {
        let number = self.calls.next_call;
        self.calls.next_call += 1;
        let deadline = self.now + Nanos::from(timeout_ms) * NANOS_PER_MS;
        self.calls.asked.insert(number, Asked { asker, deadline });
        self.calls.asked_due.insert((deadline, number));
        self.calls.recharge();
        number
    }

    fn begin_call(
        &mut self,
        (number, timeout_ms): (u64, u32),
        topic: Box<str>,
        payload: Payload,
        (from, to): (Option<Arc<str>>, Option<Box<str>>),
    ) {
        let deadline = self.calls.asked[&number].deadline;
        self.route(Box::new(Call {
            asker: self.id,
            number,
            topic,
            payload,
            from,
            to,
            deadline,
            timeout_ms,
            conn: ConnId { slot: 0, generation: 0 },
            filter: "".into(),
            tried: Vec::new(),
            is_busy: false,
        }));
    }

    /// Sends a request to the responder whose turn it is.
    fn route(&mut self, mut call: Box<Call>) {
        if call.tried.len() >= TRIES_MAX {
            self.finish_call(call.number, Err(Failure::Busy(OVERLOADED)));
            return;
        }
        match self.calls.responders.next(&call.topic, call.to.as_deref(), &call.tried) {
            Some(((shard, conn), filter)) => {
                // A copy of its own, whose references other threads do not count.
                (call.conn, call.filter) = (conn, (*filter).into());
                self.mailbox.request(shard, Request::Call(call));
            }
            None if call.is_busy => self.finish_call(call.number, Err(Failure::Busy(OVERLOADED))),
            None => self.finish_call(call.number, Err(Failure::NoResponder)),
        }
    }

    /// A responder's shard says what became of a request.
    pub(in crate::shard) fn on_called(&mut self, called: Called) {
        let Called { number, outcome } = called;
        // Otherwise its time was over, or who asked is gone.
        let Some(asked) = self.calls.asked.get(&number) else { return };
        match outcome {
            _ if asked.deadline <= self.now => self.finish_call(number, Err(Failure::Timeout)),
            Outcome::Answered(answer) => self.finish_call(number, Ok(answer)),
            Outcome::Failed(failure) => self.finish_call(number, Err(failure)),
            Outcome::Bounced(call) => self.route(call),
        }
    }

    /// Answers the requests whose time is over.
    pub(super) fn expire_asked(&mut self) {
        while let Some(&(due, number)) = self.calls.asked_due.first()
            && due <= self.now
        {
            self.finish_call(number, Err(Failure::Timeout));
        }
    }

    /// The broker goes: who asked over HTTP learns it at once.
    pub(in crate::shard) fn end_http_calls(&mut self) {
        let of_http = |(&number, asked): (&u64, &Asked)| asked.conn().is_none().then_some(number);
        let mut numbers: Vec<u64> = self.calls.asked.iter().filter_map(of_http).collect();
        numbers.sort_unstable();
        for number in numbers {
            self.finish_call(number, Err(Failure::Draining));
        }
    }

    /// A connection ends that may wait for answers.
    pub(super) fn abandon(&mut self, id: ConnId) {
        let Some(numbers) = self.calls.asking.remove(&id) else { return };
        for number in numbers {
            let asked = self.calls.asked.remove(&number).expect("what a connection asked");
            self.calls.asked_due.remove(&(asked.deadline, number));
            self.stats().requests_abandoned.add(1);
        }
        self.calls.recharge();
    }

    /// Answers a request. Nothing comes after that.
    fn finish_call(&mut self, number: u64, result: Result<Answer, Failure>) {
        let Some(Asked { asker, deadline }) = self.calls.asked.remove(&number) else { return };
        self.calls.asked_due.remove(&(deadline, number));
        self.count_call(&result);
        match asker {
            Asker::Http(answer) => drop(answer.send(result)),
            Asker::Connection(id, command) => {
                if let Some(asking) = self.calls.asking.get_mut(&id) {
                    asking.retain(|&other| other != number);
                    if asking.is_empty() {
                        self.calls.asking.remove(&id);
                    }
                }
                self.answer_call(id, command, result);
            }
        }
        self.calls.recharge();
    }

    fn answer_call(&mut self, id: ConnId, command: Option<Id>, result: Result<Answer, Failure>) {
        let mut out = self.begin_answer();
        let command = command.as_ref();
        match &result {
            Ok(Answer { payload, from }) => {
                write_answered(&mut out, command, payload.kind(), payload.bytes(), from.as_deref());
            }
            Err(Failure::Responder { code, reason }) => write_responder_error(&mut out, command, code, reason),
            Err(failure) => write_error(&mut out, command, code_of(failure), failure.reason(), None),
        }
        self.answer(id, out);
    }

    fn count_call(&self, result: &Result<Answer, Failure>) {
        let stats = self.stats();
        let counter = match result {
            Ok(_) => &stats.requests_answered,
            Err(Failure::NoResponder) => &stats.requests_no_responder,
            Err(Failure::Busy(_)) => &stats.requests_busy,
            Err(Failure::Lost) => &stats.requests_responder_lost,
            Err(Failure::Timeout) => &stats.requests_timeout,
            Err(Failure::Responder { .. }) => &stats.requests_responder_error,
            Err(Failure::Draining) => &stats.requests_abandoned,
        };
        counter.add(1);
    }
}

fn code_of(failure: &Failure) -> ErrorCode {
    match failure {
        Failure::NoResponder => ErrorCode::NoResponder,
        Failure::Busy(_) | Failure::Draining => ErrorCode::Busy,
        Failure::Lost => ErrorCode::ResponderLost,
        Failure::Timeout => ErrorCode::Timeout,
        Failure::Responder { .. } => ErrorCode::ResponderError,
    }
}
