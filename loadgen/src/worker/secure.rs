//! TLS between the sockets and everything else here: what comes is decrypted before anybody looks at it, and what goes out is
//! encrypted when the socket is free.
//!
//! Outboxes hold plain bytes. What a session itself has to say (its handshake, answers to key updates) waits in it while a
//! send is in flight, and goes with the next one. Without TLS there are no sessions, and nothing here costs more than
//! looking at an empty list.

use ring::Dial;

use super::Worker;
use super::tally::TlsPart;
use crate::plan::Plan;
use crate::tls::{ServerName, Session, Tls};

/// The sessions of a worker's connections.
pub(super) struct Secure {
    tls: Option<Tls>,
    /// By client; empty without TLS.
    sessions: Vec<Option<Box<Session>>>,
    /// Scratch: what the bytes of one receive contained.
    plain: Vec<u8>,
}

/// Scratch that is kept, in bytes.
const PLAIN_MAX: usize = 64 << 10;

impl Secure {
    pub(super) fn new(plan: &Plan, clients: usize) -> Self {
        let mut sessions = Vec::new();
        if plan.tls.is_some() {
            sessions.resize_with(clients, || None);
        }
        Self { tls: plan.tls.clone(), sessions, plain: Vec::new() }
    }

    pub(super) fn begin(&mut self, at: u32, name: &ServerName<'static>) -> anyhow::Result<()> {
        let tls = self.tls.as_ref().expect("made for such addresses");
        self.sessions[at as usize] = Some(Box::new(tls.session(name)?));
        Ok(())
    }

    pub(super) fn end(&mut self, at: u32) {
        if let Some(session) = self.sessions.get_mut(at as usize) {
            *session = None;
        }
    }

    pub(super) fn has(&self, at: u32) -> bool {
        self.sessions.get(at as usize).is_some_and(Option::is_some)
    }

    /// What to send for these bytes, and before them.
    pub(super) fn seal(&mut self, at: u32, bytes: Vec<u8>) -> Vec<u8> {
        let Some(Some(session)) = self.sessions.get_mut(at as usize) else { return bytes };
        session.seal(&bytes);
        // A record of up to 16 KiB has 22 bytes of header and tag.
        let mut out = Vec::with_capacity(bytes.len() + (bytes.len() / (16 << 10) + 1) * 22);
        session.output(&mut out);
        out
    }
}

impl<D: Dial> Worker<D> {
    /// Bytes of a socket.
    pub(super) fn on_bytes(&mut self, at: u32, bytes: &[u8]) {
        let Some(Some(session)) = self.secure.sessions.get_mut(at as usize) else {
            return self.on_received(at, bytes);
        };
        let mut plain = std::mem::take(&mut self.secure.plain);
        let received = session.receive(bytes, &mut plain);
        if let Some(handshake) = session.handshake() {
            let began = self.opening.get(&at).map_or(0, |opening| opening.asked());
            let took = crate::clock::monotonic().saturating_sub(began).max(1);
            let part = self.tally.tls.get_or_insert_with(|| Box::new(TlsPart::new()));
            *part.handshakes.entry((handshake.version, handshake.resumed)).or_default() += 1;
            part.took.saturating_record(took);
        }
        if !self.clients[at as usize].sending {
            self.transmit(at, Vec::new());
        }
        if plain.is_empty() {
            self.tally.counts.receives += 1;
        } else {
            self.on_received(at, &plain);
        }
        plain.clear();
        plain.shrink_to(PLAIN_MAX);
        self.secure.plain = plain;
        match received {
            Ok(true) => {}
            Ok(false) => self.on_lost(at, 1006, "closed without an answer"),
            Err(why) => self.on_broken(at, why),
        }
    }
}
