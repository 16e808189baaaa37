//! A load generator for WebSocket brokers: hundreds of thousands of clients, each of which checks what it receives.
//!
//! It must need less processor time per message than the server that it judges: io_uring throughout, connections in direct
//! descriptors, several rings, and bytes discarded in the kernel where no client looks at them. A run in which the load
//! generator itself was the limit is marked.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`command`] | the program: arguments, files, exit status |
//! | [`options`] | the command line and the TOML file; scenarios |
//! | `plan` | which client, publisher and stream belongs to which topic and worker |
//! | `machine` | whether this machine can hold the run |
//! | [`run()`] | one run, from the first connection to the outcome |
//! | `worker` | one thread, one ring, its share of the connections |
//! | [`adapter`] | wire protocols, without I/O |
//! | `frame` | the header of a server's WebSocket frame |
//! | [`history`] | what a client may rely on when a topic remembers: offsets, recovery, conflation |
//! | [`calls`] | pairs of a connection that asks and one that answers |
//! | [`crowd`] | members who enter before watchers |
//! | [`client`] | one plain connection, for tools and tests |
//! | [`token`] | the tokens with which connections log in |
//! | [`tls`] | TLS of the client's side, without I/O |
//! | [`stamp`] | the payload of a message: stream, number, time, filler |
//! | [`usage`] | processor time and memory of processes |
//! | [`outcome`] | everything that a run observed |
//! | [`merge`], [`verdict`], [`threshold`] | several outcomes as one; what was lost; `--fail-if` |
//! | [`progress`] | what the terminal shows while it runs |
//! | [`results`], [`plot`], [`format`](mod@format) | the table and the page at the end; plots; numbers as text |
//!
//! It uses the broker's wire protocol and its ring, but none of its other code, so that it can judge the broker.

pub mod adapter;
pub mod calls;
pub mod client;
mod clock;
pub mod command;
pub mod crowd;
pub mod format;
mod frame;
pub mod history;
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
pub mod tls;
pub mod token;
pub mod usage;
pub mod verdict;
mod worker;

pub use options::Options;
pub use outcome::Outcome;
pub use run::{Interrupt, run};
