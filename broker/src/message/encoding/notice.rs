//! What subscribers learn about a topic beside its messages, in the encoding of those. Raw subscribers learn nothing: their wire
//! has no envelope.

use bytes::BytesMut;
use protocol::frame::{Opcode, put_frame};
use protocol::v1::{GapReason, Position, write_gap, write_state_end};

use crate::message::Encoding;

/// See the file's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice<'a> {
    /// These messages will not come.
    Gap {
        /// Of which topic.
        topic: &'a str,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// All of the state was sent.
    StateEnd {
        /// Of which topic or filter.
        topic: &'a str,
        /// As of where; `None`: of a filter.
        place: Option<Position>,
    },
}

impl Notice<'_> {
    /// What the event is called.
    fn name(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::StateEnd { .. } => "state-end",
        }
    }

    /// Where who has it stands, if it says that.
    fn place(&self) -> Option<Position> {
        match self {
            Self::Gap { .. } => None,
            Self::StateEnd { place, .. } => *place,
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match *self {
            Self::Gap { topic, from, to, reason } => write_gap(out, topic, from, to, reason),
            Self::StateEnd { topic, place } => write_state_end(out, topic, place.map(|place| place.offset)),
        }
    }
}

impl Encoding {
    /// Appends a notice, if this encoding has any.
    pub fn put_notice(self, notice: &Notice<'_>, out: &mut BytesMut) {
        let mut text = BytesMut::new();
        match self {
            Self::Raw => {}
            Self::Json | Self::JsonState => {
                notice.write(&mut text);
                put_frame(out, Opcode::Text, &text);
            }
            Self::Events(form) => {
                notice.write(&mut text);
                form.put_event(out, Some(notice.name()), notice.place(), &text);
            }
        }
    }
}
