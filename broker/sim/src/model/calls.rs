//! What must be true of requests and their answers, whatever clients and connections do:
//!
//! - a request is given to one responder at most, which had asked to serve a filter that matches and had not heard of its
//!   end, as it was sent, under a number that this connection was not given before, with no more time than was asked for;
//! - it is answered once, with what its responder said in time, or says truly why not: `timeout` not before its time,
//!   `no-responder` only if nobody was confirmed who was there all along, `responder-lost` only of one that is gone;
//! - a reply is taken only while the time of its request is not over.
//!
//! That there is one answer and no second is found out by the client, which knows its commands.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, matches};

/// A request, by the order of its making.
pub type CallId = usize;

const MS: u64 = 1_000_000;

/// The history of requests so far.
#[derive(Default, Debug)]
pub struct Calls {
    calls: Vec<Call>,
    /// What each client serves.
    services: BTreeMap<(usize, String), Service>,
    /// Numbers that clients were given.
    numbers: BTreeSet<(usize, u64)>,
    /// Who should have been asked, if it is there at the end: the request and the client.
    missed: Vec<(CallId, usize)>,
    /// Who was said to be lost.
    lost: Vec<CallId>,
    now: u64,
}

#[derive(Debug)]
struct Call {
    topic: String,
    timeout_ms: u64,
    /// It is for a member that there is not.
    to: bool,
    /// In order, and in nanoseconds.
    made: u64,
    made_at: u64,
    given: Option<Given>,
    /// What the responder said: whether an error, and when.
    reply: Option<(bool, u64)>,
}

#[derive(Debug)]
struct Given {
    client: usize,
    /// When its time is over at the latest, in nanoseconds.
    over: u64,
}

/// That a client serves a filter.
#[derive(Clone, Copy, Debug)]
struct Service {
    /// When the last command about it was made: answers to earlier ones say nothing of it.
    since: u64,
    confirmed: Option<u64>,
    is_ending: bool,
    has_ended: bool,
}

impl Service {
    fn begun(since: u64) -> Self {
        Self { since, confirmed: None, is_ending: false, has_ended: false }
    }
}

impl Calls {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    // ---- who serves what

    /// A client is about to serve a filter. Returns what [`Calls::served`] has to bring.
    pub fn serving(&mut self, client: usize, filter: &str) -> u64 {
        let since = self.tick();
        let service = self.services.entry((client, filter.to_owned())).or_insert(Service::begun(since));
        if service.is_ending {
            *service = Service::begun(since);
        }
        service.since
    }

    /// Every request finds it now.
    pub fn served(&mut self, client: usize, filter: &str, since: u64) {
        let now = self.tick();
        if let Some(service) = self.services.get_mut(&(client, filter.to_owned()))
            && service.since == since
        {
            service.confirmed.get_or_insert(now);
        }
    }

    /// A client is about to serve it no longer. Returns what [`Calls::ended`] has to bring.
    pub fn ending(&mut self, client: usize, filter: &str) -> u64 {
        let since = self.tick();
        if let Some(service) = self.services.get_mut(&(client, filter.to_owned())) {
            (service.is_ending, service.since) = (true, since);
        }
        since
    }

    /// No further request may come.
    pub fn ended(&mut self, client: usize, filter: &str, since: u64) {
        if let Some(service) = self.services.get_mut(&(client, filter.to_owned()))
            && service.since == since
        {
            service.has_ended = true;
        }
    }

    // ---- a request

    /// A client is about to ask.
    pub fn asking(&mut self, topic: &str, timeout_ms: u64, to: bool, now: u64) -> CallId {
        let made = self.tick();
        let (given, reply) = (None, None);
        self.calls.push(Call { topic: topic.to_owned(), timeout_ms, to, made, made_at: now, given, reply });
        self.calls.len() - 1
    }

