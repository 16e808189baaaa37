//! The protocols that are measured.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How messages come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// A request every so often
    ShortPoll,
    /// A request that is answered when there is something
    LongPoll,
    /// Server-sent events
    Sse,
    /// A WebSocket without a sub-protocol
    Raw,
    /// A WebSocket with ringyard.v1
    V1,
}

impl Protocol {
    /// As tables call it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::ShortPoll => "short poll",
            Self::LongPoll => "long poll",
            Self::Sse => "SSE",
            Self::Raw => "WebSocket, raw",
            Self::V1 => "WebSocket, ringyard.v1",
        }
    }
}
