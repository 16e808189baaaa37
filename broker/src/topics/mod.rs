//! Topics: their names ([`registry`], hashed under [`keys`]) and the filters that match them ([`filters`],
//! [`mod@matches`]). No sockets and no connections here.

pub mod filters;
pub mod keys;
pub mod matches;
mod refusing;
pub mod registry;
pub mod rules;
