//! Topics: their names ([`registry`], hashed under [`keys`]), the filters that match them ([`filters`], [`mod@matches`]),
//! their messages ([`message`]), their order ([`sequencer`]) and what a shard keeps of them for its subscribers ([`log`]).
//! No sockets and no connections here.

pub mod filters;
pub mod keys;
pub mod matches;
pub mod registry;
