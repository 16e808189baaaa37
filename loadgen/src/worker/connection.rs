//! A connection that is open: sending, arming receives, and the ways it ends.

use std::cmp::Reverse;
use std::io;
use std::ops::RangeInclusive;

use bytes::Bytes;
use ring::{Dial, Gather, ReceiveEnd};

use super::Worker;
use super::client::State;
use super::tally::count_reason;

/// Close codes of Ringyard for who may not connect: bad tokens, and tokens that allow too little.
const FINAL_CODES: RangeInclusive<u16> = 4400..=4499;

impl<D: Dial> Worker<D> {
    // ---- sending

    pub(super) fn send(&mut self, at: u32, bytes: Vec<u8>) {
        let client = &mut self.clients[at as usize];
        if bytes.is_empty() {
            return;
        }
        if client.sending {
            client.outbox.get_or_insert_default().extend_from_slice(&bytes);
        } else {
            self.transmit(at, bytes);
        }
    }

    /// Sends; nothing is in flight.
    pub(super) fn transmit(&mut self, at: u32, bytes: Vec<u8>) {
        let bytes = self.secure.seal(at, bytes);
        if !bytes.is_empty() {
            let client = &mut self.clients[at as usize];
            client.sending = true;
            self.driver.send(client.conn, Gather::one(Bytes::from(bytes)), 0);
        }
    }

    pub(super) fn on_sent(&mut self, at: u32, gather: Gather, from: usize, result: Result<usize, i32>) {
        let client = &mut self.clients[at as usize];
        match result {
            Ok(sent) if from + sent < gather.len() => self.driver.send(client.conn, gather, from + sent),
            Ok(_) => {
                client.sending = false;
                let outbox = client.outbox.take().map_or(Vec::new(), |outbox| *outbox);
                if !outbox.is_empty() || self.secure.has(at) {
                    self.transmit(at, outbox);
                }
                self.publishing.unblocked(at);
            }
            // A receive in flight reports the end, and its reason.
            Err(errno) => {
                client.sending = false;
                if !client.receiving {
                    self.on_lost(at, 1006, &format!("sending failed: {}", io::Error::from_raw_os_error(errno)));
                }
            }
        }
    }

    // ---- ends

    pub(super) fn on_receive_ended(&mut self, at: u32, end: ReceiveEnd) {
        self.clients[at as usize].receiving = false;
        match end {
            ReceiveEnd::NoBuffers | ReceiveEnd::Stopped => self.receive_more(at),
            ReceiveEnd::EndOfStream => self.on_lost(at, 1006, "closed without an answer"),
            ReceiveEnd::Failed(errno) => {
                self.on_lost(at, 1006, &io::Error::from_raw_os_error(errno).to_string());
            }
        }
    }

    /// Arms the receive that a client's state needs.
    pub(super) fn receive_more(&mut self, at: u32) {
        let slow_rate = self.plan.options.slow_rate.unwrap_or(0);
        let draining = self.drain.is_some();
        let client = &mut self.clients[at as usize];
        if client.receiving {
            return;
        }
        match client.state {
            State::Upgrading | State::Greeting => self.driver.receive_once(client.conn),
            State::Open if client.slow && !draining => {
                if slow_rate > 0 {
                    let now = self.driver.now();
                    self.upkeep.read_later(now, at, slow_rate);
                }
                return;
            }
            // What is encrypted cannot be counted without decrypting it.
            State::Open if client.verifies || self.secure.has(at) => self.driver.receive(client.conn),
            State::Open => self.driver.discard(client.conn),
            State::Waiting | State::Dialling | State::Closing | State::Gone => return,
        }
        client.receiving = true;
    }

    /// The server or the network ended a connection.
    pub(super) fn on_lost(&mut self, at: u32, code: u16, why: &str) {
        let reconnect = self.plan.options.reconnect;
        let client = &mut self.clients[at as usize];
        match client.state {
            // A retry would fail in the same way.
            State::Greeting if FINAL_CODES.contains(&code) => return self.give_up(at, why, true),
            State::Upgrading | State::Greeting => return self.on_failed_try(at, why, None, true),
            State::Open => {}
            _ => return,
        }
        let kept = self.past.is_kept(client, at);
        if client.slow && client.is_subscriber() {
            self.tally.count_slow_closed(at, code);
        }
        let errors = &mut self.tally.errors;
        let mut counted = true;
        if reconnect {
            *errors.shed.entry(code).or_default() += u64::from(client.is_subscriber());
            counted = false;
        } else if !client.is_subscriber() {
            count_reason(&mut errors.publishers, format!("{code}: {why}"));
        } else if client.slow && !kept {
            *errors.shed.entry(code).or_default() += 1;
            counted = false;
        } else {
            *errors.closed.entry(code).or_default() += 1;
        }
        self.tally.counts.errors += u64::from(counted);
        self.publishing.lost(at);
        self.close(at, reconnect);
    }

    /// The server's bytes are not what the protocol allows, or it refused something in words.
    pub(super) fn on_broken(&mut self, at: u32, why: String) {
        let client = &self.clients[at as usize];
        match client.state {
            // A retry would fail in the same way.
            State::Upgrading | State::Greeting => return self.give_up(at, &why, true),
            State::Open => {}
            _ => return,
        }
        let errors = &mut self.tally.errors;
        count_reason(if client.is_subscriber() { &mut errors.broken } else { &mut errors.publishers }, why);
        self.tally.counts.errors += 1;
        self.publishing.lost(at);
        self.close(at, self.plan.options.reconnect);
    }

    /// Closes a connection from this side; `comes_back`: to open it again.
    pub(super) fn close(&mut self, at: u32, comes_back: bool) {
        let client = &self.clients[at as usize];
        if client.state == State::Open {
            if client.is_subscriber() {
                self.tally.counts.open -= 1;
                self.stop_waiting_for(at);
                if !comes_back {
                    self.shared.leave(self.driver.now());
                }
            }
            self.incomplete += usize::from(comes_back);
        }
        self.publishing.unblocked(at);
        let client = &mut self.clients[at as usize];
        client.comes_back = comes_back;
        client.state = State::Closing;
        self.opening.remove(&at);
        self.driver.close(client.conn);
    }

    pub(super) fn on_closed(&mut self, at: u32) {
        self.receipts.forget(at);
        self.secure.end(at);
        let client = &mut self.clients[at as usize];
        client.reset();
        if client.comes_back {
            client.comes_back = false;
            client.state = State::Waiting;
            // After a failed try, the time of the next one is known already.
            if client.tries == 0 && !self.past.closed(at) {
                match self.absence() {
                    0 => self.waiting.push_back(at),
                    absence => self.retries.push(Reverse((self.driver.now() + absence, at))),
                }
            }
        } else {
            client.state = State::Gone;
        }
    }
}
