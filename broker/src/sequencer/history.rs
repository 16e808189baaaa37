//! What one topic remembers: a window of its newest messages or the newest message of each key, a retained message, a
//! snapshot, and the idempotency keys of its last publishes. The topic's [`Rule`] says how much.
//!
//! | file | what |
//! | --- | --- |
//! | `window` | the newest messages |
//! | `keyed` | the newest message of each key, and which keys were removed |
//! | `recent` | idempotency keys |
//! | `recall` | what a subscriber is given of all that |
//!
//! Messages are shared by reference: with the logs that deliver them, and with the connections that replay them. So what was
//! given to somebody stays whole for them, whatever is forgotten here meanwhile.
//!
//! Not responsible for the bound over all topics ([`ledger`](crate::sequencer::ledger)), nor for who is sent what.
//!
//! Invariants ([`History::invariants`]): offsets ascend in the window, without gaps up to the topic's newest message; `bytes` is
//! what window and state weigh.

pub(super) mod keyed;
pub(super) mod recall;
mod recent;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use ring::Nanos;

use crate::ids::Offset;
use crate::message::Message;
use crate::message::options::{Expected, PublishOptions};
use crate::sequencer::history::keyed::KeyedState;
use crate::sequencer::history::recent::Recent;
use crate::sequencer::history::window::Window;
use crate::shard_time::nanos;
use crate::topics::keys::Keys;
use crate::topics::rules::{self, Retain, Rule};
