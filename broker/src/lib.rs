//! Ringyard's broker. The way of a message through it, from socket to socket:
//!
//! | step | file |
//! | --- | --- |
//! | a connection is accepted and upgraded | `shard/transport/accept.rs`, `shard/transport/handshake.rs` |
//! | its frames become whole messages | `shard/transport/ingress.rs`, `shard/transport/assembly.rs` |
//! | the session says what a message asks for | `session/raw.rs`, `session/v1/commands.rs` |
//! | the shard carries it out: publish, subscribe, unsubscribe | `shard/actions.rs`, `shard/subscribe.rs` |
//! | the topic's sequencer gives each published message its offset | `shard/mailbox.rs`, `sequencer.rs` |
//! | every shard with subscribers appends it to the logs that it belongs to | `shard/fanout/append.rs`, `shard/fanout/log.rs` |
//! | a delivery round sends each subscriber all that is pending | `shard/fanout/deliver.rs`, `shard/fanout/take.rs` |
//! | in the bytes that its kind of session wants | `message/encoding` |
//! | the connection closes once the kernel is done with it | `shard/transport/close.rs` |
//!
//! A single publish over HTTP is answered by the shard (`shard/transport/http.rs`, `shard/requests.rs`). Other requests that
//! are not WebSocket handshakes go, with their sockets, to [`http`]. The direction of imports is checked
//! by a test (`broker/tests/structure.rs`): `message <- topics <- sequencer <- publishing <- session <- shard <- http <- server`;
//! [`access`], [`capacity`], [`config`], [`ids`], [`observe`] and [`tls`] stand beside them. More: `broker/ARCHITECTURE.md`.

pub mod access;
pub mod capacity;
pub mod config;
pub mod http;
pub mod ids;
pub mod message;
pub mod observe;
pub mod presence;
pub mod publishing;
pub mod sequencer;
pub mod server;
pub(crate) mod session;
pub mod shard;
pub mod tls;
pub mod topics;
