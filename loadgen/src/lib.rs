//! A load generator for WebSocket brokers: many subscribers, one publisher, one thread, every message checked.
//!
//! It must cost less per message than the server it judges: one edge-triggered epoll, one shared read
//! buffer, frames counted by walking their headers. Where its own core was the limit, the report says so.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`options`] | the command line |
//! | `target` | where to connect: addresses and request heads |
//! | `connect` | opens the WebSockets, a bounded number at a time |
//! | [`payload`] | what a message carries: sequence number, time, filler |
//! | [`walk`] | finds messages in a stream of frames, however it was cut |
//! | `receive` | reads sockets, checks order, counts |
//! | `publish` | the publisher and its pacing |
//! | `server` | what the server used: processor, memory, its own counters |
//! | `children` | further processes, for more connections than one may open |
//! | `session` | one process's connections and its loop |
//! | `run` | one run from the first connection to the report |
//! | [`report`] | the result |
//!
//! It knows nothing of the broker's code: it speaks RFC 6455 on its own, so that it can judge.

pub mod adapter;
mod children;
mod clock;
mod connect;
pub mod figures;
pub mod live;
pub mod merge;
pub mod options;
pub mod outcome;
pub mod payload;
mod publish;
mod receive;
pub mod report;
pub mod results;
mod run;
#[cfg(test)]
mod sample;
pub mod series;
mod server;
mod session;
pub mod stamp;
mod target;
pub mod threshold;
pub mod verdict;
pub mod walk;

pub use options::Options;
pub use report::Report;
pub use run::run;
pub use server::{Counters, Memory, cpu_ns};
