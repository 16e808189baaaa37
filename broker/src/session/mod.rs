//! What a connection subscribes to, apart from its socket.

pub(crate) mod index;
pub(crate) mod v1;
