//! Leases of topics, at all three places that have a part in them: the connection's shard, the session's home, and the topic's
//! sequencer, which decides ([`crate::presence::leases`]) and says in `$lease/{topic}` who has one.
//!
//! Exclusive topics are not guarded here but where their messages get offsets: the sequencer is given the number in force whenever
//! it changes, before anything else is sequenced.
//!
//! Cost: nothing for those without leases; three messages between shards for a command.

use protocol::topic::LEASE;
use protocol::v1::{CommandError, ErrorCode, Id, LeaseAsked, LeaseLostReason};
use ring::{ConnId, Driver, Nanos};

use crate::access::permissions::Operation;
use crate::access::principal::Principal;
use crate::ids::TopicId;
use crate::message::options::{PublishOptions, Refusal};
use crate::presence::leases::{Asker, Current, Event, Outcome};
use crate::presence::{Owner, SessionRef};
use crate::session::SequencerAnswer;
use crate::shard::asked::{Leasing, SessionCommand};
use crate::shard::lease_messages::{LeaseAnswer, LeaseLost, LeaseOrder, LeaseReport, LeaseRequest, LeaseUpdate};
use crate::shard::sessions::GOES_ON;
use crate::shard::shared::{Delivery, LeaseState, Request};
use crate::shard::{NANOS_PER_MS, Shard};
use crate::topics::registry::TopicRef;

/// What a lease takes at least, in bytes, for the question whether there is room.
const LEASE_BYTES: u64 = 1024;
/// Why there is nothing to renew or to give back.
const NOT_HELD: &str = "the client does not have the lease of this topic by this number";

impl<D: Driver> Shard<D> {
    // ---- the connection's side

