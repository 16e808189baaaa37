//! A connection between its socket and its session.
//!
//! | file | step |
//! | --- | --- |
//! | `accept` | connections come in |
//! | `client_address` | whose they are: addresses, trusted proxies, connections per address |
//! | `handshake` | a request head becomes a WebSocket, a refusal, or an HTTP request |
//! | `connection`, `flags` | what is known of one connection |
//! | `ingress`, `assembly` | frames become messages; messages that arrive in pieces |
//! | `http`, `http_places` | an HTTP connection whose single publishes are answered here |
//! | `secure`, `bridge` | TLS; a TLS connection that the control plane serves through its shard |
//! | `pause`, `kept_input` | input that has to wait, and how much of it may |
//! | `for_keys` | tokens that wait for keys that are being fetched |
//! | `held` | a command that waits |
//! | `heaviest` | which connection gives memory back |
//! | `egress` | what a connection is sent |
//! | `timers`, `deadlines` | deadlines and pings |
//! | `close` | the ways a connection ends |

pub(crate) mod accept;
pub(crate) mod assembly;
mod bridge;
pub(crate) mod client_address;
pub(crate) mod close;
pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod egress;
mod flags;
pub(crate) mod for_keys;
pub(crate) mod handshake;
mod heaviest;
pub(crate) mod held;
pub(crate) mod http;
pub(crate) mod http_places;
pub(crate) mod ingress;
mod kept_input;
pub(crate) mod pause;
pub(crate) mod secure;
pub(crate) mod timers;
