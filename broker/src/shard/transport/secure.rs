//! Connections of `--tls-listen`: what is received is decrypted before anybody looks at it, what is sent is encrypted when
//! the socket is free. All else is as for any other connection.
//!
//! One that has [`Flags::TLS`] has a [`Stream`] in a table beside the connections, so that others pay for a flag and nothing
//! else. What it keeps of its own is charged to the budget as a flat sum, ciphertext on its way as an outbox.
//!
//! A handshake is a connection's first input: it takes its part of a turn's input, and waits for the next turn when that is
//! used. It has the same deadline and the same place as a request head.

use protocol::head::Refusal;
use ring::{ConnId, Driver, Gather};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::access::rejection::Rejection;
use crate::capacity::budget::{Charge, Held};
use crate::capacity::buffer::Buffer;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::transport::connection::{Flags, State};
use crate::tls::stream::{Failure, Fed, Handshake, Stream};

/// What a connection holds in the library, in bytes: keys, and room for a record.
const STREAM_BYTES: u64 = 8 << 10;
/// What a signature costs, in units of about 100 ns.
const SIGNATURE_COST: u32 = 1500;
/// Room for plaintext that is kept from one connection to the next, in bytes.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// TLS connections, and those that are bridged to the control plane (`bridge`).
#[derive(Default, Debug)]
pub(in crate::shard) struct Secure {
    streams: FxHashMap<ConnId, Secured>,
    /// Where plaintext is put; taken out while it is looked at.
    scratch: Vec<u8>,
    /// Bridges whose inner ends the driver is adopting, by token.
    pub(super) bridging: FxHashMap<u64, ConnId>,
    /// Both ends of every bridge, each with the other.
    pub(super) ends: FxHashMap<ConnId, ConnId>,
    /// Those ends that are no clients.
    pub(super) inner: FxHashSet<ConnId>,
}

#[derive(Debug)]
struct Secured {
    stream: Stream,
    _charge: Charge,
}

impl Secure {
    fn stream(&mut self, id: ConnId) -> Option<&mut Stream> {
        self.streams.get_mut(&id).map(|secured| &mut secured.stream)
    }

    /// Whether the connection's handshake is under way.
    pub(super) fn is_handshaking(&self, id: ConnId) -> bool {
        self.streams.get(&id).is_some_and(|secured| secured.stream.is_handshaking())
    }
}

impl<D: Driver> Shard<D> {
    /// A connection came by the second listener.
    pub(super) fn begin_tls(&mut self, id: ConnId) {
        let Some(Ok(stream)) = self.shared.tls.as_ref().map(|tls| tls.begin()) else {
            return self.abort(id, Reason::Tls);
        };
        let charge = Charge::new(&self.account, Held::Tls, STREAM_BYTES);
        self.secure.streams.insert(id, Secured { stream, _charge: charge });
        if let Some(conn) = self.conns.get(id) {
            conn.flags.set(Flags::TLS);
        }
    }

    /// Ciphertext came.
    pub(super) fn on_ciphertext(&mut self, id: ConnId, bytes: &mut [u8]) {
        let is_left = self.input.work.is_left();
        let Some(conn) = self.conns.get(id) else { return };
        if matches!(conn.state, State::Closing | State::Gone) {
            return;
        }
        let is_paused = conn.flags.has(Flags::PAUSED);
        let Some(stream) = self.secure.stream(id) else { return };
        if stream.is_handshaking() && (is_paused || !is_left) {
            return self.wait_for_a_turn(id, bytes);
        }
        let mut plain = std::mem::take(&mut self.secure.scratch);
        let Some(stream) = self.secure.stream(id) else { return };
        let fed = stream.feed(bytes, &mut plain);
        let has_output = stream.has_output();
        if let Ok(Fed { established, has_signed, .. }) = fed {
            if has_signed {
                self.input.work.charge_verification(SIGNATURE_COST);
            }
            if let Some(handshake) = established {
                self.count_handshake(handshake);
            }
        }
        if has_output {
            self.make_ready(id);
        }
        if !plain.is_empty() {
            self.on_plaintext(id, &mut plain);
        }
        plain.clear();
        plain.shrink_to(SCRATCH_BYTES_MAX);
        self.secure.scratch = plain;
        match fed {
            Ok(Fed { has_ended: true, .. }) => self.on_secure_end(id),
            Ok(_) => {}
            Err(failure) => self.on_tls_failure(id, failure),
        }
    }

