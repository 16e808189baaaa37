//! What a connection is sent of topics' histories: state, replayed messages, and what is said about them. It goes out before
//! anything that waits for the connection in logs.
//!
//! Messages are here by reference. Frames are made send by send, so a backlog takes a word per message however long they are;
//! state that many newcomers are shown at once is made into frames once for all of them ([`Frames`]).
//!
//! Not responsible for what is in it (`recall`).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use ring::Gather;

use crate::capacity::budget::{Account, Charge, Held};
use crate::message::{Encoding, Message};
use crate::shard::fanout::parts::{COPY_BYTES_MAX, Parts, Thrift};

/// Frames of a list of messages, each part long enough to be a send of its own.
pub(in crate::shard) type Frames = Arc<[Bytes]>;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Backlog {
    items: VecDeque<Item>,
    /// What its messages weigh: they may be kept for this connection alone.
    bytes: u64,
    charge: Charge,
}

/// Part of a backlog.
#[derive(Debug)]
pub(in crate::shard) enum Item {
    /// One frame.
    Frame(Bytes),
    /// Messages from the first on, in this encoding.
    Messages(VecDeque<Arc<Message>>, Encoding),
    /// Frames that are shared, from this one on.
    Frames(Frames, usize),
}

impl Backlog {
    pub(in crate::shard) fn new(account: &Arc<Account>) -> Self {
        Self { items: VecDeque::new(), bytes: 0, charge: Charge::new(account, Held::Outboxes, 0) }
    }

    pub(in crate::shard) fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
        self.recharge();
    }

    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What it keeps, in bytes: with its messages, which may be kept for others as well.
    pub(in crate::shard) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next send.
    pub(in crate::shard) fn take(&mut self, account: &Arc<Account>, thrift: Thrift) -> Option<Gather> {
        let mut parts = Parts::new(thrift);
        while let Some(item) = self.items.front_mut() {
            let before = item.bytes();
            let is_over = item.take(&mut parts, account);
            self.bytes -= before - item.bytes();
            if !is_over {
                break;
            }
            self.items.pop_front();
        }
        self.recharge();
        (!parts.is_empty()).then(|| parts.coalesce(COPY_BYTES_MAX, account))
    }

    fn recharge(&mut self) {
        let lists = self.items.iter().map(|item| match item {
            Item::Messages(messages, _) => messages.capacity() * size_of::<Arc<Message>>(),
            Item::Frame(frame) => frame.len(),
            Item::Frames(..) => 0,
        });
        self.charge.resize((lists.sum::<usize>() + self.items.capacity() * size_of::<Item>()) as u64);
    }
}

impl Item {
    /// What it keeps.
    pub(in crate::shard) fn bytes(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.len() as u64,
            Self::Messages(messages, _) => messages.iter().map(|message| message.weight()).sum(),
            Self::Frames(..) => 0,
        }
    }

    /// Adds as much as fits to a send. Whether that was all.
    fn take(&mut self, parts: &mut Parts, account: &Arc<Account>) -> bool {
        match self {
            Self::Frame(frame) => parts.push(frame.clone()),
            Self::Messages(messages, encoding) => {
                let passed = parts.fill(messages.iter(), *encoding, account, |_| true);
                messages.drain(..passed as usize);
                messages.is_empty()
            }
            Self::Frames(frames, at) => {
                while *at < frames.len() && parts.push(frames[*at].clone()) {
                    *at += 1;
                }
                *at == frames.len()
            }
        }
    }
}
