//! Single publishes over HTTP that this shard answers: judged, published, answered. The rules are those of the control
//! plane: [`policy`](crate::access::policy) twice, with the head and with the message, and [`publishing`] for the rest, in
//! the same order as in `http/middleware.rs` and `http/publish.rs`.
//!
//! Not responsible for bytes, bodies and times (`transport/http.rs`). Cost of a publish beside those of any other: an
//! answer of some 400 bytes, and the strings in it.
//!
//! [`publishing`]: crate::publishing

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use protocol::head;
use ring::{ConnId, Driver};

use crate::access::address::Client;
use crate::access::keys::{Bearer, Credential};
use crate::access::origin;
use crate::access::permissions::Operation;
use crate::access::policy::{Kind, PublishFacts, Publishing, RequestFacts};
use crate::access::principal::Principal;
use crate::access::rate::RateLimiter;
use crate::access::rejection::Rejection;
use crate::message::options::{PublishOptions, Refusal};
use crate::observe::counters::Reason;
use crate::publishing::answer::{self, Around, CLOSE};
use crate::publishing::body::too_long;
use crate::publishing::problem::Problem;
use crate::publishing::{Answer, CONTENT_TYPE, QUEUE_PATIENCE, options, overloaded, topic_of, unanswered};
use crate::session::http::{Body, Exchange, Publish};
use crate::shard::Shard;
use crate::shard::entry::Credentials;
use crate::shard::shared::{Origin, Published};
use crate::shard::transport::connection::{Extra, Flags, State};
use crate::shard::transport::held::HeldPublish;

/// How long a connection is kept for the next request when another broker takes over: longer than most ways to a client
/// and back.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// Why a request does not go on to its body.
#[derive(Debug)]
pub(super) enum Stopped {
    /// Its token names a key that is being fetched.
    KeyAwaited,
    /// It is answered with this.
    Refused(Problem),
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<Rejection> for Stopped {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::KeyAwaited => Self::KeyAwaited,
            other => Self::Refused(other.into()),
        }
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::KeyAwaited => Rejection::KeyAwaited.into(),
            Stopped::Refused(problem) => problem,
        }
    }
}

impl<D: Driver> Shard<D> {
    // ---- judged

