//! An HTTP connection whose single publishes this shard answers itself: from bytes to requests, and from there to the
//! control plane with the first request that is anything else.
//!
//! | where such a connection is | what it has | time |
//! | --- | --- | --- |
//! | between two requests | nothing but its record | `--http-idle-timeout`, in a takeover [`LINGER`], then it is closed |
//! | in a head | the head's bytes as kept input | `--handshake-timeout`, then 408 |
//! | in a body | an [`Exchange::Body`], and the bytes as a message in pieces ([`Assembly`]) | [`due_after`], then 408 |
//! | waiting for keys (`for_keys`) | the head's bytes as kept input | as long as that says |
//! | waiting for its topic | an [`Exchange::Sequencing`] and a held publish | [`QUEUE_PATIENCE`], then 503 |
//! | waiting for the sequencer | an [`Exchange::Sequencing`] | none |
//!
//! There is one request at a time: what comes behind it is kept and looked at once it is answered ([`Flags::PAUSED`]). So
//! answers keep the order of requests, and a client that reads no answers is not read from.
//!
//! A request that is refused by its head is answered here if all of it has come, so that nothing of it has to be read and
//! thrown away; else the control plane refuses it. What is handed over goes once every answer before it was sent.
//!
//! Without a place (`http_places`) a connection is handed over with its first request. RFC 9112 §9.3, §9.5.

use std::time::Duration;

use protocol::frame::{HEADER_MAX, MessageKind};
use protocol::head::{self, Head, Plain};
use ring::{ConnId, Driver, Nanos, nanos};

use crate::access::rejection::Rejection;
use crate::capacity::budget::Held;
use crate::capacity::buffer::Buffer;
use crate::observe::counters::Reason;
use crate::publishing::QUEUE_PATIENCE;
use crate::publishing::body::{broken, due_after, too_slow};
use crate::session::http::{Body, Exchange, Publish};
use crate::shard::Shard;
use crate::shard::requests::{LINGER, Stopped};
use crate::shard::transport::connection::{Assembly, Flags, State};
use crate::shard::transport::ingress::make_room;
use crate::shard::transport::pause::outbox_is_full;

/// What comes next for a connection of which some bytes were taken.
enum Next {
    /// More bytes, or an answer.
    Wait,
    /// The control plane.
    HandOver,
    /// The end, with this answer.
    Refuse(Rejection),
}

/// What became of a request's head.
enum Begun {
    /// So many bytes were taken, of the head and what is behind it.
    Taken(usize),
    /// It is to be judged again when keys were fetched.
    Awaited,
    /// The control plane is to answer.
    HandOver,
}

impl<D: Driver> Shard<D> {
    // ---- bytes

