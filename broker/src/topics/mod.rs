//! Topics: their names ([`registry`]), the filters that match them ([`filters`]), their messages ([`message`]),
//! their order ([`home`]) and what a shard keeps of them for its subscribers ([`log`]). No sockets and no
//! connections here.

pub mod filters;
pub mod home;
pub mod log;
pub mod message;
pub mod registry;
