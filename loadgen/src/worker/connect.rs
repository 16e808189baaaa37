//! Opening connections: limited by concurrency and ramp, with retries where they may help.

use std::cmp::Reverse;
use std::io;
use std::sync::atomic::Ordering;

use ring::{ConnId, Dial, Nanos};

use super::Worker;
use super::client::{Awaits, Nexts, State, UNKNOWN};
use super::tally::count_reason;
use crate::adapter::Refused;
use crate::options::Rate;
use crate::outcome::histogram;

/// A connection on its way.
pub(super) struct Opening {
    /// When this try began.
    since: Nanos,
    /// When the upgrade request was sent.
    asked: Nanos,
    /// When to give up: set by the first try.
    patience: Nanos,
    /// The answer so far, if it was cut.
    head: Vec<u8>,
}

impl Opening {
    pub(super) fn asked(&self) -> Nanos {
        self.asked
    }
}

/// A try again waits this long, doubled each time.
const RETRY_MIN_NS: u64 = 200_000_000;
const RETRY_MAX_NS: u64 = 5_000_000_000;
/// An answer's head is not longer.
const HEAD_MAX: usize = 32 << 10;

impl<D: Dial> Worker<D> {
    /// Opens as many connections as allowed; returns when there is more to do.
    pub(super) fn open_more(&mut self, now: Nanos) -> Nanos {
        while let Some(Reverse((due, at))) = self.retries.peek().copied() {
            // A connection that is still being closed is opened a moment later.
            if due > now || self.clients[at as usize].state == State::Closing {
                break;
            }
            self.retries.pop();
            self.waiting.push_front(at);
        }
        let next_retry = self.retries.peek().map_or(Nanos::MAX, |Reverse((due, _))| (*due).max(now + 1_000_000));
        if self.waiting.is_empty() {
            self.ramped_at = now;
            return next_retry;
        }
        if now < self.backoff.until {
            return next_retry.min(self.backoff.until);
        }
        let workers = f64::from(self.plan.workers);
        let per_second = match self.plan.options.ramp {
            Some(Rate::PerSecond(rate)) => rate / workers / f64::from(self.plan.options.share.of),
            _ => f64::INFINITY,
        };
        let elapsed = now.saturating_sub(self.ramped_at) as f64 / 1e9;
        self.ramped_at = now;
        // A worker that was delayed does not open all of them at once.
        self.ramp_credit = (self.ramp_credit + elapsed * per_second).min((per_second / 20.0).max(1.0));
        let concurrency = self.backoff.concurrency(self.concurrency());
        while self.opening.len() < concurrency && self.ramp_credit >= 1.0 {
            let Some(at) = self.waiting.pop_front() else { break };
            self.ramp_credit -= 1.0;
            self.dial(at, now);
        }
        if self.waiting.is_empty() || self.opening.len() >= concurrency {
            return next_retry;
        }
        next_retry.min(now + ((1.0 - self.ramp_credit) / per_second * 1e9).max(1.0) as Nanos)
    }

    /// Connections that this worker may open at the same time.
    fn concurrency(&self) -> usize {
        (self.plan.options.concurrency as usize).div_ceil(self.plan.workers as usize)
    }

    fn dial(&mut self, at: u32, now: Nanos) {
        let client = &mut self.clients[at as usize];
        client.state = State::Dialling;
        let to = if client.is_subscriber() { self.plan.adapter.address() } else { self.plan.adapter.publish_address() };
        let patience = self.upkeep.patience_of(at).unwrap_or(now + self.plan.options.connect_timeout.as_nanos() as u64);
        self.past.dialled(at, now);
        self.opening.insert(at, Opening { since: now, asked: now, patience, head: Vec::new() });
        self.driver.dial(to, self.plan.source(client.role), u64::from(at));
    }