    fn count_handshake(&self, Handshake { is_13, is_resumed }: Handshake) {
        let stats = self.stats();
        let counter = match (is_13, is_resumed) {
            (false, false) => &stats.tls_12_full,
            (false, true) => &stats.tls_12_resumed,
            (true, false) => &stats.tls_13_full,
            (true, true) => &stats.tls_13_resumed,
        };
        counter.add(1);
    }

    /// The client sends nothing more (`close_notify`), as with the end of its stream.
    fn on_secure_end(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        match conn.state {
            State::Open | State::Http | State::Handshake if conn.flags.has(Flags::PAUSED) => {
                conn.extra(&self.account).ended = true;
            }
            State::Gone | State::Closing => {}
            _ => self.on_end_of_stream(id),
        }
    }

    /// The connection cannot go on. Of what waits to be sent only an alert goes out.
    fn on_tls_failure(&mut self, id: ConnId, failure: Failure) {
        let stats = self.stats();
        let counter = match failure {
            Failure::Cleartext => &stats.tls_failed_cleartext,
            Failure::Alert(_) => &stats.tls_failed_alert,
            Failure::Incompatible => &stats.tls_failed_incompatible,
            Failure::Violation => &stats.tls_failed_violation,
        };
        counter.add(1);
        if let (Failure::Alert(alert), Some(tls)) = (failure, &self.shared.tls) {
            tls.alerts.count(alert);
        }
        let Some(conn) = self.conns.get(id).filter(|conn| conn.state < State::Closing) else { return };
        if failure == Failure::Cleartext {
            // Nothing was sent yet: the answer is in the client's own language.
            conn.flags.clear(Flags::TLS);
            self.secure.streams.remove(&id);
            let refusal = Refusal::new(400, "This port speaks TLS: use https:// or wss://.");
            return self.refuse(id, &Rejection::Malformed(refusal));
        }
        if let Some(extra) = &mut conn.extra {
            extra.outbox.take();
        }
        self.unsubscribe_all(id);
        self.finish(id, Reason::Tls);
    }

    /// Sends what TLS itself has to say, before anything else. Returns whether nothing else may be sent now.
    pub(super) fn flush_tls(&mut self, id: ConnId) -> bool {
        let Some(stream) = self.secure.stream(id) else { return false };
        if stream.has_output() {
            let mut sealed = Buffer::new(&self.account, Held::Outboxes);
            sealed.edit(|out| stream.output(out));
            self.send_as_it_is(id, Gather::one(sealed.share()));
            return true;
        }
        if !stream.is_handshaking() {
            return false;
        }
        if self.conns.get(id).is_some_and(|conn| conn.state == State::Closing) {
            // Nothing can be encrypted for it yet.
            self.abort(id, Reason::Tls);
        }
        true
    }

    /// Sends `gather` encrypted.
    pub(super) fn send_sealed(&mut self, id: ConnId, gather: &Gather) {
        let Some(stream) = self.secure.stream(id) else { return };
        let mut sealed = Buffer::new(&self.account, Held::Outboxes);
        sealed.edit(|out| stream.seal(gather.parts(), out));
        if sealed.is_empty() {
            // It has failed: its end is on its way.
            return self.make_ready(id);
        }
        self.send_as_it_is(id, Gather::one(sealed.share()));
    }

    /// Says that nothing more is sent (`close_notify`), once. Returns whether that is on its way.
    pub(super) fn say_end(&mut self, id: ConnId) -> bool {
        let Some(stream) = self.secure.stream(id) else { return false };
        stream.close() && self.flush_tls(id)
    }

    /// The connection is gone.
    pub(super) fn forget_tls(&mut self, id: ConnId) {
        self.secure.streams.remove(&id);
    }
}
