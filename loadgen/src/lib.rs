//! A load generator for WebSocket brokers: hundreds of thousands of clients, each of which checks what it receives.
//!
//! It must cost less per message than the server it judges: io_uring all through, connections in direct descriptors,
//! several rings, bytes thrown away in the kernel where nobody needs to look at them. Where it was the limit itself, it
//! says so.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`command`] | the command: arguments, files, exit status |
//! | [`options`] | the command line and the TOML file; scenarios |
//! | `plan` | who does what: clients, publishers, streams, topics, workers |
//! | `machine` | whether this machine can hold that, said before the run |
//! | [`run()`] | one run, from the first connection to the outcome |
//! | `worker` | one thread, one ring, its share of the connections |
//! | [`adapter`] | wire protocols, without I/O |
//! | `frame` | the header of a server's WebSocket frame |
//! | [`client`] | one plain connection, for tools and tests |
//! | [`stamp`] | what a message carries: stream, number, time, filler |
//! | [`usage`] | what processes use of processor and memory |
//! | [`outcome`] | everything a run saw |
//! | [`merge`], [`verdict`], [`threshold`] | several outcomes as one; what was lost; what is a failure |
//! | [`progress`] | what the terminal shows while it runs |
//! | [`results`], [`plot`], [`format`](mod@format) | the table and the page at the end; plots; numbers as text |
//!
//! It knows nothing of the broker's code, only of its wire protocol and of the ring under both, so that it can judge.

pub mod adapter;
pub mod client;
mod clock;
pub mod command;
pub mod format;
mod frame;
mod machine;
pub mod merge;
pub mod options;
pub mod outcome;
mod plan;
pub mod plot;
pub mod progress;
pub mod results;
mod run;
#[cfg(test)]
mod sample;
pub mod series;
pub mod stamp;
pub mod threshold;
pub mod usage;
pub mod verdict;
mod worker;

pub use options::Options;
pub use outcome::Outcome;
pub use run::{Interrupt, run};