    pub(super) fn on_dialled(&mut self, at: u32, result: Result<ConnId, i32>) {
        match result {
            Err(errno) => {
                let why = io::Error::from_raw_os_error(errno).to_string();
                self.on_failed_try(at, &why, None, false);
            }
            Ok(conn) if !self.opening.contains_key(&at) => {
                // It was given up meanwhile.
                self.slots[conn.slot as usize] = u32::MAX;
                self.driver.close(conn);
            }
            Ok(conn) => {
                let now = self.driver.now();
                let client = &mut self.clients[at as usize];
                client.conn = conn;
                client.state = State::Upgrading;
                self.slots[conn.slot as usize] = at;
                let duty = self.plan.duty(client.role);
                if let Some(name) = self.plan.adapter.server_name(&duty)
                    && let Err(why) = self.secure.begin(at, name)
                {
                    return self.give_up(at, &why.to_string(), true);
                }
                let mut request = Vec::new();
                let token = self.plan.token(client.role);
                self.plan.adapter_of(client.role).request_with(
                    &duty,
                    &self.past.since(at),
                    token.as_deref(),
                    &mut request,
                );
                self.opening.get_mut(&at).expect("being opened").asked = now;
                self.receive_more(at);
                self.send(at, request);
            }
        }
    }

    /// Bytes of an answer to the upgrade request.
    pub(super) fn on_answer(&mut self, at: u32, bytes: &[u8]) {
        let opening = self.opening.get_mut(&at).expect("being opened");
        let whole;
        let answer = if opening.head.is_empty() {
            bytes
        } else {
            opening.head.extend_from_slice(bytes);
            whole = std::mem::take(&mut opening.head);
            &whole
        };
        let duty = self.plan.duty(self.clients[at as usize].role);
        match self.plan.adapter.accepted_by(&duty, answer) {
            Ok(None) if answer.len() > HEAD_MAX => {
                self.on_failed_try(at, "an answer without an end", None, true);
            }
            Ok(None) => {
                let head = answer.to_vec();
                self.opening.get_mut(&at).expect("being opened").head = head;
            }
            Ok(Some(len)) => self.on_accepted(at, &answer[len..]),
            Err(Refused { status, retry_after_s, text }) => {
                let retry = match status {
                    429 | 503 => Some(retry_after_s.unwrap_or(1)),
                    _ => None,
                };
                match retry {
                    Some(_) => self.on_failed_try(at, &text, retry, true),
                    // A retry would fail in the same way.
                    None => self.give_up(at, &text, true),
                }
            }
        }
    }

    fn on_accepted(&mut self, at: u32, rest: &[u8]) {
        // Other processes begin at `--start-at`, even if this one is late.
        let began = [self.times.map(|times| times.begin), self.plan.start_at()].into_iter().flatten().min();
        let late = began.is_some_and(|began| self.driver.now() >= began);
        let client = &mut self.clients[at as usize];
        let duty = self.plan.duty(client.role);
        client.joined_late = late;
        if !self.past.keeps_numbers(at) {
            client.nexts = if client.is_subscriber() {
                Nexts::new(self.plan.places(&duty.subscribes), if late { UNKNOWN } else { 0 })
            } else {
                Nexts::default()
            };
        }
        let mut greeting = Vec::new();
        let token = self.plan.token(client.role);
        self.plan.adapter_of(client.role).greet_with(&duty, &self.past.since(at), token.as_deref(), &mut greeting);
        self.send(at, greeting);
        if self.plan.adapter.answers_greeting(&duty) {
            let client = &mut self.clients[at as usize];
            client.state = State::Greeting;
            client.awaits = Awaits::Nothing;
        } else {
            self.on_open(at);
        }
        if !rest.is_empty() {
            self.on_received(at, rest);
        }
    }

    /// Subscribed, or ready to publish.
    pub(super) fn on_open(&mut self, at: u32) {
        let now = crate::clock::monotonic();
        let opening = self.opening.remove(&at).expect("being opened");
        self.upkeep.forget_failure(at);
        let client = &mut self.clients[at as usize];
        client.state = State::Open;
        client.tries = 0;
        self.incomplete -= 1;
        self.backoff.succeeded();
        self.shared.opened_at.fetch_max(now, Ordering::Relaxed);
        if client.is_subscriber() {
            self.tally.counts.open += 1;
            self.tally.counts.opened += 1;
            let took = now.saturating_sub(opening.asked).max(1);
            if self.plan.is_login(client.role) {
                self.tally.logins.get_or_insert_with(|| Box::new(histogram())).saturating_record(took);
            } else {
                self.tally.counts.reopened += u64::from(client.joined_late);
                self.tally.admission.saturating_record(took);
                self.tally.admission_interval.saturating_record(took);
            }
            self.receipts.joins(&self.plan, client);
            self.opened_at = now;
        }
        self.publishing.opened(at);
    }

