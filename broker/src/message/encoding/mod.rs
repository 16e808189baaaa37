//! What subscribers of one kind are sent of a message: whole frames, made by one file per encoding, once, when the first
//! subscriber of that kind is sent the message, and shared by reference with all others.
//!
//! | file | for |
//! | --- | --- |
//! | `raw` | `/sub` and `/bus`: the payload in one frame |
//! | `json` | `/ws`: the `ringyard.v1` envelope |
//! | [`events`] | `/sub` over HTTP: server-sent events |
//! | [`notice`] | what is said beside messages, in each of these |
//!
//! A new encoding is a file with a function, its variant of [`Encoding`], and its line in `Encoding::encode`.

pub mod events;
mod json;
pub mod notice;
mod raw;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::capacity::budget::Account;
use crate::message::Message;
use crate::message::encoding::events::EventForm;

/// Which bytes a subscriber wants of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// The payload in one WebSocket frame (`/sub`, `/bus`).
    Raw,
    /// The `ringyard.v1` envelope in one WebSocket text frame (`/ws`).
    Json,
    /// The same of a message that is part of a topic's state.
    JsonState,
    /// A server-sent event (`/sub` over HTTP).
    Events(EventForm),
}

impl Encoding {
    fn encode(self, message: &Message, account: &Arc<Account>) -> Encoded {
        match self {
            Self::Raw => Encoded::Part(raw::frame(message)),
            Self::Json => Encoded::Made(json::frame(message, false, account)),
            Self::JsonState => Encoded::Made(json::frame(message, true, account)),
            Self::Events(form) => Encoded::Made(events::frame(message, form, account)),
        }
    }

    /// What subscribers with this encoding are sent of a message that is part of a topic's state.
    #[must_use]
    pub fn of_state(self) -> Self {
        match self {
            Self::Raw => Self::Raw,
            Self::Json | Self::JsonState => Self::JsonState,
            Self::Events(form) => Self::Events(EventForm { is_state: true, ..form }),
        }
    }

    /// Whether it may stay with the message. State may be kept for long: it is not to be kept twice.
    fn is_kept(self) -> bool {
        !matches!(self, Self::JsonState | Self::Events(EventForm { is_state: true, .. }))
    }

    /// What to send of `message`, charged to `account` if it has to be made. What was made stays with the message if
    /// `keep`; without, when memory is short, it lasts as long as its send.
    pub(super) fn bytes(self, message: &Message, kept: &Kept, account: &Arc<Account>, keep: bool) -> Bytes {
        if let Some(bytes) = kept.get(self) {
            return bytes.clone();
        }
        match self.encode(message, account) {
            Encoded::Made(bytes) if keep && self.is_kept() => kept.keep(self, bytes).clone(),
            Encoded::Part(bytes) | Encoded::Made(bytes) => bytes,
        }
    }
}

/// An encoding's bytes.
enum Encoded {
    /// Part of the message itself.
    Part(Bytes),
    /// Made for this encoding.
    Made(Bytes),
}

/// Encodings that were made of a message: a list that only grows, and that takes one word while it is empty.
#[derive(Default, Debug)]
pub(super) struct Kept(OnceLock<Box<Node>>);

#[derive(Debug)]
struct Node {
    encoding: Encoding,
    bytes: Bytes,
    next: Kept,
}

impl Kept {
    fn get(&self, encoding: Encoding) -> Option<&Bytes> {
        let node = self.0.get()?;
        if node.encoding == encoding { Some(&node.bytes) } else { node.next.get(encoding) }
    }

    /// Adds an encoding. If another thread was faster, its bytes are those that stay, and are returned.
    fn keep(&self, encoding: Encoding, bytes: Bytes) -> &Bytes {
        let mut list = self;
        loop {
            let node = list.0.get_or_init(|| Box::new(Node { encoding, bytes: bytes.clone(), next: Self::default() }));
            if node.encoding == encoding {
                return &node.bytes;
            }
            list = &node.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::v1::PayloadKind;

    use super::*;
    use crate::capacity::budget::{Budget, Held};
    use crate::ids::{Offset, TopicId};
    use crate::message::Payload;

    fn message(budget: &Budget) -> Message {
        let payload = Payload::copy_of(PayloadKind::Text, b"hello", budget.of_shard(0));
        Message::new((TopicId(1), "t".into()), Offset(7), payload, 0)
    }

    #[test]
    fn an_encoding_is_made_once_and_charged_while_it_is_kept() {
        let budget = Budget::new(1, 1 << 20);
        let message = message(&budget);
        let before = budget.held(Held::Messages);
        let account = budget.of_shard(0);
        let raw = message.frame(Encoding::Raw, account, true);
        assert_eq!(&raw[..], b"\x81\x05hello");
        assert_eq!(budget.held(Held::Messages), before, "part of the message");
        let short = message.frame(Encoding::Json, account, false);
        assert!(budget.held(Held::Messages) > before);
        drop(short);
        assert_eq!(budget.held(Held::Messages), before, "not kept");
        let (first, second) =
            (message.frame(Encoding::Json, account, true), message.frame(Encoding::Json, account, false));
        assert_eq!(first.as_ptr(), second.as_ptr(), "made once");
        drop((first, second));
        assert!(budget.held(Held::Messages) > before, "kept");
        drop((message, raw));
        assert_eq!(budget.held(Held::Messages), 0);
    }

    #[test]
    fn threads_that_make_the_same_encoding_share_one() {
        let budget = Budget::new(1, 1 << 20);
        for _ in 0..200 {
            let message = message(&budget);
            let pointers: Vec<usize> = std::thread::scope(|threads| {
                let make = || message.frame(Encoding::Json, budget.of_shard(0), true).as_ptr().addr();
                let handles = [threads.spawn(make), threads.spawn(make)];
                handles.map(|handle| handle.join().unwrap()).into()
            });
            assert_eq!(pointers[0], pointers[1]);
        }
    }

    #[test]
    fn kept_encodings_are_distinguished_in_whatever_order_they_came() {
        for order in [[Encoding::Raw, Encoding::Json], [Encoding::Json, Encoding::Raw]] {
            let kept = Kept::default();
            for encoding in order {
                assert_eq!(kept.get(encoding), None);
                kept.keep(encoding, Bytes::from(format!("{encoding:?}")));
                assert_eq!(kept.keep(encoding, Bytes::from_static(b"too late")), &format!("{encoding:?}"));
            }
            for encoding in order {
                assert_eq!(kept.get(encoding).unwrap(), &format!("{encoding:?}"));
            }
        }
    }
}
