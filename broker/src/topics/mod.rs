//! Topics: their names ([`registry`]), their messages ([`message`]), their order ([`home`]) and what a
//! shard keeps of them for its subscribers ([`log`]). No sockets and no connections here.

pub mod home;
pub mod log;
pub mod message;
pub mod registry;