    /// A responder got it, under a number, with so much time left.
    ///
    /// # Errors
    /// It should not have, or not so.
    pub fn given(
        &mut self,
        (client, number): (usize, u64),
        id: CallId,
        topic: &str,
        timeout_ms: u64,
        now: u64,
    ) -> Result<(), Violation> {
        let violation = |property, call: &Call| {
            Err(Violation::new(property, format!("client {client}, number {number}, request {id}: {call:?}")))
        };
        let Some(call) = self.calls.get_mut(id) else {
            return Err(Violation::new("a request comes as it was sent", format!("client {client}: request {id}")));
        };
        if call.topic != topic || call.to || timeout_ms > call.timeout_ms {
            return violation("a request comes as it was sent", call);
        }
        if call.given.is_some() {
            return violation("a request is given to one responder", call);
        }
        let serves = self
            .services
            .range((client, String::new())..(client + 1, String::new()))
            .any(|((_, filter), service)| !service.has_ended && matches(filter, topic));
        if !serves {
            return violation("only who serves a topic gets its requests", call);
        }
        // Sent earlier than it came, with less than a millisecond more than was said.
        call.given = Some(Given { client, over: now + (timeout_ms + 1) * MS });
        match self.numbers.insert((client, number)) {
            true => Ok(()),
            false => violation("a number is given once", &self.calls[id]),
        }
    }

    /// The responder is about to answer.
    pub fn replying(&mut self, client: usize, id: CallId, is_error: bool, now: u64) {
        let call = &mut self.calls[id];
        if call.given.as_ref().is_some_and(|given| given.client == client) {
            call.reply = Some((is_error, now));
        }
    }

    /// The broker took the answer.
    ///
    /// # Errors
    /// It came too late.
    pub fn reply_taken(&self, client: usize, id: CallId) -> Result<(), Violation> {
        let call = &self.calls[id];
        let late = call.given.as_ref().zip(call.reply).is_some_and(|(given, (_, at))| at > given.over);
        match late {
            true => Err(Violation::new(
                "a reply is taken in time or not at all",
                format!("client {client}, {id}: {call:?}"),
            )),
            false => Ok(()),
        }
    }

    /// Who asked has the answer, by that client if there is one.
    ///
    /// # Errors
    /// It cannot be.
    pub fn answered(&mut self, id: CallId, code: &str, by: Option<usize>, now: u64) -> Result<(), Violation> {
        self.tick();
        let call = &self.calls[id];
        let violation = |property| Err(Violation::new(property, format!("request {id}, {code} by {by:?}: {call:?}")));
        match code {
            "ok" | "responder-error" => {
                let reply = call.given.as_ref().zip(call.reply);
                let is_its = reply.is_some_and(|(given, (is_error, _))| {
                    Some(given.client) == by && is_error == (code == "responder-error")
                });
                if !is_its {
                    return violation("the answer is what the responder said");
                }
                if reply.is_some_and(|(given, (_, at))| at > given.over) {
                    return violation("no answer comes after the timeout");
                }
            }
            "timeout" if now < call.made_at + call.timeout_ms * MS => {
                return violation("a timeout does not come before its time");
            }
            "no-responder" if call.given.is_some() => return violation("nobody served it, and somebody got it"),
            "busy" if call.given.is_some() => return violation("nobody took it, and somebody got it"),
            "no-responder" if !call.to => {
                let missed = self.services.iter().filter(|((_, filter), service)| {
                    let is_confirmed = service.confirmed.is_some_and(|confirmed| confirmed < call.made);
                    is_confirmed && !service.is_ending && matches(filter, &call.topic)
                });
                self.missed.extend(missed.map(|((client, _), _)| (id, *client)));
            }
            "responder-lost" => self.lost.push(id),
            _ => {}
        }
        Ok(())
    }

    /// Everything has come to rest, and these clients were connected all along.
    ///
    /// # Errors
    /// Somebody was there who was said not to be.
    pub fn settle(&self, is_well: impl Fn(usize) -> bool) -> Result<(), Violation> {
        if let Some((id, client)) = self.missed.iter().find(|(_, client)| is_well(*client)) {
            let evidence = format!("client {client} served it: request {id}, {:?}", self.calls[*id]);
            return Err(Violation::new("there is no responder only if nobody serves the topic", evidence));
        }
        let is_there = |id: &&CallId| self.calls[**id].given.as_ref().is_some_and(|given| is_well(given.client));
        match self.lost.iter().find(is_there) {
            Some(id) => {
                let evidence = format!("request {id}: {:?}", self.calls[*id]);
                Err(Violation::new("a responder is lost only if it is gone", evidence))
            }
            None => Ok(()),
        }
    }
}
