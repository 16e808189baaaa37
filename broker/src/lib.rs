//! Ringyard's broker. The way of a message through it, from socket to socket:
//!
//! | step | file |
//! | --- | --- |
//! | a connection is accepted and upgraded | `shard/transport/accept.rs`, `shard/transport/handshake.rs` |
//! | its frames become publishes and commands | `shard/transport/ingress.rs`, `shard/commands.rs` |
//! | the topic's sequencer gives each message its offset | `shard/mailbox.rs`, `sequencer.rs` |
//! | every shard with subscribers appends it to the topic's log | `shard/fanout/append.rs`, `shard/fanout/log.rs` |
//! | a delivery round sends each subscriber all that is pending | `shard/fanout/deliver.rs` |
//! | the connection closes once the kernel is done with it | `shard/transport/close.rs` |
//!
//! Requests that are not WebSocket handshakes go, with their sockets, to [`http`]. The direction of imports is checked
//! by a test (`broker/tests/structure.rs`): `message <- topics <- sequencer <- session <- shard <- http <- server`;
//! [`access`], [`capacity`], [`config`] and [`observe`] stand beside them.

pub mod access;
pub mod capacity;
pub mod config;
pub mod http;
pub mod ids;
pub mod message;
pub mod observe;
pub mod sequencer;
pub mod server;
pub mod session;
pub mod shard;
pub mod topics;
