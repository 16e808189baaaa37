//! From where connections come, for operators who want to find one of those that are furthest behind.
//!
//! The driver is asked for each address, and a question is answered once all of its are known. A connection that ends
//! meanwhile has none. Bound: an operator asks one question at a time, of [`SLOWEST_MAX`] connections at most.
//!
//! Not responsible for whose address counts as which client (`transport/client_address.rs`): behind a proxy this is the
//! proxy's.

use std::net::SocketAddr;

use ring::{ConnId, Driver};
use tokio::sync::oneshot;

use crate::shard::Shard;
use crate::shard::shared::SLOWEST_MAX;
use crate::shard::transport::connection::State;

/// Questions that wait for the driver.
#[derive(Default, Debug)]
pub(super) struct PeerQuestions(Vec<PeerQuestion>);

#[derive(Debug)]
struct PeerQuestion {
    /// Those that were asked for, with what is known.
    peers: Vec<(ConnId, Peer)>,
    answer: oneshot::Sender<Vec<Option<SocketAddr>>>,
}

#[derive(Clone, Copy, Debug)]
enum Peer {
    Asked,
    Known(Option<SocketAddr>),
}

impl PeerQuestions {
    /// The driver says where a connection comes from, or the connection has ended.
    pub(super) fn on_peer(&mut self, id: ConnId, address: Option<SocketAddr>) {
        if self.0.is_empty() {
            return;
        }
        for question in &mut self.0 {
            for (_, peer) in question.peers.iter_mut().filter(|(conn, peer)| *conn == id && matches!(peer, Peer::Asked))
            {
                *peer = Peer::Known(address);
            }
        }
        self.answer_complete();
    }

    fn answer_complete(&mut self) {
        for question in std::mem::take(&mut self.0) {
            let known = |(_, peer): &(ConnId, Peer)| match peer {
                Peer::Asked => None,
                Peer::Known(address) => Some(*address),
            };
            match question.peers.iter().map(known).collect::<Option<Vec<_>>>() {
                // Who asked may have given up.
                Some(addresses) => drop(question.answer.send(addresses)),
                None => self.0.push(question),
            }
        }
    }
}

impl<D: Driver> Shard<D> {
    /// Finds out from where these connections come.
    pub(super) fn find_peers(&mut self, conns: &[ConnId], answer: oneshot::Sender<Vec<Option<SocketAddr>>>) {
        let mut peers = Vec::with_capacity(conns.len().min(SLOWEST_MAX));
        for &id in conns.iter().take(SLOWEST_MAX) {
            let lives = self.conns.get(id).is_some_and(|conn| conn.state != State::Gone);
            if lives {
                self.driver.peer(id);
            }
            peers.push((id, if lives { Peer::Asked } else { Peer::Known(None) }));
        }
        self.peer_questions.0.push(PeerQuestion { peers, answer });
        self.peer_questions.answer_complete();
    }
}