    /// A try failed; it is repeated until patience is over. `there`: a connection exists.
    pub(super) fn on_failed_try(&mut self, at: u32, why: &str, wait_s: Option<u32>, there: bool) {
        let now = self.driver.now();
        let Some(opening) = self.opening.remove(&at) else { return };
        let tries = self.clients[at as usize].tries;
        // Not before the time that the server gave.
        let (least, earliest) = match wait_s {
            Some(seconds) => (u64::from(seconds) * 1_000_000_000, 1.0),
            None => ((RETRY_MIN_NS << tries.min(5)).min(RETRY_MAX_NS), 0.75),
        };
        let wait = (least as f64 * (earliest + 0.5 * self.random.f64())) as u64;
        if now + wait > opening.patience {
            self.opening.insert(at, opening);
            return self.give_up(at, why, there);
        }
        self.tally.counts.retries += 1;
        self.backoff.failed(now, self.concurrency());
        self.upkeep.remember_failure(at, opening.patience, why);
        self.retries.push(Reverse((now + wait, at)));
        let client = &mut self.clients[at as usize];
        client.tries = tries.saturating_add(1);
        if there {
            client.comes_back = true;
            client.state = State::Closing;
            self.driver.close(client.conn);
        } else {
            client.state = State::Waiting;
        }
    }

    /// A client that will not be opened.
    pub(super) fn give_up(&mut self, at: u32, why: &str, there: bool) {
        self.opening.remove(&at);
        self.upkeep.forget_failure(at);
        self.incomplete -= 1;
        let client = &mut self.clients[at as usize];
        let publisher = !client.is_subscriber();
        let closing = there || client.state == State::Closing;
        client.state = if closing { State::Closing } else { State::Gone };
        client.comes_back = false;
        if there {
            self.driver.close(client.conn);
        }
        if publisher {
            count_reason(&mut self.tally.errors.publishers, why.to_owned());
            self.tally.counts.errors += 1;
            self.publishing.lost(at);
        } else {
            self.tally.count_refused(why.to_owned());
            self.shared.leave(self.driver.now());
        }
    }

    /// Gives up every client that is not open, with the reason why its last try failed.
    pub(super) fn give_up_rest(&mut self) {
        for at in 0..self.clients.len() as u32 {
            let client = &self.clients[at as usize];
            // They were not to connect yet.
            if self.past.holds() > 0 && self.plan.is_held(client.role) {
                continue;
            }
            let (there, now) = match client.state {
                State::Waiting => (false, "not tried: the server took no more clients"),
                State::Dialling => (false, "no answer to a connect"),
                State::Upgrading => (true, "no answer to the upgrade request"),
                State::Greeting => (true, "no answer to the subscription"),
                State::Closing if client.comes_back => (false, "closed without an answer"),
                State::Closing | State::Open | State::Gone => continue,
            };
            let why = self.upkeep.failure_of(at).unwrap_or(now).to_owned();
            self.give_up(at, &why, there);
        }
        self.waiting.clear();
        self.retries.clear();
    }

    /// Gives up the connections that were not answered in time.
    pub(super) fn check_patience(&mut self, now: Nanos) {
        let limit = self.plan.options.connect_timeout.as_nanos() as u64;
        let late: Vec<u32> = self
            .opening
            .iter()
            .filter(|(_, opening)| opening.since + limit < now || opening.patience < now)
            .map(|(at, _)| *at)
            .collect();
        let first = late.iter().filter_map(|at| self.opening.get(at)).map(|opening| opening.since).min();
        for at in late {
            match self.clients[at as usize].state {
                // The kernel ends a dial too, but much later.
                State::Dialling => self.give_up(at, "no answer to a connect", false),
                _ => self.give_up(at, &format!("no answer within {} s", limit / 1_000_000_000), true),
            }
        }
        // A full server would take that long for each further lot.
        if first.is_some_and(|first| self.opened_at < first) {
            for at in std::mem::take(&mut self.waiting) {
                self.give_up(at, "not tried: the server answered no client any more", false);
            }
        }
    }
}
