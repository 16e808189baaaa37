//! Ringyard's broker. A message's way through it, socket to socket:
//!
//! | step | file |
//! | --- | --- |
//! | a connection is accepted and upgraded | `shard/accept.rs`, `shard/handshake.rs` |
//! | its frames become publishes and commands | `shard/ingress.rs`, `shard/commands.rs` |
//! | the topic's sequencer gives each message its offset | `topics/sequencer.rs` |
//! | every shard with subscribers appends it to the topic's log | `topics/log.rs` |
//! | a sweep sends each subscriber all that waits for it | `shard/deliver.rs` |
//! | the connection closes, as a join | `shard/close.rs` |
//!
//! What is no WebSocket goes, with its socket, to [`control`]. Imports go one way:
//! `ring` <- [`limits`], [`topics`] <- [`shard`] <- [`control`] <- `main`.

pub mod access;
pub mod capacity;
pub mod config;
pub mod http;
pub mod message;
pub mod observe;
pub mod sequencer;
pub mod server;
pub mod session;
pub mod shard;
pub mod topics;
