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
use crate::ids::Seq;
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
    /// What its items take besides themselves and their messages.
    lists_bytes: u64,
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
        Self { items: VecDeque::new(), bytes: 0, lists_bytes: 0, charge: Charge::new(account, Held::Outboxes, 0) }
    }

    pub(in crate::shard) fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.lists_bytes += item.list_bytes();
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

    /// Every message in it, for the audit.
    pub(in crate::shard) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        let lists = self.items.iter().filter_map(|item| match item {
            Item::Messages(messages, _) => Some(messages),
            Item::Frame(_) | Item::Frames(..) => None,
        });
        lists.flatten()
    }

    /// The next send.
    pub(in crate::shard) fn take(&mut self, account: &Arc<Account>, thrift: Thrift) -> Option<Gather> {
        let mut parts = Parts::new(thrift);
        while let Some(item) = self.items.front_mut() {
            let (is_over, taken) = item.take(&mut parts, account);
            self.bytes -= taken;
            if !is_over {
                break;
            }
            self.lists_bytes -= item.list_bytes();
            self.items.pop_front();
        }
        self.recharge();
        (!parts.is_empty()).then(|| parts.coalesce(COPY_BYTES_MAX, account))
    }

    fn recharge(&mut self) {
        self.charge.resize(self.lists_bytes + (self.items.capacity() * size_of::<Item>()) as u64);
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

    /// What it takes besides itself and its messages; the same until it is over.
    fn list_bytes(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.len() as u64,
            Self::Messages(messages, _) => (messages.capacity() * size_of::<Arc<Message>>()) as u64,
            Self::Frames(..) => 0,
        }
    }

    /// Adds as much as fits to a send. Whether that was all, and how many bytes it keeps less.
    fn take(&mut self, parts: &mut Parts, account: &Arc<Account>) -> (bool, u64) {
        match self {
            Self::Frame(frame) => match parts.push(frame.clone()) {
                true => (true, frame.len() as u64),
                false => (false, 0),
            },
            Self::Messages(messages, encoding) => {
                let messages_with_places = messages.iter().map(|message| (Seq::default(), message));
                let passed = parts.fill(messages_with_places, *encoding, account, |_| true).passed;
                let taken = messages.drain(..passed as usize).map(|message| message.weight()).sum();
                (messages.is_empty(), taken)
            }
            Self::Frames(frames, at) => {
                while *at < frames.len() && parts.push(frames[*at].clone()) {
                    *at += 1;
                }
                (*at == frames.len(), 0)
            }
        }
    }
}