    /// A `lease`.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn ask_lease(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        name: &str,
        asked: LeaseAsked,
    ) -> Result<(), CommandError> {
        let topic = match asked {
            LeaseAsked::Take { .. } => {
                self.check_right(id, command)?;
                self.check_permission(id, command, Operation::Lease, name)?;
                self.check_memory(command, LEASE_BYTES, "leases")?;
                self.admit(id, command, name)?;
                self.shared.registry.resolve(name)
            }
            LeaseAsked::Renew { .. } | LeaseAsked::Release { .. } => {
                let known = self.shared.registry.find(name).filter(|_| self.attached.contains_key(&id));
                known.ok_or_else(|| CommandError { id: command, code: ErrorCode::NotFound, reason: NOT_HELD.into() })?
            }
        };
        self.attach_client(id);
        self.ask_home(id, command, SessionCommand::Lease(Leasing { topic, asked }));
        Ok(())
    }

    /// What a `lease` has led to.
    pub(super) fn on_lease_answer(&mut self, answer: LeaseAnswer) {
        let LeaseAnswer { conn: id, ticket, outcome } = answer;
        let answer = match &outcome {
            Ok(Outcome::Granted { number, ttl }) => {
                Ok(SequencerAnswer::Leased { number: *number, ttl_ms: ttl / NANOS_PER_MS })
            }
            Ok(Outcome::Released) => Ok(SequencerAnswer::Done),
            Ok(Outcome::Held { by, left }) => Ok(SequencerAnswer::Held { by, ttl_ms: left.div_ceil(NANOS_PER_MS) }),
            Ok(Outcome::NotThere) => Err(Refusal::NotFound(NOT_HELD)),
            Err(refusal) => Err(*refusal),
        };
        self.answer_command(id, ticket, answer);
    }

    /// The client learns that it has a lease no more.
    pub(super) fn on_lease_lost(&mut self, lost: &LeaseLost) {
        let mut out = self.begin_answer();
        if let Some(conn) = self.conns.get(lost.conn) {
            conn.session.write_lease_lost(&lost.topic.name, lost.number, lost.reason, &mut out);
        }
        self.answer(lost.conn, out);
    }

    // ---- the home's side

    /// A command of a session is passed on to the topic's sequencer.
    pub(super) fn lease_at_home(&mut self, owner: Owner, ticket: u64, leasing: Leasing) {
        let Leasing { topic, asked } = leasing;
        let Some(known) = self.sessions.of(owner) else {
            return self.refuse_command(owner, ticket, Refusal::NotFound(GOES_ON));
        };
        if !self.sessions.ask_lease(owner, topic.clone(), self.limits.subscriptions_max) {
            let reason = "a client may have as many leases as subscriptions; see --max-subscriptions";
            return self.refuse_command(owner, ticket, Refusal::Limit(reason));
        }
        let asker = Asker { session: known.session, by: known.member, answer: (owner, ticket) };
        self.order_lease(topic, LeaseOrder::Command(asker, asked));
    }

    fn order_lease(&mut self, topic: TopicRef, asked: LeaseOrder) {
        let sequencer = topic.sequencer;
        self.mailbox.request(sequencer, Request::Lease(Box::new(LeaseRequest { topic, asked })));
    }

    /// A sequencer says what has become of a session's lease.
    pub(super) fn on_lease_report(&mut self, report: LeaseReport) {
        let LeaseReport { session, topic, update } = report;
        match update {
            LeaseUpdate::Answered((owner, ticket), outcome) => {
                self.sessions.lease_answered(session, topic.id, outcome.as_ref().ok());
                let answer = LeaseAnswer { conn: owner.conn, ticket, outcome };
                self.mailbox.deliver(owner.shard, Delivery::Leased(Box::new(answer)));
            }
            LeaseUpdate::Lost(number, reason) => {
                if let Some(owner) = self.sessions.lease_lost(session, topic.id, number) {
                    self.say_lost(owner, topic, number, reason);
                }
            }
        }
    }

    fn say_lost(&mut self, owner: Owner, topic: TopicRef, number: u64, reason: LeaseLostReason) {
        let lost = LeaseLost { conn: owner.conn, topic, number, reason };
        self.mailbox.deliver(owner.shard, Delivery::LeaseLost(Box::new(lost)));
    }

    /// The connection of a session has ended: its leases wait with it, until then at most.
    pub(super) fn keep_leases(&mut self, leases: Vec<(SessionRef, TopicRef, Option<u64>)>, until: Nanos) {
        for (session, topic, _) in leases {
            self.order_lease(topic, LeaseOrder::Keep(session, until));
        }
    }

    /// A session goes on over another connection, perhaps while the one before is still there.
    pub(super) fn resume_leases(&mut self, owner: Owner, taken_from: Option<Owner>) {
        for (session, topic, number) in self.sessions.leases_of(owner) {
            if let (Some(before), Some(number)) = (taken_from, number) {
                self.say_lost(before, topic.clone(), number, LeaseLostReason::Taken);
            }
            self.order_lease(topic, LeaseOrder::Resume(session));
        }
    }

    /// What a client may do has changed.
    pub(super) fn restrict_leases(&mut self, owner: Owner, who: &Principal) {
        for (session, topic, _) in self.sessions.leases_of(owner) {
            if !who.allows(Operation::Lease, &topic.name) {
                self.order_lease(topic, LeaseOrder::Close(session));
            }
        }
    }

    /// A session is over.
    pub(super) fn free_leases(&mut self, session: SessionRef, topics: Vec<TopicRef>) {
        for topic in topics {
            self.order_lease(topic, LeaseOrder::Free(session));
        }
    }

    // ---- as a sequencer

    /// Something about the lease of a topic that is sequenced here.
    pub(super) fn on_lease_request(&mut self, request: LeaseRequest) {
        let LeaseRequest { topic, asked } = request;
        let now = self.now;
        match asked {
            LeaseOrder::Command(asker, LeaseAsked::Take { ttl_ms, wait_ms }) => {
                self.take_lease(&topic, asker, Nanos::from(ttl_ms) * NANOS_PER_MS, Nanos::from(wait_ms) * NANOS_PER_MS);
            }
            LeaseOrder::Command(asker, LeaseAsked::Renew { lease, ttl_ms }) => {
                let ttl = ttl_ms.map(|ttl_ms| Nanos::from(ttl_ms) * NANOS_PER_MS);
                self.leases.renew(&topic, asker, lease, ttl, now);
            }
            LeaseOrder::Command(asker, LeaseAsked::Release { lease }) => {
                self.leases.release(&topic, asker, lease, now);
            }
            LeaseOrder::Keep(session, until) => self.leases.keep(topic.id, session, until, now),
            LeaseOrder::Resume(session) => self.leases.resume(topic.id, session, now),
            LeaseOrder::Close(session) => self.leases.close(topic.id, session, now),
            LeaseOrder::Free(session) => self.leases.free(topic.id, session, now),
        }
        self.report_leases();
    }

    /// A lease that nobody can learn of is not given.
    fn take_lease(&mut self, topic: &TopicRef, asker: Asker, ttl: Nanos, wait: Nanos) {
        let (session, answer) = (asker.session, asker.answer);
        if !self.leases.take(topic, asker, ttl, wait, self.now) {
            return;
        }
        if let Err(refusal) = self.say_lease(topic) {
            self.leases.free(topic.id, session, self.now);
            self.leases.take_events();
            self.sequencer.set_lease(topic.id, None);
            self.report_lease(session, topic.clone(), LeaseUpdate::Answered(answer, Err(refusal)));
        }
    }

    /// Carries out what follows from a call.
    fn report_leases(&mut self) {
        for event in self.leases.take_events() {
            match event {
                Event::Answered { topic, asker, outcome } => {
                    let update = LeaseUpdate::Answered(asker.answer, Ok(outcome));
                    self.report_lease(asker.session, topic, update);
                }
                Event::Lost { topic, session, number, reason } => {
                    self.stats().leases_lost.add(1);
                    self.report_lease(session, topic, LeaseUpdate::Lost(number, reason));
                }
                // It takes the place of what was said before; if there is no room even for that, the next change says it.
                Event::Changed(topic) => drop(self.say_lease(&topic)),
            }
        }
    }

    fn report_lease(&mut self, session: SessionRef, topic: TopicRef, update: LeaseUpdate) {
        let report = LeaseReport { session, topic, update };
        self.mailbox.request(session.home, Request::LeaseReport(Box::new(report)));
    }

    /// Who has the lease of a topic has changed: the sequencer learns it, and all who watch.
    fn say_lease(&mut self, of: &TopicRef) -> Result<(), Refusal> {
        let current = self.leases.current(of.id);
        self.sequencer.set_lease(of.id, current.as_ref().map(|current| current.number));
        let options = PublishOptions { retain: true, removed: current.is_none(), ..Default::default() };
        let json = current.map_or_else(|| "null".to_owned(), |current| self.lease_json(&current));
        self.publish_about(LEASE, of, &json, options)
    }

    fn lease_json(&self, current: &Current) -> String {
        let Current { by, number, until, .. } = current;
        let mut name = Vec::new();
        protocol::v1::put_string(&mut name, by.as_bytes());
        let name = String::from_utf8(name).expect("text in quotes");
        format!("{{\"by\":{name},\"lease\":{number},\"until\":{}}}", self.shared.wall_clock.millis(*until))
    }

    /// Ends leases that were not renewed, and waits that were long enough; called once a turn.
    pub(super) fn expire_leases(&mut self) {
        if self.drain.is_under_way() {
            return;
        }
        while self.leases.expire(self.now) {
            self.report_leases();
        }
    }

    /// When this has something to do next.
    pub(super) fn next_lease_deadline(&self) -> Option<Nanos> {
        self.leases.next_due().filter(|_| !self.drain.is_under_way())
    }

    /// Who has the lease of a topic, for operators.
    pub(super) fn lease_state(&self, topic: TopicId) -> Option<LeaseState> {
        let Current { by, number, until, .. } = self.leases.current(topic)?;
        Some(LeaseState { by, number, until_ms: self.shared.wall_clock.millis(until) })
    }

    /// Whether a connection publishes to exclusive topics without their leases.
    pub(super) fn needs_no_lease(&self, id: ConnId) -> bool {
        self.identities.principal(id).is_some_and(|principal| principal.permissions.needs_no_lease())
    }
}