    /// Whether a request with this head may go on to its body.
    pub(super) fn judge<'a>(
        &mut self,
        id: ConnId,
        head: &[u8],
        parsed: &head::Publish<'a>,
    ) -> Result<Publish<'a>, Stopped> {
        let bearer = self.shared.publish_keys.are_needed().then(|| head::bearer(head)).flatten();
        let publishing = Publishing::Only(self.policy().credential(|| bearer));
        let facts = RequestFacts { host: Some(parsed.host), origin: parsed.origin, publishing, kind: Kind::Change };
        self.policy().decide(facts)?;
        let topic = topic_of(parsed.path, &self.limits)?;
        let principal = self.identify_publisher(head, &topic)?;
        let options = options::of_request(parsed.query, parsed.idempotency_key.into_iter())?;
        if parsed.body_len > self.limits.message_bytes_max {
            return Err(too_long(&self.limits).into());
        }
        Ok(Publish {
            topic,
            options,
            content_type: parsed.content_type.map(Into::into),
            page: self.page(parsed).map(Into::into),
            bearer: bearer.map(Bearer::new),
            principal,
            client: self.publishing_client(id, head),
        })
    }

    /// Who publishes with a request, and whether that one may; `None`: there is no access control.
    fn identify_publisher(&mut self, head: &[u8], topic: &str) -> Result<Option<Arc<Principal>>, Rejection> {
        let authority = &self.shared.authority;
        if !authority.is_on() {
            return Ok(None);
        }
        let credentials = Credentials::of_request(authority, head::bearer(head), None, |name| head::cookie(head, name));
        let (identified, cost) = credentials.identify(authority, self.shared.wall_clock.millis(self.now));
        self.input.work.charge_verification(cost);
        let principal = identified?.ok_or(Rejection::Unauthorized)?;
        principal.check(Operation::Publish, topic, authority.settings().explain)?;
        Ok(Some(principal))
    }

    /// The origin of the page that sent this, if it may read the answer.
    pub(super) fn page<'a>(&self, parsed: &head::Publish<'a>) -> Option<&'a str> {
        parsed.origin.filter(|origin| origin::allowed(Some(origin), parsed.host, &self.limits.origins))
    }

    /// As whom a request counts that begins topics.
    fn publishing_client(&self, id: ConnId, head: &[u8]) -> Option<Client> {
        if self.acceptor.addresses.is_trusted(id) {
            return self.forwarded(id, head).and_then(Client::of);
        }
        self.acceptor.addresses.client(id, &self.shared.addresses)
    }

    /// Whether the message may be published to its topic now.
    fn admit_publish(&mut self, id: ConnId, publish: &Publish<'_>) -> Result<Credential, Problem> {
        let limits = self.limits.clone();
        let conn = self.conns.get(id).expect("a connection with a request");
        let is_limited = limits.publish_rate_max.is_some();
        let kept = is_limited.then(|| *conn.extra(&self.account).rate_limiter.get_or_insert_default());
        let mut rate_limiter: RateLimiter = kept.unwrap_or_default();
        let kind = Kind::Publish(PublishFacts {
            rate_limiter: &mut rate_limiter,
            topic: self.shared.admit_name(&publish.topic, limits.topics_max),
            name_bytes: self.shared.name_bytes(&publish.topic),
            names_left: self.shared.names_left(limits.topics_max),
            client: publish.client,
            shares: &self.shared.name_shares,
        });
        // Rules may have changed while the body came.
        if let Some(principal) = &publish.principal {
            let (authority, now_ms) = (&self.shared.authority, self.shared.wall_clock.millis(self.now));
            let renewed = authority.renew(principal, Some(now_ms)).map_err(|_| Rejection::BadToken)?;
            renewed.check(Operation::Publish, &publish.topic, authority.settings().explain)?;
        }
        let credential: Credential = self.policy().credential(|| publish.bearer.as_ref().map(Bearer::as_bytes));
        // Host and origin were judged with the head. The key may have been replaced since.
        let facts = RequestFacts { host: None, origin: None, publishing: Publishing::Only(credential), kind };
        let decision = self.policy().decide(facts);
        if is_limited && let Some(conn) = self.conns.get(id) {
            conn.extra(&self.account).rate_limiter = Some(rate_limiter);
        }
        if matches!(decision, Err(Rejection::PublishRate)) {
            self.stats().commands_limited.add(1);
        }
        decision.map(|_| credential).map_err(Problem::from)
    }

    // ---- published

    /// A body is there. From here on it counts as a message.
    pub(super) fn publish_body(&mut self, id: ConnId, publish: Publish<'_>, body: Body<'_>) {
        let content = body.interpret(publish.content_type.as_deref(), &self.limits);
        let admitted = content.and_then(|content| Ok((content, self.admit_publish(id, &publish)?)));
        let (content, credential) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => return self.answer_problem(id, publish.page.as_deref(), &problem),
        };
        let payload = content.into_payload(&self.account);
        let is_known = publish.principal.as_ref().is_some_and(|principal| !principal.is_anonymous());
        let is_key_holder = is_known || credential == Credential::Valid;
        let options = publish.options.map(|options| Box::new(PublishOptions { is_key_holder, ..*options }));
        let topic = self.shared.registry.resolve(&publish.topic);
        let needs_no_lease = publish.principal.as_ref().is_some_and(|principal| principal.permissions.needs_no_lease());
        let is_exempt = needs_no_lease && topic.may_refuse(self.shared.registry.rules());
        let options = if is_exempt { PublishOptions::exempt(options) } else { options };
        let waits = topic.is_congested() || self.must_wait();
        let page = publish.page.map(|origin| origin.into_owned().into_boxed_str());
        let exchange = Exchange::Sequencing { topic: topic.clone(), page, since: self.now };
        let origin = Origin::Connection { shard: self.id, conn: id, ticket: 0 };
        let conn = self.conns.get(id).expect("a connection with a request");
        // Nothing behind it is looked at before it is answered.
        conn.flags.set(Flags::PAUSED);
        let extra = conn.extra(&self.account);
        extra.exchange = Some(Box::new(exchange));
        if !waits {
            self.publish(topic, payload, options, origin);
            return;
        }
        extra.held = Some(Box::new(HeldPublish { topic, payload, options, origin }));
        self.timers.set(id, conn, QUEUE_PATIENCE);
        self.stats().pauses.add(1);
        self.list_paused(id);
    }

    // ---- answered

    /// The sequencer has sequenced the request's message, or refused it.
    pub(super) fn answer_published(&mut self, id: ConnId, published: Result<Published, Refusal>) {
        let Some(extra) = self.conns.get(id).and_then(|conn| conn.extra.as_mut()) else { return };
        let Some(exchange) = extra.exchange.take() else { return };
        if let Exchange::Sequencing { topic, page, .. } = *exchange {
            match published {
                Ok(Published { epoch, offset, subscribers, duplicate }) => {
                    let body = Answer::new(&topic.name, epoch, offset, subscribers, duplicate).to_json();
                    self.put_answer(id, page.as_deref(), false, |out, around| {
                        answer::put(out, CONTENT_TYPE, &body, around)
                    });
                    self.go_on_http(id);
                }
                Err(refusal) => self.answer_problem(id, page.as_deref(), &refusal.into()),
            }
        }
    }

    /// Answers a request that is not carried out, and goes on with the next.
    pub(super) fn answer_problem(&mut self, id: ConnId, page: Option<&str>, problem: &Problem) {
        if let Some(cause) = problem.cause() {
            self.stats().count_refusal(cause);
            self.stats().requests_refused.add(1);
        }
        self.put_answer(id, page, false, |out, around| answer::put_problem(out, problem, around));
        self.go_on_http(id);
    }

    /// Answers a request of which more may come, and ends the connection.
    pub(super) fn fail_request(&mut self, id: ConnId, problem: &Problem) {
        self.stats().count_refusal(problem.cause());
        let extra = self.conns.get(id).and_then(|conn| conn.extra.as_mut());
        let exchange = extra.and_then(|extra| extra.exchange.take());
        let page = exchange.as_ref().and_then(|exchange| exchange.page());
        self.put_answer(id, page, true, |out, around| answer::put_problem(out, problem, around));
        self.finish(id, Reason::Refused);
    }

    /// A message has waited for its topic for too long.
    pub(super) fn give_up_held(&mut self, id: ConnId) {
        let extra = self.conns.get(id).and_then(|conn| conn.extra.as_mut()).expect("a held publish");
        extra.held = None;
        let exchange = extra.exchange.take();
        let page = exchange.as_ref().and_then(|exchange| exchange.page());
        self.answer_problem(id, page, &overloaded());
    }

    fn put_answer(
        &mut self,
        id: ConnId,
        page: Option<&str>,
        ends: bool,
        put: impl FnOnce(&mut bytes::BytesMut, Around<'_>),
    ) {
        let connection = if ends || self.drain.ends_http() { CLOSE } else { &self.codec.http_stays };
        let around = Around { page, connection, date: self.codec.date.at(&self.shared.wall_clock, self.now) };
        let conn = self.conns.get(id).expect("a connection with a request");
        conn.extra(&self.account).outbox.edit(|out| put(out, around));
        self.make_ready(id);
    }

    /// A request was answered: on to the next, unless the broker goes.
    fn go_on_http(&mut self, id: ConnId) {
        if self.drain.ends_http() {
            self.finish(id, Reason::Shutdown);
            return;
        }
        let conn = self.conns.get(id).expect("a connection with a request");
        self.timers.set(id, conn, self.limits.http_idle_timeout);
        if !conn.flags.has(Flags::PAUSED) {
            return;
        }
        let has_waiting = conn.extra.as_ref().is_some_and(|extra| !extra.input.is_empty() || extra.ended);
        if has_waiting || !conn.flags.has(Flags::RECEIVING) {
            self.list_paused(id);
        } else {
            conn.flags.clear(Flags::PAUSED);
        }
    }

    // ---- shutdown

    /// Another broker takes over: connections without a request under way end, if none comes within a moment. A client that
    /// sends one after the other may have sent the next before it could know.
    pub(super) fn end_idle_http_soon(&mut self) {
        for id in self.idle_http() {
            let conn = self.conns.get(id).expect("an idle connection");
            self.timers.set(id, conn, LINGER);
        }
    }

    /// The broker goes: connections without a request under way end.
    pub(super) fn end_idle_http(&mut self) {
        for id in self.idle_http() {
            self.finish(id, Reason::Shutdown);
        }
    }

    fn idle_http(&mut self) -> Vec<ConnId> {
        let mut ids = self.conns.ids();
        ids.retain(|&id| {
            self.conns.get(id).is_some_and(|conn| {
                let has_request = |extra: &Extra| extra.exchange.is_some() || !extra.input.is_empty();
                conn.state == State::Http && !conn.extra.as_deref().is_some_and(has_request)
            })
        });
        ids
    }

    /// Ends an HTTP connection in the last phase of a shutdown.
    pub(super) fn end_http(&mut self, id: ConnId) {
        let rejection = self.shared.admission.draining();
        let Some(conn) = self.conns.get(id) else { return };
        match &conn.extra {
            // The sequencer has it, and did not answer in time.
            Some(extra)
                if extra.held.is_none() && extra.exchange.as_ref().is_some_and(|exchange| exchange.is_sent()) =>
            {
                self.fail_request(id, &unanswered());
            }
            Some(extra) if extra.exchange.is_some() => self.fail_request(id, &rejection.into()),
            Some(extra) if !extra.input.is_empty() => self.refuse(id, &rejection),
            _ => self.finish(id, Reason::Shutdown),
        }
    }
}
