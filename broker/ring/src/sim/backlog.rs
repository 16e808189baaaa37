//! Clients that connected and were not accepted yet; where the accept is, and whether it was notified of them.

use std::collections::VecDeque;

use super::ClientId;

/// Where a driver's accept is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    Idle,
    Called,
    Running,
    /// Over, but not reported yet.
    Ended,
}

#[derive(Default)]
pub(super) struct Backlog {
    clients: VecDeque<ClientId>,
    /// The newest came without a notification: an accept that waits goes on waiting.
    is_unnoticed: bool,
}

impl Backlog {
    /// A client connects. Not `notifies`: somebody else who accepts from the same listener was notified.
    pub(super) fn push(&mut self, client: ClientId, notifies: bool) {
        self.is_unnoticed = !notifies;
        self.clients.push_back(client);
    }

    /// An accept begins: it looks before it waits.
    pub(super) fn look(&mut self) {
        self.is_unnoticed = false;
    }

    /// Whether an accept that is under way finds somebody.
    pub(super) fn is_ready(&self) -> bool {
        !self.clients.is_empty() && !self.is_unnoticed
    }

    pub(super) fn pop(&mut self) -> Option<ClientId> {
        self.clients.pop_front()
    }
}
