//! What sessions want done about requests: see `shard/calls.rs`.

use protocol::v1::{Id, PayloadKind, Reply};

/// A part of [`Action`](crate::session::Action).
#[derive(Debug)]
pub(crate) enum CallAction<'a> {
    /// Ask whoever serves a topic.
    Request(Ask<'a>),
    /// Serve topics, or do so no longer.
    Respond { id: Option<Id>, filter: &'a str, end: bool },
    /// Answer a request.
    Reply { id: Option<Id>, reply: u64, answer: Reply<'a> },
}

/// A request: what is asked for, and how.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) id: Option<Id>,
    pub(crate) topic: &'a str,
    pub(crate) kind: PayloadKind,
    pub(crate) data: &'a [u8],
    pub(crate) timeout_ms: u32,
    /// Only this member may answer.
    pub(crate) to: Option<&'a str>,
}
