//! What a sequencer knows of one topic.

use ring::Nanos;

use crate::ids::{Epoch, Offset, TopicId};
use crate::sequencer::history::History;
use crate::sequencer::ledger::Listed;
use crate::sequencer::wanted::Wanted;
use crate::topics::registry::TopicRef;
use crate::topics::rules::RuleId;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) topic: TopicRef,
    pub(super) epoch: Epoch,
    /// The offset of its next message.
    pub(super) next: Offset,
    pub(super) wanted: Wanted,
    pub(super) used_at: Nanos,
    /// What it remembers.
    pub(super) history: History,
    pub(super) rule: RuleId,
    /// Whether the list of topics that nobody has joined has an entry for it.
    pub(super) may_be_forgotten: bool,
    /// The version of the rules that `rule` is of.
    pub(super) rule_version: u32,
    /// On which of the ledger's lists it is.
    pub(super) listed: Listed,
    /// Whether the list of topics with state has it.
    pub(super) is_stateful: bool,
}

const _: () = assert!(size_of::<Topic>() <= 96, "there may be millions");

impl Topic {
    pub(super) fn new(topic: TopicRef, epoch: Epoch) -> Self {
        Self {
            topic,
            epoch,
            next: Offset(1),
            wanted: Wanted::default(),
            used_at: 0,
            history: History::default(),
            rule: RuleId::default(),
            may_be_forgotten: false,
            rule_version: 0,
            listed: Listed::default(),
            is_stateful: false,
        }
    }

    pub(super) fn id(&self) -> TopicId {
        self.topic.id
    }

    /// Whether it has something that newcomers are shown.
    pub(super) fn has_state(&self) -> bool {
        self.history.has_state()
    }
}