    pub(in crate::shard) fn on_http_bytes(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::PAUSED) {
            self.keep_waiting(id, bytes);
            return;
        }
        let waiting = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        if waiting.is_empty() {
            self.serve_bytes(id, bytes, false);
            return;
        }
        let mut whole = waiting;
        whole.extend_from_slice(bytes);
        if head::is_worth_parsing(whole.len(), bytes, &self.codec.head_limits) {
            self.serve_bytes(id, &whole, true);
        } else {
            self.keep_input(id, &whole);
        }
    }

    /// Takes what it can of `bytes`, which begin with a head, or with what follows in a body. `is_begun`: some of that head
    /// came before.
    pub(in crate::shard) fn serve_bytes(&mut self, id: ConnId, bytes: &[u8], is_begun: bool) {
        let (taken, next) = self.take_heads(id, bytes);
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Http) else { return };
        if conn.flags.has(Flags::PAUSED) {
            self.keep_waiting(id, &bytes[taken..]);
        } else {
            self.keep_input(id, &bytes[taken..]);
        }
        self.go_on(id, next, taken > 0 || !is_begun);
    }

    /// Goes on with what was not taken, and is kept. `is_new`: if that is a head, it has only begun.
    fn go_on(&mut self, id: ConnId, next: Next, is_new: bool) {
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Http) else { return };
        let has_input = conn.extra.as_ref().is_some_and(|extra| !extra.input.is_empty());
        match next {
            Next::Wait if has_input && is_new && !conn.flags.has(Flags::PAUSED) => {
                self.timers.set(id, conn, self.limits.handshake_timeout);
            }
            Next::Wait => {}
            Next::HandOver => self.hand_over_http(id),
            Next::Refuse(rejection) => self.refuse(id, &rejection),
        }
        if let Some(conn) = self.conns.get(id) {
            conn.settle();
        }
    }

    /// Takes bodies and whole requests from the front. Returns how many bytes those were.
    fn take_heads(&mut self, id: ConnId, bytes: &[u8]) -> (usize, Next) {
        let mut taken = 0;
        loop {
            taken += self.take_body(id, &bytes[taken..]);
            let rest = &bytes[taken..];
            let Some(conn) = self.conns.get(id) else { return (taken, Next::Wait) };
            if conn.state != State::Http || conn.flags.has(Flags::PAUSED) || rest.is_empty() {
                return (taken, Next::Wait);
            }
            if outbox_is_full(conn, self.limits.outbox_bytes_max) || !self.input.work.is_left_for(id) {
                self.pause_http(id);
                return (taken, Next::Wait);
            }
            match head::parse(rest, &self.codec.head_limits) {
                Ok(Head::Partial) if self.memory_is_full() => return (taken, Next::Refuse(Rejection::Memory)),
                Ok(Head::Partial) => return (taken, Next::Wait),
                Ok(Head::Http(Plain { head_len, publish: Some(publish), .. })) => {
                    match self.begin_request(id, rest, head_len, &publish) {
                        Begun::Taken(of_it) => taken += of_it,
                        Begun::Awaited => return (taken, Next::Wait),
                        Begun::HandOver => return (taken, Next::HandOver),
                    }
                }
                Ok(Head::Http(_) | Head::Upgrade(_) | Head::Events(_)) => return (taken, Next::HandOver),
                Err(refusal) => return (taken, Next::Refuse(Rejection::Malformed(refusal))),
            }
        }
    }

    /// A whole head came, with `bytes` from its first on.
    fn begin_request(&mut self, id: ConnId, bytes: &[u8], head_len: usize, parsed: &head::Publish<'_>) -> Begun {
        let (head, rest) = bytes.split_at(head_len);
        let body = usize::try_from(parsed.body_len).ok().and_then(|len| rest.get(..len));
        self.input.work.charge_request(body.map_or(0, <[u8]>::len));
        match (self.judge(id, head, parsed), body) {
            (Err(Stopped::KeyAwaited), _) if !self.drain.ends_http() => {
                let conn = self.conns.get(id).expect("a connection with a request");
                self.timers.set(id, conn, self.limits.ping_timeout);
                self.wait_for_keys(id);
                Begun::Awaited
            }
            (Ok(publish), Some(body)) => {
                self.publish_body(id, publish, Body::Received(body));
                Begun::Taken(head_len + body.len())
            }
            (Ok(publish), None) => {
                self.begin_body(id, publish, parsed.body_len);
                Begun::Taken(head_len)
            }
            (Err(stopped), Some(body)) => {
                let page = self.page(parsed);
                self.answer_problem(id, page, &stopped.into());
                Begun::Taken(head_len + body.len())
            }
            (Err(_), None) => Begun::HandOver,
        }
    }

    // ---- bodies

    fn begin_body(&mut self, id: ConnId, publish: Publish<'_>, body_len: u64) {
        let mut room = Buffer::new(&self.account, Held::Assemblies);
        room.extend(&[0; HEADER_MAX]);
        let conn = self.conns.get(id).expect("a connection with a request");
        let extra = conn.extra(&self.account);
        extra.assembly = Some(Assembly { kind: MessageKind::Binary, room, since: self.now });
        extra.exchange = Some(Box::new(Exchange::awaiting_body(publish, body_len, &self.account)));
        self.timers.set(id, conn, due_after(0, &self.limits));
        self.input.assemblies.begin(id, self.now);
    }

    /// Bytes of a body, if one is under way. Returns how many of them belong to it.
    fn take_body(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let Some(extra) = self.conns.get(id).and_then(|conn| conn.extra.as_mut()) else { return 0 };
        let (Some(exchange), Some(assembly)) = (&mut extra.exchange, &mut extra.assembly) else { return 0 };
        let taken = exchange.take(bytes.len());
        let left = exchange.left();
        make_room(
            &mut assembly.room,
            taken,
            left.map_or(0, |left| usize::try_from(left).unwrap_or(usize::MAX)),
            left.is_none(),
        );
        assembly.room.extend(&bytes[..taken]);
        if left.is_some() {
            self.make_room_for_pieces();
            return taken;
        }
        let exchange = extra.exchange.take().expect("found above");
        let mut assembly = extra.assembly.take().expect("found above");
        self.input.assemblies.end(id, &assembly);
        if let Exchange::Body { publish, .. } = *exchange {
            self.publish_body(id, *publish, Body::Gathered(assembly.room.take()));
        }
        taken
    }

    // ---- waiting

    /// Lets input wait for the next turn, or for a send.
    fn pause_http(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("an HTTP connection");
        conn.flags.set(Flags::PAUSED);
        self.timers.set(id, conn, self.limits.ping_timeout);
        self.stats().pauses.add(1);
        self.list_paused(id);
    }

    /// Goes on with a connection that waited: its held publish first, then what was kept of its input.
    pub(in crate::shard) fn resume_http(&mut self, id: ConnId) {
        let waits = self.must_wait();
        let Some(conn) = self.conns.get(id) else { return };
        if let Some(extra) = conn.extra.as_mut().filter(|extra| extra.exchange.is_some()) {
            // Without a held publish the sequencer's answer goes on.
            match extra.held.take() {
                Some(held) if waits || held.topic.is_congested() => {
                    extra.held = Some(held);
                    self.park(id);
                }
                Some(held) => self.publish(held.topic, held.payload, held.options, held.origin),
                None => {}
            }
            return;
        }
        if outbox_is_full(conn, self.limits.outbox_bytes_max) {
            // The end of the send that its answers are about to get lists it.
            return;
        }
        conn.flags.clear(Flags::PAUSED);
        if let Some(rate_limiter) = conn.extra.as_mut().and_then(|extra| extra.rate_limiter.as_mut()) {
            rate_limiter.waited(self.now);
        }
        // Taken out while it is looked at; nothing else comes in meanwhile.
        if let Some(mut input) =
            self.conns.get(id).and_then(|conn| conn.extra.as_mut()).map(|extra| extra.input.detach())
        {
            let mut next = Next::Wait;
            input.consume(|bytes| {
                let taken;
                (taken, next) = self.take_heads(id, bytes);
                taken
            });
            let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Http) else { return };
            conn.extra(&self.account).input = input;
            self.go_on(id, next, true);
        }
        if self.conns.get(id).is_some_and(|conn| conn.state == State::Http && !conn.flags.has(Flags::PAUSED)) {
            self.go_on_receiving(id);
        }
    }

    /// Hands the connection over once all its answers were sent; until then its input waits.
    fn hand_over_http(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("an HTTP connection");
        if conn.flags.has(Flags::SENDING) || conn.outbox_len() > 0 {
            // The send's end lists it.
            conn.flags.set(Flags::PAUSED);
            return;
        }
        self.timers.set(id, conn, self.limits.handshake_timeout);
        self.hand_over(id);
    }

    /// The client has sent all that it will. What it asked for is answered.
    pub(in crate::shard) fn on_http_end(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("an HTTP connection");
        let extra = conn.extra(&self.account);
        extra.ended = true;
        if extra.exchange.is_some() {
            self.fail_request(id, &broken());
        } else {
            self.finish(id, Reason::ByClient);
        }
    }

    // ---- times

    pub(in crate::shard) fn on_http_deadline(&mut self, id: ConnId) {
        let ping_timeout = self.limits.ping_timeout;
        let now = self.now;
        let conn = self.conns.get(id).expect("a connection with a deadline");
        let is_stuck = conn.flags.has(Flags::SENDING) && conn.send_age(now) >= nanos(ping_timeout);
        let is_busy = conn.flags.has(Flags::SENDING) || conn.flags.has(Flags::PAUSED);
        let has_input = conn.extra.as_ref().is_some_and(|extra| !extra.input.is_empty());
        match conn.extra.as_ref().and_then(|extra| extra.exchange.as_deref()) {
            Some(Exchange::Body { .. }) => self.on_body_deadline(id),
            Some(Exchange::Sequencing { since, .. }) => {
                let since = *since;
                self.on_sequencing_deadline(id, since);
            }
            None if is_busy && self.drain.ends_http() => self.timers.set(id, conn, LINGER),
            None if is_busy => self.timers.set(id, conn, ping_timeout),
            None if has_input => self.refuse(id, &Rejection::HeadTimeout),
            None => self.finish(id, Reason::HttpIdle),
        }
        if is_stuck {
            self.ask_progress(id);
        }
    }

    fn on_body_deadline(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection with a deadline");
        let assembly = conn.extra.as_ref().and_then(|extra| extra.assembly.as_ref()).expect("a body under way");
        let due = assembly.since + nanos(due_after(assembly.room.len() - HEADER_MAX, &self.limits));
        if due > self.now {
            self.timers.set(id, conn, Duration::from_nanos(due - self.now));
        } else {
            self.fail_request(id, &too_slow(&self.limits));
        }
    }

    fn on_sequencing_deadline(&mut self, id: ConnId, since: Nanos) {
        let conn = self.conns.get(id).expect("a connection with a deadline");
        self.timers.set(id, conn, self.limits.ping_timeout);
        let is_held = conn.extra.as_ref().is_some_and(|extra| extra.held.is_some());
        if is_held && self.now >= since + nanos(QUEUE_PATIENCE) {
            self.give_up_held(id);
        }
    }
}
