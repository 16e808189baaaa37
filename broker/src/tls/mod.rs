//! TLS for connections of the port `--tls-listen`: certificates, and one state machine per connection.
//!
//! | file | what it is |
//! | --- | --- |
//! | `alerts` | what clients said when they gave up |
//! | `certificates` | the files of `[[tls]]`: read and checked |
//! | `expiry` | when a certificate ends, read from its DER |
//! | `in_force` | the pairs in force: chosen by name, replaced one by one |
//! | `server` | what all connections share: versions, tickets, the certificates in force |
//! | `stream` | one connection: ciphertext in, plaintext out, and back |
//! | `tickets` | the keys of tickets |
//!
//! The only module that names the TLS library's types. It has no sockets and no clock but the library's own: shards feed what
//! they receive and send what they are given.

pub mod alerts;
pub mod certificates;
mod expiry;
pub mod in_force;
pub mod server;
pub mod stream;
#[cfg(test)]
mod tests;
mod tickets;
